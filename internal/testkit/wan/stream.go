package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Stream is what one TCP connection carried.
type Stream struct {
	Bytes   int64         // of payload, received within Elapsed
	Elapsed time.Duration // of the measurement, the warm-up left out
}

// BitsPerSecond is the payload's rate. A link of Rate r and MTU 1500 carries
// at most 1448/1500 of r as TCP's payload.
func (s Stream) BitsPerSecond() float64 { return float64(s.Bytes) * 8 / s.Elapsed.Seconds() }

// PlainTCP sends from one host to another over a connection of its own as
// fast as it goes, for warmup (slow start) and then for measure, and returns
// what arrived in the latter. It is the figure to compare with. When ctx ends
// first its cause is the error.
func (n *Network) PlainTCP(ctx context.Context, from, to int, warmup, measure time.Duration) (Stream, error) {
	receiver := n.Host(to)
	ln, err := receiver.Listen(ctx, "tcp4", receiver.AddrPort(0))
	if err != nil {
		return Stream{}, fmt.Errorf("wan: plain TCP: %w", err)
	}
	defer ln.Close()
	out, err := n.Host(from).Dial(ctx, "tcp4", ln.Addr().String())
	if err != nil {
		return Stream{}, fmt.Errorf("wan: plain TCP: %w", err)
	}
	in, err := ln.Accept() // the handshake is over, so it is there
	if err != nil {
		return Stream{}, errors.Join(fmt.Errorf("wan: plain TCP: %w", err), out.Close())
	}

	var received atomic.Int64
	sent, got := make(chan error, 1), make(chan error, 1)
	go func() {
		buf := make([]byte, 256<<10)
		var err error
		for err == nil {
			_, err = out.Write(buf)
		}
		sent <- err
	}()
	go func() {
		// Not io.Copy: its read from a socket into io.Discard takes 8 KB at a time.
		buf := make([]byte, 256<<10)
		for {
			n, err := in.Read(buf)
			received.Add(int64(n))
			if err != nil {
				got <- err
				return
			}
		}
	}()

	var s Stream
	err = wait(ctx, warmup, got)
	if err == nil {
		start, before := time.Now(), received.Load()
		err = wait(ctx, measure, got)
		s = Stream{Bytes: received.Load() - before, Elapsed: time.Since(start)}
	}
	// What is still in the buffers is of no interest: reset instead of waiting.
	for _, c := range []net.Conn{out, in} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	<-sent
	if !errors.Is(err, errStreamEnded) {
		<-got
	}
	if err != nil {
		return Stream{}, fmt.Errorf("wan: plain TCP: %w", err)
	}
	return s, nil
}

var errStreamEnded = errors.New("the stream ended")

func wait(ctx context.Context, d time.Duration, ended <-chan error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-ended:
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return errors.Join(errStreamEnded, err)
	case <-timer.C:
		return nil
	}
}
