package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// binder finds out what every name of a statement means. It expands views over
// distributed tables as it meets them; else it leaves the tree as it is.
type binder struct {
	look   *lookup
	levels []*level // the outermost ones
	err    error
	views  int // nesting of views
	// owner is the role whose rights the view that is bound has, "" the user's.
	owner string
	// raw says that the next table is the one that a Filtered view filters.
	raw bool
	// keepViews leaves views in their places.
	keepViews bool
}

func (b *binder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// ctes is the chain of WITH queries that can be seen.
type ctes struct {
	outer *ctes
	name  string
	cols  []string
	known bool
	query *withQuery // nil for what is not simply a SELECT
}

func (c *ctes) find(rv *pg.RangeVar) *ctes {
	if rv.Schemaname != "" || rv.Catalogname != "" {
		return nil
	}
	for ; c != nil; c = c.outer {
		if c.name == rv.Relname {
			return c
		}
	}
	return nil
}

// maxViewDepth bounds the nesting of views; PostgreSQL has no such views
// unless its catalog is broken.
const maxViewDepth = 100

// selectStmt binds a SELECT whose names may also mean what outer shows.
func (b *binder) selectStmt(sel *pg.SelectStmt, outer *scope, parent *level, env *ctes) *level {
	return b.selectInto(sel, outer, parent, env, nil)
}

// selectInto is selectStmt that fills in the columns of the recursive WITH
// query rec as soon as its first arm is known.
func (b *binder) selectInto(sel *pg.SelectStmt, outer *scope, parent *level, env *ctes, rec *ctes) *level {
	lv := &level{sel: sel, parent: parent}
	lv.scope = &scope{parent: outer, level: lv}
	if parent != nil {
		parent.subs = append(parent.subs, lv)
	} else {
		b.levels = append(b.levels, lv)
	}
	env = b.withClause(sel.WithClause, outer, lv, env)
	if sel.Op != pg.SetOperation_SETOP_NONE && sel.Op != pg.SetOperation_SET_OPERATION_UNDEFINED {
		l := b.selectStmt(sel.Larg, outer, lv, env)
		lv.outs, lv.known = l.outs, l.known
		if rec != nil {
			rec.setCols(lv)
		}
		lv.arms = [2]*level{l, b.selectStmt(sel.Rarg, outer, lv, env)}
		for _, n := range sel.SortClause {
			b.outputOnly(n, lv, env)
		}
		b.limits(lv, env)
		return lv
	}
	for _, n := range sel.FromClause {
		it := b.fromItem(n, lv, env)
		lv.items = append(lv.items, it)
	}
	b.renameTwins(lv)
	b.targets(lv, env)
	if sel.WhereClause != nil {
		b.expr(sel.WhereClause, lv.scope, lv, env)
	}
	if sel.HavingClause != nil {
		b.expr(sel.HavingClause, lv.scope, lv, env)
	}
	for _, n := range sel.SortClause {
		b.sortItem(n.GetSortBy().GetNode(), lv, env, false)
	}
	for _, n := range sel.GroupClause {
		b.groupItem(n, lv, env)
	}
	for _, n := range sel.DistinctClause {
		if n.GetNode() != nil {
			b.sortItem(n, lv, env, false)
		}
	}
	for _, n := range sel.WindowClause {
		b.expr(n, lv.scope, lv, env)
	}
	b.limits(lv, env)
	b.restrictions(lv)
	lv.locks = lv.lockedTables()
	return lv
}

// restrictions looks for functions that run on all segments outside FROM: a
// SELECT of them alone runs there, elsewhere they cannot be.
func (b *binder) restrictions(lv *level) {
	var segments, coordinator, inTargets int
	for _, c := range lv.calls {
		where, err := b.look.location(c.fn)
		if err != nil {
			b.fail(err)
			return
		}
		switch where {
		case 's':
			segments++
		case 'c':
			coordinator++
		}
	}
	if segments == 0 {
		return
	}
	for _, n := range lv.sel.TargetList {
		if fn := n.GetResTarget().GetVal().GetFuncCall(); fn != nil {
			if where, _ := b.look.location(fn); where == 's' {
				inTargets++
			}
		}
	}
	msg := ""
	switch {
	case coordinator > 0:
		msg = "cannot mix EXECUTE ON COORDINATOR and EXECUTE ON ALL SEGMENTS functions in same query level"
	case inTargets < segments || lv.sublinks > 0:
		msg = "function with EXECUTE ON restrictions cannot be used here"
	case len(lv.sel.FromClause) > 0:
		msg = "function with EXECUTE ON restrictions cannot be used in the SELECT list of a query with FROM"
	}
	if msg != "" {
		b.fail(errorf(codeUnsupported, "%s", msg))
		return
	}
	lv.segments = true
}

func (b *binder) limits(lv *level, env *ctes) {
	if n := lv.sel.LimitCount; n != nil {
		b.expr(n, lv.scope, lv, env)
	}
	if n := lv.sel.LimitOffset; n != nil {
		b.expr(n, lv.scope, lv, env)
	}
}

func (c *ctes) setCols(lv *level) {
	c.known = lv.known
	for i, name := range lv.outs {
		if i >= len(c.cols) {
			c.cols = append(c.cols, name)
		}
	}
}

// withClause binds the WITH queries of a statement and adds them to env.
func (b *binder) withClause(w *pg.WithClause, outer *scope, lv *level, env *ctes) *ctes {
	if w == nil {
		return env
	}
	entries := make([]*ctes, len(w.Ctes))
	for i, n := range w.Ctes {
		cte := n.GetCommonTableExpr()
		e := &ctes{name: cte.GetCtename()}
		for _, c := range cte.GetAliascolnames() {
			e.cols = append(e.cols, c.GetString_().GetSval())
		}
		entries[i] = e
		if w.Recursive {
			e.outer, env = env, e
		}
	}
	for i, n := range w.Ctes {
		cte := n.GetCommonTableExpr()
		e := entries[i]
		if s := nodeSelect(cte.GetCtequery()); s != nil {
			sub := b.selectInto(s, outer, lv, env, e)
			e.setCols(sub)
			if !w.Recursive {
				e.query = &withQuery{lv: sub, cte: cte}
				lv.with = append(lv.with, e.query)
			}
		} else {
			b.writingCTE(cte.GetCtequery(), env)
		}
		if cte.GetSearchClause() != nil || cte.GetCycleClause() != nil {
			e.known = false // they add columns
		}
		if !w.Recursive {
			e.outer, env = env, e
		}
	}
	return env
}

// writingCTE looks at INSERT, UPDATE or DELETE in WITH. It runs on the
// coordinator, so nothing in it may be distributed.
func (b *binder) writingCTE(n *pg.Node, env *ctes) {
	var with *withNames
	for e := env; e != nil; e = e.outer {
		with = &withNames{with, e.name}
	}
	eachRelation(n, with, func(rv *pg.RangeVar, cte bool) {
		if cte || b.err != nil {
			return
		}
		rel, err := b.look.relation(rv.Schemaname, rv.Relname)
		touches := rel != nil && rel.Policy != nil
		if rel != nil && err == nil && !touches {
			touches, err = b.look.touches(rel)
		}
		if err != nil {
			b.fail(err)
		} else if touches {
			b.fail(&Error{Code: codeUnsupported,
				Message: "cannot use distributed table \"" + rel.Name + "\" in a data-modifying WITH query",
				Hint:    "Run the INSERT, UPDATE or DELETE as a statement of its own."})
		}
	})
}

// renameTwins gives a gathered relation a name of its own where FROM names two
// tables of different schemas by the same name.
func (b *binder) renameTwins(lv *level) {
	for i, r := range lv.rtes {
		if r.schema == "" || r.kind != rteGather {
			continue
		}
		for j, o := range lv.rtes {
			if i != j && !o.hidden && !r.hidden && o.alias == r.alias {
				r.alias = uniqueAlias(lv, r.alias)
				break
			}
		}
	}
}

func uniqueAlias(lv *level, alias string) string {
	for k := 1; ; k++ {
		name := alias + "_" + itoa(k)
		free := true
		for _, r := range lv.rtes {
			free = free && r.alias != name
		}
		if free {
			return name
		}
	}
}

// targets binds the target list or the VALUES lists.
func (b *binder) targets(lv *level, env *ctes) {
	lv.known = true
	if lists := lv.sel.ValuesLists; len(lists) > 0 {
		for i := range lists[0].GetList().GetItems() {
			lv.outs = append(lv.outs, "column"+itoa(i+1))
		}
		for _, l := range lists {
			items := &l.GetList().Items
			for _, n := range *items {
				b.starOr(n, n, items, lv, env)
			}
		}
		return
	}
	list := &lv.sel.TargetList
	for _, n := range *list {
		t := n.GetResTarget()
		if t == nil {
			continue
		}
		if star := b.starOr(n, t.Val, list, lv, env); star {
			continue
		}
		if isStar(t.Val) { // (row).*
			lv.known = false
			continue
		}
		name, ok := targetName(t)
		if !ok {
			lv.known = false
		}
		lv.outs = append(lv.outs, name)
		lv.vals = append(lv.vals, outVal{expr: t.Val})
	}
}

// starOr binds val: as a star that stands for several columns, or as an
// expression. elem is the element of list that holds it.
func (b *binder) starOr(elem, val *pg.Node, list *[]*pg.Node, lv *level, env *ctes) bool {
	cr := val.GetColumnRef()
	if cr == nil {
		b.expr(val, lv.scope, lv, env)
		return false
	}
	parts, ends := fieldNames(cr)
	if !ends {
		b.expr(val, lv.scope, lv, env)
		return false
	}
	s := star{list: list, node: elem, val: val}
	inTargets := list == &lv.sel.TargetList
	if len(parts) == 0 {
		s.items = lv.items
		for _, it := range lv.items {
			for _, r := range it.rtes {
				r.needAll()
			}
			if inTargets {
				lv.addOuts(it.cols, it.known)
			}
		}
		lv.stars = append(lv.stars, s)
		return true
	}
	r, at := b.starRTE(parts, lv.scope)
	if r == nil {
		lv.known = false
		lv.mark(nil)
		return true
	}
	lv.mark(at)
	r.needAll()
	s.rte = r
	lv.stars = append(lv.stars, s)
	if inTargets {
		var cols []starCol
		for i, c := range r.cols {
			cols = append(cols, starCol{name: c, rte: r, col: i})
		}
		lv.addOuts(cols, r.known)
	}
	return true
}

func (b *binder) starRTE(parts []string, sc *scope) (*rte, *scope) {
	if n := len(parts); n > 1 {
		return sc.bySchema(parts[n-2], parts[n-1])
	}
	return sc.byAlias(parts[0])
}

func (lv *level) addOuts(cols []starCol, known bool) {
	for i, c := range cols {
		lv.outs = append(lv.outs, c.name)
		lv.vals = append(lv.vals, outVal{star: &cols[i]})
	}
	lv.known = lv.known && known
}

// mark notes that lv uses a name of scope at: every level in between depends
// on it. at nil means that it is not known where the name is.
func (lv *level) mark(at *scope) {
	for l := lv; l != nil && (at == nil || l != at.level); l = l.parent {
		l.outer = true
	}
}

// sortItem binds an ORDER BY or DISTINCT ON item, or with group a GROUP BY
// item: a lone name may mean a result column.
func (b *binder) sortItem(n *pg.Node, lv *level, env *ctes, group bool) {
	if cr := n.GetColumnRef(); cr != nil {
		if parts, star := fieldNames(cr); len(parts) == 1 && !star {
			if i := lv.outColumn(parts[0]); i >= 0 {
				input := false
				for _, r := range lv.scope.rtes {
					input = input || !r.hidden && r.column(parts[0]) >= 0
				}
				if !group || !input {
					lv.refs = append(lv.refs, &ref{kind: refOutput, node: n, cr: cr, col: i, name: parts[0], level: lv})
					return
				}
			}
		}
	}
	b.expr(n, lv.scope, lv, env)
}

// outColumn is the index of the result column of that name, -1 when there is
// none.
func (lv *level) outColumn(name string) int {
	for i, o := range lv.outs {
		if o == name {
			return i
		}
	}
	return -1
}

func (b *binder) groupItem(n *pg.Node, lv *level, env *ctes) {
	if gs := n.GetGroupingSet(); gs != nil {
		for _, c := range gs.Content {
			b.groupItem(c, lv, env)
		}
		return
	}
	if row := n.GetRowExpr(); row != nil && row.RowFormat == pg.CoercionForm_COERCE_IMPLICIT_CAST {
		for _, c := range row.Args {
			b.groupItem(c, lv, env)
		}
		return
	}
	b.sortItem(n, lv, env, true)
}

// outputOnly binds ORDER BY of a set operation, which names result columns.
func (b *binder) outputOnly(n *pg.Node, lv *level, env *ctes) {
	item := n.GetSortBy().GetNode()
	if cr := item.GetColumnRef(); cr != nil {
		parts, _ := fieldNames(cr)
		if len(parts) == 1 {
			lv.refs = append(lv.refs, &ref{kind: refOutput, node: item, cr: cr, col: lv.outColumn(parts[0]), name: parts[0], level: lv})
			return
		}
	}
	b.expr(item, lv.scope, lv, env)
}
