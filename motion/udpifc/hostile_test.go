package udpifc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// The tests of this file run in time of their own: they last hours and take
// milliseconds.

func mid(command uint32) motion.ID {
	return motion.ID{Session: 5, Command: command, SendSlice: 2, RecvSlice: 1}
}

func peers(nodes []node) (out []motion.Peer) {
	for _, n := range nodes {
		out = append(out, n.peer)
	}
	return out
}

// row is a tuple that says what it is.
func row(from, to, seq int) []byte {
	r := rand.New(rand.NewPCG(uint64(from<<16+to), uint64(seq)))
	size := 12 + r.IntN(2000)
	if r.IntN(20) == 0 {
		size = 20000
	}
	b := make([]byte, 0, size+12)
	for _, v := range []int{from, to, seq} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return append(b, bytes.Repeat([]byte{byte(seq)}, size)...)
}

func send(t *testing.T, s motion.Sender, from, to, rows int) error {
	for seq := range rows {
		for i := range to {
			if err := s.Send(t.Context(), i, row(from, i, seq)); err != nil {
				return fmt.Errorf("sending row %d from %d to %d: %w", seq, from, i, err)
			}
		}
	}
	return s.Close(t.Context())
}

func receive(t *testing.T, r motion.Receiver, from, to, rows int) error {
	seen := make([]int, from)
	for {
		got, i, err := r.Receive(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("receiving in %d: %w", to, err)
		}
		if want := row(i, to, seen[i]); !bytes.Equal(got, want) {
			return fmt.Errorf("row %d from %d to %d is not as it was sent: % x", seen[i], i, to, got[:min(len(got), 12)])
		}
		seen[i]++
	}
	for i, n := range seen {
		if n != rows {
			return fmt.Errorf("%d of %d rows from %d to %d", n, rows, i, to)
		}
	}
	return r.Close(t.Context())
}

// move runs one motion.
func move(t *testing.T, id motion.ID, from, to []node, rows int) error {
	var g errgroup.Group
	for i, n := range to {
		g.Go(func() error {
			r, err := n.Receive(t.Context(), id, n.peer, peers(from))
			if err != nil {
				return err
			}
			return receive(t, r, len(from), i, rows)
		})
	}
	for i, n := range from {
		g.Go(func() error {
			s, err := n.Send(t.Context(), id, n.peer, peers(to))
			if err != nil {
				return err
			}
			return send(t, s, i, len(to), rows)
		})
	}
	return g.Wait()
}

func open(t *testing.T, id motion.ID, from, to node) (motion.Sender, motion.Receiver) {
	t.Helper()
	r, err := to.Receive(t.Context(), id, to.peer, peers([]node{from}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := from.Send(t.Context(), id, from.peer, peers([]node{to}))
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// TestHostileDefaults: with Greenplum's defaults over a bad and long link
// nothing is lost, doubled or reordered, in use after use of the same key.
func TestHostileDefaults(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tuning := Tuning{Params: link.Params{Capacity: seed%2 == 1}, DropFuture: seed%3 == 1, FullCRC: seed%3 == 2}
				n := hostile(seed, 25*time.Millisecond).executors(t, 5, Config{Tuning: tuning})
				for range 3 {
					if err := move(t, mid(1), n[:3], n[3:], 60); err != nil {
						t.Fatal(err)
					}
				}
				if n[0].Stats().Retransmitted == 0 || n[3].Stats().Disorder == 0 {
					t.Errorf("a quiet network: %v; %v", n[0].Stats(), n[3].Stats())
				}
			})
		})
	}
}

// TestHostileFailures: on such a network too every end learns that a motion
// has failed, or that there is enough.
func TestHostileFailures(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			n := hostile(seed, 10*time.Millisecond).executors(t, 5, Config{})
			var ends []func() error
			var abort, stop func()
			for i, at := range n[3:] {
				r, err := at.Receive(t.Context(), mid(1), at.peer, peers(n[:3]))
				if err != nil {
					t.Fatal(err)
				}
				if i == 1 {
					abort, stop = r.Abort, r.Stop
				}
				ends = append(ends, func() error {
					for {
						if _, _, err := r.Receive(t.Context()); err == io.EOF {
							return r.Close(t.Context())
						} else if err != nil {
							r.Abort()
							return err
						}
					}
				})
			}
			for _, at := range n[:3] {
				s, err := at.Send(t.Context(), mid(1), at.peer, peers(n[3:]))
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, func() error {
					for {
						if err := s.Broadcast(t.Context(), make([]byte, 3000)); err == motion.ErrStopped {
							return s.Close(t.Context())
						} else if err != nil {
							s.Abort()
							return err
						}
					}
				})
			}
			errs := make(chan error, len(ends))
			for _, end := range ends {
				go func() { errs <- end() }()
			}
			time.Sleep(3 * time.Second)
			start := time.Now()
			abort()
			for range ends {
				if err := <-errs; err == nil {
					t.Error("an end has not failed")
				}
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("seed %d: the last learned it after %v", seed, d)
			}
			stop()
		})
	}
}

// TestLostStop: a receiver that has enough closes, though its first wishes to
// stop are lost and the sender's producer has nothing to say.
func TestLostStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var lost atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool {
			h, _, _ := icwire.DecodeUDP(b)
			return h.Flags&icwire.UDPStop == 0 || lost.Add(1) > 4
		}
		n := net.executors(t, 2, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 100*time.Millisecond || d > time.Second || lost.Load() < 5 {
			t.Errorf("closed after %v, %d stops", d, lost.Load())
		}
		if !s.Stopped() || s.Close(t.Context()) != nil {
			t.Error("the sender is not stopped")
		}
	})
}

// TestLostAbort: an abort is repeated until it is confirmed, and then no more.
func TestLostAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var aborts atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool {
			h, _, _ := icwire.DecodeUDP(b)
			return h.Flags != abortData || aborts.Add(1) > 3
		}
		n := net.executors(t, 2, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		s.Abort()
		_, _, err := r.Receive(t.Context())
		wantError(t, err, "interconnect error: connection closed prematurely (from Remote Connection: contentId=0 at "+n[0].peer.Addr+")")
		time.Sleep(time.Minute)
		if k := aborts.Load(); k != 4 {
			t.Errorf("said %d times", k)
		}
		if err := s.Send(t.Context(), 0, nil); err == nil {
			t.Error("Send works after Abort")
		}
	})
}

// TestCloseTells: closing an executor's interconnect is told to the others, and
// does not wait for those that are not there.
func TestCloseTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		n := net.executors(t, 3, Config{})
		s, r := open(t, mid(1), n[0], n[1])
		start := time.Now()
		n[0].Close()
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("closing took %v", d)
		}
		if _, _, err := r.Receive(t.Context()); err == nil || err == io.EOF {
			t.Errorf("%v", err)
		}
		if err := s.Close(t.Context()); err == nil {
			t.Error("the sender has not failed")
		}
		_, _ = open(t, mid(1), n[1], n[2])
		net.mu.Lock()
		net.loss = 1
		net.mu.Unlock()
		start = time.Now()
		n[1].Close()
		n[1].Close()
		if d := time.Since(start); d != closeLimit {
			t.Errorf("closing took %v", d)
		}
	})
}

// TestUnreachable: a receiver that does not answer is given up, in Greenplum's
// words, after one warning.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		net.loss = 1
		var warnings, logged []string
		cfg := Config{
			Tuning: Tuning{Params: link.Params{TransmitTimeout: 20 * time.Second, MinRetries: 15}, RetryInterval: 5},
			Warn:   func(e *motion.Error) { warnings = append(warnings, e.Code+" "+e.Error()) },
			Log:    func(m string) { logged = append(logged, m) },
		}
		n := net.executors(t, 2, cfg)
		s, _ := open(t, mid(1), n[0], n[1])
		err := s.Send(t.Context(), 0, []byte("row"))
		for err == nil {
			err = s.Send(t.Context(), 0, make([]byte, 5000))
		}
		wantError(t, err, "interconnect encountered a network error, please check your network (Failed to send packet (seq 1) to "+
			n[1].peer.Addr+" (pid 1001 cid 1) after 24 retries in 20 seconds.)")
		want := "01000 interconnect may encountered a network error, please check your network (Failed to send packet (seq 1) to " +
			n[1].peer.Addr + " (pid 1001 cid 1) after 15 retries.)"
		if len(warnings) != 1 || warnings[0] != want {
			t.Errorf("warnings %q, want %q", warnings, want)
		}
		if len(logged) != 4 || !strings.Contains(logged[1], "sent again for the 10th time") {
			t.Errorf("logged %q", logged)
		}
	})
}

// TestUnreachableAtTheEnd: so is one that does not answer to the last packets;
// Close says why, and does not call it a receiver that is slow to close.
func TestUnreachableAtTheEnd(t *testing.T) {
	for _, capacity := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			net := perfect(time.Millisecond)
			net.loss = 1
			p := link.Params{TransmitTimeout: time.Second, MinRetries: 5, Capacity: capacity}
			n := net.executors(t, 2, Config{Tuning: Tuning{Params: p}})
			s, _ := open(t, mid(1), n[0], n[1])
			if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			err := s.Close(t.Context())
			if want := "interconnect encountered a network error, please check your network (Failed to send packet (seq 1) to "; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("capacity %v: %v, want %s…", capacity, err, want)
			}
			if d := time.Since(start); d < time.Second || d > 3*time.Second {
				t.Errorf("capacity %v: after %v", capacity, d)
			}
		})
	}
}

// refusing is a socket that a firewall keeps from sending, for the first so
// many datagrams.
type refusing struct {
	packetConn
	left *atomic.Int32
}

func (s refusing) send(b []byte, to netip.AddrPort) error {
	if s.left.Add(-1) >= 0 {
		return syscall.EPERM
	}
	return s.packetConn.send(b, to)
}

// TestFirewall: what is not let out is as good as lost, and said once.
func TestFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		n := perfect(time.Millisecond).executors(t, 2, Config{Refused: func(to netip.AddrPort, err error) { said = append(said, fmt.Sprint(to, " ", err)) }})
		var left atomic.Int32
		left.Store(4)
		open := n[0].socket
		n[0].socket = func() (packetConn, error) {
			s, err := open()
			return refusing{s, &left}, err
		}
		if err := move(t, mid(1), n[:1], n[1:], 10); err != nil {
			t.Fatal(err)
		}
		if want := n[1].peer.Addr + " operation not permitted"; len(said) != 1 || said[0] != want {
			t.Errorf("said %q, want once %q", said, want)
		}
		if n[0].Stats().Retransmitted < 4 {
			t.Errorf("%v", n[0].Stats())
		}
	})
}

// TestUnansweredQueries: so is one that is gone while it had no room.
func TestUnansweredQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		n := net.executors(t, 2, Config{Tuning: Tuning{Params: link.Params{TransmitTimeout: 20 * time.Second}}})
		s, _ := open(t, mid(1), n[0], n[1])
		time.AfterFunc(time.Hour, func() {
			net.mu.Lock()
			net.loss = 1
			net.mu.Unlock()
		})
		start := time.Now()
		var err error
		for err == nil {
			err = s.Send(t.Context(), 0, make([]byte, 5000))
		}
		wantError(t, err, "interconnect encountered a network error, please check your network (Did not get any response from "+
			n[1].peer.Addr+" (pid 1001 cid 1) in 20 seconds.)")
		if d := time.Since(start) - time.Hour; d < 19*time.Second || d > 22*time.Second {
			t.Errorf("%v after the receiver was gone", d)
		}
	})
}

// TestQuiet: motions on which nothing happens send nothing; one whose receiver
// does not read asks now and then.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		n := net.executors(t, 2, Config{})
		for c := range uint32(5) {
			s, r := open(t, mid(c), n[0], n[1])
			if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		open(t, mid(90), n[0], n[1]) // never used
		time.Sleep(time.Minute)
		before := net.sent()
		time.Sleep(time.Hour)
		if k := net.sent() - before; k != 0 {
			t.Errorf("%d datagrams in an hour", k)
		}
		s, _ := open(t, mid(91), n[0], n[1])
		go func() {
			for s.Send(t.Context(), 0, make([]byte, 5000)) == nil {
			}
		}()
		time.Sleep(time.Minute)
		before = net.sent()
		time.Sleep(time.Hour)
		if k := net.sent() - before; k < 13000 || k > 15000 { // a query and its answer each 512 ms
			t.Errorf("%d datagrams in an hour towards a full receiver", k)
		}
		s.Abort()
	})
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	me, ok := err.(*motion.Error)
	if !ok || me.Code != motion.CodeInterconnect || err.Error() != want {
		t.Errorf("%v\nwant 58M01 %s", err, want)
	}
}
