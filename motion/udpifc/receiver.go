package udpifc

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// receiver is a motion.Receiver.
type receiver struct {
	ic    *Interconnect
	sock  packetConn
	conns []*inConn
	wake  chan struct{} // 1: something has changed for a waiting consumer
	done  chan struct{} // closed when all senders have ended, or the motion has failed

	mu      sync.Mutex
	ready   []*inConn // with packets to hand out, each once
	left    int       // senders that have not ended
	stopped bool
	failed  error
	over    bool // done is closed
	freed   bool // closed in order: can fail no more
	timer   *time.Timer

	// The consumer's.
	cur    *inConn // whose packet Receive takes from
	open   int     // streams whose end has not been reached
	mixed  bool    // ReceiveFrom may have left a packet half used
	closed bool
	result error
}

// inConn is one connection of a receiver.
type inConn struct {
	r     *receiver
	index int
	peer  motion.Peer
	key   icwire.UDPKey // of use 0

	// Of the interconnect's mutex.
	bound bool // the sender has come
	use   use

	complete atomic.Bool // the sender has ended

	// Of the receiver's mutex.
	link   *link.Receiver
	hdr    icwire.UDPHeader // of acks
	from   netip.AddrPort   // where they go; invalid before the first packet
	queued bool             // in ready
	gone   bool             // counted out of left
	lost   bool             // the sender has failed

	// The consumer's.
	unpacker
	finished bool // its end has been counted
}

var _ motion.Receiver = (*receiver)(nil)

func newReceiver(ic *Interconnect, sock packetConn, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	n := len(senders)
	depth := ic.tuning.Load().QueueDepth
	r := &receiver{
		ic: ic, sock: sock, conns: make([]*inConn, n), left: n, open: n,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	r.timer = time.AfterFunc(time.Hour, r.tick)
	r.timer.Stop()
	for i, p := range senders {
		c := &inConn{r: r, index: i, peer: p, key: connKey(id, p, self, 0), link: link.NewReceiver(depth)}
		c.src, c.mn = int(p.Content), int(id.SendSlice)
		r.conns[i] = c
	}
	ic.mu.Lock()
	replay, err := ic.receivers.expect(r.conns)
	if err == nil {
		if err = ic.enter(r); err != nil {
			ic.receivers.release(r.conns, true)
		}
	}
	ic.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		r.mu.Lock()
		r.end()
		r.mu.Unlock()
	}
	for i, e := range replay {
		if e == nil {
			continue
		}
		if e.aborted {
			r.senderGone(r.conns[i])
		}
		for _, packet := range e.packets {
			if h, body, err := icwire.DecodeUDP(packet); err == nil {
				r.arrive(r.conns[i], &h, body, e.from)
			}
		}
	}
	return r, nil
}

// arrive takes a packet from a sender.
func (r *receiver) arrive(c *inConn, h *icwire.UDPHeader, body []byte, from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return // what follows will be answered with abort
	}
	c.hdr, c.from = *h, from
	reply, ready := c.link.Arrive(h, body, r.ic.keep)
	if ready {
		r.push(c)
	}
	if c.link.Ended() {
		r.depart(c) // before the ack, on which the next use of the key may come
	}
	r.reply(c, reply)
}

// keep copies a packet's body into a buffer.
func (ic *Interconnect) keep(body []byte) []byte {
	b := *ic.bufs.Get().(*[]byte)
	if len(b) < len(body) {
		return append([]byte(nil), body...)
	}
	return b[:copy(b, body)]
}

// recycle takes back a buffer of keep.
func (ic *Interconnect) recycle(b []byte) {
	if cap(b) == ic.cfg.MaxPacket {
		b = b[:cap(b)]
		ic.bufs.Put(&b)
	}
}

// push tells the consumer that a connection has something.
func (r *receiver) push(c *inConn) {
	if !c.queued {
		c.queued = true
		r.ready = append(r.ready, c)
	}
	signal(r.wake)
}

// depart counts a connection whose sender has ended.
func (r *receiver) depart(c *inConn) {
	if c.gone || r.over {
		return
	}
	c.gone = true
	c.complete.Store(true)
	if r.left--; r.left == 0 {
		r.end()
	}
}

func (r *receiver) end() {
	r.over = true
	r.timer.Stop()
	close(r.done)
}

// reply sends an ack, or something like it.
func (r *receiver) reply(c *inConn, p link.Reply) {
	if p.Flags == 0 || !c.from.IsValid() {
		return
	}
	switch p.Flags {
	case icwire.UDPDisorder:
		r.ic.stats.disorder.Add(1)
	case icwire.UDPDuplicate:
		r.ic.stats.duplicates.Add(1)
	}
	if r.ic.dropAck() {
		return
	}
	h := c.hdr
	h.Flags, h.Seq, h.Extra = p.Flags|icwire.UDPToSender, p.Seq, p.Extra
	var room [icwire.UDPHeaderLen + 4*icwire.MaxMissing]byte
	b := icwire.AppendMissing(room[:icwire.UDPHeaderLen], p.Missing)
	h.Put(b, r.ic.crc())
	r.ic.send(r.sock, b, c.from) //nolint:errcheck // as if it were lost
}

// senderGone is called when a sender has failed. That is of no interest when
// the receiver has enough.
func (r *receiver) senderGone(c *inConn) {
	r.mu.Lock()
	c.lost = true
	if r.stopped {
		r.depart(c)
	}
	gone := c.gone
	r.mu.Unlock()
	if !gone {
		r.fail(closedPrematurely(c.peer))
	}
}

// fail ends the motion with err, unless it has ended, and tells the senders
// that have not.
func (r *receiver) fail(err error) {
	r.mu.Lock()
	if r.failed != nil || r.freed {
		r.mu.Unlock()
		return
	}
	r.failed = err
	var tell []*notice
	for _, c := range r.conns {
		if !c.gone && !c.lost && c.from.IsValid() {
			n := &notice{hdr: c.hdr, to: c.from, sock: r.sock}
			n.hdr.Flags, n.hdr.Seq, n.hdr.Extra = abortReply, 0, 0
			tell = append(tell, n)
		}
		c.link.Stop(0, r.ic.recycle)
	}
	if !r.over {
		r.end()
	}
	r.mu.Unlock()
	r.leave(true)
	r.ic.abort(tell)
}

// leave takes the motion off the interconnect's lists.
func (r *receiver) leave(failed bool) {
	r.ic.mu.Lock()
	defer r.ic.mu.Unlock()
	delete(r.ic.motions, r)
	r.ic.receivers.release(r.conns, failed)
}

// tick repeats stop.
func (r *receiver) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	now := r.ic.now()
	for _, c := range r.conns {
		r.reply(c, c.link.Tick(now))
	}
	r.arm(now)
}

// arm sets the timer for the next stop.
func (r *receiver) arm(now time.Duration) {
	var next time.Duration
	for _, c := range r.conns {
		if t, ok := c.link.NextStop(); ok && (next == 0 || t < next) {
			next = t
		}
	}
	if next != 0 {
		r.timer.Reset(max(next-now, 0))
	}
}

// Stop implements motion.Receiver. Receive and ReceiveFrom return io.EOF from
// then on.
func (r *receiver) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.over {
		r.stopped = true
		return
	}
	r.stopped = true
	now := r.ic.now()
	for _, c := range r.conns {
		if !c.link.Ended() {
			r.reply(c, c.link.Stop(now, r.ic.recycle))
		}
		if c.link.Ended() {
			r.depart(c)
		}
	}
	if !r.over {
		r.arm(now)
	}
}

// Close implements motion.Receiver. Streams that have not ended are stopped
// first. It returns an error when the motion failed before it was stopped, or
// when ctx ended before the senders did; they are then told at once.
func (r *receiver) Close(ctx context.Context) error {
	if r.closed {
		return r.result
	}
	r.closed = true
	if r.open > 0 {
		r.Stop()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		r.fail(context.Cause(ctx))
		<-r.done
	}
	r.mu.Lock()
	r.result = r.failed
	r.freed = true
	for _, c := range r.conns {
		c.link.Stop(0, r.ic.recycle)
	}
	r.mu.Unlock()
	r.leave(r.result != nil)
	return r.result
}

// Abort implements motion.Receiver. The key is free when it returns, also when
// somebody else has just found that the motion failed.
func (r *receiver) Abort() {
	r.fail(errAborted)
	r.leave(true)
}
