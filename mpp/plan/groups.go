package plan

import (
	"maps"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Sub-selects in FROM that aggregate rows which are not on the segments of their
// groups. Their tables can be moved there. Or each segment aggregates what it has,
// and that is moved, most often much less: the sub-select then reads it as its
// table, see firstStage.

// placed is the shape of a level whose rows are where they have to be, after
// the moves it takes, or why there is none.
func (p *planner) placed(lv *level) (sh *shape, why string, err error) {
	if sh, why = p.shapeOf(lv); sh == nil {
		if sh, why, err = p.placedByMoves(lv, why); err != nil {
			return nil, "", err
		}
	}
	if own := lv.ownerReads(); sh != nil && own != "" {
		return nil, own, nil
	}
	return sh, why, nil
}

// placedByMoves is placed where tables must be moved for it, as they are or when
// what aggregates them is cut, whichever moves less.
func (p *planner) placedByMoves(lv *level, reason string) (*shape, string, error) {
	sh, cost, why := p.moveTables(lv, reason)
	if !movesHelp(reason) {
		return sh, why, nil
	}
	moves := p.moves
	p.moves = nil
	if err := p.cutGroups(lv); err != nil {
		return nil, "", err
	}
	if len(p.undo) > 0 && (sh != nil || p.muchIn(lv)) {
		if again, less, _ := p.moveTables(lv, reason); again != nil && (sh == nil || less < cost) {
			return again, "", nil
		}
	}
	p.uncut()
	p.moves = moves
	return sh, why, nil
}

// muchIn says whether gathering what a level reads takes so much that motions pay.
func (p *planner) muchIn(lv *level) bool {
	mv := &mover{p: p, lv: lv}
	return mv.collect(lv) && mv.gathers() >= regroupBytes
}

// uncut takes back what cutGroups has done.
func (p *planner) uncut() {
	for _, undo := range p.undo {
		undo()
	}
	p.undo = nil
}

// cutGroups puts the second stages of a level's sub-selects that aggregate in
// their places, until uncut.
func (p *planner) cutGroups(lv *level) error {
	if p.opt.NoMotions {
		return nil
	}
	for _, r := range lv.rtes {
		if r.kind != rteSub || r.sub == nil || r.whole {
			continue
		}
		rs, sub := r.node.GetRangeSubselect(), r.sub
		if rs == nil || rs.Lateral || sub.isSet() || sub.ownedReads() {
			continue
		}
		over, err := p.cutGroup(sub)
		if err != nil {
			return err
		}
		if over == nil {
			continue
		}
		at := slices.Index(lv.subs, sub)
		query := rs.Subquery
		put := func(l *level, q *pg.Node) { r.sub, lv.subs[at], rs.Subquery = l, l, q }
		put(over, selectNode(over.sel))
		over.parent = lv
		p.undo = append(p.undo, func() { put(sub, query) })
	}
	return nil
}

// cutGroup is the second stage of a sub-select, nil where there is none or it needs
// none.
func (p *planner) cutGroup(sub *level) (*level, error) {
	sel := sub.sel
	if len(sel.SortClause)+len(sel.DistinctClause)+len(sel.LockingClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil {
		return nil, nil
	}
	sh, _ := p.shapeOf(sub)
	if sh == nil || !sh.aggregates || sh.windows || sh.srf || sh.rest > 0 || sh.groupsByKey() {
		return nil, nil
	}
	if _, single := p.single(sh); single {
		return nil, nil
	}
	st, why, err := p.cut(sh)
	if why == aggregateDistinct {
		p.finer = true
		st, _, err = p.cut(sh)
		p.finer = false
	}
	if st == nil || err != nil || st.sets {
		return nil, err
	}
	g := st.guess()
	at := slices.AppendSeq(slices.Collect(maps.Values(st.groups)), maps.Values(st.finer))
	return st.over(max(1, min(g.rows, float64(p.opt.NumSegments)*g.values(at))))
}

// exactGroups says whether every segment makes the same groups of the first
// stages of all.
func (lv *level) exactGroups() bool {
	return lv.known && len(lv.rtes) == 1 && lv.rtes[0].first != nil && lv.rtes[0].first.exact
}
