package trunk

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/trunkline-db/trunkline/icwire"
)

// Handler takes the packets that arrive.
type Handler interface {
	// Packet takes a packet, or of a long DATA packet a part; end says that it
	// is the last part. It must not wait for anything but short locks: every
	// logical connection of the trunk would wait with it. The payload is valid
	// until Batch returns. An error closes the trunk.
	Packet(h icwire.Header, payload []byte, end bool) error
	// Batch says that all that has arrived so far has been handed over.
	Batch()
}

// ErrClosed is what Run returns after Close.
var ErrClosed = errors.New("closed")

// Trunk is one connection to one peer. Its methods may be called from any
// goroutine; none waits for the network except Run.
type Trunk struct {
	conn      *net.TCPConn // nil when it leads back to this proxy
	raw       syscall.RawConn
	dialect   icwire.Dialect
	maxPacket int

	mu      sync.Mutex
	ready   sync.Cond // the writing goroutine has something to do, or closed
	sched   scheduler
	writing bool // somebody writes, and owns the fields of out
	handed  bool // that is the writing goroutine
	closed  bool
	cause   error
	out     output

	packets [2]atomic.Uint64
	bytes   [2]atomic.Uint64
	Health
}

// Traffic counts what has passed a trunk since it began.
type Traffic struct {
	PacketsIn, PacketsOut uint64 // packets in; buffers of one or more packets out
	BytesIn, BytesOut     uint64
}

// New makes a trunk of an established connection on which the handshake is
// over. Packets longer than maxPacket bytes, header included, are not accepted.
// A nil conn makes a trunk whose packets come back to its own handler, for
// logical connections between two backends of one instance.
func New(conn *net.TCPConn, d icwire.Dialect, maxPacket int) *Trunk {
	t := &Trunk{conn: conn, dialect: d, maxPacket: maxPacket}
	t.ready.L = &t.mu
	t.sched.open = map[icwire.ID]*Stream{}
	t.out.init()
	if conn != nil {
		t.raw = tune(conn)
	}
	return t
}

// Dialect is the header dialect spoken on this trunk.
func (t *Trunk) Dialect() icwire.Dialect { return t.dialect }

// Run reads and writes until the connection ends, then releases everything and
// returns why: ErrClosed after Close, io.EOF when the peer closed it.
func (t *Trunk) Run(h Handler) error {
	if t.conn == nil {
		t.stop(t.write(func(o *output) error { return t.loop(h, o) }))
		return t.finish()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.stop(t.write(t.send))
	}()
	t.stop(t.read(h))
	<-done
	return t.finish()
}

// Close ends the trunk at once. Run returns soon after.
func (t *Trunk) Close() { t.stop(ErrClosed) }

// Fail ends the trunk at once, for a reason that Run returns.
func (t *Trunk) Fail(cause error) { t.stop(cause) }

// stop records why the trunk ends, the first time, and ends it.
func (t *Trunk) stop(cause error) {
	t.mu.Lock()
	first := !t.closed
	if first {
		t.closed, t.cause = true, cause
		t.ready.Broadcast()
	}
	t.mu.Unlock()
	if first && t.conn != nil {
		t.conn.Close()
	}
}

func (t *Trunk) finish() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.writing { // a Flush is on its way out
		t.ready.Wait()
	}
	t.sched.drop()
	return t.cause
}

// Open returns the stream for a logical connection that begins.
func (t *Trunk) Open(id icwire.ID) *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sched.get(t, id)
}

// Control queues a packet with that payload, at most MaxControl bytes, ahead of
// all data. It goes out with the next Flush.
func (t *Trunk) Control(h icwire.Header, payload ...byte) {
	h.Len = uint16(t.dialect.HeaderLen() + len(payload))
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.sched.control = append(h.Append(t.sched.control, t.dialect), payload...)
	}
}

// MaxControl is the longest payload of a packet that is not DATA.
const MaxControl = 8

// Send queues whole packets, in the trunk's dialect. It takes b over. After
// Bye, and when the trunk has ended, b is thrown away. Flush sends it.
func (s *Stream) Send(b *Buffer) {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || s.closed {
		b.Release()
		return
	}
	t.sched.push(s, b)
}

// Full says whether the stream must not be sent more for now; then wake is
// called, with locks held, once that has changed or the trunk has ended.
func (s *Stream) Full(wake func()) bool {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !t.sched.full(s) {
		return false
	}
	s.wake = wake
	return true
}

// Bye queues the BYE packet h behind everything sent before. The stream must
// not be used any more after it. Flush sends it.
func (s *Stream) Bye(h icwire.Header) {
	h.Len = 0
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || s.closed {
		return
	}
	b := Get(icwire.MaxHeaderLen)
	b.B = h.Append(b.B, t.dialect)
	t.sched.push(s, b)
	s.closed = true
}

// Late queues a packet behind the BYE of the logical connection id, with that
// payload, at most MaxControl bytes. Flush sends it.
func (t *Trunk) Late(id icwire.ID, h icwire.Header, payload ...byte) {
	h.Len = uint16(t.dialect.HeaderLen() + len(payload))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	st := t.sched.open[id]
	if st == nil {
		st = t.sched.get(t, id)
		st.closed = true
	}
	b := Get(int(h.Len))
	b.B = append(h.Append(b.B, t.dialect), payload...)
	t.sched.push(st, b)
}

// Traffic returns the counts so far.
func (t *Trunk) Traffic() Traffic {
	return Traffic{
		PacketsIn: t.packets[0].Load(), PacketsOut: t.packets[1].Load(),
		BytesIn: t.bytes[0].Load(), BytesOut: t.bytes[1].Load(),
	}
}

// Dialect is the header dialect of the stream's trunk.
func (s *Stream) Dialect() icwire.Dialect { return s.t.dialect }
