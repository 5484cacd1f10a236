package link

import (
	"slices"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// Arrive takes a packet from the receiver of a connection. What is impossible
// or says nothing new is ignored.
func (s *Sender) Arrive(now time.Duration, conn int, h *icwire.UDPHeader, body []byte) {
	c := &s.conns[conn]
	s.looked = now
	switch {
	case c.done || h.Flags&icwire.UDPNak != 0:
		return
	case h.Flags&icwire.UDPDisorder != 0:
		missing, err := icwire.Missing(nil, body)
		if err != nil || h.Seq > c.sent || h.Extra > c.sent {
			return
		}
		c.hear(now)
		c.started = true
		s.settleUpTo(now, conn, h.Extra)
		s.disorder(now, conn, h.Seq, h.Extra, missing)
	case h.Flags&icwire.UDPDuplicate != 0:
		if h.Seq > c.sent || h.Extra > c.sent {
			return
		}
		c.hear(now)
		c.started = true
		s.settleUpTo(now, conn, h.Extra)
		for _, p := range c.unacked {
			if p.Seq == h.Seq && !p.settled {
				s.settle(now, conn, p, true)
			}
		}
	case h.Flags&icwire.UDPAck != 0:
		if h.Seq > c.sent || h.Extra > h.Seq {
			return
		}
		c.hear(now)
		c.started = c.started || h.Seq > 0
		if h.Extra > c.consumed {
			c.credit += int(h.Extra - c.consumed)
			c.consumed = h.Extra
		}
		s.settleUpTo(now, conn, h.Seq)
		if h.Flags&icwire.UDPStop != 0 {
			s.stop(now, conn)
		}
	default:
		return
	}
	s.trim(c)
	s.pump(now, conn)
}

func (c *outgoing) hear(now time.Duration) {
	c.met = true
	c.heard, c.since = now, now
}

func (s *Sender) settleUpTo(now time.Duration, conn int, seq uint32) {
	c := &s.conns[conn]
	for _, p := range c.unacked {
		if p.Seq > seq {
			break
		}
		if !p.settled {
			s.settle(now, conn, p, true)
		}
	}
}

// disorder takes a report that packet seq has come though some before it are
// missing. Only the third in a row of the same gap counts; the count is not
// kept by connection, as it is not in Greenplum.
func (s *Sender) disorder(now time.Duration, conn int, seq, extra uint32, missing []uint32) {
	if extra != s.gap || s.gaps == 0 {
		s.gap, s.gaps = extra, 0
	}
	if s.gaps++; s.gaps != reports {
		return
	}
	// Beyond the last number in a full list more may be missing.
	known := seq
	if len(missing) == icwire.MaxMissing {
		known = missing[len(missing)-1]
	}
	c := &s.conns[conn]
	for _, p := range c.unacked {
		switch {
		case p.settled:
		case slices.Contains(missing, p.Seq):
			s.resend(now, conn, p)
		case p.Seq <= known || p.Seq == seq:
			s.settle(now, conn, p, true)
		}
	}
	s.ssthresh = max(s.cwnd/2, s.minCwnd())
	s.cwnd = s.ssthresh
}

// stop obeys the receiver's wish: what is under way is given up and the stream
// ends.
func (s *Sender) stop(now time.Duration, conn int) {
	c := &s.conns[conn]
	if c.stopped {
		return
	}
	c.stopped = true
	for _, p := range c.unacked {
		if !p.settled && !p.EOS {
			s.settle(now, conn, p, false)
		}
	}
	queue := c.queue
	c.queue = nil
	for _, p := range queue {
		if p.EOS {
			c.queue = append(c.queue, p)
		} else {
			s.release(conn, p)
		}
	}
	s.End(now, conn)
}

// Abort gives up everything, as if it had been acknowledged.
func (s *Sender) Abort() {
	for i := range s.conns {
		c := &s.conns[i]
		for _, p := range c.unacked {
			if !p.settled {
				s.settle(0, i, p, false)
			}
		}
		for _, p := range c.queue {
			s.release(i, p)
		}
		c.unacked, c.queue = nil, nil
		c.ending, c.done = true, true
		s.timers.clear(&c.timer)
	}
	s.open = 0
}
