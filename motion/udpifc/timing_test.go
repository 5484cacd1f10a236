package udpifc

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// TestFirstLost: a lost packet is sent again after the first guess of the round
// trip, whatever else the sender was going to do later.
func TestFirstLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var count atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool { return count.Add(1) > 1 }
		n := net.executors(t, 2, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		start := time.Now()
		if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 20*time.Millisecond || d > 60*time.Millisecond {
			t.Errorf("received after %v", d)
		}
		s.Abort()
		r.Abort()
	})
}

// TestTrickle: rows that come one by one wait for the ack of the row before,
// so that they do not each take a place of the window.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := perfect(25*time.Millisecond).executors(t, 2, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		for range 20 {
			if err := s.Send(ctx, 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		for range 20 {
			if _, _, err := r.Receive(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if k := n[0].Stats().Data; k < 4 || k > 6 {
			t.Errorf("%d packets for 20 rows in four round trips", k)
		}
		s.Abort()
		r.Abort()
	})
}

// TestHeldBack: a row for one receiver is not held back for long by a producer
// that is busy with another.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n := perfect(time.Millisecond).executors(t, 3, Config{})
		quiet, err := n[1].Receive(t.Context(), mid(1), n[1].peer, peers(n[:1]))
		if err != nil {
			t.Fatal(err)
		}
		busy, err := n[2].Receive(t.Context(), mid(1), n[2].peer, peers(n[:1]))
		if err != nil {
			t.Fatal(err)
		}
		s, err := n[0].Send(t.Context(), mid(1), n[0].peer, peers(n[1:]))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(ctx, 0, []byte("row")); err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		done := make(chan struct{}, 2)
		go func() {
			for !over.Load() && s.Send(ctx, 1, make([]byte, 100)) == nil {
				time.Sleep(50 * time.Microsecond)
			}
			done <- struct{}{}
		}()
		go func() {
			for {
				if _, _, err := busy.Receive(ctx); err != nil {
					break
				}
			}
			done <- struct{}{}
		}()
		start := time.Now()
		if _, _, err := quiet.Receive(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 40*time.Millisecond {
			t.Errorf("received after %v", d)
		}
		over.Store(true)
		s.Abort()
		<-done
		<-done
		quiet.Abort()
		busy.Abort()
	})
}

// TestAbortConfirmed: an abort that arrives is said once, in both directions.
func TestAbortConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var toSender, toReceiver atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool {
			switch h, _, _ := icwire.DecodeUDP(b); h.Flags {
			case abortData:
				toReceiver.Add(1)
			case abortReply:
				toSender.Add(1)
			}
			return true
		}
		n := net.executors(t, 2, Config{})
		for c := range uint32(2) {
			s, r := open(t, mid(c), n[0], n[1])
			if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c == 0 {
				r.Abort()
			} else {
				s.Abort()
			}
			time.Sleep(time.Minute)
			s.Abort()
			r.Abort()
		}
		if a, b := toSender.Load(), toReceiver.Load(); a != 1 || b != 1 {
			t.Errorf("said %d times to the sender, %d to the receiver", a, b)
		}
	})
}

// TestStopToNobody: a receiver that wants to close learns that its sender has
// given up, though all the sender said about it was lost.
func TestStopToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var aborts atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool {
			h, _, _ := icwire.DecodeUDP(b)
			return h.Flags != abortData || aborts.Add(1) > abortTries
		}
		n := net.executors(t, 2, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Abort()
		time.Sleep(time.Minute)
		if k := aborts.Load(); k != abortTries {
			t.Fatalf("said %d times", k)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}
