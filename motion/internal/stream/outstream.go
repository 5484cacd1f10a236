package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// outStream is one connection of a Sender, with two goroutines: write, which
// writes what is packed, and listen, which reads what the receiver says.
type outStream struct {
	s    *Sender
	peer motion.Peer
	conn net.Conn
	kick chan struct{} // 1: write has something to do
	room chan struct{} // 1: the state has changed for a waiting Send

	mu      sync.Mutex
	pk      packer
	tuples  uint64        // handed over so far
	flush   bool          // write what there is, however little
	kicked  bool          // write knows
	held    time.Duration // for how long the buffer has been kept back, roughly
	stopped bool          // the receiver wants no more
	ending  bool          // end of stream is packed; nothing may follow
	last    bool          // write has taken the end of stream
	ended   bool          // and written it
	eof     bool          // the receiver has closed, or need not be waited for
}

// signal puts the one token into c.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put packs one tuple, waiting for room as long as ctx allows.
func (o *outStream) put(ctx context.Context, tuple []byte) error {
	whole := o.pk.fits(len(tuple)) // max does not change
	rest := tuple
	for first := true; ; {
		o.mu.Lock()
		if o.stopped || o.ending {
			stopped := o.stopped
			o.mu.Unlock()
			if stopped {
				return motion.ErrStopped
			}
			return errAborted
		}
		before := o.pk.len()
		done := false
		if whole {
			done = o.pk.add(tuple)
		} else {
			for len(rest) > 0 {
				n := o.pk.addPart(rest, first)
				if n == 0 {
					break
				}
				rest, first = rest[n:], false
			}
			done = len(rest) == 0
		}
		if done {
			o.tuples++
		} else {
			o.flush = true
		}
		kick := !o.kicked && (!done || o.pk.len() >= largeBuffer/2)
		o.kicked = o.kicked || kick
		ahead := before < connectAhead && o.pk.len() >= connectAhead
		o.mu.Unlock()
		if ahead && !kick && !o.s.connected.Load() && o.s.ahead.CompareAndSwap(false, true) {
			go o.s.connect(o.s.life.ctx) //nolint:errcheck // fails the motion
		}
		if kick {
			if err := o.s.connect(ctx); err != nil {
				return o.unsent(err, !done && !first)
			}
			signal(o.kick)
		}
		if done {
			if before == 0 || kick {
				return o.s.progress(ctx)
			}
			return nil
		}
		o.s.push(o)
		select {
		case <-o.room:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if !first {
				// The receiver would wait for the rest of this tuple.
				o.s.life.fail(err)
			}
			return err
		case <-o.s.life.ctx.Done():
			if err := o.s.life.err(); err != nil {
				return err
			}
		}
	}
}

// unsent is put's end when no connection could be made: the next one tries
// again. part says that a tuple is packed in part, which makes an end of all.
func (o *outStream) unsent(err error, part bool) error {
	o.mu.Lock()
	o.kicked = false
	o.mu.Unlock()
	if part {
		o.s.life.fail(err)
	}
	return err
}

// push has what is packed written now. It returns how much that was.
func (o *outStream) push() {
	o.mu.Lock()
	kick := !o.kicked && o.pk.len() > 0
	o.flush = o.flush || o.pk.len() > 0
	o.kicked = o.kicked || kick
	o.mu.Unlock()
	if kick {
		signal(o.kick)
	}
}

// end packs the end of the stream.
func (o *outStream) end() {
	o.mu.Lock()
	o.endLocked()
	o.mu.Unlock()
	signal(o.kick)
}

func (o *outStream) endLocked() {
	if !o.ending {
		o.ending, o.flush, o.kicked = true, true, true
		o.pk.end()
	}
}

// stop obeys the receiver's wish: what has not been written is dropped, and the
// stream ends, so that the receiver need not wait for the producer to notice.
func (o *outStream) stop() {
	o.mu.Lock()
	if !o.stopped && !o.ending {
		o.pk.drop()
		o.endLocked()
	}
	o.stopped = true
	o.mu.Unlock()
	signal(o.kick)
	signal(o.room)
}

// take returns the next buffer to write; nil means none for now. last means
// that the stream ends with it.
func (o *outStream) take() (b *buffer, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.flush && !o.ending && o.pk.len() < largeBuffer/2 {
		o.kicked = false
		return nil, false
	}
	b = o.pk.take()
	o.flush, o.held = false, 0
	if b == nil {
		o.kicked = false
	} else {
		o.last = o.ending
	}
	return b, o.last
}

func (o *outStream) write() {
	defer o.s.life.ended()
	for {
		b, last := o.take()
		if b == nil {
			select {
			case <-o.kick:
				continue
			case <-o.s.life.ctx.Done():
				return
			}
		}
		signal(o.room)
		_, err := o.conn.Write(b.b)
		b.release()
		if err != nil {
			o.lost(err)
			return
		}
		if last {
			o.written()
			return
		}
	}
}

// written is called after the end of the stream has been written.
func (o *outStream) written() {
	o.mu.Lock()
	o.ended = true
	o.eof = o.eof || o.s.opt.HandOver
	eof := o.eof
	o.mu.Unlock()
	if eof {
		Reset(o.conn)
	}
}

func (o *outStream) listen() {
	defer o.s.life.ended()
	var b [16]byte
	for {
		n, err := o.conn.Read(b[:])
		for _, c := range b[:n] {
			if c != icwire.StopByte {
				o.s.life.fail(readError(o.peer, errors.New("the receiver sent something else than a stop message")))
				return
			}
			o.stop()
		}
		if err == io.EOF && o.closed() || err != nil && o.handedOver() {
			return
		}
		if err != nil {
			o.lost(err)
			return
		}
	}
}

// handedOver says whether all has been written and nobody need be waited for.
func (o *outStream) handedOver() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended && o.s.opt.HandOver
}

// closed is called when the receiver has closed in order. It returns false
// when that is too early.
func (o *outStream) closed() bool {
	o.mu.Lock()
	o.eof = o.last
	ok, ended := o.last, o.ended
	o.mu.Unlock()
	if ended {
		// The receiver's socket waits for our FIN. A reset lets it go without
		// a TIME_WAIT on either side; nothing is in flight that it could hurt.
		Reset(o.conn)
	}
	return ok
}

// pending says whether the receiver has not closed yet.
func (o *outStream) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.eof
}

// lost fails the motion because this connection failed with err.
func (o *outStream) lost(err error) {
	l := &o.s.life
	if l.err() != nil || !l.ask() {
		return
	}
	switch {
	case err == io.EOF, errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		l.fail(ClosedPrematurely(o.peer, o.s.opt.explain(l.ctx, o.peer), err))
	default:
		l.fail(writeError(o.peer, err))
	}
}
