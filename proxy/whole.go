package proxy

import (
	"bufio"
	"context"
	"io"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// A sender whose stream is short and complete hands it over whole, in one
// packet, on a connection that it keeps for the next one. To accept, answer, poll
// and close a connection for each costs several times what the stream does.
//
// What is answered with HELLO_ACK has its place, as with HELLO, and is forwarded
// only then: a sender without an answer knows that nothing of its stream has gone
// out, and may try again. What cannot be forwarded at once is answered with BYE,
// and has to come by the longer way, which can wait and says what is wrong.

// wholes serves one connection on which streams are handed over.
type wholes struct {
	p  *Proxy
	uc *local.Conn
	br *bufio.Reader
	d  icwire.Dialect

	taken   []placed
	answers []byte
}

// placed is a stream that has its place.
type placed struct {
	c *conn
	b *trunk.Buffer // the packet
}

// wholesRead is how much is read at once, and held by an idle connection.
const wholesRead = 2 << 10

// serveWholes takes streams until the connection ends. h is the header that has
// been read from it.
func (p *Proxy) serveWholes(ctx context.Context, uc *local.Conn, h icwire.Header, d icwire.Dialect) {
	defer uc.Close()
	defer context.AfterFunc(ctx, func() { uc.Close() })()
	w := &wholes{p: p, uc: uc, br: bufio.NewReaderSize(uc, wholesRead), d: d}
	err := w.take(h)
	for err == nil {
		if w.br.Buffered() < d.HeaderLen() {
			if err = w.forward(); err != nil {
				break
			}
		}
		if h, _, err = readHead(w.br); err == nil {
			err = w.take(h)
		}
	}
	w.abandon()
	if err != io.EOF {
		p.noBackend(ctx, noHello(err))
	}
}

// take reads the packet of which h is the header and finds its stream a place.
func (w *wholes) take(h icwire.Header) error {
	head := w.d.HeaderLen()
	n := int(h.Len) - head
	if h.Type != icwire.Whole || n <= 0 {
		return unexpected(icwire.Whole, h)
	}
	b := trunk.Get(int(h.Len))
	b.B = b.B[:h.Len]
	late := w.br.Buffered() < n // most have come whole
	if late {
		_ = w.uc.SetDeadline(time.Now().Add(w.p.times().HelloTimeout)) // fails if closed; so will the read
	}
	if _, err := io.ReadFull(w.br, b.B[head:]); err != nil {
		b.Release()
		return err
	}
	if late {
		_ = w.uc.SetDeadline(time.Time{})
	}
	var c *conn
	if pr, why := w.p.route(h, w.d); why == "" {
		c = pr.reserve(h, n, w.d)
	}
	answer := h.HelloAck()
	answer.Len = uint16(head)
	if c == nil {
		answer.Type = icwire.Bye
		b.Release()
	} else {
		c.lc.Key.Header(icwire.Data, n, w.d).Append(b.B[:0], w.d)
		w.taken = append(w.taken, placed{c, b})
	}
	w.answers = answer.Append(w.answers, w.d)
	return nil
}

// forward answers for what has been taken and sends it.
func (w *wholes) forward() error {
	_, err := w.uc.Write(w.answers)
	if w.answers = w.answers[:0]; err != nil {
		return err
	}
	for _, s := range w.taken {
		s.c.peer.sendWhole(s.c, s.b, len(s.b.B)-w.d.HeaderLen())
	}
	w.taken = w.taken[:0]
	return nil
}

// abandon gives up what has been taken and not answered for.
func (w *wholes) abandon() {
	for _, s := range w.taken {
		s.c.peer.gone(s.c)
		s.b.Release()
	}
}

// reserve gives a stream of n bytes the place of a backend that has said hello;
// nil if it has to say it itself.
func (pr *peer) reserve(h icwire.Header, n int, d icwire.Dialect) *conn {
	pr.mu.Lock()
	defer pr.unlock()
	key := h.SrcKey()
	if pr.removed || pr.trunk == nil || n > pr.longest(d) || !pr.table.Vacant(key, n) {
		return nil
	}
	lc, e, others, refused := pr.table.Hello(key, time.Now())
	for _, o := range others {
		pr.do(o.Conn, o.Effect)
	}
	if refused != "" {
		return nil
	}
	c := newConn(pr, lc)
	c.stream = pr.trunk.Open(lc.Key.ID())
	pr.do(lc, e)
	pr.announce()
	return c
}

// sendWhole sends the one packet of a stream, with n bytes, and its end.
func (pr *peer) sendWhole(c *conn, b *trunk.Buffer, n int) {
	pr.mu.Lock()
	defer pr.unlock()
	if c.lc.Sent(n, 1) {
		c.stream.Send(b)
	} else {
		b.Release()
	}
	pr.do(c.lc, pr.table.EOF(c.lc))
	pr.do(c.lc, pr.table.Gone(c.lc))
}
