package stream

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
)

// socketPair returns two ends of a unix stream connection.
func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return ends[0], ends[1]
}

func motionOver(t testing.TB, g *Group) (*Sender, *Receiver) {
	here, there := socketPair(t)
	r := NewReceiver(g, Options{}, testID, []motion.Peer{seg1})
	r.Attach(0, there)
	return NewSender(g, Options{HandOver: true}, []motion.Peer{seg0}, []net.Conn{here}), r
}

// TestNoAllocations: on neither side does a tuple cost memory.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a sync.Pool forgets on purpose")
	}
	for _, size := range []int{20, 1000, 30000} {
		var g Group
		s, r := motionOver(t, &g)
		row := make([]byte, size)
		const rows = 100
		failed := make(chan error)
		move := func() {
			go func() {
				var err error
				for range rows {
					err = errors.Join(err, s.Send(t.Context(), 0, row))
				}
				failed <- errors.Join(err, s.Flush(t.Context()))
			}()
			for range rows {
				if _, _, err := r.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			move()
		}
		if n := testing.AllocsPerRun(100, move); n > rows/20 {
			t.Errorf("%v allocations for %d tuples of %d bytes", n, rows, size)
		}
		g.Close()
	}
}

// BenchmarkMotion moves tuples over one unix socket.
func BenchmarkMotion(b *testing.B) {
	for _, size := range []int{20, 200, 2000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var g Group
			defer g.Close()
			s, r := motionOver(b, &g)
			row := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			go func() {
				for range b.N {
					if err := s.Send(b.Context(), 0, row); err != nil {
						b.Error(err)
						return
					}
				}
				s.Close(b.Context())
			}()
			for range b.N {
				if _, _, err := r.Receive(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if err := r.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkRedistribute moves narrow rows from one sender to many receivers.
func BenchmarkRedistribute(b *testing.B) {
	const receivers = 16
	var g Group
	defer g.Close()
	var conns []net.Conn
	var peers []motion.Peer
	done := make(chan error, receivers)
	for range receivers {
		here, there := socketPair(b)
		r := NewReceiver(&g, Options{}, testID, []motion.Peer{seg1})
		r.Attach(0, there)
		conns, peers = append(conns, here), append(peers, seg0)
		go func() {
			for {
				if _, _, err := r.Receive(b.Context()); err != nil {
					done <- r.Close(b.Context())
					return
				}
			}
		}()
	}
	s := NewSender(&g, Options{}, peers, conns)
	row := make([]byte, 20)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Send(b.Context(), i*7%receivers, row); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	for range receivers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkShort is a whole motion of one row: what a short query pays.
func BenchmarkShort(b *testing.B) {
	var g Group
	defer g.Close()
	b.ReportAllocs()
	for range b.N {
		s, r := motionOver(b, &g)
		done := make(chan error, 1)
		go func() {
			err := s.Send(b.Context(), 0, []byte("row"))
			if err == nil {
				err = s.Close(b.Context())
			}
			done <- err
		}()
		for {
			if _, _, err := r.Receive(b.Context()); err != nil {
				break
			}
		}
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
