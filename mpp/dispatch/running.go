package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/execute"
)

// Slice is one slice of a distributed statement: SQL that some segments run
// and whose rows go through a motion, to whom Run says or to another slice.
type Slice struct {
	Index         int16 // above 0
	SQL           string
	Params        []Param
	ResultFormats []int16
	// Prepared is the version of the catalog that SQL was made for, 0 for none
	// that is known; see execute.Slice.
	Prepared uint64
	// Copy says that SQL is COPY … TO STDOUT; a tuple of the motion is then
	// one CopyData content, else one DataRow body. Such a slice takes its
	// snapshot when it runs.
	Copy bool
	// Read is what SQL reads as the owner of a view; see execute.Slice.
	Read *execute.Read
	// Segments are the content ids that run the slice; nil means all.
	Segments []int
	// Count has the bytes and packets of its motion put into its Tags; see
	// execute.Slice.
	Count bool
	// Writes says that SQL changes rows and returns none: Run has no receivers
	// for it. See execute.Slice.
	Writes bool
	// LocksRows says that SQL locks rows, for which it may wait: it does so when all slices
	// are open, and nobody's commit waits for that.
	LocksRows bool
	// Data is the token of the input that SQL, a COPY FROM STDIN, has for its
	// data; see execute.Slice.
	Data string
	// Reader has another executor run the slice than the session's own, so that it
	// runs beside the slices of those: 1 and up say which. It has the transaction's
	// snapshot, or where that has none for all its statements one of its own, taken
	// together with the others; and must not read temporary tables nor what the
	// transaction has written; see Gang.ReadersSee and Share.
	Reader int
	// Idle says that nobody knows when the slice will run; see execute.Command.
	Idle bool
	// Input says which slice reads the rows of this one, on the segments that
	// run it; nil: the receivers of Run do.
	Input *Input
}

// Input is a motion from a slice to another. Such a slice runs before the one
// that reads it, whose Run it needs.
type Input struct {
	To int16 // Index of the slice that reads it
	// Keys are the key by which rows are distributed over the segments that run
	// To, in their order; with none every row goes to each, or, if Stays, to To on the
	// segment where it is. Both slices run on the same ones, then.
	Keys  []execute.Key
	Stays bool
	// Binary says that the slice's ResultFormats make the keys' values binary.
	Binary bool
	// Token is how the SQL of To asks for the rows, Columns how many they have.
	Token   string
	Columns int
	Again   bool // To may read the rows several times
	// Styles are the session's DateStyle and IntervalStyle, by which values are
	// printed and read; nil: PostgreSQL's defaults.
	Styles map[string]string
}

// Run says which slice to run and who receives its rows. With more than one
// receiver every row goes to all of them.
type Run struct {
	Slice     int16
	RecvSlice int16
	Receivers []motion.Peer
	// Short says that the slice, alone on its segments, is likely to take some
	// milliseconds and sends some rows at most: it is opened and run without a word
	// in between, and Open returns when it has run. Its rows must go somewhere
	// meanwhile: Receive has to take them.
	Short bool
	// Receive, if not nil, opens the receiving end of the motion from senders. It
	// is called as soon as they have been told to run: what they send can hardly
	// be lost without the receiver's noticing, and where it cannot be reached
	// they, who know the address, say so first. An error of it ends the statement.
	Receive func(ctx context.Context, senders []motion.Peer) error
}

// Running is a distributed statement whose slices are open on the segments.
// Its rows come through the motion, which the caller receives; Running tells
// how the executors fare. One goroutine at a time may use it, except Cancel,
// Context, Failed, Sent and Err, which may be called from any.
type Running struct {
	g       *Gang
	o       *op
	command uint32
	slices  []Slice
	started map[int16]bool // that have been told to run
	parts   []*runPart
	ctx     context.Context
	stop    context.CancelCauseFunc
	opened  chan struct{} // one token per part whose slices are open
	begun   int           // parts that have been begun
	over    chan int      // the index of each that has ended
	sending map[int16]*sending
	ended   bool
	endErr  error
}

// Command is the number that the slices' motions have.
func (r *Running) Command() uint32 { return r.command }

// sending is a slice that has been started.
type sending struct {
	left atomic.Int32  // segments that have not run it to the end
	done chan struct{} // closed with the last of them
}

// runPart is one segment's share; its goroutine is the only user of the
// member's connection meanwhile.
type runPart struct {
	m      *member
	index  int // in op.parts
	slices []int16
	begin  string
	first  string           // Query text of the open command
	ran    int16            // the slice that command runs too, 0 for none
	open   bool             // slices stay open after it
	short  bool             // nothing is heard before the end
	queue  chan Run         // runs to come; closed by Finish
	tags   map[int16]string // outcome per slice run
}

// Open opens the slices on their segments, each with its own snapshot, all
// taken together with respect to distributed commits. With run it also starts
// that slice; with a single slice that makes one round trip of the whole. It
// returns when all slices are open; when another session has committed while they
// were being opened, which the latch does not prevent for ever, it is ErrTorn and
// nothing has run to the end; so it is with ErrReaders. A transaction of READ
// COMMITTED goes on after that: in it nothing is started before all slices are open,
// and the gang's own executors open theirs after the readers. The end of ctx cancels
// the whole Running, also after Open has returned. On success the caller must call
// Finish.
func (g *Gang) Open(ctx context.Context, command uint32, slcs []Slice, run *Run) (*Running, error) {
	if g.busy.Load() {
		return nil, errBusy()
	}
	r := &Running{g: g, command: command, slices: slcs, started: map[int16]bool{}, sending: map[int16]*sending{}}
	ms, err := r.plan(run)
	if err != nil {
		return nil, err
	}
	later := run
	switch {
	case run == nil:
	case r.reads(run.Slice):
		run = nil // what it reads runs first
	case len(ms) > 1 && !g.tx.fixed && (g.tx.active || r.slice(run.Slice).LocksRows):
		run = nil // torn snapshots can be taken again then, also in the transaction
	default:
		later, r.started[run.Slice] = nil, true
	}
	own := slices.IndexFunc(ms, func(m *member) bool { return m.reader != 0 })
	if own < 0 {
		own = len(ms)
	}
	if err := g.ready(ctx, ms[:own]); err != nil {
		return nil, err
	}
	if err := g.readyReaders(ctx, ms[own:]); err != nil {
		return nil, err
	}
	if err := r.encode(run); err != nil {
		return nil, err
	}
	for _, s := range slcs {
		n := &sending{done: make(chan struct{})}
		n.left.Store(int32(len(r.Senders(s.Index))))
		r.sending[s.Index] = n
	}
	var h *hold
	if (len(ms) > 1 || len(slcs) > 1) && !g.tx.fixed {
		if h, err = g.holdReading(ctx, ms, nil); err != nil {
			return nil, err
		}
		defer h.release()
	}
	if err := g.share(ctx, ms[own:]); err != nil {
		return nil, err
	}
	r.ctx, r.stop = context.WithCancelCause(ctx)
	r.o = g.start(ctx, ms)
	r.o.mu.Lock()
	r.o.onFail = func(err error) { r.stop(err) }
	if r.o.user {
		r.stop(canceled(ctx)) // ctx had ended before
	}
	r.o.mu.Unlock()
	g.busy.Store(true)
	r.noteReaders(true)
	r.opened, r.over = make(chan struct{}, len(ms)), make(chan int, len(ms))
	parts := r.parts
	if g.tx.active && own < len(ms) {
		// What a reader cannot open must not fail the transaction.
		r.o.putOff(own)
		r.begin(parts[own:])
		r.await(parts[own:])
		parts = parts[:own]
		if !r.o.takeUp(own) {
			parts = nil // the statement is ending, and they have heard nothing of it
		}
	}
	r.begin(parts)
	if run != nil && run.Receive != nil {
		if err := run.Receive(r.ctx, r.Senders(run.Slice)); err != nil {
			r.o.fail(err) // unless an executor has
		}
	}
	if !r.await(parts) {
		if err := r.end(); err != nil {
			return nil, err
		}
		return nil, canceled(ctx)
	}
	if h.torn() {
		if run != nil {
			r.o.cancel()
		}
		if err := r.end(); err != nil && run == nil {
			return nil, err
		}
		g.tx.torn = g.tx.opens
		return nil, errTorn()
	}
	if later != nil {
		if err := r.Run(*later); err != nil {
			r.o.cancel()
			_ = r.end()
			return nil, err
		}
	}
	return r, nil
}

// begin has parts open their slices.
func (r *Running) begin(parts []*runPart) {
	for _, p := range parts {
		r.begun++
		go func() {
			r.o.finish(p.index, p.work(r))
			r.over <- p.index
		}()
	}
}

// await waits until parts have opened their slices. It is false when the statement
// is ending.
func (r *Running) await(parts []*runPart) bool {
	for range parts {
		select {
		case <-r.opened:
		case <-r.ctx.Done():
			return false
		}
	}
	return r.ctx.Err() == nil
}

// reads says whether a slice has inputs.
func (r *Running) reads(slice int16) bool {
	return slices.ContainsFunc(r.slices, func(s Slice) bool { return s.Input != nil && s.Input.To == slice })
}

// plan finds out which members run what.
func (r *Running) plan(run *Run) ([]*member, error) {
	if len(r.slices) == 0 {
		return nil, newError("XX000", "no slices to open", nil)
	}
	byMember := make(map[*member]*runPart)
	var ms []*member
	for _, s := range r.slices {
		on, err := r.g.pick(s.Segments)
		if err != nil {
			return nil, err
		}
		for _, m := range on {
			switch {
			case s.Reader == 0:
			case !r.g.Shares():
				return nil, newError("XX000", "a reader does not have the transaction's snapshot", nil)
			default:
				m = m.besides(s.Reader)
			}
			p := byMember[m]
			if p == nil {
				p = &runPart{m: m, queue: make(chan Run, len(r.slices)), tags: make(map[int16]string, 1)}
				byMember[m] = p
				r.parts = append(r.parts, p)
			}
			if slices.Contains(p.slices, s.Index) {
				return nil, newError("XX000", fmt.Sprintf("slice %d is twice on seg%d", s.Index, m.seg.Content), nil)
			}
			p.slices = append(p.slices, s.Index)
		}
	}
	// Whoever numbers the segments of a slice, as a hash does, does it in this order.
	slices.SortFunc(r.parts, func(a, b *runPart) int {
		return cmp.Or(cmp.Compare(a.m.reader, b.m.reader), cmp.Compare(a.m.seg.Content, b.m.seg.Content))
	})
	for i, p := range r.parts {
		p.index = i
		ms = append(ms, p.m)
	}
	for _, s := range r.slices {
		if s.Input != nil && (r.slice(s.Input.To) == nil || s.Input.To == s.Index) {
			return nil, newError("XX000", fmt.Sprintf("slice %d is the input of slice %d, which is not there", s.Index, s.Input.To), nil)
		}
	}
	if run == nil {
		return ms, nil
	}
	if r.slice(run.Slice) == nil {
		return nil, newError("XX000", fmt.Sprintf("there is no slice %d to run", run.Slice), nil)
	}
	return ms, nil
}

func (r *Running) slice(index int16) *Slice {
	for i := range r.slices {
		if r.slices[i].Index == index {
			return &r.slices[i]
		}
	}
	return nil
}

// encode makes the open commands; segments with the same slices share one.
func (r *Running) encode(run *Run) error {
	begin := r.g.tx.beginSQL()
	for i, p := range r.parts {
		if r.g.tx.active && p.m.reader == 0 && !p.m.begun {
			p.begin = begin
		}
		if run != nil && slices.Contains(p.slices, run.Slice) {
			p.ran = run.Slice
		}
		p.open = p.ran == 0 || len(p.slices) > 1
		p.short = !p.open && run.Short
		if i > 0 {
			if l := r.parts[i-1]; l.begin == p.begin && slices.Equal(l.slices, p.slices) && !r.stays(p) {
				p.first = l.first
				continue
			}
		}
		c := execute.Command{Op: execute.OpOpen, Begin: p.begin, Command: r.command}
		for _, index := range p.slices {
			s := r.slice(index)
			c.Idle = c.Idle || s.Idle && p.ran == 0
			e := execute.Slice{Index: index, SQL: s.SQL, ResultFormats: s.ResultFormats, Prepared: s.Prepared, Copy: s.Copy, Read: s.Read, Count: s.Count, Writes: s.Writes, Data: s.Data}
			for _, v := range s.Params {
				e.Params = append(e.Params, execute.Param(v))
			}
			r.addMotions(&e, s, p.m.seg.Content)
			c.Slices = append(c.Slices, e)
		}
		if p.ran != 0 {
			c.Run = &execute.Run{Slice: run.Slice, RecvSlice: run.RecvSlice, Receivers: run.Receivers}
			c.Short = p.short
		}
		var err error
		if p.first, err = c.Query(); err != nil {
			return newError("XX000", "cannot encode the slices", err)
		}
	}
	return nil
}

// stays says whether a part has an end of a motion that does not leave its segment.
func (r *Running) stays(p *runPart) bool {
	return slices.ContainsFunc(r.slices, func(s Slice) bool {
		return s.Input != nil && s.Input.Stays && (slices.Contains(p.slices, s.Index) || slices.Contains(p.slices, s.Input.To))
	})
}

// addMotions adds the motions between segments that a slice has a part in, on the
// segment content.
func (r *Running) addMotions(e *execute.Slice, s *Slice, content int16) {
	if in := s.Input; in != nil {
		e.Out = &execute.Run{Slice: s.Index, RecvSlice: in.To, Receivers: r.ends(in.To, in, content), Keys: in.Keys, Binary: in.Binary}
	}
	for i := range r.slices {
		from := &r.slices[i]
		if in := from.Input; in != nil && in.To == s.Index {
			senders := r.ends(from.Index, in, content)
			for k := range senders {
				senders[k] = execute.SendingEnd(senders[k])
			}
			e.Inputs = append(e.Inputs, execute.Input{Slice: from.Index, Token: in.Token, Columns: in.Columns, Again: in.Again, Styles: in.Styles, Senders: senders})
		}
	}
}

// ends are the executors at one end of a motion, those of a slice, for one at the other
// end on a segment.
func (r *Running) ends(slice int16, in *Input, content int16) []motion.Peer {
	all := r.Senders(slice)
	if in.Stays {
		return slices.DeleteFunc(all, func(p motion.Peer) bool { return p.Content != content })
	}
	return all
}

// work is the part's goroutine.
func (p *runPart) work(r *Running) error {
	tag, err := p.command(r, p.first, p.ran)
	if p.m.reader != 0 && sqlState(err) == codeLockNotAvailable {
		return errReaders(err)
	}
	if err != nil {
		return err
	}
	if p.ran != 0 {
		p.tags[p.ran] = tag
		r.sent(p.ran)
	}
	if p.short {
		r.opened <- struct{}{}
	}
	for p.open {
		run, more, err := p.next(r)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		c := execute.Command{Op: execute.OpRun, Command: r.command,
			Run: &execute.Run{Slice: run.Slice, RecvSlice: run.RecvSlice, Receivers: run.Receivers}}
		text, err := c.Query()
		if err == nil {
			tag, err = p.command(r, text, run.Slice)
		}
		if err != nil {
			return err
		}
		p.tags[run.Slice] = tag
		r.sent(run.Slice)
	}
	if !p.open {
		return nil
	}
	c := execute.Command{Op: execute.OpClose}
	text, err := c.Query()
	if err == nil {
		_, err = p.command(r, text, 0)
	}
	return err
}

// next is the next slice to run; more is false when there is none. Meanwhile the idle
// executor is looked at: what it had sent last may have gone with it, which those who
// wait for it cannot know.
func (p *runPart) next(r *Running) (run Run, more bool, err error) {
	look := time.NewTicker(r.g.d.p.IdleLook)
	defer look.Stop()
	for {
		select {
		case run, more = <-p.queue:
			return run, more, nil
		case <-r.ctx.Done():
			return run, false, nil
		case <-look.C:
			if !p.m.alive() {
				return run, false, p.m.gone()
			}
		}
	}
}

func (r *Running) sent(slice int16) {
	if s := r.sending[slice]; s.left.Add(-1) == 0 {
		close(s.done)
	}
}

// Sent is closed when all segments have run an open slice to the end; what they
// have sent may be under way still.
func (r *Running) Sent(slice int16) <-chan struct{} { return r.sending[slice].done }

// command sends one command and reads its answer. The row of an open command
// is announced to Open as it comes.
func (p *runPart) command(r *Running, text string, slice int16) (string, error) {
	mrr := p.m.conn.Exec(context.Background(), text)
	var tag pgconn.CommandTag
	for mrr.NextResult() {
		rr := mrr.ResultReader()
		for rr.NextRow() {
			r.opened <- struct{}{}
		}
		tag, _ = rr.Close()
	}
	err := mrr.Close()
	p.m.noteStatus()
	if err != nil {
		return "", p.m.fail(err, slice, "")
	}
	return tag.String(), nil
}

// Senders returns the executors that run a slice, in the order of their content
// ids: the senders of its motion.
func (r *Running) Senders(slice int16) []motion.Peer {
	var peers []motion.Peer
	for _, p := range r.parts {
		if slices.Contains(p.slices, slice) {
			peers = append(peers, p.m.peer)
		}
	}
	return peers
}

// Run starts an open slice, and before it those it reads, on their segments and
// returns at once. An executor runs one slice after the other, in the order of
// the calls; a slice can be run only once.
func (r *Running) Run(run Run) error {
	if r.ended {
		return newError("XX000", "the statement is finished", nil)
	}
	if r.started[run.Slice] {
		return newError("XX000", fmt.Sprintf("slice %d has been run already", run.Slice), nil)
	}
	r.started[run.Slice] = true
	for i := range r.slices {
		if in := r.slices[i].Input; in != nil && in.To == run.Slice {
			if err := r.Run(Run{Slice: r.slices[i].Index, RecvSlice: in.To}); err != nil {
				return err
			}
		}
	}
	found := false
	for _, p := range r.parts {
		if slices.Contains(p.slices, run.Slice) {
			found = true
			select {
			case p.queue <- run:
			default:
				return newError("XX000", fmt.Sprintf("slice %d has been run already", run.Slice), nil)
			}
		}
	}
	if !found {
		return newError("XX000", fmt.Sprintf("there is no slice %d to run", run.Slice), nil)
	}
	if run.Receive != nil {
		return run.Receive(r.ctx, r.Senders(run.Slice))
	}
	return nil
}

// Context ends, with the cause, as soon as an executor fails, the statement is
// cancelled, or Finish has returned. Receivers of the motions should use it.
func (r *Running) Context() context.Context { return r.ctx }

// Failed is closed when Context ends.
func (r *Running) Failed() <-chan struct{} { return r.ctx.Done() }

// Err is the most telling failure so far, nil while there is none.
func (r *Running) Err() error {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	if r.o.err == nil && (r.o.user || r.o.ctx.Err() != nil) {
		return canceled(r.o.ctx)
	}
	return r.o.err
}

// Fail ends the statement on all segments because of err, a failure of a motion
// that its receiver has found. Finish must still be called; its error is err
// unless an executor's says more.
func (r *Running) Fail(err error) { r.o.fail(err) }

// Cancel cancels the statement on all segments. Finish must still be called.
func (r *Running) Cancel() { r.o.cancel() }

// Finish waits until all executors have done what they were asked to, closes
// the slices and returns the statement's error. The receivers of the motions
// must have been closed or aborted before, or the executors may still be
// sending. The end of ctx cancels what is still running.
func (r *Running) Finish(ctx context.Context) error {
	if r.ended {
		return r.endErr
	}
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, r.o.cancel)()
	}
	return r.end()
}

func (r *Running) end() error {
	r.ended = true
	for _, p := range r.parts {
		close(p.queue)
	}
	r.waitParts()
	r.endErr = r.o.end()
	r.stop(context.Canceled)
	r.noteReaders(false)
	r.g.leave(r.o.ctx, r.readers())
	r.g.busy.Store(false)
	return r.endErr
}

// waitParts waits until all parts have ended. Meanwhile those that have are looked at: a
// sender may wait for the acknowledgement of one that is gone.
func (r *Running) waitParts() {
	look := time.NewTicker(r.g.d.p.IdleLook)
	defer look.Stop()
	var ended []int
	for len(ended) < r.begun {
		select {
		case i := <-r.over:
			ended = append(ended, i)
		case <-look.C:
			for _, i := range ended {
				if m := r.parts[i].m; m.conn != nil && !m.alive() {
					r.o.fail(m.gone())
				}
			}
		}
	}
}

// readers are those of the statement.
func (r *Running) readers() (ms []*member) {
	for _, p := range r.parts {
		if p.m.reader != 0 {
			ms = append(ms, p.m)
		}
	}
	return ms
}

// Rows is the number of rows that all executors have sent, but for those they
// have sent each other. Valid after Finish.
func (r *Running) Rows() int64 {
	var n int64
	for _, p := range r.parts {
		for index, t := range p.tags {
			if r.slice(index).Input == nil {
				n += pgconn.NewCommandTag(t).RowsAffected()
			}
		}
	}
	return n
}

// Tags are the outcomes of a slice that was run, in the order of the content ids
// of its segments. Valid after Finish.
func (r *Running) Tags(slice int16) []pgconn.CommandTag {
	var tags []pgconn.CommandTag
	for _, p := range r.parts {
		if t, ok := p.tags[slice]; ok {
			tags = append(tags, pgconn.NewCommandTag(t))
		}
	}
	return tags
}
