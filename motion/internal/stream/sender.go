package stream

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// Sender is a motion.Sender. It is given its connections, or makes them when
// it needs them.
type Sender struct {
	opt     Options
	life    life
	streams []*outStream

	opening   *Opening // nil when the connections were there from the start
	connected atomic.Bool
	ahead     atomic.Bool   // somebody has begun to connect before it was needed
	making    chan struct{} // holds a token while somebody makes connections
	startMu   sync.Mutex
	started   bool        // the parts of life end by themselves
	known     atomic.Bool // the receivers may have heard of the sender

	timer *time.Timer // looks for a paused producer
	armed atomic.Bool

	pauseMu sync.Mutex
	seen    uint64 // tuples handed over at the last look
	delay   time.Duration

	closed bool // of the user's goroutine
	result error
}

// Opening is how a Sender gets its connections late.
type Opening struct {
	// Connect makes all connections, in the order of the receivers.
	Connect func(ctx context.Context) ([]net.Conn, error)
	// Deliver does all there is to do for streams that are short and complete,
	// one for each receiver: no connection is left when it returns. The bytes
	// are the caller's.
	Deliver func(ctx context.Context, streams [][]byte) error
	// Abandon lets the receivers know of a sender that has failed before anybody
	// has heard of it. It must not wait.
	Abandon func()
}

var (
	_ motion.Sender = (*Sender)(nil)
	_ motion.Meter  = (*Sender)(nil)
)

// NewSender makes a sender of connections, of which conns[i] leads to
// receivers[i]. It owns them from now on.
func NewSender(g *Group, opt Options, receivers []motion.Peer, conns []net.Conn) *Sender {
	s := newSender(g, opt, receivers, nil)
	s.delay = pauseFirst
	s.start(conns)
	return s
}

// NewLateSender makes a sender that has no connections yet.
func NewLateSender(g *Group, opt Options, receivers []motion.Peer, o Opening) *Sender {
	s := newSender(g, opt, receivers, &o)
	if len(receivers) == 0 {
		s.start(nil)
	}
	return s
}

func newSender(g *Group, opt Options, receivers []motion.Peer, o *Opening) *Sender {
	s := &Sender{opt: opt, opening: o, delay: pauseUnconnected, streams: make([]*outStream, len(receivers)), making: make(chan struct{}, 1)}
	for i, p := range receivers {
		s.streams[i] = &outStream{
			s: s, peer: p, pk: newPacker(opt.maxPacket()),
			kick: make(chan struct{}, 1), room: make(chan struct{}, 1),
		}
	}
	s.timer = time.AfterFunc(time.Hour, s.look)
	s.timer.Stop()
	s.life.start(g, s.parts(), s.failed)
	return s
}

// parts is how many goroutines a sender with connections has.
func (s *Sender) parts() int { return 2 * len(s.streams) }

// claim says that whoever calls it sees to it that the parts end; false when the
// motion has failed and they have ended.
func (s *Sender) claim() bool {
	s.startMu.Lock()
	defer s.startMu.Unlock()
	if s.started {
		return false
	}
	s.started = true
	return true
}

// failed ends the parts that have not begun and never will.
func (s *Sender) failed() {
	if s.claim() {
		if s.opening != nil && !s.known.Load() {
			s.opening.Abandon()
		}
		s.endParts()
	}
}

func (s *Sender) endParts() {
	for range s.parts() {
		s.life.ended()
	}
}

// start begins to use the connections.
func (s *Sender) start(conns []net.Conn) {
	if !s.claim() {
		for _, c := range conns {
			Reset(c)
		}
		return
	}
	for i, o := range s.streams {
		o.conn = conns[i]
		s.life.hold(o.conn)
	}
	s.connected.Store(true)
	for _, o := range s.streams {
		go o.write()
		go o.listen()
	}
}

// connect makes the connections unless they are there.
func (s *Sender) connect(ctx context.Context) error {
	if s.connected.Load() {
		return nil
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case s.connected.Load():
		return nil
	case s.life.ctx.Err() != nil:
		return s.over()
	}
	both, cancel := s.bound(ctx)
	defer cancel()
	s.known.Store(true)
	conns, err := s.opening.Connect(both)
	switch {
	case err == nil:
		s.start(conns)
	case ctx.Err() != nil:
		return context.Cause(ctx) // nothing has been sent
	default:
		s.life.fail(err)
	}
	return s.life.err()
}

// lock makes others who want to make connections wait.
func (s *Sender) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.making <- struct{}{}:
		return func() { <-s.making }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.life.ctx.Done():
		return nil, s.over()
	}
}

// over is the error for what comes after the motion's end.
func (s *Sender) over() error {
	if err := s.life.err(); err != nil {
		return err
	}
	return errAborted
}

// bound is ctx until the motion ends.
func (s *Sender) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	both, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life.ctx, func() { cancel(s.life.err()) })
	return both, func() {
		stop()
		cancel(nil)
	}
}

// deliver ends a sender that has no connections, with all it was given. It is
// false when connections have been made meanwhile.
func (s *Sender) deliver(ctx context.Context) bool {
	unlock, err := s.lock(ctx)
	if err != nil {
		s.life.fail(err)
		<-s.life.done
		return true
	}
	defer unlock()
	if s.connected.Load() {
		return false
	}
	if !s.claim() {
		return true
	}
	both, cancel := s.bound(ctx)
	defer cancel()
	bufs, list := make([]*buffer, len(s.streams)), make([][]byte, len(s.streams))
	for i, o := range s.streams {
		o.mu.Lock()
		o.endLocked()
		bufs[i] = o.pk.take()
		o.mu.Unlock()
		list[i] = bufs[i].b
	}
	if err := s.opening.Deliver(both, list); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		s.life.fail(err)
	}
	for _, b := range bufs {
		b.release()
	}
	s.endParts()
	return true
}

// Send implements motion.Sender.
func (s *Sender) Send(ctx context.Context, to int, tuple []byte) error {
	if s.closed {
		return errAborted
	}
	return s.streams[to].put(ctx, tuple)
}

// Broadcast implements motion.Sender.
func (s *Sender) Broadcast(ctx context.Context, tuple []byte) error {
	if s.closed {
		return errAborted
	}
	all := true
	for _, o := range s.streams {
		switch err := o.put(ctx, tuple); err {
		case nil:
			all = false
		case motion.ErrStopped:
		default:
			return err
		}
	}
	if all && len(s.streams) > 0 {
		return motion.ErrStopped
	}
	return nil
}

// Flush implements motion.Sender. It does not wait for slow receivers: what
// they have no room for follows when they have.
func (s *Sender) Flush(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	s.push(nil)
	return s.state(ctx)
}

// push has what the streams but except hold written now.
func (s *Sender) push(except *outStream) {
	for _, o := range s.streams {
		if o != except {
			o.push()
		}
	}
}

func (s *Sender) state(ctx context.Context) error {
	if err := s.life.err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// progress is called by put now and then: when a buffer was begun or is due.
func (s *Sender) progress(ctx context.Context) error {
	if !s.armed.Load() {
		if s.connected.Load() {
			s.arm(pauseFirst)
		} else {
			s.arm(pauseUnconnected)
		}
	}
	return s.state(ctx)
}

func (s *Sender) arm(d time.Duration) {
	if s.armed.CompareAndSwap(false, true) {
		s.timer.Reset(d)
	}
}

// look pushes out what is buffered when no tuple came since the last look, and
// what has been held for long in any case.
func (s *Sender) look() {
	if s.life.ctx.Err() != nil {
		return
	}
	s.pauseMu.Lock()
	defer s.pauseMu.Unlock()
	s.armed.Store(false) // before reading: a put that comes later arms again
	var seen uint64
	for _, o := range s.streams {
		o.mu.Lock()
		seen += o.tuples
		o.mu.Unlock()
	}
	paused := seen == s.seen
	delay := s.delay
	s.seen, s.delay = seen, min(2*s.delay, pauseLast)
	again := false
	for _, o := range s.streams {
		o.mu.Lock()
		waiting := o.pk.len() > 0 && !o.flush
		o.held += delay
		due := paused || o.held >= holdLimit
		o.mu.Unlock()
		if waiting && due {
			if s.connect(s.life.ctx) != nil {
				return // the motion has failed
			}
			o.push()
		} else if waiting {
			again = true
		}
	}
	if again {
		s.arm(s.delay)
	} else {
		s.delay = pauseFirst
	}
}

// Stopped implements motion.Sender.
func (s *Sender) Stopped() bool {
	for _, o := range s.streams {
		o.mu.Lock()
		stopped := o.stopped
		o.mu.Unlock()
		if !stopped {
			return false
		}
	}
	return len(s.streams) > 0
}

// Filled implements motion.Meter.
func (s *Sender) Filled() (bytes, packets int64) {
	for _, o := range s.streams {
		o.mu.Lock()
		bytes += o.pk.taken + int64(o.pk.len())
		packets += o.pk.packets
		o.mu.Unlock()
	}
	return bytes, packets
}

// Close implements motion.Sender. When it fails, all connections are closed at
// once. Further calls return the same.
func (s *Sender) Close(ctx context.Context) error {
	if s.closed {
		return s.result
	}
	s.closed = true
	s.timer.Stop()
	if ctx.Err() != nil { // before any receiver gets an end of stream
		s.life.fail(context.Cause(ctx))
	}
	if !s.connected.Load() && s.deliver(ctx) {
		s.dropAll()
		s.result = s.life.err()
		return s.result
	}
	for _, o := range s.streams {
		o.end()
	}
	timeout := s.opt.transmitTimeout()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	select {
	case <-s.life.done:
	case <-ctx.Done():
		s.life.fail(context.Cause(ctx))
	case <-limit.C:
		n := 0
		for _, o := range s.streams {
			if o.pending() {
				n++
			}
		}
		s.life.fail(teardownTimeout(n, timeout))
	}
	<-s.life.done
	s.dropAll()
	s.result = s.life.err()
	return s.result
}

func (s *Sender) dropAll() {
	for _, o := range s.streams {
		o.mu.Lock()
		o.pk.drop()
		o.mu.Unlock()
	}
}

// Abort implements motion.Sender.
func (s *Sender) Abort() {
	s.timer.Stop()
	s.life.fail(errAborted)
}
