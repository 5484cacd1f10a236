package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Other ways to say the same, for statements whose outermost level is no island
// as it stands: WITH queries become sub-selects in FROM, and sub-selects that
// aggregate what is tied to a row of the level around them become joins with
// groups. What PostgreSQL sees of a statement that is not changed is its own
// text.

// restated is another statement with the same rows, nil when there is none. stmt
// is not changed.
func restated(stmt *pg.Node, look *lookup) (*pg.Node, error) {
	n := proto.CloneOf(stmt)
	inlined := inlineWith(nodeSelect(n), look)
	if !inlined {
		n = proto.CloneOf(stmt) // it may have begun
	}
	b := &binder{look: look, keepViews: true}
	lv := b.selectStmt(nodeSelect(n), nil, nil, nil)
	if b.err != nil {
		return nil, b.err
	}
	joined := false
	lv.each(func(l *level) bool {
		joined = unnest(l, look) || joined
		return true
	})
	if !inlined && !joined {
		return nil, nil
	}
	return n, nil
}

// mostCopies is how often a WITH query may be named to be worth inlining: each
// time it runs again.
const mostCopies = 3

// inlineWith makes sub-selects of the WITH queries of a statement, all or none.
func inlineWith(sel *pg.SelectStmt, look *lookup) bool {
	w := sel.WithClause
	if w == nil || w.Recursive {
		return false
	}
	queries := map[string]*pg.CommonTableExpr{}
	for _, c := range w.Ctes {
		cte := c.GetCommonTableExpr()
		q := nodeSelect(cte.GetCtequery())
		if q == nil || queries[cte.Ctename] != nil || cte.Ctematerialized == pg.CTEMaterialize_CTEMaterializeAlways || !repeatable(q, look) {
			return false
		}
		queries[cte.Ctename] = cte
	}
	uses := map[string]int{}
	put := func(m any, seen map[string]*pg.CommonTableExpr) bool {
		ok := true
		walk(m, func(m any) bool {
			switch v := m.(type) {
			case *pg.SelectStmt:
				ok = ok && (v == sel || v.WithClause == nil) && len(v.LockingClause) == 0
			case *pg.Node:
				rv := v.GetRangeVar()
				if rv == nil || rv.Schemaname != "" || rv.Catalogname != "" || seen[rv.Relname] == nil {
					return ok
				}
				cte := seen[rv.Relname]
				if uses[cte.Ctename]++; uses[cte.Ctename] > mostCopies || len(rv.Alias.GetColnames()) > 0 {
					ok = false
					return false
				}
				a := &pg.Alias{Aliasname: cte.Ctename, Colnames: cte.Aliascolnames}
				if rv.Alias != nil {
					a.Aliasname = rv.Alias.Aliasname
				}
				v.Node = &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{Subquery: proto.CloneOf(cte.Ctequery), Alias: proto.CloneOf(a)}}
				return false
			}
			return ok
		})
		return ok
	}
	// A WITH query sees those before it.
	seen := map[string]*pg.CommonTableExpr{}
	for _, c := range w.Ctes {
		cte := c.GetCommonTableExpr()
		if !put(cte.Ctequery, seen) {
			return false
		}
		seen[cte.Ctename] = cte
	}
	sel.WithClause = nil
	return put(sel, seen)
}

// repeatable says whether a query gives the same rows each time it runs in a
// statement.
func repeatable(sel *pg.SelectStmt, look *lookup) bool {
	ok := sel.IntoClause == nil && sel.WithClause == nil
	walk(sel, func(m any) bool {
		switch v := m.(type) {
		case *pg.FuncCall:
			f, err := look.function(funcName(v))
			ok = ok && err == nil && f.Found && f.Volatility != 'v'
		case *pg.LockingClause, *pg.RangeTableSample:
			ok = false
		case *pg.SelectStmt:
			ok = ok && v.LimitCount == nil && v.LimitOffset == nil // of rows in no order, maybe
		}
		return ok
	})
	return ok
}

// strictAggs are the aggregates that are NULL over no rows.
var strictAggs = map[string]bool{"sum": true, "avg": true, "min": true, "max": true}

// comparisons are the operators whose result is NULL when an operand is.
var comparisons = map[string]bool{"=": true, "<": true, ">": true, "<=": true, ">=": true, "<>": true}

// unnest turns conditions of a level like
//
//	a < (SELECT max(b) FROM t WHERE t.k = s.k)
//
// into a join with (SELECT k, max(b) FROM t GROUP BY k). It says whether there
// were any.
func unnest(lv *level, look *lookup) bool {
	if lv.sel.Op != pg.SetOperation_SETOP_NONE || len(lv.sel.FromClause) == 0 {
		return false
	}
	for _, s := range lv.stars {
		if s.rte == nil {
			return false // * would show what is joined
		}
	}
	changed := false
	for _, c := range conjuncts(lv.sel.WhereClause) {
		x := c.GetAExpr()
		if x == nil || x.Kind != pg.A_Expr_Kind_AEXPR_OP || x.Lexpr == nil || x.Rexpr == nil || len(x.Name) != 1 ||
			!comparisons[x.Name[0].GetString_().GetSval()] {
			continue
		}
		for _, side := range []*pg.Node{x.Lexpr, x.Rexpr} {
			for _, ln := range lv.links {
				if side.GetSubLink() == ln.node && ln.node.SubLinkType == pg.SubLinkType_EXPR_SUBLINK && ln.sub.outer {
					changed = joinGroups(lv, ln.sub, side, look) || changed
				}
			}
		}
	}
	return changed
}

// joinGroups puts the groups of a sub-select into FROM of the level around it and
// its value into the place of at.
func joinGroups(lv, sub *level, at *pg.Node, look *lookup) bool {
	sel := sub.sel
	if sel.Op != pg.SetOperation_SETOP_NONE || sel.WithClause != nil || len(sel.FromClause) == 0 || len(sel.TargetList) != 1 ||
		len(sel.GroupClause) > 0 || sel.HavingClause != nil || len(sel.SortClause) > 0 || len(sel.DistinctClause) > 0 ||
		len(sel.WindowClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil || len(sel.LockingClause) > 0 || sub.sublinks > 0 {
		return false
	}
	value := sel.TargetList[0].GetResTarget().GetVal()
	if !strictValue(value, look) {
		return false
	}
	refs := sub.refsByNode()
	// of says whether all of an expression's columns are of the sub-select, or
	// all of the level around it.
	of := func(n *pg.Node) (own, above bool) {
		own, above = true, true
		walk(n, func(m any) bool {
			if n, ok := m.(*pg.Node); ok && n.GetColumnRef() != nil {
				r := refs[n]
				own = own && r != nil && r.kind == refColumn && r.scope != nil && r.scope.level == sub
				above = above && r != nil && r.kind == refColumn && r.scope != nil && r.scope.level == lv
				return false
			}
			return true
		})
		return own, above
	}
	var keys, ties []*pg.Node // of the sub-select, and what is equal to them above
	var rest []*pg.Node
	for _, c := range conjuncts(sel.WhereClause) {
		if own, _ := of(c); own {
			rest = append(rest, c)
			continue
		}
		x := c.GetAExpr()
		if x == nil || !isEquals(x) {
			return false
		}
		l, r := x.Lexpr, x.Rexpr
		if own, _ := of(l); !own {
			l, r = r, l
		}
		own, _ := of(l)
		_, above := of(r)
		if !own || !above || l.GetColumnRef() == nil || r.GetColumnRef() == nil {
			return false
		}
		keys, ties = append(keys, l), append(ties, r)
	}
	// No other reference to the level around it.
	for _, r := range sub.refs {
		if r.scope == nil || r.scope.level != sub && !contained(ties, r.node) {
			return false
		}
	}
	for _, s := range sub.subs {
		if s.outer {
			return false
		}
	}
	if len(keys) == 0 {
		return false
	}
	alias := "?groups"
	for i := 1; taken(lv, alias); i++ {
		alias = "?groups" + itoa(i)
	}
	in := newSelect()
	in.FromClause = sel.FromClause
	if len(rest) > 0 {
		in.WhereClause = and(rest)
	}
	where := conjuncts(lv.sel.WhereClause)
	for i, k := range keys {
		name := "?key" + itoa(i+1)
		in.TargetList = append(in.TargetList, target(name, k))
		in.GroupClause = append(in.GroupClause, proto.CloneOf(k))
		where = append(where, &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_OP, Name: names("="),
			Lexpr: ties[i], Rexpr: colRef(alias, name), Location: -1}}})
	}
	in.TargetList = append(in.TargetList, target("?value", value))
	lv.sel.FromClause = append(lv.sel.FromClause, &pg.Node{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: selectNode(in), Alias: &pg.Alias{Aliasname: alias}}}})
	at.Node = colRef(alias, "?value").Node
	lv.sel.WhereClause = and(where)
	return true
}

func contained(list []*pg.Node, n *pg.Node) bool {
	for _, m := range list {
		if m == n {
			return true
		}
	}
	return false
}

// taken says whether a level's FROM has something of that name.
func taken(lv *level, alias string) bool {
	for _, n := range lv.sel.FromClause {
		if n.GetRangeSubselect().GetAlias().GetAliasname() == alias {
			return true
		}
	}
	for _, r := range lv.rtes {
		if r.alias == alias {
			return true
		}
	}
	return false
}

// strictValue says whether an expression has aggregates and is NULL over no rows.
func strictValue(n *pg.Node, look *lookup) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_AConst:
		return false
	case *pg.Node_AExpr:
		op := v.AExpr
		if op.Kind != pg.A_Expr_Kind_AEXPR_OP || len(op.Name) != 1 || op.Lexpr == nil || op.Rexpr == nil {
			return false
		}
		switch op.Name[0].GetString_().GetSval() {
		case "+", "-", "*":
		default:
			return false // a division may fail over rows that nobody asks for
		}
		number := func(n *pg.Node) bool { return n.GetAConst() != nil && !n.GetAConst().Isnull }
		return strictValue(op.Lexpr, look) && number(op.Rexpr) || number(op.Lexpr) && strictValue(op.Rexpr, look)
	case *pg.Node_FuncCall:
		f := v.FuncCall
		schema, name := funcName(f)
		fn, err := look.function(schema, name)
		return err == nil && fn.Builtin && fn.Aggregate && strictAggs[name] && f.Over == nil && f.AggFilter == nil && len(f.AggOrder) == 0
	}
	return false
}
