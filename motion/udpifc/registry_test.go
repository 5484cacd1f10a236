package udpifc

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

var (
	fromPeer = motion.Peer{Content: 1, Pid: 11}
	toPeer   = motion.Peer{Content: 2, Pid: 22}
)

func newRegistry() *registry {
	g := &registry{}
	g.init()
	return g
}

func expected(id motion.ID) *inConn {
	c := &inConn{key: connKey(id, fromPeer, toPeer, 0), link: link.NewReceiver(4)}
	return c
}

func packet(id motion.ID, u use, seq uint32, flags icwire.UDPFlags) (*icwire.UDPHeader, []byte) {
	h := &icwire.UDPHeader{UDPKey: connKey(id, fromPeer, toPeer, u), Seq: seq, Flags: flags}
	if flags&icwire.UDPCapacity != 0 {
		return h, nil
	}
	return h, binary.LittleEndian.AppendUint32(nil, seq)
}

// TestRegistry follows one key through its uses.
func TestRegistry(t *testing.T) {
	g := newRegistry()
	var conn *inConn
	route := func(u use, seq uint32, flags icwire.UDPFlags) string {
		h, body := packet(mid(1), u, seq, flags)
		v := g.route(h, body, netip.AddrPort{}, 2)
		s := ""
		if v.conn != nil {
			s += " delivered"
		}
		if v.lost != nil {
			s += " lost"
		}
		if v.reply != 0 {
			s += " " + v.reply.String()
		}
		return s
	}
	expect := func() string {
		conn = expected(mid(1))
		replay, err := g.expect([]*inConn{conn})
		if err != nil {
			return " " + err.Error()
		}
		if e := replay[0]; e != nil {
			return fmt.Sprintf(" use %d, %d packets, aborted %v", e.use, len(e.packets), e.aborted)
		}
		return ""
	}
	release := func(failed bool) string {
		g.release([]*inConn{conn}, failed)
		return ""
	}
	const stop, abort, nak = " ACK|STOP|CAPACITY", " NAK|ABORT", " NAK"
	for i, step := range []struct{ got, want string }{
		{route(0, 1, 0), ""}, // kept
		{route(0, 1, 0), ""}, // the same again
		{route(0, 3, 0), nak},
		{route(0, 0, icwire.UDPCapacity), nak},
		{expect(), " use 0, 1 packets, aborted false"},
		{expect(), " interconnect error: A HTAB entry for motion node 2 already exists"},
	} {
		if step.got != step.want {
			t.Errorf("step %d: got %q, want %q", i, step.got, step.want)
		}
	}
	conn = g.open[connKey(mid(1), fromPeer, toPeer, 0)]
	for i, f := range []struct {
		do   func() string
		want string
	}{
		{func() string { return route(0, 2, 0) }, " delivered"},
		{func() string { return route(1, 1, 0) }, " lost"}, // and kept
		{func() string { conn.complete.Store(true); return route(1, 2, 0) }, ""},
		{func() string { return release(false) }, ""},
		{func() string { return route(0, 9, 0) }, stop},
		{expect, " use 1, 2 packets, aborted false"},
		{func() string { return route(0, 9, 0) }, stop},
		{func() string { return route(1, 3, 0) }, " delivered"},
		{func() string { return release(true) }, ""},
		{func() string { return route(1, 3, 0) }, abort},
		{func() string { return route(0, 3, 0) }, stop},
		// Kept, then given up by its sender.
		{func() string { return route(2, 1, 0) }, ""},
		{func() string { return route(2, 0, abortData) }, ""},
		{func() string { return route(2, 2, 0) }, nak},
		{expect, " use 2, 0 packets, aborted true"},
		{func() string { return release(true) }, ""},
		// A newer use replaces a kept one.
		{func() string { return route(3, 1, 0) }, ""},
		{func() string { return route(4, 1, 0) }, ""},
		{func() string { return route(3, 2, 0) }, nak},
		{expect, " use 4, 1 packets, aborted false"},
		{func() string { return release(false) }, ""},
		// A receiver that fails before its sender came: that use is refused.
		{expect, ""},
		{func() string { return release(true) }, ""},
		{func() string { return route(5, 1, 0) }, abort},
		{func() string { return route(5, 2, 0) }, abort},
		{func() string { return route(6, 1, 0) }, ""},
		// The same, but the next receiver comes first.
		{expect, " use 6, 1 packets, aborted false"},
		{func() string { return release(false) }, ""},
		{expect, ""},
		{func() string { return release(true) }, ""},
		{expect, ""},
		{func() string { return route(7, 1, 0) }, " delivered"},
	} {
		if got := f.do(); got != f.want {
			t.Errorf("step %d: got %q, want %q", i, got, f.want)
		}
	}
	if g.bytes != 0 {
		t.Errorf("%d bytes kept in the end", g.bytes)
	}
}

// TestRegistryWraps: uses are told apart however many there are.
func TestRegistryWraps(t *testing.T) {
	g := newRegistry()
	for i := range 1000 {
		u := use(i)
		c := expected(mid(1))
		if _, err := g.expect([]*inConn{c}); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			h, body := packet(mid(1), u-1, 1, 0)
			if v := g.route(h, body, netip.AddrPort{}, 4); v.reply != replyStop {
				t.Fatalf("use %d: a packet of the use before: %+v", i, v)
			}
		}
		h, body := packet(mid(1), u, 1, 0)
		if v := g.route(h, body, netip.AddrPort{}, 4); v.conn != c {
			t.Fatalf("use %d: %+v", i, v)
		}
		c.complete.Store(true)
		g.release([]*inConn{c}, false)
	}
}

// TestRegistryBounds: what was never received and what is over takes a bounded
// amount of memory, and the latest stays.
func TestRegistryBounds(t *testing.T) {
	g := newRegistry()
	big := make([]byte, 8000)
	for i := range uint32(3 * maxRemembered) {
		h, _ := packet(mid(i), 0, 1, 0)
		g.route(h, big, netip.AddrPort{}, 4)
	}
	if g.bytes > maxEarly || g.bytes < maxEarly-len(big)*2 {
		t.Errorf("%d bytes kept", g.bytes)
	}
	for i := range uint32(3 * maxRemembered) {
		h, _ := packet(mid(1<<20+i), 0, 1, 0)
		g.route(h, []byte("small"), netip.AddrPort{}, 4)
		c := expected(mid(1<<21 + i))
		if _, err := g.expect([]*inConn{c}); err != nil {
			t.Fatal(err)
		}
		g.release([]*inConn{c}, false)
	}
	if a, b := len(g.early.entries), len(g.past.entries); a != maxRemembered || b != maxRemembered {
		t.Errorf("%d early, %d past", a, b)
	}
	if want := maxRemembered * (icwire.UDPHeaderLen + len("small")); g.bytes != want {
		t.Errorf("%d bytes kept, want %d", g.bytes, want)
	}
	c := expected(mid(1<<20 + 3*maxRemembered - 1))
	if replay, err := g.expect([]*inConn{c}); err != nil || replay[0] == nil || len(replay[0].packets) != 1 {
		t.Errorf("%+v %v", replay, err)
	}
}

// TestRegistryProperty: whatever happens, packets are delivered to the use they
// are of, never to one that is over, and the accounts are right.
func TestRegistryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newRegistry()
		var conn *inConn
		over := -1 // the last use that has ended
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				if conn == nil {
					conn = expected(mid(1))
					if _, err := g.expect([]*inConn{conn}); err != nil {
						t.Fatal(err)
					}
				}
			case 1:
				if conn != nil {
					conn.complete.Store(rapid.Bool().Draw(t, "complete"))
					if conn.bound {
						over = int(conn.use)
					}
					g.release([]*inConn{conn}, rapid.Bool().Draw(t, "failed"))
					conn = nil
				}
			default:
				u := rapid.IntRange(0, 6).Draw(t, "use")
				flags := rapid.SampledFrom([]icwire.UDPFlags{0, icwire.UDPEOS, icwire.UDPCapacity, abortData}).Draw(t, "flags")
				h, body := packet(mid(1), use(u), uint32(rapid.IntRange(1, 5).Draw(t, "seq")), flags)
				v := g.route(h, body, netip.AddrPort{}, rapid.IntRange(0, 4).Draw(t, "depth"))
				if v.conn != nil && (v.conn != conn || int(conn.use) != u || u <= over) {
					t.Fatalf("use %d delivered, %d is over: %+v", u, over, conn)
				}
				if u <= over && v.reply&(icwire.UDPStop|icwire.UDPAbort) == 0 {
					t.Fatalf("use %d is over, answer %v", u, v.reply)
				}
			}
			bytes := 0
			for _, e := range g.early.entries {
				e := e.Value.(recentEntry[icwire.UDPKey, *early]).value
				for _, p := range e.packets {
					bytes += len(p)
				}
				if len(e.packets) > 4 {
					t.Fatalf("%d packets kept", len(e.packets))
				}
			}
			if bytes != g.bytes {
				t.Fatalf("%d bytes kept, counted %d", bytes, g.bytes)
			}
		}
	})
}
