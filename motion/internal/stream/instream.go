package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// inStream is one connection of a Receiver, with a goroutine, read, that cuts
// what comes into blocks of whole packets.
type inStream struct {
	r     *Receiver
	index int
	peer  motion.Peer
	room  chan struct{} // 1: the consumer has taken a block

	// Of the receiver's mutex.
	conn     net.Conn // nil until attached
	gone     bool     // never will be, or has ended
	queue    [queueDepth]*buffer
	first, n int  // of queue
	ready    bool // in the receiver's ready list

	// The consumer's.
	unpacker
	done bool // its end has been counted
}

// read is the goroutine of an attached connection.
func (in *inStream) read(conn net.Conn) {
	defer in.r.life.ended()
	if err := in.pump(conn); err != nil {
		in.lost(err)
	}
	in.r.mu.Lock()
	in.gone = true
	in.r.mu.Unlock()
	if in.r.life.err() != nil {
		Reset(conn) // or a stream that ends just now looks received
		return
	}
	// In the end, or when nobody cares how it ended. What the sender could
	// still want to say is nothing.
	conn.Close()
}

// pump reads until the end of the stream.
func (in *inStream) pump(conn net.Conn) error {
	buf := getBuffer(0, false)
	defer func() { buf.release() }()
	big, whole := false, 0
	for {
		k := len(buf.b)
		n, err := conn.Read(buf.b[k:buf.size])
		buf.b = buf.b[:k+n]
		big = big || len(buf.b) == buf.size

		next, eos, perr := 0, false, error(nil)
		whole, next, eos, perr = frame(buf.b, whole)
		if perr != nil {
			return parseError(perr, len(buf.b)-whole)
		}
		if eos && whole < len(buf.b) {
			return parseError(errors.New("received data after the end of the stream"), len(buf.b)-whole)
		}
		if whole > 0 || next > buf.size {
			// The bytes of a packet not complete yet move to the next block.
			rest := buf.b[whole:]
			fresh := getBuffer(max(next, len(rest)), big)
			fresh.b = append(fresh.b, rest...)
			buf.b = buf.b[:whole]
			if whole == 0 || !in.push(buf) {
				buf.release()
			}
			buf, whole = fresh, 0
		}
		if eos {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// push gives the consumer a block, waiting for room. False means that nobody
// wants it any more.
func (in *inStream) push(b *buffer) bool {
	r := in.r
	for {
		r.mu.Lock()
		if r.stopped {
			r.mu.Unlock()
			return false
		}
		if in.n < queueDepth {
			in.queue[(in.first+in.n)%queueDepth] = b
			in.n++
			if !in.ready {
				in.ready = true
				r.ready.push(in)
			}
			waiting := r.waiting
			r.waiting = false
			r.mu.Unlock()
			if waiting {
				signal(r.wake)
			}
			return true
		}
		r.mu.Unlock()
		select {
		case <-in.room:
		case <-r.stopping:
		case <-r.life.ctx.Done():
			return false
		}
	}
}

// load takes the stream's next block for the consumer. Under the receiver's
// mutex.
func (in *inStream) load() bool {
	if in.n == 0 {
		return false
	}
	in.unpacker.load(in.queue[in.first])
	in.queue[in.first] = nil
	in.first = (in.first + 1) % queueDepth
	in.n--
	signal(in.room)
	return true
}

// stop sends the stop byte.
func (in *inStream) stop(conn net.Conn) {
	conn.SetWriteDeadline(time.Now().Add(stopLimit)) //nolint:errcheck // then Write fails
	conn.Write([]byte{icwire.StopByte})              //nolint:errcheck // then so does reading
}

// lost fails the motion because this connection failed with err, unless the
// consumer has stopped caring.
func (in *inStream) lost(err error) {
	r := in.r
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	if stopped || r.life.err() != nil || !r.life.ask() {
		return
	}
	var e *motion.Error
	switch {
	case errors.As(err, &e):
		r.life.fail(e)
	case err == io.EOF, errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		r.life.fail(ClosedPrematurely(in.peer, r.opt.explain(r.life.ctx, in.peer), err))
	default:
		r.life.fail(readError(in.peer, err))
	}
}

// want waits until the receiver may have something for the consumer.
func (r *Receiver) want(ctx context.Context) error {
	select {
	case <-r.wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.life.ctx.Done():
		// Failed, or all that will come has come.
		return r.life.err()
	}
}
