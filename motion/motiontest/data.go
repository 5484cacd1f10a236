package motiontest

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/motion"
)

const many = 3000

// move moves n tuples for each pair of from and to.
func (e *env) move(from, to []Node, n int) {
	e.Helper()
	s, r := e.open(id(), from, to)
	var fs []func() error
	for i := range s {
		fs = append(fs, func() error { return e.sendAll(s[i], i, len(to), n) })
	}
	for i := range r {
		fs = append(fs, func() error { return e.receiveAll(r[i], len(from), i, n) })
	}
	e.do(fs...)
}

func fanIn(e *env) {
	n := e.nodes(6)
	e.move(n[:5], n[5:], many)
}

func fanOut(e *env) {
	n := e.nodes(6)
	e.move(n[:1], n[1:], many)
}

// filled: a sender knows how much its tuples have filled, sent or not yet.
func filled(e *env) {
	n := e.nodes(3)
	s, r := e.open(id(), n[:1], n[1:])
	meter, ok := s[0].(motion.Meter)
	if !ok {
		e.Fatalf("%T is no motion.Meter", s[0])
	}
	tuples, sum := int64(0), int64(0)
	check := func() {
		e.Helper()
		const overhead = 80 // of a packet and a chunk
		bytes, packets := meter.Filled()
		if bytes < sum || bytes > sum+(tuples+packets)*overhead || packets < sum/(64<<10) || packets > tuples+sum/4096 {
			e.Errorf("%d tuples with %d bytes fill %d bytes in %d packets", tuples, sum, bytes, packets)
		}
	}
	check()
	e.do(func() error {
		for i, size := range []int{100, 1, 0, 7000, 7000, 300_000} {
			b := make([]byte, size)
			if err := s[0].Send(e.ctx, i%2, b); err != nil {
				return err
			}
			tuples, sum = tuples+1, sum+int64(size)
			if err := s[0].Broadcast(e.ctx, b); err != nil {
				return err
			}
			tuples, sum = tuples+2, sum+2*int64(size)
			check()
		}
		return s[0].Close(e.ctx)
	}, func() error { return drain(e, r[0]) }, func() error { return drain(e, r[1]) })
}

// drain receives to the end.
func drain(e *env, r motion.Receiver) error {
	for {
		if _, _, err := r.Receive(e.ctx); err == io.EOF {
			return r.Close(e.ctx)
		} else if err != nil {
			return err
		}
	}
}

func allToAll(e *env) {
	n := e.nodes(8)
	e.move(n[:4], n[4:], many)
}

func broadcast(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:1], n[1:])
	fs := []func() error{func() error {
		for seq := range many {
			if err := s[0].Broadcast(e.ctx, tuple(nil, 0, 0, seq, sizeOf(0, 0, seq))); err != nil {
				return err
			}
		}
		return s[0].Close(e.ctx)
	}}
	for i := range r {
		fs = append(fs, func() error {
			for seq := range many {
				got, _, err := r[i].Receive(e.ctx)
				if err != nil {
					return err
				}
				if err := check(got, 0, 0, seq, sizeOf(0, 0, seq)); err != nil {
					return err
				}
			}
			if _, _, err := r[i].Receive(e.ctx); err != io.EOF {
				return fmt.Errorf("after the last tuple: %v", err)
			}
			return r[i].Close(e.ctx)
		})
	}
	e.do(fs...)
}

// list moves tuples of these sizes from one node to another.
func (e *env) list(n []Node, sizes []int) {
	e.Helper()
	s, r := e.open(id(), n[:1], n[1:])
	e.do(func() error {
		var buf []byte
		for seq, size := range sizes {
			buf = tuple(buf, 0, 0, seq, size)
			if err := s[0].Send(e.ctx, 0, buf); err != nil {
				return err
			}
		}
		return s[0].Close(e.ctx)
	}, func() error {
		for seq, size := range sizes {
			got, _, err := r[0].Receive(e.ctx)
			if err != nil {
				return fmt.Errorf("tuple %d of %d bytes: %w", seq, size, err)
			}
			if err := check(got, 0, 0, seq, size); err != nil {
				return err
			}
		}
		if _, _, err := r[0].Receive(e.ctx); err != io.EOF {
			return fmt.Errorf("after the last tuple: %v", err)
		}
		return r[0].Close(e.ctx)
	})
}

// around are the lengths at which a packet of max bytes fills up.
func around(max int) (out []int) {
	for _, base := range []int{max - 16, max, 2 * max, 3*max - 24} {
		for d := -20; d <= 20; d++ {
			out = append(out, base+d)
		}
	}
	return out
}

func sizes(e *env) {
	e.list(e.nodes(2), around(8192))
}

func smallPackets(e *env) {
	var all []int
	for size := range 1600 {
		all = append(all, size)
	}
	e.list(e.factory(e.T, 2, Options{MaxPacket: 512}), append(all, 100000))
}

func hugeTuples(e *env) {
	e.list(e.nodes(2), []int{1 << 20, 3, 1<<20 + 1, 5 << 20, 0, 1 << 20, 100})
}

func zeroLength(e *env) {
	e.list(e.nodes(2), make([]int, 5000))
}

func emptyStreams(e *env) {
	n := e.nodes(6)
	e.move(n[:3], n[3:], 0)
}

// noStreams is a motion without anyone at the other end.
func noStreams(e *env) {
	n := e.nodes(1)
	s, r := e.open(id(), nil, n)
	if len(s) != 0 {
		e.Fatal("senders")
	}
	e.do(func() error { return e.receiveAll(r[0], 0, 0, 0) })
	s, _ = e.open(id(), n, nil)
	e.do(func() error { return s[0].Close(e.ctx) })
}

// receiveFrom reads the senders in an order of the receiver's choice, as a
// merging motion does.
func receiveFrom(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:3], n[3:])
	fs := []func() error{func() error {
		for seq := range many {
			for _, from := range []int{2, 0, 1} {
				got, err := r[0].ReceiveFrom(e.ctx, from)
				if err != nil {
					return err
				}
				if err := check(got, from, 0, seq, sizeOf(from, 0, seq)); err != nil {
					return err
				}
			}
		}
		for from := range 3 {
			for range 2 {
				if _, err := r[0].ReceiveFrom(e.ctx, from); err != io.EOF {
					return fmt.Errorf("after the last tuple of %d: %v", from, err)
				}
			}
		}
		if _, _, err := r[0].Receive(e.ctx); err != io.EOF {
			return fmt.Errorf("after the last tuple: %v", err)
		}
		return r[0].Close(e.ctx)
	}}
	for i := range s {
		fs = append(fs, func() error { return e.sendAll(s[i], i, 1, many) })
	}
	e.do(fs...)
}

// mixedReceive uses both ways of receiving on one motion.
func mixedReceive(e *env) {
	n := e.nodes(4)
	s, r := e.open(id(), n[:3], n[3:])
	fs := []func() error{func() error {
		seen := make([]int, 3)
		for k := 0; ; k++ {
			var got []byte
			var err error
			from := k % 3
			if k/100%2 == 0 && seen[from] < many {
				got, err = r[0].ReceiveFrom(e.ctx, from)
			} else {
				got, from, err = r[0].Receive(e.ctx)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if err := check(got, from, 0, seen[from], sizeOf(from, 0, seen[from])); err != nil {
				return err
			}
			seen[from]++
		}
		if seen[0] != many || seen[1] != many || seen[2] != many {
			return fmt.Errorf("%v tuples, want %d each", seen, many)
		}
		return r[0].Close(e.ctx)
	}}
	for i := range s {
		fs = append(fs, func() error { return e.sendAll(s[i], i, 1, many) })
	}
	e.do(fs...)
}

// lonePacket: one small tuple arrives though the producer says nothing more.
func lonePacket(e *env) {
	s, r := e.pair()
	for seq := range 3 {
		if err := s.Send(e.ctx, 0, tuple(nil, 0, 0, seq, 50)); err != nil {
			e.Fatal(err)
		}
		e.soon("a lone tuple", func() {
			got, _, err := r.Receive(e.ctx)
			if err == nil {
				err = check(got, 0, 0, seq, 50)
			}
			if err != nil {
				e.Error(err)
			}
		})
	}
	e.do(func() error { return s.Close(e.ctx) }, func() error { return e.receiveAll(r, 1, 0, 0) })
}

func flush(e *env) {
	n := e.nodes(3)
	s, r := e.open(id(), n[:1], n[1:])
	for i := range 2 {
		if err := s[0].Send(e.ctx, i, tuple(nil, 0, i, 0, 50)); err != nil {
			e.Fatal(err)
		}
	}
	if err := s[0].Flush(e.ctx); err != nil {
		e.Fatal(err)
	}
	for i := range 2 {
		e.soon("a flushed tuple", func() {
			got, _, err := r[i].Receive(e.ctx)
			if err == nil {
				err = check(got, 0, i, 0, 50)
			}
			if err != nil {
				e.Error(err)
			}
		})
	}
	e.do(
		func() error { return s[0].Close(e.ctx) },
		func() error { return r[0].Close(e.ctx) },
		func() error { return r[1].Close(e.ctx) },
	)
}

// senderFirst: a whole stream may have been sent before its receiver asks.
func senderFirst(e *env) {
	n := e.nodes(2)
	m := id()
	s, err := n[0].Send(e.ctx, m, n[0].Peer, peers(n[1:]))
	if err != nil {
		e.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return e.sendAll(s, 0, 1, 20) })
	time.Sleep(50 * time.Millisecond)
	r, err := n[1].Receive(e.ctx, m, n[1].Peer, peers(n[:1]))
	if err != nil {
		e.Fatal(err)
	}
	e.do(g.Wait, func() error { return e.receiveAll(r, 1, 0, 20) })
}

func receiverFirst(e *env) {
	n := e.nodes(2)
	m := id()
	var g errgroup.Group
	g.Go(func() error {
		r, err := n[1].Receive(e.ctx, m, n[1].Peer, peers(n[:1]))
		if err != nil {
			return err
		}
		return e.receiveAll(r, 1, 0, 20)
	})
	time.Sleep(50 * time.Millisecond)
	s, err := n[0].Send(e.ctx, m, n[0].Peer, peers(n[1:]))
	if err != nil {
		e.Fatal(err)
	}
	e.do(g.Wait, func() error { return e.sendAll(s, 0, 1, 20) })
}

// sameKey: several plans under one command have motions of the same key, one
// after the other, without a pause.
func sameKey(e *env) {
	n := e.nodes(4)
	m := id()
	var fs []func() error
	const rounds = 20
	for i := range 2 {
		fs = append(fs, func() error {
			for range rounds {
				s, err := n[i].Send(e.ctx, m, n[i].Peer, peers(n[2:]))
				if err != nil {
					return err
				}
				if err := e.sendAll(s, i, 2, 50); err != nil {
					return err
				}
			}
			return nil
		}, func() error {
			for range rounds {
				r, err := n[2+i].Receive(e.ctx, m, n[2+i].Peer, peers(n[:2]))
				if err != nil {
					return err
				}
				if err := e.receiveAll(r, 2, i, 50); err != nil {
					return err
				}
			}
			return nil
		})
	}
	e.do(fs...)
}

// manyMotions run at the same time between the same executors.
func manyMotions(e *env) {
	n := e.nodes(6)
	var fs []func() error
	for range 10 {
		s, r := e.open(id(), n[:3], n[3:])
		for i := range 3 {
			fs = append(fs,
				func() error { return e.sendAll(s[i], i, 3, 300) },
				func() error { return e.receiveAll(r[i], 3, i, 300) })
		}
	}
	e.do(fs...)
}
