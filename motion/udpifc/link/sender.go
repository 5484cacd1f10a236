package link

import (
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// Packet is a data packet of a Sender, from Queue until Output.Release.
type Packet struct {
	// Buf is the datagram: room for a header, then chunks. The Sender does not
	// look at it.
	Buf []byte
	// EOS says that the stream ends with it.
	EOS bool
	// Seq is its number, from 1; set when it is sent first.
	Seq uint32
	// Tries is how often it was sent again.
	Tries int

	sent    time.Duration // first
	timer   timer
	settled bool // acknowledged or given up
	own     bool // made by the Sender; takes no buffer
}

// Output is what a Sender does to the world. Its methods must not call the
// Sender.
type Output interface {
	// Send sends p on a connection, for the first time or again.
	Send(conn int, p *Packet)
	// Query asks the receiver for an ack. last is the number of the last
	// packet sent.
	Query(conn int, last uint32)
	// Release says that p is needed no more.
	Release(conn int, p *Packet)
	// Warn says, at most once, that p was sent again for the
	// MinRetries-th time.
	Warn(conn int, p *Packet)
}

// Timeout is why a Sender gives up.
type Timeout struct {
	Conn int
	// Seq and Retries are those of the packet that was not acknowledged;
	// Retries is 0 when the receiver was only asked for an ack.
	Seq     uint32
	Retries int
	// After is for how long nothing came.
	After time.Duration
}

// Sender is the sending end of a motion.
type Sender struct {
	p     Params
	out   Output
	conns []outgoing

	timers timers
	looked time.Duration // when timers were last looked at
	extra  int           // buffers taken beyond the first of each connection
	open   int           // connections that are not done

	// Of loss mode, in packets.
	cwnd, ssthresh float64
	shared         int    // unacknowledged beyond the first of each connection
	gap            uint32 // what the last report of disorder said
	gaps           int    // how many in a row said so
	warned         bool
}

// outgoing is one connection of a Sender.
type outgoing struct {
	queue    []*Packet // not sent yet
	unacked  []*Packet // sent, in order; settled ones may be in between
	live     int       // of unacked, not settled
	taken    int       // buffers
	sent     uint32    // number of the last packet sent
	consumed uint32    // last packet the receiver has said it has consumed
	credit   int
	started  bool // a packet has been acknowledged
	met      bool // the receiver has said something
	stopped  bool
	ending   bool // the last packet has been queued
	done     bool // and acknowledged

	srtt, dev time.Duration
	heard     time.Duration // when the last ack came, or the motion began
	backoff   int           // in capacityPauses
	probing   bool
	since     time.Duration // while probing: no ack since
	probed    time.Duration
	timer     timer
}

// NewSender makes a Sender of n connections. p must have been checked.
func NewSender(now time.Duration, p Params, n int, out Output) *Sender {
	p = p.WithDefaults()
	s := &Sender{p: p, out: out, conns: make([]outgoing, n), open: n}
	s.cwnd, s.ssthresh = float64(n), float64(n*p.SndQueueDepth)
	for i := range s.conns {
		c := &s.conns[i]
		c.credit, c.srtt = p.QueueDepth, p.DefaultRTT
		c.timer.conn = i
		c.heard = now
		s.arm(now, c)
	}
	return s
}

// Take takes a buffer for a packet of a connection, which Queue or Return is
// called for later. It returns false when there is none: acks bring them back.
// A connection without any always gets one.
func (s *Sender) Take(conn int) bool {
	c := &s.conns[conn]
	switch {
	case c.taken == 0:
	case s.p.Capacity:
		if c.taken >= s.p.SndQueueDepth {
			return false
		}
	case s.extra >= len(s.conns)*(s.p.SndQueueDepth-1):
		return false
	}
	if c.taken > 0 {
		s.extra++
	}
	c.taken++
	return true
}

// Return gives back a buffer that was not queued.
func (s *Sender) Return(conn int) {
	c := &s.conns[conn]
	c.taken--
	if c.taken > 0 {
		s.extra--
	}
}

// Queue hands over a packet of a connection that has neither ended nor been
// stopped. A buffer must have been taken for it.
func (s *Sender) Queue(now time.Duration, conn int, p *Packet) {
	c := &s.conns[conn]
	c.queue = append(c.queue, p)
	c.ending = c.ending || p.EOS
	s.pump(now, conn)
}

// End ends a stream with a packet of its own, unless it has ended.
func (s *Sender) End(now time.Duration, conn int) {
	c := &s.conns[conn]
	if c.ending {
		return
	}
	c.ending = true
	buf := icwire.AppendChunk(make([]byte, icwire.UDPHeaderLen, icwire.UDPHeaderLen+icwire.ChunkHeaderLen), icwire.ChunkEndOfStream, nil)
	c.queue = append(c.queue, &Packet{Buf: buf, EOS: true, own: true})
	s.pump(now, conn)
}

// Idle says whether nothing of a connection waits to be sent or acknowledged.
func (s *Sender) Idle(conn int) bool {
	c := &s.conns[conn]
	return c.live == 0 && len(c.queue) == 0
}

// Stopped says whether a receiver has asked to stop.
func (s *Sender) Stopped(conn int) bool { return s.conns[conn].stopped }

// Ending says whether a stream has ended as far as its user is concerned.
func (s *Sender) Ending(conn int) bool { return s.conns[conn].ending }

// Done says whether a stream has ended and all of it was acknowledged.
func (s *Sender) Done(conn int) bool { return s.conns[conn].done }

// Open is how many streams are not done.
func (s *Sender) Open() int { return s.open }

// minCwnd is what loss mode never goes below: one packet for each connection.
func (s *Sender) minCwnd() float64 { return float64(len(s.conns)) }

// pump sends what may be sent on a connection.
func (s *Sender) pump(now time.Duration, conn int) {
	c := &s.conns[conn]
	for len(c.queue) > 0 && s.may(c) {
		p := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.sent++
		c.credit--
		p.Seq, p.sent = c.sent, now
		p.timer.conn, p.timer.packet = conn, p
		c.unacked = append(c.unacked, p)
		if c.live++; c.live > 1 {
			s.shared++
		}
		if !s.p.Capacity {
			s.timers.set(&p.timer, s.expiry(now, c, p))
		}
		s.out.Send(conn, p)
	}
	s.arm(now, c)
}

// may says whether the first packet in the queue may be sent now.
func (s *Sender) may(c *outgoing) bool {
	switch {
	case c.stopped: // only the end is left, which needs nobody's leave
		return true
	case c.credit <= 0:
		return false
	case c.live == 0:
		return true
	case !c.started: // the first packet sets the connection up
		return false
	}
	return s.p.Capacity || float64(s.shared) < s.cwnd-s.minCwnd()
}

// settle takes a packet off the account. acked is false when it is given up.
func (s *Sender) settle(now time.Duration, conn int, p *Packet, acked bool) {
	c := &s.conns[conn]
	p.settled = true
	s.timers.clear(&p.timer)
	if c.live--; c.live > 0 {
		s.shared--
	}
	if acked {
		c.backoff = 0
		if p.Tries == 0 {
			c.sample(now - p.sent)
		}
		if s.cwnd < s.ssthresh {
			s.cwnd++
		} else {
			s.cwnd += 1 / s.cwnd
		}
		s.cwnd = min(s.cwnd, float64(len(s.conns)*s.p.SndQueueDepth))
	}
	s.release(conn, p)
}

func (s *Sender) release(conn int, p *Packet) {
	if !p.own {
		s.Return(conn)
	}
	s.out.Release(conn, p)
}

// trim forgets settled packets at the front, and finds out whether the stream
// is done.
func (s *Sender) trim(c *outgoing) {
	n := 0
	for n < len(c.unacked) && c.unacked[n].settled {
		c.unacked[n] = nil
		n++
	}
	c.unacked = c.unacked[n:]
	if c.ending && !c.done && c.live == 0 && len(c.queue) == 0 {
		c.done = true
		s.open--
	}
}

// sample takes a measured round trip into account.
func (c *outgoing) sample(rtt time.Duration) {
	diff := rtt - c.srtt
	c.srtt = min(max(c.srtt+diff/8, minRTT), maxRTT)
	c.dev = min(max(c.dev-c.dev/4+diff.Abs()/4, minRTT), maxRTT)
}

// expiry is when p is sent again if nothing comes, in loss mode.
func (s *Sender) expiry(now time.Duration, c *outgoing, p *Packet) time.Duration {
	rto := min(max((c.srtt+4*c.dev)<<min(p.Tries, maxShift), s.p.MinRTO), maxRTO)
	period := s.p.TimerPeriod
	return (now + rto + period - 1) / period * period
}
