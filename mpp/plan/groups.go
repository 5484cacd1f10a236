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
// the moves it takes, or why there is none. It may be that of another level with
// the same rows, see cutJoin.
func (p *planner) placed(lv *level) (sh *shape, why string, err error) {
	if sh, why = p.shapeOf(lv); sh == nil {
		if sh, _, why, err = p.placedByMoves(lv, why); err != nil {
			return nil, "", err
		}
	}
	if own := lv.ownerReads(); sh != nil && own != "" {
		return nil, own, nil
	}
	return sh, why, nil
}

// placedByMoves is placed where tables must be moved for it: as they are, when what
// aggregates them is cut, or in several slices, whichever moves less. cost is how
// many bytes.
func (p *planner) placedByMoves(lv *level, reason string) (sh *shape, cost float64, why string, err error) {
	sh, cost, why = p.moveTables(lv, reason)
	if !movesHelp(reason) {
		return sh, cost, why, nil
	}
	if sh, cost, err = p.placedGroups(lv, reason, sh, cost); err != nil {
		return nil, 0, "", err
	}
	if sh, cost, err = p.placedJoins(lv, reason, sh, cost); err != nil {
		return nil, 0, "", err
	}
	return sh, cost, why, nil
}

// placedGroups is placed when what aggregates is cut, where that moves less than
// cost. sh is how it is else, after the planner's moves; nil: not at all.
func (p *planner) placedGroups(lv *level, reason string, sh *shape, cost float64) (*shape, float64, error) {
	if p.opt.NoMotions {
		return sh, cost, nil
	}
	moves, undo := p.moves, p.undo
	p.moves, p.undo = nil, nil
	first, values, err := p.cutGroups(lv)
	if err != nil {
		return nil, 0, err
	}
	limit := cost
	if sh == nil && len(p.undo) > 0 {
		if limit = (p.gathers(lv) + values) * gatherWeight; limit < regroupBytes*gatherWeight {
			limit = 0
		}
	}
	if len(p.undo) > 0 && first < limit {
		again, less, _ := p.moveTables(lv, reason)
		if less += first; again != nil && less < limit {
			p.undo = append(undo, p.undo...)
			return again, less, nil
		}
	}
	p.uncut()
	p.moves, p.undo = moves, undo
	return sh, cost, nil
}

// placedJoins is placed when a part of a join is made first, where that moves less
// than cost. sh is as in placedGroups.
func (p *planner) placedJoins(lv *level, reason string, sh *shape, cost float64) (*shape, float64, error) {
	if p.opt.NoMotions || p.plain || p.opt.NumSegments < 2 || lv.tables() < 3 {
		return sh, cost, nil
	}
	if sh == nil {
		cost = p.gathers(lv) * gatherWeight
	}
	if cost < regroupBytes {
		return sh, cost, nil
	}
	moves, undo := p.moves, p.undo
	again, less, err := p.cutJoin(lv, reason, cost)
	if again == nil || err != nil {
		p.moves, p.undo = moves, undo
		return sh, cost, err
	}
	p.undo = append(undo, p.undo...)
	return again, less, nil
}

// tables is how many a level reads, it and those below it.
func (lv *level) tables() (n int) {
	lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.kind == rteGather {
				n++
			}
		}
		return true
	})
	return n
}

// gathers is how many bytes gathering what a level reads takes; 0 when it reads
// other things than tables.
func (p *planner) gathers(lv *level) float64 {
	mv := &mover{p: p, lv: lv}
	if !mv.collect(lv) {
		return 0
	}
	return mv.gathers()
}

// uncut takes back what cutGroups has done.
func (p *planner) uncut() {
	for _, undo := range slices.Backward(p.undo) {
		undo()
	}
	p.undo = nil
}

// cutGroups puts second stages in the places of a level's sub-selects that
// aggregate, until uncut: of those in FROM and in WITH, and of those in WHERE that
// have one value. cost is how many bytes the first stages of the latter move among
// themselves, and gather how many gathering what they read would take.
func (p *planner) cutGroups(lv *level) (cost, gather float64, err error) {
	cut := func(sub *level, use groupUse, at **pg.Node, put func(*level)) {
		if err != nil || sub.ownedReads() {
			return
		}
		over, c, e := p.cutGroup(sub, use)
		if err = e; over == nil || err != nil {
			return
		}
		if cost += c; use != inFrom {
			gather += p.gathers(sub)
		}
		i, query := slices.Index(lv.subs, sub), *at
		swap := func(l *level, q *pg.Node) {
			put(l)
			lv.subs[i], *at = l, q
		}
		swap(over, selectNode(over.sel))
		over.parent = lv
		p.undo = append(p.undo, func() { swap(sub, query) })
	}
	for _, r := range lv.rtes {
		if r.kind != rteSub || r.sub == nil || r.whole || r.sub.isSet() {
			continue
		}
		if rs := r.node.GetRangeSubselect(); rs != nil && !rs.Lateral {
			cut(r.sub, inFrom, &rs.Subquery, func(l *level) { r.sub = l })
		}
	}
	for _, w := range lv.with {
		if w.shared() && !w.lv.isSet() {
			cut(w.lv, inFrom, &w.cte.Ctequery, func(l *level) { w.lv = l })
		}
	}
	for _, ln := range lv.rowLinks() {
		sub := ln.sub
		if ln.node.SubLinkType != pg.SubLinkType_EXPR_SUBLINK || sub.outer || sub.isSet() || len(sub.sel.GroupClause) > 0 || len(sub.sel.TargetList) != 1 {
			continue
		}
		i := slices.IndexFunc(lv.links, func(l sublink) bool { return l.node == ln.node })
		use := asValue
		if sub.sel.TargetList[0].GetResTarget().GetVal().GetFuncCall() != nil && lv.compares(ln.node) {
			use = compared
		}
		cut(sub, use, &ln.node.Subselect, func(l *level) { lv.links[i].sub = l })
	}
	return cost, gather, err
}

// groupUse is what a sub-select that aggregates is used for.
type groupUse uint8

const (
	inFrom groupUse = iota
	asValue
	compared // a value, and an operand of =, < and the like
)

// compares says whether a sub-select is an operand of a comparison.
func (lv *level) compares(l *pg.SubLink) (found bool) {
	walk(lv.sel, func(m any) bool {
		if x, ok := m.(*pg.A_Expr); ok && x.Kind == pg.A_Expr_Kind_AEXPR_OP && len(x.Name) == 1 && comparisons[x.Name[0].GetString_().GetSval()] {
			found = found || x.Lexpr.GetSubLink() == l || x.Rexpr.GetSubLink() == l
		}
		return !found
	})
	return found
}

// cutGroup is the second stage of a sub-select, nil where there is none or it needs
// none. For one that is used as a value the tables of the first stage may be moved,
// for cost bytes, and each segment makes the same of all its rows.
func (p *planner) cutGroup(sub *level, use groupUse) (over *level, cost float64, err error) {
	sel := sub.sel
	if locking(sel) || len(sel.SortClause)+len(sel.DistinctClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil {
		return nil, 0, nil
	}
	moves := use != inFrom
	sh, why := p.shapeOf(sub)
	if moves {
		saved, undo, plain := p.moves, p.undo, p.plain
		p.moves, p.undo, p.plain = nil, nil, true
		defer func() {
			p.moves, p.plain = saved, plain
			if over == nil {
				p.uncut()
			}
			p.undo = append(undo, p.undo...)
		}()
		if sh == nil {
			if sh, cost, _, err = p.placedByMoves(sub, why); sh == nil || err != nil {
				return nil, 0, err
			}
		}
	}
	if sh == nil || !sh.aggregates || sh.windows || sh.srf || sh.rest > 0 || sh.groupsByKey() {
		return nil, 0, nil
	}
	if _, single := p.single(sh); single {
		return nil, 0, nil
	}
	if err := p.makeInputs(sh); err != nil {
		return nil, 0, err
	}
	st, why, err := p.cut(sh)
	if why == aggregateDistinct && !moves {
		p.finer = true
		st, _, err = p.cut(sh)
		p.finer = false
	}
	if st == nil || err != nil || st.sets || len(st.kept) > 0 || moves && !st.exact(use == compared) {
		return nil, 0, err
	}
	g := st.guess()
	at := slices.AppendSeq(slices.Collect(maps.Values(st.groups)), maps.Values(st.finer))
	rows := max(1, min(g.rows, float64(p.opt.NumSegments)*g.values(at)))
	if moves {
		rows = float64(p.opt.NumSegments)
	}
	if over, err = st.over(rows); err != nil {
		return nil, 0, err
	}
	f := over.rtes[0].first
	if p.moves != nil {
		f.sh, f.moves = sh, p.moves
	}
	if mv := (&mover{p: p, lv: sub}); mv.collect(sub) {
		f.reads = mv.reads()
	}
	return over, cost, nil
}

// exactGroups says whether every segment makes the same groups of the first
// stages of all.
func (lv *level) exactGroups() bool {
	return lv.known && len(lv.rtes) == 1 && lv.rtes[0].first != nil && lv.rtes[0].first.exact
}
