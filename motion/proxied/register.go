package proxied

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// register connects to the proxy and says who it is, again and again while the
// proxy seems to be starting.
func (ic *Interconnect) register(ctx context.Context, key icwire.Key) (net.Conn, error) {
	giveUp := time.Now().Add(ic.cfg.Restart)
	for {
		path, err := ic.cfg.Socket()
		var conn net.Conn
		if err != nil {
			err = fmt.Errorf("ic-proxy: the proxy of %s is not listening, as no server is running: %w", instance(key.Local), err)
		} else {
			conn, err = ic.hello(ctx, path, key)
		}
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err() // connect knows why
		}
		// A proxy that closes instead of answering refuses, and knows why,
		// unless it has just died.
		if errors.Is(err, errRefused) {
			if why := ic.cause(ctx, key.Remote.Dbid, false); why != "" {
				return nil, interconnectError(why, err)
			}
		} else if errors.Is(err, errAnswer) {
			return nil, interconnectError(err.Error(), err)
		}
		if !time.Now().Before(giveUp) {
			return nil, interconnectError(err.Error(), err)
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
}

var (
	errRefused = errors.New("the proxy closed the connection without an answer")
	errAnswer  = errors.New("the proxy gave no proper answer")
)

// hello connects to the proxy at path and registers there under key.
func (ic *Interconnect) hello(ctx context.Context, path string, key icwire.Key) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("ic-proxy: the proxy of %s is not listening at %s: %w", instance(key.Local), path, bare(err))
	}
	conn.SetDeadline(time.Now().Add(ackLimit))                                   //nolint:errcheck // then the handshake fails
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // closed already
	err = shakeHands(conn, key, ic.cfg.Dialect)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ic-proxy: backend %v: %w (socket %s)", key, err, path)
	}
	return conn, nil
}

// instance names an end's instance as the proxies do.
func instance(e icwire.End) string { return fmt.Sprintf("seg%d (dbid %d)", e.Content, e.Dbid) }

// shakeHands, within the deadline of conn, says Hello and waits for the answer, of which it reads not a byte
// too many: the sender's packets may follow at once.
func shakeHands(conn net.Conn, key icwire.Key, d icwire.Dialect) error {
	hello := key.Header(icwire.Hello, 0, d)
	if _, err := conn.Write(hello.Append(nil, d)); err != nil {
		return fmt.Errorf("%w: %w", errRefused, bare(err))
	}
	answer := make([]byte, d.HeaderLen())
	if _, err := io.ReadFull(conn, answer); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return fmt.Errorf("%w to HELLO within %v", errAnswer, ackLimit)
		}
		return fmt.Errorf("%w: %w", errRefused, bare(err))
	}
	got, err := icwire.Decode(answer, d)
	if err != nil {
		return fmt.Errorf("%w to HELLO: %w", errAnswer, err)
	}
	if want := hello.HelloAck(); got != want {
		return fmt.Errorf("%w: received %v, expected %v", errAnswer, got, want)
	}
	return conn.SetDeadline(time.Time{})
}

// bare is err without the address, which the message has already.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
