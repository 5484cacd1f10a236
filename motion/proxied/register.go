package proxied

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
)

// call is one connection to the proxy, registered for one peer.
type call struct {
	key    icwire.Key
	stream []byte // follows the hello at once; nil: for later
	path   string
	conn   *local.Conn
	loop   bool // leads back to this executor; nobody answers
	done   bool // the proxy has the stream, and there is no connection
	err    error
}

var (
	errRefused = errors.New("the proxy closed the connection without an answer")
	errAnswer  = errors.New("the proxy gave no proper answer")
)

// register makes all the calls, and again those that have failed while the proxy
// seems to be starting. ctx ends the waiting.
func (ic *Interconnect) register(ctx context.Context, calls []call) error {
	giveUp := time.Now().Add(ic.cfg.Restart)
	if ic.cfg.Whole && ic.cfg.Dialect == icwire.Magic36 {
		if err := ic.handOver(ctx, calls); err != nil {
			return err
		}
		if !slices.ContainsFunc(calls, func(c call) bool { return !c.done }) {
			return nil
		}
	}
	ic.attempt(ctx, calls)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(dialling)
	for i := range calls {
		if c := &calls[i]; c.err != nil {
			g.Go(func() error { return ic.again(gctx, c, giveUp) })
		}
	}
	return g.Wait()
}

// abandon says hello to the proxy and no more: what it tells the peers of that is
// the end of a stream that has none. A proxy that is being restarted hears of it
// when it listens again, and nobody waits for that.
func (ic *Interconnect) abandon(calls []call) {
	var later []call
	for _, c := range calls {
		if ic.hello(&c); c.err != nil {
			later = append(later, call{key: c.key})
		}
		if c.conn != nil {
			c.conn.Close()
		}
	}
	if len(later) > 0 && ic.cfg.Restart > 0 {
		_ = ic.spawn(func() { // or it is closed, and that is all there is to do
			_ = ic.register(ic.ctx, later) // nobody is left to tell
			for _, c := range later {
				if c.err == nil && c.conn != nil {
					c.conn.Close()
				}
			}
		})
	}
}

// attempt makes the calls once. All hellos are written before the first answer
// is waited for: the proxy has most answers ready by then.
func (ic *Interconnect) attempt(ctx context.Context, calls []call) {
	for i := range calls {
		if c := &calls[i]; !c.done {
			ic.hello(c)
		}
	}
	late, cancel := context.WithTimeout(ctx, ackLimit)
	defer cancel()
	stop := context.AfterFunc(late, func() {
		for i := range calls {
			if c := calls[i].conn; c != nil {
				_ = c.SetDeadline(time.Unix(1, 0)) // closed already
			}
		}
	})
	for i := range calls {
		if c := &calls[i]; c.err == nil && !c.loop && !c.done {
			c.err = c.answer(ic.cfg.Dialect)
		}
	}
	intime := stop()
	for i := range calls {
		c := &calls[i]
		if c.done {
			continue
		}
		if c.err == nil && !intime {
			c.err = errAnswer
			if ctx.Err() != nil {
				c.err = ctx.Err()
			}
		}
		if c.err != nil {
			if c.conn != nil {
				c.conn.Close()
			}
			if !errors.Is(c.err, errNotListening) {
				c.err = fmt.Errorf("ic-proxy: backend %v: %w (socket %s)", c.key, c.err, c.path)
			}
		}
	}
}

// again repeats a call that has failed until giveUp, unless the proxy has
// refused it and knows why.
func (ic *Interconnect) again(ctx context.Context, c *call, giveUp time.Time) error {
	for {
		err := c.err
		if ctx.Err() != nil {
			return ctx.Err() // connect knows why
		}
		// A proxy that closes instead of answering refuses, and knows why,
		// unless it has just died.
		if errors.Is(err, errRefused) {
			if why := ic.cause(ctx, c.key.Remote.Dbid, false); why != "" {
				return interconnectError(why, err)
			}
		} else if errors.Is(err, errAnswer) {
			return interconnectError(err.Error(), err)
		}
		if !time.Now().Before(giveUp) {
			return interconnectError(err.Error(), err)
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
		one := []call{{key: c.key, stream: c.stream}}
		ic.attempt(ctx, one)
		if *c = one[0]; c.err == nil {
			return nil
		}
	}
}

var errNotListening = errors.New("not listening")

// loopsBack says whether key leads to an executor of this instance.
func (ic *Interconnect) loopsBack(key icwire.Key) bool {
	return ic.cfg.Loops != nil && key.Remote.Dbid == key.Local.Dbid
}

// hello connects and says who it is, and writes the stream if there is one.
func (ic *Interconnect) hello(c *call) {
	var err error
	if c.loop = ic.loopsBack(c.key); c.loop {
		c.path = "a pair of its own"
		if c.conn, c.err = ic.loops.take(c.key); c.err == nil {
			c.write()
		}
		return
	}
	if c.path, c.conn, err = ic.dial(); err != nil {
		where := "as no server is running"
		if c.path != "" {
			where = "at " + c.path
		}
		c.err = notListening{fmt.Sprintf("ic-proxy: the proxy of %s is not listening %s: %v", instance(c.key.Local), where, bare(err)), err}
		return
	}
	var head [icwire.MaxHeaderLen]byte
	c.write(c.key.Header(icwire.Hello, 0, ic.cfg.Dialect).Append(head[:0], ic.cfg.Dialect))
}

// write writes the stream behind what is given. All of it goes into the socket's
// buffer, unless the system's is small: then the reader may take its time.
func (c *call) write(head ...[]byte) {
	if len(c.stream) > 0 {
		_ = c.conn.SetWriteDeadline(time.Now().Add(ackLimit)) // it is ours and open
	}
	if _, err := c.conn.Writev(append(head, c.stream)...); err != nil {
		c.err = fmt.Errorf("%w: %w", errRefused, bare(err))
	}
}

// notListening is an error that is errNotListening and reads otherwise.
type notListening struct {
	text string
	err  error
}

func (e notListening) Error() string   { return e.text }
func (e notListening) Unwrap() []error { return []error{errNotListening, e.err} }

// dial connects to the proxy where it was last. When nobody is there it looks
// where it is now; path is "" when that cannot be told.
func (ic *Interconnect) dial() (path string, conn *local.Conn, err error) {
	if p := ic.path.Load(); p != nil {
		if conn, err := local.Dial(*p); err == nil {
			return *p, conn, nil
		}
	}
	if path, err = ic.cfg.Socket(); err != nil {
		return "", nil, err
	}
	if conn, err = local.Dial(path); err == nil {
		ic.path.Store(&path)
	}
	return path, conn, err
}

// answer waits for the answer to the hello, of which it reads not a byte too
// many: the sender's packets may follow at once.
func (c *call) answer(d icwire.Dialect) error {
	var buf [icwire.MaxHeaderLen]byte
	answer := buf[:d.HeaderLen()]
	if _, err := io.ReadFull(c.conn, answer); err != nil {
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
	if want := c.key.Header(icwire.Hello, 0, d).HelloAck(); got != want {
		return fmt.Errorf("%w: received %v, expected %v", errAnswer, got, want)
	}
	return nil
}

// instance names an end's instance as the proxies do.
func instance(e icwire.End) string { return fmt.Sprintf("seg%d (dbid %d)", e.Content, e.Dbid) }

// bare is err without the address, which the message has already.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
