package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// pipe opens a motion over a net.Pipe, which holds no bytes by itself.
func pipe(g *Group, opt Options) (*Sender, *Receiver) {
	here, there := net.Pipe()
	r := NewReceiver(g, opt, testID, []motion.Peer{seg1})
	r.Attach(0, there)
	return NewSender(g, opt, []motion.Peer{seg0}, []net.Conn{here}), r
}

// TestPause: what a pausing producer has sent goes out soon.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		defer g.Close()
		s, r := pipe(&g, Options{})
		for range 3 {
			for range 10 {
				if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			for range 10 {
				if _, _, err := r.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if d := time.Since(start); d < pauseFirst || d > 4*pauseFirst {
				t.Errorf("received after %v", d)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestHold: a producer that goes on all the time, but slowly, does not hold
// its rows back longer than holdLimit.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		defer g.Close()
		s, r := pipe(&g, Options{})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for {
				time.Sleep(500 * time.Microsecond)
				now, _ := time.Now().MarshalBinary()
				if err := s.Send(t.Context(), 0, now); err != nil {
					return
				}
			}
		})
		packets, last := 0, time.Time{}
		for range 1000 {
			b, _, err := r.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var sent time.Time
			if err := sent.UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(sent); d > holdLimit+2*pauseLast {
				t.Fatalf("a row was held for %v", d)
			}
			if now := time.Now(); now != last {
				packets, last = packets+1, now
			}
		}
		if packets > 200 {
			t.Errorf("1000 rows in %d packets", packets)
		}
		s.Abort()
		r.Abort()
	})
}

// TestTransmitTimeout: the limit that holds unless set.
func TestTransmitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		defer g.Close()
		here, there := net.Pipe()
		defer there.Close()
		s := NewSender(&g, Options{}, []motion.Peer{seg0}, []net.Conn{here})
		start := time.Now()
		err := s.Close(t.Context())
		if d := time.Since(start); d != time.Hour {
			t.Errorf("Close waited %v", d)
		}
		if err == nil || !strings.Contains(err.Error(), "1 connection(s) with pending response after 3600 seconds") {
			t.Error(err)
		}
	})
}

// TestExplain: the cause is asked for once, not for longer than its limit, and
// not when nobody wants to know.
func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		opt := Options{Explain: func(ctx context.Context, p motion.Peer) string {
			asked++
			<-ctx.Done()
			return "too late, but the cause"
		}}
		var g Group
		defer g.Close()
		s, r := pipe(&g, opt)
		start := time.Now()
		s.Abort()
		_, _, err := r.Receive(t.Context())
		if want := "interconnect error: connection closed prematurely: too late, but the cause"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("the cause of %v is not kept", err)
		}
		if d := time.Since(start); d != explainLimit || asked != 1 {
			t.Errorf("asked %d times, error after %v", asked, d)
		}

		s, r = pipe(&g, opt)
		s.Abort()
		synctest.Wait()
		start = time.Now()
		r.Abort()
		if _, _, err := r.Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-r.Done()
		if d := time.Since(start); d != 0 || asked != 2 {
			t.Errorf("asked %d times, abort took %v", asked, d)
		}
	})
}

// TestStopBeforeAttach: a sender that comes after the receiver has stopped is
// told so.
func TestStopBeforeAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		defer g.Close()
		r := NewReceiver(&g, Options{}, testID, []motion.Peer{seg1})
		closed := make(chan error)
		go func() { closed <- r.Close(t.Context()) }()
		synctest.Wait()
		here, there := net.Pipe()
		s := NewSender(&g, Options{}, []motion.Peer{seg0}, []net.Conn{here})
		r.Attach(0, there)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := s.Send(t.Context(), 0, []byte("row")); err != motion.ErrStopped {
			t.Error(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		// One that comes after a failure, or twice, is closed.
		r = NewReceiver(&g, Options{}, testID, []motion.Peer{seg1})
		r.Abort()
		here, there = net.Pipe()
		r.Attach(0, there)
		if _, err := here.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
	})
}
