package proxied_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
)

// TestLoop: what an executor sends to itself needs no proxy.
func TestLoop(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	ic := newIC(t, proxied.Config{Socket: func() (string, error) { return none, nil }, Restart: -1, Loops: new(proxied.Loops)})
	here := peer(0)
	sending := here
	sending.Pid++
	open := func(id motion.ID) (motion.Sender, motion.Receiver) {
		t.Helper()
		r, err := ic.Receive(t.Context(), id, here, []motion.Peer{sending})
		if err != nil {
			t.Fatal(err)
		}
		s, err := ic.Send(t.Context(), id, sending, []motion.Peer{here})
		if err != nil {
			t.Fatal(err)
		}
		return s, r
	}
	for n, size := range []int{0, 10, 50_000, 1_000_000} {
		id := id
		id.Command += uint32(n)
		s, r := open(id)
		sent := make(chan error, 1)
		go func() {
			err := s.Send(t.Context(), 0, make([]byte, size))
			sent <- errors.Join(err, s.Close(t.Context()))
		}()
		b, _, err := r.Receive(t.Context())
		if err != nil || len(b) != size {
			t.Errorf("%d bytes of %d, %v", len(b), size, err)
		}
		if _, _, err := r.Receive(t.Context()); err != io.EOF {
			t.Errorf("after the last tuple: %v", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}

	// A sender that fails before it has sent anything is noticed.
	id := id
	id.Command = 100
	s, r := open(id)
	s.Abort()
	if _, _, err := r.Receive(t.Context()); err == nil || err == io.EOF {
		t.Errorf("from a sender that has failed: %v", err)
	}
	r.Abort()

	// What a sender never came for goes with the next command.
	before := descriptors(t)
	for n := range 20 {
		id.Command = uint32(200 + n)
		r, err := ic.Receive(t.Context(), id, here, []motion.Peer{sending})
		if err != nil {
			t.Fatal(err)
		}
		r.Abort()
		_ = r.Close(t.Context())
	}
	if n := descriptors(t); n > before+4 {
		t.Errorf("%d descriptors, before %d", n, before)
	}
	ic.Close()
	if _, err := ic.Receive(t.Context(), id, here, []motion.Peer{sending}); err == nil {
		t.Error("a closed interconnect receives")
	}
}

// TestLoopsOfTwo: nor does what it sends to another of its process; what one of them
// never took goes with the other.
func TestLoopsOfTwo(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	cfg := proxied.Config{Socket: func() (string, error) { return none, nil }, Restart: -1, Loops: new(proxied.Loops)}
	a, b := newIC(t, cfg), newIC(t, cfg)
	reader, writer := peer(0), peer(0)
	writer.Pid += 100
	for n := range 3 {
		id := id
		id.Command += uint32(n)
		got := make(chan error, 1)
		go func() {
			r, err := b.Receive(t.Context(), id, writer, []motion.Peer{reader})
			if err == nil {
				_, _, err = r.Receive(t.Context())
			}
			if err == nil {
				err = r.Close(t.Context())
			}
			got <- err
		}()
		s, err := a.Send(t.Context(), id, reader, []motion.Peer{writer})
		if err == nil {
			err = s.Send(t.Context(), 0, make([]byte, 1_000_000))
		}
		if err == nil {
			err = s.Close(t.Context())
		}
		if err = errors.Join(err, <-got); err != nil {
			t.Fatal(err)
		}
	}
	before := descriptors(t)
	id := id
	id.Command = 100
	s, err := a.Send(t.Context(), id, reader, []motion.Peer{writer})
	if err != nil {
		t.Fatal(err)
	}
	s.Abort()
	a.Close()
	if n := descriptors(t); n > before {
		t.Errorf("%d descriptors, before %d", n, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
