package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/topology"
)

// live is a stream that runs beside an attack, each of its packets guarded by
// a checksum.
type live struct {
	t       testing.TB
	packets atomic.Uint64 // that arrived whole
	stop    func()
}

// startLive sends from the second node to the first until stop, or the end of
// the test.
func startLive(t testing.TB, from, to *node, pid int32) *live {
	t.Helper()
	k := key(from.facts.Dbid, to.facts.Dbid, pid, 1)
	r, s := to.hello(back(k)), from.hello(k)
	l := &live{t: t}
	var wg sync.WaitGroup
	var ended atomic.Bool
	const size = 4096
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(1, uint64(pid)))
		b := make([]byte, size)
		binary.LittleEndian.PutUint32(b, size)
		for !ended.Load() {
			for i := 4; i+8 <= size-sha256.Size; i += 8 {
				binary.LittleEndian.PutUint64(b[i:], rnd.Uint64())
			}
			sum := sha256.Sum256(b[:size-sha256.Size])
			copy(b[size-sha256.Size:], sum[:])
			_ = s.SetDeadline(time.Now().Add(patience))
			if _, err := s.Write(b); err != nil {
				t.Errorf("the stream beside: write: %v", err)
				return
			}
			time.Sleep(200 * time.Microsecond) // the machine is also the attacker's
		}
		_ = s.CloseWrite()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the stream beside: sender's end: %v", err)
		}
	})
	wg.Go(func() {
		defer r.Close()
		b := make([]byte, size)
		for {
			_ = r.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(r, b); err != nil {
				if err != io.EOF || !ended.Load() {
					t.Errorf("the stream beside: read: %v", err)
				}
				return
			}
			if sum := sha256.Sum256(b[:size-sha256.Size]); !bytes.Equal(sum[:], b[size-sha256.Size:]) {
				t.Error("the stream beside: a packet is not what was sent")
				return
			}
			l.packets.Add(1)
		}
	})
	l.stop = sync.OnceFunc(func() {
		ended.Store(true)
		wg.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// goesOn waits for some packets more.
func (l *live) goesOn() {
	l.t.Helper()
	before := l.packets.Load()
	until(l.t, "the stream beside", func() bool { return l.packets.Load() >= before+20 || l.t.Failed() })
}

// attack is a first packet, or what pretends to be one, and how it is counted.
type attack struct {
	name  string
	bytes []byte
	kind  rejection
}

// attacks are made of a good first packet, by what can be wrong with it.
func attacks(good icwire.Header) []attack {
	packet := good.Append(nil, icwire.Magic36)
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(packet)
		f(b)
		return b
	}
	length := func(n uint16) []byte {
		return edit(func(b []byte) { binary.LittleEndian.PutUint16(b[4:], n) })
	}
	random := make([]byte, 64<<10)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	l := []attack{
		{"text", []byte("GET / HTTP/1.0\r\n\r\nmore than a header's worth"), rejGarbage},
		{"PostgreSQL's startup", append([]byte{0, 0, 0, 41, 0, 3, 0, 0}, "user\x00gpadmin\x00database\x00postgres\x00\x00"...), rejGarbage},
		{"zeroes", make([]byte, 64), rejGarbage},
		{"random bytes", random, rejGarbage},
		{"wrong magic", edit(func(b []byte) { b[0]++ }), rejGarbage},
		{"magic and then text", append(bytes.Clone(packet[:4]), bytes.Repeat([]byte("x"), 60)...), rejGarbage},
		{"length 0", length(0), rejGarbage},
		{"length 35", length(35), rejGarbage},
		{"length 37", length(37), rejGarbage},
		{"length 65535", append(length(65535), random...), rejGarbage},
		{"half a header", packet[:17], rejSilent},
		{"a part of the magic", packet[:3], rejSilent},
		{"silence", nil, rejSilent},
	}
	for _, ty := range []icwire.Type{icwire.Data, icwire.PeerHelloAck, icwire.HelloAck, icwire.Bye, icwire.DataAck, 99} {
		l = append(l, attack{fmt.Sprintf("%v first", ty), edit(func(b []byte) { binary.LittleEndian.PutUint16(b[6:], uint16(ty)) }), rejGarbage})
	}
	return l
}

// mustBeClosed connects, says b and is closed without an answer, and counted.
func (n *node) mustBeClosed(t *testing.T, c net.Conn, a attack) {
	t.Helper()
	defer c.Close()
	name := rejectionNames[a.kind]
	before := n.p.Status().Rejections[name]
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(a.bytes); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 100)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answered with %d bytes, %v", n, err)
	}
	until(t, "the count of "+name, func() bool { return n.p.Status().Rejections[name] == before+1 })
}

// Whoever says nonsense, or nothing, on the peers' port is closed and counted,
// and the traffic beside does not notice.
func TestHostileCallers(t *testing.T) {
	nodes := startCluster(t, 3, func(c *Config) { c.HelloTimeout = 200 * time.Millisecond })
	qd := nodes[0]
	beside := startLive(t, nodes[1], qd, 1)
	good := icwire.Header{Type: icwire.PeerHello, SrcContent: 0, SrcDbid: 2, SrcPid: 1, DstContent: -1, DstDbid: 1}
	from := func(name string, kind rejection, edit func(*icwire.Header)) attack {
		h := good
		edit(&h)
		return attack{name, h.Append(nil, icwire.Magic36), kind}
	}
	list := append(attacks(good),
		from("unknown dbid", rejUnlisted, func(h *icwire.Header) { h.SrcDbid = 9 }),
		from("wrong content", rejUnlisted, func(h *icwire.Header) { h.SrcContent = 5 }),
		from("for somebody else", rejUnlisted, func(h *icwire.Header) { h.DstDbid = 7 }),
		from("for another content", rejUnlisted, func(h *icwire.Header) { h.DstContent = 7 }),
		from("from ourselves", rejUnlisted, func(h *icwire.Header) { h.SrcDbid, h.SrcContent = 1, -1 }),
		from("a backend's hello", rejGarbage, func(h *icwire.Header) { h.Type = icwire.Hello }),
		attack{"other dialect", good.Append(nil, icwire.Plain32), rejUnlisted},
	)
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			c, err := net.Dial("tcp", qd.p.Status().Listener.Address)
			if err != nil {
				t.Fatal(err)
			}
			qd.mustBeClosed(t, c, a)
			beside.goesOn()
		})
	}
	if s := qd.p.Status(); len(s.Missing()) > 0 || s.Peers[0].State != StateConnected {
		t.Errorf("a peer was lost: %+v", s.Peers)
	}
}

// The same on the backends' socket.
func TestHostileBackends(t *testing.T) {
	nodes := startCluster(t, 2, func(c *Config) { c.HelloTimeout = 200 * time.Millisecond })
	qd := nodes[0]
	beside := startLive(t, nodes[1], qd, 1)
	good := key(1, 2, 99, 1).Header(icwire.Hello, 0, icwire.Magic36)
	peers := good
	peers.Type = icwire.PeerHello
	for _, a := range append(attacks(good), attack{"a peer's hello", peers.Append(nil, icwire.Magic36), rejGarbage}) {
		t.Run(a.name, func(t *testing.T) {
			c, err := net.Dial("unix", qd.socket())
			if err != nil {
				t.Fatal(err)
			}
			qd.mustBeClosed(t, c, a)
			beside.goesOn()
		})
	}
}

// A hello that is well made, but for a connection this proxy does not carry,
// ends in order.
func TestHostileHellos(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	qd := nodes[0]
	beside := startLive(t, nodes[1], qd, 1)
	for name, edit := range map[string]func(*icwire.Key){
		"from another instance":   func(k *icwire.Key) { k.Local.Dbid = 2 },
		"to nobody":               func(k *icwire.Key) { k.Remote.Dbid = 0 },
		"to an unlisted instance": func(k *icwire.Key) { k.Remote.Dbid = 65535 },
		"to itself, as itself":    func(k *icwire.Key) { k.Remote = k.Local; k.Remote.Dbid = 9 },
	} {
		k := key(1, 2, 99, 1)
		edit(&k)
		before := qd.p.Status().Refused
		if _, err := qd.tryHello(k, icwire.Magic36); err == nil {
			t.Errorf("%s: served", name)
		}
		if got := qd.p.Status().Refused; got != before+1 {
			t.Errorf("%s: %d refused, %d before", name, got, before)
		}
		beside.goesOn()
	}
}

// A peer that is let in and then sends nonsense loses its own connection and
// nobody else's; so does a backend.
func TestHostileAfterHello(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	qd := nodes[0]
	list := append(slices.Clone(qd.facts.Addresses), entry(3, 1, freePort(t)))
	for _, n := range nodes {
		if err := n.set(list); err != nil {
			t.Fatal(err)
		}
	}
	beside := startLive(t, nodes[1], qd, 1)
	k := key(3, 1, 50, 1)
	data := k.Header(icwire.Data, 100, icwire.Magic36).Append(nil, icwire.Magic36)
	length := func(n uint16) []byte {
		b := append(bytes.Clone(data), make([]byte, 200)...)
		binary.LittleEndian.PutUint16(b[4:], n)
		return b
	}
	for name, b := range map[string][]byte{
		"length 0": length(0), "length 35": length(35), "length 65535": length(65535), "longer than allowed": length(8192 + 37),
		"no magic": make([]byte, 100), "text": []byte("Hello? Is there anybody in there? Just nod if you can hear me."),
		"hello again":        icwire.Header{Type: icwire.PeerHello, SrcContent: 1, SrcDbid: 3, DstContent: -1, DstDbid: 1}.Append(nil, icwire.Magic36),
		"unknown type":       func() []byte { b := bytes.Clone(data); b[6] = 200; return b }(),
		"BYE with a payload": func() []byte { b := append(bytes.Clone(data), make([]byte, 100)...); b[6] = byte(icwire.Bye); return b }(),
	} {
		t.Run(name, func(t *testing.T) {
			g := qd.dialAs(3, 1)
			mustWrite(t, g, b)
			if n, err := io.Copy(io.Discard, g); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it was answered with %d bytes, %v", n, err)
			}
			until(t, "the peer to be lost", func() bool { return qd.p.Status().Peers[1].State == StateWaiting })
			if cause := qd.p.Status().Cause(3); !strings.Contains(cause, "has not connected to the proxy of seg-1 (dbid 1): ") {
				t.Errorf("cause %q", cause)
			}
			beside.goesOn()
		})
	}
	t.Run("a backend's nonsense", func(t *testing.T) {
		k := key(1, 2, 60, 1)
		a, b := qd.hello(k), nodes[1].hello(back(k))
		go func() {
			junk := make([]byte, 1<<20)
			rnd := rand.New(rand.NewPCG(5, 6))
			for i := range junk {
				junk[i] = byte(rnd.Uint32())
			}
			_, _ = a.Write(junk)
			a.Close()
		}()
		if n, err := io.Copy(io.Discard, b); n != 1<<20 || err != nil {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
		b.Close()
		beside.goesOn()
	})
	beside.stop()
	untilIdle(t, nodes...)
}

// A peer's hello has to come from an address of the host its entry names.
func TestCallersAddress(t *testing.T) {
	hello := func(n *node, dbid uint16, content int16) []byte {
		return icwire.Header{Type: icwire.PeerHello, SrcContent: content, SrcDbid: dbid, SrcPid: 1,
			DstContent: n.facts.Content, DstDbid: n.facts.Dbid}.Append(nil, icwire.Magic36)
	}
	list := addresses(t, 3)
	list = append(list, topology.Entry{Dbid: 4, Content: 2, Host: "192.0.2.1", Port: 1000}) // nobody's, by RFC 5737
	qd := startNode(t, 1, -1, list, func(c *Config) { c.HelloTimeout = time.Second })
	seg := startNode(t, 2, 0, list, nil)
	until(t, "the peer", func() bool { return qd.p.Status().Peers[0].State == StateConnected })
	beside := startLive(t, seg, qd, 1)
	c, err := net.Dial("tcp", list[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	qd.mustBeClosed(t, c, attack{"", hello(qd, 4, 2), rejAddress})
	want := "a connection from 127.0.0.1 in the name of seg2 (dbid 4), whose host is 192.0.2.1 (trunkline.proxy_check_source = off accepts it)"
	if got := qd.p.Status().Cause(4); !strings.Contains(got, want) {
		t.Errorf("cause %q, want %q", got, want)
	}
	beside.goesOn()

	// Switched off by a reload, he is who he says he is.
	qd.mu.Lock()
	qd.facts.AnySource = true
	qd.mu.Unlock()
	if err := qd.p.Reload(); err != nil {
		t.Fatal(err)
	}
	qd.dialAs(4, 2)
	until(t, "the peer from elsewhere", func() bool { return qd.p.Status().Peers[2].State == StateConnected })
	beside.goesOn()
}

// Of ten thousand connections that say nothing a bounded number is kept, on
// either listener, and a new peer and a new backend are served at once.
func TestThousandsOfSilentConnections(t *testing.T) {
	many := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Both ends are of this process.
	if most := (int(limit.Cur) - 3*maxStrangers - 500) / 2; most < many {
		t.Logf("with %d descriptors only %d connections can be made", limit.Cur, most)
		many = most
	}
	list := addresses(t, 3)
	qd := startNode(t, 1, -1, list, func(c *Config) { c.HelloTimeout = patience })
	seg := startNode(t, 2, 0, list, nil)
	until(t, "the peer", func() bool { return qd.p.Status().Peers[0].State == StateConnected })
	beside := startLive(t, seg, qd, 1)
	dial := func(network, address string) net.Conn {
		t.Helper()
		c, err := net.DialTimeout(network, address, patience)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for network, address := range map[string]string{"tcp": list[0].Addr(), "unix": qd.socket()} {
		t.Run(network, func(t *testing.T) {
			var conns []net.Conn
			for i := range many {
				conns = append(conns, dial(network, address))
				if i%1000 == 999 {
					beside.goesOn()
				}
			}
			until(t, "the surplus to be closed", func() bool {
				s := qd.p.Status()
				return s.Strangers <= maxStrangers+200 && s.Rejections["crowded"] > 0
			})
			began := time.Now()
			k := key(1, 1, int32(1000+len(network)), 1)
			a, b := qd.hello(k), qd.hello(back(k))
			mustWrite(t, a, ictcp(1, 100, 0))
			mustRead(t, b, ictcp(1, 100, 0))
			third := startNode(t, 3, 1, list, nil)
			third.untilConnected()
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("a backend and a peer had to wait %v", d)
			}
			third.stop()
			beside.goesOn()
			for _, c := range conns {
				c.Close()
			}
			a.Close()
			b.Close()
			until(t, "nobody to be left", func() bool { return qd.p.Status().Strangers == 0 })
		})
	}
	beside.stop()
	untilIdle(t, qd, seg)
}

// Who opens connections without end is written down once in a while.
func TestBoundedLog(t *testing.T) {
	var mu sync.Mutex
	var lines int
	count := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("refused a connection")) || bytes.Contains(b, []byte("closed a connection")) {
			mu.Lock()
			defer mu.Unlock()
			lines++
		}
		return len(b), nil
	}), nil))
	qd := startNode(t, 1, -1, addresses(t, 2), func(c *Config) { c.Log = count })
	own, _ := qd.facts.Addresses.Lookup(1)
	for i := range 500 {
		for network, address := range map[string]string{"tcp": own.Addr(), "unix": qd.socket()} {
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte(fmt.Sprint("nonsense ", i)))
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}
	until(t, "all to be counted", func() bool { return qd.p.Status().Rejected == 1000 })
	mu.Lock()
	defer mu.Unlock()
	if lines < 2 || lines > 6 {
		t.Errorf("1000 connections made %d lines", lines)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
