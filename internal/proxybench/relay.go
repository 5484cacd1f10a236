package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// The kinds of byte pump.
const (
	PumpSplice = "splice" // moves pages from socket to socket inside the kernel
	PumpCopy   = "copy"   // reads into a buffer of 64 KiB and writes it
)

const relayBuffer = 64 << 10

// Relay is one of the two processes of the byte pump: for every connection at
// the listening address it makes one to the other address and moves bytes both
// ways, nothing else, in the way of kind. Addresses are "unix:PATH" or
// "tcp:HOST:PORT". It calls ready with the address it listens on and serves
// until ctx ends.
func Relay(ctx context.Context, kind, listen, connect string, ready func(addr string)) error {
	if kind != PumpSplice && kind != PumpCopy {
		return fmt.Errorf("relay: unknown kind %q", kind)
	}
	ln, la, ok := strings.Cut(listen, ":")
	cn, ca, ok2 := strings.Cut(connect, ":")
	if !ok || !ok2 {
		return fmt.Errorf("relay: %q and %q must be unix:PATH or tcp:HOST:PORT", listen, connect)
	}
	l, err := net.Listen(ln, la)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	ready(l.Addr().String())
	for {
		in, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			l.Close()
			return err
		}
		wg.Go(func() {
			var d net.Dialer
			out, err := d.DialContext(ctx, cn, ca)
			if err != nil {
				in.Close()
				return
			}
			pump(ctx, kind, in.(halfCloser), out.(halfCloser))
		})
	}
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// pump copies between a and b until both directions have ended, and closes
// them.
func pump(ctx context.Context, kind string, a, b halfCloser) {
	defer a.Close()
	defer b.Close()
	defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() { oneWay(kind, b, a) })
	oneWay(kind, a, b)
	wg.Wait()
}

func oneWay(kind string, dst, src halfCloser) {
	var err error
	if kind == PumpSplice {
		_, err = io.Copy(dst, src)
	} else {
		// Without the methods that would make it splice.
		_, err = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, relayBuffer))
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		src.Close()
	}
	_ = dst.CloseWrite()
}
