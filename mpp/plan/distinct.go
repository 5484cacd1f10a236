package plan

import (
	"maps"
	"math"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// DISTINCT aggregates over many different values: what each segment has made
// unique the segments send each other rather than to the coordinator, so that what
// is equal meets on one of them, which counts it.

// valuesPerSegment is how many different values a key must have, for each segment,
// for rows to be sent by it: with fewer some segments have much to do and others
// nothing.
const valuesPerSegment = 4

// pushSpread carries out a level with aggregates that count everything once in
// one stage more: the rows of the first stage are redistributed, and the segments
// run the second over what they get. It is a level over a table that has come by
// a motion, and planned as such. Sent by GROUP BY columns, rows of a group are on
// one segment, and its row is done there. Sent by what is counted, each value is
// counted on one segment, and the coordinator adds up. With done false, for
// whatever reason, nothing has changed.
func (st *stages) pushSpread(root bool) (done bool, err error) {
	p, lv := st.p, st.sh.lv
	keys, rows := st.spreadKeys(st.cols)
	if keys == nil {
		return false, nil
	}
	over, err := st.over(rows)
	if err != nil {
		return false, err
	}
	over.exists = lv.exists
	from := over.rtes[0]
	m := &move{lv: over, keys: keys, segs: p.opt.NumSegments, mark: p.newMark()}
	if err := p.makeInput(from, m, nil, nil); err != nil {
		return false, err
	}
	moves, finer := p.moves, p.finer
	p.moves, p.finer = map[*rte]*move{from: m}, false
	defer func() { p.finer = finer }()
	if sh, _ := p.shapeOf(over); sh != nil {
		if done, _, err = p.push(sh, root); done {
			p.keepInputs(sh, len(p.slices)-1, false)
		}
	}
	p.moves = moves
	if !done || err != nil {
		return false, err
	}
	p.keepInputs(st.sh, len(p.inputs)-1, true)
	p.moves = nil
	if p.folded == over {
		p.folded = lv
	}
	setSelect(lv.sel, over.sel)
	return true, nil
}

// firstStage is what stands for a base table in a second stage, and comes by a
// motion.
type firstStage struct {
	sel      *pg.SelectStmt
	segments []int // that run it, nil for all
	// exact: the second stage makes the same of its rows in whatever order.
	exact bool
	// reads is how many bytes the tables have that it aggregates.
	reads float64
	// join: it aggregates nothing, see cutJoin. alone is how many bytes
	// gathering its tables would take.
	join  bool
	alone float64
	// sh is the level that makes it, and moves are those that this takes; nil:
	// none.
	sh    *shape
	moves map[*rte]*move
}

// stand makes a name for a table that is a first stage.
func (p *planner) stand(f *firstStage, rel *Relation) *pg.RangeVar {
	name := Name{Name: p.newMark()}
	p.look.rels[name] = rel
	if p.firsts == nil {
		p.firsts = map[string]*firstStage{}
	}
	p.firsts[name.Name] = f
	return &pg.RangeVar{Relname: name.Name, Inh: true, Relpersistence: "p", Location: -1}
}

// bind is a level of its own, which may read first stages.
func (p *planner) bind(sel *pg.SelectStmt) (*level, error) {
	b := &binder{look: p.look}
	lv := b.selectStmt(sel, nil, nil, nil)
	if b.err != nil {
		return nil, b.err
	}
	lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.rv != nil {
				r.first = p.firsts[r.rv.Relname]
			}
		}
		return true
	})
	return lv, nil
}

// over is the second stage as a level of its own, over a table of so many rows
// that the first stage makes. The level that was cut stays as it is.
func (st *stages) over(rows float64) (*level, error) {
	p := st.p
	st.second()
	sel := proto.CloneOf(st.sh.lv.sel)
	for _, undo := range slices.Backward(st.undo) {
		undo()
	}
	st.undo = nil
	tables, _ := st.sh.scans()
	from := p.stand(&firstStage{sel: st.first, segments: p.islandSegments(st.sh), exact: st.exact(false)},
		&Relation{Name: tables, Kind: 'r', Columns: st.cols, Rows: rows, Policy: &Policy{Kind: Random}})
	from.Alias = &pg.Alias{Aliasname: topAlias}
	sel.FromClause = []*pg.Node{{Node: &pg.Node_RangeVar{RangeVar: from}}}
	sel.WhereClause, sel.LockingClause = nil, nil
	return p.bind(sel)
}

// exact says whether the second stage makes the same of the first one's rows in
// whatever order they come: not so sums of floats, and of equal values that do not
// look the same it shows any, which is all the same where they are compared only.
func (st *stages) exact(compared bool) bool {
	sums := map[int]bool{}
	for _, a := range st.aggs {
		if !a.once && (a.name == "sum" || a.name == "avg") {
			sums[a.at] = true
		}
	}
	for i := range st.cols {
		switch f := family(&st.cols[i]); {
		case alikeFamilies[f], f == "numeric" && sums[i], compared && f != "" && !sums[i]:
		default:
			return false
		}
	}
	return true
}

// spreadKeys are the columns by which to redistribute what the segments have made
// unique, and a guess of how many rows that is; nil: it is better gathered, or
// cannot be sent.
func (st *stages) spreadKeys(cols []Column) (keys []int, rows float64) {
	p := st.p
	n := float64(p.opt.NumSegments)
	if n < 2 || p.opt.NoMotions || st.sets || len(st.kept) > 0 {
		return nil, 0
	}
	once := map[int]bool{}
	for _, a := range st.aggs {
		if a.once {
			once[a.at] = true
		}
	}
	if len(once) == 0 || st.sh.lv.ownedReads() {
		return nil, 0
	}
	const head = 8
	width := float64(head)
	for i := range cols {
		if family(&cols[i]) == "float" && !p.sends(&cols[i]) {
			return nil, 0 // it comes rounded
		}
		width += cols[i].width()
	}
	var groups []int
	for _, at := range slices.Sorted(maps.Values(st.groups)) {
		groups = append(groups, at)
		if p.sends(&cols[at]) {
			keys = append(keys, at)
		}
	}
	counted := slices.Sorted(maps.Keys(once))
	g := st.guess()
	made := g.values(groups)
	rows = min(g.rows, n*g.values(append(slices.Clone(groups), counted...)))
	if rows*width < regroupBytes {
		return nil, 0
	}
	if g.values(keys) < n*valuesPerSegment {
		if keys = counted; len(keys) > 1 || !p.sends(&cols[keys[0]]) || g.values(keys) < n*valuesPerSegment {
			return nil, 0
		}
		made *= n
	}
	if rows*(n-1)/n+made*gatherWeight >= rows*gatherWeight {
		return nil, 0
	}
	return keys, rows
}

// ownedReads says whether a level reads with the rights of a view's owner.
func (lv *level) ownedReads() bool {
	found := false
	lv.each(func(l *level) bool {
		found = found || slices.ContainsFunc(l.rtes, func(r *rte) bool { return r.owner != "" })
		return !found
	})
	return found
}

// guess is what is known of the rows that a level aggregates.
type guess struct {
	st   *stages
	rows float64
	of   map[*rte]float64 // rows of each base table
}

func (st *stages) guess() *guess {
	g := &guess{st: st, of: map[*rte]float64{}}
	st.sh.lv.each(func(l *level) bool {
		where := st.p.baseConditions(l)
		for _, r := range l.rtes {
			if r.kind == rteGather {
				_, g.of[r] = scanBytes(r, where[r], nil)
				g.rows = max(g.rows, g.of[r])
			}
		}
		return true
	})
	return g
}

// values guesses how many different values some columns of the first stage have
// together. Of one table they have at most as many as that has rows.
func (g *guess) values(at []int) float64 {
	tables := map[*rte]float64{}
	seen := map[colID]bool{}
	for _, i := range at {
		walk(g.st.vals[i].expr, func(m any) bool {
			n, ok := m.(*pg.Node)
			if !ok || g.st.sh.refs[n] == nil {
				return true
			}
			id, ok := g.st.sh.columnOf(n)
			if !ok {
				tables[nil] = math.Inf(1) // nobody knows
				return false
			}
			bases := inner(id)
			if len(bases) == 0 {
				tables[nil] = math.Inf(1)
			}
			for _, b := range bases {
				if seen[b] {
					continue
				}
				seen[b] = true
				if tables[b.rte] == 0 {
					tables[b.rte] = 1
				}
				if d := b.rte.rel.Columns[b.col].Distinct; d > 0 {
					tables[b.rte] *= d
				} else {
					tables[b.rte] = math.Inf(1)
				}
			}
			return false
		})
	}
	all := 1.0
	for r, n := range tables {
		if rows := g.of[r]; rows > 0 {
			n = min(n, rows)
		}
		all *= n
	}
	return min(all, g.rows)
}
