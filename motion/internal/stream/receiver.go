package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/trunkline-db/trunkline/motion"
)

// Receiver is a motion.Receiver. Its connections may be attached after it was
// made.
type Receiver struct {
	opt     Options
	life    life
	streams []*inStream
	wake    chan struct{} // 1: something has changed for a waiting consumer

	mu       sync.Mutex
	ready    ring // streams with blocks in their queues
	waiting  bool // the consumer waits for wake
	stopped  bool
	stopping chan struct{} // closed with stopped

	stopMu sync.Mutex
	onStop func() // see OnStop

	// The consumer's.
	cur    *inStream // whose block Receive takes from
	open   int       // streams whose end has not been reached
	mixed  bool      // ReceiveFrom may have left a block half used
	closed bool
	result error
}

var _ motion.Receiver = (*Receiver)(nil)

// NewReceiver makes a receiver of as many streams as there are senders. id is
// for messages.
func NewReceiver(g *Group, opt Options, id motion.ID, senders []motion.Peer) *Receiver {
	n := len(senders)
	r := &Receiver{
		opt: opt, open: n, streams: make([]*inStream, n), ready: newRing(n),
		wake: make(chan struct{}, 1), stopping: make(chan struct{}),
	}
	for i, p := range senders {
		r.streams[i] = &inStream{r: r, index: i, peer: p, room: make(chan struct{}, 1)}
		r.streams[i].src, r.streams[i].mn = int(p.Content), int(id.SendSlice)
	}
	r.life.start(g, n, r.failed)
	return r
}

// failed gives up the connections that have not come.
func (r *Receiver) failed() {
	r.mu.Lock()
	var never int
	for _, in := range r.streams {
		if in.conn == nil && !in.gone {
			in.gone = true
			never++
		}
	}
	r.mu.Unlock()
	for range never {
		r.life.ended()
	}
}

// Attach gives the receiver the connection from senders[i]. It owns it from
// now on, and closes it at once when the motion has failed.
func (r *Receiver) Attach(i int, conn net.Conn) {
	in := r.streams[i]
	r.mu.Lock()
	if in.gone || in.conn != nil || !r.life.hold(conn) {
		r.mu.Unlock()
		Reset(conn)
		return
	}
	in.conn = conn
	stopped := r.stopped
	r.mu.Unlock()
	if stopped {
		in.stop(conn)
	}
	go in.read(conn)
}

// Take gives the receiver the whole stream from senders[i], for which there is no
// connection then: the next n bytes of src, at most 64 kB. The error is src's;
// what is wrong with the stream fails the motion.
func (r *Receiver) Take(i, n int, src io.Reader) error {
	buf := getBuffer(n, false)
	buf.b = buf.b[:n]
	if _, err := io.ReadFull(src, buf.b); err != nil {
		buf.release()
		return err
	}
	r.without(i, func(in *inStream) {
		whole, _, eos, err := frame(buf.b, 0)
		switch {
		case err != nil:
			in.lost(parseError(err, n-whole))
		case eos && whole < n:
			in.lost(parseError(errors.New("received data after the end of the stream"), n-whole))
		case !eos:
			in.lost(io.EOF)
		case in.push(buf):
			return
		}
		buf.release()
	})
	return nil
}

// Lose says that the stream from senders[i], for which there is no connection yet,
// has been lost for that reason.
func (r *Receiver) Lose(i int, err error) { r.without(i, func(in *inStream) { in.lost(err) }) }

// without ends a stream that has no connection with what f does.
func (r *Receiver) without(i int, f func(in *inStream)) {
	in := r.streams[i]
	r.mu.Lock()
	over := in.gone || in.conn != nil
	in.gone = in.gone || !over
	r.mu.Unlock()
	if !over {
		f(in)
		r.life.ended()
	}
}

// Hold lets the motion close conn, which is none of a stream, when it fails, and
// until Release. False means that it has failed, and conn is closed.
func (r *Receiver) Hold(conn net.Conn) bool { return r.life.hold(conn) }

// Release takes conn back. False means that the motion has failed.
func (r *Receiver) Release(conn net.Conn) bool { return r.life.release(conn) }

// Context ends with the motion.
func (r *Receiver) Context() context.Context { return r.life.ctx }

// Fail ends the motion with err, unless it has ended.
func (r *Receiver) Fail(err error) { r.life.fail(err) }

// Done is closed when the motion has ended, whatever the way.
func (r *Receiver) Done() <-chan struct{} { return r.life.done }

// Receive implements motion.Receiver. When it fails because of one stream,
// blocks of others may not have been returned yet.
func (r *Receiver) Receive(ctx context.Context) (tuple []byte, from int, err error) {
	for {
		if in := r.cur; in != nil {
			tuple, ok, err := in.next()
			if ok {
				return tuple, in.index, nil
			}
			if err != nil {
				r.life.fail(err)
				return nil, 0, err
			}
			r.cur = nil
			r.finish(in)
		}
		if r.mixed && r.gather() {
			continue
		}
		if err := r.over(ctx); err != nil {
			return nil, 0, err
		}
		r.mu.Lock()
		for r.cur == nil {
			in := r.ready.pop()
			if in == nil {
				break
			}
			in.ready = false
			if in.load() {
				r.cur = in
				if in.n > 0 {
					in.ready = true
					r.ready.push(in)
				}
			}
		}
		r.waiting = r.cur == nil
		r.mu.Unlock()
		if r.cur == nil {
			if err := r.want(ctx); err != nil {
				return nil, 0, err
			}
		}
	}
}

// ReceiveFrom implements motion.Receiver.
func (r *Receiver) ReceiveFrom(ctx context.Context, sender int) ([]byte, error) {
	in := r.streams[sender]
	r.mixed = true
	for {
		tuple, ok, err := in.next()
		if ok {
			return tuple, nil
		}
		if err != nil {
			r.life.fail(err)
			return nil, err
		}
		r.finish(in)
		if in.done {
			return nil, io.EOF
		}
		r.mu.Lock()
		loaded := in.load()
		r.waiting = !loaded
		stopped := r.stopped
		r.mu.Unlock()
		if loaded {
			continue
		}
		if stopped || r.closed {
			return nil, io.EOF
		}
		if err := r.life.err(); err != nil {
			return nil, err
		}
		if err := r.want(ctx); err != nil {
			return nil, err
		}
	}
}

// gather makes a stream current whose block ReceiveFrom has left half used.
func (r *Receiver) gather() bool {
	for _, in := range r.streams {
		if in.blk != nil {
			r.cur = in
			return true
		}
	}
	r.mixed = false
	return false
}

// finish counts the stream if its end has been reached.
func (r *Receiver) finish(in *inStream) {
	if in.eos && !in.done {
		in.done = true
		r.open--
	}
}

// over is why Receive cannot go on: io.EOF, a failure, the end of ctx, or nil.
func (r *Receiver) over(ctx context.Context) error {
	if r.open == 0 {
		return io.EOF
	}
	if err := r.life.err(); err != nil {
		return err
	}
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	if stopped {
		return io.EOF
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Stop implements motion.Receiver. Receive and ReceiveFrom return io.EOF from
// then on.
func (r *Receiver) Stop() {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	r.stopped = true
	close(r.stopping)
	var running []*inStream
	for _, in := range r.streams {
		if in.conn != nil && !in.gone {
			running = append(running, in)
		}
	}
	r.mu.Unlock()
	for _, in := range running {
		in.stop(in.conn)
	}
	r.stopMu.Lock()
	defer r.stopMu.Unlock()
	if r.onStop != nil {
		r.onStop()
	}
}

// OnStop has f tell the senders whose streams are not attached when the motion is
// stopped, at once if it has been; f does not wait. With nil that is over when OnStop
// returns.
func (r *Receiver) OnStop(f func()) {
	r.stopMu.Lock()
	defer r.stopMu.Unlock()
	r.onStop = f
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	if f != nil && stopped {
		f()
	}
}

// Close implements motion.Receiver. Streams that have not ended are stopped
// first. It returns an error when the motion failed before it was stopped, or
// when ctx ended before the senders did; their connections are then closed at
// once.
func (r *Receiver) Close(ctx context.Context) error {
	if r.closed {
		return r.result
	}
	r.closed = true
	if r.open > 0 {
		r.Stop()
	}
	select {
	case <-r.life.done:
	case <-ctx.Done():
		r.life.fail(context.Cause(ctx))
		<-r.life.done
	}
	for _, in := range r.streams {
		in.drop()
		for in.n > 0 {
			in.load()
			in.drop()
		}
	}
	r.result = r.life.err()
	return r.result
}

// Failure is why the motion has failed, nil if it has not. While the reason of a
// lost connection is asked for it waits for the answer. It may be called from
// any goroutine.
func (r *Receiver) Failure() error {
	if r.life.asking() {
		<-r.life.ctx.Done() // soon: explainLimit
	}
	return r.life.err()
}

// Abort implements motion.Receiver.
func (r *Receiver) Abort() { r.life.fail(errAborted) }

// ring is a queue of streams in which each is at most once.
type ring struct {
	in       []*inStream
	first, n int
}

func newRing(size int) ring { return ring{in: make([]*inStream, size)} }

func (q *ring) push(in *inStream) {
	q.in[(q.first+q.n)%len(q.in)] = in
	q.n++
}

func (q *ring) pop() *inStream {
	if q.n == 0 {
		return nil
	}
	in := q.in[q.first]
	q.in[q.first] = nil
	q.first = (q.first + 1) % len(q.in)
	q.n--
	return in
}
