package plan

import (
	"maps"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Aggregates in two stages.

// partialAggs are the aggregates whose value over all rows follows from their
// values over the rows of each segment.
var partialAggs = map[string]bool{
	"count": true, "sum": true, "min": true, "max": true, "avg": true, "bool_and": true, "bool_or": true, "every": true,
	"bit_and": true, "bit_or": true, "bit_xor": true,
}

// aggregateDistinct is why an aggregate with DISTINCT has no first stage, unless
// the planner makes finer groups: each segment groups by the argument, too, and
// sends it, so that it can be counted once: by the coordinator, or by the segments
// that it is sent to, see pushSpread.
const aggregateDistinct = "an aggregate with DISTINCT"

// stages is a level cut in two.
type stages struct {
	p      *planner
	sh     *shape
	sets   bool                 // grouping sets: the segments group by all columns of them
	groups map[string]int       // of GROUP BY expressions, by signature
	finer  map[string]int       // of what the segments group by, too
	vals   []outVal             // what the segments send
	aggs   map[string]aggregate // by signature of the call
	kept   []*level             // of sub-selects in expressions
	why    string
	undo   []func() // see set

	first *pg.SelectStmt // what the segments run
	cols  []Column       // its columns
	// second makes the level's tree the second stage, but for its FROM and WHERE.
	second func()
}

// aggregate is an aggregate of the level: at is the first of its values among
// those the segments send. An average has two, sum and count; one that counts
// everything once has its argument.
type aggregate struct {
	name string
	at   int
	once bool
}

// cut makes two stages of a level that aggregates, without changing it; why says
// when there are none.
func (p *planner) cut(sh *shape) (st *stages, why string, err error) {
	lv := sh.lv
	sel := lv.sel
	switch {
	case len(lv.stars) > 0 || !lv.known:
		return nil, "a select list with *", nil
	case sel.WithClause != nil:
		return nil, "WITH", nil
	}
	leaves, sets := sh.groupLeaves()
	st = &stages{p: p, sh: sh, sets: sets, groups: map[string]int{}, finer: map[string]int{}, aggs: map[string]aggregate{}}
	plain := &safety{p: p, refs: sh.refs, okRef: okRef}
	groupVal := make([]int, len(leaves))
	for i, n := range leaves {
		e, ok := lv.position(n)
		if !ok {
			return nil, "a GROUP BY item that is not understood", nil
		}
		if r := sh.refs[e]; r != nil && r.kind == refOutput {
			if e = lv.vals[r.col].expr; e == nil {
				return nil, "a GROUP BY item that is not understood", nil
			}
		}
		if !plain.safe(e) {
			return nil, plain.why, nil
		}
		sig := signature(e, sh.refs)
		at, ok := st.groups[sig]
		if !ok {
			at = len(st.vals)
			st.groups[sig] = at
			st.vals = append(st.vals, outVal{expr: e})
		}
		groupVal[i] = at
	}
	tops := st.topExprs()
	for _, n := range tops {
		if !st.look(n) {
			return nil, st.why, nil
		}
	}
	if len(st.kept) < sh.rest {
		return nil, subExpression, nil
	}
	if len(st.vals) == 0 { // SELECT 1 FROM t HAVING true
		st.vals = append(st.vals, outVal{expr: countAll()})
	}

	src := newSelect()
	src.FromClause, src.WhereClause = sel.FromClause, sel.WhereClause
	for i, v := range st.vals {
		src.TargetList = append(src.TargetList, target(topColumn(i), v.expr))
	}
	for i := range len(st.groups) {
		src.GroupClause = append(src.GroupClause, intConst(int64(i+1)))
	}
	for _, at := range slices.Sorted(maps.Values(st.finer)) {
		src.GroupClause = append(src.GroupClause, intConst(int64(at+1)))
	}
	st.first = p.segmentCopy(lv, src)
	cols, why, err := p.typeColumns(sh, st.first, st.vals, nil)
	if why != "" || err != nil {
		return nil, why, err
	}
	if why := st.finish(st.first, cols); why != "" {
		return nil, why, nil
	}
	for i := range cols {
		cols[i].Name = topColumn(i)
	}
	st.cols = cols
	st.second = func() {
		for i, n := range sel.TargetList {
			t := n.GetResTarget()
			old := t.Name
			st.undo = append(st.undo, func() { t.Name = old })
			t.Name = lv.outs[i]
		}
		for _, n := range tops {
			st.rewrite(n, cols)
		}
		for i, n := range leaves {
			st.set(n, colRef(topAlias, topColumn(groupVal[i])))
		}
	}
	return st, "", nil
}

// pushTwoStage makes the segments aggregate their rows and the coordinator
// their results. root says that the level's rows are the client's.
func (p *planner) pushTwoStage(sh *shape, root bool) (bool, string, error) {
	lv := sh.lv
	sel := lv.sel
	st, why, err := p.cut(sh)
	if st == nil {
		return false, why, err
	}
	if done, err := st.pushSpread(root); done || err != nil {
		return done, "", err
	}
	cols := st.cols

	p.folded, p.fold = lv, st.fold(cols)
	// From here on nothing can fail: the level becomes the second stage.
	lv.kept = st.kept
	st.second()
	slice := &Slice{Columns: cols, Segments: p.islandSegments(sh)}
	slice.Relation, slice.Rows = sh.scans()
	if len(st.groups)+len(st.finer) == 0 {
		slice.Rows = float64(p.opt.NumSegments)
	}
	if err := p.addSlice(slice, st.first); err != nil {
		return false, "", err
	}
	sel.FromClause = []*pg.Node{p.addSource(p.recv(slice, topAlias, cols))}
	sel.WhereClause, sel.LockingClause = nil, nil
	return true, "", nil
}

func countAll() *pg.Node {
	n := funcCall("count")
	n.GetFuncCall().AggStar = true
	return n
}

// topExprs are the level's expressions that the second stage evaluates.
func (st *stages) topExprs() []*pg.Node {
	sel := st.sh.lv.sel
	var out []*pg.Node
	for _, n := range sel.TargetList {
		out = append(out, n.GetResTarget().GetVal())
	}
	if sel.HavingClause != nil {
		out = append(out, sel.HavingClause)
	}
	item := func(n *pg.Node) {
		if r := st.sh.refs[n]; r != nil && r.kind == refOutput || n.GetAConst() != nil {
			return // a result column by name or position
		}
		out = append(out, n)
	}
	for _, n := range sel.SortClause {
		item(n.GetSortBy().GetNode())
	}
	for _, n := range sel.DistinctClause {
		if n.GetNode() != nil {
			item(n)
		}
	}
	return append(out, sel.WindowClause...)
}

// look collects the aggregates of an expression of the second stage, and says
// whether it can be evaluated there.
func (st *stages) look(n *pg.Node) bool {
	ok := true
	walk(n, func(m any) bool {
		if !ok {
			return false
		}
		switch v := m.(type) {
		case *pg.TypeName:
			return false
		case *pg.Node:
			if _, is := st.group(v); is {
				return false
			}
			switch e := v.Node.(type) {
			case *pg.Node_ColumnRef:
				ok = st.no("a column that is not grouped")
				return false
			case *pg.Node_SubLink:
				ok = st.keep(e.SubLink)
				return false
			case *pg.Node_FuncCall:
				if st.isAggregate(e.FuncCall) {
					ok = st.aggregate(v, e.FuncCall)
					return false
				}
			}
		}
		return true
	})
	return ok
}

// keep leaves a sub-select that depends on nothing to the coordinator.
func (st *stages) keep(l *pg.SubLink) bool {
	for _, ln := range st.sh.lv.links {
		if ln.node == l && l.Testexpr == nil && !ln.sub.outer {
			st.kept = append(st.kept, ln.sub)
			return true
		}
	}
	return st.no(subExpression)
}

func (st *stages) no(why string) bool {
	if st.why == "" {
		st.why = why
	}
	return false
}

// group says which GROUP BY expression n is.
func (st *stages) group(n *pg.Node) (int, bool) {
	if len(st.groups) == 0 || n.Node == nil {
		return 0, false
	}
	switch n.Node.(type) {
	case *pg.Node_AConst, *pg.Node_String_, *pg.Node_List, *pg.Node_Integer:
		return 0, false
	}
	at, ok := st.groups[signature(n, st.sh.refs)]
	return at, ok
}

func (st *stages) isAggregate(f *pg.FuncCall) bool {
	fn, err := st.p.look.function(funcName(f))
	return err == nil && fn.Aggregate && f.Over == nil
}

// aggregate notes what the segments send for an aggregate.
func (st *stages) aggregate(n *pg.Node, f *pg.FuncCall) bool {
	fn, err := st.p.look.function(funcName(f))
	_, name := funcName(f)
	switch {
	case err != nil || !fn.Builtin || !partialAggs[name]:
		return st.no("aggregate " + name)
	case len(f.AggOrder) > 0 || f.AggWithinGroup || f.FuncVariadic || len(f.Args) > 1:
		return st.no("an aggregate with ORDER BY")
	}
	once := f.AggDistinct && name != "min" && name != "max" && (st.p.finer || st.sets || !st.byKey(f))
	if once && !((st.p.finer || st.sets) && len(f.Args) == 1) {
		return st.no(aggregateDistinct)
	}
	sig := signature(n, st.sh.refs)
	if _, ok := st.aggs[sig]; ok {
		return true
	}
	s := &safety{p: st.p, refs: st.sh.refs, okRef: okRef}
	for _, a := range f.Args {
		if !s.safe(a) {
			return st.no(s.why)
		}
	}
	if f.AggFilter != nil && !s.safe(f.AggFilter) {
		return st.no(s.why)
	}
	if once {
		counted := f.Args[0]
		if f.AggFilter != nil { // none of these aggregates counts NULLs
			counted = caseWhen(f.AggFilter, counted)
		}
		arg := signature(counted, st.sh.refs)
		at, ok := st.groups[arg]
		if !ok {
			at, ok = st.finer[arg]
		}
		if !ok {
			at = len(st.vals)
			st.finer[arg] = at
			st.vals = append(st.vals, outVal{expr: counted})
		}
		st.aggs[sig] = aggregate{name, at, true}
		return true
	}
	st.aggs[sig] = aggregate{name: name, at: len(st.vals)}
	partial := func(name string) {
		c := funcCall(name, f.Args...)
		call := c.GetFuncCall()
		call.AggFilter, call.AggStar, call.AggDistinct = f.AggFilter, f.AggStar, f.AggDistinct
		st.vals = append(st.vals, outVal{expr: c})
	}
	if name == "avg" {
		partial("sum")
		partial("count")
	} else {
		partial(name)
	}
	return true
}

// byKey says whether equal arguments of an aggregate are on one segment, those
// of each group at least.
func (st *stages) byKey(f *pg.FuncCall) bool {
	if len(f.Args) != 1 {
		return false
	}
	groups, _ := st.sh.groupExprs()
	return st.sh.covers(append(groups, f.Args...))
}

// fold says how to do the second stage without PostgreSQL, nil where that is more
// than adding up and choosing whole numbers.
func (st *stages) fold(cols []Column) []Fold {
	sel := st.sh.lv.sel
	if len(st.groups)+len(st.finer)+len(st.kept) > 0 || sel.HavingClause != nil || len(sel.GroupClause)+len(sel.SortClause)+
		len(sel.DistinctClause)+len(sel.WindowClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil {
		return nil
	}
	var folds []Fold
	for _, n := range sel.TargetList {
		a, ok := st.aggs[signature(n.GetResTarget().GetVal(), st.sh.refs)]
		if !ok || a.once {
			return nil
		}
		f := Fold{Column: a.at, Size: wholeNumbers[cols[a.at].Type]}
		switch a.name {
		case "count":
			f.Op = FoldCount
		case "sum":
			f.Op = FoldSum
		case "min":
			f.Op = FoldMin
		case "max":
			f.Op = FoldMax
		default:
			return nil
		}
		if f.Size == 0 {
			return nil
		}
		folds = append(folds, f)
	}
	return folds
}

// wholeNumbers are the types of whole numbers, with their sizes in bytes.
var wholeNumbers = map[string]int{"smallint": 2, "integer": 4, "bigint": 8}

// finish looks at the types of what the segments send, and makes sums for the
// average of floats ones of float8, as PostgreSQL's are.
func (st *stages) finish(s *pg.SelectStmt, cols []Column) string {
	for _, a := range st.aggs {
		if a.name != "sum" && a.name != "avg" || a.once {
			continue
		}
		switch typ := cols[a.at].Type; typ {
		case "bigint", "numeric", "double precision":
		case "real":
			if a.name == "avg" {
				f := s.TargetList[a.at].GetResTarget().Val.GetFuncCall()
				f.Args = []*pg.Node{cast(f.Args[0], "float8")}
				cols[a.at], _ = typed(701)
			}
		case "money", "interval":
			if a.name == "avg" {
				return "avg of " + typ
			}
		default:
			return "sum of type " + typ
		}
	}
	return ""
}

// rewrite turns an expression into one over what the segments send.
func (st *stages) rewrite(n *pg.Node, cols []Column) {
	walk(n, func(m any) bool {
		v, is := m.(*pg.Node)
		if !is {
			switch m.(type) {
			case *pg.TypeName, *pg.SubLink:
				return false
			}
			return true
		}
		if at, ok := st.group(v); ok {
			st.set(v, colRef(topAlias, topColumn(at)))
			return false
		}
		if f := v.GetFuncCall(); f != nil && st.isAggregate(f) {
			sig := signature(v, st.sh.refs)
			st.set(v, final(st.aggs[sig], cols))
			return false
		}
		return true
	})
}

// set makes n what with is, until what is in st.undo is called.
func (st *stages) set(n, with *pg.Node) {
	old := n.Node
	st.undo = append(st.undo, func() { n.Node = old })
	n.Node = with.Node
}

// final is the aggregate over the segments' values.
func final(a aggregate, cols []Column) *pg.Node {
	at := a.at
	col := func(i int) *pg.Node { return colRef(topAlias, topColumn(i)) }
	if a.once {
		n := funcCall(a.name, col(at))
		n.GetFuncCall().AggDistinct = true
		return n
	}
	switch a.name {
	case "count":
		return cast(coalesce(funcCall("sum", col(at)), intConst(0)), "int8")
	case "sum":
		if cols[at].Type == "bigint" {
			return cast(funcCall("sum", col(at)), "int8")
		}
		return funcCall("sum", col(at))
	case "avg":
		n := &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_NULLIF, Name: names("="),
			Lexpr: funcCall("sum", col(at+1)), Rexpr: intConst(0), Location: -1}}}
		if cols[at].Type == "double precision" {
			n = cast(n, "float8")
		}
		return &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_OP, Name: names("/"),
			Lexpr: funcCall("sum", col(at)), Rexpr: n, Location: -1}}}
	}
	return funcCall(a.name, col(at))
}

func coalesce(args ...*pg.Node) *pg.Node {
	return &pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: args, Location: -1}}}
}
