package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// A sender closes its socket as soon as it has written all, while the receiver,
// who has read nothing yet, tells it to stop. What it has written arrives.
func TestSenderClosesAtOnce(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	for _, unread := range []bool{false, true} {
		k := key(2, 1, 21, 1)
		s, r := nodes[1].hello(k), nodes[0].hello(back(k))
		// More than the window: the last of it lies in the sender's socket.
		piece := ictcp(1, 8192, 1)
		sent := 0
		for {
			if err := s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, err := s.Write(piece)
			sent += n
			if err != nil {
				break
			}
		}
		if unread {
			mustWrite(t, r, []byte("S"))
			time.Sleep(50 * time.Millisecond) // the sender's socket has it
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, r, []byte("S"))
		time.Sleep(50 * time.Millisecond) // nobody takes it
		got, err := io.Copy(io.Discard, r)
		if err != nil || got != int64(sent) {
			t.Errorf("stop byte unread %v: %d of %d bytes, %v", unread, got, sent, err)
		}
		r.Close()
		untilIdle(t, nodes...)
	}
}

// dialTrunkline connects to the proxy's port as another instance's Trunkline
// proxy.
func (n *node) dialTrunkline(dbid uint16, content int16) *greenplum {
	n.t.Helper()
	g, ack := n.dialWith(icwire.Magic36, trunk.Offer(n.peerHello(dbid, content)), nil)
	if a := trunk.Agreed(ack); !a.Trunkline || a.Features&trunk.FeatureLost == 0 {
		n.t.Fatalf("PEER_HELLO was answered with %v", ack)
	}
	return g
}

// next is the next packet that is not of the trunk itself.
func (g *greenplum) next() icwire.Header {
	for {
		h, _ := g.packet()
		switch h.Type {
		case icwire.Ping, icwire.Pong, icwire.Free:
		default:
			return h
		}
	}
}

// A sender's stream is lost with the trunk when the receiver has registered and
// waits for the next trunk already: over that it is told.
func TestLostWithTheTrunk(t *testing.T) {
	list := addresses(t, 2)
	qd := startNode(t, 1, -1, list, nil)
	old := qd.dialTrunkline(2, 0)
	qd.untilConnected()

	// As the sender's proxy.
	k := key(1, 2, 31, 1)
	s := qd.hello(k)
	mustWrite(t, s, ictcp(1, 100, 1))
	if h := old.next(); h.Type != icwire.Data {
		t.Fatalf("%v instead of the sender's data", h)
	}
	s.Close()
	if h := old.next(); h.Type != icwire.Bye {
		t.Fatalf("%v instead of the sender's end", h)
	}
	old.Close()
	until(t, "the trunk to be missed", func() bool { return len(qd.p.Status().Missing()) == 1 })
	waiting := key(1, 2, 32, 1)
	uc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: qd.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	mustWrite(t, uc, waiting.Header(icwire.Hello, 0, icwire.Magic36).Append(nil, icwire.Magic36))
	until(t, "the receiver to wait", func() bool { return qd.p.Status().Backends == 1 })

	fresh := qd.dialTrunkline(2, 0)
	if h := fresh.next(); h.Type != icwire.Lost || h.SrcKey() != k {
		t.Errorf("%v instead of what was lost", h)
	}
	qd.untilConnected()
	// As the receiver's.
	fresh.send(back(waiting), icwire.Lost, nil)
	ack := make([]byte, icwire.Magic36.HeaderLen())
	if _, err := io.ReadFull(uc, ack); err != nil {
		t.Fatal(err)
	}
	mustEOF(t, uc)
	uc.Close()
	if h := fresh.next(); h.Type != icwire.Bye || h.SrcKey() != waiting {
		t.Errorf("%v instead of the receiver's end", h)
	}
	untilIdle(t, qd)

	// Who registers with the trunk that is there is not concerned.
	r := qd.hello(waiting)
	fresh.send(back(waiting), icwire.Lost, nil)
	fresh.send(back(waiting), icwire.Data, ictcp(1, 100, 1))
	mustRead(t, r, ictcp(1, 100, 1))
}
