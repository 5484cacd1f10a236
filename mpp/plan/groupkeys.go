package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// groupKeys adds the columns that depend on a primary key among a level's
// GROUP BY columns: a row source has no primary key that PostgreSQL knows of.
func (p *planner) groupKeys(lv *level, levels []*level) {
	if len(lv.sel.GroupClause) == 0 {
		return
	}
	byNode := lv.refsByNode()
	grouped := map[*rte]map[int]bool{}
	for _, g := range lv.sel.GroupClause {
		for id := range commonColumns(lv, g, byNode) {
			if grouped[id.rte] == nil {
				grouped[id.rte] = map[int]bool{}
			}
			grouped[id.rte][id.col] = true
		}
	}
	for _, r := range lv.rtes {
		cols := grouped[r]
		if r.kind != rteGather || r.rel == nil || len(r.rel.PrimaryKey) == 0 || cols == nil || r.hidden {
			continue
		}
		all := true
		for _, k := range r.rel.PrimaryKey {
			all = all && cols[k]
		}
		if !all {
			continue
		}
		// A column that is in some grouping sets is NULL in the others.
		for _, g := range lv.sel.GroupClause {
			for id := range itemColumnIDs(lv, g, byNode) {
				if id.rte == r {
					cols[id.col] = true
				}
			}
		}
		p.groupDependent(lv, r, cols, levels)
	}
}

// itemColumnIDs are the columns that are grouping items of a GROUP BY item, in
// any of its grouping sets.
func itemColumnIDs(lv *level, n *pg.Node, refs map[*pg.Node]*ref) map[colID]bool {
	gs := n.GetGroupingSet()
	if gs == nil {
		return commonColumns(lv, n, refs)
	}
	out := map[colID]bool{}
	for _, c := range gs.Content {
		for id := range itemColumnIDs(lv, c, refs) {
			out[id] = true
		}
	}
	return out
}

// commonColumns are the columns that a GROUP BY item groups by in each of its
// grouping sets.
func commonColumns(lv *level, n *pg.Node, refs map[*pg.Node]*ref) map[colID]bool {
	out := map[colID]bool{}
	if gs := n.GetGroupingSet(); gs != nil {
		if gs.Kind != pg.GroupingSetKind_GROUPING_SET_SETS {
			return out // ROLLUP, CUBE and () have an empty set
		}
		for i, c := range gs.Content {
			cols := commonColumns(lv, c, refs)
			if i == 0 {
				out = cols
				continue
			}
			for id := range out {
				if !cols[id] {
					delete(out, id)
				}
			}
		}
		return out
	}
	if row := n.GetRowExpr(); row != nil && row.RowFormat == pg.CoercionForm_COERCE_IMPLICIT_CAST {
		for _, c := range row.Args {
			for id := range commonColumns(lv, c, refs) {
				out[id] = true
			}
		}
		return out
	}
	if c := n.GetAConst(); c != nil && c.GetIval() != nil {
		if i := int(c.GetIval().Ival); i >= 1 && i <= len(lv.sel.TargetList) {
			n = lv.sel.TargetList[i-1].GetResTarget().GetVal()
		}
	}
	r := refs[n]
	if r != nil && r.kind == refOutput && r.col >= 0 && r.col < len(lv.sel.TargetList) {
		r = refs[lv.sel.TargetList[r.col].GetResTarget().GetVal()]
	}
	if r == nil {
		return out
	}
	add := func(id colID, ok bool) {
		if ok && id.rte != nil && id.rte.scope.level == lv {
			out[id] = true
		}
	}
	switch {
	case r.kind == refColumn:
		add(colID{r.rte, r.col}, true)
	case r.kind == refMerged && r.merged.join != pg.JoinType_JOIN_FULL:
		// Of USING: which side's column it is to PostgreSQL depends on
		// their types; taking both for grouped leaves none out.
		add(r.merged.left.id())
		add(r.merged.right.id())
	}
	return out
}

// groupDependent makes the columns of r that are shown but not grouped
// grouped, or, where their type has no equality, takes any of their values:
// they are all the same.
func (p *planner) groupDependent(lv *level, r *rte, grouped map[int]bool, levels []*level) {
	shown := p.outsideAggregates(lv)
	for _, l := range levels {
		for _, ref := range l.refs {
			if ref.rte != r || ref.kind != refColumn || grouped[ref.col] || l == lv && !shown[ref.node] {
				continue
			}
			if l == lv && noEquality[r.rel.Columns[ref.col].TypeOID] {
				nameAll(lv.sel.TargetList)
				ref.node.Node = anyOf(colRef(r.alias, ref.name)).Node
				ref.rte = nil // nothing more to rewrite
				continue
			}
			grouped[ref.col] = true
			lv.sel.GroupClause = append(lv.sel.GroupClause, colRef(r.alias, ref.name))
		}
	}
	for _, s := range lv.stars {
		if s.rte != nil && s.rte != r || s.rte == nil && len(lv.rtes) > 1 {
			continue
		}
		var cols []*pg.Node
		expand := false
		for i, name := range r.cols {
			if noEquality[r.rel.Columns[i].TypeOID] {
				expand = true
				cols = append(cols, target(name, anyOf(colRef(r.alias, name))))
				continue
			}
			cols = append(cols, target(name, colRef(r.alias, name)))
			if !grouped[i] {
				grouped[i] = true
				lv.sel.GroupClause = append(lv.sel.GroupClause, colRef(r.alias, name))
			}
		}
		if expand {
			replaceStar(s, cols)
		}
	}
}

// anyOf is some value of a column among a group's rows.
func anyOf(col *pg.Node) *pg.Node {
	return &pg.Node{Node: &pg.Node_AIndirection{AIndirection: &pg.A_Indirection{Arg: funcCall("array_agg", col),
		Indirection: []*pg.Node{{Node: &pg.Node_AIndices{AIndices: &pg.A_Indices{Uidx: intConst(1)}}}}}}}
}

// noEquality are PostgreSQL's types that cannot be grouped.
var noEquality = map[uint32]bool{114: true, 142: true, 600: true, 601: true, 602: true, 603: true, 604: true, 628: true, 718: true}

// outsideAggregates are the references of what a level shows, sorts and
// filters its groups by, that are not arguments of an aggregate.
func (p *planner) outsideAggregates(lv *level) map[*pg.Node]bool {
	out := map[*pg.Node]bool{}
	see := func(n *pg.Node) {
		walk(n, func(m any) bool {
			switch v := m.(type) {
			case *pg.Node:
				if v.GetColumnRef() != nil {
					out[v] = true
				}
			case *pg.FuncCall:
				fn, err := p.look.function(funcName(v))
				return err != nil || !fn.Aggregate || v.Over != nil
			case *pg.SelectStmt, *pg.TypeName:
				return false
			}
			return true
		})
	}
	sel := lv.sel
	for _, list := range [][]*pg.Node{sel.TargetList, {sel.HavingClause}, sel.SortClause, sel.DistinctClause, sel.WindowClause} {
		for _, n := range list {
			if n != nil {
				see(n)
			}
		}
	}
	return out
}
