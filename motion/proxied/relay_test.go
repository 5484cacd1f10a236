package proxied_test

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trunkline-db/trunkline/icwire"
)

// relay is all proxies of a cluster in one socket: it answers each backend's
// HELLO and joins the two ends of a logical connection.
type relay struct {
	t    *testing.T
	ln   net.Listener
	path string
	wg   sync.WaitGroup

	mu      sync.Mutex
	waiting map[icwire.ID][]net.Conn // for their other end, by their own key
	conns   map[net.Conn]bool
	closed  bool
	// refuse, when set, makes it close connections instead of answering.
	refuse bool
	hellos int
}

func startRelay(t *testing.T) *relay {
	t.Helper()
	return startRelayAt(t, filepath.Join(t.TempDir(), "ic_proxy"))
}

func startRelayAt(t *testing.T, path string) *relay {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, ln: ln, path: path, waiting: map[icwire.ID][]net.Conn{}, conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(r.kill)
	return r
}

func (r *relay) socket() (string, error) { return r.path, nil }

// kill closes everything at once, as a killed proxy does.
func (r *relay) kill() {
	r.mu.Lock()
	r.closed = true
	r.ln.Close()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) accept() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns[c] = true
		if r.closed {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Go(func() { r.serve(c) })
	}
}

func (r *relay) serve(c net.Conn) {
	b := make([]byte, icwire.MaxHeaderLen)
	if _, err := io.ReadFull(c, b); err != nil {
		c.Close()
		return
	}
	h, err := icwire.Decode(b, icwire.Magic36)
	if err != nil || h.Type != icwire.Hello || h.Len != icwire.MaxHeaderLen {
		r.t.Errorf("the backend said %x: %v, %v", b, h, err)
	}
	r.mu.Lock()
	r.hellos++
	refuse := r.refuse
	r.mu.Unlock()
	if refuse {
		c.Close()
		return
	}
	_, _ = c.Write(h.HelloAck().Append(nil, icwire.Magic36)) // one that has gone says so when it is read
	own, other := h.SrcKey().ID(), h.DstKey().ID()
	r.mu.Lock()
	var peer net.Conn
	if q := r.waiting[other]; len(q) > 0 {
		peer, r.waiting[other] = q[0], q[1:]
	} else {
		r.waiting[own] = append(r.waiting[own], c)
	}
	r.mu.Unlock()
	if peer != nil {
		r.join(c, peer)
	}
}

// join carries bytes and ends both ways until both directions have ended.
func (r *relay) join(a, b net.Conn) {
	var wg sync.WaitGroup
	carry := func(from, to net.Conn) {
		if _, err := io.Copy(to, from); err != nil {
			from.Close()
			to.Close()
		}
		to.(*net.UnixConn).CloseWrite()
	}
	wg.Go(func() { carry(a, b) })
	carry(b, a)
	wg.Wait()
	a.Close()
	b.Close()
	r.mu.Lock()
	delete(r.conns, a)
	delete(r.conns, b)
	r.mu.Unlock()
}
