package motiontest

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

var errCause = errors.New("the test has cancelled")

// cancelSetup: a context that has ended opens nothing; a receiver whose
// senders never come stops waiting when told.
func cancelSetup(e *env) {
	n := e.nodes(2)
	m := id()
	ctx, cancel := context.WithCancelCause(e.ctx)
	cancel(errCause)
	e.soon("Send", func() {
		if _, err := n[0].Send(ctx, m, n[0].Peer, peers(n[1:])); !errors.Is(err, errCause) && !errors.Is(err, context.Canceled) {
			e.Errorf("Send: %v", err)
		}
	})
	e.soon("Receive", func() {
		if _, err := n[1].Receive(ctx, m, n[1].Peer, peers(n[:1])); !errors.Is(err, errCause) && !errors.Is(err, context.Canceled) {
			e.Errorf("Receive: %v", err)
		}
	})
	ctx, cancel = context.WithCancelCause(e.ctx)
	c := e.blocked("receiving from nobody", func() error {
		r, err := n[1].Receive(ctx, m, n[1].Peer, peers(n[:1]))
		if err != nil {
			return err
		}
		_, _, err = r.Receive(ctx)
		r.Abort()
		return err
	})
	cancel(errCause)
	if err := e.released("receiving from nobody", c); !errors.Is(err, errCause) && !errors.Is(err, context.Canceled) {
		e.Errorf("receiving from nobody: %v", err)
	}
}

func cancelSend(e *env) {
	for _, size := range []int{100, 100_000} {
		s, r := e.pair()
		e.fill(s, 0)
		ctx, cancel := context.WithCancelCause(e.ctx)
		c := e.blocked("Send", func() error {
			for {
				if err := s.Send(ctx, 0, make([]byte, size)); err != nil {
					return err
				}
			}
		})
		cancel(errCause)
		if err := e.released("Send", c); !errors.Is(err, errCause) {
			e.Errorf("Send: %v", err)
		}
		s.Abort()
		var err error
		for err == nil {
			_, _, err = r.Receive(e.ctx)
		}
		e.interconnectError(err)
		r.Abort()
	}
}

// cancelReceive: after a cancelled Receive the motion is as it was.
func cancelReceive(e *env) {
	s, r := e.pair()
	for _, receive := range []func(context.Context) error{
		func(ctx context.Context) error { _, _, err := r.Receive(ctx); return err },
		func(ctx context.Context) error { _, err := r.ReceiveFrom(ctx, 0); return err },
	} {
		ctx, cancel := context.WithCancelCause(e.ctx)
		c := e.blocked("Receive", func() error { return receive(ctx) })
		cancel(errCause)
		if err := e.released("Receive", c); !errors.Is(err, errCause) {
			e.Errorf("Receive: %v", err)
		}
	}
	e.do(func() error { return e.sendAll(s, 0, 1, 10) }, func() error { return e.receiveAll(r, 1, 0, 10) })
}

func cancelSenderClose(e *env) {
	s, r := e.pair()
	e.fill(s, 0)
	ctx, cancel := context.WithCancelCause(e.ctx)
	c := e.blocked("Close of a sender", func() error { return s.Close(ctx) })
	cancel(errCause)
	if err := e.released("Close of a sender", c); !errors.Is(err, errCause) {
		e.Errorf("Close: %v", err)
	}
	r.Abort()
}

// cancelReceiverClose: a receiver that closes waits for senders that have not
// come, not longer than it is told.
func cancelReceiverClose(e *env) {
	n := e.nodes(2)
	r, err := n[1].Receive(e.ctx, id(), n[1].Peer, peers(n[:1]))
	if err != nil {
		e.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(e.ctx)
	c := e.blocked("Close of a receiver", func() error { return r.Close(ctx) })
	cancel(errCause)
	if err := e.released("Close of a receiver", c); !errors.Is(err, errCause) {
		e.Errorf("Close: %v", err)
	}
}

const premature = "interconnect error: connection closed prematurely"

func (e *env) prematurely(what string, err error) {
	e.Helper()
	e.interconnectError(err)
	if err == nil || !strings.HasPrefix(err.Error(), premature) {
		e.Errorf("%s: %v, want %q", what, err, premature)
	}
}

// deadSender: what it sent does not look like all there is.
func deadSender(e *env) {
	s, r := e.pair()
	for seq := range 10 {
		if err := s.Send(e.ctx, 0, tuple(nil, 0, 0, seq, 100)); err != nil {
			e.Fatal(err)
		}
	}
	if err := s.Flush(e.ctx); err != nil {
		e.Fatal(err)
	}
	if _, _, err := r.Receive(e.ctx); err != nil {
		e.Fatal(err)
	}
	c := e.blocked("Receive", func() error {
		for {
			if _, _, err := r.Receive(e.ctx); err != nil {
				return err
			}
		}
	})
	s.Abort()
	e.prematurely("Receive", e.released("Receive", c))
	if _, _, err := r.Receive(e.ctx); err == nil || err == io.EOF {
		e.Errorf("Receive after the failure: %v", err)
	}
	e.soon("Close", func() {
		if err := r.Close(e.ctx); err == nil {
			e.Error("Close does not say that the motion has failed")
		}
	})
	if err := s.Send(e.ctx, 0, nil); err == nil {
		e.Error("Send works after Abort")
	}
}

// deadSenderOfMany: the others of the motion are told, and a receiver that
// waits for one of them does not wait in vain.
func deadSenderOfMany(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:3], n[3:])
	c := e.blocked("ReceiveFrom", func() error { _, err := r[0].ReceiveFrom(e.ctx, 0); return err })
	s[2].Abort()
	e.prematurely("ReceiveFrom another sender", e.released("ReceiveFrom", c))
	for _, s := range s[:2] {
		e.soon("a sender to a failed receiver", func() { e.interconnectError(sendUntil(e.ctx, s, 0)) })
		s.Abort()
	}
	r[0].Abort()
}

func deadReceiver(e *env) {
	s, r := e.pair()
	e.fill(s, 0)
	c := e.blocked("Send", func() error { return sendUntil(e.ctx, s, 0) })
	r.Abort()
	e.interconnectError(e.released("Send", c))
	e.soon("Close", func() { e.interconnectError(s.Close(e.ctx)) })
	if _, _, err := r.Receive(e.ctx); err == nil || err == io.EOF {
		e.Errorf("Receive after Abort: %v", err)
	}
}

// deadReceiverOfMany: the motion has failed for all.
func deadReceiverOfMany(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:1], n[1:])
	e.fill(s[0], 0)
	c := e.blocked("Send", func() error { return sendUntil(e.ctx, s[0], 0) })
	r[2].Abort()
	e.interconnectError(e.released("Send to another receiver", c))
	e.soon("Receive", func() {
		_, _, err := r[1].Receive(e.ctx)
		e.interconnectError(err)
	})
	s[0].Abort()
	r[0].Abort()
	r[1].Abort()
}

// abortUnblocks: Abort, from another goroutine, ends every wait.
func abortUnblocks(e *env) {
	for _, c := range []struct {
		what string
		wait func(motion.Sender, motion.Receiver) error
		end  func(motion.Sender, motion.Receiver)
	}{
		{"Send", func(s motion.Sender, r motion.Receiver) error { return sendUntil(e.ctx, s, 0) },
			func(s motion.Sender, r motion.Receiver) { s.Abort() }},
		{"Receive", func(s motion.Sender, r motion.Receiver) error { _, _, err := r.Receive(e.ctx); return err },
			func(s motion.Sender, r motion.Receiver) { r.Abort() }},
		{"Close", func(s motion.Sender, r motion.Receiver) error { return s.Close(e.ctx) },
			func(s motion.Sender, r motion.Receiver) { s.Abort() }},
	} {
		s, r := e.pair()
		if c.what == "Close" {
			e.fill(s, 0) // or the receiver closes though nobody reads
		}
		w := e.blocked(c.what, func() error { return c.wait(s, r) })
		c.end(s, r)
		if err := e.released(c.what, w); err == nil || err == io.EOF {
			e.Errorf("%s after Abort: %v", c.what, err)
		}
		s.Abort()
		r.Abort()
		s.Abort()
		r.Abort()
	}
}

// teardownTimeout: a receiver that never reads does not keep a sender longer
// than gp_interconnect_transmit_timeout.
func teardownTimeout(e *env) {
	n := e.factory(e.T, 2, Options{TransmitTimeout: time.Second})
	s, r := e.open(id(), n[:1], n[1:])
	e.fill(s[0], 0)
	var err error
	e.soon("Close", func() { err = s[0].Close(e.ctx) })
	e.interconnectError(err)
	transport := "TCP"
	if n[0].Type() == "udpifc" {
		transport = "UDP"
	}
	if want := "timed out waiting for response from motion receiver during " + transport + " interconnect teardown"; err == nil ||
		!strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "1 connection(s) with pending response after 1 seconds") {
		e.Errorf("Close: %v", err)
	}
	r[0].Abort()
}

// interconnectClose ends what is open and refuses what is new.
func interconnectClose(e *env) {
	n := e.nodes(3)
	s, _ := e.open(id(), n[:1], n[1:2])
	_, r := e.open(id(), n[1:2], n[:1])
	send := e.blocked("Send", func() error { return sendUntil(e.ctx, s[0], 0) })
	receive := e.blocked("Receive", func() error { _, _, err := r[0].Receive(e.ctx); return err })
	e.soon("Close", func() {
		if err := n[0].Close(); err != nil {
			e.Error(err)
		}
	})
	e.interconnectError(e.released("Send", send))
	e.interconnectError(e.released("Receive", receive))
	e.soon("Send and Receive after Close", func() {
		if s, err := n[0].Send(e.ctx, id(), n[0].Peer, peers(n[2:])); err == nil {
			e.interconnectError(sendUntil(e.ctx, s, 0))
		}
		if r, err := n[0].Receive(e.ctx, id(), n[0].Peer, peers(n[2:])); err == nil {
			_, _, err = r.Receive(e.ctx)
			e.interconnectError(err)
		}
	})
}

// useAfterClose neither panics nor hangs.
func useAfterClose(e *env) {
	s, r := e.pair()
	e.do(func() error { return e.sendAll(s, 0, 1, 5) }, func() error { return e.receiveAll(r, 1, 0, 5) })
	e.soon("everything after Close", func() {
		if err := s.Send(e.ctx, 0, nil); err == nil {
			e.Error("Send works after Close")
		}
		if err := s.Broadcast(e.ctx, nil); err == nil {
			e.Error("Broadcast works after Close")
		}
		if err := s.Close(e.ctx); err != nil {
			e.Errorf("second Close of the sender: %v", err)
		}
		if _, _, err := r.Receive(e.ctx); err != io.EOF {
			e.Errorf("Receive: %v", err)
		}
		if _, err := r.ReceiveFrom(e.ctx, 0); err != io.EOF {
			e.Errorf("ReceiveFrom: %v", err)
		}
		r.Stop()
		if err := r.Close(e.ctx); err != nil {
			e.Errorf("second Close of the receiver: %v", err)
		}
		s.Abort()
		r.Abort()
	})
}
