package plan

import (
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// A part of a join, and what is left of that over it.

// part is the level of a part of a join, whose result columns are those needed.
func (j *joinParts) part(of units) (*level, error) {
	sel := newSelect()
	j.rewritten(0, nil, func() {
		ids := j.needed(of)
		for i, name := range partColumns(ids) {
			sel.TargetList = append(sel.TargetList, target(name, colRef(ids[i].rte.alias, ids[i].rte.cols[ids[i].col])))
		}
		sel.FromClause = j.from(of, nil)
		var where, done []*pg.Node
		for i := range j.conds {
			if c := &j.conds[i]; c.within(of) {
				where = append(where, c.expr)
			}
		}
		for i, u := range j.units {
			if !of.has(i) || !u.table() || u.on != nil {
				continue
			}
			for _, m := range j.p.impliedBy(j.lv)[u.it.rte] {
				if !slices.Contains(where, m.from) && !slices.Contains(done, m.cond) {
					done = append(done, m.cond)
				}
			}
		}
		if where = append(where, done...); len(where) > 0 {
			sel.WhereClause = and(where)
		}
		sel = proto.CloneOf(sel)
	})
	return j.p.bind(sel)
}

// partColumns names the columns of a part: after what they are, where PostgreSQL
// would not cut that off.
func partColumns(ids []colID) (names []string) {
	const most = 63 // bytes of a name
	for i, id := range ids {
		name := id.rte.alias + "." + id.rte.cols[id.col]
		if len(name) > most || slices.Contains(names, name) {
			name = "?" + topColumn(i)
		}
		names = append(names, name)
	}
	return names
}

// over is the level over a part that rv stands for.
func (j *joinParts) over(part units, rv *pg.RangeVar) (*level, error) {
	lv := j.lv
	given := map[colID]*pg.Node{}
	names := map[string]bool{}
	ids := j.needed(part)
	for i, name := range partColumns(ids) {
		given[ids[i]] = colRef(rv.Alias.Aliasname, name)
		names[name] = true
	}
	for _, r := range j.refs {
		if names[r.name] && len(r.cr.Fields) == 1 {
			return nil, nil // it would mean something else
		}
	}
	sel := newSelect()
	setSelect(sel, lv.sel)
	j.rewritten(part, given, func() {
		sel.TargetList = nil
		for i, v := range lv.vals {
			e := v.expr
			if v.star != nil {
				id, _ := j.shown(v.star)
				if e = given[id]; e == nil {
					e = colRef(id.rte.alias, id.rte.cols[id.col])
				}
			}
			sel.TargetList = append(sel.TargetList, target(lv.outs[i], e))
		}
		sel.FromClause = j.from(everywhere&^part, &pg.Node{Node: &pg.Node_RangeVar{RangeVar: rv}})
		var where []*pg.Node
		for i := range j.conds {
			if c := &j.conds[i]; !c.within(part) {
				where = append(where, c.expr)
			}
		}
		sel.WhereClause = and(where)
		sel = proto.CloneOf(sel)
	})
	over, err := j.p.bind(sel)
	if err == nil {
		over.parent, over.exists = lv.parent, lv.exists
	}
	return over, err
}

// partAlias is a name for a part that nothing in the level has.
func (j *joinParts) partAlias() string {
	names := map[string]bool{}
	j.lv.each(func(l *level) bool {
		for _, r := range append(slices.Clone(l.rtes), l.joins...) {
			names[r.alias] = true
		}
		return true
	})
	for k := 1; ; k++ {
		if name := "?join" + strconv.Itoa(k); !names[name] {
			return name
		}
	}
}

// cut makes a first stage of a part of a level's join, and the level over it. cost
// is what the moves of the part move; over is nil when the part is no island.
func (j *joinParts) cut(part units) (over *level, cost float64, err error) {
	p := j.p
	lv, err := j.part(part)
	if err != nil || locking(lv.sel) {
		return nil, 0, err
	}
	moves, undo, plain := p.moves, p.undo, p.plain
	p.moves, p.undo, p.plain = nil, nil, true
	defer func() {
		p.moves, p.plain = moves, plain
		p.undo = append(undo, p.undo...)
	}()
	sh, why := p.shapeOf(lv)
	if sh == nil {
		if sh, cost, _, err = p.placedByMoves(lv, why); sh == nil || err != nil {
			return nil, 0, err
		}
	}
	if err := p.makeInputs(sh); err != nil {
		return nil, 0, err
	}
	f := &firstStage{sel: p.segmentCopy(lv, lv.sel), segments: p.islandSegments(sh), join: true, sh: sh, moves: p.moves}
	if seg, ok := p.single(sh); ok {
		f.segments = []int{seg}
	}
	cols, why, err := p.typeColumns(sh, f.sel, lv.vals, lv.outs)
	if why != "" || err != nil {
		return nil, 0, err
	}
	rows := j.rows(part)
	for i, id := range j.needed(part) {
		c := &cols[i]
		if family(c) == "float" && !p.sends(c) {
			return nil, 0, nil // it comes rounded
		}
		c.NotNull, c.Generated, c.Distinct = false, false, min(rows, distinct(id))
	}
	for i, u := range j.units {
		for _, l := range u.leaves {
			if part.has(i) {
				f.alone += l.alone
			}
		}
	}
	tables, _ := sh.scans()
	rv := p.stand(f, &Relation{Name: tables, Kind: 'r', Columns: cols, Rows: rows, Policy: &Policy{Kind: Random}})
	rv.Alias = &pg.Alias{Aliasname: j.partAlias()}
	over, err = j.over(part, rv)
	return over, cost, err
}

// cutJoin is how a level's rows are where they have to be when a part of what it
// joins, or of what one of its sub-selects in FROM does, is made first, if that
// moves clearly less than cost; the planner's moves are those of that. Else the
// shape is nil, and all is as it was.
func (p *planner) cutJoin(lv *level, reason string, cost float64) (sh *shape, less float64, err error) {
	levels := []*level{lv}
	for _, r := range lv.rtes {
		if r.kind == rteSub && r.sub != nil && r.node.GetRangeSubselect() != nil {
			levels = append(levels, r.sub)
		}
	}
	for _, l := range levels {
		if sh, less, err = p.cutJoinOf(lv, l, reason, cost); sh != nil || err != nil {
			return sh, less, err
		}
	}
	return nil, 0, nil
}

// cutJoinOf is cutJoin for the join of one level, at, lv's own or one in its FROM.
func (p *planner) cutJoinOf(lv, at *level, reason string, cost float64) (*shape, float64, error) {
	j := p.joinsOf(at)
	if j == nil {
		return nil, 0, nil
	}
	part, guess, one := j.best()
	if part == 0 || !j.worth(guess, one) || at == lv && !j.worth(guess, cost) {
		return nil, 0, nil
	}
	over, first, err := j.cut(part)
	if over == nil || err != nil {
		return nil, 0, err
	}
	p.moves, p.undo = nil, nil
	top := over
	if at != lv {
		r := lv.rtes[slices.IndexFunc(lv.rtes, func(r *rte) bool { return r.sub == at })]
		rs, i := r.node.GetRangeSubselect(), slices.Index(lv.subs, at)
		query := rs.Subquery
		put := func(l *level, q *pg.Node) { r.sub, lv.subs[i], rs.Subquery = l, l, q }
		put(over, selectNode(over.sel))
		over.parent = lv
		p.undo = append(p.undo, func() { put(at, query) })
		top = lv
	}
	sh, rest, _, err := p.placedByMoves(top, reason)
	if err != nil {
		return nil, 0, err
	}
	if sh == nil || !j.worth(first+rest, cost) || sh.windows && !sh.windowsByKey() && !sh.aggregates {
		p.uncut()
		return nil, 0, nil
	}
	p.cutsJoins = true
	return sh, first + rest, nil
}
