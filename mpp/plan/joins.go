package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Joins in several slices. Each table of an island is moved once at most. Where
// others are joined by other columns, a part of what FROM joins becomes a table of
// its own, as if it stood there as a sub-select: a first stage, an island with
// moves of its own, whose rows are moved once more. Inner joins are the same in
// any order, and a LEFT JOIN adds its columns wherever the rows are that its
// condition is on.

// unit is one of the things that FROM joins: a table, a sub-select, or a join that
// is not taken apart.
type unit struct {
	it   *fromItem
	rtes []*rte // of the level, in it
	// on is the condition of the LEFT JOIN that adds it to rows of the units
	// needs; nil: an inner join does.
	on     *pg.Node
	needs  units
	whole  bool // it is in no part
	leaves []*leaf
	rows   float64 // guess
}

// units is a set of them.
type units uint32

func (s units) has(i int) bool { return s>>i&1 != 0 }

// everywhere is where a result is needed.
const everywhere = ^units(0)

// joinCond is a condition of WHERE, or ON of an inner join.
type joinCond struct {
	expr  *pg.Node
	on    units // whose columns it uses
	stays bool  // it is tested over all of the join
}

// equated are columns of two units that are joined by =.
type equated struct {
	cols [2]colID
	on   units
	left bool // by a LEFT JOIN
}

// joinParts is a level's FROM and WHERE taken apart.
type joinParts struct {
	p      *planner
	lv     *level
	mv     *mover
	refs   map[*pg.Node]*ref // also those of the levels below
	units  []*unit
	of     map[*rte]int // of the level's sources, which unit they are in
	inside map[*pg.Node]bool
	conds  []joinCond
	equal  []equated
	using  map[*mergedCol]colID // what is merged in joins that are taken apart
	uses   map[colID][]units    // what a column is needed with
	links  []*leaf              // of sub-selects in expressions
	sizes  []float64            // rows of each set; 0: not looked for, -1: not known
}

// maxUnits bounds what FROM may join for it to be taken apart: the search looks at
// all parts.
const maxUnits = 8

// joinsOf takes a level's joins apart; nil where that is not certain to be right,
// or no use.
func (p *planner) joinsOf(lv *level) *joinParts {
	sel := lv.sel
	if p.plain || lv.isSet() || lv.outer || !lv.known || len(lv.outs) != len(lv.vals) || sel.WithClause != nil || len(sel.LockingClause) > 0 ||
		len(sel.FromClause) == 0 {
		return nil
	}
	ok := true
	lv.each(func(l *level) bool {
		ok = ok && !slices.ContainsFunc(l.rtes, func(r *rte) bool { return r.owner != "" || r.filtered })
		for _, s := range l.stars {
			if l == lv {
				ok = ok && s.list == &sel.TargetList
			} else {
				ok = ok && (s.rte == nil || s.rte.scope.level != lv)
			}
		}
		return ok
	})
	names := map[string]bool{}
	for _, r := range lv.rtes {
		ok = ok && (r.kind == rteGather || r.kind == rteSub && r.sub != nil && !r.node.GetRangeSubselect().GetLateral())
		if !r.hidden {
			ok = ok && !names[r.alias]
			names[r.alias] = true
		}
	}
	if !ok {
		return nil
	}
	j := &joinParts{p: p, lv: lv, mv: &mover{p: p, lv: lv}, refs: map[*pg.Node]*ref{}, of: map[*rte]int{}, inside: map[*pg.Node]bool{},
		using: map[*mergedCol]colID{}, uses: map[colID][]units{}}
	for _, it := range lv.items {
		j.add(it)
	}
	n := len(j.units)
	compound := slices.ContainsFunc(j.units, func(u *unit) bool { return !u.table() })
	if n < 2 || n > maxUnits || n == 2 && !compound || !j.mv.collect(lv) || len(j.mv.leaves) < 3 || !j.bind() {
		return nil
	}
	return j
}

func (u *unit) table() bool { return u.it.rte != nil && u.it.rte.kind == rteGather }

// add takes a FROM item apart.
func (j *joinParts) add(it *fromItem) {
	if e := it.join; e != nil && it.left != nil && e.Alias == nil && e.JoinUsingAlias == nil {
		switch {
		case e.Jointype == pg.JoinType_JOIN_INNER && j.merges(it):
			j.add(it.left)
			j.add(it.right)
			j.demand(e.Quals)
			return
		case e.Jointype == pg.JoinType_JOIN_LEFT && e.Quals != nil && !slices.ContainsFunc(it.merged, it.owns):
			j.add(it.left)
			j.unit(it.right).on = e.Quals
			return
		}
	}
	j.unit(it)
}

func (j *joinParts) demand(cond *pg.Node) {
	for _, c := range conjuncts(cond) {
		j.conds = append(j.conds, joinCond{expr: c})
	}
}

func (j *joinParts) unit(it *fromItem) *unit {
	u := &unit{it: it}
	var look func(it *fromItem)
	look = func(it *fromItem) {
		if it.rte != nil {
			u.rtes = append(u.rtes, it.rte)
		}
		if it.join != nil && it.left != nil {
			u.whole = u.whole || it.rte != nil || it.join.JoinUsingAlias != nil || len(it.merged) > 0
			look(it.left)
			look(it.right)
		}
	}
	look(it)
	for _, r := range u.rtes {
		j.of[r] = len(j.units)
	}
	if !u.table() {
		walk(it.node, func(m any) bool {
			if n, ok := m.(*pg.Node); ok {
				j.inside[n] = true
			}
			return true
		})
	}
	j.units = append(j.units, u)
	return u
}

// merges notes the columns that an inner join merges, if they are just those of
// its left side.
func (j *joinParts) merges(it *fromItem) bool {
	if it.join.IsNatural && !it.known {
		return false
	}
	own := map[*mergedCol][2]colID{}
	for _, m := range it.merged {
		if !it.owns(m) {
			continue
		}
		l, ok1 := m.left.id()
		r, ok2 := m.right.id()
		a, b := baseColumn(l), baseColumn(r)
		if !ok1 || !ok2 || a == nil || b == nil || a.TypeOID != b.TypeOID || a.Type != b.Type || a.Collation != b.Collation {
			return false
		}
		for _, in := range []*mergedCol{m.left.merged, m.right.merged} {
			if in != nil && in.join != pg.JoinType_JOIN_INNER {
				return false
			}
		}
		own[m] = [2]colID{l, r}
	}
	for _, m := range it.merged {
		if ids, ok := own[m]; ok {
			j.using[m] = ids[0]
			j.conds = append(j.conds, joinCond{expr: equals(j.column(ids[0]), j.column(ids[1]))})
		}
	}
	return true
}

// column is a reference to a column of the level's sources.
func (j *joinParts) column(id colID) *pg.Node {
	name := id.rte.cols[id.col]
	n := colRef(id.rte.alias, name)
	j.refs[n] = &ref{kind: refColumn, node: n, cr: n.GetColumnRef(), rte: id.rte, col: id.col, name: name, scope: j.lv.scope, level: j.lv}
	return n
}

// meant is the column of the level's sources that a reference means. ok is false
// when it means something else.
func (j *joinParts) meant(r *ref) (id colID, ok bool) {
	switch {
	case r.scope == nil || r.scope.level != j.lv || j.inside[r.node] && r.level == j.lv:
	case r.kind == refColumn:
		return colID{r.rte, r.col}, true
	case r.kind == refMerged:
		id, ok = j.using[r.merged]
	}
	return id, ok
}

// bind finds out what belongs to which units, and says false when something is
// not understood.
func (j *joinParts) bind() bool {
	lv := j.lv
	j.demand(lv.sel.WhereClause)
	ok := true
	lv.each(func(l *level) bool {
		for _, r := range l.refs {
			j.refs[r.node] = r
			ok = ok && j.understood(r)
		}
		return ok
	})
	if !ok {
		return false
	}
	j.place()
	seen := map[*pg.Node]bool{}
	look := func(expr *pg.Node) (on units, stays bool) {
		walk(expr, func(m any) bool {
			switch v := m.(type) {
			case *pg.SubLink:
				stays = true
			case *pg.Node:
				if r := j.refs[v]; r != nil {
					seen[v] = true
					if id, ok := j.meant(r); ok {
						on |= 1 << j.of[id.rte]
					} else if i, ok := j.of[r.rte]; ok && r.rte != nil {
						on |= 1 << i
					} else if r.kind == refMerged {
						stays = true
					}
				}
			}
			return true
		})
		return on, stays
	}
	use := func(expr *pg.Node, on units) {
		walk(expr, func(m any) bool {
			if n, ok := m.(*pg.Node); ok && j.refs[n] != nil {
				if id, ok := j.meant(j.refs[n]); ok {
					j.uses[id] = append(j.uses[id], on)
				}
			}
			return true
		})
	}
	for i, u := range j.units {
		if u.on == nil {
			continue
		}
		on, stays := look(u.on)
		if u.needs = on &^ (1 << i); u.needs == 0 || u.needs >= 1<<i || stays {
			return false
		}
		use(u.on, on)
		for _, c := range conjuncts(u.on) {
			j.equate(c, true)
		}
	}
	for i := range j.conds {
		c := &j.conds[i]
		if c.on, c.stays = look(c.expr); c.stays {
			use(c.expr, everywhere)
		} else {
			use(c.expr, c.on)
		}
		j.equate(c.expr, false)
	}
	for _, list := range j.p.impliedBy(lv) {
		for _, m := range list {
			look(m.cond) // nobody needs it
		}
	}
	for n, r := range j.refs {
		if id, ok := j.meant(r); ok && !seen[n] {
			j.uses[id] = append(j.uses[id], everywhere)
		}
	}
	for _, v := range lv.vals {
		if v.star == nil {
			continue
		}
		id, ok := j.shown(v.star)
		if !ok {
			return false
		}
		j.uses[id] = append(j.uses[id], everywhere)
	}
	return true
}

// shown is the column that a star shows.
func (j *joinParts) shown(s *starCol) (colID, bool) {
	if s.merged != nil {
		id, ok := j.using[s.merged]
		return id, ok
	}
	return colID{s.rte, s.col}, s.rte != nil
}

// understood looks at a reference.
func (j *joinParts) understood(r *ref) bool {
	switch {
	case r.kind == refUncertain || r.kind == refAttribute:
		return false
	case r.kind == refOutput || r.scope == nil || r.scope.level != j.lv:
		return true
	case r.kind == refMerged:
		_, using := j.using[r.merged]
		return !using || r.level == j.lv
	}
	i, ok := j.of[r.rte]
	if ok && r.kind != refColumn {
		j.units[i].whole = true
	}
	return ok
}

// place finds the tables of each unit.
func (j *joinParts) place() {
	below := map[*level]int{}
	for i, u := range j.units {
		for _, r := range u.rtes {
			u.whole = u.whole || r.whole || !r.known || r.hidden || r.kind == rteGather && r.first == nil && j.p.movable(j.lv, r) != ""
			if r.kind == rteSub {
				r.sub.each(func(l *level) bool { below[l] = i; return true })
			}
		}
	}
	for _, l := range j.mv.leaves {
		i, ok := j.of[l.rte]
		if !ok {
			i, ok = below[l.lv]
		}
		if l.link && l.lv == j.lv || !ok {
			j.links = append(j.links, l)
			continue
		}
		j.units[i].leaves = append(j.units[i].leaves, l)
	}
	for _, u := range j.units {
		u.rows = 1
		for _, l := range u.leaves {
			if !l.asked {
				u.rows = max(u.rows, l.rows)
			}
		}
		if r := u.it.rte; r != nil && r.kind == rteSub {
			u.rows = min(u.rows, r.sub.groupRows(u.rows))
		}
	}
}

// groupRows guesses how many groups a level makes of so many rows; it is rows
// where it makes none.
func (lv *level) groupRows(rows float64) float64 {
	if lv.isSet() || len(lv.sel.GroupClause) == 0 {
		return rows
	}
	refs := lv.refsByNode()
	groups := 1.0
	for _, n := range lv.sel.GroupClause {
		e, _ := lv.position(n)
		if r := refs[e]; r != nil && r.kind == refOutput && r.col >= 0 && r.col < len(lv.vals) {
			e = lv.vals[r.col].expr
		}
		r := refs[e]
		if r == nil {
			return rows
		}
		id, ok := r.columnID()
		d := distinct(id)
		if !ok || d == 0 {
			return rows
		}
		groups *= d
	}
	return min(groups, rows)
}

// distinct is how many different values a column of a source has, 0 when that is
// not known.
func distinct(id colID) (n float64) {
	for _, b := range inner(id) {
		c := baseColumn(b)
		if c == nil || c.Distinct <= 0 {
			return 0
		}
		n += c.Distinct
	}
	return n
}

// equate notes columns that a condition equates.
func (j *joinParts) equate(cond *pg.Node, left bool) {
	x := cond.GetAExpr()
	if x == nil || !isEquals(x) || j.refs[x.Lexpr] == nil || j.refs[x.Rexpr] == nil {
		return
	}
	a, ok1 := j.meant(j.refs[x.Lexpr])
	b, ok2 := j.meant(j.refs[x.Rexpr])
	if ok1 && ok2 && j.of[a.rte] != j.of[b.rte] && familyOf(a) != "" && familyOf(a) == familyOf(b) {
		j.equal = append(j.equal, equated{[2]colID{a, b}, 1<<j.of[a.rte] | 1<<j.of[b.rte], left})
	}
}
