package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Where the rows of a FROM clause are, and whether rows that join are on one
// segment.

// colID is a column of a row source.
type colID struct {
	rte *rte
	col int
}

type locusKind uint8

const (
	locusNone       locusKind = iota // no segment can make these rows alone
	locusHashed                      // on the segment of their key
	locusStrewn                      // each row on one segment, no telling which
	locusReplicated                  // all rows on every segment
)

// locus says where rows are.
type locus struct {
	kind locusKind
	segs int // how many segments have them
	// keys are, for each column of the distribution key, the columns known
	// to be equal to it in every row.
	keys [][]colID
}

// families are the types whose equality goes with Greenplum's hash: equal
// values of one family are on one segment.
var families = map[uint32]string{
	21: "int", 23: "int", 20: "int",
	25: "text", 1043: "text",
	700: "float", 701: "float",
	16: "bool", 17: "bytea", 18: "char", 26: "oid", 829: "macaddr", 774: "macaddr8", 869: "inet", 650: "cidr",
	1042: "bpchar", 1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval",
	1266: "timetz", 1700: "numeric", 2950: "uuid",
}

// family is the hash family of a column, "" when its rows cannot be told by it.
func family(c *Column) string {
	if c == nil || c.Collation != "" {
		return ""
	}
	return families[c.TypeOID]
}

// familyOf is the hash family of a column of a source.
func familyOf(id colID) string {
	if r := id.rte; r != nil && r.kind == rteSub && r.sub != nil && r.sub.known {
		return r.sub.outFamily(id.col)
	}
	return family(baseColumn(id))
}

// baseColumn is the table column that a column of a source is, nil when it is
// something else.
func baseColumn(id colID) *Column {
	r := id.rte
	switch {
	case r == nil || id.col < 0:
	case r.kind == rteGather && id.col < len(r.rel.Columns):
		return &r.rel.Columns[id.col]
	case r.kind == rteSub && r.sub != nil && r.sub.known:
		if in, ok := r.sub.outColumnID(id.col); ok {
			return baseColumn(in)
		}
	}
	return nil
}

// outColumnID is the column of a source that result column i is.
func (lv *level) outColumnID(i int) (colID, bool) {
	if i < 0 || i >= len(lv.vals) || !lv.known {
		return colID{}, false
	}
	if s := lv.vals[i].star; s != nil {
		return s.id()
	}
	return lv.exprColumnID(lv.vals[i].expr)
}

// exprColumnID is the column of a source that an expression is.
func (lv *level) exprColumnID(n *pg.Node) (colID, bool) {
	if n.GetColumnRef() == nil {
		return colID{}, false
	}
	for _, r := range lv.refs {
		if r.node == n {
			return r.columnID()
		}
	}
	return colID{}, false
}

// columnID is the column of a source that a reference is. Of a merged column
// it is the side the value comes from.
func (r *ref) columnID() (colID, bool) {
	switch r.kind {
	case refColumn:
		return colID{r.rte, r.col}, r.rte.kind != rteJoin
	case refMerged:
		c := starCol{merged: r.merged}
		return c.id()
	}
	return colID{}, false
}

func (c *starCol) id() (colID, bool) {
	m := c.merged
	if m == nil {
		return colID{c.rte, c.col}, c.rte != nil && c.rte.kind != rteJoin
	}
	switch m.join {
	case pg.JoinType_JOIN_INNER, pg.JoinType_JOIN_LEFT:
		return m.left.id()
	case pg.JoinType_JOIN_RIGHT:
		return m.right.id()
	}
	return colID{}, false
}

// equalities are pairs of columns that are equal, made transitive.
type equalities struct {
	up map[colID]colID
}

func (e *equalities) root(c colID) colID {
	for {
		p, ok := e.up[c]
		if !ok || p == c {
			return c
		}
		c = p
	}
}

func (e *equalities) add(a, b colID) {
	if e.up == nil {
		e.up = map[colID]colID{}
	}
	if ra, rb := e.root(a), e.root(b); ra != rb {
		e.up[ra] = rb
	}
}

func (e *equalities) same(a, b colID) bool { return a == b || e.root(a) == e.root(b) }

func (e *equalities) clone() *equalities {
	c := &equalities{up: make(map[colID]colID, len(e.up))}
	for k, v := range e.up {
		c.up[k] = v
	}
	return c
}

// equate adds the equalities of columns that a condition demands.
func (e *equalities) equate(cond *pg.Node, refs map[*pg.Node]*ref) {
	for _, c := range conjuncts(cond) {
		x := c.GetAExpr()
		if x == nil || !isEquals(x) {
			continue
		}
		a, b := refs[x.Lexpr], refs[x.Rexpr]
		if a == nil || b == nil {
			continue
		}
		l, ok1 := a.columnID()
		r, ok2 := b.columnID()
		if ok1 && ok2 {
			e.equal(l, r)
		}
	}
}

// equal adds one equality if the columns' equality goes with their hash.
func (e *equalities) equal(a, b colID) {
	if f := familyOf(a); f != "" && f == familyOf(b) {
		e.add(a, b)
	}
}

// isEquals says whether an operator expression is PostgreSQL's own =.
func isEquals(x *pg.A_Expr) bool {
	if x.Kind != pg.A_Expr_Kind_AEXPR_OP || x.Lexpr == nil || x.Rexpr == nil {
		return false
	}
	switch len(x.Name) {
	case 1:
		return x.Name[0].GetString_().GetSval() == "="
	case 2:
		return x.Name[0].GetString_().GetSval() == "pg_catalog" && x.Name[1].GetString_().GetSval() == "="
	}
	return false
}

// fromLocus finds where the rows of a level's FROM clause are, and what is equal
// in all of them that WHERE lets through. given are the equalities of the levels
// above, or nil.
func (p *planner) fromLocus(lv *level, refs map[*pg.Node]*ref, given *equalities) (locus, *equalities, string) {
	eq := &equalities{}
	if given != nil {
		eq = given.clone()
	}
	eq.equate(lv.sel.WhereClause, refs)
	var all locus
	for i, it := range lv.items {
		l, why := p.itemLocus(it, eq, refs)
		if why != "" {
			return l, eq, why
		}
		if i == 0 {
			all = l
			continue
		}
		if all, why = joinLocus(pg.JoinType_JOIN_INNER, all, l, eq); why != "" {
			return all, eq, why
		}
	}
	return all, eq, ""
}

// itemLocus finds where the rows of a FROM item are. eq are the equalities that
// all rows that matter fulfil.
func (p *planner) itemLocus(it *fromItem, eq *equalities, refs map[*pg.Node]*ref) (locus, string) {
	if it.join == nil || it.left == nil {
		return p.rteLocus(it.rte)
	}
	on := &equalities{}
	if it.join.Jointype != pg.JoinType_JOIN_FULL {
		on = eq
	}
	on = on.clone()
	on.equate(it.join.Quals, refs)
	for _, m := range it.merged {
		// USING. Merged columns of joins below are in the list too, and
		// hold there as well unless that join is an outer one.
		l, ok1 := m.left.id()
		r, ok2 := m.right.id()
		if ok1 && ok2 && (m.join == pg.JoinType_JOIN_INNER || it.owns(m)) {
			on.equal(l, r)
		}
	}
	leftEq, rightEq := on, on
	switch it.join.Jointype {
	case pg.JoinType_JOIN_INNER:
	case pg.JoinType_JOIN_LEFT:
		leftEq = eq
	case pg.JoinType_JOIN_RIGHT:
		rightEq = eq
	default:
		leftEq, rightEq = &equalities{}, &equalities{}
	}
	l, why := p.itemLocus(it.left, leftEq, refs)
	if why != "" {
		return l, why
	}
	r, why := p.itemLocus(it.right, rightEq, refs)
	if why != "" {
		return r, why
	}
	return joinLocus(it.join.Jointype, l, r, on)
}

// owns says whether m is a merged column of it itself.
func (it *fromItem) owns(m *mergedCol) bool {
	return !slices.Contains(it.left.merged, m) && !slices.Contains(it.right.merged, m)
}

// joinLocus finds where the rows of a join are.
func joinLocus(join pg.JoinType, l, r locus, eq *equalities) (locus, string) {
	lRep, rRep := l.kind == locusReplicated, r.kind == locusReplicated
	switch {
	case lRep && rRep:
		l.segs = min(l.segs, r.segs)
		return l, ""
	case rRep:
		if r.segs < l.segs || join != pg.JoinType_JOIN_INNER && join != pg.JoinType_JOIN_LEFT {
			return locus{}, apart
		}
		return l, ""
	case lRep:
		if l.segs < r.segs || join != pg.JoinType_JOIN_INNER && join != pg.JoinType_JOIN_RIGHT {
			return locus{}, apart
		}
		return r, ""
	case l.kind != locusHashed || r.kind != locusHashed || l.segs != r.segs || len(l.keys) != len(r.keys):
		return locus{}, apart
	}
	for i := range l.keys {
		if !meets(l.keys[i], r.keys[i], eq) {
			return locus{}, apart
		}
	}
	switch join {
	case pg.JoinType_JOIN_INNER:
		both := locus{kind: locusHashed, segs: l.segs}
		for i := range l.keys {
			both.keys = append(both.keys, append(append([]colID(nil), l.keys[i]...), r.keys[i]...))
		}
		return both, ""
	case pg.JoinType_JOIN_LEFT:
		return l, ""
	case pg.JoinType_JOIN_RIGHT:
		return r, ""
	case pg.JoinType_JOIN_FULL:
		// A row of either side alone has the other's key NULL.
		return locus{kind: locusStrewn, segs: l.segs}, ""
	}
	return locus{}, apart
}

// meets says whether some column of a is equal to some column of b.
func meets(a, b []colID, eq *equalities) bool {
	for _, x := range a {
		for _, y := range b {
			if eq.same(x, y) && familyOf(x) == familyOf(y) {
				return true
			}
		}
	}
	return false
}

// rteLocus finds where the rows of a source are.
func (p *planner) rteLocus(r *rte) (locus, string) {
	if r == nil {
		return locus{}, "a FROM item of an unknown kind"
	}
	if m := p.moves[r]; m != nil && !m.stays {
		return m.locus(r, p.opt.NumSegments), ""
	}
	switch r.kind {
	case rteGather:
		return p.tableLocus(r)
	case rteSub:
		return p.subLocus(r)
	case rteCTE:
		if segs := p.with[r.with]; segs > 0 {
			return locus{kind: locusReplicated, segs: segs}, ""
		}
		return locus{}, "a WITH query"
	case rteLocal:
		return locus{}, "a table of the coordinator"
	}
	return locus{}, "a function in FROM"
}

func (p *planner) tableLocus(r *rte) (locus, string) {
	if r.first != nil {
		return locus{}, apart // it is nowhere until it is moved
	}
	n := p.opt.NumSegments
	if r.random || r.rel.Policy == nil {
		return locus{kind: locusStrewn, segs: n}, ""
	}
	pol := r.rel.Policy
	if pol.NumSegments > 0 && pol.NumSegments < n {
		n = pol.NumSegments
	}
	switch pol.Kind {
	case Replicated:
		if r.sample != nil {
			return locus{}, copySample
		}
		return locus{kind: locusReplicated, segs: n}, ""
	case Hashed:
		l := locus{kind: locusHashed, segs: n}
		// The children of a table that is not partitioned may be
		// distributed otherwise.
		if r.rel.HasChildren && r.rel.Kind != 'p' || len(pol.Keys) == 0 {
			return locus{kind: locusStrewn, segs: n}, ""
		}
		for _, k := range pol.Keys {
			id := colID{r, k}
			if family(baseColumn(id)) == "" {
				return locus{kind: locusStrewn, segs: n}, ""
			}
			l.keys = append(l.keys, []colID{id})
		}
		return l, ""
	}
	return locus{kind: locusStrewn, segs: n}, ""
}
