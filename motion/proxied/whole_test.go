package proxied_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
)

// takeWhole is a proxy as far as a sender of short streams sees it. It does what it
// is told for each connection: a letter for each packet.
//
//	a  take it
//	d  decline it
//	g  answer with something else
//	h  take the HELLO and what follows to the end
//	q  say nothing, until the other end has gone
//	x  close
//
// At the end of its letters it closes.
func takeWhole(t *testing.T, k *fakeProxy, c net.Conn, what string) {
	for _, do := range what {
		head := make([]byte, icwire.MaxHeaderLen)
		if _, err := io.ReadFull(c, head); err != nil {
			return // the executor has been closed
		}
		h, err := icwire.Decode(head, icwire.Magic36)
		if err != nil {
			t.Error(err)
			return
		}
		stream := make([]byte, int(h.Len)-len(head))
		if _, err := io.ReadFull(c, stream); err != nil {
			t.Error(err)
			return
		}
		answer := h.HelloAck()
		answer.Len = icwire.MaxHeaderLen
		switch do {
		case 'd':
			answer.Type = icwire.Bye
		case 'g':
			answer.Session++
		case 'q':
			_, _ = io.Copy(io.Discard, c)
			return
		case 'x':
			return
		}
		if _, err := c.Write(answer.Append(nil, icwire.Magic36)); err != nil {
			t.Error(err)
		}
		if do == 'h' {
			if stream, err = io.ReadAll(c); err != nil {
				t.Error(err)
			}
		}
		if do == 'a' || do == 'h' {
			k.note(fmt.Sprintf("%v %d %d", h.Type, h.DstContent, bytes.Count(stream, []byte("tuple"))))
		}
	}
}

// TestWhole: what becomes of a short stream when the proxy takes it, and when it
// does not.
func TestWhole(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []string // by connection
		rows   []int    // for each of two receivers, motion by motion
		heard  []string
	}{
		{"one connection for all", []string{"aaaa"}, []int{1, 2},
			[]string{"WHOLE 1 1", "WHOLE 2 1", "WHOLE 1 2", "WHOLE 2 2"}},
		{"declined", []string{"da", "h"}, []int{1}, []string{"HELLO 1 1", "WHOLE 2 1"}},
		{"unknown to it", []string{"x", "h", "h"}, []int{1}, []string{"HELLO 1 1", "HELLO 2 1"}},
		{"garbage", []string{"g", "h", "h"}, []int{1}, []string{"HELLO 1 1", "HELLO 2 1"}},
		{"closed after one", []string{"ax", "h"}, []int{1}, []string{"HELLO 2 1", "WHOLE 1 1"}},
		{"another proxy next time", []string{"aa", "aa"}, []int{1, 3},
			[]string{"WHOLE 1 1", "WHOLE 1 3", "WHOLE 2 1", "WHOLE 2 3"}},
		{"none next time", []string{"aa", "x", "h", "h"}, []int{1, 3},
			[]string{"HELLO 1 3", "HELLO 2 3", "WHOLE 1 1", "WHOLE 2 1"}},
		{"no rows", []string{"aa"}, []int{0}, []string{"WHOLE 1 0", "WHOLE 2 0"}},
		{"too long", []string{"h", "h"}, []int{1000}, []string{"HELLO 1 1000", "HELLO 2 1000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := startFakeProxy(t, takeWhole, c.script...)
			ic := newIC(t, proxied.Config{Socket: k.socket, Restart: -1, Whole: true})
			for i, rows := range c.rows {
				id := id
				id.Command += uint32(i)
				s, err := ic.Send(t.Context(), id, peer(0), []motion.Peer{peer(1), peer(2)})
				if err != nil {
					t.Fatal(err)
				}
				for range rows {
					if err := s.Broadcast(t.Context(), []byte("tuple")); err != nil {
						t.Fatal(err)
					}
					if rows > 100 {
						if err := s.Flush(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			ic.Close()
			k.ln.Close()
			k.wg.Wait()
			slices.Sort(k.heard)
			slices.Sort(c.heard)
			if !slices.Equal(k.heard, c.heard) {
				t.Errorf("the proxy has %q, expected %q", k.heard, c.heard)
			}
		})
	}
}

// TestWholeGivenUp: a proxy that does not answer keeps nobody who no longer
// waits, and what came to nothing is no connection for the next.
func TestWholeGivenUp(t *testing.T) {
	k := startFakeProxy(t, takeWhole, "q", "aa")
	ic := newIC(t, proxied.Config{Socket: k.socket, Restart: -1, Whole: true})
	send := func(ctx context.Context, command uint32) error {
		id := id
		id.Command = command
		s, err := ic.Send(ctx, id, peer(0), []motion.Peer{peer(1)})
		if err != nil {
			return err
		}
		return errors.Join(s.Send(ctx, 0, []byte("tuple")), s.Close(ctx))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := send(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up with %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("after %v", d)
	}
	for n := range 2 {
		if err := send(t.Context(), uint32(2+n)); err != nil {
			t.Error(err)
		}
	}
}

// TestAbandoned: a sender that fails while its proxy is being restarted is heard
// of when that listens again.
func TestAbandoned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ic_proxy")
	ic := newIC(t, proxied.Config{Socket: func() (string, error) { return path, nil }})
	s, err := ic.Send(t.Context(), id, peer(0), []motion.Peer{peer(1), peer(2)})
	if err != nil {
		t.Fatal(err)
	}
	s.Abort()
	rel := startRelayAt(t, path)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		rel.mu.Lock()
		n := rel.hellos
		rel.mu.Unlock()
		if n == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d hellos", n)
		}
	}
	// Closing waits for nobody.
	s, err = ic.Send(t.Context(), id, peer(0), []motion.Peer{peer(1)})
	if err != nil {
		t.Fatal(err)
	}
	rel.kill()
	s.Abort()
	start := time.Now()
	ic.Close()
	if d := time.Since(start); d > time.Second {
		t.Errorf("closed after %v", d)
	}
}
