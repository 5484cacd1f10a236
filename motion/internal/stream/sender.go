package stream

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// Sender is a motion.Sender over connections that are set up already.
type Sender struct {
	opt     Options
	life    life
	streams []*outStream

	timer *time.Timer // looks for a paused producer
	armed atomic.Bool

	pauseMu sync.Mutex
	seen    uint64 // tuples handed over at the last look
	delay   time.Duration

	closed bool // of the user's goroutine
	result error
}

var _ motion.Sender = (*Sender)(nil)

// NewSender makes a sender of connections, of which conns[i] leads to
// receivers[i]. It owns them from now on.
func NewSender(g *Group, opt Options, receivers []motion.Peer, conns []net.Conn) *Sender {
	s := &Sender{opt: opt, delay: pauseFirst, streams: make([]*outStream, len(conns))}
	for i, c := range conns {
		s.streams[i] = &outStream{
			s: s, peer: receivers[i], conn: c, pk: newPacker(opt.maxPacket()),
			kick: make(chan struct{}, 1), room: make(chan struct{}, 1),
		}
	}
	s.timer = time.AfterFunc(time.Hour, s.look)
	s.timer.Stop()
	s.life.start(g, 2*len(conns), func() {})
	for _, o := range s.streams {
		s.life.hold(o.conn)
		go o.write()
		go o.listen()
	}
	return s
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
		s.arm(pauseFirst)
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
	for _, o := range s.streams {
		o.mu.Lock()
		o.pk.drop()
		o.mu.Unlock()
	}
	s.result = s.life.err()
	return s.result
}

// Abort implements motion.Sender.
func (s *Sender) Abort() {
	s.timer.Stop()
	s.life.fail(errAborted)
}
