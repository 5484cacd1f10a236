package udpifc

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// sender is a motion.Sender.
type sender struct {
	ic     *Interconnect
	sock   packetConn
	tuning Tuning
	conns  []outConn
	wake   chan struct{} // 1: something has changed for the user's goroutine
	done   chan struct{} // closed when the motion has ended, whatever the way

	mu     sync.Mutex
	link   *link.Sender
	failed error
	broken error // of a datagram just sent: fails the motion
	over   bool  // done is closed
	timer  *time.Timer
	alarm  time.Duration // when the timer is going to fire; 0: never

	// The lookout for a paused producer.
	lookout *time.Timer
	looking bool
	seen    uint64 // tuples handed over at the last look
	tuples  uint64 // handed over so far
	delay   time.Duration

	closed bool // of the user's goroutine
	result error
}

// outConn is one connection of a sender.
type outConn struct {
	peer motion.Peer
	to   netip.AddrPort
	hdr  icwire.UDPHeader
	cur  *link.Packet  // being filled; nil for none
	held time.Duration // for how long it has been, roughly
	due  bool          // send it as soon as nothing else is under way
}

var _ motion.Sender = (*sender)(nil)

func newSender(ic *Interconnect, sock packetConn, id motion.ID, self motion.Peer, receivers []motion.Peer, addrs []netip.AddrPort) (motion.Sender, error) {
	s := &sender{
		ic: ic, sock: sock, tuning: *ic.tuning.Load(), conns: make([]outConn, len(receivers)),
		wake: make(chan struct{}, 1), done: make(chan struct{}), delay: pauseFirst,
	}
	s.link = link.NewSender(ic.now(), s.tuning.Params, len(receivers), output{s})
	for _, f := range []struct {
		t **time.Timer
		f func()
	}{{&s.timer, s.tick}, {&s.lookout, s.look}} {
		*f.t = time.AfterFunc(time.Hour, f.f)
		(*f.t).Stop()
	}

	if err := s.enter(id, self, receivers, addrs); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.settle()
	return s, nil
}

// enter puts the motion on the interconnect's lists.
func (s *sender) enter(id motion.ID, self motion.Peer, receivers []motion.Peer, addrs []netip.AddrPort) error {
	ic := s.ic
	ic.mu.Lock()
	defer ic.mu.Unlock()
	if err := ic.enter(s); err != nil {
		return err
	}
	u, ok := ic.uses.get(id)
	if ok {
		u++
	}
	ic.uses.put(id, u)
	var port int32
	if ic.in != nil {
		port = int32(ic.in.port())
	}
	for i, p := range receivers {
		s.conns[i] = outConn{peer: p, to: addrs[i], hdr: icwire.UDPHeader{
			UDPKey: connKey(id, self, p, u), MotionNode: int32(id.SendSlice),
			SrcPort: port, DstPort: int32(addrs[i].Port()),
		}}
		ic.senders[s.conns[i].hdr.UDPKey] = outRef{s, i}
	}
	return nil
}

// leave takes the motion off the interconnect's lists.
func (s *sender) leave() {
	s.ic.mu.Lock()
	defer s.ic.mu.Unlock()
	delete(s.ic.motions, s)
	for i := range s.conns {
		delete(s.ic.senders, s.conns[i].hdr.UDPKey)
	}
}

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
	return p
}

// queue hands the packet being filled to the link.
func (s *sender) queue(to int) {
	c := &s.conns[to]
	if p := c.cur; p != nil {
		c.cur = nil
		s.link.Queue(s.ic.now(), to, p)
	}
}

// wait waits until something has changed.
func (s *sender) wait(ctx context.Context) error {
	select {
	case <-s.wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.done:
		return s.err()
	}
}

func (s *sender) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Flush implements motion.Sender. It does not wait for slow receivers: what
// they have no room for follows when they have.
func (s *sender) Flush(ctx context.Context) error {
	s.mu.Lock()
	if !s.over {
		for i := range s.conns {
			s.queue(i)
		}
	}
	s.settle()
	if err := s.err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Stopped implements motion.Sender.
func (s *sender) Stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.conns {
		if !s.link.Stopped(i) {
			return false
		}
	}
	return len(s.conns) > 0
}

// Close implements motion.Sender. It waits until the receivers have
// acknowledged everything; they may not have read it yet. When it fails, the
// receivers are told. Further calls return the same.
func (s *sender) Close(ctx context.Context) error {
	if s.closed {
		return s.result
	}
	s.closed = true
	s.mu.Lock()
	if !s.over {
		now := s.ic.now()
		for i := range s.conns {
			p := s.conns[i].cur
			if p != nil && len(p.Buf)+icwire.ChunkHeaderLen <= s.ic.cfg.MaxPacket {
				p.Buf = icwire.AppendChunk(p.Buf, icwire.ChunkEndOfStream, nil)
				p.EOS = true
			}
			s.queue(i)
			s.link.End(now, i)
		}
	}
	s.settle()
	timeout := s.tuning.TransmitTimeout
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-ctx.Done():
		s.fail(context.Cause(ctx))
	case <-limit.C:
		s.mu.Lock()
		n := s.link.Open()
		s.mu.Unlock()
		s.fail(teardownTimeout(n, timeout))
	}
	<-s.done
	s.result = s.err()
	return s.result
}

// Abort implements motion.Sender.
func (s *sender) Abort() { s.fail(errAborted) }

// fail ends the motion with err, unless it has ended, and tells the receivers
// that have not got everything.
func (s *sender) fail(err error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.failed = err
	var tell []*notice
	for i := range s.conns {
		c := &s.conns[i]
		if !s.link.Done(i) {
			n := &notice{hdr: c.hdr, to: c.to, sock: s.sock}
			n.hdr.Flags = abortData
			tell = append(tell, n)
		}
		c.cur = nil
	}
	s.link.Abort()
	s.end()
	s.mu.Unlock()
	s.leave()
	s.ic.abort(tell)
}

// end is the last thing of a motion.
func (s *sender) end() {
	s.over = true
	s.timer.Stop()
	s.lookout.Stop()
	close(s.done)
}

// settle does what follows from what the link has done, and unlocks.
func (s *sender) settle() {
	broken := s.broken
	s.broken = nil
	ended := !s.over && broken == nil && s.link.Open() == 0
	if ended {
		s.end()
	} else if !s.over {
		s.arm()
	}
	s.mu.Unlock()
	switch {
	case ended:
		s.leave()
	case broken != nil:
		s.fail(broken)
	}
}

// arm sets the timer for the link. It may fire early, not late.
func (s *sender) arm() {
	next, ok := s.link.Next()
	if !ok || s.alarm != 0 && s.alarm <= next {
		return
	}
	now := s.ic.now()
	s.alarm = max(next, now, 1)
	s.timer.Reset(s.alarm - now)
}

// tick lets the link do what is due.
func (s *sender) tick() {
	s.mu.Lock()
	s.alarm = 0
	if s.over {
		s.mu.Unlock()
		return
	}
	now := s.ic.now()
	if next, ok := s.link.Next(); ok && next <= now {
		if t := s.link.Tick(now); t != nil && s.broken == nil {
			s.broken = unanswered(s.conns[t.Conn].peer, t)
		}
	}
	s.settle()
}

// arrive takes a packet from a receiver.
func (s *sender) arrive(i int, h *icwire.UDPHeader, body []byte) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	was := s.link.Stopped(i)
	s.link.Arrive(s.ic.now(), i, h, body)
	if s.link.Stopped(i) && !was {
		s.drop(i)
	}
	s.flushDue(i)
	s.settle()
	signal(s.wake)
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

// signal puts the one token into c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
