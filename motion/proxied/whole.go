package proxied

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
)

// pool is connections with the proxy that are kept for the next motion.
type pool[T io.Closer] struct {
	mu     sync.Mutex
	free   []T
	closed bool
}

func (p *pool[T]) take() (c T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c, ok = p.free[n-1], true
		p.free = p.free[:n-1]
	}
	return c, ok
}

// keep takes c for the next one, unless there are enough.
func (p *pool[T]) keep(c T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.free) == mostKept {
		c.Close()
		return
	}
	p.free = append(p.free, c)
}

func (p *pool[T]) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.free {
		c.Close()
	}
	p.free = nil
}

// handOver gives the proxy the streams of calls whole, and notes which it has
// taken. A proxy that has not answered has sent nothing on: what is left over is
// for a hello, which says what is wrong. It fails when the proxy does not answer
// in time.
func (ic *Interconnect) handOver(ctx context.Context, calls []call) error {
	var list []*call
	var pieces [][]byte
	heads := make([]byte, 0, len(calls)*icwire.MaxHeaderLen)
	for i := range calls {
		c := &calls[i]
		if len(c.stream) == 0 || len(c.stream) > icwire.MaxPacketLen-icwire.MaxHeaderLen || ic.loopsBack(c.key) {
			continue
		}
		at := len(heads)
		heads = c.key.Header(icwire.Whole, len(c.stream), icwire.Magic36).Append(heads, icwire.Magic36)
		pieces = append(pieces, heads[at:], c.stream)
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil
	}
	conn, kept := ic.lines.take()
	for ; ; kept = false {
		if !kept {
			var err error
			if _, conn, err = ic.dial(); err != nil {
				return nil
			}
		}
		again, err := converse(ctx, conn, list, pieces)
		if again {
			ic.lines.keep(conn)
		} else {
			conn.Close()
		}
		switch {
		case err == nil || ctx.Err() != nil:
			return ctx.Err()
		case isTimeout(err):
			err = fmt.Errorf("ic-proxy: backend %v: %w to WHOLE within %v", list[0].key, errAnswer, ackLimit)
			return interconnectError(err.Error(), err)
		case !kept || list[0].done:
			return nil
		}
		// It was with a proxy that is no more.
	}
}

// converse writes the packets and reads an answer for each. It says whether the
// connection is good for more.
func converse(ctx context.Context, conn *local.Conn, list []*call, pieces [][]byte) (again bool, err error) {
	_ = conn.SetDeadline(time.Now().Add(ackLimit)) // it is ours and open
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() { again = stop() && err == nil }()
	if _, err := conn.Writev(pieces...); err != nil {
		return false, err
	}
	answers := make([]byte, len(list)*icwire.MaxHeaderLen)
	n, err := io.ReadFull(conn, answers)
	for i, c := range list[:n/icwire.MaxHeaderLen] {
		h, bad := icwire.Decode(answers[i*icwire.MaxHeaderLen:], icwire.Magic36)
		if bad != nil {
			return false, bad
		}
		want := c.key.Header(icwire.Hello, 0, icwire.Magic36).HelloAck()
		c.done = h == want
		if want.Type = icwire.Bye; !c.done && h != want {
			return false, fmt.Errorf("%w: received %v", errAnswer, h)
		}
	}
	return false, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
