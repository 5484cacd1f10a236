package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/logical"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// conn is the I/O of one end of a logical connection: the backend's socket,
// and what waits for the backend. It exists without a socket as long as only
// packets have come.
type conn struct {
	peer *peer
	lc   *logical.Conn

	// Set by register and attach under peer.mu, before run.
	uc     *net.UnixConn
	raw    syscall.RawConn
	ack    []byte // HELLO_ACK, until it is written
	stream *trunk.Stream

	// Since when a full window of so many packets outlasts the remote end.
	stalled   time.Time
	stalledAt int

	room chan struct{} // the window has opened, or the connection ended

	mu         sync.Mutex
	inbox      []chunk
	ready      bool // HELLO_ACK is written
	delivering bool // a goroutine is in deliver
	shut       bool // shut down the write side once all is delivered
	discarded  bool
	closed     bool
}

// chunk is a piece of the stream for the backend.
type chunk struct {
	buf   *trunk.Buffer
	units int // packets that end in it
}

func newConn(p *peer, lc *logical.Conn) *conn {
	c := &conn{peer: p, lc: lc, room: make(chan struct{}, 1)}
	lc.Owner = c
	return c
}

// run answers the backend and then reads it until it ends.
func (c *conn) run() {
	if _, err := c.uc.Write(c.ack); err != nil {
		c.peer.gone(c)
		return
	}
	c.mu.Lock()
	c.ready, c.ack = true, nil
	c.kick()
	c.mu.Unlock()

	r := newReader(c)
	for {
		n := c.peer.room(c)
		if n < 0 {
			return
		}
		if n == 0 {
			<-c.room
			continue
		}
		b, packets, err := r.read(n)
		if packets > 0 {
			c.peer.send(c, b, packets)
		}
		switch {
		case err == io.EOF:
			c.peer.eof(c)
			r.hangup()
			c.peer.gone(c)
			return
		case err != nil:
			c.peer.gone(c)
			return
		}
	}
}

// wake lets run look at the window again.
func (c *conn) wake() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// push queues a payload for the backend. Small ones are put together.
func (c *conn) push(payload []byte, units int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.discarded {
		return
	}
	if n := len(c.inbox); n > 0 {
		if b := c.inbox[n-1].buf; cap(b.B)-len(b.B) >= len(payload) {
			b.B = append(b.B, payload...)
			c.inbox[n-1].units += units
			c.kick()
			return
		}
	}
	b := trunk.Get(len(payload))
	b.B = append(b.B, payload...)
	c.inbox = append(c.inbox, chunk{b, units})
	c.kick()
}

// kick starts delivering, if there is something to deliver and nobody does. It
// is called with c.mu held.
func (c *conn) kick() {
	if c.delivering || !c.ready || c.closed || c.discarded {
		return
	}
	if len(c.inbox) > 0 {
		c.delivering = true
		c.peer.p.wg.Go(c.deliver)
	} else if c.shut {
		c.closeWrite()
	}
}

// deliver writes to the backend until nothing is left. It is the only one that
// waits for the backend.
func (c *conn) deliver() {
	var vec, rest net.Buffers
	for {
		c.mu.Lock()
		batch := c.inbox
		if len(batch) == 0 || c.discarded || c.closed {
			c.delivering = false
			c.kick()
			c.mu.Unlock()
			return
		}
		c.inbox = nil
		c.mu.Unlock()

		n, units := 0, 0
		vec = vec[:0]
		for _, k := range batch {
			vec = append(vec, k.buf.B)
			n += len(k.buf.B)
			units += k.units
		}
		rest = vec
		_, err := rest.WriteTo(c.uc)
		for _, k := range batch {
			k.buf.Release()
		}
		if err != nil {
			c.peer.gone(c)
			continue // to the end: discarded, or closed
		}
		c.peer.taken(c, n, units)
	}
}

// shutdown shuts down the write side after what is queued.
func (c *conn) shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	c.kick()
}

func (c *conn) closeWrite() {
	c.shut = false
	_ = c.uc.CloseWrite() // a backend that has gone makes itself known to run
}

// discard drops what is queued and what comes.
func (c *conn) discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discarded = true
	for _, k := range c.inbox {
		k.buf.Release()
	}
	c.inbox = nil
}

// close closes the socket so that the backend sees an orderly end: what it has
// written and nobody reads is taken off first, for the kernel would make a
// reset of it.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.uc == nil {
		return
	}
	c.closed = true
	endOrderly(c.uc, c.raw)
}

func endOrderly(uc *net.UnixConn, raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
		var b [4096]byte
		for {
			if n, err := unix.Read(int(fd), b[:]); n <= 0 && err != unix.EINTR {
				return
			}
		}
	})
	uc.Close()
}

// maxSegments is how many packets one read may make.
const maxSegments = 8

// reader reads a backend's stream straight into DATA packets: each piece of
// payload comes to lie behind room for its header.
type reader struct {
	c       *conn
	head    [icwire.MaxHeaderLen]byte
	headLen int
	lenAt   int // where the header has its length
	payload int // the longest payload

	hint int // how many packets the next read makes room for
	want int
	iov  [maxSegments][]byte
	buf  *trunk.Buffer
	n    int
	err  error

	try func(fd uintptr) bool
}

func newReader(c *conn) *reader {
	d := c.stream.Dialect()
	r := &reader{c: c, headLen: d.HeaderLen(), payload: c.peer.p.payload(), hint: 1}
	c.lc.Key.Header(icwire.Data, 0, d).Append(r.head[:0], d)
	if d == icwire.Magic36 {
		r.lenAt = 4
	}
	r.try = r.tryRead
	return r
}

// read waits for bytes of the backend and returns them as up to room DATA
// packets. At the end of the stream the error is io.EOF.
func (r *reader) read(room int) (b *trunk.Buffer, packets int, err error) {
	r.want = min(room, r.hint, maxSegments)
	if err := r.c.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	if r.err != nil {
		return nil, 0, r.err
	}
	if r.n == 0 {
		return nil, 0, io.EOF
	}
	b, r.buf = r.buf, nil
	if r.n == r.want*r.payload {
		r.hint = maxSegments
	} else if r.n < r.payload {
		r.hint = 1
	}
	// Every segment but the last is full, so the packets lie back to back.
	for left := r.n; left > 0; packets++ {
		n := min(left, r.payload)
		at := packets * (r.headLen + r.payload)
		copy(b.B[at:], r.head[:r.headLen])
		binary.LittleEndian.PutUint16(b.B[at+r.lenAt:], uint16(r.headLen+n))
		left -= n
	}
	b.B = b.B[:r.n+packets*r.headLen]
	return b, packets, nil
}

// tryRead reads if there is something to read. Memory is held only for that
// long: an idle backend has none.
func (r *reader) tryRead(fd uintptr) bool {
	step := r.headLen + r.payload
	b := trunk.Get(r.want * step)
	b.B = b.B[:r.want*step]
	for i := range r.want {
		r.iov[i] = b.B[i*step+r.headLen : (i+1)*step]
	}
	for {
		r.n, r.err = unix.Readv(int(fd), r.iov[:r.want])
		if r.err != unix.EINTR {
			break
		}
	}
	if r.err == nil && r.n > 0 {
		r.buf = b
		return true
	}
	b.Release()
	return r.err != unix.EAGAIN
}

// hangup waits, after the end of the stream, until the backend has closed its
// socket altogether or the proxy has.
func (r *reader) hangup() {
	_ = r.c.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			if _, err := unix.Poll(p, 0); err == nil {
				break
			} else if err != unix.EINTR {
				return true
			}
		}
		return p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
}
