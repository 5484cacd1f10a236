package plan

import (
	"math"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// topAlias is the name of the one source of an island's coordinator part.
const topAlias = "s"

func topColumn(i int) string { return "c" + itoa(i+1) }

// segmentCopy is a copy of src, a level's SELECT or one made of parts of it,
// for the segments to run. The level itself stays as it is.
func (p *planner) segmentCopy(lv *level, src *pg.SelectStmt) *pg.SelectStmt {
	var c *pg.SelectStmt
	p.asOnSegments(lv, true, func() { c = proto.CloneOf(src) })
	return c
}

// asOnSegments calls f while lv's tree is as segments run it: tables by their
// schemas, gp_segment_id as a function, with rest without the conditions that
// were tested before. Then it is again as it was.
func (p *planner) asOnSegments(lv *level, rest bool, f func()) {
	var undo []func()
	set := func(n, with *pg.Node) {
		old := n.Node
		undo = append(undo, func() { n.Node = old })
		n.Node = with.Node
	}
	fields := func(cr *pg.ColumnRef, f []*pg.Node) {
		old := cr.Fields
		undo = append(undo, func() { cr.Fields = old })
		cr.Fields = f
	}
	locks := p.locksRows(lv)
	lv.each(func(l *level) bool {
		var tested []tested
		if rest {
			tested = p.testedBefore(l)
		}
		named := false
		for _, r := range l.refs {
			switch {
			case r.kind == refSystem && r.name == segmentID:
				if !named {
					named = true
					for _, n := range l.sel.TargetList {
						if t := n.GetResTarget(); t != nil {
							old := t.Name
							undo = append(undo, func() { t.Name = old })
						}
					}
					nameAll(l.sel.TargetList)
				}
				set(r.node, funcCall("gp_execution_segment"))
			case len(r.cr.Fields) > 2 && r.rte != nil:
				fields(r.cr, names(r.rte.alias, r.name))
			}
		}
		for _, s := range l.stars {
			if cr := s.val.GetColumnRef(); s.rte != nil && len(cr.Fields) > 2 {
				fields(cr, append(names(s.rte.alias), aStar()))
			}
		}
		for _, r := range l.rtes {
			if m := p.moves[r]; m != nil {
				set(r.node, &pg.Node{Node: &pg.Node_RangeVar{RangeVar: &pg.RangeVar{
					Relname: m.mark, Inh: true, Relpersistence: "p", Location: -1}}})
			} else if r.kind == rteGather {
				set(r.node, p.scanItem(r))
			}
		}
		for _, t := range tested {
			set(t.clause, t.rest)
		}
		if clauses := l.sel.LockingClause; !locks {
			undo = append(undo, func() { l.sel.LockingClause = clauses })
			l.sel.LockingClause = nil
		}
		return true
	})
	f()
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
}

// tested is a condition of a level without what has been tested before.
type tested struct{ clause, rest *pg.Node }

// testedBefore finds the conditions of a level that the slices of its moved tables
// have tested.
func (p *planner) testedBefore(lv *level) []tested {
	var done []*pg.Node
	for r, list := range p.baseConditions(lv) {
		if p.moves[r] != nil {
			done = append(done, list...)
		}
	}
	return lv.without(done)
}

// without are a level's WHERE and ON without the conditions done. PostgreSQL would test
// them again, which takes little, and suppose that they leave out as many rows again.
func (lv *level) without(done []*pg.Node) (out []tested) {
	if len(done) == 0 {
		return nil
	}
	for _, clause := range lv.clauses() {
		var rest []*pg.Node
		all := conjuncts(clause)
		for _, c := range all {
			if !contained(done, c) {
				rest = append(rest, c)
			}
		}
		switch {
		case len(rest) == len(all):
		case len(rest) == 0:
			out = append(out, tested{clause, boolConst(true)})
		default:
			out = append(out, tested{clause, and(rest)})
		}
	}
	return out
}

// clauses are a level's WHERE, nil for none, and each ON.
func (lv *level) clauses() []*pg.Node {
	list := []*pg.Node{lv.sel.WhereClause}
	var on func(it *fromItem)
	on = func(it *fromItem) {
		if it.join == nil || it.left == nil {
			return
		}
		list = append(list, it.join.Quals)
		on(it.left)
		on(it.right)
	}
	for _, it := range lv.items {
		on(it)
	}
	return list
}

// islandSegments are the segments that run an island, nil for all.
func (p *planner) islandSegments(sh *shape) []int {
	if sh.segments != nil {
		return sh.segments
	}
	if sh.from.segs < p.opt.NumSegments {
		return firstSegments(sh.from.segs)
	}
	return nil
}

// gatherAll ends the planning: one slice, its rows go to the client.
func (p *planner) gatherAll(sh *shape, sel *pg.SelectStmt, segments []int) (bool, string, error) {
	sql, params, err := p.sliceSQL(selectNode(sel))
	if err != nil {
		return false, "", err
	}
	name, rows := sh.scans()
	s := Slice{To: -1, SQL: sql, Params: params, Segments: segments, Relation: name, Rows: rows, LocksRows: locking(sel)}
	if err := p.noteTables(&s, sel); err != nil {
		return false, "", err
	}
	p.slices = append(p.slices, s)
	p.direct, p.gathered = true, sh
	p.telling = func() (string, error) {
		if sel.Op != pg.SetOperation_SETOP_NONE || len(sel.ValuesLists) > 0 {
			return "", nil
		}
		sel.WhereClause = askTaken(sel.WhereClause)
		return p.spell(selectNode(sel), params)
	}
	return true, "", nil
}

// scans names what an island reads, and guesses how many rows it makes.
func (sh *shape) scans() (name string, rows float64) {
	sh.lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.rel != nil {
				if name != "" {
					name += ", "
				}
				name += r.rel.Name
				rows = max(rows, r.rel.Rows)
			}
		}
		return true
	})
	return name, rows
}

// pushSingle runs a level as it is on one segment.
func (p *planner) pushSingle(sh *shape, segment int, root bool) (bool, string, error) {
	lv := sh.lv
	s := p.segmentCopy(lv, lv.sel)
	if root {
		return p.gatherAll(sh, s, []int{segment})
	}
	cols, why, err := p.islandColumns(sh, s, nil)
	if why != "" || err != nil {
		return false, why, err
	}
	return p.replaceLevel(sh, s, cols, len(cols), []int{segment}, newSelect())
}

// replaceLevel makes a level read an island's slice. shown of the columns are
// the level's own; top has what is left to do but for its select list and
// FROM.
func (p *planner) replaceLevel(sh *shape, s *pg.SelectStmt, cols []Column, shown int, segments []int, top *pg.SelectStmt) (bool, string, error) {
	slice := &Slice{Columns: cols, Segments: segments}
	slice.Relation, slice.Rows = sh.scans()
	if n, ok := limitConst(s.LimitCount); ok && s.LimitCount != nil {
		slice.Rows = min(slice.Rows, float64(n))
	}
	var targets []*pg.Node
	for i := range cols {
		if i < shown {
			targets = append(targets, target(cols[i].Name, colRef(topAlias, topColumn(i))))
		}
		cols[i].Name = topColumn(i)
	}
	if err := p.addSlice(slice, s); err != nil {
		return false, "", err
	}
	top.TargetList = targets
	top.FromClause = []*pg.Node{p.addSource(p.recv(slice, topAlias, cols))}
	setSelect(sh.lv.sel, top)
	return true, "", nil
}

// sortKey is where an ORDER BY or DISTINCT ON item is among an island's
// columns.
type sortKey struct {
	out  int      // result column, or -1
	expr *pg.Node // the level's expression, when out is -1
}

// sortKeyOf finds an item among the result columns, by name, position or
// expression. ok is false when that is not certain.
func (sh *shape) sortKeyOf(n *pg.Node) (sortKey, bool) {
	lv := sh.lv
	n = plainSort(n)
	if r := sh.refs[n]; r != nil && r.kind == refOutput {
		return sortKey{out: r.col}, lv.known && r.col >= 0
	}
	if c := n.GetAConst(); c != nil {
		if c.GetIval() == nil {
			return sortKey{}, false
		}
		i := int(c.GetIval().Ival) - 1
		return sortKey{out: i}, lv.known && i >= 0 && i < len(lv.outs)
	}
	sig := signature(n, sh.refs)
	for i, v := range lv.vals {
		if v.expr != nil && lv.known && signature(v.expr, sh.refs) == sig {
			return sortKey{out: i}, true
		}
		if v.star != nil && lv.known {
			if id, ok := v.star.id(); ok {
				if own, ok := sh.columnOf(n); ok && own == id {
					return sortKey{out: i}, true
				}
			}
		}
	}
	return sortKey{out: -1, expr: n}, true
}

// pushRows makes the segments compute a level's rows; order, limits and
// duplicates are the coordinator's.
func (p *planner) pushRows(sh *shape, root bool) (bool, string, error) {
	lv := sh.lv
	sel := lv.sel
	distinct := len(sel.DistinctClause) > 0
	on := distinct && sel.DistinctClause[0].GetNode() != nil
	if distinct && !on && sh.distinctByKey() {
		distinct = false // duplicates are on one segment
	}
	limited := !isNullLimit(sel.LimitCount) || sel.LimitOffset != nil
	if root && !distinct && !limited && len(sel.SortClause) == 0 {
		return p.gatherAll(sh, p.segmentCopy(lv, lv.sel), p.islandSegments(sh))
	}

	var keys []sortKey // of ORDER BY, then of DISTINCT ON
	items := make([]*pg.Node, 0, len(sel.SortClause)+len(sel.DistinctClause))
	for _, n := range sel.SortClause {
		items = append(items, n.GetSortBy().GetNode())
	}
	if on {
		items = append(items, sel.DistinctClause...)
	}
	for _, n := range items {
		k, ok := sh.sortKeyOf(n)
		if !ok || k.out < 0 && len(sel.DistinctClause) > 0 && !on {
			return false, "an ORDER BY item that is not understood", nil
		}
		keys = append(keys, k)
	}
	if root && !distinct {
		if done, err := p.pushMerge(sh, keys); done || err != nil {
			return done, "", err
		}
	}

	s := p.segmentCopy(lv, lv.sel)
	top := newSelect()
	// Hidden columns for the sort keys that are not shown.
	var hidden []outVal
	copies := make([]*pg.Node, 0, len(items))
	for _, n := range s.SortClause {
		copies = append(copies, n.GetSortBy().GetNode())
	}
	if on {
		copies = append(copies, s.DistinctClause...)
	}
	place := make([]int, len(keys)) // in hidden, for keys not shown
	seen := map[string]int{}
	for i, k := range keys {
		if k.out >= 0 {
			continue
		}
		sig := signature(k.expr, sh.refs)
		if at, ok := seen[sig]; ok {
			place[i] = at
			continue
		}
		place[i] = len(hidden)
		seen[sig] = len(hidden)
		s.TargetList = append(s.TargetList, target("?sort"+itoa(len(hidden)+1), plainSort(copies[i])))
		hidden = append(hidden, outVal{expr: k.expr})
	}
	n, limit := pushedLimit(sel)
	s.LimitOption = pg.LimitOption_LIMIT_OPTION_DEFAULT
	if lv.exists && !limited {
		n, limit = intConst(1), true
	}
	switch {
	case limit:
		s.LimitCount, s.LimitOffset, s.LimitOption = n, nil, pg.LimitOption_LIMIT_OPTION_COUNT
	case on: // which row is first depends on the order
		s.LimitCount, s.LimitOffset = nil, nil
	default:
		s.LimitCount, s.LimitOffset, s.SortClause = nil, nil, nil
	}
	cols, why, err := p.islandColumns(sh, s, hidden)
	if why != "" || err != nil {
		return false, why, err
	}
	shown := len(cols) - len(hidden)
	column := func(i int) *pg.Node {
		if keys[i].out >= 0 {
			return colRef(topAlias, topColumn(keys[i].out))
		}
		return colRef(topAlias, topColumn(shown+place[i]))
	}
	for i, n := range sel.SortClause {
		by := proto.CloneOf(n.GetSortBy())
		by.Node = recollate(by.Node, column(i))
		top.SortClause = append(top.SortClause, &pg.Node{Node: &pg.Node_SortBy{SortBy: by}})
	}
	if on {
		for i := range sel.DistinctClause {
			top.DistinctClause = append(top.DistinctClause, column(len(sel.SortClause)+i))
		}
	} else if distinct {
		top.DistinctClause = []*pg.Node{{}}
	}
	top.LimitCount, top.LimitOffset, top.LimitOption = sel.LimitCount, sel.LimitOffset, sel.LimitOption
	return p.replaceLevel(sh, s, cols, shown, p.islandSegments(sh), top)
}

// recollate puts column in the place of the expression of a sort item, under
// the item's COLLATE.
func recollate(item, column *pg.Node) *pg.Node {
	if c := item.GetCollateClause(); c != nil {
		return &pg.Node{Node: &pg.Node_CollateClause{CollateClause: &pg.CollateClause{
			Arg: recollate(c.Arg, column), Collname: c.Collname, Location: -1}}}
	}
	return column
}

// distinctByKey says whether equal rows are on one segment.
func (sh *shape) distinctByKey() bool {
	lv := sh.lv
	if !lv.known {
		return false
	}
	var cols []colID
	for i, v := range lv.vals {
		if v.expr != nil && sh.isSegmentID(v.expr) {
			return true
		}
		if id, ok := lv.outColumnID(i); ok {
			cols = append(cols, id)
		}
	}
	return coversKey(sh.from, cols)
}

// isNullLimit: no LIMIT, or LIMIT ALL.
func isNullLimit(n *pg.Node) bool { return n == nil || n.GetAConst().GetIsnull() }

// limitConst is a LIMIT or OFFSET given as a plain number, also one that is cast
// to an integer type; none at all is 0.
func limitConst(n *pg.Node) (int64, bool) {
	if isNullLimit(n) {
		return 0, true
	}
	if t := n.GetTypeCast(); t != nil {
		switch names, _ := fieldNames(&pg.ColumnRef{Fields: t.TypeName.GetNames()}); strings.Join(names, ".") {
		case "pg_catalog.int4", "pg_catalog.int8":
			n = t.Arg
		}
	}
	if v := n.GetAConst().GetSval(); v != nil {
		i, err := strconv.ParseInt(v.Sval, 10, 32)
		return i, err == nil && i >= 0
	}
	v := n.GetAConst().GetIval()
	return int64(v.GetIval()), v.GetIval() >= 0 && v != nil
}

// pushedLimit is the number of rows each segment must send at most, as a
// constant; ok is false when that is not known.
func pushedLimit(sel *pg.SelectStmt) (n *pg.Node, ok bool) {
	if isNullLimit(sel.LimitCount) || sel.LimitOption == pg.LimitOption_LIMIT_OPTION_WITH_TIES {
		return nil, false
	}
	count, ok1 := limitConst(sel.LimitCount)
	offset, ok2 := limitConst(sel.LimitOffset)
	if !ok1 || !ok2 || count+offset > math.MaxInt32 {
		return nil, false
	}
	return intConst(count + offset), true
}
