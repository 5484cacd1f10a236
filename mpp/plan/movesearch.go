package plan

import (
	"container/heap"
	"math"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Which tables of an island to move, and how. Candidates come from the
// columns that the query equates: all rows that meet are on one segment when
// each table is placed by columns of the same classes, or is everywhere.
// Whether that holds is for fromLocus to say of each candidate; here they are
// only made and put in the order of the bytes they move.

// reasons of loci that moves may change
const (
	apart      = "rows that join may be on different segments"
	subGroups  = "a sub-select that aggregates"
	copySample = "a sample of a replicated table"
)

// maxCandidates bounds the candidates that are looked at for one island.
const maxCandidates = 300

// groupsShare guesses how much remains of rows when each segment has grouped
// its own.
const groupsShare = 0.1

// gatherWeight is how many bytes moved between segments cost as much as one that
// is gathered: what is gathered one process reads and joins, the rest is shared by
// all segments.
const gatherWeight = 2

// leaf is a base table of an island.
type leaf struct {
	lv    *level
	rte   *rte
	where []*pg.Node
	bytes float64
	rows  float64
	alone float64 // bytes that are gathered when nothing is moved
	fixed string  // why it cannot be moved, "" if it can
	home  locus
	// asked: of a sub-select in an expression, which makes no rows, or of one that
	// makes one row.
	asked bool
	set   *level // the outermost set operation it is in, in FROM or the island itself
	link  bool   // of a sub-select in an expression
}

// choice is what to do with a leaf; a nil move leaves it where it is.
type choice struct {
	move *move
	cost float64
}

// candidate is one choice for each leaf, out of those that fit a target.
type candidate struct {
	choices [][]choice // cheapest first
	at      []int
	cost    float64
	// spread is how many different values the keys have by which the rows of
	// each table can be sent, at least: few of them leave segments idle.
	spread float64
}

type candidates []*candidate

func (c candidates) Len() int      { return len(c) }
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(*candidate)) }
func (c candidates) Less(i, j int) bool {
	return c[i].cost < c[j].cost || c[i].cost == c[j].cost && c[i].spread > c[j].spread
}
func (c *candidates) Pop() any {
	old := *c
	x := old[len(old)-1]
	*c = old[:len(old)-1]
	return x
}

// mover looks for the moves of one island.
type mover struct {
	p      *planner
	lv     *level
	leaves []*leaf
	eq     equalities
	cols   []colID // that the query equates or groups by
	links  []link  // tables that it joins by some equality
	with   []*withQuery
}

// link is an equality of what comes from two tables.
type link struct{ a, b *rte }

// moveTables finds the cheapest moves that let the segments run a level, and
// sets them. cost is what they move; why says why there are none.
func (p *planner) moveTables(lv *level, why string) (sh *shape, cost float64, reason string) {
	if p.opt.NoMotions || !movesHelp(why) || lv.unionAll() {
		// The arms of a UNION ALL are as good each for itself.
		return nil, 0, why
	}
	mv := &mover{p: p, lv: lv}
	if !mv.collect(lv) || len(mv.leaves) == 0 {
		return nil, 0, why
	}
	return mv.search(why, func(*shape) bool { return true })
}

// regroupBytes is how much a level must read for its rows to be sent to the
// segments of their groups: less is soon gathered.
const regroupBytes = 64 << 10

// regroup finds the cheapest moves that bring the rows of each group of a
// level, or those that a DISTINCT aggregate counts once, to one segment, and
// sets them. sh is the level without; nil: there are none.
func (p *planner) regroup(lv *level, sh *shape) *shape {
	p.moves = nil
	if _, single := p.single(sh); single || p.opt.NoMotions || sh.windows || lv.ownerReads() != "" || len(lv.sel.DistinctClause) > 0 {
		return nil
	}
	exprs, ok := sh.groupExprs()
	if !ok || sh.groupsByKey() {
		return nil
	}
	mv := &mover{p: p, lv: lv}
	if !mv.collect(lv) || len(mv.leaves) == 0 {
		return nil
	}
	if mv.gathers() < regroupBytes {
		return nil
	}
	var args []*pg.Node // of aggregates with DISTINCT
	for _, c := range lv.calls {
		if c.fn.AggDistinct && len(c.fn.Args) == 1 {
			args = append(args, c.fn.Args[0])
		}
	}
	for _, n := range append(exprs, args...) {
		if id, ok := sh.columnOf(n); ok {
			mv.note(inner(id)...)
		}
	}
	found, _, _ := mv.search("", func(sh *shape) bool {
		if p.clauses(sh, false) != "" {
			return false
		}
		if len(exprs) > 0 {
			return sh.groupsByKey()
		}
		for _, a := range args {
			if !sh.covers([]*pg.Node{a}) {
				return false
			}
		}
		return len(args) > 0
	})
	return found
}

// search sets the cheapest moves that make an island of the level that is to
// the mind of accept. cost is what they move; why says why there are none.
func (mv *mover) search(why string, accept func(*shape) bool) (sh *shape, cost float64, reason string) {
	p, lv := mv.p, mv.lv
	gather := mv.gathers() * gatherWeight // what gathering all the tables would cost
	todo := mv.start()
	for range maxCandidates {
		if todo.Len() == 0 {
			break
		}
		c := heap.Pop(&todo).(*candidate)
		if c.cost > gather {
			why += ", and gathering them moves less"
			break
		}
		c.set(p, mv.leaves)
		sh, still := p.shapeOf(lv)
		if sh == nil && !movesHelp(still) {
			p.moves = nil
			return nil, 0, still
		}
		if sh != nil && mv.swells(sh, gather) {
			why += ", and there are more pairs of rows than rows"
			p.moves = nil
			break
		}
		if sh != nil && accept(sh) {
			return sh, c.cost, ""
		}
		p.moves = nil
		c.next(&todo)
	}
	for _, l := range mv.leaves {
		if l.fixed != "" {
			why += ", and " + l.fixed + " is used"
			break
		}
	}
	return nil, 0, why
}

// gathers is how many bytes are gathered when nothing is moved.
func (mv *mover) gathers() (bytes float64) {
	for _, l := range mv.leaves {
		bytes += l.alone
	}
	return bytes
}

// reads is how many bytes the tables have.
func (mv *mover) reads() (bytes float64) {
	for _, l := range mv.leaves {
		bytes += l.bytes
	}
	return bytes
}

// movesHelp says whether a level that is no island for that reason may be one
// when tables are moved.
func movesHelp(why string) bool {
	return strings.Contains(why, apart) || strings.Contains(why, subGroups) || strings.Contains(why, copySample) ||
		strings.Contains(why, setApart) || strings.Contains(why, setMixed)
}

// collect finds the tables of a level and its sub-selects, and the columns
// they are joined and grouped by. It says false when there are other things.
func (mv *mover) collect(lv *level) bool {
	if lv.isSet() {
		return mv.collectArms(lv)
	}
	p := mv.p
	for _, c := range lv.calls {
		if isExecutionSegment(c.fn) {
			return false // of which segment, that depends on the moves
		}
	}
	for _, w := range lv.with {
		if !mv.collectBelow(w.lv) {
			return false
		}
		mv.with = append(mv.with, w)
	}
	where := p.baseConditions(lv)
	for _, r := range lv.rtes {
		switch r.kind {
		case rteCTE:
			if r.with == nil || !slices.Contains(mv.with, r.with) {
				return false
			}
		case rteGather:
			l := &leaf{lv: lv, rte: r, where: where[r], fixed: p.movable(lv, r)}
			l.bytes, l.rows = scanBytes(r, where[r], lv.unsent(r, where[r]))
			if lv.anyRow(where[r]) {
				l.bytes, l.rows = l.bytes/l.rows*float64(p.opt.NumSegments), float64(p.opt.NumSegments)
			}
			l.alone = l.bytes
			if r.first != nil && r.first.join {
				l.alone = r.first.alone
			}
			l.home, _ = p.tableLocus(r)
			l.asked = r.first != nil && !r.first.join && len(lv.sel.GroupClause) == 0
			mv.leaves = append(mv.leaves, l)
			for _, key := range l.home.keys {
				mv.note(key[0])
			}
		case rteSub:
			if r.sub == nil || !mv.collectBelow(r.sub) {
				return false
			}
		default:
			return false
		}
	}
	refs := lv.refsByNode()
	mv.equate(lv.sel.WhereClause, refs)
	var joins func(it *fromItem)
	joins = func(it *fromItem) {
		if it.join == nil || it.left == nil {
			return
		}
		mv.equate(it.join.Quals, refs)
		for _, m := range it.merged {
			l, ok1 := m.left.id()
			r, ok2 := m.right.id()
			if ok1 && ok2 {
				mv.same(l, r)
			}
		}
		joins(it.left)
		joins(it.right)
	}
	for _, it := range lv.items {
		joins(it)
	}
	for _, ln := range lv.rowLinks() {
		before := len(mv.leaves)
		if !mv.collect(ln.sub) {
			return false
		}
		for _, l := range mv.leaves[before:] {
			l.asked, l.link = true, true
		}
		ln.equate(ln.test(), refs, mv.same)
	}
	for _, g := range lv.sel.GroupClause {
		for id := range commonColumns(lv, g, refs) {
			mv.note(inner(id)...)
		}
	}
	if len(lv.sel.DistinctClause) > 0 && lv != mv.lv {
		for i := range lv.vals {
			mv.note(lv.inner(i)...)
		}
	}
	return true
}

// collectBelow is collect for a level whose rows are another's.
func (mv *mover) collectBelow(lv *level) bool {
	before := len(mv.leaves)
	if !mv.collect(lv) {
		return false
	}
	if sh, _ := mv.p.shapeOf(lv); sh != nil && (sh.aggregates || len(lv.sel.DistinctClause) > 0) {
		// It can aggregate its rows where they are, in two stages.
		for _, l := range mv.leaves[before:] {
			if l.rte.first == nil || l.rte.first.join { // else it has
				l.alone = l.bytes * groupsShare
			}
		}
	}
	return true
}

// collectArms is collect for a set operation.
func (mv *mover) collectArms(lv *level) bool {
	first := len(mv.leaves)
	for _, arm := range lv.arms {
		if !mv.collectBelow(arm) {
			return false
		}
	}
	for _, l := range mv.leaves[first:] {
		l.set = lv
		// Their rows are added, not multiplied.
		mv.links = append(mv.links, link{mv.leaves[first].rte, l.rte})
	}
	for i := range lv.outs {
		for _, a := range lv.arms[0].inner(i) {
			for _, b := range lv.arms[1].inner(i) {
				mv.same(a, b)
			}
		}
	}
	return true
}

// inner are the columns of base tables that a column of a sub-select is: of a
// set operation one for each arm.
func inner(id colID) []colID {
	switch {
	case id.rte == nil:
		return nil
	case id.rte.kind == rteSub && id.rte.sub != nil:
		return id.rte.sub.inner(id.col)
	}
	return []colID{id}
}

// inner is that of result column i of a level.
func (lv *level) inner(i int) []colID {
	if lv.isSet() {
		return append(lv.arms[0].inner(i), lv.arms[1].inner(i)...)
	}
	id, ok := lv.outColumnID(i)
	if !ok {
		return nil
	}
	return inner(id)
}

func (mv *mover) note(ids ...colID) {
	for _, id := range ids {
		if id.rte != nil && id.rte.kind == rteGather && !slices.Contains(mv.cols, id) {
			mv.cols = append(mv.cols, id)
		}
	}
}

// same notes that the query equates two columns, whether in all rows or not.
func (mv *mover) same(a, b colID) {
	for _, a := range inner(a) {
		for _, b := range inner(b) {
			mv.note(a, b)
			mv.eq.equal(a, b)
			mv.link([]*rte{a.rte}, []*rte{b.rte})
		}
	}
}

func (mv *mover) equate(cond *pg.Node, refs map[*pg.Node]*ref) {
	for _, c := range conjuncts(cond) {
		x := c.GetAExpr()
		if x == nil || !isEquals(x) {
			continue
		}
		mv.link(tablesOf(x.Lexpr, refs), tablesOf(x.Rexpr, refs))
		a, b := refs[x.Lexpr], refs[x.Rexpr]
		if a == nil || b == nil {
			continue
		}
		l, ok1 := a.columnID()
		r, ok2 := b.columnID()
		if ok1 && ok2 {
			mv.same(l, r)
		}
	}
}

// link notes that all of a and b are joined.
func (mv *mover) link(a, b []*rte) {
	for _, x := range a {
		for _, y := range b {
			mv.links = append(mv.links, link{x, y})
		}
	}
}

// tablesOf are the base tables whose columns an expression uses as they are, and
// those of WITH queries.
func tablesOf(n *pg.Node, refs map[*pg.Node]*ref) (out []*rte) {
	walk(n, func(m any) bool {
		if n, ok := m.(*pg.Node); ok && refs[n] != nil {
			if id, ok := refs[n].columnID(); ok {
				for _, in := range inner(id) {
					out = append(out, in.rte)
				}
				if w := id.rte.with; w != nil {
					out = append(out, w.tables()...)
				}
			}
		}
		return true
	})
	return out
}

// placing is a way to place rows: by one column of each class.
type placing struct {
	classes []colID
	segs    int
	stays   *leaf // with no classes: the one that is not moved
}

// targets are the ways to place rows that may be worth while.
func (mv *mover) targets() (targets []placing) {
	n := mv.p.opt.NumSegments
	add := func(t placing) {
		for _, o := range targets {
			if o.segs == t.segs && o.stays == t.stays && slices.Equal(o.classes, t.classes) {
				return
			}
		}
		targets = append(targets, t)
	}
	for _, l := range mv.leaves {
		switch l.home.kind {
		case locusHashed:
			t := placing{segs: l.home.segs}
			for _, key := range l.home.keys {
				t.classes = append(t.classes, mv.eq.root(key[0]))
			}
			add(t)
		case locusStrewn:
			add(placing{segs: l.home.segs, stays: l})
		}
		if l.set != nil && l.home.kind != locusReplicated {
			add(placing{segs: l.home.segs, stays: l})
		}
	}
	for _, c := range mv.cols {
		if mv.p.sends(baseColumn(c)) && c.rte.sends(c.col) {
			add(placing{segs: n, classes: []colID{mv.eq.root(c)}})
		}
	}
	return targets
}

// start makes the first candidate of each target.
func (mv *mover) start() candidates {
	var out candidates
	for _, t := range mv.targets() {
		if c := mv.candidate(t); c != nil {
			out = append(out, c)
		}
	}
	heap.Init(&out)
	return out
}

// candidate lists for each table what fits a target.
func (mv *mover) candidate(t placing) *candidate {
	c := &candidate{at: make([]int, len(mv.leaves)), spread: math.Inf(1)}
	others := float64(t.segs - 1)
	for _, l := range mv.leaves {
		var list []choice
		if mv.stays(l, t) {
			list = append(list, choice{})
		}
		if l.fixed == "" {
			if keys := mv.keys(l, t); keys != nil {
				m := &move{lv: l.lv, keys: keys, segs: t.segs, mark: mv.p.newMark()}
				c.spread = min(c.spread, l.spread(keys))
				list = append(list, choice{m, l.bytes * others / float64(t.segs)})
			}
			m := &move{lv: l.lv, broadcast: true, mark: mv.p.newMark()}
			list = append(list, choice{m, l.bytes * others})
		}
		if len(list) == 0 {
			return nil
		}
		slices.SortStableFunc(list, func(a, b choice) int {
			switch {
			case a.cost < b.cost:
				return -1
			case a.cost > b.cost:
				return 1
			}
			return 0
		})
		c.cost += list[0].cost
		c.choices = append(c.choices, list)
	}
	return c
}

// stays says whether a table is where a target wants it.
func (mv *mover) stays(l *leaf, t placing) bool {
	return l == t.stays || t.stays != nil && l.set != nil && l.set == t.stays.set ||
		l.home.kind == locusReplicated && l.home.segs >= t.segs && l.rte.sample == nil || mv.fits(l, t)
}

// least is how many bytes bring a table to where a target wants it, at least.
func (mv *mover) least(l *leaf, t placing) float64 {
	others := float64(t.segs - 1)
	switch {
	case mv.stays(l, t):
		return 0
	case l.fixed != "":
		return math.Inf(1)
	case mv.keys(l, t) != nil:
		return l.bytes * others / float64(t.segs)
	}
	return l.bytes * others
}

// spread is how many different values a key of a table has at least; where it is
// not known, enough.
func (l *leaf) spread(keys []int) float64 {
	most := 0.0
	for _, k := range keys {
		d := l.rte.rel.Columns[k].Distinct
		if d <= 0 {
			return math.Inf(1)
		}
		most = max(most, d)
	}
	return most
}

// fits says whether a table is placed as a target wants it.
func (mv *mover) fits(l *leaf, t placing) bool {
	if l.home.kind != locusHashed || l.home.segs != t.segs || len(l.home.keys) != len(t.classes) {
		return false
	}
	for i, key := range l.home.keys {
		if mv.eq.root(key[0]) != t.classes[i] {
			return false
		}
	}
	return true
}

// keys are columns of a table by which its rows can be sent to where a target
// wants them; nil when there are none.
func (mv *mover) keys(l *leaf, t placing) []int {
	var keys []int
	for _, class := range t.classes {
		i := slices.IndexFunc(mv.cols, func(id colID) bool {
			return id.rte == l.rte && id.rte.sends(id.col) && mv.eq.root(id) == class && mv.p.sends(baseColumn(id))
		})
		if i < 0 {
			return nil
		}
		keys = append(keys, mv.cols[i].col)
	}
	return keys
}

// set makes the moves of a candidate the planner's.
func (c *candidate) set(p *planner, leaves []*leaf) {
	p.moves = map[*rte]*move{}
	for i, l := range leaves {
		if m := c.choices[i][c.at[i]].move; m != nil {
			p.moves[l.rte] = m
		}
	}
}

// next adds the candidates that differ from c in one dearer choice. Each is
// made once: only the tables from the last one that differs on are changed.
func (c *candidate) next(todo *candidates) {
	last := 0
	for i, k := range c.at {
		if k > 0 {
			last = i
		}
	}
	for i := last; i < len(c.at); i++ {
		if c.at[i]+1 >= len(c.choices[i]) {
			continue
		}
		d := &candidate{choices: c.choices, at: slices.Clone(c.at), spread: c.spread}
		d.at[i]++
		d.cost = c.cost - c.choices[i][c.at[i]].cost + c.choices[i][d.at[i]].cost
		heap.Push(todo, d)
	}
}

// swells says whether the rows that the segments would send to the
// coordinator are likely more than its own join had to read: those of tables
// that are joined by no equality.
func (mv *mover) swells(sh *shape, gather float64) bool {
	if sh.aggregates {
		return false
	}
	if n, ok := limitConst(sh.lv.sel.LimitCount); ok && n > 0 {
		return false
	}
	rows, bytes := 1.0, 0.0
	most := map[int]float64{}
	for i, l := range mv.leaves {
		if l.asked {
			continue
		}
		g := mv.joined(i)
		most[g] = max(most[g], l.rows)
		bytes += l.bytes / l.rows
	}
	for _, n := range most {
		rows *= n
	}
	return len(most) > 1 && rows*bytes > gather
}

// joined is the first of the tables that table i is joined with by equalities.
func (mv *mover) joined(i int) int {
	group := make([]int, len(mv.leaves))
	for k := range group {
		group[k] = k
	}
	of := func(r *rte) int {
		return slices.IndexFunc(mv.leaves, func(l *leaf) bool { return l.rte == r })
	}
	for range mv.leaves {
		for _, ln := range mv.links {
			if x, y := of(ln.a), of(ln.b); x >= 0 && y >= 0 {
				g := min(group[x], group[y])
				group[x], group[y] = g, g
			}
		}
	}
	return group[i]
}
