package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Set operations that the segments run, each over its own rows. UNION ALL needs
// nothing but arms that they can run. The others compare whole rows: what is
// equal must be on one segment, so both arms are placed by the same result
// columns, or the one that takes rows away is everywhere.

// reasons of set operations that moves may change
const (
	setApart = "equal rows that may be on different segments"
	setMixed = "UNION ALL of replicated and distributed rows"
)

// rowsLocus says where the rows are that a level makes; keys are, for each
// column of the distribution key, the result columns that have its value.
type rowsLocus struct {
	kind locusKind
	segs int
	keys [][]int
	only []int // the only segments that have rows; nil: all
}

// isSet says whether a level is a set operation.
func (lv *level) isSet() bool { return lv.arms[0] != nil }

// unionAll says whether a level is a UNION ALL.
func (lv *level) unionAll() bool {
	return lv.isSet() && lv.sel.Op == pg.SetOperation_SETOP_UNION && lv.sel.All
}

// setLocus finds where the rows of a set operation are, but for its ORDER BY
// and LIMIT.
func (p *planner) setLocus(lv *level) (rowsLocus, string) {
	l, r := lv.arms[0], lv.arms[1]
	switch {
	case lv.sel.WithClause != nil:
		return rowsLocus{}, "WITH"
	case lv.sublinks > 0:
		return rowsLocus{}, subExpression
	case !l.known || !r.known || len(l.outs) != len(r.outs):
		return rowsLocus{}, "a set operation of columns that are not known"
	}
	left, why := p.levelLocus(l)
	if why != "" {
		return rowsLocus{}, why
	}
	right, why := p.levelLocus(r)
	if why != "" {
		return rowsLocus{}, why
	}
	lRep, rRep := left.kind == locusReplicated, right.kind == locusReplicated
	both := rowsLocus{kind: locusHashed, segs: left.segs, only: merged(left.only, right.only)}
	if !lRep && !rRep && left.segs == right.segs {
		both.keys = lv.sameKeys(left, right)
	}
	if lv.unionAll() {
		switch {
		case lRep && rRep:
			return rowsLocus{kind: locusReplicated, segs: min(left.segs, right.segs)}, ""
		case lRep || rRep:
			return rowsLocus{}, setMixed // each segment would add all of them
		case left.segs != right.segs:
			return rowsLocus{}, setApart
		case both.keys == nil:
			both.kind = locusStrewn
		}
		return both, ""
	}
	union := lv.sel.Op == pg.SetOperation_SETOP_UNION
	switch {
	case lRep && rRep:
		if !lv.alike() {
			return rowsLocus{}, setApart
		}
		return rowsLocus{kind: locusReplicated, segs: min(left.segs, right.segs)}, ""
	case rRep && !union && right.segs >= left.segs:
		left.keys = lv.sameKeys(left, left)
		both = left
	case lRep && lv.sel.Op == pg.SetOperation_SETOP_INTERSECT && left.segs >= right.segs:
		right.keys = lv.sameKeys(right, right)
		both = right
	}
	if both.kind != locusHashed || both.keys == nil {
		return rowsLocus{}, setApart
	}
	return both, ""
}

// merged are the segments of either list, nil when one has all.
func merged(a, b []int) []int {
	if a == nil || b == nil {
		return nil
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// alikeFamilies are the hash families whose equal values look the same.
var alikeFamilies = map[string]bool{"int": true, "text": true, "bool": true, "bytea": true, "oid": true, "uuid": true, "macaddr": true,
	"date": true, "time": true, "timestamp": true, "timestamptz": true}

// alike says whether equal rows of a level look the same. Where they do not,
// each segment could show another of them.
func (lv *level) alike() bool {
	for i := range lv.outs {
		if !alikeFamilies[lv.outFamily(i)] {
			return false
		}
	}
	return true
}

// sameKeys are the keys of the rows of both arms when they are placed by the same
// result columns, nil when they are not.
func (lv *level) sameKeys(l, r rowsLocus) (keys [][]int) {
	if l.kind != locusHashed || r.kind != locusHashed || len(l.keys) != len(r.keys) {
		return nil
	}
	for i := range l.keys {
		var cols []int
		for _, c := range l.keys[i] {
			if slices.Contains(r.keys[i], c) && lv.outFamily(c) != "" {
				cols = append(cols, c)
			}
		}
		if cols == nil {
			return nil
		}
		keys = append(keys, cols)
	}
	return keys
}

// outFamily is the hash family of result column i. That of a set operation has
// one if the columns of both arms have it: the common type of two types of a
// family is of the family.
func (lv *level) outFamily(i int) string {
	if lv.isSet() {
		f := lv.arms[0].outFamily(i)
		if f != lv.arms[1].outFamily(i) {
			return ""
		}
		return f
	}
	id, ok := lv.outColumnID(i)
	if !ok {
		return ""
	}
	return familyOf(id)
}

// levelLocus finds where the rows of a level are that each segment can make its
// own share of.
func (p *planner) levelLocus(lv *level) (rowsLocus, string) {
	sel := lv.sel
	distinct := len(sel.DistinctClause) > 0
	if len(sel.SortClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil || distinct && sel.DistinctClause[0].GetNode() != nil {
		return rowsLocus{}, "ORDER BY, LIMIT or DISTINCT ON"
	}
	if lv.isSet() {
		return p.setLocus(lv)
	}
	sh, why := p.shapeOf(lv)
	if why != "" {
		return rowsLocus{}, why
	}
	if why := p.clauses(sh, false); why != "" {
		return rowsLocus{}, why
	}
	if sh.rest > 0 {
		return rowsLocus{}, subExpression
	}
	if sh.from.kind == locusReplicated && sh.aggregates && !sh.windows && lv.exactGroups() {
		// Each segment has all of the first stages' rows.
		if why := p.clauses(sh, true); why != "" {
			return rowsLocus{}, why
		}
	} else if sh.windows && !sh.windowsByKey() || sh.aggregates && !sh.groupsByKey() || !lv.known {
		// Not even over replicated tables: numbers given to rows in no
		// order would be others on each segment.
		return rowsLocus{}, subGroups
	}
	if distinct && !sh.distinctByKey() && !(sh.from.kind == locusReplicated && lv.alike()) {
		return rowsLocus{}, setApart
	}
	out := rowsLocus{kind: sh.from.kind, segs: sh.from.segs, only: sh.segments}
	if out.kind != locusHashed {
		return out, ""
	}
	for _, key := range sh.from.keys {
		var cols []int
		for i := range lv.vals {
			if id, ok := lv.outColumnID(i); ok && slices.Contains(key, id) {
				cols = append(cols, i)
			}
		}
		if len(cols) == 0 {
			// The key is not shown: nobody can tell the rows by it.
			return rowsLocus{kind: locusStrewn, segs: out.segs, only: out.only}, ""
		}
		out.keys = append(out.keys, cols)
	}
	return out, ""
}

// setShape is the shape of a set operation that is an island of its own.
func (p *planner) setShape(lv *level) (*shape, string) {
	l, why := p.setLocus(lv)
	if why == "" && lv.outer {
		why = "a reference to an outer query"
	}
	if why != "" {
		return nil, "a set operation with " + why
	}
	sh := &shape{lv: lv, refs: lv.refsByNode(), from: locus{kind: l.kind, segs: l.segs}}
	if l.kind != locusReplicated && !p.movesOf(lv) {
		sh.segments = l.only
	}
	return sh, ""
}

// pushSet makes the segments run a set operation; order and limits are the
// coordinator's.
func (p *planner) pushSet(sh *shape, root bool) (bool, string, error) {
	lv := sh.lv
	sel := lv.sel
	segments := p.islandSegments(sh)
	if seg, ok := p.single(sh); ok {
		segments = []int{seg}
	}
	limited := !isNullLimit(sel.LimitCount) || sel.LimitOffset != nil
	if root && !limited && len(sel.SortClause) == 0 {
		return p.gatherAll(sh, p.segmentCopy(lv, sel), segments)
	}
	top := newSelect()
	for _, n := range sel.SortClause {
		k, ok := sh.setSortKey(plainSort(n.GetSortBy().GetNode()))
		if !ok {
			return false, "an ORDER BY item that is not understood", nil
		}
		by := proto.CloneOf(n.GetSortBy())
		by.Node = recollate(by.Node, colRef(topAlias, topColumn(k)))
		top.SortClause = append(top.SortClause, &pg.Node{Node: &pg.Node_SortBy{SortBy: by}})
	}
	s := p.segmentCopy(lv, sel)
	if n, ok := pushedLimit(sel); ok {
		s.LimitCount, s.LimitOffset, s.LimitOption = n, nil, pg.LimitOption_LIMIT_OPTION_COUNT
	} else {
		s.LimitCount, s.LimitOffset, s.SortClause, s.LimitOption = nil, nil, nil, pg.LimitOption_LIMIT_OPTION_DEFAULT
	}
	cols, err := p.describe(s)
	if err != nil {
		return false, "", err
	}
	if len(cols) != len(lv.outs) {
		return false, "a set operation of columns that are not known", nil
	}
	for i := range cols {
		if collatable(cols[i].TypeOID) && (sh.collated() || castsToUserType(selectNode(sel))) {
			return false, "a collation that is not certain", nil
		}
		cols[i].Name = lv.outs[i]
	}
	if why := unfit(cols); why != "" {
		return false, why, nil
	}
	top.LimitCount, top.LimitOffset, top.LimitOption = sel.LimitCount, sel.LimitOffset, sel.LimitOption
	return p.replaceLevel(sh, s, cols, len(cols), segments, top)
}

// setSortKey is the result column that an ORDER BY item of a set operation means.
func (sh *shape) setSortKey(n *pg.Node) (int, bool) {
	if r := sh.refs[n]; r != nil && r.kind == refOutput {
		return r.col, r.col >= 0
	}
	if c := n.GetAConst().GetIval(); c != nil {
		i := int(c.Ival) - 1
		return i, i >= 0 && i < len(sh.lv.outs)
	}
	return 0, false
}
