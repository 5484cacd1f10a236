package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// change is what EXPLAIN shows of a statement that changes a distributed table.
// A part of it runs on the segments, which Greenplum calls slice 0. Unless they
// do all of it, a query yields the rows that they are given.
type change struct {
	op     string // Insert, Update or Delete; "" when nothing was to be done
	r      *relation
	reason string // why segments are given rows

	query     *plan.Query // that yields the rows; nil when there is none
	top       string      // what the coordinator's server runs of it
	topTokens []string    // of top's row sources
	tokens    []map[int][]string
	source    outcome
	moved     []plan.Slice // of an INSERT whose rows segments send each other; the last writes
	copies    bool         // it is a COPY of what the first sends
	// movedTokens are those of its row sources.
	movedTokens []string

	segments int        // that may have to do something
	direct   serverPlan // without ANALYZE: what one of them does
	steps    []*written // with ANALYZE, in the order in which they were begun
	returned int64      // rows of RETURNING

	begun          time.Time // when the first server was asked to do something
	sourceBegun    time.Time
	planning, took time.Duration
}

// begin notes that planning is over, the first time.
func (c *change) begin() time.Time {
	now := time.Now()
	if c.begun.IsZero() {
		c.begun = now
	}
	return now
}

// written is what segments have done of a change: all of it, or for an UPDATE
// that moves rows the deletions or the insertions.
type written struct {
	op     string
	copied bool   // by COPY
	sql    string // of the statement that runs now
	segs   map[int]*writtenOn
	took   time.Duration // as the coordinator has waited for it
}

// writtenOn is what one segment has done.
type writtenOn struct {
	rows, bytes, statements int64      // bytes are those that it was sent
	plan                    serverPlan // of the first statement
}

// note takes a segment's notice, if it is about the statement that runs. Of the
// plans of a segment the first is kept: there may be many, each with the long
// text of its statement.
func (w *written) note(a *analysis, seg int, message string) bool {
	p, ok := a.planIn(message, w.sql)
	p = p.quiet()
	if ok && w.on(seg).plan.empty() {
		w.on(seg).plan = p
	}
	return ok
}

func (w *written) on(seg int) *writtenOn {
	if w.segs[seg] == nil {
		w.segs[seg] = &writtenOn{}
	}
	return w.segs[seg]
}

// busiest is the segment that has written most, -1 when none has done anything.
func (w *written) busiest() int {
	seg := -1
	for _, n := range slices.Sorted(maps.Keys(w.segs)) {
		if seg < 0 || w.segs[n].rows > w.segs[seg].rows {
			seg = n
		}
	}
	return seg
}

// stepOf is the step of a change with an operation.
func (c *change) stepOf(op string) *written {
	for _, w := range c.steps {
		if w.op == op {
			return w
		}
	}
	w := &written{op: op, segs: map[int]*writtenOn{}}
	c.steps = append(c.steps, w)
	return w
}

// segmentsWrite notes, for EXPLAIN ANALYZE, that segments are given a statement
// that changes rows. The returned function must be called with their answers.
func (s *Session) segmentsWrite(op, sql string) func([]dispatch.Result) {
	a := s.analyzing()
	if a == nil {
		return func([]dispatch.Result) {}
	}
	w := a.stepOf(op)
	w.sql = sql
	a.setStep(w)
	begun := a.begin()
	return func(res []dispatch.Result) {
		w.took += time.Since(begun)
		a.setStep(nil)
		for _, r := range res {
			on := w.on(r.Seg)
			on.rows, on.bytes, on.statements = on.rows+r.Tag.RowsAffected(), on.bytes+int64(len(sql)), on.statements+1
		}
	}
}

func (a *analysis) setStep(w *written) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.step = w
}

// copied notes a COPY that has ended.
func (a *analysis) copied(w *rowWriter) {
	step := a.stepOf("Insert")
	step.copied, step.took = true, time.Since(w.begun)
	for seg, tag := range w.copy.Tags() {
		if seg < w.n {
			on := step.on(seg)
			on.rows, on.bytes = tag.RowsAffected(), w.bytes[seg]
		}
	}
}

// sourceBegins notes, for EXPLAIN ANALYZE, that the query runs that yields the
// rows of a change. Its plan is looked at now: the change may make another one
// the best. It returns a sink that counts for sink.
func (s *Session) sourceBegins(ctx context.Context, a *analysis, q *plan.Query, top string, sink func([]byte) error) (func([]byte) error, error) {
	if err := s.beforeSlices(ctx, q.Slices); err != nil {
		return nil, err
	}
	a.query, a.top, a.source = q, top, outcome{}
	t, at := &planTree{slices: q.Slices}, s.placed(q.Slices)
	a.tokens = make([]map[int][]string, len(q.Slices))
	for i := range q.Slices {
		sl := &q.Slices[i]
		if sl.Read != nil || !t.reads(i) {
			continue
		}
		res, err := s.gang.Exec(ctx, sl.Segments, namesTokens+at.sql(q.Slices, i))
		if err != nil {
			return nil, err
		}
		a.tokens[i] = map[int][]string{}
		for _, r := range res {
			a.tokens[i][r.Seg] = tokensRead(firstColumn(r.Rows))
		}
	}
	var err error
	if a.topTokens, err = s.readTokens(top != "" && len(q.Slices) > 0, s.asking(top)); err != nil {
		return nil, err
	}
	a.expect(q.Slices)
	begun := a.begin()
	a.sourceBegun = begun
	return func(row []byte) error {
		if a.source.rows++; a.source.rows == 1 {
			a.source.first = time.Since(begun)
		}
		return sink(row)
	}, nil
}

// sourceEnds notes that the last row of that query has come.
func (c *change) sourceEnds() {
	if !c.sourceBegun.IsZero() {
		c.source.last = time.Since(c.sourceBegun)
	}
}

// analyzeChange runs a statement that changes a distributed table, for EXPLAIN
// ANALYZE. What RETURNING yields goes nowhere.
func (s *Session) analyzeChange(req *request, st *pg.ExplainStmt) (*analysis, error) {
	if ins := req.node.GetInsertStmt(); ins != nil && s.alone() {
		if err := s.beginToInsert(req, ins); err != nil {
			return nil, err
		}
	}
	if ctas := req.node.GetCreateTableAsStmt(); ctas != nil {
		if err := s.beginToCreate(req, ctas); err != nil {
			return nil, err
		}
	}
	// In a transaction what servers are told is forgotten when it fails.
	if err := s.beginImplicit(); err != nil {
		return nil, err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return nil, err
	}
	tell := func(sql string) error {
		if err := s.tellSegments(req.ctx, sql); err != nil {
			return err
		}
		_, err := s.local(sql)
		return err
	}
	defer s.gang.TellReaders("", "") // they are in no transaction
	if err := tell(tellPlans(st)); err != nil {
		return nil, err
	}
	a := &analysis{json: explainFormat(st) != "text", plans: map[int][]string{}}
	a.segments = s.numSegments()
	s.setAnalysis(a)
	s.out.counted = &a.returned
	asked := time.Now()
	err := s.run(req)
	if end := time.Now(); a.begun.IsZero() {
		a.planning = end.Sub(asked)
	} else {
		a.planning, a.took = a.begun.Sub(asked), end.Sub(a.begun)
	}
	s.pending, s.out.counted = nil, nil
	if err == nil {
		err = tell(tellNoPlans)
	}
	s.setAnalysis(nil)
	a.mu.Lock()
	a.source.top = a.topPlan
	a.mu.Unlock()
	if q := a.query; q != nil && q.Kind != plan.Gather && !explainOn(st, "costs", true) {
		a.source.top.dropCosts()
	}
	return a, err
}

// planChange plans an INSERT, UPDATE or DELETE of a distributed table, for
// EXPLAIN.
func (s *Session) planChange(req *request, st *pg.ExplainStmt) (*change, error) {
	prefix, _, err := explainPrefix(st)
	if err != nil {
		return nil, err
	}
	c := &change{segments: s.numSegments()}
	ask := func(segs []int, sql string) error {
		if segs != nil {
			c.segments = len(segs)
		} else {
			segs = []int{0}
		}
		if err := s.beforeDispatch(req.ctx); err != nil {
			return err
		}
		res, err := s.gang.Exec(req.ctx, segs[:1], prefix+sql)
		if err == nil {
			c.direct, err = readPlan(firstColumn(res[0].Rows), explainFormat(st) != "text")
		}
		return err
	}
	var rows *pg.Node
	if ins := req.node.GetInsertStmt(); ins != nil {
		if c.r, err = s.relation(ins.Relation.Schemaname, ins.Relation.Relname); err != nil {
			return nil, err
		}
		c.op = "Insert"
		w, _, err := s.insertWriter(req, ins, c.r)
		if err != nil {
			return nil, err
		}
		if err := w.open(); err != nil {
			return nil, err
		}
		defer w.free()
		c.segments = w.n
		if w.template != "" {
			if done, err := constantRows(w, ins); err != nil {
				return nil, err
			} else if done {
				segs, sql, err := w.first()
				if err != nil {
					return nil, err
				}
				return c, ask(segs, sql)
			}
		}
		if rows, err = s.insertSource(c.r, ins, req); err != nil {
			return nil, err
		}
		in, why, err := s.planPlaced(req, c.r, ins, rows)
		if err != nil {
			return nil, err
		}
		if in != nil {
			if len(in.slices) > 1 {
				c.moved = in.slices
			}
			if c.copies = in.moved; c.copies {
				if segs := in.insert().Segments; segs != nil {
					c.segments = len(segs)
				}
				return c, nil
			}
			return c, ask(in.insert().Segments, s.placeInsert(in, s.sight()).sql(in.slices, len(in.slices)-1))
		}
		c.reason = why
		if err := w.spell(rows); err != nil {
			return nil, err
		}
	} else {
		m, _, err := s.planModify(req)
		if err != nil {
			return nil, err
		}
		c.op, c.r, c.reason = m.operation(), m.r, m.Reason
		if m.Kind == plan.ModifyDirect {
			return c, ask(m.Slice.Segments, m.Slice.SQL)
		}
		rows = m.Rows
	}
	if c.query, err = s.plan(rows, nil, nil); err != nil || c.query.Kind == plan.Gather {
		return c, err
	}
	if c.top = c.query.Top; c.top == "" {
		if c.top, err = plan.Deparse(rows); err != nil {
			return nil, err
		}
	}
	local := s.asking(c.top)
	if c.topTokens, err = s.readTokens(len(c.query.Slices) > 0, local); err != nil {
		return nil, err
	}
	lines, err := local(prefix)
	if err == nil {
		c.source.top, err = readPlan(lines, explainFormat(st) != "text")
	}
	return c, err
}

// first is the segments that are to get rows, and one statement of the first of
// them.
func (w *rowWriter) first() (segs []int, sql string, err error) {
	found := errors.New("found")
	for seg := range w.batches {
		b := &w.batches[seg]
		if err := b.cut(); err != nil {
			return nil, "", err
		}
		if b.full.Len() == 0 {
			continue
		}
		if segs = append(segs, seg); len(segs) > 1 {
			continue
		}
		if err := b.full.Replay(func(rows []byte) error { sql = w.statement(rows); return found }); !errors.Is(err, found) {
			return nil, "", err
		}
	}
	return segs, sql, nil
}

// explainChange answers an EXPLAIN of a statement that changes a distributed
// table.
func (s *Session) explainChange(req *request, st *pg.ExplainStmt, body *pg.Node, analyze bool) error {
	// PostgreSQL's word on the options, before anything is done.
	prefix, _, err := explainPrefix(st)
	if err != nil {
		return err
	}
	if _, err := s.local(prefix + "SELECT"); err != nil {
		return unplaced(err)
	}
	// The local server finds mistakes in the client's own text.
	run := &request{ctx: req.ctx, node: body, text: req.text}
	own := st.Query.GetExecuteStmt() == nil
	if !own {
		if run.text, err = plan.Deparse(body); err != nil {
			return err
		}
	}
	run.stmt = &plan.Statement{SQL: run.text, Node: body, Distribution: req.stmt.Distribution}
	var c *change
	var ran *analysis
	if analyze {
		if ran, err = s.analyzeChange(run, st); ran != nil {
			c = &ran.change
		}
	} else {
		c, err = s.planChange(run, st)
	}
	if err != nil {
		if !own {
			err = unplaced(err)
		}
		return err
	}
	var t *planTree
	var source serverPlan
	f := footing{reason: c.reason, planning: c.planning, took: c.took, summary: explainOn(st, "summary", true)}
	switch {
	case c.moved != nil:
		t = s.newTree(st, c.moved, s.sight().place(c.moved, len(c.moved)-1, readers(s.numSegments())))
	case c.query == nil:
		t = s.newTree(st, nil, nil)
	default:
		t = s.newTree(st, c.query.Slices, s.placed(c.query.Slices))
	}
	if t.ran = ran; ran != nil {
		t.setSQL(ran.sql)
	}
	if c.moved != nil {
		if err := s.movedPlans(req.ctx, t, st, c); err != nil {
			return err
		}
		if c.copies {
			source = t.sent(c)
		}
	} else if c.query != nil {
		if err := s.slicePlans(req.ctx, t, st); err != nil {
			return err
		}
		source = t.body(c.query, c.source, c.topTokens)
		if r := c.query.Reason; r != "" && f.reason != "" {
			f.reason += "; " + r
		} else if r != "" {
			f.reason = r
		}
	}
	v := changeView{t: t, c: c, costs: explainOn(st, "costs", true), verbose: explainOn(st, "verbose", false)}
	if ran != nil {
		f.lines = append(v.statistics(), ran.statistics()...)
		f.statistics = append(v.statisticsJSON(), ran.statisticsJSON()...)
	}
	p := serverPlan{}
	if t.json {
		p.tree = v.tree(source.tree)
	} else {
		p.lines = v.lines(source.lines)
	}
	return s.sendPlan(req, st, p, f)
}

// movedPlans has the plans of the slices that send an INSERT its rows, and what
// the INSERT's own reads.
func (s *Session) movedPlans(ctx context.Context, t *planTree, st *pg.ExplainStmt, c *change) error {
	last := len(c.moved) - 1
	w := c.moved[last]
	t.slices = c.moved[:last]
	err := s.slicePlans(ctx, t, st)
	if t.slices = c.moved; err != nil || c.copies {
		return err
	}
	if err := s.beforeDispatch(ctx); err != nil {
		return err
	}
	seg := 0
	if w.Segments != nil {
		seg = w.Segments[0]
	}
	res, err := s.gang.Exec(ctx, []int{seg}, namesTokens+t.sql[last])
	if err == nil {
		c.movedTokens = tokensRead(firstColumn(res[0].Rows))
	}
	return err
}

// sent is the plan of what the first slice sends to a COPY on each segment.
func (t *planTree) sent(c *change) (p serverPlan) {
	o := outcome{first: c.took, last: c.took}
	for _, w := range c.steps {
		for _, on := range w.segs {
			o.rows += on.rows
		}
	}
	var keys []string
	for _, k := range t.slices[0].Keys {
		keys = append(keys, explainName(t.slices[0].Columns[k].Name))
	}
	if t.json {
		if p.tree = t.gatherNode(o); keys != nil {
			p.tree["Hash Key"] = strings.Join(keys, ", ")
		}
		return p
	}
	if p.lines = t.gather(o); keys != nil {
		p.lines = slices.Insert(p.lines, 1, strings.Repeat(" ", rootIndent)+"Hash Key: "+strings.Join(keys, ", "))
	}
	return p
}

// unplaced is an error of a statement that the client has not written.
func unplaced(err error) error {
	pe := pgError(err)
	if pe.Position == 0 {
		return err
	}
	bare := *pe
	bare.Position = 0
	return &bare
}
