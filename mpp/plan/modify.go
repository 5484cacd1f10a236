package plan

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// ModifyKind says how an UPDATE or DELETE is run.
type ModifyKind uint8

const (
	// ModifyLocal: on the coordinator's PostgreSQL, as Modification.Query says.
	ModifyLocal ModifyKind = iota
	// ModifyDirect: each segment runs Modification.Slice over its own rows.
	ModifyDirect
	// ModifyRows: the rows concerned are found first, by Modification.Rows,
	// then each is changed where it is.
	ModifyRows
)

func (k ModifyKind) String() string {
	return [...]string{"ModifyLocal", "ModifyDirect", "ModifyRows"}[k]
}

// Modification is a plan of an UPDATE or DELETE.
type Modification struct {
	Kind   ModifyKind
	Target *Relation
	Delete bool
	// Returning: the statement has RETURNING.
	Returning bool
	// Describe is what the coordinator's PostgreSQL can describe to learn
	// RETURNING's columns and the parameters; "" when the client's own text
	// will do.
	Describe string
	Reason   string // why it is not direct, for EXPLAIN

	// Query (ModifyLocal) is the statement with its sources: Local or Top.
	Query *Query

	// Slice (ModifyDirect) is the statement for the segments; the rows it
	// returns are RETURNING's.
	Slice Slice
	// Telling (ModifyDirect, unless it is for one segment) is Slice.SQL, with the same
	// parameters, for a segment that is to say when it has the statement's snapshot:
	// the WHERE asks pg_catalog.gp_snapshot_taken() as well. PostgreSQL does so once,
	// after it has taken that and before it looks at any row.
	Telling string
	// Replicated: every segment changes its copy (ModifyRows: given all the
	// rows, whatever segment they name); the number of rows and RETURNING
	// are those of one of them. Slice.Segments says where the copies are,
	// nil everywhere.
	Replicated bool

	// Rows (ModifyRows) is a SELECT to be planned by Select. Its columns,
	// in order: the row's segment (integer), its ctid (tid), its table by
	// name (regclass) if HasTable, then NumValues values. A row may come
	// several times (a join that matches it more than once); it is changed
	// once, as PostgreSQL does, whichever comes first.
	//
	// Nobody may change the table between the two steps: rows are known by
	// their ctid (those of a replicated table by their values). Lock it on
	// the coordinator first.
	Rows      *pg.Node
	HasTable  bool
	NumValues int
	// NewRow (an UPDATE that may move rows to other segments): the values
	// are the whole new row, for the columns NewColumns of Target, and after
	// them what RETURNING shows, if Returning. Delete the old row by
	// ApplySQL, insert the new one where it belongs.
	NewRow     bool
	NewColumns []int

	apply    *pg.Node // the statement that ApplySQL writes
	identity int      // how many values tell the rows of a replicated table apart
}

// SourceMark is the alias of the rows in the statement that [Modification.ApplySQL]
// writes.
const SourceMark = "?m"

// ApplySQL is the statement a segment runs to change the rows given to it
// (ModifyRows). source is a FROM item without alias, a table or a sub-select in
// parentheses, whose columns c1, c2, … are those of Rows in order and type.
// Unless NewRow, it returns what RETURNING shows.
func (m *Modification) ApplySQL(source string) (string, error) {
	p := &planner{}
	n := proto.CloneOf(m.apply)
	if m.identity > 0 {
		// A row that is to be changed in several ways must be changed in
		// the same way on all segments.
		var key, all []string
		for i := range m.NumValues {
			c := topColumn(2+i) + "::text"
			if all = append(all, c); i < m.identity {
				key = append(key, c)
			}
		}
		source = "(SELECT DISTINCT ON (" + strings.Join(key, ", ") + ") * FROM " + source + " AS x ORDER BY " + strings.Join(all, ", ") + ")"
	}
	item := p.addSource(source + " AS " + quote(SourceMark))
	if d := n.GetDeleteStmt(); d != nil {
		d.UsingClause = []*pg.Node{item}
	} else {
		n.GetUpdateStmt().FromClause = []*pg.Node{item}
	}
	return p.deparse(n)
}

// modifier plans one UPDATE or DELETE.
type modifier struct {
	*planner
	m    *Modification
	stmt *pg.Node // a copy of the statement
	rel  *pg.RangeVar
	sets []*pg.Node // of UPDATE
	from []*pg.Node
	cond *pg.Node
	ret  []*pg.Node
	with *pg.WithClause
}

// Modify plans an UPDATE or DELETE. stmt is not changed. The errors are like
// those of [Select]; what cannot be done to distributed tables (WHERE CURRENT
// OF, some forms of RETURNING) is refused with SQLSTATE 0A000.
func Modify(stmt *pg.Node, cat Catalog, opt Options) (*Modification, error) {
	if opt.NumSegments < 1 {
		return nil, errors.New("plan.Modify: there are no segments")
	}
	if opt.Token == nil {
		n := 0
		opt.Token = func() string { n++; return strconv.Itoa(n) }
	}
	m := &modifier{planner: &planner{look: newLookup(cat), opt: opt}, m: &Modification{}, stmt: proto.CloneOf(stmt)}
	switch s := m.stmt.Node.(type) {
	case *pg.Node_UpdateStmt:
		u := s.UpdateStmt
		m.rel, m.sets, m.from, m.cond, m.ret, m.with = u.Relation, u.TargetList, u.FromClause, u.WhereClause, u.ReturningList, u.WithClause
	case *pg.Node_DeleteStmt:
		d := s.DeleteStmt
		m.rel, m.from, m.cond, m.ret, m.with = d.Relation, d.UsingClause, d.WhereClause, d.ReturningList, d.WithClause
		m.m.Delete = true
	default:
		return nil, errors.New("plan.Modify: neither UPDATE nor DELETE")
	}
	m.salt = freeSalt(stmt)
	m.m.Returning = len(m.ret) > 0
	rel, err := m.look.relation(m.rel.Schemaname, m.rel.Relname)
	if err != nil {
		return nil, err
	}
	m.m.Target = rel
	if mentionsSpecials(stmt) {
		if m.m.Describe, err = m.describeStmt(); err != nil {
			return nil, err
		}
	}
	if rel != nil && rel.Kind == 'v' {
		if far, err := m.look.touches(rel); err != nil {
			return nil, err
		} else if far {
			return nil, &Error{Code: codeUnsupported, Message: "cannot change view \"" + rel.Name + "\" of a distributed table",
				Hint: "Change the table itself."}
		}
	}
	if rel == nil || rel.Policy == nil {
		m.m.Kind = ModifyLocal
		m.m.Query, err = m.local()
		return m.m, err
	}
	if m.cond.GetCurrentOfExpr() != nil {
		return nil, errorf(codeUnsupported, "WHERE CURRENT OF is not supported on distributed table %q", rel.Name)
	}
	done, err := m.direct()
	if err != nil || done {
		return m.m, err
	}
	m.m.Reason = m.reason
	return m.m, m.rows()
}

// query is the statement's names as a SELECT's: FROM the target and the other
// tables. Its parts are the statement's own.
func (m *modifier) query() *pg.SelectStmt {
	sel := newSelect()
	sel.FromClause = append([]*pg.Node{{Node: &pg.Node_RangeVar{RangeVar: m.rel}}}, m.from...)
	sel.WhereClause = m.cond
	sel.WithClause = m.with
	for _, n := range m.sets {
		if v := n.GetResTarget().GetVal(); v.GetMultiAssignRef() != nil {
			// The same source stands behind each of its columns.
			if r := v.GetMultiAssignRef(); r.Colno == 1 {
				sel.TargetList = append(sel.TargetList, target("", r.Source))
			}
		} else if v.GetSetToDefault() == nil {
			sel.TargetList = append(sel.TargetList, target("", v))
		}
	}
	sel.TargetList = append(sel.TargetList, m.ret...)
	return sel
}

// bind resolves the names of q.
func (m *modifier) bind(q *pg.SelectStmt, keepViews bool) (*level, error) {
	b := &binder{look: m.look, keepViews: keepViews}
	lv := b.selectStmt(q, nil, nil, nil)
	return lv, b.err
}

// describeStmt is the statement as PostgreSQL alone could run it.
func (m *modifier) describeStmt() (string, error) {
	c := *m
	c.stmt = proto.CloneOf(m.stmt)
	c.reread()
	nameAll(c.ret)
	lv, err := c.bind(c.query(), true)
	if err != nil {
		return "", err
	}
	replaceSpecialsIn(lv)
	c.writeBack(lv)
	return Deparse(c.stmt)
}

// reread takes the parts of m.stmt.
func (m *modifier) reread() {
	if u := m.stmt.GetUpdateStmt(); u != nil {
		m.rel, m.sets, m.from, m.cond, m.ret, m.with = u.Relation, u.TargetList, u.FromClause, u.WhereClause, u.ReturningList, u.WithClause
	} else {
		d := m.stmt.GetDeleteStmt()
		m.rel, m.from, m.cond, m.ret, m.with = d.Relation, d.UsingClause, d.WhereClause, d.ReturningList, d.WithClause
	}
}

// writeBack puts the parts of the statement back that binding and planning may
// have exchanged: a list that was a star.
func (m *modifier) writeBack(lv *level) {
	list := lv.sel.TargetList
	ret := list
	if n := len(m.query().TargetList) - len(m.ret); n <= len(list) {
		ret = list[n:]
	}
	if u := m.stmt.GetUpdateStmt(); u != nil {
		u.ReturningList = ret
	} else {
		m.stmt.GetDeleteStmt().ReturningList = ret
	}
}

// local plans a statement that changes a table of the coordinator.
func (m *modifier) local() (*Query, error) {
	far, err := m.look.distributed(m.stmt)
	if err != nil {
		return nil, err
	}
	q := &Query{Describe: m.m.Describe, Top: m.m.Describe}
	if !far {
		return q, nil
	}
	sel := m.query()
	lv, err := m.bind(sel, false)
	if err != nil {
		return nil, err
	}
	var levels []*level
	lv.each(func(l *level) bool {
		done := false
		if err == nil && l != lv {
			done, err = m.island(l, false)
		}
		if !done {
			levels = append(levels, l)
		}
		return !done
	})
	if err != nil {
		return nil, err
	}
	if err := m.prepare(levels); err != nil {
		return nil, err
	}
	for _, l := range levels {
		if err := m.gatherLevel(l); err != nil {
			return nil, err
		}
	}
	m.writeBack(lv)
	q.Top, err = m.deparse(m.stmt)
	q.Kind, q.Slices = Top, m.all()
	q.lock(lv)
	return q, err
}

// direct plans a statement that each segment can run over its own rows.
func (m *modifier) direct() (bool, error) {
	if m.opt.NoPushdown {
		m.because("push-down is off")
		return false, nil
	}
	if m.with != nil {
		m.because("WITH")
		return false, nil
	}
	rel := m.m.Target
	if m.setsKey() {
		m.because("it changes the distribution key")
		return false, nil
	}
	sel := m.query()
	lv, err := m.bind(sel, true)
	if err != nil {
		return false, err
	}
	if lv.sublinks > 0 {
		m.because("a sub-select")
		return false, nil
	}
	if lv.locksBelow() {
		m.because("a sub-select that locks rows")
		return false, nil
	}
	sh := &shape{lv: lv, refs: lv.refsByNode()}
	why := ""
	if sh.from, _, why = m.fromLocus(lv, sh.refs, nil); why == "" {
		why = m.rowClauses(lv, sh.refs)
	}
	if why == "" && rel.Policy.Kind != Replicated && sh.from.kind == locusReplicated {
		why = "rows that join may be on different segments"
	}
	if why == "" && rel.Policy.Kind == Replicated && sh.from.kind != locusReplicated {
		why = "it joins a distributed table"
	}
	s := &safety{p: m.planner, refs: sh.refs, okRef: okRef}
	if rel.Policy.Kind == Replicated {
		// Physical places differ between the copies.
		s.okRef = func(r *ref) bool { return r.kind != refSystem && okRef(r) }
		if why == "" && len(m.from) > 0 {
			why = "a join may match a row more than once"
		}
		if why == "" && m.cond != nil && !s.safe(m.cond) {
			why = s.why
		}
	}
	for _, n := range sel.TargetList {
		if v := n.GetResTarget().GetVal(); why == "" && !isStarRef(v) && !s.safe(v) {
			why = s.why
		}
	}
	for _, n := range m.sets {
		for _, i := range n.GetResTarget().Indirection {
			if why == "" && !s.safe(i) {
				why = s.why
			}
		}
	}
	if why != "" {
		m.because(why)
		return false, nil
	}
	sh.segments = m.keySegments(sh)
	slice := Slice{To: -1, Relation: rel.Name, Rows: rel.Rows, Segments: m.islandSegments(sh)}
	if rel.Policy.Kind == Replicated {
		slice.Segments = m.copies()
		m.m.Replicated = true
	}
	var c *pg.Node
	nameAll(m.ret)
	m.asOnSegments(lv, false, func() {
		c = proto.CloneOf(m.stmt)
		setRelation(c, proto.CloneOf(sel.FromClause[0].GetRangeVar()))
	})
	slice.SQL, slice.Params, err = m.sliceSQL(c)
	m.m.Kind, m.m.Slice = ModifyDirect, slice
	if err == nil && len(slice.Segments) != 1 {
		m.m.Telling, err = m.telling(c, slice.Params)
	}
	return true, err
}

// telling writes the slice's statement n as Modification.Telling. It changes n.
func (m *modifier) telling(n *pg.Node, params []int) (string, error) {
	var where **pg.Node
	if u := n.GetUpdateStmt(); u != nil {
		where = &u.WhereClause
	} else {
		where = &n.GetDeleteStmt().WhereClause
	}
	*where = askTaken(*where)
	return m.spell(n, params)
}

// askTaken is a WHERE that asks gp_snapshot_taken() as well.
func askTaken(where *pg.Node) *pg.Node {
	ask := newSelect()
	ask.TargetList = []*pg.Node{target("", funcCall("gp_snapshot_taken"))}
	taken := &pg.Node{Node: &pg.Node_SubLink{SubLink: &pg.SubLink{SubLinkType: pg.SubLinkType_EXPR_SUBLINK, Subselect: selectNode(ask), Location: -1}}}
	return and(append(conjuncts(where), taken))
}

func setRelation(n *pg.Node, rv *pg.RangeVar) {
	if u := n.GetUpdateStmt(); u != nil {
		u.Relation = rv
	} else {
		n.GetDeleteStmt().Relation = rv
	}
}

// setsKey says whether an UPDATE sets a column of the distribution key, or that of a table
// that inherits from the target.
func (m *modifier) setsKey() bool {
	rel := m.m.Target
	if rel.Policy.Kind == Replicated {
		return false
	}
	keys := rel.Policy.Keys
	if m.rel.Inh {
		keys = slices.Concat(keys, rel.ChildKeys)
	}
	for _, n := range m.sets {
		for _, k := range keys {
			if rel.Columns[k].Name == n.GetResTarget().GetName() {
				return true
			}
		}
	}
	return false
}

// targetAlias is the name the statement knows its target by.
func (m *modifier) targetAlias() string {
	if m.rel.Alias != nil {
		return m.rel.Alias.Aliasname
	}
	return m.rel.Relname
}

// columnIndex is the index of a column of the target, or an error as
// PostgreSQL's.
func (m *modifier) columnIndex(name string) (int, error) {
	i := slices.IndexFunc(m.m.Target.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return 0, errorf(codeUndefinedCol, "column %q of relation %q does not exist", name, m.m.Target.Name)
	}
	return i, nil
}
