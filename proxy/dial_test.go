package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/testkit/deaf"
	"github.com/trunkline-db/trunkline/topology"
)

// answering listens and answers each connection by f.
func answering(t *testing.T, f func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// What keeps us from a peer has a name, in the status at once, and a backend
// that needs it ends within its grace.
func TestWhyAPeerCannotBeReached(t *testing.T) {
	ackAs := func(dbid uint16, content int16) func(net.Conn) {
		return func(c net.Conn) {
			h, d, err := readHello(c, icwire.PeerHello)
			if err != nil {
				return
			}
			ack := h.PeerHelloAck(4711)
			ack.DstDbid, ack.DstContent = dbid, content
			_, _ = c.Write(ack.Append(nil, d))
			_, _ = c.Read(make([]byte, 1))
		}
	}
	for name, c := range map[string]struct {
		host, want string
		port       func(t *testing.T) int
	}{
		"no answer to SYN":        {"127.0.0.1", "no answer to our attempt to connect within 300ms", func(t *testing.T) int { return deaf.Port(t) }},
		"refused":                 {"127.0.0.1", "connection refused", func(t *testing.T) int { return freePort(t) }},
		"refused, by name":        {"here.test", "127.0.0.1: connection refused", func(t *testing.T) int { return freePort(t) }},
		"no such name":            {"nowhere.test", "the name nowhere.test cannot be resolved: no such host", func(*testing.T) int { return 1 }},
		"no answer from DNS":      {"slow.test", "the name slow.test cannot be resolved: no answer within 300ms", func(*testing.T) int { return 1 }},
		"name without an address": {"empty.test", "the name empty.test cannot be resolved: it has no address", func(*testing.T) int { return 1 }},
		"silent after connect": {"127.0.0.1", "it took the connection but did not answer our hello within 250ms", func(t *testing.T) int {
			return answering(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); time.Sleep(patience / 10) })
		}},
		"closes": {"127.0.0.1", "the proxy there closed the connection instead of answering our hello", func(t *testing.T) int {
			return answering(t, func(c net.Conn) { _, _, _ = readHello(c, icwire.PeerHello) })
		}},
		"something else": {"127.0.0.1", "what answers there is no proxy of this cluster", func(t *testing.T) int {
			return answering(t, func(c net.Conn) {
				_, _ = c.Write([]byte("220 mail.example.org ESMTP, at your service, speak\r\n"))
				_, _ = c.Read(make([]byte, 100))
			})
		}},
		"a word of something else": {"127.0.0.1", "what answers there is no proxy of this cluster: it sent \"N\" and closed the connection", func(t *testing.T) int {
			return answering(t, func(c net.Conn) { _, _, _ = readHello(c, icwire.PeerHello); _, _ = c.Write([]byte("N")) })
		}},
		"wrong dbid":    {"127.0.0.1", "the proxy there is that of seg-1 (dbid 7)", func(t *testing.T) int { return answering(t, ackAs(7, -1)) }},
		"wrong content": {"127.0.0.1", "the proxy there is that of seg3 (dbid 1)", func(t *testing.T) int { return answering(t, ackAs(1, 3)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := addresses(t, 2)
			list[0].Host, list[0].Port = c.host, c.port(t)
			n := startNode(t, 2, 0, list, func(cfg *Config) {
				cfg.Grace, cfg.DialTimeout, cfg.HelloTimeout = 400*time.Millisecond, 300*time.Millisecond, 250*time.Millisecond
				cfg.Resolve = fakeDNS{
					"here.test": {netip.MustParseAddr("127.0.0.1")}, "empty.test": {},
				}.lookup
			})
			until(t, "the failure", func() bool { return n.p.Status().Peers[0].Error != "" })
			n.mustRefuse(key(2, 1, 10, 1), fmt.Sprintf("the proxy of seg-1 (dbid 1) at %s cannot be reached from the proxy of seg0 (dbid 2): ", list[0].Addr()))
			if got := n.p.Status().Cause(1); !strings.Contains(got, c.want) {
				t.Errorf("cause %q, want %q", got, c.want)
			}
		})
	}
}

// While the first attempt lasts, the cause says what it waits for.
func TestCauseWhileDialling(t *testing.T) {
	list := addresses(t, 2)
	list[0].Host = "slow.test"
	n := startNode(t, 2, 0, list, func(c *Config) {
		c.Grace, c.DialTimeout, c.Resolve = 50*time.Millisecond, 2*time.Second, fakeDNS{}.lookup
	})
	n.mustRefuse(key(2, 1, 10, 1), "still resolving the name slow.test")
	n.stop()
	list[0].Host, list[0].Port = "127.0.0.1", deaf.Port(t)
	n = startNode(t, 2, 0, slices.Clone(list), func(c *Config) { c.Grace, c.DialTimeout = 50*time.Millisecond, 2*time.Second })
	n.mustRefuse(key(2, 1, 10, 1), "still connecting to "+list[0].Addr())
}

// fakeDNS answers as it stands; slow.test never, others do not exist.
type fakeDNS map[string][]netip.Addr

func (d fakeDNS) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if host == "slow.test" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if a, ok := d[host]; ok {
		return slices.Clone(a), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// dns is a name whose address the test changes.
type dns struct {
	mu    sync.Mutex
	addrs []netip.Addr
	asked int
}

func (d *dns) set(addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = nil
	for _, a := range addrs {
		d.addrs = append(d.addrs, netip.MustParseAddr(a))
	}
}

func (d *dns) lookup(context.Context, string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return slices.Clone(d.addrs), nil
}

// A peer that moves to another host, by name, is found again when its
// connection is lost, and at a reload even if it is not.
func TestNameLeadsElsewhere(t *testing.T) {
	var names dns
	names.set("127.0.0.2")
	list := topology.AddressList{{Dbid: 1, Content: -1, Host: "qd.test", Port: freePort(t)}, entry(2, 0, freePort(t))}
	resolve := func(c *Config) { c.Resolve = names.lookup }
	at := func(host string) topology.AddressList {
		l := slices.Clone(list)
		l[0].Host = host
		return l
	}
	first := startNode(t, 1, -1, at("127.0.0.2"), nil)
	seg := startNode(t, 2, 0, list, resolve)
	seg.untilConnected()
	remote := func() string {
		pr := seg.p.peers[1]
		pr.mu.Lock()
		defer pr.mu.Unlock()
		return pr.remote
	}

	// At reconnect.
	names.set("127.0.0.3")
	first.stop()
	second := startNode(t, 1, -1, at("127.0.0.3"), nil)
	until(t, "a connection with 127.0.0.3", func() bool { return remote() == fmt.Sprintf("127.0.0.3:%d", list[0].Port) })
	seg.untilConnected()

	// At a reload: nothing, as long as the name leads to where we are.
	since := seg.p.Status().Peers[0].Since
	if err := seg.p.Reload(); err != nil {
		t.Fatal(err)
	}
	third := startNode(t, 1, -1, at("127.0.0.4"), nil)
	names.set("127.0.0.3", "127.0.0.4")
	if err := seg.p.Reload(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if got := seg.p.Status().Peers[0].Since; got != since {
		t.Error("a reload touched a peer whose name leads to where it is")
	}
	names.set("127.0.0.4")
	if err := seg.p.Reload(); err != nil {
		t.Fatal(err)
	}
	until(t, "the new address", func() bool { return remote() == fmt.Sprintf("127.0.0.4:%d", list[0].Port) })
	until(t, "the peer there", func() bool { return third.p.Status().Peers[0].State == StateConnected })
	until(t, "the old one to be left", func() bool { return second.p.Status().Peers[0].State == StateWaiting })

	// Of several addresses the one that answers is taken.
	names.set("127.0.0.9", "127.0.0.3", "127.0.0.4")
	third.stop()
	until(t, "a connection with 127.0.0.3", func() bool { return remote() == fmt.Sprintf("127.0.0.3:%d", list[0].Port) })
	seg.untilConnected()
}

// The acceptor's side: who dials from where the name now leads is let in,
// however often strangers have tried in its name.
func TestNameOfACaller(t *testing.T) {
	var names dns
	names.set("192.0.2.7")
	list := topology.AddressList{entry(1, -1, freePort(t)), {Dbid: 2, Content: 0, Host: "seg.test", Port: 1}}
	qd := startNode(t, 1, -1, list, func(c *Config) { c.Resolve = names.lookup })
	hello := icwire.Header{Type: icwire.PeerHello, SrcDbid: 2, SrcPid: 1, DstContent: -1, DstDbid: 1}.Append(nil, icwire.Magic36)
	for range 20 {
		c, err := net.Dial("tcp", list[0].Addr())
		if err != nil {
			t.Fatal(err)
		}
		qd.mustBeClosed(t, c, attack{"", hello, rejAddress})
	}
	names.mu.Lock()
	asked := names.asked
	names.mu.Unlock()
	if asked > 3 {
		t.Errorf("20 strangers made %d questions to DNS", asked)
	}
	names.set("127.0.0.1")
	if err := qd.p.Reload(); err != nil {
		t.Fatal(err)
	}
	qd.dialAs(2, 0)
	// While names have no answer, he is where he was.
	names.set()
	if err := qd.p.Reload(); err != nil {
		t.Fatal(err)
	}
	qd.dialAs(2, 0)
}

// Two clusters on the same hosts: an entry that leads into the other one's
// proxy, of the same dbid, is found out by the port on which we listen.
func TestOtherClustersProxy(t *testing.T) {
	one, two := addresses(t, 2), addresses(t, 2)
	qd, seg := startNode(t, 1, -1, one, nil), startNode(t, 2, 0, one, nil)
	seg.untilConnected()
	beside := startLive(t, seg, qd, 1)
	wrong := slices.Clone(two)
	wrong[0].Port = one[0].Port
	intruder := startNode(t, 2, 0, wrong, func(c *Config) { c.Grace = 100 * time.Millisecond })
	until(t, "the failure", func() bool { return intruder.p.Status().Peers[0].Error != "" })
	intruder.mustRefuse(key(2, 1, 10, 1), fmt.Sprintf("the proxy there refuses us: its address list has another port for seg0 (dbid 2) than %d: it is of another cluster, or the lists differ", wrong[1].Port))
	if qd.p.Status().Rejections["address"] == 0 {
		t.Error("not counted")
	}
	beside.goesOn()
	beside.stop()
	if qd.p.Status().Peers[0].State != StateConnected || seg.p.Status().Peers[0].State != StateConnected {
		t.Error("the intruder has cost the cluster a connection")
	}
}

// What a Trunkline acceptor has against us reaches our status.
func TestRefusalIsTold(t *testing.T) {
	list := addresses(t, 2)
	for name, c := range map[string]struct {
		theirs func() topology.AddressList
		want   string
	}{
		"not in its list": {func() topology.AddressList { return list[:1] }, "seg0 (dbid 2) is not in its address list"},
		"other content": {func() topology.AddressList {
			l := slices.Clone(list)
			l[1].Content = 5
			return l
		}, "its address list has another content id for dbid 2"},
		"other host": {func() topology.AddressList {
			l := slices.Clone(list)
			l[1].Host = "192.0.2.1"
			return l
		}, "its address list has another host for seg0 (dbid 2) than the one we dial from"},
	} {
		t.Run(name, func(t *testing.T) {
			startNode(t, 1, -1, c.theirs(), nil)
			seg := startNode(t, 2, 0, list, nil)
			until(t, "the cause", func() bool { return strings.Contains(seg.p.Status().Cause(1), "the proxy there refuses us: "+c.want) })
		})
	}
}

// Attempts begin 50 ms apart and double up to the longest pause.
func TestBackoff(t *testing.T) {
	times := make(chan time.Time, 1000)
	port := answering(t, func(net.Conn) { times <- time.Now() })
	list := addresses(t, 2)
	list[0].Port = port
	startNode(t, 2, 0, list, func(c *Config) { c.MaxBackoff = 400 * time.Millisecond })
	last := <-times
	for i, least := range []time.Duration{50, 100, 200, 400, 400} {
		next := <-times
		// The receiver's clock may be late, never the sender's early.
		if d := next.Sub(last); d < least*time.Millisecond-30*time.Millisecond {
			t.Errorf("pause %d was %v, want %v", i+1, d, least*time.Millisecond)
		}
		last = next
	}
}

// Limits are read again at a reload, the Config's own excepted.
func TestTimesAreReloaded(t *testing.T) {
	n := startNode(t, 1, -1, addresses(t, 1), func(c *Config) { c.HelloTimeout = 7 * time.Second })
	if got := n.p.Status().Limits; got != (LimitStatus{1, 7, 5, 30, 0.05, 1, 30, true}) {
		t.Errorf("at first %+v", got)
	}
	n.mu.Lock()
	n.facts.Times = Times{Grace: 2 * time.Second, HelloTimeout: 3 * time.Second, MinBackoff: 4 * time.Second}
	n.facts.AnySource = true
	n.facts.ParameterError = errors.New("line 3: one is wrong\nline 4: another too")
	n.mu.Unlock()
	if err := n.p.Reload(); err != nil {
		t.Fatal(err)
	}
	s := n.p.Status()
	if s.Limits != (LimitStatus{2, 7, 5, 30, 4, 4, 30, false}) {
		t.Errorf("then %+v", s.Limits)
	}
	if s.ConfigError != "line 3: one is wrong; line 4: another too" || s.Healthy() {
		t.Errorf("%q", s.ConfigError)
	}
}

// Who has the port is named.
func TestPortHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if pid, command := holder(port); pid != syscall.Getpid() || !strings.Contains(command, "proxy.test") {
		t.Errorf("process %d (%s)", pid, command)
	}
	if pid, _ := holder(freePort(t)); pid != 0 {
		t.Errorf("a free port is held by %d", pid)
	}
	list := addresses(t, 1)
	list[0].Port = port
	n := startNode(t, 1, -1, list, nil)
	if got := n.p.Status().Listener.Error; !strings.HasPrefix(got, fmt.Sprintf("address already in use: process %d has it (", syscall.Getpid())) {
		t.Errorf("listener: %s", got)
	}
	list = slices.Clone(list) // the first proxy looks at its own
	list[0].Host = "192.0.2.1"
	m := startNode(t, 1, -1, list, nil)
	if got := m.p.Status().Listener.Error; got != "cannot assign requested address: it is not an address of this host" {
		t.Errorf("listener: %s", got)
	}
}

// Greenplum's own proxy on the port is told from other programs, and what to do
// about it.
func TestGreenplumHasThePort(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skipf("no sleep command to hold the port with: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	worker := &exec.Cmd{Path: sleep, Args: []string{"postgres:  6001, ic proxy process", "60"}, ExtraFiles: []*os.File{f}}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = worker.Process.Kill()
		_ = worker.Wait() // it was killed
	}()
	list := addresses(t, 2)
	list[0].Port = l.Addr().(*net.TCPAddr).Port
	f.Close()
	l.Close()
	n := startNode(t, 1, -1, list, nil)
	n.mustRefuse(key(1, 2, 10, 1), fmt.Sprintf("cannot listen on %s: address already in use: process %d has it (postgres: 6001, ic proxy process 60); "+
		"that is Greenplum's own proxy: empty gp_interconnect_proxy_addresses on this instance and put the list into trunkline.proxy_addresses", list[0].Addr(), worker.Process.Pid))
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "the port", func() bool { return n.p.Status().Listener.Bound })
}
