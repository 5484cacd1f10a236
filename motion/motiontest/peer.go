package motiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// deadExecutor: an executor that goes away as a whole ends the motions of the
// others with it, at whichever end it was.
func deadExecutor(e *env) {
	n := e.nodes(3)
	_, r := e.open(id(), n[:1], n[1:2])
	s, _ := e.open(id(), n[2:], n[:1])
	e.fill(s[0], 0)
	receive := e.blocked("Receive", func() error { _, _, err := r[0].Receive(e.ctx); return err })
	send := e.blocked("Send", func() error { return sendUntil(e.ctx, s[0], 0) })
	e.soon("Close", func() {
		if err := n[0].Close(); err != nil {
			e.Error(err)
		}
	})
	e.prematurely("Receive from an executor that has gone", e.released("Receive", receive))
	e.interconnectError(e.released("Send to an executor that has gone", send))
	s[0].Abort()
	r[0].Abort()
}

// deadInTuple: a sender that dies in the middle of a tuple of many chunks. The
// part that has come is no tuple.
func deadInTuple(e *env) {
	s, r := e.pair()
	if err := s.Send(e.ctx, 0, tuple(nil, 0, 0, 0, 100)); err != nil {
		e.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(e.ctx)
	// More than all there is room for on the way to one that does not read.
	c := e.blocked("Send", func() error { return s.Send(ctx, 0, make([]byte, 128<<20)) })
	cancel(errCause)
	if err := e.released("Send", c); !errors.Is(err, errCause) {
		e.Errorf("Send: %v", err)
	}
	s.Abort()
	whole := 0
	for {
		got, _, err := r.Receive(e.ctx)
		if err != nil {
			e.prematurely("Receive", err)
			break
		}
		if err := check(got, 0, 0, whole, 100); err != nil || whole > 0 {
			e.Fatalf("a tuple that was not sent: %v", err)
		}
		whole++
	}
	r.Abort()
}

// cancelBroadcast: Broadcast, and Close after it, end with their context though
// one of the receivers is full.
func cancelBroadcast(e *env) {
	n := e.nodes(3)
	s, r := e.open(id(), n[:1], n[1:])
	read := make(chan error, 1)
	go func() { // the other receiver takes everything
		for {
			if _, _, err := r[0].Receive(e.ctx); err != nil {
				read <- err
				return
			}
		}
	}()
	e.fill(s[0], 1)
	ctx, cancel := context.WithCancelCause(e.ctx)
	c := e.blocked("Broadcast", func() error {
		for {
			if err := s[0].Broadcast(ctx, make([]byte, 1000)); err != nil {
				return err
			}
		}
	})
	cancel(errCause)
	if err := e.released("Broadcast", c); !errors.Is(err, errCause) {
		e.Errorf("Broadcast: %v", err)
	}
	if err := s[0].Close(ctx); !errors.Is(err, errCause) {
		e.Errorf("Close: %v", err)
	}
	e.interconnectError(e.released("the other receiver", read))
	r[0].Abort()
	r[1].Abort()
}

// slowReceivers read at different speeds; each gets all of what is broadcast
// and all that is its own.
func slowReceivers(e *env) {
	n := e.nodes(5)
	s, r := e.open(id(), n[:2], n[2:])
	const rows, size = 300, 3000
	var fs []func() error
	for i := range s {
		fs = append(fs, func() error {
			var buf []byte
			for seq := range rows {
				buf = tuple(buf, i, 0, seq, size)
				if err := s[i].Broadcast(e.ctx, buf); err != nil {
					return fmt.Errorf("sender %d: %w", i, err)
				}
				if err := s[i].Send(e.ctx, seq%3, buf); err != nil {
					return fmt.Errorf("sender %d: %w", i, err)
				}
			}
			return s[i].Close(e.ctx)
		})
	}
	for i := range r {
		fs = append(fs, func() error {
			var seen [2]int // of those sent to all
			var again [2]bool
			for k := 0; ; k++ {
				if k%100 == 0 {
					time.Sleep(time.Duration(i) * 10 * time.Millisecond) // how slow it is
				}
				got, from, err := r[i].Receive(e.ctx)
				if err == io.EOF {
					break
				}
				if err != nil {
					return fmt.Errorf("receiver %d: %w", i, err)
				}
				seq := seen[from]
				if again[from] = !again[from] && seq > 0 && (seq-1)%3 == i; again[from] {
					seq--
				} else {
					seen[from]++
				}
				if err := check(got, from, 0, seq, size); err != nil {
					return fmt.Errorf("receiver %d: %w", i, err)
				}
			}
			if seen != [2]int{rows, rows} {
				return fmt.Errorf("receiver %d: %v tuples, want %d each", i, seen, rows)
			}
			return r[i].Close(e.ctx)
		})
	}
	e.do(fs...)
}

// opposite motions between the same executors run at the same time, each full
// before the other is read.
func opposite(e *env) {
	n := e.nodes(2)
	s0, r1 := e.open(id(), n[:1], n[1:])
	s1, r0 := e.open(id(), n[1:], n[:1])
	const rows, size = 3000, 2000
	send := func(s motion.Sender) func() error {
		return func() error {
			for seq := range rows {
				if err := s.Send(e.ctx, 0, tuple(nil, 0, 0, seq, size)); err != nil {
					return err
				}
			}
			return s.Close(e.ctx)
		}
	}
	receive := func(r motion.Receiver, then func()) func() error {
		return func() error {
			for seq := range rows {
				got, _, err := r.Receive(e.ctx)
				if err == nil {
					err = check(got, 0, 0, seq, size)
				}
				if err != nil {
					return err
				}
			}
			if _, _, err := r.Receive(e.ctx); err != io.EOF {
				return fmt.Errorf("after the last tuple: %v", err)
			}
			then()
			return r.Close(e.ctx)
		}
	}
	first := make(chan struct{})
	e.do(send(s0[0]), send(s1[0]), receive(r1[0], func() { close(first) }), func() error {
		select {
		case <-first: // all of the one before any of the other
		case <-e.ctx.Done():
			return context.Cause(e.ctx)
		}
		return receive(r0[0], func() {})()
	})
}
