package tcp

import (
	"net"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// key is what a registration message says of the sender and its motion.
type key struct {
	id      motion.ID
	content int16
	pid     int32
}

func registered(r icwire.Registration) key {
	return key{
		id: motion.ID{
			Session: r.Session, Command: r.Command,
			SendSlice: int16(r.SendSlice), RecvSlice: int16(r.RecvSlice),
		},
		content: int16(r.SrcContent), pid: r.SrcPid,
	}
}

// registry brings senders' connections and receivers together.
type registry struct {
	mu       sync.Mutex
	timeout  time.Duration // negative for none
	closed   bool
	expected map[key]*awaited
	early    map[key]*kept // came before their receiver
	refused  map[key]*kept // their receiver has failed before they came; no connection
}

// awaited is a receiver some of whose senders have not connected yet.
type awaited struct {
	r        *stream.Receiver
	senders  []motion.Peer
	keys     []key // of the senders, in order
	complete chan struct{}
	missing  int // of the registry's mutex
}

type kept struct {
	conn  net.Conn
	timer *time.Timer // nil for no limit
}

func (k *kept) drop() {
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.conn != nil {
		stream.Reset(k.conn)
	}
}

func (g *registry) init(timeout time.Duration) {
	g.timeout = timeout
	g.expected, g.early, g.refused = map[key]*awaited{}, map[key]*kept{}, map[key]*kept{}
}

func (g *registry) setTimeout(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timeout = d
}

// keep enters conn, which may be nil, into m, until the timeout. The latest
// counts: a sender has only one connection for a motion, so that one before it
// is left from a motion that failed.
func (g *registry) keep(m map[key]*kept, k key, conn net.Conn) {
	if old := m[k]; old != nil {
		old.drop()
		delete(m, k)
	}
	e := &kept{conn: conn}
	if len(m) >= maxKept {
		e.drop()
		return
	}
	if g.timeout > 0 {
		e.timer = time.AfterFunc(g.timeout, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if m[k] == e {
				e.drop()
				delete(m, k)
			}
		})
	}
	m[k] = e
}

// expect announces a receiver and gives it the connections that are there.
func (g *registry) expect(id motion.ID, r *stream.Receiver, senders []motion.Peer) (*awaited, error) {
	w := &awaited{r: r, senders: senders, complete: make(chan struct{}), missing: len(senders)}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range senders {
		k := key{id, p.Content, p.Pid}
		if g.expected[k] != nil {
			return nil, motion.Errorf("interconnect error: A HTAB entry for motion node %d already exists", id.SendSlice)
		}
		w.keys = append(w.keys, k)
	}
	for i, k := range w.keys {
		if old := g.refused[k]; old != nil {
			old.drop()
			delete(g.refused, k)
		}
		if e := g.early[k]; e != nil {
			delete(g.early, k)
			if e.timer != nil {
				e.timer.Stop()
			}
			g.attach(w, i, e.conn)
		} else {
			g.expected[k] = w
		}
	}
	if len(senders) == 0 {
		close(w.complete)
	}
	return w, nil
}

func (g *registry) attach(w *awaited, i int, conn net.Conn) {
	w.r.Attach(i, conn)
	if w.missing--; w.missing == 0 {
		close(w.complete)
	}
}

// arrive takes a connection that has registered.
func (g *registry) arrive(k key, conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		stream.Reset(conn)
		return
	}
	if w := g.expected[k]; w != nil {
		delete(g.expected, k)
		for i := range w.keys {
			if w.keys[i] == k {
				g.attach(w, i, conn)
				return
			}
		}
	}
	if e := g.refused[k]; e != nil {
		e.drop()
		delete(g.refused, k)
		stream.Reset(conn)
		return
	}
	g.keep(g.early, k, conn)
}

// absent are the senders that have not connected.
func (g *registry) absent(w *awaited) (peers []motion.Peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, k := range w.keys {
		if g.expected[k] == w {
			peers = append(peers, w.senders[i])
		}
	}
	return peers
}

// forget is called when a receiver has ended before all its senders came. They
// will be refused, so that they do not wait for somebody to read.
func (g *registry) forget(w *awaited) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range w.keys {
		if g.expected[k] == w {
			delete(g.expected, k)
			if !g.closed {
				g.keep(g.refused, k, nil)
			}
		}
	}
}

func (g *registry) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, m := range []map[key]*kept{g.early, g.refused} {
		for k, e := range m {
			e.drop()
			delete(m, k)
		}
	}
}
