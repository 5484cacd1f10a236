package plan

import (
	"cmp"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// References to the columns of a join, rewritten for a statement that has them by
// other names.

// needed are the columns of a part that are needed outside it.
func (j *joinParts) needed(part units) (ids []colID) {
	for id, uses := range j.uses {
		if part.has(j.of[id.rte]) && slices.ContainsFunc(uses, func(on units) bool { return on&^part != 0 }) {
			ids = append(ids, id)
		}
	}
	at := func(id colID) int { return slices.Index(j.units[j.of[id.rte]].rtes, id.rte) }
	slices.SortFunc(ids, func(a, b colID) int {
		return cmp.Or(j.of[a.rte]-j.of[b.rte], at(a)-at(b), a.col-b.col)
	})
	return ids
}

// within says whether a condition can be tested in a part.
func (c *joinCond) within(part units) bool { return !c.stays && c.on != 0 && c.on&^part == 0 }

// from is a FROM clause of some units, and of another item.
func (j *joinParts) from(of units, item *pg.Node) []*pg.Node {
	var list []*pg.Node
	added := false
	for i, u := range j.units {
		if of.has(i) && u.on == nil {
			list = append(list, u.it.node)
		}
		added = added || of.has(i) && u.on != nil
	}
	if item != nil {
		list = append(list, item)
	}
	if !added {
		return list
	}
	join := func(typ pg.JoinType, l, r, on *pg.Node) *pg.Node {
		return &pg.Node{Node: &pg.Node_JoinExpr{JoinExpr: &pg.JoinExpr{Jointype: typ, Larg: l, Rarg: r, Quals: on}}}
	}
	all := list[0]
	for _, n := range list[1:] {
		all = join(pg.JoinType_JOIN_INNER, all, n, nil)
	}
	for i, u := range j.units {
		if of.has(i) && u.on != nil {
			all = join(pg.JoinType_JOIN_LEFT, all, u.it.node, u.on)
		}
	}
	return []*pg.Node{all}
}

// rewritten calls f while each reference of the level to its sources says whose
// column it is: of a part's, what is given for it.
func (j *joinParts) rewritten(part units, given map[colID]*pg.Node, f func()) {
	var undo []func()
	named := map[*level]bool{}
	for n, r := range j.refs {
		id, ok := j.meant(r)
		if !ok {
			continue
		}
		with := given[id]
		switch {
		case with == nil && part.has(j.of[id.rte]):
			continue // it stands in the part alone
		case with != nil:
			if l := r.level; l != j.lv && !named[l] {
				named[l] = true
				for _, n := range l.sel.TargetList {
					if t := n.GetResTarget(); t != nil {
						old := t.Name
						undo = append(undo, func() { t.Name = old })
					}
				}
				nameAll(l.sel.TargetList)
			}
		case r.level == j.lv:
			with = colRef(id.rte.alias, id.rte.cols[id.col])
		default:
			continue
		}
		old := n.Node
		undo = append(undo, func() { n.Node = old })
		n.Node = with.Node
	}
	f()
	for _, u := range slices.Backward(undo) {
		u()
	}
}
