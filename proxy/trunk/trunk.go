package trunk

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/trunkline-db/trunkline/icwire"
)

// Handler takes the packets that arrive.
type Handler interface {
	// Packet takes one packet. It must not wait for anything but short locks:
	// every logical connection of the trunk would wait with it. The payload is
	// valid until it returns. An error closes the trunk.
	Packet(h icwire.Header, payload []byte) error
}

// ErrClosed is what Run returns after Close.
var ErrClosed = errors.New("closed")

// Trunk is one connection to one peer. Its methods may be called from any
// goroutine; none waits for the network except Run.
type Trunk struct {
	conn      net.Conn // nil when it leads back to this proxy
	dialect   icwire.Dialect
	maxPacket int

	mu     sync.Mutex
	ready  sync.Cond // something is queued, or closed
	sched  scheduler
	closed bool
	cause  error

	vec     [2]net.Buffers // the writer's: the memory, and what is left of a batch
	packets [2]atomic.Uint64
	bytes   [2]atomic.Uint64
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
func New(conn net.Conn, d icwire.Dialect, maxPacket int) *Trunk {
	t := &Trunk{conn: conn, dialect: d, maxPacket: maxPacket}
	t.ready.L = &t.mu
	t.sched.open = map[icwire.ID]*Stream{}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tune(tcp)
	}
	return t
}

// Dialect is the header dialect spoken on this trunk.
func (t *Trunk) Dialect() icwire.Dialect { return t.dialect }

// Run reads and writes until the connection ends, then releases everything and
// returns why: ErrClosed after Close, io.EOF when the peer closed it.
func (t *Trunk) Run(h Handler) error {
	if t.conn == nil {
		t.stop(t.write(func(batch []*Buffer, control []byte) error { return t.loop(h, batch, control) }))
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
	t.sched.drop()
	return t.cause
}

// Open returns the stream for a logical connection that begins.
func (t *Trunk) Open(id icwire.ID) *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sched.get(t, id)
}

// Control sends a packet without payload ahead of all data.
func (t *Trunk) Control(h icwire.Header) {
	h.Len = 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	wake := t.sched.empty()
	t.sched.control = h.Append(t.sched.control, t.dialect)
	if wake {
		t.ready.Signal()
	}
}

// Send queues whole packets, in the trunk's dialect. It takes b over. After
// Bye, and when the trunk has ended, b is thrown away.
func (s *Stream) Send(b *Buffer) {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || s.closed {
		b.Release()
		return
	}
	t.push(s, b)
}

// Bye queues the BYE packet h behind everything sent before. The stream must
// not be used any more after it.
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
	t.push(s, b)
	s.closed = true
}

func (t *Trunk) push(s *Stream, b *Buffer) {
	wake := t.sched.empty()
	t.sched.push(s, b)
	if wake {
		t.ready.Signal()
	}
}

// write hands one batch after the other to out until the trunk is closed.
func (t *Trunk) write(out func(batch []*Buffer, control []byte) error) error {
	var batch []*Buffer
	var control []byte
	for {
		t.mu.Lock()
		for t.sched.empty() && !t.closed {
			t.ready.Wait()
		}
		if t.closed {
			t.mu.Unlock()
			return ErrClosed
		}
		control, t.sched.control = t.sched.control, control[:0]
		batch = t.sched.collect(batch[:0])
		t.mu.Unlock()

		n := len(control)
		for _, b := range batch {
			n += len(b.B)
		}
		err := out(batch, control)
		for i, b := range batch {
			b.Release()
			batch[i] = nil
		}
		if err != nil {
			return err
		}
		t.packets[1].Add(uint64(len(batch) + len(control)/t.dialect.HeaderLen()))
		t.bytes[1].Add(uint64(n))
	}
}

// send writes a batch with one system call, or as few as it takes.
func (t *Trunk) send(batch []*Buffer, control []byte) error {
	vec := t.vec[0][:0]
	if len(control) > 0 {
		vec = append(vec, control)
	}
	for _, b := range batch {
		vec = append(vec, b.B)
	}
	if len(vec) == 1 {
		_, err := t.conn.Write(vec[0])
		return err
	}
	t.vec[0], t.vec[1] = vec, vec // WriteTo uses up its receiver
	_, err := t.vec[1].WriteTo(t.conn)
	return err
}

// loop hands a batch to the handler of this same proxy.
func (t *Trunk) loop(h Handler, batch []*Buffer, control []byte) error {
	if err := t.each(h, control); err != nil {
		return err
	}
	for _, b := range batch {
		if err := t.each(h, b.B); err != nil {
			return err
		}
	}
	return nil
}

func (t *Trunk) each(h Handler, b []byte) error {
	for len(b) > 0 {
		hd, payload, n, err := icwire.Next(b, t.dialect, t.maxPacket)
		if err == nil {
			err = h.Packet(hd, payload)
		}
		if err != nil {
			return err
		}
		t.count(n)
		b = b[n:]
	}
	return nil
}

// read hands every packet that arrives to h, until the connection ends.
func (t *Trunk) read(h Handler) error {
	buf := make([]byte, max(readSize, 2*t.maxPacket))
	have := 0
	for {
		n, err := t.conn.Read(buf[have:])
		have += n
		rest := buf[:have]
		for len(rest) > 0 {
			hd, payload, n, err := icwire.Next(rest, t.dialect, t.maxPacket)
			if errors.Is(err, icwire.ErrShort) {
				break
			}
			if err == nil && hd.Type != icwire.Data && len(payload) > 0 {
				err = &icwire.ProtocolError{Reason: fmt.Sprintf("%v with a payload of %d bytes", hd.Type, len(payload))}
			}
			if err == nil {
				err = h.Packet(hd, payload)
			}
			if err != nil {
				return err
			}
			t.count(n)
			rest = rest[n:]
		}
		have = copy(buf, rest)
		if err != nil {
			if err == io.EOF && have > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

func (t *Trunk) count(n int) {
	t.packets[0].Add(1)
	t.bytes[0].Add(uint64(n))
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
