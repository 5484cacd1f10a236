package proxied

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// ear is a connection with the proxy that an executor keeps to get short streams
// whole.
type ear struct {
	conn *local.Conn
	br   *bufio.Reader
}

// Close implements io.Closer.
func (e *ear) Close() error { return e.conn.Close() }

// hearing is a receiver that waits for streams on an ear.
type hearing struct {
	ic      *Interconnect
	r       *stream.Receiver
	id      motion.ID
	self    motion.Peer
	senders []motion.Peer
	ear     *ear

	at    map[icwire.Key]int // the sender of each stream that is waited for
	stage []stage            // of each sender's
	asked int                // streams for which the proxy has not answered
	left  int                // that have not come
	hello []int              // that have to be taken behind a HELLO
	told  bool               // there were such for which the proxy had answered
	wg    sync.WaitGroup     // of those who say it
}

// stage is how far waiting for a stream has come.
type stage uint8

const (
	elsewhere stage = iota // it does not come here, or has come
	asking                 // the proxy has been asked for it
	waiting                // the proxy has answered
)

// hear tells the proxy which streams are waited for; what it does not take is for a
// HELLO. The result is to run if it has streams left. It fails when the proxy
// does not answer in time.
func (ic *Interconnect) hear(ctx context.Context, r *stream.Receiver, id motion.ID, self motion.Peer, senders []motion.Peer) (*hearing, error) {
	h := &hearing{ic: ic, r: r, id: id, self: self, senders: senders, stage: make([]stage, len(senders))}
	if !ic.cfg.Whole || ic.cfg.Dialect != icwire.Magic36 {
		return h, nil
	}
	h.at = make(map[icwire.Key]int, len(senders))
	var said []byte
	for i, c := range callsOf(id, self, senders, nil) {
		if !ic.loopsBack(c.key) {
			h.at[c.key] = i
			said = c.key.Header(icwire.Wait, 0, icwire.Magic36).Append(said, icwire.Magic36)
		}
	}
	if len(h.at) == 0 {
		return h, nil
	}
	e, kept := ic.ears.take()
	for ; ; kept = false {
		if !kept {
			_, conn, err := ic.dial()
			if err != nil {
				return h, nil // HELLO says why
			}
			e = &ear{conn, bufio.NewReaderSize(conn, earBuffer)}
		}
		limit := ic.tuning.Load().SetupTimeout
		if limit <= 0 || limit > ackLimit {
			limit = ackLimit
		}
		err := h.ask(ctx, e, said, limit)
		if err == nil {
			return h, nil
		}
		heard := h.asked < len(h.at)
		h.drop(e)
		switch {
		case ctx.Err() != nil:
			return h, context.Cause(ctx)
		case isTimeout(err) && limit < ackLimit:
			return h, setupTimeout(id, self, limit)
		case isTimeout(err):
			err = fmt.Errorf("ic-proxy: backend %v: %w to WAIT within %v", callsOf(id, self, senders[:1], nil)[0].key, errAnswer, ackLimit)
			return h, interconnectError(err.Error(), err)
		case !kept || heard:
			return h, nil
		}
		// It was with a proxy that is no more.
	}
}

// ask tells the proxy what is waited for, and reads until it has answered for all.
func (h *hearing) ask(ctx context.Context, e *ear, said []byte, limit time.Duration) error {
	if !h.r.Hold(e.conn) {
		return io.ErrClosedPipe
	}
	h.ear = e
	for _, i := range h.at {
		h.stage[i] = asking
	}
	h.asked, h.left = len(h.at), len(h.at)
	_ = e.conn.SetDeadline(time.Now().Add(limit)) // it is ours and open
	stop := context.AfterFunc(ctx, func() { _ = e.conn.SetDeadline(time.Unix(1, 0)) })
	_, err := e.conn.Write(said)
	for err == nil && h.asked > 0 {
		err = h.next()
	}
	if !stop() {
		return context.Cause(ctx)
	}
	if err == nil {
		err = e.conn.SetDeadline(time.Time{})
	}
	return err
}

// drop gives up an ear that has failed before the proxy has answered for all.
func (h *hearing) drop(e *ear) {
	if h.r.Release(e.conn) {
		e.Close()
	}
	h.ear, h.left, h.hello = nil, 0, nil
	clear(h.stage)
}

// next takes what the proxy says next.
func (h *hearing) next() error {
	br := h.ear.br
	b, err := br.Peek(icwire.MaxHeaderLen)
	if err != nil {
		return err
	}
	head, err := icwire.Decode(b, icwire.Magic36)
	if err != nil {
		return err
	}
	_, _ = br.Discard(len(b)) // they are there
	i, ours := h.at[head.DstKey()]
	n := int(head.Len) - icwire.MaxHeaderLen
	switch {
	case !ours || n < 0 || (n > 0) != (head.Type == icwire.Whole):
	case head.Type == icwire.HelloAck && h.stage[i] == asking:
		h.stage[i] = waiting
		h.asked--
		return nil
	case head.Type == icwire.Bye && h.stage[i] != elsewhere:
		if h.stage[i] == asking {
			h.asked--
		} else {
			h.told = true
		}
		h.came(i)
		h.hello = append(h.hello, i)
		return nil
	case head.Type == icwire.Lost && h.stage[i] != asking:
		if h.stage[i] == waiting {
			h.came(i)
		}
		h.r.Lose(i, io.EOF) // or its HELLO was faster, and its connection ends
		return nil
	case head.Type == icwire.Whole && h.stage[i] == waiting:
		h.came(i)
		if err := h.r.Take(i, n, br); err != nil {
			h.r.Lose(i, io.EOF)
			return err
		}
		return nil
	}
	return fmt.Errorf("%w: received %v", errAnswer, head)
}

func (h *hearing) came(i int) {
	h.stage[i] = elsewhere
	h.left--
}

// connect connects for the streams that are not waited for.
func (h *hearing) connect(ctx context.Context) error {
	var list []int
	for i := range h.senders {
		if _, asked := h.at[h.key(i)]; !asked || h.ear == nil {
			list = append(list, i)
		}
	}
	list = append(list, h.hello...)
	h.hello = nil
	return h.attach(ctx, list)
}

func (h *hearing) key(i int) icwire.Key { return callsOf(h.id, h.self, h.senders[i:i+1], nil)[0].key }

// attach connects for the streams in list.
func (h *hearing) attach(ctx context.Context, list []int) error {
	if len(list) == 0 {
		return nil
	}
	peers := make([]motion.Peer, len(list))
	for k, i := range list {
		peers[k] = h.senders[i]
	}
	conns, err := h.ic.connect(ctx, h.id, h.self, peers, nil)
	if err != nil {
		return err
	}
	for k, i := range list {
		h.r.Attach(i, conns[k])
	}
	return nil
}

// start lets run take what has not come yet.
func (h *hearing) start() error {
	switch {
	case h.ear == nil:
	case h.left == 0:
		h.run()
	case !h.ic.spawn(h.run):
		return errClosed
	}
	return nil
}

// stopLimit bounds the write of what stops senders.
const stopLimit = time.Second

// stop lets the proxy tell the senders that nobody wants their rows any more; it
// does so for streams that have not come. Those that come have their own way.
func (h *hearing) stop() {
	var said []byte
	for key := range h.at {
		said = append(key.Header(icwire.Wait, 1, icwire.Magic36).Append(said, icwire.Magic36), icwire.StopByte)
	}
	_ = h.ear.conn.SetWriteDeadline(time.Now().Add(stopLimit)) // then Write fails
	_, _ = h.ear.conn.Write(said)                              // then so does reading
}

// run takes what the proxy says until all streams have come. The motion's end ends
// it.
func (h *hearing) run() {
	if h.left > 0 {
		h.r.OnStop(h.stop)
	}
	for h.left > 0 {
		err := h.next()
		if err != nil {
			for i := range h.stage {
				if h.stage[i] != elsewhere {
					h.r.Lose(i, err)
				}
			}
		}
		if len(h.hello) > 0 && (err != nil || h.left == 0 || h.ear.br.Buffered() < icwire.MaxHeaderLen) {
			list := h.hello
			h.hello = nil
			h.wg.Go(func() {
				if err := h.attach(h.r.Context(), list); err != nil {
					for _, i := range list {
						h.r.Lose(i, err)
					}
				}
			})
		}
		if err != nil {
			h.r.OnStop(nil)
			h.wg.Wait()
			if h.r.Release(h.ear.conn) {
				h.ear.Close()
			}
			return
		}
	}
	h.r.OnStop(nil)
	// The proxy keeps what has to be taken behind a HELLO as long as the connection
	// is there.
	h.wg.Wait()
	switch {
	case !h.r.Release(h.ear.conn):
	case h.told: // one of them may have been lost meanwhile: that is of no other motion
		h.ear.Close()
	default:
		h.ic.ears.keep(h.ear)
	}
}
