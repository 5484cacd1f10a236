package udpifc

import (
	"context"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// Send implements motion.Sender.
func (s *sender) Send(ctx context.Context, to int, tuple []byte) error {
	if s.closed {
		return errAborted
	}
	return s.put(ctx, to, tuple)
}

// Broadcast implements motion.Sender.
func (s *sender) Broadcast(ctx context.Context, tuple []byte) error {
	if s.closed {
		return errAborted
	}
	all := true
	for i := range s.conns {
		switch err := s.put(ctx, i, tuple); err {
		case nil:
			all = false
		case motion.ErrStopped:
		default:
			return err
		}
	}
	if all && len(s.conns) > 0 {
		return motion.ErrStopped
	}
	return nil
}

// put packs one tuple, waiting for buffers as long as ctx allows.
func (s *sender) put(ctx context.Context, to int, tuple []byte) error {
	rest := tuple
	for first := true; ; {
		s.mu.Lock()
		if err := s.failed; err != nil {
			s.mu.Unlock()
			return err
		}
		if s.link.Stopped(to) {
			s.mu.Unlock()
			return motion.ErrStopped
		}
		packets := false
		var done bool
		if fits(len(tuple), s.ic.cfg.MaxPacket) {
			done, packets = s.pack(to, tuple)
		} else {
			for len(rest) > 0 {
				c := s.fresh(to)
				if c == nil {
					break
				}
				var n int
				c.Buf, n = part(c.Buf, rest, first, s.ic.cfg.MaxPacket)
				rest, first, packets = rest[n:], false, true
			}
			done = len(rest) == 0
		}
		if done {
			s.tuples++
		}
		if !s.looking {
			s.looking, s.delay = true, pauseFirst
			s.lookout.Reset(pauseFirst)
		}
		s.settle()
		if done {
			if packets && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		}
		if err := s.wait(ctx); err != nil {
			if !first && ctx.Err() != nil {
				// The receiver would wait for the rest of this tuple.
				s.fail(err)
			}
			return err
		}
	}
}

// pack puts a tuple that fits into the packet being filled, or the next.
func (s *sender) pack(to int, tuple []byte) (done, packet bool) {
	c := s.conns[to].cur
	if c == nil || len(c.Buf)+icwire.ChunkHeaderLen+len(tuple) > s.ic.cfg.MaxPacket {
		if c, packet = s.fresh(to), true; c == nil {
			return false, false
		}
	}
	c.Buf = whole(c.Buf, tuple)
	return true, packet
}

// fresh queues the packet being filled and begins another. It returns nil when
// there is no buffer.
func (s *sender) fresh(to int) *link.Packet {
	s.queue(to)
	if !s.link.Take(to) {
		return nil
	}
	buf := s.ic.bufs.Get().(*[]byte)
	p := &link.Packet{Buf: (*buf)[:icwire.UDPHeaderLen]}
	c := &s.conns[to]
	c.cur, c.held, c.due = p, 0, false
	s.packets++
	return p
}

// queue hands the packet being filled to the link.
func (s *sender) queue(to int) {
	c := &s.conns[to]
	if p := c.cur; p != nil {
		c.cur = nil
		s.bytes += int64(len(p.Buf))
		s.link.Queue(s.ic.now(), to, p)
	}
}

// drop gives up the packet being filled.
func (s *sender) drop(i int) {
	c := &s.conns[i]
	if c.cur != nil {
		s.recycle(c.cur)
		c.cur = nil
		s.link.Return(i)
	}
}

// look sends what is not full when no tuple came since the last look, and what
// has been held for long in any case; but only once nothing of the connection
// is under way, so that small packets do not take the room of full ones.
func (s *sender) look() {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	paused := s.tuples == s.seen
	s.seen = s.tuples
	for i := range s.conns {
		c := &s.conns[i]
		if c.cur != nil {
			c.held += s.delay
			c.due = c.due || paused || c.held >= holdLimit
			s.flushDue(i)
		}
	}
	s.delay = min(2*s.delay, pauseLast)
	if s.looking = !paused; s.looking {
		s.lookout.Reset(s.delay)
	}
	s.settle()
}

// flushDue sends what look has found due.
func (s *sender) flushDue(i int) {
	if c := &s.conns[i]; c.cur != nil && c.due && s.link.Idle(i) {
		s.queue(i)
	}
}
