package proxy

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/topology"
)

// A proxy that plays Greenplum's, in either dialect and whoever dials: packets
// that come before their backend and in one segment with the handshake, data
// both ways within Greenplum's limits, acknowledgements by the ic-tcp packets
// inside, early stop, and exactly one BYE each way.
func TestBesideGreenplumProxies(t *testing.T) {
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		for _, theyDial := range []bool{true, false} {
			for _, said := range []Dialect{DialectAuto, Dialect(d + 1)} {
				t.Run(fmt.Sprintf("%v/they dial %v/set to %v", d, theyDial, said), func(t *testing.T) {
					mixed(t, d, theyDial, said)
				})
			}
		}
	}
}

func mixed(t *testing.T, d icwire.Dialect, theyDial bool, said Dialect) {
	setDialect := func(c *Config) { c.Dialect = said }
	list := addresses(t, 2)
	var ours *node
	var g *greenplum
	var early icwire.Key
	if theyDial {
		ours = startNode(t, 1, -1, list, setDialect)
		early = key(2, 1, 5, 1) // as theirs sees it
		first := append(early.Header(icwire.Data, 100, d).Append(nil, d), ictcp(1, 100, 7)...)
		g = ours.dialIn(d, 2, 0, first)
	} else {
		l, err := net.Listen("tcp", list[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ours = startNode(t, 2, 0, list, setDialect)
		early = key(1, 2, 5, 1)
		if said == DialectAuto {
			// It does not dial before it knows what to speak: its first backend.
			go func() { _, _ = ours.tryHello(back(early), d) }()
		}
		g = acceptAs(t, l, list[0])
		if g.d != d {
			t.Fatalf("it speaks %v", g.d)
		}
		g.send(early, icwire.Data, ictcp(1, 100, 7))
	}
	them, us := early.Local.Dbid, early.Remote.Dbid
	if got := ours.p.Status().Dialect; got != d.String() {
		t.Errorf("dialect %s", got)
	}
	backend := func(k icwire.Key) *net.UnixConn {
		t.Helper()
		c, err := ours.tryHello(k, d)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if said != DialectAuto || theyDial {
		r := backend(back(early))
		mustRead(t, r, ictcp(1, 100, 7))
		g.send(early, icwire.Bye, nil)
		mustEOF(t, r)
		r.Close()
		g.expect(icwire.Bye, back(early))
	}

	// To us: small packets merged by their sender, acknowledged one by one.
	k := key(them, us, 20, 1)
	r := backend(back(k))
	for range 4 {
		g.send(k, icwire.Data, ictcp(25, 320, 1))
		mustRead(t, r, ictcp(25, 320, 1))
	}
	for range 10 { // of 100 packets
		g.expect(icwire.DataAck, back(k))
	}
	// The receiver has enough.
	mustWrite(t, r, []byte("S"))
	if stop := g.expect(icwire.Data, back(k)); string(stop) != "S" {
		t.Errorf("early stop is % x", stop)
	}
	g.send(back(back(k)), icwire.Bye, nil)
	mustEOF(t, r)
	r.Close()
	g.expect(icwire.Bye, back(k))

	// From us: no longer than Greenplum takes, within its window.
	k = key(us, them, 30, 2)
	s := backend(k)
	data := ictcp(150, 8192, 3)
	go func() { _, _ = s.Write(data); _ = s.CloseWrite() }()
	var got []byte
	for n := 1; len(got) < len(data); n++ {
		p := g.expect(icwire.Data, k)
		if len(p) > 8192 {
			t.Fatalf("payload of %d bytes", len(p))
		}
		got = append(got, p...)
		if n%10 == 0 {
			g.send(back(k), icwire.DataAck, nil)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("the bytes differ")
	}
	g.expect(icwire.Bye, k)
	g.send(back(k), icwire.Bye, nil)
	mustEOF(t, s)
}

// Greenplum's own proxy removes whatever is at the socket's path when it starts,
// and listens there itself. Ours takes the path back each time, what is
// connected is served on, and it follows a new postmaster.
func TestSocketTakenBack(t *testing.T) {
	n := startNode(t, 1, -1, addresses(t, 1), func(c *Config) { c.TakeOver = true })
	k := key(1, 1, 10, 1)
	a, b := n.hello(k), n.hello(back(k))
	var theirs []net.Listener
	defer func() {
		for _, l := range theirs {
			l.Close()
		}
	}()
	greenplumStarts := func() {
		t.Helper()
		_ = os.Remove(n.socket()) // there or not, as it does
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false) // it never does
		theirs = append(theirs, l)
	}
	served := func(pid int32) {
		t.Helper()
		until(t, "our own socket", func() bool {
			c, err := net.Dial("unix", n.socket())
			if err != nil {
				return false
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			k := key(1, 1, pid, 1)
			_, _ = c.Write(k.Header(icwire.Hello, 0, icwire.Magic36).Append(nil, icwire.Magic36))
			_, err = c.Read(make([]byte, 36))
			return err == nil
		})
		if fi, err := os.Lstat(n.socket()); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", fi, err)
		}
	}
	for i := range int32(3) {
		greenplumStarts()
		served(100 + i)
	}
	old := n.socket()
	n.mu.Lock()
	n.pid = 4711
	n.mu.Unlock()
	greenplumStarts() // before ours has noticed
	served(200)
	until(t, "the old socket to go", func() bool { _, err := os.Lstat(old); return err != nil })
	if s := n.p.Status(); s.SocketError != "" || s.Server != 4711 {
		t.Errorf("%+v", s)
	}
	mustWrite(t, a, ictcp(1, 100, 0))
	mustRead(t, b, ictcp(1, 100, 0))
}

// A data directory as Greenplum leaves it, from start to stop: the list of its
// own for which Greenplum's proxy does not listen, the server that is not there
// yet, comes, and comes back as another process.
func TestGreenplumDataDirectory(t *testing.T) {
	text, err := os.MkdirTemp("", "ic")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(text)
	dir := datadir.Dir(text)
	list := topology.AddressList{{Dbid: 1, Content: -1, Host: "localhost", Port: freePort(t)}, {Dbid: 2, Content: 0, Host: "localhost", Port: freePort(t)}}
	write(t, dir.InternalAutoConf(), "gp_dbid=2\n")
	write(t, dir.Conf(), "port=6000\ngp_contentid=0\nmax_connections=750\ninclude_if_exists 'proxy.conf'\ngp_interconnect_proxy_addresses=''\n")
	write(t, filepath.Join(text, "proxy.conf"), fmt.Sprintf("trunkline.proxy_addresses = '%v'\ntrunkline.proxy_grace = 200ms\n", list))
	write(t, filepath.Join(text, "postgresql.auto.conf"), "trunkline.proxy_dial_timeout = '2s'\n")
	cfg, err := ConfigFor(dir)
	if err != nil {
		t.Fatal(err)
	}
	sockets := t.TempDir()
	seg := startConfigured(t, cfg, sockets)
	s := seg.p.Status()
	if s.Dbid != 2 || s.Content != 0 || !s.Listener.Bound || s.Listener.Address != list[1].Addr() || s.Limits.Grace != 0.2 || s.Limits.DialTimeout != 2 {
		t.Errorf("%+v", s)
	}
	until(t, "the server to be missed", func() bool { s := seg.p.Status(); return s.Server == 0 && s.ServerError != "" && s.Socket == "" })
	for _, pid := range []int{4711, 4712} {
		write(t, dir.PostmasterPid(), fmt.Sprintf("%d\n%s\n1700000000\n6000\n/tmp\n*\n 1 2\n", pid, dir))
		want := filepath.Join(sockets, fmt.Sprintf(".s.PGSQL.ic_proxy.6000.%d", pid))
		until(t, "the socket", func() bool { s := seg.p.Status(); return s.Socket == want && s.Server == pid })
		if _, err := os.Lstat(want); err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir.PostmasterPid()); err != nil {
			t.Fatal(err)
		}
		until(t, "the server to be gone", func() bool { return seg.p.Status().Server == 0 })
	}
	// A file a server would not read changes nothing.
	write(t, dir.Conf(), "gp_contentid=0\n= nonsense\n")
	if err := seg.p.Reload(); err == nil {
		t.Error("a file with a syntax error was taken")
	}
	if s := seg.p.Status(); len(s.Peers) != 1 || s.ConfigError == "" {
		t.Errorf("%+v", s)
	}
}
