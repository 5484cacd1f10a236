package plan

import (
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
)

func itoa(i int) string { return strconv.Itoa(i) }

// fromItem binds one FROM item of lv and adds its names to the level's scope.
func (b *binder) fromItem(n *pg.Node, lv *level, env *ctes) *fromItem {
	it := &fromItem{node: n, known: true}
	switch v := n.Node.(type) {
	case *pg.Node_RangeVar:
		b.rangeVar(it, v.RangeVar, nil, lv, env)
	case *pg.Node_RangeTableSample:
		s := v.RangeTableSample
		for _, a := range s.Args {
			b.expr(a, lv.scope, lv, env)
		}
		if s.Repeatable != nil {
			b.expr(s.Repeatable, lv.scope, lv, env)
		}
		if rv := s.Relation.GetRangeVar(); rv != nil {
			b.rangeVar(it, rv, s, lv, env)
		} else {
			it.known = false
		}
	case *pg.Node_RangeSubselect:
		b.subselect(it, v.RangeSubselect, lv, env)
	case *pg.Node_RangeFunction:
		b.function(it, v.RangeFunction, lv, env)
	case *pg.Node_RangeTableFunc:
		b.tableFunc(it, v.RangeTableFunc, lv, env)
	case *pg.Node_JoinExpr:
		b.joinExpr(it, v.JoinExpr, lv, env)
	default: // JSON_TABLE
		b.expr(n, lv.scope, lv, env)
		b.leaf(it, &rte{kind: rteFunc}, nil, "", lv)
	}
	return it
}

// leaf adds a source that is no join. alias renames it and its first columns.
func (b *binder) leaf(it *fromItem, r *rte, alias *pg.Alias, name string, lv *level) {
	r.alias = name
	r.node = it.node
	r.scope = lv.scope
	if alias != nil {
		r.alias = alias.Aliasname
		r.cols = renamed(r.cols, alias)
	}
	it.rte, it.rtes, it.known = r, []*rte{r}, r.known
	for i, c := range r.cols {
		it.cols = append(it.cols, starCol{name: c, rte: r, col: i})
	}
	lv.rtes = append(lv.rtes, r)
	lv.scope.rtes = append(lv.scope.rtes, r)
}

// renamed is cols with an alias' column names over the first ones.
func renamed(cols []string, alias *pg.Alias) []string {
	if len(alias.Colnames) == 0 {
		return cols
	}
	out := append([]string(nil), cols...)
	for i, c := range alias.Colnames {
		if i < len(out) {
			out[i] = c.GetString_().GetSval()
		} else {
			out = append(out, c.GetString_().GetSval())
		}
	}
	return out
}

func (b *binder) rangeVar(it *fromItem, rv *pg.RangeVar, sample *pg.RangeTableSample, lv *level, env *ctes) {
	r := &rte{rv: rv, sample: sample, filtered: b.raw}
	b.raw = false
	if c := env.find(rv); c != nil && sample == nil {
		r.kind, r.cols, r.known, r.with = rteCTE, c.cols, c.known, c.query
		if c.query != nil {
			c.query.uses++
		}
		b.leaf(it, r, rv.Alias, rv.Relname, lv)
		return
	}
	rel, err := b.look.relation(rv.Schemaname, rv.Relname)
	if err != nil {
		b.fail(err)
		return
	}
	if rel == nil { // PostgreSQL will say so
		r.kind = rteLocal
		b.leaf(it, r, rv.Alias, rv.Relname, lv)
		return
	}
	touches, err := b.look.touches(rel)
	switch {
	case err != nil:
		b.fail(err)
		return
	case rel.Policy != nil && (b.owner == "" || r.filtered):
		r.kind = rteGather
	case rel.Policy == nil && (b.keepViews || !touches && (b.owner == "" || rel.Kind != 'v' || rel.ViewDef == "")):
		r.kind = rteLocal
	default:
		if rel, err = b.look.cat.ReadAs(rv.Schemaname, rv.Relname, b.owner); err != nil {
			b.fail(err)
			return
		}
		if rel.Filtered && sample != nil {
			b.fail(errorf(codeUnsupported, "a sample of table %q, which has row-level security, cannot be read with the rights of the view's owner", rel.Name))
			return
		}
		if rel.Policy == nil {
			b.view(it, rv, rel, lv)
			return
		}
		r.kind = rteGather
	}
	b.relation(it, r, rel, rv.Alias, rv.Relname, lv)
}

// relation adds a source that is a relation.
func (b *binder) relation(it *fromItem, r *rte, rel *Relation, alias *pg.Alias, name string, lv *level) {
	r.rel, r.known, r.owner = rel, true, b.owner
	if alias == nil {
		r.schema = rel.Schema
	}
	for _, c := range rel.Columns {
		r.cols = append(r.cols, c.Name)
	}
	if r.kind == rteLocal && len(rel.Columns) == 0 {
		r.known = false // a catalog that does not list them
	}
	b.leaf(it, r, alias, name, lv)
}

// view puts a view's definition in its place.
func (b *binder) view(it *fromItem, rv *pg.RangeVar, rel *Relation, lv *level) {
	if b.views++; b.views > maxViewDepth {
		b.fail(errorf(codeUnsupported, "view %q is nested too deeply", rel.Name))
		return
	}
	defer func() { b.views-- }()
	sel, err := b.look.viewSelect(rel)
	if err != nil {
		b.fail(err)
		return
	}
	if rel.Owner != "" && sel.LimitCount == nil && sel.LimitOffset == nil {
		// A fence: nothing of the user's query comes to see the rows that
		// the view leaves out.
		sel.LimitOffset = intConst(0)
	}
	outer := b.owner
	b.owner, b.raw = rel.Owner, rel.Filtered
	defer func() { b.owner = outer }()
	alias := rv.Alias
	if alias == nil {
		alias = &pg.Alias{Aliasname: rv.Relname}
	}
	it.node.Node = &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}}, Alias: alias}}
	sub := b.selectStmt(sel, nil, lv, nil)
	r := &rte{kind: rteSub, sub: sub, cols: sub.outs, known: sub.known, rv: rv}
	if len(rel.Columns) > 0 {
		r.cols, r.known = nil, true
		for _, c := range rel.Columns {
			r.cols = append(r.cols, c.Name)
		}
	}
	if rv.Alias == nil {
		r.schema = rel.Schema
	}
	r.rel = rel
	b.leaf(it, r, alias, "", lv)
}

func (b *binder) subselect(it *fromItem, s *pg.RangeSubselect, lv *level, env *ctes) {
	r := &rte{kind: rteSub}
	if sel := nodeSelect(s.Subquery); sel != nil {
		outer := lv.scope.parent
		if s.Lateral {
			outer = lv.scope
		}
		r.sub = b.selectStmt(sel, outer, lv, env)
		r.cols, r.known = r.sub.outs, r.sub.known
	}
	b.leaf(it, r, s.Alias, "", lv)
}

// scalarFuncs return one column named as the function or its alias.
var scalarFuncs = map[string]bool{
	"generate_series": true, "generate_subscripts": true, "regexp_split_to_table": true, "string_to_table": true,
	"regexp_matches": true,
}

func (b *binder) function(it *fromItem, f *pg.RangeFunction, lv *level, env *ctes) {
	name, ok, err := distRandom(f)
	if err != nil {
		b.fail(err)
		return
	}
	if ok {
		b.distRandom(it, f, name, lv)
		return
	}
	before := len(lv.calls)
	refs := len(lv.refs)
	links := lv.sublinks
	for _, fn := range f.Functions {
		b.expr(fn, lv.scope, lv, env)
	}
	calls := lv.calls[before:]
	lv.calls = lv.calls[:before:before]
	lv.fromCalls = append(lv.fromCalls, calls...)
	r := &rte{kind: rteFunc, fn: f}
	first := ""
	if len(f.Functions) > 0 {
		if items := f.Functions[0].GetList().GetItems(); len(items) > 0 {
			call := items[0].GetFuncCall()
			_, first = funcName(call)
			if call != nil {
				if where, err := b.look.location(call); err != nil {
					b.fail(err)
				} else if where == 's' {
					if len(f.Functions) > 1 || len(lv.refs) > refs || lv.sublinks > links || len(calls) > 1 && b.look.unsafeCalls(calls[1:]) {
						b.fail(errorf(codeUnsupported, "function with EXECUTE ON restrictions cannot be used here"))
					}
					r.kind = rteSegments
				}
			}
			if scalarFuncs[first] || first == "unnest" && len(call.GetArgs()) == 1 {
				if len(f.Functions) == 1 && !f.IsRowsfrom {
					col := first
					if f.Alias != nil {
						col = f.Alias.Aliasname
					}
					r.cols, r.known = []string{col}, first != "unnest"
				}
			}
		}
	}
	if len(f.Functions) == 1 && len(f.Coldeflist) > 0 {
		r.cols, r.known = nil, true
		for _, c := range f.Coldeflist {
			r.cols = append(r.cols, c.GetColumnDef().GetColname())
		}
	}
	if f.Ordinality {
		if r.known {
			r.cols = append(r.cols, "ordinality")
		} else {
			r.cols = nil
		}
	}
	b.leaf(it, r, f.Alias, first, lv)
}

// distRandom binds gp_dist_random('name').
func (b *binder) distRandom(it *fromItem, f *pg.RangeFunction, name Name, lv *level) {
	rel, err := b.look.relation(name.Schema, name.Name)
	if err != nil {
		b.fail(err)
		return
	}
	if rel == nil {
		full := name.Name
		if name.Schema != "" {
			full = name.Schema + "." + full
		}
		b.fail(errorf(codeUndefinedTbl, "relation %q does not exist", full))
		return
	}
	b.relation(it, &rte{kind: rteGather, fn: f, random: true}, rel, f.Alias, name.Name, lv)
}

func (b *binder) tableFunc(it *fromItem, f *pg.RangeTableFunc, lv *level, env *ctes) {
	r := &rte{kind: rteFunc, known: true}
	for _, n := range []*pg.Node{f.Docexpr, f.Rowexpr} {
		if n != nil {
			b.expr(n, lv.scope, lv, env)
		}
	}
	for _, n := range f.Namespaces {
		b.expr(n, lv.scope, lv, env)
	}
	for _, n := range f.Columns {
		c := n.GetRangeTableFuncCol()
		r.cols = append(r.cols, c.GetColname())
		for _, e := range []*pg.Node{c.GetColexpr(), c.GetColdefexpr()} {
			if e != nil {
				b.expr(e, lv.scope, lv, env)
			}
		}
	}
	b.leaf(it, r, f.Alias, "xmltable", lv)
}

func (b *binder) joinExpr(it *fromItem, j *pg.JoinExpr, lv *level, env *ctes) {
	merged := len(lv.scope.merged)
	l := b.fromItem(j.Larg, lv, env)
	r := b.fromItem(j.Rarg, lv, env)
	if b.err != nil {
		return
	}
	it.join, it.left, it.right = j, l, r
	it.rtes = append(append([]*rte(nil), l.rtes...), r.rtes...)
	it.merged = append(append([]*mergedCol(nil), l.merged...), r.merged...)
	if j.Quals != nil {
		on := &scope{parent: lv.scope.parent, level: lv, rtes: it.rtes, merged: it.merged}
		b.expr(j.Quals, on, lv, env)
	}
	b.joinColumns(it)
	lv.scope.merged = append(lv.scope.merged[:merged:merged], it.merged...)
	if j.JoinUsingAlias != nil {
		// An alias for the merged columns alone.
		u := &rte{kind: rteJoin, alias: j.JoinUsingAlias.Aliasname, known: true, inner: it.rtes, scope: lv.scope}
		for _, c := range j.UsingClause {
			u.cols = append(u.cols, c.GetString_().GetSval())
		}
		lv.joins = append(lv.joins, u)
		lv.scope.rtes = append(lv.scope.rtes, u)
	}
	if j.Alias == nil {
		return
	}
	jr := &rte{kind: rteJoin, alias: j.Alias.Aliasname, known: it.known, inner: it.rtes, scope: lv.scope}
	for _, c := range it.cols {
		jr.cols = append(jr.cols, c.name)
	}
	if len(j.Alias.Colnames) > 0 {
		jr.cols = renamed(jr.cols, j.Alias)
		jr.needAll() // renamed by position
	}
	for _, t := range it.rtes {
		t.hidden = true
	}
	it.rte, it.rtes, it.merged, it.cols = jr, []*rte{jr}, nil, nil
	for i, c := range jr.cols {
		it.cols = append(it.cols, starCol{name: c, rte: jr, col: i})
	}
	lv.scope.merged = lv.scope.merged[:merged:merged]
	lv.joins = append(lv.joins, jr)
	lv.scope.rtes = append(lv.scope.rtes, jr)
}

// joinColumns works out the columns of a join: merged ones first.
func (b *binder) joinColumns(it *fromItem) {
	j, l, r := it.join, it.left, it.right
	it.known = l.known && r.known
	var using []string
	if j.IsNatural {
		for _, t := range it.rtes {
			t.needAll()
		}
		for _, c := range l.cols {
			if findStar(r.cols, c.name) >= 0 {
				using = append(using, c.name)
			}
		}
	}
	for _, c := range j.UsingClause {
		name := c.GetString_().GetSval()
		using = append(using, name)
		for _, t := range it.rtes {
			t.needName(name)
		}
	}
	lcols, rcols := append([]starCol(nil), l.cols...), append([]starCol(nil), r.cols...)
	for _, name := range using {
		li, ri := findStar(lcols, name), findStar(rcols, name)
		if li < 0 || ri < 0 { // of a source whose columns are not known
			it.known = false
			it.merged = append(it.merged, &mergedCol{name: name, join: j.Jointype})
			continue
		}
		m := &mergedCol{name: name, join: j.Jointype, left: lcols[li], right: rcols[ri]}
		it.merged = append(it.merged, m)
		it.cols = append(it.cols, starCol{name: name, merged: m})
		lcols = append(lcols[:li], lcols[li+1:]...)
		rcols = append(rcols[:ri], rcols[ri+1:]...)
	}
	it.cols = append(append(it.cols, lcols...), rcols...)
}

func findStar(cols []starCol, name string) int {
	for i, c := range cols {
		if c.name == name {
			return i
		}
	}
	return -1
}
