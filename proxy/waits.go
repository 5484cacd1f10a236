package proxy

import (
	"bufio"
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// A receiver gets short streams whole, as senders hand them over (whole.go), on a
// connection that it keeps for the next ones. It says which it waits for, and has
// its place as with HELLO, but no socket of its own. What comes is kept; a stream
// that is complete and short by the end of the batch that brought it is handed
// over, and both ends of the logical connection are done at once. For any other
// the receiver is told to say HELLO, which gets it the place and what is kept.

const (
	// longestWaited is up to how many bytes a stream is handed over whole.
	longestWaited = 32 << 10
	// mostUnread is how many bytes a receiver that does not read is told. Beyond
	// it streams are left for its HELLO.
	mostUnread = 4 << 20
	// waitsRead is how much is read at once, and held by an idle connection.
	waitsRead = 1 << 10
)

// waits is one connection on which streams are waited for.
type waits struct {
	p  *Proxy
	uc *local.Conn
	d  icwire.Dialect

	// May be taken while a peer's lock is held, not the other way round.
	mu      sync.Mutex
	out     []byte // to be written
	drained int    // bytes that drain is writing
	writing bool   // a goroutine is in drain
	ended   bool
}

// serveWaits serves the connection until it ends. h is the header that has been
// read from it.
func (p *Proxy) serveWaits(ctx context.Context, uc *local.Conn, h icwire.Header, d icwire.Dialect) {
	defer uc.Close()
	defer context.AfterFunc(ctx, func() { uc.Close() })()
	w := &waits{p: p, uc: uc, d: d}
	br := bufio.NewReaderSize(uc, waitsRead)
	err := w.take(h, br)
	for err == nil {
		if br.Buffered() < d.HeaderLen() {
			w.flush()
		}
		if h, _, err = readHead(br); err == nil {
			err = w.take(h, br)
		}
	}
	w.end()
	if err != io.EOF {
		p.noBackend(ctx, noHello(err))
	}
}

// take notes what the receiver waits for, or that it wants no more of it.
func (w *waits) take(h icwire.Header, br *bufio.Reader) error {
	n := int(h.Len) - w.d.HeaderLen()
	if h.Type != icwire.Wait || n != 0 && n != 1 {
		return unexpected(icwire.Wait, h)
	}
	pr, why := w.p.route(h, w.d)
	if n == 1 {
		b, err := br.ReadByte()
		if err == nil && b != icwire.StopByte {
			return unexpected(icwire.Wait, h)
		}
		if err == nil && why == "" {
			pr.stopAwaited(w, h.SrcKey())
		}
		return err
	}
	if why == "" {
		pr.await(w, h.SrcKey())
	} else {
		w.say(icwire.Bye, h.SrcKey())
	}
	return nil
}

// say queues a packet, with the stream if it has one.
func (w *waits) say(t icwire.Type, key icwire.Key, stream ...chunk) {
	n := 0
	for _, k := range stream {
		n += len(k.buf.B)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = key.Flip().Header(t, n, w.d).Append(w.out, w.d)
	for _, k := range stream {
		w.out = append(w.out, k.buf.B...)
	}
}

// full says whether the receiver does not read what it is told.
func (w *waits) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drained+len(w.out) > mostUnread
}

// flush writes what is queued. It waits for nobody.
func (w *waits) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing || w.ended || len(w.out) == 0 {
		return
	}
	n, err := w.uc.TryWrite(w.out)
	if err != nil {
		n = len(w.out) // serveWaits sees the end
	}
	w.out = w.out[:copy(w.out, w.out[n:])]
	if len(w.out) > 0 {
		w.writing = true
		w.p.wg.Go(w.drain)
	}
}

// drain writes what a receiver has been slow to take.
func (w *waits) drain() {
	var b []byte
	for {
		w.mu.Lock()
		b, w.out = w.out, b[:0]
		w.drained = len(b)
		if len(b) == 0 || w.ended {
			w.writing = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		_, _ = w.uc.Write(b) // serveWaits sees the end
	}
}

// end gives up what is waited for. Its senders are told, as by a backend that
// goes.
func (w *waits) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.uc.End()
	w.p.mu.RLock()
	peers := slices.Collect(maps.Values(w.p.peers))
	w.p.mu.RUnlock()
	for _, pr := range peers {
		pr.forgo(w)
	}
}

// await registers w as the receiver of key, and hands the stream over if it is
// there.
func (pr *peer) await(w *waits, key icwire.Key) {
	pr.mu.Lock()
	defer pr.unlock()
	if pr.removed || pr.trunk == nil || !pr.table.Unclaimed(key) {
		w.say(icwire.Bye, key)
		return
	}
	lc, e, others, refused := pr.table.Hello(key, time.Now())
	for _, o := range others {
		pr.do(o.Conn, o.Effect)
	}
	if refused != "" {
		w.say(icwire.Bye, key)
		return
	}
	w.say(icwire.HelloAck, key)
	c, _ := lc.Owner.(*conn)
	if c == nil {
		c = newConn(pr, lc)
	}
	c.stream, c.waits = pr.trunk.Open(lc.Key.ID()), w
	pr.awaited[lc.Key.ID()] = c
	pr.do(lc, e)
	pr.announce()
	if lc.Pending() > 0 {
		pr.arrived(c, time.Now())
	}
}

// stopAwaited asks the sender of a stream that w waits for to send no more, as its
// backend would. What has been settled already is not concerned.
func (pr *peer) stopAwaited(w *waits, key icwire.Key) {
	pr.mu.Lock()
	defer pr.unlock()
	c := pr.awaited[key.ID()]
	if c == nil || c.waits != w || c.told {
		return
	}
	b := trunk.Get(w.d.HeaderLen() + 1)
	b.B = append(c.lc.Key.Header(icwire.Data, 1, w.d).Append(b.B[:0], w.d), icwire.StopByte)
	if c.lc.Sent(1, 1) {
		c.stream.Send(b)
	} else {
		b.Release()
	}
}

// arrived settles what becomes of a stream of which something has come, if it is
// waited for. It is called with pr.mu held.
func (pr *peer) arrived(c *conn, now time.Time) {
	w, lc := c.waits, c.lc
	if w == nil || c.told {
		return
	}
	n := lc.Pending()
	whole := lc.Complete() && n > 0 && n <= longestWaited && !w.full()
	var stream []chunk
	if whole {
		c.mu.Lock()
		stream = c.inbox
		c.mu.Unlock()
		for _, k := range stream {
			n -= len(k.buf.B)
		}
		if n > 0 {
			return // the trunk's reader is about to add it, and to ask again
		}
	}
	pr.told = append(pr.told, w)
	if !whole {
		c.told = true
		w.say(icwire.Bye, lc.Key)
		return
	}
	pr.unawait(c)
	w.say(icwire.Whole, lc.Key, stream...)
	units := 0
	for _, k := range stream {
		units += k.units
	}
	pr.do(lc, pr.table.Taken(lc, lc.Pending(), units, now))
	pr.do(lc, pr.table.EOF(lc)) // the last of it: the remote end has finished
	c.discard()                 // gives back the memory
}

// adopt gives a connection that was waited for to the backend that has come for it
// with HELLO; nil if there is none. It is called with pr.mu held.
func (pr *peer) adopt(id icwire.ID) *conn {
	c := pr.awaited[id]
	if c != nil {
		pr.unawait(c)
	}
	return c
}

func (pr *peer) unawait(c *conn) {
	delete(pr.awaited, c.lc.Key.ID())
	c.waits = nil
}

// forgo ends what w waits for: what comes for it is thrown away.
func (pr *peer) forgo(w *waits) {
	pr.mu.Lock()
	defer pr.unlock()
	for _, c := range pr.awaited {
		if c.waits == w {
			pr.unawait(c)
			pr.do(c.lc, pr.table.Gone(c.lc))
		}
	}
}

// lostAwaited tells the receiver that nothing will come any more. It is called with
// pr.mu held.
func (pr *peer) lostAwaited(c *conn) {
	w := c.waits
	pr.unawait(c)
	w.say(icwire.Lost, c.lc.Key)
	pr.told = append(pr.told, w)
}
