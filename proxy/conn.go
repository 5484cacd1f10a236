package proxy

import (
	"encoding/binary"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/iov"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/proxy/internal/poll"
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
	uc     *local.Conn
	raw    syscall.RawConn
	ack    []byte // HELLO_ACK, until it is written
	stream *trunk.Stream

	// Since when a full window of so many packets outlasts the remote end.
	stalled   time.Time
	stalledAt int

	reader *reader // of serveShort, for serve

	// A receiver without a socket of its own. Under peer.mu.
	waits *waits
	told  bool // to say HELLO

	room   chan struct{} // there may be room to send, or the connection ended
	wakeUp func()        // wake
	// deliver; made once, so that starting it needs no memory.
	deliverer func()

	batch *batch // what the trunk's reader has for the backend, or nil

	mu         sync.Mutex
	inbox      []chunk
	ready      bool // HELLO_ACK is written
	running    bool // a goroutine is in run or serve, or will be
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
	c.wakeUp, c.deliverer = c.wake, c.deliver
	lc.Owner = c
	return c
}

// start says that run, or answer and serve, will be called. It is called with peer.mu held.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = true
}

// run answers the backend and serves it.
func (c *conn) run() {
	if c.answer() {
		c.serve()
	}
}

// answer answers the backend, and says whether it is to be served. It does not
// wait: nothing has been written to the socket yet.
func (c *conn) answer() bool {
	if _, err := c.uc.Write(c.ack); err != nil {
		c.peer.gone(c)
		c.leave(&c.running)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.ack = true, nil
	c.kick()
	return true
}

// serveShort is serve for a backend that has written all it has, or at least
// something, by the time it is answered, as senders of short results have. It
// waits for nothing, and is false when there is more to do.
func (c *conn) serveShort() bool {
	n := c.peer.room(c)
	if n <= 0 {
		return false
	}
	r := newReader(c)
	c.reader = r
	if !r.begin(n) {
		return false
	}
	b, got, err := r.packets()
	switch {
	case err == io.EOF:
		c.peer.eof(c)
	case err != nil:
		c.peer.gone(c)
		c.leave(&c.running)
		return true
	case got == r.want || !c.uc.AtEnd():
		c.peer.send(c, b, got, r.made, false)
		return false
	default: // data and end go together
		c.peer.send(c, b, got, r.made, true)
	}
	if c.uc.HungUp() {
		c.peer.gone(c)
		c.leave(&c.running)
		return true
	}
	c.peer.p.wg.Go(func() {
		defer c.leave(&c.running)
		c.uc.Hangup()
		c.peer.gone(c)
	})
	return true
}

// serve reads the backend until it ends.
func (c *conn) serve() {
	defer c.leave(&c.running)
	r := c.reader
	if c.reader = nil; r == nil {
		r = newReader(c)
	}
	n := c.peer.room(c)
	for {
		for n == 0 {
			<-c.room
			n = c.peer.room(c)
		}
		if n < 0 {
			return
		}
		b, got, err := r.read(n)
		switch {
		case err == nil:
			n = c.peer.send(c, b, got, r.made, false)
		case err == io.EOF:
			c.peer.eof(c)
			c.uc.Hangup()
			c.peer.gone(c)
			return
		default:
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

// keep copies a payload for later. Small ones are put together. It is called
// with c.mu held.
func (c *conn) keep(payload []byte) {
	if n := len(c.inbox); n > 0 {
		b := c.inbox[n-1].buf
		k := copy(b.B[len(b.B):cap(b.B)], payload)
		b.B = b.B[:len(b.B)+k]
		payload = payload[k:]
	}
	for len(payload) > 0 {
		b := trunk.Get(min(len(payload), trunk.BulkSize))
		k := min(len(payload), cap(b.B))
		b.B = append(b.B, payload[:k]...)
		payload = payload[k:]
		c.inbox = append(c.inbox, chunk{buf: b})
	}
}

// kick starts delivering, if there is something to deliver and nobody does. It
// is called with c.mu held.
func (c *conn) kick() {
	if c.delivering || !c.ready || c.closed || c.discarded {
		return
	}
	if len(c.inbox) > 0 {
		c.delivering = true
		c.peer.p.wg.Add(1)
		go c.deliverer()
	} else if c.shut {
		c.closeWrite()
	}
}

// delivery is what deliver needs. It is used again by whoever delivers next.
type delivery struct {
	batch []chunk
	vec   iov.Vec
	push  func(fd uintptr) bool // writes vec, waiting until all is taken
	err   error
}

var deliveries = sync.Pool{New: func() any {
	d := &delivery{}
	d.push = func(fd uintptr) bool {
		d.err = d.vec.Write(int(fd))
		return d.err != nil || d.vec.Len() == 0
	}
	return d
}}

// deliver writes to the backend until nothing is left. It is the only one that
// waits for the backend.
func (c *conn) deliver() {
	defer c.peer.p.wg.Done()
	defer c.leave(nil)
	d := deliveries.Get().(*delivery)
	defer deliveries.Put(d)
	for {
		c.mu.Lock()
		if len(c.inbox) == 0 || c.discarded || c.closed {
			c.delivering = false
			c.kick()
			c.mu.Unlock()
			return
		}
		d.batch, c.inbox = c.inbox, d.batch[:0]
		c.mu.Unlock()

		units := 0
		for _, k := range d.batch {
			d.vec.Add(k.buf.B)
			units += k.units
		}
		n := d.vec.Len()
		err := c.raw.Write(d.push)
		if err == nil {
			err = d.err
		}
		d.vec.Reset()
		for i, k := range d.batch {
			k.buf.Release()
			d.batch[i] = chunk{}
		}
		if err != nil {
			c.peer.deaf(c)
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
	c.uc.CloseWrite() // a backend that has gone makes itself known to serve
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

// close ends the connection so that the backend sees an orderly end. The
// descriptor is given back by the last goroutine that uses it: waiting for that
// here would keep every other connection with the peer waiting.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.uc == nil {
		return
	}
	c.closed = true
	c.uc.End()
	if !c.running && !c.delivering {
		c.peer.p.ended.Add(c.uc)
	}
}

// leave is called at the end of run and of deliver; in is what says that it
// has been there.
func (c *conn) leave(in *bool) {
	c.mu.Lock()
	if in != nil {
		*in = false
	}
	last := c.closed && !c.running && !c.delivering
	c.mu.Unlock()
	if last {
		c.peer.p.ended.Add(c.uc)
		c.peer.p.ended.Trim()
	}
}

// firstRead is how much of a backend's stream is read at once before it has
// shown that it brings more.
const firstRead = 4 << 10

// reader reads a backend's stream straight into DATA packets: each piece of
// payload comes to lie behind room for its header.
type reader struct {
	c       *conn
	head    [icwire.MaxHeaderLen]byte
	headLen int
	lenAt   int // where the header has its length
	payload int // the longest payload

	made int // packets of the last read

	hint int // how many bytes the next read makes room for
	want int
	vec  iov.Vec
	buf  *trunk.Buffer
	n    int
	err  error

	waited bool // there was nothing to read at first
	busy   poll.Busy

	try func(fd uintptr) bool
}

func newReader(c *conn) *reader {
	d := c.stream.Dialect()
	r := &reader{c: c, headLen: d.HeaderLen(), payload: c.peer.payload(d), hint: firstRead}
	c.lc.Key.Header(icwire.Data, 0, d).Append(r.head[:0], d)
	if d == icwire.Magic36 {
		r.lenAt = 4
	}
	r.try = r.tryRead
	return r
}

// read waits for bytes of the backend and returns up to room of them, as DATA
// packets. At the end of the stream the error is io.EOF.
func (r *reader) read(room int) (b *trunk.Buffer, n int, err error) {
	r.want, r.waited = min(room, r.hint, r.most()), false
	if err := r.c.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	return r.packets()
}

// begin reads what is there, and is false when nothing is.
func (r *reader) begin(room int) (any bool) {
	r.want, r.waited = min(room, r.hint, r.most()), false
	if err := r.c.raw.Control(func(fd uintptr) { any = r.tryRead(fd) }); err != nil {
		r.err = err
		return true
	}
	return any
}

// packets makes DATA packets of what has been read.
func (r *reader) packets() (b *trunk.Buffer, n int, err error) {
	step := r.headLen + r.payload
	most := r.most()
	if r.waited {
		r.busy.Waited()
	} else {
		r.busy.Still(time.Now())
	}
	if r.err != nil {
		return nil, 0, r.err
	}
	if r.n == 0 {
		return nil, 0, io.EOF
	}
	b, r.buf = r.buf, nil
	switch {
	case r.n == r.want:
		r.hint = min(max(2*r.hint, firstRead), most)
	case r.n < r.hint/4:
		r.hint = max(r.hint/2, firstRead)
	}
	// Every payload but the last is full, so the packets lie back to back.
	r.made = 0
	for left := r.n; left > 0; r.made++ {
		n := min(left, r.payload)
		at := r.made * step
		copy(b.B[at:], r.head[:r.headLen])
		binary.LittleEndian.PutUint16(b.B[at+r.lenAt:], uint16(r.headLen+n))
		left -= n
	}
	b.B = b.B[:r.n+r.made*r.headLen]
	return b, r.n, nil
}

// most is how many bytes one read may bring.
func (r *reader) most() int {
	if n := trunk.BulkSize / (r.headLen + r.payload) * r.payload; n > 0 {
		return n
	}
	return r.payload
}

// tryRead reads if there is something to read. Memory is held only for that
// long: an idle backend has none.
func (r *reader) tryRead(fd uintptr) bool {
	packets := (r.want + r.payload - 1) / r.payload
	b := trunk.Get(r.want + packets*r.headLen)
	b.B = b.B[:r.want+packets*r.headLen]
	r.vec.Reset()
	at := 0
	for left := r.want; left > 0; {
		n := min(left, r.payload)
		at += r.headLen
		r.vec.Add(b.B[at : at+n])
		at += n
		left -= n
	}
	r.n, r.err = r.vec.Read(int(fd))
	r.vec.Reset()
	if r.err == nil && r.n > 0 {
		r.buf = b
		return true
	}
	b.Release()
	r.waited = r.err == unix.EAGAIN
	return !r.waited
}
