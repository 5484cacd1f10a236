package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/execute"
	"github.com/trunkline-db/trunkline/mpp/merge"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// sources are the slices of one statement that the local server reads as row
// sources. They run when the server asks for them; those it has not asked for
// when the gang is needed for something else are spooled to a file.
type sources struct {
	s       *Session
	cmd     uint32
	list    []*source
	inBlock bool // of the client's or of a statement's: to cancel slices would fail it

	// cursor is the name of the SQL cursor that they are of, portal says that they are of
	// a cursor or portal that ends with the block.
	cursor string
	portal bool

	errMu   sync.Mutex
	failure error // first one of a slice

	mu  sync.Mutex        // held while a slice is started, which needs run
	run *dispatch.Running // nil when it is finished; the session's own
}

// fail notes the failure of a slice. Any goroutine may call it.
func (set *sources) fail(err error) {
	set.errMu.Lock()
	defer set.errMu.Unlock()
	if set.failure == nil {
		set.failure = err
	}
}

// err is the first failure of a slice. Any goroutine may ask.
func (set *sources) err() error {
	set.errMu.Lock()
	defer set.errMu.Unlock()
	return set.failure
}

// running is the statement, nil when it is finished. Any goroutine may ask.
func (set *sources) running() *dispatch.Running {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.run
}

// start runs a slice for end. The server may ask for its rows when the session
// has just given the statement up.
func (set *sources) start(end *reception) (*dispatch.Running, error) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.run == nil {
		return nil, internal("the rows of a statement that has ended were asked for")
	}
	return set.run, set.run.Run(end.run())
}

// source is one of them. mu is held while its rows are read, by the row
// server's goroutine or by the session's.
type source struct {
	set    *sources
	index  int16
	slice  plan.Slice
	mu     sync.Mutex
	taken  atomic.Bool // the slice has run, or runs
	spool  *rowsource.Spool
	failed error
	pump   *pump // nil: it is never read in portions
}

// pump brings the rows of a source into its queue, once somebody has asked for a
// portion.
type pump struct {
	queue *rowsource.Queue
	wg    sync.WaitGroup
	asked context.Context // ends when nobody asks any more
	unask func()

	mu       sync.Mutex
	started  bool
	finished bool
	ended    bool // nobody asks any more
}

// errEnough ends a source that nobody reads any more.
var errEnough = errors.New("nobody reads the rows any more")

// fill starts the pump of a source, unless it runs.
func (src *source) fill(ctx context.Context) {
	p := src.pump
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started || p.ended {
		return
	}
	p.started = true
	p.wg.Go(func() {
		if err := src.serve(ctx, p.queue.Add); err != nil {
			p.queue.Fail(err)
		} else {
			p.queue.End()
		}
		p.mu.Lock()
		p.finished = true
		p.mu.Unlock()
	})
}

// end has the pump, which may be nil, bring no more, and says whether it was at work.
func (p *pump) end() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.unask()
	p.queue.Fail(errEnough)
	return p.started && !p.finished
}

// enough says whether nobody reads any more, so that a failure is none.
func (p *pump) enough() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// wait returns when a pump that has been ended is at work no longer.
func (p *pump) wait() {
	if p != nil {
		p.wg.Wait()
	}
}

// close frees the queue of a pump that has been ended.
func (p *pump) close() {
	if p.wait(); p != nil {
		p.queue.Close()
	}
}

// openCursor is openSources for slices that are read by later statements: the
// end of the one that runs now does not end them.
func (s *Session) openCursor(slices []plan.Slice, params []dispatch.Param) (*sources, error) {
	set, err := s.openLater(s.ctx, slices, params, true)
	if err == nil {
		set.portal = true
		s.txn.open = append(s.txn.open, set)
	}
	return set, err
}

// closeOpen closes those of the sources of cursors and portals that which says, and
// returns why a slice has failed, if the transaction has failed with it.
func (s *Session) closeOpen(which func(*sources) bool) (failed error) {
	s.txn.open = slices.DeleteFunc(s.txn.open, func(set *sources) bool {
		if !which(set) {
			return false
		}
		if err := set.close(); err != nil && failed == nil && s.gang.Failed() {
			failed = err
		}
		return true
	})
	return failed
}

// openSources starts the slices of a query and publishes their tokens.
func (s *Session) openSources(ctx context.Context, slices []plan.Slice, params []dispatch.Param) (*sources, error) {
	return s.openLater(ctx, slices, params, false)
}

// openLater is openSources for slices that run when the client wants them to (idle), or
// at once.
func (s *Session) openLater(ctx context.Context, slices []plan.Slice, params []dispatch.Param, idle bool) (*sources, error) {
	if err := s.connectRows(); err != nil {
		return nil, err
	}
	set := &sources{s: s}
	for i, sl := range slices {
		if sl.Motion == plan.GatherMotion {
			set.list = append(set.list, &source{set: set, index: int16(i + 1), slice: sl})
		}
	}
	if err := s.beforeSlices(ctx, slices); err != nil {
		return nil, err
	}
	set.inBlock = s.gang.InTransaction()
	ds := s.besides(slices, params)
	for i := range ds {
		ds[i].Idle = idle
	}
	run, err := s.openWhole(ctx, ds, func() (*dispatch.Running, error) {
		s.command++
		set.cmd = s.command
		return s.gang.Open(ctx, s.command, ds, nil)
	})
	if err != nil {
		return nil, err
	}
	set.run = run
	for _, src := range set.list {
		src.publish()
	}
	return set, nil
}

// dispatched are the slices of a plan as the dispatcher takes them; each has its
// place in the list, from 1, as its index.
func (s *Session) dispatched(slices []plan.Slice, params []dispatch.Param) []dispatch.Slice {
	count := s.analyzing() != nil
	ds := make([]dispatch.Slice, len(slices))
	for i, sl := range slices {
		d := &ds[i]
		*d = dispatch.Slice{Index: int16(i + 1), SQL: sl.SQL, Params: pick(params, sl.Params), Segments: sl.Segments,
			Prepared: s.cache.tick + 1, Count: count, LocksRows: sl.LocksRows, ResultFormats: sl.Merge.Formats(nil)}
		if r := sl.Read; r != nil {
			d.Read = &execute.Read{Owner: r.Owner, Schema: r.Schema, Table: r.Table, Columns: r.Columns, SQL: r.SQL, Filtered: r.Filtered}
		}
		if sl.Motion == plan.GatherMotion {
			continue
		}
		d.Input = &dispatch.Input{To: int16(sl.To + 1), Token: sl.Token, Columns: max(len(sl.Columns), 1), Styles: s.styles(), Again: sl.Again, Stays: sl.Motion == plan.StayMotion}
		for _, k := range sl.Keys {
			d.Input.Keys = append(d.Input.Keys, execute.Key{Column: k, OID: sl.Columns[k].TypeOID})
		}
	}
	return ds
}

// beforeSlices is beforeDispatch for slices, of which the first may want tables locked.
func (s *Session) beforeSlices(ctx context.Context, sls []plan.Slice) error {
	if err := s.beforeDispatch(ctx); err != nil {
		return err
	}
	if len(sls) == 0 {
		return nil
	}
	if err := s.lockTables(ctx, sls[0].Locks); err != nil {
		return err
	}
	if locksRows(sls) {
		return s.beginLocking(ctx)
	}
	if !slices.ContainsFunc(sls, func(sl plan.Slice) bool { return sends(&sl) }) {
		return nil
	}
	return s.share(ctx)
}

// styles are the parameters by which values are printed now, and have to be
// read.
func (s *Session) styles() map[string]string {
	return map[string]string{"DateStyle": s.link.params["DateStyle"], "IntervalStyle": s.link.params["IntervalStyle"]}
}

// pick takes those of the statement's parameters, or of their types, that a slice
// has, as plan.Slice.Params numbers them.
func pick[T any](all []T, numbers []int) []T {
	if len(numbers) == 0 {
		return nil
	}
	out := make([]T, len(numbers))
	for i, n := range numbers {
		out[i] = all[n-1]
	}
	return out
}

// connectRows opens the local server's connection to the row source, once in
// a session unless something fails: a statement that is cancelled while it reads
// rows can leave the connection busy for good.
func (s *Session) connectRows() error {
	if s.rowsConnected && !s.link.erred {
		return nil
	}
	s.link.erred = false
	if _, err := s.local("SELECT pg_catalog.gp_motion_connect()"); err != nil {
		return err
	}
	s.rowsConnected = true
	return nil
}

// publish makes the source's token known to the row server. The values come in
// the styles that the session has now.
func (src *source) publish() {
	styles := src.set.s.styles()
	from := rowsource.Source{Columns: max(len(src.slice.Columns), 1), Styles: func() map[string]string { return styles }, Rows: src.serve}
	if src.slice.Large {
		src.pump = &pump{queue: rowsource.NewQueue(src.set.s.srv.queues)}
		src.pump.asked, src.pump.unask = context.WithCancel(context.Background())
		from.Queue, from.Fill = src.pump.queue, src.fill
	}
	src.set.s.srv.rows.Add(src.slice.Token, from)
}

// serve gives the source's rows to a reader of the row server.
func (src *source) serve(ctx context.Context, sink func([]byte) error) error {
	src.mu.Lock()
	defer src.mu.Unlock()
	switch {
	case src.failed != nil:
		return src.failed
	case src.spool != nil:
		return src.spool.Replay(sink)
	case !src.taken.CompareAndSwap(false, true):
		return internal("a row source was read twice")
	}
	if run := src.set.running(); run != nil {
		defer context.AfterFunc(ctx, run.Cancel)()
	}
	if src.slice.Again {
		return src.spooled(sink)
	}
	if err := src.gather(sink); err != nil {
		src.failed = err
		return err
	}
	return nil
}

// spooled runs the slice and keeps the rows that it sinks. The caller holds mu.
func (src *source) spooled(sink func([]byte) error) error {
	spool := &rowsource.Spool{}
	err := src.gather(func(row []byte) error {
		if err := spool.Add(row); err != nil || sink == nil {
			return err
		}
		return sink(row)
	})
	if err != nil {
		spool.Close()
		src.failed = err
		return err
	}
	src.spool = spool
	return nil
}

// gather runs the slice and sinks its rows. The caller holds mu.
func (src *source) gather(sink func([]byte) error) error {
	set := src.set
	end, err := set.s.reception(set.cmd, src.index)
	var run *dispatch.Running
	if err == nil {
		if src.pump != nil && set.inBlock {
			end.enough = src.pump.asked
		}
		run, err = set.start(end)
	}
	switch {
	case err == nil:
		err = end.rows(run, merge.New(src.slice.Merge, nil), sink)
	case run != nil:
		err = cause(run.Context(), err)
		run.Fail(err)
		end.abort()
	}
	if err != nil && !src.pump.enough() {
		set.fail(err)
	}
	return err
}

// keep runs the slice now and keeps its rows for a later reader.
func (src *source) keep() error {
	src.mu.Lock()
	defer src.mu.Unlock()
	if !src.taken.CompareAndSwap(false, true) {
		return nil
	}
	return src.spooled(nil)
}

// settle frees the gang: what is not read yet is kept in files.
func (set *sources) settle() error {
	if set.run == nil {
		return nil
	}
	var first error
	for _, src := range set.list {
		if err := src.keep(); err != nil && first == nil {
			first = err
		}
	}
	err := betterError(first, set.finishRun())
	if failure := set.err(); failure != nil {
		return betterError(failure, err) // of one that had been taken before
	}
	return err
}

func (set *sources) finishRun() error {
	set.mu.Lock()
	run := set.run
	set.run = nil
	set.mu.Unlock()
	if run == nil {
		return nil
	}
	return set.s.finishRunning(run)
}

// cursorError is err, or what executors know better of why a cursor's rows have
// not come: the local server repeats what the first of them has said.
func (s *Session) cursorError(err error) error {
	if err == nil {
		return nil
	}
	for _, set := range s.txn.open {
		if failure := set.err(); failure != nil {
			err = betterError(err, betterError(failure, set.finishRun()))
		}
	}
	return err
}

// abandon ends the slices, whatever they are doing.
func (set *sources) abandon() {
	if set.run != nil {
		set.run.Cancel()
		_ = set.finishRun()
	}
}

// close ends the slices and forgets the tokens. It returns why a slice failed. In a
// block slices that nobody reads any more are stopped, unless it has failed.
func (set *sources) close() error {
	s := set.s
	for _, src := range set.list {
		s.srv.rows.Remove(src.slice.Token)
	}
	if set.run != nil {
		stops := set.inBlock && s.link.broken == nil && s.link.status != 'E'
		for _, src := range set.list {
			if working := src.pump.end(); !stops && (working || !src.taken.Load() || s.link.broken != nil) {
				set.run.Cancel()
			}
		}
		for _, src := range set.list {
			if stops {
				src.pump.wait()
			}
		}
	}
	err := set.finishRun()
	for _, src := range set.list {
		src.pump.end()
		src.pump.close()
		src.mu.Lock()
		if src.spool != nil {
			src.spool.Close()
			src.spool = nil
		}
		src.mu.Unlock()
	}
	if failure := set.err(); failure != nil {
		s.rowsConnected = false // whatever the local server has made of it
		return betterError(failure, err)
	}
	if s.gang.Failed() {
		return err // what was stopped has failed before it was
	}
	return nil
}

// betterError picks the error that says more: a segment's own error before the
// interconnect's, a named cause before a broken connection, anything before a
// cancellation or a failed transaction that followed from it; of equals a, which should be what was
// noticed here: what segments report then may only be that the others were
// stopped.
func betterError(a, b error) error {
	rank := func(err error) int {
		if err == nil {
			return 0
		}
		pe := pgError(err)
		switch {
		case (pe.Code == "57014" || pe.Code == "25P02") && !dispatch.TimedOut(pe.Message):
			return 1
		case pe.Code == motion.CodeInterconnect && motion.Bare(pe.Message):
			if pe.Detail == "" {
				return 2
			}
			return 3
		case pe.Code == motion.CodeInterconnect:
			return 4
		}
		return 5
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}
