package motiontest

import (
	"fmt"
	"io"

	"github.com/trunkline-db/trunkline/motion"
)

// rescanStopped: a plan that is run again stops its motion early, and opens the
// next of the same key at once.
func rescanStopped(e *env) {
	n := e.nodes(4)
	m := id()
	const rounds = 10
	var fs []func() error
	for i := range 2 {
		fs = append(fs, func() error {
			for round := range rounds {
				s, err := n[i].Send(e.ctx, m, n[i].Peer, peers(n[2:]))
				if err != nil {
					return err
				}
				for seq := 0; err == nil; seq++ {
					err = s.Broadcast(e.ctx, tuple(nil, i, round, seq, 200))
				}
				if err != motion.ErrStopped {
					return fmt.Errorf("sender %d, round %d: %w", i, round, err)
				}
				if err := s.Close(e.ctx); err != nil {
					return fmt.Errorf("closing the sender %d, round %d: %w", i, round, err)
				}
			}
			return nil
		}, func() error {
			for round := range rounds {
				r, err := n[2+i].Receive(e.ctx, m, n[2+i].Peer, peers(n[:2]))
				if err != nil {
					return err
				}
				var seen [2]int
				for range 1 + 30*round {
					got, from, err := r.Receive(e.ctx)
					if err != nil {
						return fmt.Errorf("receiver %d, round %d: %w", i, round, err)
					}
					if err := check(got, from, round, seen[from], 200); err != nil {
						return err // of another round, for example
					}
					seen[from]++
				}
				if round%2 == 0 {
					r.Stop()
				}
				if err := r.Close(e.ctx); err != nil {
					return fmt.Errorf("closing the receiver %d, round %d: %w", i, round, err)
				}
			}
			return nil
		})
	}
	e.do(fs...)
}

// rescanFailed: after a motion has failed, at whichever end, the next of the
// same key is as good as new.
func rescanFailed(e *env) {
	n := e.nodes(2)
	m := id()
	for round := range 6 {
		s, r := e.open(m, n[:1], n[1:])
		if round%3 != 0 {
			if err := s[0].Send(e.ctx, 0, tuple(nil, 0, 0, 0, 100)); err != nil {
				e.Fatal(err)
			}
			if err := s[0].Flush(e.ctx); err != nil {
				e.Fatal(err)
			}
		}
		if round%3 == 2 {
			if _, _, err := r[0].Receive(e.ctx); err != nil {
				e.Fatal(err)
			}
		}
		if round%2 == 0 {
			s[0].Abort()
			if _, _, err := r[0].Receive(e.ctx); err == nil && round%3 == 1 {
				_, _, err = r[0].Receive(e.ctx)
				e.interconnectError(err)
			} else {
				e.interconnectError(err)
			}
			r[0].Abort()
		} else {
			r[0].Abort()
			e.soon("a sender to a failed receiver", func() { e.interconnectError(sendUntil(e.ctx, s[0], 0)) })
			s[0].Abort()
		}
		s, r = e.open(m, n[:1], n[1:])
		e.do(
			func() error { return e.sendAll(s[0], 0, 1, 100) },
			func() error { return e.receiveAll(r[0], 1, 0, 100) },
		)
	}
}

// someEmpty: some senders have nothing, and say so before or after the others.
func someEmpty(e *env) {
	n := e.nodes(5)
	s, r := e.open(id(), n[:4], n[4:])
	got := make(chan struct{})
	var fs []func() error
	for i := range s {
		fs = append(fs, func() error {
			if i == 3 {
				<-got // the last end of stream comes when everything else is there
			}
			if i%2 == 0 {
				return e.sendAll(s[i], i, 1, 100)
			}
			return s[i].Close(e.ctx)
		})
	}
	fs = append(fs, func() error {
		seen := make([]int, 4)
		for {
			b, from, err := r[0].Receive(e.ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := check(b, from, 0, seen[from], sizeOf(from, 0, seen[from])); err != nil {
				return err
			}
			if seen[from]++; seen[0] == 100 && seen[2] == 100 {
				close(got)
			}
		}
		if want := [4]int{100, 0, 100, 0}; [4]int(seen) != want {
			return fmt.Errorf("%v tuples, want %v", seen, want)
		}
		return r[0].Close(e.ctx)
	})
	e.do(fs...)
}
