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

// line is a connection with the proxy that an executor keeps to hand over short
// streams.
type line struct {
	mu     sync.Mutex
	conn   *local.Conn // nil while somebody uses it
	closed bool
}

func (l *line) take() *local.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conn
	l.conn = nil
	return c
}

// keep takes c for the next one, unless there is one.
func (l *line) keep(c *local.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn != nil {
		c.Close()
		return
	}
	l.conn = c
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
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
	conn := ic.line.take()
	for kept := conn != nil; ; kept = false {
		if conn == nil {
			var err error
			if _, conn, err = ic.dial(); err != nil {
				return nil
			}
		}
		again, err := converse(ctx, conn, list, pieces)
		if again {
			ic.line.keep(conn)
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
		conn = nil // it was with a proxy that is no more
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
