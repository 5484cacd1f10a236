package udpifc

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// TestSockets: an executor has a socket for what it does, two at most, however
// many motions it has; and no goroutine for a motion.
func TestSockets(t *testing.T) {
	defer goleak.VerifyNone(t)
	cfg := Config{}
	make1 := func(i int) node {
		ic, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return node{ic, motion.Peer{Content: int16(i), Pid: int32(100 + i)}}
	}
	a, b := make1(0), make1(1)
	defer a.Close()
	defer b.Close()
	sockets := func(n node) int {
		n.mu.Lock()
		defer n.mu.Unlock()
		k := 0
		for _, s := range []packetConn{n.in, n.out} {
			if s != nil {
				k++
			}
		}
		return k
	}
	if sockets(a) != 0 {
		t.Error("a socket before it is needed")
	}
	b.peer.Addr = b.Addr()
	before := runtime.NumGoroutine()
	for c := range uint32(100) {
		open(t, mid(c), a, b)
	}
	if sockets(a) != 1 || sockets(b) != 1 {
		t.Errorf("%d and %d sockets", sockets(a), sockets(b))
	}
	if k := runtime.NumGoroutine() - before; k > 1 {
		t.Errorf("100 motions have %d goroutines", k)
	}
	a.peer.Addr = a.Addr()
	open(t, mid(1000), b, a)
	if sockets(a) != 2 || sockets(b) != 2 {
		t.Errorf("%d and %d sockets", sockets(a), sockets(b))
	}
	if host, _, _ := net.SplitHostPort(a.peer.Addr); host != "127.0.0.1" {
		t.Error(a.peer.Addr)
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"AdvertiseHost": {ListenHost: "0.0.0.0"},
		"packet size":   {MaxPacket: 511},
		"socket buffer": {BufferKB: 40000},
		"data packets":  {Tuning: Tuning{DropData: 101}},
		"(1 .. 4096)":   {Tuning: Tuning{RetryInterval: 9999}},
		"(1ms .. 1s)":   {Tuning: Tuning{Params: link.Params{MinRTO: time.Minute}}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error about %s", cfg, err, want)
		}
	}
	ic, err := New(Config{ListenHost: "0.0.0.0", AdvertiseHost: "127.0.0.1", BufferKB: 128})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ic.Addr(), "127.0.0.1:") || ic.Type() != "udpifc" {
		t.Errorf("%s %s", ic.Type(), ic.Addr())
	}
	ic.Close()
	if ic.Addr() != "" {
		t.Error("an address after Close")
	}
}

func TestErrors(t *testing.T) {
	ic, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer ic.Close()
	ctx := t.Context()
	for want, addr := range map[string]string{
		"interconnect could not connect to seg1: it has no listener (seg1:dbid0:p0)":                                         "",
		"interconnect error: Could not parse remote listener address: 'nonsense' port '': address nonsense: missing port in": "nonsense",
		"interconnect error: Could not parse remote listener address: 'host' port 'x': ":                                     "host:x",
	} {
		_, err := ic.Send(ctx, mid(1), motion.Peer{}, []motion.Peer{{Content: 1, Addr: addr}})
		var me *motion.Error
		if !errors.As(err, &me) || me.Code != motion.CodeInterconnect || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", addr, err, want)
		}
	}
	// An address that is not ours.
	far, err := New(Config{ListenHost: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if far.Addr() != "" {
		t.Error(far.Addr())
	}
	if _, err := far.Receive(ctx, mid(1), motion.Peer{}, []motion.Peer{{}}); err == nil ||
		!strings.HasPrefix(err.Error(), "interconnect error: Could not set up udp listener socket: ") {
		t.Error(err)
	}
	// Sending where nobody can.
	s, err := ic.Send(ctx, mid(2), motion.Peer{}, []motion.Peer{{Content: 1, Addr: "[2001:db8::1]:9"}})
	if err == nil {
		for err == nil {
			err = s.Send(ctx, 0, make([]byte, 9000))
		}
	}
	if !strings.HasPrefix(err.Error(), "Interconnect error writing an outgoing packet: ") {
		t.Error(err)
	}
	if e := sendError(motion.Peer{}, 9000, syscall.EMSGSIZE); !strings.Contains(e.Hint, "gp_max_packet_size") {
		t.Error(e.Hint)
	}
	// A socket that breaks.
	_, r := mustPair(t, ic)
	ic.mu.Lock()
	ic.in.Close()
	ic.mu.Unlock()
	_, _, err = r.Receive(ctx)
	if err == nil || !strings.HasPrefix(err.Error(), "interconnect encountered an error (") || !strings.HasSuffix(err.Error(), ": in receive background thread)") {
		t.Error(err)
	}
}

func mustPair(t *testing.T, ic *Interconnect) (motion.Sender, motion.Receiver) {
	n := node{ic, motion.Peer{Pid: 1, Addr: ic.Addr()}}
	return open(t, mid(77), n, n)
}

// TestSocketParams: what the kernel has of gp_udp_bufsize_k and of
// gp_udpic_network_disable_ipv6.
func TestSocketParams(t *testing.T) {
	limit := func(name string) int {
		b, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			t.Skip(err) // a network namespace that does not say
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	rmem, wmem := limit("rmem_max"), limit("wmem_max")
	option := func(s packetConn, opt int) (n int) {
		t.Helper()
		err := s.(*socket).raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for kb, ask := range map[int]int{0: 2048, 128: 128, 160: 160} {
		s, err := openSocket("udp", "127.0.0.1", kb)
		if err != nil {
			t.Fatal(err)
		}
		// The kernel doubles what it grants, for its own needs.
		if r, w := option(s, unix.SO_RCVBUF), option(s, unix.SO_SNDBUF); r != 2*min(ask<<10, rmem) || w != 2*min(ask<<10, wmem) {
			t.Errorf("%d kB: buffers of %d and %d bytes; at most 2 x %d and 2 x %d", kb, r, w, rmem, wmem)
		}
		s.Close()
	}
	if probe, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip(err)
	} else {
		probe.Close()
	}
	ic, err := New(Config{ListenHost: "0.0.0.0", AdvertiseHost: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer ic.Close()
	for _, only := range []bool{false, true} {
		if err := ic.Tune(Tuning{OnlyIPv4: only}); err != nil {
			t.Fatal(err)
		}
		s, err := ic.socket()
		if err != nil {
			t.Fatal(err)
		}
		if family := option(s, unix.SO_DOMAIN); (family == unix.AF_INET) != only {
			t.Errorf("IPv6 disabled: %v; the socket is of family %d", only, family)
		}
		s.Close()
	}
}
