package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// opener is an Opening that notes what is asked of it. The receivers' ends of
// what it connects are read to their end.
type opener struct {
	connects, abandons int
	delivered          [][][]byte
	fail               error
	hang               bool // until ctx ends
	slow               time.Duration
	got                chan []byte // a stream that has been read
}

func (o *opener) opening(n int) Opening {
	wait := func(ctx context.Context) error {
		if o.hang {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		time.Sleep(o.slow)
		return o.fail
	}
	return Opening{
		Connect: func(ctx context.Context) ([]net.Conn, error) {
			o.connects++
			if err := wait(ctx); err != nil {
				return nil, err
			}
			conns := make([]net.Conn, n)
			for i := range conns {
				here, there := net.Pipe()
				conns[i] = here
				go func() {
					b, _ := io.ReadAll(there)
					there.Close()
					o.got <- b
				}()
			}
			return conns, nil
		},
		Deliver: func(ctx context.Context, streams [][]byte) error {
			var list [][]byte
			for _, s := range streams {
				list = append(list, bytes.Clone(s))
			}
			o.delivered = append(o.delivered, list)
			return wait(ctx)
		},
		Abandon: func() { o.abandons++ },
	}
}

var twoReceivers = []motion.Peer{seg0, seg1}

// TestLateSender: when a sender that is not connected connects, and what happens
// when it never does.
func TestLateSender(t *testing.T) {
	errDown := errors.New("the proxy is down")
	for _, c := range []struct {
		name                         string
		o                            opener
		play                         func(t *testing.T, s *Sender) error
		connects, delivers, abandons int
		err                          error
	}{
		{name: "short", play: func(t *testing.T, s *Sender) error {
			if err := s.Broadcast(t.Context(), []byte("ab")); err != nil {
				return err
			}
			return s.Close(t.Context())
		}, delivers: 1},
		{name: "nothing", play: func(t *testing.T, s *Sender) error { return s.Close(t.Context()) }, delivers: 1},
		{name: "closed twice", play: func(t *testing.T, s *Sender) error { return errors.Join(s.Close(t.Context()), s.Close(t.Context())) }, delivers: 1},
		{name: "much", play: func(t *testing.T, s *Sender) error {
			for range 40 {
				if err := s.Send(t.Context(), 1, make([]byte, 1000)); err != nil {
					return err
				}
			}
			return s.Close(t.Context())
		}, connects: 1},
		{name: "some", play: func(t *testing.T, s *Sender) error {
			for range 10 {
				if err := s.Send(t.Context(), 1, make([]byte, 1000)); err != nil {
					return err
				}
			}
			synctest.Wait()
			if !s.connected.Load() {
				t.Error("not connected with 10 kB to send")
			}
			return s.Close(t.Context())
		}, connects: 1},
		{name: "one long tuple", play: func(t *testing.T, s *Sender) error {
			return errors.Join(s.Send(t.Context(), 0, make([]byte, 300_000)), s.Close(t.Context()))
		}, connects: 1},
		{name: "a pause", play: func(t *testing.T, s *Sender) error {
			if err := s.Send(t.Context(), 0, []byte("ab")); err != nil {
				return err
			}
			time.Sleep(5 * pauseUnconnected)
			synctest.Wait()
			return s.Close(t.Context())
		}, connects: 1},
		{name: "a flush", play: func(t *testing.T, s *Sender) error { return errors.Join(s.Flush(t.Context()), s.Close(t.Context())) }, connects: 1},
		{name: "aborted", play: func(t *testing.T, s *Sender) error { s.Abort(); return s.Close(t.Context()) }, abandons: 1, err: errAborted},
		{name: "cancelled before the end", play: func(t *testing.T, s *Sender) error {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errDown)
			return s.Close(ctx)
		}, abandons: 1, err: errDown},
		{name: "cannot be delivered", o: opener{fail: errDown}, play: func(t *testing.T, s *Sender) error { return s.Close(t.Context()) }, delivers: 1, err: errDown},
		{name: "cannot connect", o: opener{fail: errDown}, play: func(t *testing.T, s *Sender) error {
			err := s.Flush(t.Context())
			if again := s.Close(t.Context()); again != err {
				t.Errorf("Close: %v", again)
			}
			return err
		}, connects: 1, err: errDown},
		{name: "cancelled while it is delivered", o: opener{hang: true}, play: func(t *testing.T, s *Sender) error {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errDown) })
			return s.Close(ctx)
		}, delivers: 1, err: errDown},
		{name: "cancelled while it connects", o: opener{hang: true}, play: func(t *testing.T, s *Sender) error {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errDown) })
			err := s.Send(ctx, 0, make([]byte, 300_000))
			s.Abort()
			return err
		}, connects: 1, err: errDown},
		{name: "cancelled while the pause connects", o: opener{hang: true}, play: func(t *testing.T, s *Sender) error {
			if err := s.Send(t.Context(), 0, []byte("ab")); err != nil {
				return err
			}
			time.Sleep(5 * pauseUnconnected)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(errDown) })
			return s.Close(ctx)
		}, connects: 1, err: errDown},
		{name: "a pause while it is delivered", o: opener{slow: time.Second}, play: func(t *testing.T, s *Sender) error {
			// Whoever has seen the pause before the end wants to connect.
			time.AfterFunc(time.Millisecond, func() {
				if err := s.connect(s.life.ctx); err == nil {
					t.Error("connected after the end")
				}
			})
			return s.Close(t.Context())
		}, delivers: 1},
		{name: "aborted while it is delivered", o: opener{hang: true}, play: func(t *testing.T, s *Sender) error {
			time.AfterFunc(time.Second, s.Abort)
			return s.Close(t.Context())
		}, delivers: 1, err: errAborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.o.got = make(chan []byte, len(twoReceivers))
				var g Group
				s := NewLateSender(&g, Options{HandOver: true}, twoReceivers, c.o.opening(len(twoReceivers)))
				if err := c.play(t, s); !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				g.Close()
				synctest.Wait()
				if c.o.connects != c.connects || len(c.o.delivered) != c.delivers || c.o.abandons != c.abandons {
					t.Errorf("connected %d times, delivered %d, abandoned %d", c.o.connects, len(c.o.delivered), c.o.abandons)
				}
				if c.err != nil {
					return
				}
				streams := [][]byte{}
				if c.delivers > 0 {
					streams = c.o.delivered[0]
				} else {
					for range twoReceivers {
						streams = append(streams, <-c.o.got)
					}
				}
				for _, b := range streams {
					if !bytes.HasSuffix(b, endChunk) {
						t.Errorf("a stream of %d bytes without its end", len(b))
					}
				}
			})
		})
	}
}

// TestLateSenderInClosedGroup: nobody hears of it.
func TestLateSenderInClosedGroup(t *testing.T) {
	var g Group
	g.Close()
	var o opener
	s := NewLateSender(&g, Options{HandOver: true}, twoReceivers, o.opening(2))
	if err := s.Close(t.Context()); !errors.Is(err, errAborted) {
		t.Error(err)
	}
	if o.connects+len(o.delivered) > 0 {
		t.Error("it was connected all the same")
	}
}
