package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/topology"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(processEnv); dir != "" {
		os.Exit(runProcess(datadir.Dir(dir)))
	}
	goleak.VerifyTestMain(m)
}

const patience = 10 * time.Second

// node is a proxy with the facts the test gives it.
type node struct {
	t    testing.TB
	p    *Proxy
	dir  string
	stop func()
	// stopOnly is stop without looking at what is left behind.
	stopOnly func()

	mu    sync.Mutex
	facts Facts
	pid   int
}

// freePort returns a port nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func entry(dbid uint16, content int16, port int) topology.Entry {
	return topology.Entry{Dbid: dbid, Content: content, Host: "127.0.0.1", Port: port}
}

// addresses makes a list of n instances: dbid 1 the coordinator, dbid k the
// segment k-2.
func addresses(t testing.TB, n int) topology.AddressList {
	var l topology.AddressList
	for i := range n {
		l = append(l, entry(uint16(i+1), int16(i-1), freePort(t)))
	}
	return l
}

func startNode(t testing.TB, dbid uint16, content int16, list topology.AddressList, edit func(*Config)) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "ic")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, pid: 1000 + int(dbid), facts: Facts{Dbid: dbid, Content: content, Addresses: list}}
	cfg := Config{
		Source: Source{
			Facts: func() (Facts, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				return n.facts, nil
			},
			Postmaster: func() (int, int, error) {
				n.mu.Lock()
				defer n.mu.Unlock()
				if n.pid == 0 {
					return 0, 0, errors.New("not running")
				}
				return 15432, n.pid, nil
			},
		},
		Log:       slog.New(slog.NewTextHandler(logWriter{t, fmt.Sprint(dbid)}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		SocketDir: dir, Dialect: DialectMagic36, Poll: 20 * time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	if n.p, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.p.Run(ctx) }()
	n.stopOnly = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("dbid %d: Run: %v", dbid, err)
			}
		case <-time.After(patience):
			t.Errorf("dbid %d: Run did not end", dbid)
		}
	})
	n.stop = sync.OnceFunc(func() {
		n.stopOnly()
		left, _ := filepath.Glob(filepath.Join(dir, ".s.*"))
		if len(left) > 0 {
			t.Errorf("dbid %d: left behind %v", dbid, left)
		}
		os.RemoveAll(dir)
	})
	t.Cleanup(n.stop)
	until(t, fmt.Sprintf("the socket of dbid %d", dbid), func() bool { return n.p.Status().Socket != "" })
	return n
}

// startConfigured starts a proxy of a Config as it stands, and does not wait
// for a server.
func startConfigured(t testing.TB, cfg Config, sockets string) *node {
	t.Helper()
	cfg.SocketDir, cfg.Poll = sockets, 20*time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(logWriter{t, "configured"}, nil))
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	n := &node{t: t, p: p, dir: sockets}
	until(t, "the listener", func() bool { return p.Status().Listener.Bound })
	return n
}

// startCluster starts n proxies and waits until all are connected.
func startCluster(t testing.TB, count int, edit func(*Config)) []*node {
	t.Helper()
	list := addresses(t, count)
	var nodes []*node
	for _, e := range list {
		nodes = append(nodes, startNode(t, e.Dbid, e.Content, list, edit))
	}
	for _, n := range nodes {
		n.untilConnected()
	}
	return nodes
}

func (n *node) untilConnected() {
	n.t.Helper()
	until(n.t, "all peers", func() bool { return n.p.Status().Healthy() })
}

func (n *node) socket() string {
	return filepath.Join(n.dir, filepath.Base(datadir.ICProxySocket(15432, n.pid)))
}

func (n *node) set(list topology.AddressList) error {
	n.mu.Lock()
	n.facts.Addresses = list
	n.mu.Unlock()
	return n.p.Reload()
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// logWriter shows a proxy's log with the test's.
type logWriter struct {
	t    testing.TB
	name string
}

func (w logWriter) Write(b []byte) (int, error) {
	if _, quiet := w.t.(*testing.B); !quiet && w.t.Context().Err() == nil {
		w.t.Logf("proxy %s: %s", w.name, bytes.TrimSpace(b))
	}
	return len(b), nil
}

// key is the connection of two instances of addresses as the first sees it.
func key(local, remote uint16, pid int32, cmd uint32) icwire.Key {
	return icwire.Key{
		Session: 7, Command: cmd, SendSlice: 1, RecvSlice: 0,
		Local:  icwire.End{Content: int16(local) - 2, Dbid: local, Pid: pid},
		Remote: icwire.End{Content: int16(remote) - 2, Dbid: remote, Pid: pid + 1000},
	}
}

// back is the same connection as its other end sees it.
func back(k icwire.Key) icwire.Key { return k.Flip() }

// hello connects a backend and waits for the answer.
func (n *node) hello(k icwire.Key) *net.UnixConn {
	n.t.Helper()
	c, err := n.tryHello(k, icwire.Magic36)
	if err != nil {
		n.t.Fatalf("%v: %v", k, err)
	}
	return c
}

func (n *node) tryHello(k icwire.Key, d icwire.Dialect) (*net.UnixConn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.socket(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	h := k.Header(icwire.Hello, 0, d)
	if _, err := c.Write(h.Append(nil, d)); err != nil {
		return nil, err
	}
	b := make([]byte, d.HeaderLen())
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	if got, err := icwire.Decode(b, d); err != nil || got != h.HelloAck() {
		return nil, fmt.Errorf("answer %v, %v", got, err)
	}
	return c, nil
}

// ictcp makes n packets of the given size, each of its own bytes.
func ictcp(n, size int, seed byte) []byte {
	var b []byte
	for i := range n {
		p := make([]byte, size)
		binary.LittleEndian.PutUint32(p, uint32(size))
		for j := 4; j < size; j++ {
			p[j] = byte(i) ^ byte(j) ^ seed
		}
		b = append(b, p...)
	}
	return b
}

func mustWrite(t testing.TB, c io.Writer, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func mustRead(t testing.TB, c io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("read %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes that differ from those sent", len(got))
	}
}

func mustEOF(t testing.TB, c io.Reader) {
	t.Helper()
	var b [1]byte
	if n, err := c.Read(b[:]); err != io.EOF {
		t.Fatalf("expected the end of the stream, read %d bytes, %v", n, err)
	}
}

// closeWrite ends a backend's stream.
func closeWrite(t testing.TB, c *net.UnixConn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// untilIdle waits until no logical connection is left.
func untilIdle(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		until(t, fmt.Sprintf("the connections of %s to end", n.p.label), func() bool {
			s := n.p.Status()
			left := s.Backends + s.Early
			for _, p := range s.Peers {
				left += p.Connections
			}
			return left == 0
		})
	}
}

// greenplum plays a Greenplum proxy towards ours.
type greenplum struct {
	t testing.TB
	net.Conn
	d icwire.Dialect
}

// dialAs connects to the proxy's port as another instance.
func (n *node) dialAs(dbid uint16, content int16) *greenplum {
	n.t.Helper()
	return n.dialIn(icwire.Magic36, dbid, content, nil)
}

// dialIn does so in a dialect, with more in the same segment as the hello.
func (n *node) dialIn(d icwire.Dialect, dbid uint16, content int16, more []byte) *greenplum {
	n.t.Helper()
	hello := n.peerHello(dbid, content)
	g, ack := n.dialWith(d, hello, more)
	want := hello.PeerHelloAck(int32(os.Getpid()))
	want.Len = uint16(d.HeaderLen())
	if ack != want {
		n.t.Fatalf("PEER_HELLO was answered with %v, want %v", ack, want)
	}
	return g
}

// peerHello is what the proxy of another instance says first.
func (n *node) peerHello(dbid uint16, content int16) icwire.Header {
	return icwire.Header{Type: icwire.PeerHello, SrcContent: content, SrcDbid: dbid, SrcPid: 4711, DstContent: n.facts.Content, DstDbid: n.facts.Dbid}
}

// dialWith connects, says hello and returns the answer.
func (n *node) dialWith(d icwire.Dialect, hello icwire.Header, more []byte) (*greenplum, icwire.Header) {
	n.t.Helper()
	own, _ := n.facts.Addresses.Lookup(n.facts.Dbid)
	c, err := net.Dial("tcp", own.Addr())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	g := &greenplum{n.t, c, d}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	mustWrite(n.t, g, append(hello.Append(nil, d), more...))
	ack, _ := g.packet()
	return g, ack
}

func (g *greenplum) packet() (icwire.Header, []byte) {
	g.t.Helper()
	b := make([]byte, g.d.HeaderLen())
	if _, err := io.ReadFull(g, b); err != nil {
		g.t.Fatalf("read a packet: %v", err)
	}
	h, err := icwire.Decode(b, g.d)
	if err != nil {
		g.t.Fatal(err)
	}
	payload := make([]byte, int(h.Len)-len(b))
	if _, err := io.ReadFull(g, payload); err != nil {
		g.t.Fatal(err)
	}
	return h, payload
}

func (g *greenplum) send(k icwire.Key, ty icwire.Type, payload []byte) {
	g.t.Helper()
	mustWrite(g.t, g, append(k.Header(ty, len(payload), g.d).Append(nil, g.d), payload...))
}

func (g *greenplum) expect(ty icwire.Type, k icwire.Key) []byte {
	g.t.Helper()
	h, payload := g.packet()
	if h.Type != ty || h.SrcKey() != k {
		g.t.Fatalf("received %v, expected %v of %v", h, ty, k)
	}
	return payload
}
