package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// An island is a query level that the segments can run as a whole, each over
// its own rows, so that only results travel. Three kinds:
//
//   - single: all rows are on one segment (replicated tables, a given key). It
//     runs the level as it is.
//   - rows: what the segments make is the level's rows, but for order, limits
//     and duplicates, which the coordinator sees to.
//   - two stages: the segments aggregate their rows, the coordinator their
//     results.

// shape is what a level has.
type shape struct {
	lv   *level
	refs map[*pg.Node]*ref
	from locus

	aggregates bool // GROUP BY, HAVING or an aggregate
	windows    bool
	srf        bool // set-returning functions in the select list
	rest       int  // sub-selects in expressions after WHERE

	segments []int // the only ones that have rows; nil: all of the locus
}

// island plans a level as an island if that is certain to be right. root says
// that its rows are the client's.
func (p *planner) island(lv *level, root bool) (done bool, err error) {
	if p.opt.NoPushdown || p.opt.noIslands || lv.untyped() {
		return false, nil
	}
	done, why, err := p.placeAndPush(lv, root)
	if !done && err == nil && p.cutsJoins {
		// In one slice perhaps.
		p.plain = true
		done, why, err = p.placeAndPush(lv, root)
		p.plain = false
	}
	if root && !done {
		p.because(why)
	}
	return done, err
}

// placeAndPush finds out where the rows of a level are, and makes it an island.
func (p *planner) placeAndPush(lv *level, root bool) (done bool, why string, err error) {
	p.cutsJoins = false
	sh, why, err := p.placed(lv)
	if err != nil {
		return false, "", err
	}
	locks := false
	if sh != nil {
		locks = p.locksRows(lv)
		done, why, err = p.pushWith(sh, root)
		if !done && err == nil && why == aggregateDistinct {
			// What is counted once each segment sends once.
			p.finer = true
			done, _, err = p.push(sh, root)
			p.finer = false
		}
		if !done && err == nil && sh.aggregates {
			// Perhaps when the rows of each group are on one segment.
			if again := p.regroup(sh.lv, sh); again != nil {
				sh = again
				done, _, err = p.pushWith(sh, root)
			}
		}
	}
	if done {
		p.keepInputs(sh, len(p.slices)-1, false)
		if locks && sh.lv == lv {
			lv.each(func(l *level) bool { l.locked = true; return true })
		}
		if over := sh.lv; over != lv {
			setSelect(lv.sel, over.sel)
			lv.kept = over.kept
			if p.folded == over {
				p.folded = lv
			}
		}
	} else {
		p.uncut()
	}
	p.moves, p.undo = nil, nil
	return done, why, err
}

// pushWith is push with the inputs that the planner's moves need.
func (p *planner) pushWith(sh *shape, root bool) (bool, string, error) {
	if len(p.moves) > 0 && sh.lv.locksBelow() {
		return false, "a sub-select that locks rows", nil
	}
	if err := p.makeInputs(sh); err != nil {
		return false, "", err
	}
	return p.push(sh, root)
}

// push picks the kind of island.
func (p *planner) push(sh *shape, root bool) (bool, string, error) {
	if sh.lv.isSet() {
		return p.pushSet(sh, root)
	}
	if sh.rest > 0 {
		if sh.aggregates && sh.from.kind != locusReplicated {
			return p.pushTwoStage(sh, root) // the coordinator evaluates them
		}
		return false, subExpression, nil
	}
	if seg, ok := p.single(sh); ok {
		if why := p.clauses(sh, true); why != "" {
			return false, why, nil
		}
		return p.pushSingle(sh, seg, root)
	}
	if why := p.clauses(sh, false); why != "" {
		return false, why, nil
	}
	if sh.windows && !sh.windowsByKey() {
		if sh.aggregates {
			return p.pushTwoStage(sh, root)
		}
		return false, "a window that needs the rows of several segments", nil
	}
	if sh.aggregates && !sh.groupsByKey() {
		return p.pushTwoStage(sh, root)
	}
	return p.pushRows(sh, root)
}

// untyped says whether a level is an arm of a set operation that cannot be an
// island without the other: a parameter or constant without a type takes it from
// there.
func (lv *level) untyped() bool {
	if lv.isSet() || lv.parent == nil || !lv.parent.isSet() {
		return false
	}
	for _, v := range lv.vals {
		c := v.expr.GetAConst()
		if v.expr.GetParamRef() != nil || c != nil && (c.Isnull || c.GetSval() != nil || c.GetBsval() != nil) {
			return true
		}
	}
	return false
}

// shapeOf looks at what all islands need of a level.
func (p *planner) shapeOf(lv *level) (*shape, string) {
	sel := lv.sel
	switch {
	case lv.isSet():
		return p.setShape(lv)
	case len(sel.ValuesLists) > 0 || len(sel.FromClause) == 0:
		return nil, "no table"
	case lv.sublinks > len(lv.links):
		return nil, subExpression
	case lv.outer:
		return nil, "a reference to an outer query"
	}
	sh := &shape{lv: lv, refs: lv.refsByNode()}
	var why string
	var eq *equalities
	if why = p.placeWith(lv); why != "" {
		return nil, why
	}
	defer p.forgetWith(lv)
	if sh.from, eq, why = p.fromLocus(lv, sh.refs, nil); why != "" {
		return nil, why
	}
	if why = p.rowClauses(lv, sh.refs); why != "" {
		return nil, why
	}
	if why = p.linksFit(lv, sh.from, eq, sh.refs); why != "" {
		return nil, why
	}
	sh.rest = len(lv.links) - len(lv.rowLinks())
	if why = p.classify(sh); why != "" {
		return nil, why
	}
	for _, r := range lv.refs {
		// Where its row is missing it is NULL, and not the segment at work.
		if r.kind == refSystem && r.name == segmentID && !sh.preserved(r.rte) {
			return nil, "gp_segment_id of a table that an outer join may have no row of"
		}
	}
	sh.segments = p.keySegments(sh)
	return sh, ""
}

// classify finds out what a level does with its rows.
func (p *planner) classify(sh *shape) string {
	sel := sh.lv.sel
	sh.aggregates = len(sel.GroupClause) > 0 || sel.HavingClause != nil
	sh.windows = len(sel.WindowClause) > 0
	for _, c := range sh.lv.calls {
		schema, name := funcName(c.fn)
		fn, err := p.look.function(schema, name)
		if err != nil || !fn.Found {
			if isExecutionSegment(c.fn) {
				continue
			}
			return "function " + name
		}
		switch {
		case c.fn.Over != nil:
			sh.windows = true
		case fn.Aggregate:
			sh.aggregates = true
		case fn.SetReturning:
			sh.srf = true
		}
	}
	return ""
}

// okRef says whether a reference of an island's level means the same on a
// segment.
func okRef(r *ref) bool {
	switch r.kind {
	case refColumn, refMerged, refOutput:
		return true
	case refSystem:
		return r.name != "tableoid" && (r.rte.kind == rteGather || r.name == segmentID)
	case refWhole:
		return r.rte.kind == rteGather
	}
	return false
}

// rowClauses says what in FROM and WHERE cannot be evaluated on a segment, but
// for the levels of sub-selects in WHERE, and in ON where no outer join is above:
// see linksFit.
func (p *planner) rowClauses(lv *level, refs map[*pg.Node]*ref) string {
	s := &safety{p: p, refs: refs, okRef: okRef}
	safe := func(n *pg.Node, links bool) bool {
		s.links = links
		return n == nil || s.safe(n)
	}
	if !safe(lv.sel.WhereClause, true) {
		return s.why
	}
	var quals func(it *fromItem, inner bool) bool
	quals = func(it *fromItem, inner bool) bool {
		if it.join == nil || it.left == nil {
			if it.rte != nil && it.rte.sample != nil {
				for _, a := range it.rte.sample.Args {
					if !safe(a, false) {
						return false
					}
				}
				return safe(it.rte.sample.Repeatable, false)
			}
			return true
		}
		inner = inner && it.join.Jointype == pg.JoinType_JOIN_INNER
		return safe(it.join.Quals, inner) && quals(it.left, inner) && quals(it.right, inner)
	}
	for _, it := range lv.items {
		if !quals(it, true) {
			return s.why
		}
	}
	return ""
}

// clauses says what in the rest of a level cannot be evaluated on a segment. A
// single segment evaluates LIMIT and ORDER BY too.
func (p *planner) clauses(sh *shape, single bool) string {
	sel := sh.lv.sel
	if sh.aggregates && !single && !sh.groupsByKey() {
		return "" // two stages look for themselves
	}
	s := &safety{p: p, refs: sh.refs, okRef: okRef, aggregates: true, windows: true, srf: true}
	for _, n := range sel.TargetList {
		if v := n.GetResTarget().GetVal(); !isStarRef(v) && !s.safe(v) {
			return s.why
		}
	}
	s.srf = false
	for _, list := range [][]*pg.Node{sel.GroupClause, sel.WindowClause, {sel.HavingClause}} {
		for _, n := range list {
			if n.GetNode() != nil && !s.safe(n) {
				return s.why
			}
		}
	}
	for _, n := range sel.DistinctClause {
		if n.GetNode() != nil && !s.safe(n) {
			return s.why
		}
	}
	for _, n := range sel.SortClause {
		sb := n.GetSortBy()
		if !s.safe(plainSort(sb.GetNode())) {
			return s.why
		}
	}
	if single {
		for _, n := range []*pg.Node{sel.LimitCount, sel.LimitOffset} {
			if n != nil && !s.safe(n) {
				return s.why
			}
		}
	}
	return ""
}

// plainSort is a sort expression without its COLLATE.
func plainSort(n *pg.Node) *pg.Node {
	for n.GetCollateClause() != nil {
		n = n.GetCollateClause().Arg
	}
	return n
}

// isStarRef says whether n is * or t.* of the select list.
func isStarRef(n *pg.Node) bool { return n.GetColumnRef() != nil && isStar(n) }

// single says whether one segment has all the rows, and which.
func (p *planner) single(sh *shape) (int, bool) {
	if sh.from.kind == locusReplicated {
		return p.opt.Replica % sh.from.segs, true
	}
	if len(sh.segments) == 1 {
		return sh.segments[0], true
	}
	return 0, false
}

// columnOf is the source column a GROUP BY, PARTITION BY or result expression
// is.
func (sh *shape) columnOf(n *pg.Node) (colID, bool) {
	r := sh.refs[n]
	if r == nil {
		return colID{}, false
	}
	if r.kind == refOutput {
		return sh.lv.outColumnID(r.col)
	}
	return r.columnID()
}

// isSegmentID says whether n is gp_segment_id of the level's tables: all rows
// of a segment have the same.
func (sh *shape) isSegmentID(n *pg.Node) bool {
	if c := n.GetFuncCall(); c != nil {
		return isExecutionSegment(c)
	}
	r := sh.refs[n]
	if r == nil {
		return false
	}
	if r.kind == refOutput {
		if r.col < 0 || r.col >= len(sh.lv.vals) || !sh.lv.known {
			return false
		}
		if e := sh.lv.vals[r.col].expr; e != nil && e != n {
			return sh.isSegmentID(e)
		}
		return false
	}
	return r.kind == refSystem && r.name == segmentID && sh.preserved(r.rte)
}

// preserved says whether a source's rows are never filled up with NULLs: then
// its gp_segment_id is that of the whole row.
func (sh *shape) preserved(r *rte) bool {
	var rows func(it *fromItem) bool
	rows = func(it *fromItem) bool {
		if it.join == nil || it.left == nil {
			return it.rte == r
		}
		switch it.join.Jointype {
		case pg.JoinType_JOIN_INNER:
			return rows(it.left) || rows(it.right)
		case pg.JoinType_JOIN_LEFT:
			return rows(it.left)
		case pg.JoinType_JOIN_RIGHT:
			return rows(it.right)
		}
		return false
	}
	for _, it := range sh.lv.items {
		if rows(it) {
			return true
		}
	}
	return false
}

// covers says whether expressions include the whole distribution key, so that
// rows that agree in them are on one segment.
func (sh *shape) covers(exprs []*pg.Node) bool {
	var cols []colID
	for _, n := range exprs {
		if sh.isSegmentID(n) {
			return true
		}
		if id, ok := sh.columnOf(n); ok {
			cols = append(cols, id)
		}
	}
	return coversKey(sh.from, cols)
}

func coversKey(l locus, cols []colID) bool {
	if l.kind != locusHashed || len(l.keys) == 0 {
		return false
	}
	for _, key := range l.keys {
		found := false
		for _, k := range key {
			for _, c := range cols {
				found = found || c == k
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// groupExprs are the expressions of GROUP BY with positions resolved; ok is
// false for grouping sets.
func (sh *shape) groupExprs() (exprs []*pg.Node, ok bool) {
	for _, n := range sh.lv.sel.GroupClause {
		if n.GetGroupingSet() != nil {
			return nil, false
		}
		if row := n.GetRowExpr(); row != nil && row.RowFormat == pg.CoercionForm_COERCE_IMPLICIT_CAST {
			return nil, false
		}
		e, ok := sh.lv.position(n)
		if !ok {
			return nil, false
		}
		exprs = append(exprs, e)
	}
	return exprs, true
}

// groupLeaves are the items of GROUP BY, those of grouping sets too.
func (sh *shape) groupLeaves() (leaves []*pg.Node, sets bool) {
	var look func(n *pg.Node)
	look = func(n *pg.Node) {
		list := []*pg.Node(nil)
		if gs := n.GetGroupingSet(); gs != nil {
			sets, list = true, gs.Content
		} else if row := n.GetRowExpr(); row != nil && row.RowFormat == pg.CoercionForm_COERCE_IMPLICIT_CAST {
			list = row.Args
		} else {
			leaves = append(leaves, n)
		}
		for _, c := range list {
			look(c)
		}
	}
	for _, n := range sh.lv.sel.GroupClause {
		look(n)
	}
	return leaves, sets
}

// position is n, or the select list's expression whose position n is.
func (lv *level) position(n *pg.Node) (*pg.Node, bool) {
	c := n.GetAConst()
	if c == nil || c.GetIval() == nil {
		return n, true
	}
	i := int(c.GetIval().Ival) - 1
	if !lv.known || i < 0 || i >= len(lv.vals) || lv.vals[i].expr == nil {
		return nil, false
	}
	return lv.vals[i].expr, true
}

func (sh *shape) groupsByKey() bool {
	exprs, ok := sh.groupExprs()
	return ok && len(exprs) > 0 && sh.covers(exprs)
}

// windowsByKey says whether every window's partitions are on one segment.
func (sh *shape) windowsByKey() bool {
	named := map[string]*pg.WindowDef{}
	for _, n := range sh.lv.sel.WindowClause {
		if w := n.GetWindowDef(); w != nil {
			named[w.Name] = w
		}
	}
	var partition func(w *pg.WindowDef, depth int) []*pg.Node
	partition = func(w *pg.WindowDef, depth int) []*pg.Node {
		for _, base := range []string{w.Refname, w.Name} {
			if b := named[base]; base != "" && b != nil && b != w && depth < len(named) {
				return append(partition(b, depth+1), w.PartitionClause...)
			}
		}
		return w.PartitionClause
	}
	for _, c := range sh.lv.calls {
		if c.fn.Over != nil && !sh.covers(partition(c.fn.Over, 0)) {
			return false
		}
	}
	return true
}

// subLocus finds where the rows of a sub-select in FROM are, if each segment
// can make its own share of them.
func (p *planner) subLocus(r *rte) (locus, string) {
	lv := r.sub
	if lv == nil || r.node.GetRangeSubselect().GetLateral() {
		return locus{}, "a lateral sub-select"
	}
	l, why := p.levelLocus(lv)
	switch {
	case why == subGroups || why == subExpression:
		return locus{}, why
	case why != "":
		return locus{}, "a sub-select with " + why
	}
	out := locus{kind: l.kind, segs: l.segs}
	for _, key := range l.keys {
		var cols []colID
		for _, i := range key {
			cols = append(cols, colID{r, i})
		}
		out.keys = append(out.keys, cols)
	}
	return out, ""
}
