package motiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// dependencyOrder is the deadlock case: an executor reads motion B to its end
// while motion A, from the same instances, is full.
func dependencyOrder(e *env) {
	n := e.nodes(3)
	a, b := id(), id()
	b.Command, b.SendSlice = a.Command, 3
	sa, ra := e.open(a, n[:2], n[2:])
	sb, rb := e.open(b, n[:2], n[2:])
	const rows = 4000
	size := 2000
	send := func(s motion.Sender, from int) error {
		var buf []byte
		for seq := range rows {
			buf = tuple(buf, from, 0, seq, size)
			if err := s.Send(e.ctx, 0, buf); err != nil {
				return err
			}
		}
		return s.Close(e.ctx)
	}
	receive := func(r motion.Receiver) error {
		seen := make([]int, 2)
		for {
			got, from, err := r.Receive(e.ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := check(got, from, 0, seen[from], size); err != nil {
				return err
			}
			seen[from]++
		}
		if seen[0] != rows || seen[1] != rows {
			return fmt.Errorf("%v tuples, want %d each", seen, rows)
		}
		return r.Close(e.ctx)
	}
	e.do(
		func() error { return send(sa[0], 0) },
		func() error { return send(sa[1], 1) },
		func() error {
			time.Sleep(200 * time.Millisecond) // until A is full
			return send(sb[0], 0)
		},
		func() error { return send(sb[1], 1) },
		func() error {
			if err := receive(rb[0]); err != nil {
				return fmt.Errorf("motion B: %w", err)
			}
			if err := receive(ra[0]); err != nil {
				return fmt.Errorf("motion A: %w", err)
			}
			return nil
		},
	)
}

// slowReceiver: what is under way to a receiver that does not read is bounded,
// and nothing of it is lost.
func slowReceiver(e *env) {
	s, r := e.pair()
	in := e.fill(s, 0)
	if in > 32<<20 {
		e.Errorf("%d bytes went in before the sender had to wait", in)
	}
	e.do(func() error { return s.Close(e.ctx) }, func() error {
		out := 0
		for {
			got, _, err := r.Receive(e.ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			out += len(got)
		}
		if out != in {
			return fmt.Errorf("%d bytes in, %d out", in, out)
		}
		return r.Close(e.ctx)
	})
}

// slowAmongFast: tuples for one receiver arrive while another one is full,
// even those that would have been kept for a fuller packet.
func slowAmongFast(e *env) {
	n := e.nodes(3)
	s, r := e.open(id(), n[:1], n[1:])
	e.fill(s[0], 0)
	if err := s[0].Send(e.ctx, 1, tuple(nil, 0, 1, 0, 30)); err != nil {
		e.Fatal(err)
	}
	full := e.blocked("Send to a full receiver", func() error {
		for range 100 {
			if err := s[0].Send(e.ctx, 0, make([]byte, 4000)); err != nil {
				return err
			}
		}
		return nil
	})
	e.soon("the tuple for the other receiver", func() {
		got, _, err := r[1].Receive(e.ctx)
		if err == nil {
			err = check(got, 0, 1, 0, 30)
		}
		if err != nil {
			e.Error(err)
		}
	})
	// How much must be received before the sender goes on is the kernel's secret:
	// a window that is almost full is not announced again for a few tuples.
	e.do(func() error {
		if err := <-full; err != nil {
			return err
		}
		return s[0].Close(e.ctx)
	}, func() error {
		for {
			if _, _, err := r[0].Receive(e.ctx); err == io.EOF {
				return r[0].Close(e.ctx)
			} else if err != nil {
				return err
			}
		}
	}, func() error {
		return r[1].Close(e.ctx)
	})
}

// sendUntil sends until an error comes.
func sendUntil(ctx context.Context, s motion.Sender, to int) error {
	buf := make([]byte, 1000)
	for {
		if err := s.Send(ctx, to, buf); err != nil {
			return err
		}
	}
}

// earlyStop: the receiver has enough, as LIMIT has.
func earlyStop(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:3], n[3:])
	var fs []func() error
	for i := range s {
		fs = append(fs, func() error {
			if err := sendUntil(e.ctx, s[i], 0); err != motion.ErrStopped {
				return fmt.Errorf("sender %d: %v", i, err)
			}
			if !s[i].Stopped() {
				return fmt.Errorf("sender %d does not say that it is stopped", i)
			}
			if err := s[i].Broadcast(e.ctx, []byte("x")); err != motion.ErrStopped {
				return fmt.Errorf("sender %d: Broadcast: %v", i, err)
			}
			return s[i].Close(e.ctx)
		})
	}
	fs = append(fs, func() error {
		for range 10 {
			if _, _, err := r[0].Receive(e.ctx); err != nil {
				return err
			}
		}
		r[0].Stop()
		r[0].Stop()
		if _, _, err := r[0].Receive(e.ctx); err != nil && err != io.EOF {
			return fmt.Errorf("after Stop: %v", err)
		}
		return r[0].Close(e.ctx)
	})
	e.do(fs...)
}

// stopOfOne: the other receivers go on, also with what is broadcast.
func stopOfOne(e *env) {
	n := e.nodes(3)
	s, r := e.open(id(), n[:1], n[1:])
	e.do(func() error {
		if err := sendUntil(e.ctx, s[0], 0); err != motion.ErrStopped {
			return fmt.Errorf("sending to the stopped one: %v", err)
		}
		if s[0].Stopped() {
			return errors.New("the sender says that all receivers have stopped")
		}
		for seq := range 100 {
			if err := s[0].Broadcast(e.ctx, tuple(nil, 0, 1, seq, sizeOf(0, 1, seq))); err != nil {
				return fmt.Errorf("broadcasting: %w", err)
			}
		}
		return s[0].Close(e.ctx)
	}, func() error {
		if _, _, err := r[0].Receive(e.ctx); err != nil {
			return err
		}
		r[0].Stop()
		return r[0].Close(e.ctx)
	}, func() error {
		seen := 0
		for {
			got, _, err := r[1].Receive(e.ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := check(got, 0, 1, seen, sizeOf(0, 1, seen)); err != nil {
				return err
			}
			seen++
		}
		if seen != 100 {
			return fmt.Errorf("%d of 100 tuples", seen)
		}
		return r[1].Close(e.ctx)
	})
}

// stopIdle: a receiver that stops can close though the sender's producer is
// busy with something else and does not look.
func stopIdle(e *env) {
	s, r := e.pair()
	e.fill(s, 0)
	r.Stop()
	e.soon("closing a stopped receiver", func() {
		if err := r.Close(e.ctx); err != nil {
			e.Error(err)
		}
	})
	e.soon("closing the sender", func() {
		if err := s.Close(e.ctx); err != nil {
			e.Error(err)
		}
	})
	if !s.Stopped() {
		e.Error("the sender does not say that it is stopped")
	}
}

// closeIsStop: so it is for a receiver that closes without having stopped.
func closeIsStop(e *env) {
	s, r := e.pair()
	e.do(func() error {
		if err := sendUntil(e.ctx, s, 0); err != motion.ErrStopped {
			return err
		}
		return s.Close(e.ctx)
	}, func() error {
		if _, _, err := r.Receive(e.ctx); err != nil {
			return err
		}
		return r.Close(e.ctx)
	})
}
