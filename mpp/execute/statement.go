package execute

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// statement is the motions between segments that the open slices of a command
// have. All are set up at once when the slices are opened, as Greenplum does;
// then the slices run one after the other on the executor's one connection to
// PostgreSQL, those whose rows others read first. What comes in waits in queues,
// so no sender ever waits for a slice that has not begun, and a slice sees what
// its transaction has written, for there is only one.
type statement struct {
	q       *session
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	senders map[int16]*outgoing
	inputs  []*incoming
	slices  int // that are open
	left    int // of these, that have not run to the end; the pump's

	mu  sync.Mutex
	err error // the first failure of a motion
}

// errUnused ends motions of slices that were opened and closed again.
var errUnused = &motion.Error{Code: errCanceled.Code, Message: "the slices are not run"}

// outgoing is the sending end of a slice's motion.
type outgoing struct {
	run    *Run
	ready  chan struct{} // closed when sender or err is there
	sender motion.Sender
	err    error
	ended  bool // closed, or about to be
}

// incoming is the receiving end of a motion, and the rows it has brought.
type incoming struct {
	Input
	into  int16         // the slice that reads it
	ready chan struct{} // closed when senders can come, or never will
	queue *rowsource.Queue
	// unwanted says that nobody will read what has not come yet.
	unwanted atomic.Bool

	begun   bool  // the slice that reads it has been run; of statement.mu, as what follows
	failure error // of the motion, before that
}

func (c *Command) hasInputs() bool {
	for i := range c.Slices {
		if len(c.Slices[i].Inputs) > 0 {
			return true
		}
	}
	return false
}

func (c *Command) hasMotions() bool {
	for i := range c.Slices {
		if c.Slices[i].Out != nil {
			return true
		}
	}
	return c.hasInputs()
}

// openMotions begins to set up the motions of the slices to open.
func (q *session) openMotions(c *Command) error {
	if !c.hasMotions() {
		return nil
	}
	if q.icErr != nil {
		return q.icErr
	}
	if c.hasInputs() && q.srv.rows == nil {
		return &motion.Error{Code: "0A000", Message: "this instance has no row source for motions between segments"}
	}
	st := &statement{q: q, senders: map[int16]*outgoing{}, slices: len(c.Slices), left: len(c.Slices)}
	st.ctx, st.cancel = context.WithCancelCause(q.ctx)
	for i := range c.Slices {
		s := &c.Slices[i]
		for _, in := range s.Inputs {
			st.receive(&incoming{Input: in, into: s.Index, ready: make(chan struct{}), queue: rowsource.NewQueue(q.srv.queues)}, c.Command)
		}
		if s.Out != nil {
			o := &outgoing{run: s.Out, ready: make(chan struct{})}
			st.senders[s.Index] = o
			st.wg.Go(func() {
				defer close(o.ready)
				if o.sender, o.err = q.ic.Send(st.ctx, q.motionID(c.Command, o.run), SendingEnd(q.self()), o.run.Receivers); o.err != nil {
					st.fail(o.err)
				}
			})
		}
	}
	q.stmt.Store(st)
	return nil
}

func (q *session) motionID(command uint32, r *Run) motion.ID {
	return motion.ID{Session: q.sessionID, Command: command, SendSlice: r.Slice, RecvSlice: r.RecvSlice}
}

// self is the executor as an end of a motion.
func (q *session) self() motion.Peer {
	return motion.Peer{Content: q.srv.cfg.Content, Dbid: q.srv.cfg.Dbid, Pid: q.pid, Addr: q.ic.Addr()}
}

// receive starts the receiving of one input, which PostgreSQL can ask for from
// now on.
func (st *statement) receive(in *incoming, command uint32) {
	if in.Again {
		in.queue.Keep()
	}
	st.inputs = append(st.inputs, in)
	st.q.srv.rows.Add(in.Token, rowsource.Source{
		Columns: in.Columns, Styles: func() map[string]string { return in.Styles }, Queue: in.queue,
	})
	id := motion.ID{Session: st.q.sessionID, Command: command, SendSlice: in.Slice, RecvSlice: in.into}
	st.wg.Go(func() {
		// A reader must not wait for what will not come.
		stop := context.AfterFunc(st.ctx, func() { in.queue.Fail(context.Cause(st.ctx)) })
		defer stop()
		if err := st.fill(in, id); err != nil {
			in.queue.Fail(err)
			st.inputFails(in, err)
		}
	})
}

// inputFails notes the failure of an input. As long as the slice that reads it has not
// been run that is none of the statement's: neither it nor the slice that sends may be
// run at all, and who has nothing else to do with the statement ends first.
func (st *statement) inputFails(in *incoming, err error) {
	st.mu.Lock()
	in.failure = err
	begun := in.begun
	st.mu.Unlock()
	if begun {
		st.fail(err)
	}
}

// begin notes that a slice is run.
func (st *statement) begin(slice int16) {
	for _, in := range st.inputs {
		if in.into != slice {
			continue
		}
		st.mu.Lock()
		in.begun = true
		err := in.failure
		st.mu.Unlock()
		if err != nil {
			st.fail(err)
		}
	}
}

// fill receives an input to its end.
func (st *statement) fill(in *incoming, id motion.ID) error {
	rcv, err := st.q.ic.Receive(st.ctx, id, st.q.self(), in.Senders)
	close(in.ready)
	if err != nil {
		return err
	}
	for {
		row, _, err := rcv.Receive(st.ctx)
		if err == io.EOF {
			break
		}
		if err == nil && in.unwanted.Load() {
			rcv.Stop()
			break
		}
		if err == nil {
			err = in.queue.Add(row)
		}
		if err != nil {
			rcv.Abort()
			return err
		}
	}
	in.queue.End()
	return rcv.Close(st.ctx)
}

// listening waits until senders may begin: what is sent before its receiver is
// there can be lost without anybody's noticing.
func (st *statement) listening(ctx context.Context) error {
	for _, in := range st.inputs {
		select {
		case <-in.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// send runs the job's slice into its motion. Its end is waited for when the
// statement ends: the next slice need not wait for receivers far away.
func (st *statement) send(j *job) (string, error) {
	o := st.senders[j.cmd.Run.Slice]
	select {
	case <-o.ready:
	case <-j.ctx.Done():
		return "", j.abandon(context.Cause(j.ctx))
	}
	if o.err != nil {
		return "", j.abandon(o.err)
	}
	if o.ended {
		return "", j.abandon(&motion.Error{Code: "08P01", Message: "a slice is run twice"})
	}
	tag, err := j.copyRows(o.sender, o.run)
	if err != nil {
		return "", err
	}
	o.ended = true
	st.wg.Go(func() {
		if err := o.sender.Close(st.ctx); err != nil && !errors.Is(err, motion.ErrStopped) {
			st.fail(err)
		}
	})
	return tag, nil
}

// fail ends the statement for a failure of a motion, and stops PostgreSQL, who
// may be at work on what is in vain.
func (st *statement) fail(err error) {
	st.mu.Lock()
	first := st.err == nil && st.ctx.Err() == nil
	if first || st.err != nil && consequence(st.err) && !consequence(err) {
		// When the executor sends to itself, that end may have been the first
		// to notice that the other one has failed.
		st.err = err
	}
	st.mu.Unlock()
	if !first {
		return
	}
	st.cancel(err)
	if j := st.q.job.Load(); j != nil && j.cmd.Op != OpClose {
		st.q.cancelPG(st.q.ctx)
	}
}

// consequence says whether err is most often the consequence of another: a
// cancellation, or a connection that has broken for no known reason.
func consequence(err error) bool {
	var me *motion.Error
	return errors.As(err, &me) && (me.Code == errCanceled.Code || me.Code == motion.CodeInterconnect && motion.Bare(me.Message))
}

// failed is why a motion has failed of itself, nil if none has.
func (st *statement) failed() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

// endStatement ends the motions of the open slices, in order when why is nil,
// and returns the failure of one of them. What nobody has read is not waited
// for. When no slice has run their senders are given up, for the others' will not
// run either, and that is no failure.
func (q *session) endStatement(why error) error {
	st := q.stmt.Load()
	if st == nil {
		return nil
	}
	for _, in := range st.inputs {
		in.unwanted.Store(true)
	}
	unused := why == nil && st.left == st.slices
	if unused {
		why = errUnused
	}
	if why != nil {
		st.cancel(why)
	}
	st.wg.Wait()
	for _, o := range st.senders {
		if o.sender != nil && !o.ended {
			o.sender.Abort() // its slice has not run to the end
		}
	}
	for _, in := range st.inputs {
		q.srv.rows.Remove(in.Token)
		in.queue.Close()
	}
	st.cancel(nil)
	q.stmt.Store(nil)
	if unused {
		return nil
	}
	return st.failed()
}
