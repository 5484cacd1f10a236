package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/topology"
)

// mustRefuse says hello and expects to be turned away soon, and Status to say
// why.
func (n *node) mustRefuse(k icwire.Key, cause string) {
	n.t.Helper()
	began := time.Now()
	if _, err := n.tryHello(k, icwire.Magic36); err == nil {
		n.t.Errorf("%v was served", k)
	}
	if d := time.Since(began); d > 2*time.Second {
		n.t.Errorf("it took %v to refuse", d)
	}
	if got := n.p.Status().Cause(k.Remote.Dbid); !strings.Contains(got, cause) {
		n.t.Errorf("cause %q, want %q", got, cause)
	}
}

// Whatever cannot work is said at once, and works once it is put right.
func TestRefusals(t *testing.T) {
	list := addresses(t, 3)
	k := key(2, 1, 10, 1)
	t.Run("no addresses", func(t *testing.T) {
		n := startNode(t, 2, 0, nil, nil)
		n.mustRefuse(k, "the proxy of seg0 (dbid 2) has no addresses: gp_interconnect_proxy_addresses is not set")
	})
	t.Run("a list that cannot be read", func(t *testing.T) {
		n := startNode(t, 2, 0, nil, nil)
		n.mu.Lock()
		_, n.facts.AddressError = topology.ParseAddresses("1:-1:h")
		n.mu.Unlock()
		if err := n.p.Reload(); err == nil {
			t.Error("Reload found nothing wrong")
		}
		n.mustRefuse(k, "has no addresses")
	})
	t.Run("own entry missing", func(t *testing.T) {
		n := startNode(t, 2, 0, slices.Delete(slices.Clone(list), 1, 2), nil)
		n.mustRefuse(k, "seg0 (dbid 2) is missing in gp_interconnect_proxy_addresses")
	})
	t.Run("destination missing", func(t *testing.T) {
		n := startNode(t, 2, 0, list[1:], nil)
		n.mustRefuse(k, "dbid 1 is not in the address list of the proxy of seg0 (dbid 2)")
	})
	t.Run("own port taken", func(t *testing.T) {
		l, err := net.Listen("tcp", list[1].Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := startNode(t, 2, 0, list, nil)
		n.mustRefuse(k, "the proxy of seg0 (dbid 2) cannot listen on "+list[1].Addr()+": address already in use")
		if s := n.p.Status(); s.Listener.Bound || s.Listener.Error == "" {
			t.Errorf("listener %+v", s.Listener)
		}
		l.Close()
		until(t, "the listener", func() bool { return n.p.Status().Listener.Bound })
	})
	t.Run("peer refuses", func(t *testing.T) {
		n := startNode(t, 2, 0, list, func(c *Config) { c.Grace = 200 * time.Millisecond })
		n.mustRefuse(k, "the proxy of seg-1 (dbid 1) at "+list[0].Addr()+" cannot be reached from the proxy of seg0 (dbid 2): connection refused")
		n.mustRefuse(key(2, 3, 10, 1), "the proxy of seg1 (dbid 3) has not connected to the proxy of seg0 (dbid 2)")
	})
	t.Run("another proxy at the address", func(t *testing.T) {
		other := slices.Clone(list)
		other[0].Port = list[2].Port
		startNode(t, 3, -1, topology.AddressList{{Dbid: 3, Content: -1, Host: "127.0.0.1", Port: list[2].Port}}, nil)
		n := startNode(t, 2, 0, other[:2], func(c *Config) { c.Grace = 200 * time.Millisecond })
		n.mustRefuse(k, "cannot be reached from the proxy of seg0 (dbid 2): the proxy there is that of seg-1 (dbid 3)")
	})
	t.Run("name that does not exist", func(t *testing.T) {
		other := slices.Clone(list)
		other[0].Host = "no-such-host.invalid"
		n := startNode(t, 2, 0, other, func(c *Config) { c.Grace = 200 * time.Millisecond })
		until(t, "the failure", func() bool { return n.p.Status().Peers[0].Error != "" })
		n.mustRefuse(k, "the name no-such-host.invalid cannot be resolved")
	})
	t.Run("dbid of another instance", func(t *testing.T) {
		n := startNode(t, 2, 0, list, nil)
		if _, err := n.tryHello(key(3, 1, 10, 1), icwire.Magic36); err == nil {
			t.Error("a backend of dbid 3 was served by the proxy of dbid 2")
		}
	})
	t.Run("own mirror", func(t *testing.T) {
		other := append(slices.Clone(list), topology.Entry{Dbid: 9, Content: 0, Host: "127.0.0.1", Port: freePort(t)})
		n := startNode(t, 2, 0, other, nil)
		k := key(2, 9, 10, 1)
		k.Remote.Content = 0
		n.mustRefuse(k, "seg0 (dbid 9) has the content of seg0 (dbid 2)")
	})
	t.Run("answered first where Greenplum wants it", func(t *testing.T) {
		n := startNode(t, 2, 0, list, func(c *Config) { c.Grace, c.AckRefused = 50*time.Millisecond, true })
		mustEOF(t, n.hello(k))
		mustEOF(t, n.hello(key(2, 77, 10, 1)))
	})
}

// A backend that says hello just before its peer is there is served.
func TestGrace(t *testing.T) {
	list := addresses(t, 2)
	seg := startNode(t, 2, 0, list, func(c *Config) { c.Grace = patience })
	k := key(2, 1, 10, 1)
	done := make(chan error, 1)
	var s *net.UnixConn
	go func() {
		var err error
		s, err = seg.tryHello(k, icwire.Magic36)
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	qd := startNode(t, 1, -1, list, func(c *Config) { c.Grace = patience })
	r := qd.hello(back(k))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
}

// A reload touches what has changed and nothing else, whatever the order.
func TestReload(t *testing.T) {
	nodes := startCluster(t, 3, nil)
	list := nodes[0].facts.Addresses
	since := func(n *node, dbid uint16) time.Time {
		for _, p := range n.p.Status().Peers {
			if p.Dbid == dbid && p.State == StateConnected {
				return p.Since
			}
		}
		return time.Time{}
	}
	stays, moves := key(2, 1, 10, 1), key(3, 1, 11, 1)
	r, s := nodes[0].hello(back(stays)), nodes[1].hello(stays)
	r2, s2 := nodes[0].hello(back(moves)), nodes[2].hello(moves)
	before, before2 := since(nodes[0], 2), since(nodes[0], 3)

	reversed := slices.Clone(list)
	slices.Reverse(reversed)
	for _, n := range nodes {
		if err := n.set(reversed); err != nil {
			t.Fatal(err)
		}
	}
	if since(nodes[0], 2) != before || since(nodes[0], 3) != before2 {
		t.Error("a reordered list touched a peer")
	}

	moved := slices.Clone(reversed)
	moved[0].Port = freePort(t) // dbid 3
	for _, n := range nodes {
		if err := n.set(moved); err != nil {
			t.Fatal(err)
		}
	}
	mustEOF(t, r2)
	mustEOF(t, s2)
	if since(nodes[0], 2) != before {
		t.Error("the change of another entry touched a peer")
	}
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
	for _, n := range nodes {
		n.untilConnected()
	}
	if got := nodes[2].p.Status().Listener; got.Address != moved[0].Addr() || !got.Bound {
		t.Errorf("listener %+v", got)
	}
	if c, err := net.Dial("tcp", list[2].Addr()); err == nil {
		c.Close()
		t.Error("the old port is still open")
	}

	// Removed, and back again.
	if err := nodes[0].set(moved[1:]); err != nil {
		t.Fatal(err)
	}
	nodes[0].mustRefuse(key(1, 3, 12, 1), "dbid 3 is not in the address list")
	if err := nodes[0].set(moved); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.untilConnected()
	}

	// What cannot be used changes nothing.
	nodes[0].mu.Lock()
	nodes[0].facts.AddressError = errors.New("entry 2 is wrong")
	nodes[0].mu.Unlock()
	if err := nodes[0].p.Reload(); err == nil || err.Error() != "entry 2 is wrong" {
		t.Errorf("Reload: %v", err)
	}
	if st := nodes[0].p.Status(); st.ConfigError != "entry 2 is wrong" || st.Cause(2) != "" {
		t.Errorf("%+v", st)
	}
	mustWrite(t, s, ictcp(1, 100, 1))
	mustRead(t, r, ictcp(1, 100, 1))
}

func TestBackendsSocket(t *testing.T) {
	list := addresses(t, 1)
	n := startNode(t, 1, -1, list, nil)
	first := n.socket()
	fi, err := os.Lstat(first)
	if err != nil || fi.Mode().Perm() != 0o700 || fi.Mode().Type() != os.ModeSocket {
		t.Fatalf("%v %v", fi, err)
	}
	old := n.hello(key(1, 1, 10, 1))

	// It follows the postmaster, over a file a dead one may have left.
	n.mu.Lock()
	n.pid = 77
	n.mu.Unlock()
	if err := os.WriteFile(n.socket(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the new socket", func() bool { return n.p.Status().Socket == n.socket() })
	until(t, "the old socket to go", func() bool { _, err := os.Lstat(first); return err != nil })
	if _, err := n.tryHello(back(key(1, 1, 10, 1)), icwire.Magic36); err != nil {
		t.Error(err)
	}
	mustWrite(t, old, []byte{4, 0, 0, 0}) // is still served

	// It comes back when somebody cleans up.
	if err := os.Remove(n.socket()); err != nil {
		t.Fatal(err)
	}
	until(t, "the socket to be back", func() bool { _, err := os.Lstat(n.socket()); return err == nil })

	// Another's file is left alone.
	if err := os.Remove(n.socket()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", n.socket())
	if errors.Is(err, os.ErrExist) || err != nil {
		t.Skipf("lost the race for the name: %v", err)
	}
	until(t, "the conflict to be noticed", func() bool { return n.p.Status().SocketError != "" })
	n.stopOnly()
	if _, err := os.Lstat(n.socket()); err != nil {
		t.Errorf("the other listener's socket is gone: %v", err)
	}
	l.Close()
}

func TestStatusSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "proxy.sock")
	// Left behind by one that was killed.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := ReadStatus(t.Context(), path); !errors.Is(err, ErrStopped) {
		t.Errorf("a dead socket: %v", err)
	}

	list := addresses(t, 2)
	n := startNode(t, 1, -1, list, func(c *Config) { c.StatusSocket = path })
	s, err := ReadStatus(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Dbid != 1 || s.Content != -1 || s.Pid != os.Getpid() || s.Socket != n.socket() || !s.Listener.Bound || s.Healthy() {
		t.Errorf("%+v", s)
	}
	if want := "the proxy of seg0 (dbid 2) has not connected to the proxy of seg-1 (dbid 1)"; s.Cause(2) != want || s.Cause(1) != "" {
		t.Errorf("causes %q, %q", s.Cause(2), s.Cause(1))
	}
	second, err := New(n.p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second proxy: %v", err)
	}
	n.stop()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the status socket was left behind")
	}
	if err := n.p.Reload(); !errors.Is(err, ErrStopped) {
		t.Errorf("Reload after the end: %v", err)
	}
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := ReadStatus(ctx, path); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a proxy that does not answer: %v", err)
	}
}

// A standby, whose content the coordinator serves, is dialled rarely, and at
// once when the coordinator is lost.
func TestStandbyIsDialledRarely(t *testing.T) {
	list := addresses(t, 2)
	standby, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	dials := make(chan time.Time, 1000)
	go func() {
		for {
			c, err := standby.Accept()
			if err != nil {
				return
			}
			dials <- time.Now()
			c.Close()
		}
	}()
	list = append(list, topology.Entry{Dbid: 3, Content: -1, Host: "127.0.0.1", Port: standby.Addr().(*net.TCPAddr).Port})
	qd := startNode(t, 1, -1, list, nil)
	seg := startNode(t, 2, 0, list, nil)
	seg.untilConnected()
	qd.untilConnected()
	time.Sleep(300 * time.Millisecond) // attempts from before the coordinator was there
	for len(dials) > 0 {
		<-dials
	}
	time.Sleep(1500 * time.Millisecond)
	if n := len(dials); n > 1 {
		t.Errorf("the standby was dialled %d times in 1.5 s", n)
	}
	for len(dials) > 0 {
		<-dials
	}
	qd.stop()
	select {
	case <-dials:
	case <-time.After(3 * time.Second):
		t.Error("the standby was not dialled after the coordinator was lost")
	}
}
