package session

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/merge"
)

const (
	// cleanupLimit bounds how long the end of a statement may take after the
	// statement itself is over or cancelled.
	cleanupLimit = 15 * time.Second
	// reportLimit is how long a motion that has failed without a reason waits
	// for its executors to give one.
	reportLimit = 500 * time.Millisecond
	// arrivalLimit is how long a receiver waits for the next row after all
	// executors have sent theirs. No link that is still there takes so long;
	// what has not come then has been lost.
	arrivalLimit = 30 * time.Second
	// arrivalStep is how exactly that is measured.
	arrivalStep = time.Second
)

// reception is the session's end of a motion to the coordinator. Any goroutine
// may use it, but one at a time.
type reception struct {
	s     *Session
	ic    motion.Interconnect
	cmd   uint32
	slice int16
	rcv   motion.Receiver // nil until it is open
	from  int             // how many senders it has
	// enough, if not nil, ends when nobody needs more rows: the senders are stopped
	// then, and not cancelled.
	enough context.Context
}

func (s *Session) reception(cmd uint32, slice int16) (*reception, error) {
	ic, err := s.interconnect()
	return &reception{s: s, ic: ic, cmd: cmd, slice: slice}, err
}

// run tells the executors to run the slice for this end. In type proxy that is
// opened at the same time (see motion.Sender); in the others when the slices are
// open, for the time in which senders have to connect must not pass while a slice
// waits for a lock.
func (r *reception) run() dispatch.Run {
	run := dispatch.Run{Slice: r.slice, Receivers: r.s.selfPeers()}
	if r.ic.Type() == "proxy" {
		run.Receive = r.open
	}
	return run
}

func (r *reception) open(ctx context.Context, senders []motion.Peer) (err error) {
	r.from = len(senders)
	r.rcv, err = r.ic.Receive(ctx, motion.ID{Session: r.s.id, Command: r.cmd, SendSlice: r.slice}, r.s.self(), senders)
	return err
}

// abort ends it where nothing has come of the statement.
func (r *reception) abort() {
	if r.rcv != nil {
		r.rcv.Abort()
	}
}

// stop ends it when no more rows are needed. What a sender has begun it makes.
func (r *reception) stop(run *dispatch.Running) error {
	ctx, cancel := context.WithCancelCause(run.Context())
	defer cancel(nil)
	var p patience
	defer p.after(run.Sent(r.slice), func() { cancel(errNoArrival) })()
	r.rcv.Stop()
	if err := r.rcv.Close(ctx); err != nil {
		return cause(ctx, err)
	}
	return errEnough
}

// rows sinks the tuples, to the end. With an order they are merged: then it holds
// one of each sender, and a sender that it does not wait for keeps no other from
// sending, for each has a window of its own.
func (r *reception) rows(run *dispatch.Running, order *merge.Merger, sink func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(run.Context())
	defer cancel(nil)
	if r.enough != nil {
		defer context.AfterFunc(r.enough, func() { cancel(errEnough) })()
	}
	if r.rcv == nil {
		if err := r.open(ctx, run.Senders(r.slice)); err != nil {
			err = cause(ctx, err)
			run.Fail(err)
			return err
		}
	}
	var p patience
	defer p.after(run.Sent(r.slice), func() { cancel(errNoArrival) })()
	next := func() ([]byte, error) {
		row, _, err := r.rcv.Receive(ctx)
		return row, err
	}
	if order != nil {
		order.Begin(r.from, func(sender int) ([]byte, error) { return r.rcv.ReceiveFrom(ctx, sender) })
		next = order.Next
	}
	for {
		row, err := next()
		if err == io.EOF {
			break
		}
		if err != nil && context.Cause(ctx) == errEnough {
			return r.stop(run)
		}
		if err != nil {
			if f, ok := r.rcv.(interface{ Failure() error }); ok && bare(err) {
				// An executor may have noticed what has failed here, and reported
				// it, while the reason was looked for here.
				if own := f.Failure(); own != nil {
					err = betterError(own, err)
				}
			}
			await(ctx, err)
			err = cause(ctx, err) // before the others fail for our stopping
			r.rcv.Abort()
			run.Fail(err)
			return err
		}
		p.step()
		if err = sink(row); err != nil {
			if r.enough != nil && errors.Is(err, errEnough) {
				return r.stop(run)
			}
			err = cause(ctx, err)
			r.rcv.Abort()
			run.Cancel()
			return err
		}
		p.step()
	}
	closing, done := context.WithTimeout(context.WithoutCancel(r.s.ctx), cleanupLimit)
	defer done()
	return r.rcv.Close(closing)
}

var errNoArrival = &motion.Error{
	Code:    motion.CodeInterconnect,
	Message: "interconnect error: rows of the segments have been lost on their way to the coordinator",
	Detail:  "All segments have sent their rows, and for " + arrivalLimit.String() + " none has come.",
	Hint:    "Run the statement again.",
}

// patience waits for the next step only so long once everything is under way.
// Steps alternate between the waiting that counts and what comes between.
type patience struct {
	steps atomic.Int64 // odd: not waiting
}

func (p *patience) step() { p.steps.Add(1) }

// after begins when begun is closed, and calls lost when arrivalLimit has passed
// without a step while waiting. The result ends it.
func (p *patience) after(begun <-chan struct{}, lost func()) (stop func()) {
	end := make(chan struct{})
	go func() {
		select {
		case <-begun:
		case <-end:
			return
		}
		t := time.NewTicker(arrivalStep)
		defer t.Stop()
		quiet := time.Duration(0)
		for seen := p.steps.Load(); quiet < arrivalLimit; quiet += arrivalStep {
			select {
			case <-t.C:
			case <-end:
				return
			}
			if now := p.steps.Load(); now != seen || now%2 == 1 {
				seen, quiet = now, -arrivalStep
			}
		}
		lost()
	}()
	return func() { close(end) }
}

// await gives executors time to say why they have broken a motion off: that
// goes another way than the motion's own end, and their being cancelled would
// take the place of it.
func await(ctx context.Context, err error) {
	if !bare(err) {
		return
	}
	t := time.NewTimer(reportLimit)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// bare says whether err is a broken connection and no more.
func bare(err error) bool {
	pe := pgError(err)
	return pe.Code == motion.CodeInterconnect && motion.Bare(pe.Message)
}

// cause prefers what ended ctx over the error that its end brought about.
func cause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return betterError(c, err)
	}
	return err
}
