package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Sources with columns that * must not show.

// expandStars writes the columns out where a star would show extras.
func (p *planner) expandStars(lv *level) error {
	for _, s := range lv.stars {
		var rtes []*rte
		if s.rte != nil {
			rtes = []*rte{s.rte}
		} else {
			for _, it := range s.items {
				rtes = append(rtes, it.rtes...)
			}
		}
		need := false
		for _, r := range rtes {
			need = need || r.extras()
			for _, i := range r.inner {
				need = need || i.extras()
			}
		}
		if !need {
			continue
		}
		var cols []*pg.Node
		var err error
		if s.rte != nil {
			cols, err = rteColumns(s.rte)
		} else {
			for _, it := range s.items {
				var c []*pg.Node
				if c, err = itemColumns(it, s.items); err != nil {
					break
				}
				cols = append(cols, c...)
			}
		}
		if err != nil {
			return err
		}
		replaceStar(s, cols)
	}
	return nil
}

// replaceStar puts columns (targets) in the place of a star.
func replaceStar(s star, cols []*pg.Node) {
	var out []*pg.Node
	for _, n := range *s.list {
		if n != s.node {
			out = append(out, n)
			continue
		}
		for _, c := range cols {
			if n.GetResTarget() == nil { // in ROW() or VALUES
				c = c.GetResTarget().Val
			}
			out = append(out, c)
		}
	}
	*s.list = out
}

// rteColumns are the columns of one source as targets; a star when they are
// not known and nothing is to be hidden.
func rteColumns(r *rte) ([]*pg.Node, error) {
	if !r.known {
		if r.extras() {
			return nil, errorf(codeUnsupported, "cannot tell the columns of %q", r.alias)
		}
		n := &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: append(names(r.alias), aStar()), Location: -1}}}
		return []*pg.Node{target("", n)}, nil
	}
	var out []*pg.Node
	for _, c := range r.cols {
		out = append(out, target("", colRef(r.alias, c)))
	}
	return out, nil
}

// itemColumns are the columns of a FROM item in the order * shows them.
func itemColumns(it *fromItem, all []*fromItem) ([]*pg.Node, error) {
	if it.rte != nil {
		return rteColumns(it.rte)
	}
	if len(it.merged) == 0 && it.join != nil {
		l, err := itemColumns(it.left, all)
		if err != nil {
			return nil, err
		}
		r, err := itemColumns(it.right, all)
		return append(l, r...), err
	}
	if !it.known {
		return nil, errorf(codeUnsupported, "cannot tell the columns of a join with USING for its system columns; list them")
	}
	var out []*pg.Node
	for _, c := range it.cols {
		out = append(out, target(c.name, starExpr(c, all)))
	}
	return out, nil
}

// starExpr is an expression for a column that a star shows.
func starExpr(c starCol, all []*fromItem) *pg.Node {
	m := c.merged
	if m == nil {
		return colRef(c.rte.alias, c.name)
	}
	n := 0
	for _, it := range all {
		for _, o := range it.cols {
			if o.name == c.name {
				n++
			}
		}
	}
	if n == 1 {
		return colRef(c.name)
	}
	l, r := starExpr(m.left, nil), starExpr(m.right, nil)
	switch m.join {
	case pg.JoinType_JOIN_RIGHT:
		return r
	case pg.JoinType_JOIN_FULL:
		return &pg.Node{Node: &pg.Node_CoalesceExpr{CoalesceExpr: &pg.CoalesceExpr{Args: []*pg.Node{l, r}, Location: -1}}}
	}
	return l
}

// shownCol is a column of a FROM item in the order its sources have them. extra
// says that it is not the user's.
type shownCol struct {
	name  string
	extra bool
}

// shownCols are the columns of a FROM item with its sources' extras, but for the
// names its alias gives if it is a join; ok is false when they are not known.
// nameExtras has seen to the joins in it.
func shownCols(it *fromItem) (cols []shownCol, ok bool) {
	if it.join == nil || it.left == nil {
		r := it.rte
		if r == nil || !r.known {
			return nil, false
		}
		for _, c := range r.cols {
			cols = append(cols, shownCol{c, false})
		}
		if !r.extras() {
			return cols, true
		}
		for _, s := range sortedKeys(r.sys) {
			cols = append(cols, shownCol{s, true})
		}
		if r.whole {
			cols = append(cols, shownCol{wholeRow, true})
		}
		return cols, true
	}
	l, ok1 := aliasedCols(it.left)
	r, ok2 := aliasedCols(it.right)
	if !ok1 || !ok2 || it.join.IsNatural {
		return nil, false
	}
	using := map[string]bool{}
	for _, c := range it.join.UsingClause {
		using[c.GetString_().GetSval()] = true
		cols = append(cols, shownCol{c.GetString_().GetSval(), false})
	}
	for _, c := range append(l, r...) {
		if c.extra || !using[c.name] {
			cols = append(cols, c)
		}
	}
	return cols, true
}

// aliasedCols is shownCols with the names that the item's alias gives.
func aliasedCols(it *fromItem) ([]shownCol, bool) {
	cols, ok := shownCols(it)
	for i, n := range it.join.GetAlias().GetColnames() {
		if i < len(cols) {
			cols[i].name = n.GetString_().GetSval()
		}
	}
	return cols, ok
}

// nameExtras makes the column names of a join's alias count the extras.
func nameExtras(it *fromItem) error {
	given := it.join.Alias.GetColnames()
	if len(given) == 0 {
		return nil
	}
	cols, ok := shownCols(it)
	if !ok {
		for _, r := range it.rte.inner {
			if r.extras() {
				return errorf(codeUnsupported, "cannot tell the columns of join %q for its system columns; leave out its column names", it.rte.alias)
			}
		}
		return nil
	}
	var list []*pg.Node
	for _, c := range cols {
		if len(given) == 0 {
			break
		}
		if c.extra {
			list = append(list, pg.MakeStrNode(c.name))
			continue
		}
		list, given = append(list, given[0]), given[1:]
	}
	it.join.Alias.Colnames = append(list, given...)
	return nil
}

// plainJoins turns NATURAL joins of sources with extras into USING: two extras
// of one name would join. The names that an alias gives to a join's columns are
// made to fit.
func plainJoins(it *fromItem) error {
	if it.join == nil || it.left == nil {
		return nil
	}
	if err := plainJoins(it.left); err != nil {
		return err
	}
	if err := plainJoins(it.right); err != nil {
		return err
	}
	if !it.join.IsNatural {
		return nameExtras(it)
	}
	extras := false
	var look func(f *fromItem)
	look = func(f *fromItem) {
		if f.left != nil {
			look(f.left)
			look(f.right)
		} else if f.rte != nil {
			extras = extras || f.rte.extras()
		}
	}
	look(it)
	if !extras {
		return nameExtras(it)
	}
	if !it.left.known || !it.right.known {
		return errorf(codeUnsupported, "cannot tell the columns of a NATURAL JOIN; name them in USING")
	}
	it.join.IsNatural = false
	for _, c := range it.left.cols {
		if findStar(it.right.cols, c.name) >= 0 {
			it.join.UsingClause = append(it.join.UsingClause, pg.MakeStrNode(c.name))
		}
	}
	if len(it.join.UsingClause) == 0 {
		it.join.Quals = &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{
			Val: &pg.A_Const_Boolval{Boolval: &pg.Boolean{Boolval: true}}, Location: -1}}}
	}
	return nameExtras(it)
}
