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
	bytes   int64  // in packets that are full
	packets int64  // begun
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
	gone bool          // the receiver has failed
}

var (
	_ motion.Sender = (*sender)(nil)
	_ motion.Meter  = (*sender)(nil)
)

// Filled implements motion.Meter.
func (s *sender) Filled() (bytes, packets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes = s.bytes
	for i := range s.conns {
		if c := s.conns[i].cur; c != nil {
			bytes += int64(len(c.Buf))
		}
	}
	return bytes, s.packets
}

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
	if ctx.Err() != nil { // before any receiver gets an end of stream
		s.fail(context.Cause(ctx))
	}
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
	for waiting := true; waiting; {
		select {
		case <-s.done:
			waiting = false
		case <-ctx.Done():
			s.fail(context.Cause(ctx))
			waiting = false
		case <-limit.C:
			s.mu.Lock()
			n, silent := s.link.Open(), s.link.Silent(s.ic.now(), timeout/2)
			s.mu.Unlock()
			if silent { // the link gives it up, and says more about it
				limit.Reset(closeAgain)
				continue
			}
			s.fail(teardownTimeout(n, timeout))
			waiting = false
		}
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
		if !c.gone && !s.link.Done(i) {
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

// receiverGone is called when a receiver has failed.
func (s *sender) receiverGone(i int) {
	s.mu.Lock()
	s.conns[i].gone = true
	s.mu.Unlock()
	s.fail(closedPrematurely(s.conns[i].peer))
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

// signal puts the one token into c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
