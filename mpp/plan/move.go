package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Base tables that an island does not read where they are: another slice scans
// them and sends the rows to the segments that run the island.

// move is how the rows of a base table come to an island.
type move struct {
	lv *level // the table's
	// broadcast: all rows to every segment of the island. Else each goes to
	// the segment, of the first segs ones, that the columns keys hash to.
	broadcast bool
	keys      []int
	segs      int
	// stays: none of that, but to another executor; see ownInputs.
	stays bool

	mark     string // stands for the source in the island's tree
	text     string // of the source
	portions string // that reads it in portions, "" where it has few rows
	typed    string // of the source where nothing is read
	slice    Slice
}

// locus is where the rows are when they have come.
func (m *move) locus(r *rte, segments int) locus {
	if m.broadcast {
		return locus{kind: locusReplicated, segs: segments}
	}
	l := locus{kind: locusHashed, segs: m.segs}
	for _, k := range m.keys {
		l.keys = append(l.keys, []colID{{r, k}})
	}
	return l
}

// sends says whether rows can be placed by a column while they are sent: the
// text of a value tells its hash.
func (p *planner) sends(c *Column) bool {
	return family(c) != "" && p.opt.Sends != nil && p.opt.Sends(c.TypeOID)
}

// movable says whether rows of a table can be read elsewhere than where they
// are: why not, or "". A source has no system columns, no row type and no
// primary key.
func (p *planner) movable(lv *level, r *rte) string {
	switch {
	case r.owner != "" || r.filtered:
		return "a table that is read as the owner of a view"
	case r.whole:
		return "a whole row"
	case len(r.sys) > 0:
		return "a system column"
	case r.all && len(r.rel.Columns) == 0:
		return "a table without columns"
	}
	for i, c := range r.rel.Columns {
		if _, asText := typeFit(c.Type); asText && r.sends(i) {
			return "a column of type " + c.Type
		}
		if family(&c) == "float" && r.sends(i) && !p.sends(&c) {
			// What comes would not be equal to what is there.
			return "a column of type " + c.Type + ", which the session's settings round,"
		}
	}
	if p.groupsByPrimaryKey(lv, r) {
		return "columns that depend on a primary key"
	}
	return ""
}

// groupsByPrimaryKey says whether a level shows columns of r that need not be
// grouped because the primary key is.
func (p *planner) groupsByPrimaryKey(lv *level, r *rte) bool {
	if len(lv.sel.GroupClause) == 0 || len(r.rel.PrimaryKey) == 0 {
		return false
	}
	refs := lv.refsByNode()
	grouped := map[int]bool{}
	for _, g := range lv.sel.GroupClause {
		for id := range commonColumns(lv, g, refs) {
			if id.rte == r {
				grouped[id.col] = true
			}
		}
	}
	for _, k := range r.rel.PrimaryKey {
		if !grouped[k] {
			return false
		}
	}
	if len(lv.stars) > 0 {
		return true
	}
	shown := p.outsideAggregates(lv)
	for _, ref := range lv.refs {
		if !shown[ref.node] {
			continue
		}
		if id, ok := ref.columnID(); !ok && ref.kind != refOutput || id.rte == r && !grouped[id.col] {
			return true
		}
	}
	return false
}

// makeInputs makes the slices that send the moved tables of an island, once
// it is known which segments run it.
func (p *planner) makeInputs(sh *shape) error {
	if len(p.moves) == 0 {
		return nil
	}
	to := p.islandSegments(sh)
	if seg, ok := p.single(sh); ok {
		to = []int{seg}
	}
	var err error
	sh.lv.each(func(lv *level) bool {
		where := p.baseConditions(lv)
		for _, r := range lv.rtes {
			if m := p.moves[r]; m != nil && err == nil {
				err = p.makeInput(r, m, where[r], to)
			}
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return p.ownInputs(sh, to)
}

// ownInputs has slices of their own send the tables that only the session's own executors
// see, and that an island of the segments to reads where they are, if others of this kind
// send it many rows: an executor would have to have all of these before it begins with
// the island. That may take longer than to have them first, and does if these tables are
// about as large as what comes: they stay then.
func (p *planner) ownInputs(sh *shape, to []int) error {
	if p.opt.Own == nil {
		return nil
	}
	movable, comes, stays := true, 0.0, 0.0 // bytes, on each segment
	segs := float64(p.opt.NumSegments)
	if to != nil {
		segs = float64(len(to))
	}
	var local []*move
	var at []*rte
	sh.lv.each(func(lv *level) bool {
		where := p.baseConditions(lv)
		for _, r := range lv.rtes {
			m := p.moves[r]
			if r.kind != rteGather || m == nil && (r.first != nil || !p.opt.Own(r.rel)) {
				continue
			}
			bytes, _ := scanBytes(r, where[r], lv.unsent(r, where[r]))
			everywhere := m != nil && m.broadcast || r.rel.Policy != nil && r.rel.Policy.Kind == Replicated
			if !everywhere {
				bytes /= segs
			}
			switch {
			case m == nil:
				movable, stays = movable && p.movable(lv, r) == "", stays+bytes
				local, at = append(local, &move{lv: lv, stays: true, mark: p.newMark()}), append(at, r)
			case m.portions != "" && p.own(&m.slice):
				comes += bytes
			}
		}
		return true
	})
	if !movable || stays*staysWorth > comes {
		return nil
	}
	for i, m := range local {
		if err := p.makeInput(at[i], m, p.baseConditions(m.lv)[at[i]], to); err != nil {
			return err
		}
	}
	for i, m := range local {
		p.moves[at[i]] = m
	}
	return nil
}

// staysWorth is how many times more bytes have to come from others than stay on their
// segment for these to be sent as well. Where as many came as stayed, a join of a million
// rows took 1.2 times as long (docs/performance.md).
const staysWorth = 2

// own says whether a slice is for the session's own executors.
func (p *planner) own(s *Slice) bool {
	return s.Temp || slices.ContainsFunc(s.Tables, p.opt.Own)
}

// makeInput makes the slice of one moved table; to are the segments it is sent
// to, nil for all.
func (p *planner) makeInput(r *rte, m *move, where []*pg.Node, to []int) error {
	s := Slice{Relation: r.rel.Name, Motion: RedistributeMotion}
	var sel *pg.SelectStmt
	var cols []Column
	if f := r.first; f != nil {
		// It has left out what it can.
		where = nil
		sel, cols, s.Segments = proto.CloneOf(f.sel), r.rel.Columns, f.segments
	} else {
		unsent := m.lv.unsent(r, where)
		for _, k := range m.keys {
			if unsent != nil {
				unsent[k] = false
			}
		}
		sel, cols, _ = p.scan(r, unsent)
		s.Segments = p.scanSegments(m.lv, r, where)
	}
	s.Columns = cols
	_, s.Rows = scanBytes(r, where, nil)
	if r.rel.Rows <= 0 {
		s.Rows = 0
	}
	perSegment := s.Rows
	if m.stays {
		s.Motion, s.Segments = StayMotion, to
		n := len(to)
		if to == nil {
			n = p.opt.NumSegments
		}
		if perSegment /= float64(n); r.rel.Policy != nil && r.rel.Policy.Kind == Replicated {
			perSegment = s.Rows // its Rows are those of one copy
		}
	} else if m.broadcast || len(to) == 1 {
		// One segment gets all rows: those it would not get by their key
		// the island's conditions leave out, else it would not be alone.
		s.Motion = BroadcastMotion
	} else {
		if n := len(to); to != nil && n != m.segs || to == nil && m.segs != p.opt.NumSegments {
			return fmt.Errorf("planner: %s is redistributed over %d segments, and others run the slice", r.rel.Name, m.segs)
		}
		perSegment /= float64(m.segs)
		for _, k := range m.keys {
			s.Keys = append(s.Keys, slices.IndexFunc(cols, func(c Column) bool { return c.Name == r.cols[k] }))
		}
		if slices.Contains(s.Keys, -1) {
			return fmt.Errorf("planner: a key column of %s is not sent", r.rel.Name)
		}
	}
	if len(where) > 0 {
		clones := make([]*pg.Node, len(where))
		p.asOnSegments(m.lv, false, func() {
			for i, w := range where {
				clones[i] = proto.CloneOf(w)
			}
		})
		sel.WhereClause = and(clones)
	}
	if m.broadcast && m.lv.anyRow(where) {
		sel.LimitCount, sel.LimitOption = intConst(1), pg.LimitOption_LIMIT_OPTION_COUNT
		s.Rows = min(s.Rows, float64(p.opt.NumSegments))
	}
	moves := p.moves
	if r.first != nil && r.first.moves != nil {
		p.moves = r.first.moves
	}
	err := p.sliceOf(&s, sel)
	p.moves = moves
	if err != nil {
		return err
	}
	m.slice = s
	from := &Slice{Token: s.Token, Rows: perSegment}
	m.text = recvText(from, r.alias, cols)
	if perSegment >= portionRows {
		m.portions = portionsText(from, r.alias, cols, inArrays(cols))
	}
	m.typed = recvText(&Slice{}, r.alias, cols)
	return nil
}

// newMark is what stands for a move's source.
func (p *planner) newMark() string {
	p.marks++
	return fmt.Sprintf("?gp%smove%d?", p.salt, p.marks)
}

// moved puts the sources of moved tables into a slice's text.
func (p *planner) moved(sql string) string {
	for _, m := range p.moves {
		text := m.text
		if p.describing {
			text = m.typed
		}
		sql = strings.Replace(sql, quote(m.mark), text, 1)
	}
	return sql
}

// input is a slice that sends its rows to another.
type input struct {
	Slice
	second bool // To is an index of the plan's inputs
	move   *move
}

// keepInputs takes the slices of an island's moved tables into the plan. to is
// the island's own slice, one of the plan's slices or, with second, its inputs.
func (p *planner) keepInputs(sh *shape, to int, second bool) {
	sh.lv.each(func(lv *level) bool {
		for _, r := range lv.rtes {
			if m := p.moves[r]; m != nil {
				m.slice.To = to
				p.inputs = append(p.inputs, input{m.slice, second, m})
				if f := r.first; f != nil && f.moves != nil {
					moves := p.moves
					p.moves = f.moves
					p.keepInputs(f.sh, len(p.inputs)-1, true)
					p.moves = moves
				}
			}
		}
		return true
	})
}

// all are the plan's slices, its inputs after those that read them.
func (p *planner) all() []Slice {
	out := slices.Clone(p.slices)
	for _, in := range p.inputs {
		if in.second {
			in.To += len(p.slices)
		}
		out = append(out, in.Slice)
	}
	for i, in := range p.inputs {
		from := &out[len(p.slices)+i]
		to := &out[from.To]
		sql := cmp.Or(to.InPortions, to.SQL)
		if in.move.portions != "" && strings.Count(sql, in.move.text) == 1 {
			to.InPortions, from.Large = strings.Replace(sql, in.move.text, in.move.portions, 1), true
		}
	}
	return out
}
