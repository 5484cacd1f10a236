package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Sub-selects in WHERE that each segment evaluates for its own rows. It sees
// only the rows it has of the sub-select's tables, and that is right in three
// cases:
//
//   - it has all of them: they are replicated, or broadcast;
//   - the sub-select's WHERE ties its distribution key to that of the level
//     around it: all rows that WHERE lets through are on the segment of the row
//     they are compared with;
//   - IN ties the keys: equal rows are on one segment. Then a NULL elsewhere is
//     not seen, so the condition must be one for which NULL and false are alike.

// subExpression is why a level with other sub-selects is no island.
const subExpression = "a sub-select in an expression"

// sublink is a sub-select in an expression.
type sublink struct {
	node *pg.SubLink
	sub  *level
}

// test are the expressions left of IN or = ANY, one for each column; nil when
// it is something else.
func (ln sublink) test() []*pg.Node {
	n := ln.node
	if n.SubLinkType != pg.SubLinkType_ANY_SUBLINK || n.Testexpr == nil {
		return nil
	}
	if len(n.OperName) > 0 {
		if op, _ := lastString(n.OperName); op != "=" || len(n.OperName) > 1 {
			return nil
		}
	}
	if row := n.Testexpr.GetRowExpr(); row != nil {
		return row.Args
	}
	return []*pg.Node{n.Testexpr}
}

// equate adds what holds where the sub-select has a row that is equal to the
// expressions of test. refs are those of the level around it.
func (ln sublink) equate(test []*pg.Node, refs map[*pg.Node]*ref, equal func(a, b colID)) {
	for i, n := range test {
		r := refs[n]
		if r == nil {
			continue
		}
		a, ok1 := r.columnID()
		b, ok2 := ln.sub.outColumnID(i)
		if ok1 && ok2 {
			equal(a, b)
		}
	}
}

// rowLinks are the sub-selects of a level that stand in its WHERE or ON.
func (lv *level) rowLinks() (out []sublink) {
	if len(lv.links) == 0 {
		return nil
	}
	in := map[*pg.SubLink]bool{}
	look := func(n *pg.Node) {
		walk(n, func(m any) bool {
			if l, ok := m.(*pg.SubLink); ok {
				in[l] = true
				if l.Testexpr == nil {
					return false
				}
			}
			_, sub := m.(*pg.SelectStmt)
			return !sub
		})
	}
	look(lv.sel.WhereClause)
	var on func(it *fromItem)
	on = func(it *fromItem) {
		if it.join != nil && it.left != nil {
			look(it.join.Quals)
			on(it.left)
			on(it.right)
		}
	}
	for _, it := range lv.items {
		on(it)
	}
	for _, ln := range lv.links {
		if in[ln.node] {
			out = append(out, ln)
		}
	}
	return out
}

// linksFit says why the sub-selects of a level's WHERE and ON cannot be evaluated
// on the segments that have its rows, or "". eq is what is equal in all rows that
// matter.
func (p *planner) linksFit(lv *level, from locus, eq *equalities, refs map[*pg.Node]*ref) string {
	lenient := lv.lenient()
	for _, ln := range lv.rowLinks() {
		switch ln.node.SubLinkType {
		case pg.SubLinkType_EXISTS_SUBLINK, pg.SubLinkType_ANY_SUBLINK, pg.SubLinkType_ALL_SUBLINK:
		case pg.SubLinkType_EXPR_SUBLINK:
			if ln.sub.outer && p.movesOf(ln.sub) {
				return apart // every row would read all that has come: see joinGroups
			}
		default:
			return subExpression
		}
		sh, in, why := p.linkShape(ln.sub, eq)
		if why != "" {
			return "a sub-select with " + why
		}
		if sh.from.kind == locusReplicated && sh.from.segs >= from.segs || tied(from, sh.from, in) {
			continue
		}
		test := ln.test()
		if len(test) == 0 || !lenient[ln.node] || sh.aggregates && !sh.groupsByKey() {
			return apart
		}
		in = in.clone()
		ln.equate(test, refs, in.equal)
		if !tied(from, sh.from, in) {
			return apart
		}
	}
	return ""
}

// harmlessLimit says whether a level has no LIMIT, or one that changes nothing to
// whether it has a row.
func (lv *level) harmlessLimit() bool {
	n, ok := limitConst(lv.sel.LimitCount)
	return lv.sel.LimitOffset == nil && (lv.sel.LimitCount == nil || lv.exists && ok && n > 0)
}

// anyRow says whether a level only asks if one table has a row that fulfils
// conditions: one row of each segment is enough then.
func (lv *level) anyRow(where []*pg.Node) bool {
	for _, c := range conjuncts(lv.sel.WhereClause) {
		if !contained(where, c) {
			return false
		}
	}
	return lv.exists && !lv.outer && len(lv.rtes) == 1 && len(lv.items) == 1 && len(lv.calls) == 0 && len(lv.links) == 0 &&
		len(lv.sel.GroupClause) == 0 && lv.sel.HavingClause == nil
}

// movesOf says whether tables of a level, or of levels below it, are moved.
func (p *planner) movesOf(lv *level) (any bool) {
	lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			any = any || p.moves[r] != nil
		}
		return !any
	})
	return any
}

// tied says whether rows of two sources that fulfil the equalities are on one
// segment.
func tied(a, b locus, eq *equalities) bool {
	if a.kind != locusHashed || b.kind != locusHashed || a.segs != b.segs || len(a.keys) != len(b.keys) {
		return false
	}
	for i := range a.keys {
		if !meets(a.keys[i], b.keys[i], eq) {
			return false
		}
	}
	return len(a.keys) > 0
}

// linkShape looks at the level of a sub-select in an expression. given is what is
// equal in the rows of the levels above, whose columns it may use.
func (p *planner) linkShape(lv *level, given *equalities) (*shape, *equalities, string) {
	sel := lv.sel
	switch {
	case sel.Op != pg.SetOperation_SETOP_NONE:
		return nil, nil, "a set operation"
	case len(sel.ValuesLists) > 0 || len(sel.FromClause) == 0:
		return nil, nil, "no table"
	case sel.WithClause != nil:
		return nil, nil, "WITH"
	case !lv.harmlessLimit():
		return nil, nil, "LIMIT" // of which rows each segment would have its own
	case lv.sublinks > len(lv.rowLinks()):
		return nil, nil, subExpression
	}
	for _, r := range lv.refs {
		if r.kind == refSystem {
			return nil, nil, "a system column"
		}
	}
	sh := &shape{lv: lv, refs: lv.refsByNode()}
	from, eq, why := p.fromLocus(lv, sh.refs, given)
	if why == "" {
		why = p.rowClauses(lv, sh.refs)
	}
	if why == "" {
		why = p.classify(sh)
	}
	if why == "" {
		why = p.clauses(sh, true)
	}
	if why == "" {
		why = p.linksFit(lv, from, eq, sh.refs)
	}
	if why != "" {
		return nil, nil, why
	}
	if sh.windows || sh.srf {
		return nil, nil, "a window or set-returning function"
	}
	for _, c := range lv.calls {
		// The order of the rows is each segment's own.
		fn, err := p.look.function(funcName(c.fn))
		if _, name := funcName(c.fn); err != nil || fn.Aggregate && !(fn.Builtin && partialAggs[name]) {
			return nil, nil, "aggregate " + name
		}
	}
	sh.from = from
	return sh, eq, ""
}

// lenient are the sub-selects of a level whose being NULL is as good as their
// being false: those that WHERE, or ON of an inner join, reaches by AND and OR
// alone.
func (lv *level) lenient() map[*pg.SubLink]bool {
	out := map[*pg.SubLink]bool{}
	var reach func(n *pg.Node)
	reach = func(n *pg.Node) {
		if l := n.GetSubLink(); l != nil {
			out[l] = true
		}
		if b := n.GetBoolExpr(); b != nil && b.Boolop != pg.BoolExprType_NOT_EXPR {
			for _, a := range b.Args {
				reach(a)
			}
		}
	}
	reach(lv.sel.WhereClause)
	var on func(it *fromItem)
	on = func(it *fromItem) {
		if it.join != nil && it.left != nil && it.join.Jointype == pg.JoinType_JOIN_INNER {
			reach(it.join.Quals)
			on(it.left)
			on(it.right)
		}
	}
	for _, it := range lv.items {
		on(it)
	}
	return out
}
