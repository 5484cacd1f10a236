package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

func capture(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../icwire/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The captured connections of a Greenplum cluster's three segments to its
// coordinator, replayed to ours with a backend in the place of the QD: it
// reads the captured rows, and the segments get the bytes Greenplum's
// coordinator sent, but for its pid.
func TestReplayToCoordinator(t *testing.T) {
	for _, first := range []string{"segments", "QD"} {
		t.Run(first+" first", func(t *testing.T) {
			qd := startNode(t, 1, -1, addresses(t, 4), nil)
			var wg sync.WaitGroup
			for dbid, c := range map[uint16][2]string{
				2: {"peer.40600-35432.bin", "peer.35432-40600.bin"},
				3: {"peer.40586-35432.bin", "peer.35432-40586.bin"},
				4: {"peer.40588-35432.bin", "peer.35432-40588.bin"},
			} {
				sent, answer := capture(t, c[0]), capture(t, c[1])
				binary.LittleEndian.PutUint32(answer[12:], uint32(os.Getpid()))
				d, payload, _, err := icwire.Next(sent[36:], icwire.Magic36, 8228)
				if err != nil {
					t.Fatal(err)
				}
				backend := func() {
					b := qd.hello(d.DstKey())
					got, err := io.ReadAll(b)
					if err != nil || !bytes.Equal(got, payload) {
						t.Errorf("dbid %d: the backend read %d of %d bytes, %v", dbid, len(got), len(payload), err)
					}
					b.Close()
				}
				peer := func() {
					own, _ := qd.facts.Addresses.Lookup(1)
					conn, err := net.Dial("tcp", own.Addr())
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(patience))
					if _, err := conn.Write(sent); err != nil {
						t.Error(err)
					}
					got := make([]byte, len(answer))
					if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, answer) {
						t.Errorf("dbid %d was answered\n% x (%v), Greenplum answers\n% x", dbid, got[:n], err, answer)
					}
				}
				if first == "QD" {
					wg.Go(backend)
					time.Sleep(20 * time.Millisecond)
					wg.Go(peer)
				} else {
					wg.Go(peer)
					time.Sleep(20 * time.Millisecond)
					wg.Go(backend)
				}
			}
			wg.Wait()
		})
	}
}

// A segment's proxy of ours towards a Greenplum coordinator: what the backend
// wrote goes out as Greenplum's did.
func TestReplayFromSegment(t *testing.T) {
	sent, answer := capture(t, "peer.40586-35432.bin"), capture(t, "peer.35432-40586.bin")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list := addresses(t, 4)
	list[0].Port = l.Addr().(*net.TCPAddr).Port
	seg := startNode(t, 3, 1, list, nil)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 36)
	if _, err := io.ReadFull(conn, hello); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(sent[:36])
	binary.LittleEndian.PutUint32(want[12:], uint32(os.Getpid()))
	// Session, command and send slice carry the offer and our port, which
	// Greenplum echoes unread.
	if !bytes.Equal(hello[:24], want[:24]) || !bytes.Equal(hello[34:], want[34:]) || bytes.Equal(hello[24:32], want[24:32]) {
		t.Errorf("PEER_HELLO\n% x, Greenplum's\n% x", hello, want)
	}
	h, _ := icwire.Decode(hello, icwire.Magic36)
	mustWrite(t, conn, h.PeerHelloAck(31477).Append(nil, icwire.Magic36))
	seg.p.mu.RLock()
	pr := seg.p.peers[1]
	seg.p.mu.RUnlock()
	until(t, "the peer", pr.connected)
	if s := seg.p.Status(); s.Peers[0].Trunkline {
		t.Error("an echo was taken for another Trunkline")
	}

	d, payload, _, err := icwire.Next(sent[36:], icwire.Magic36, 8228)
	if err != nil {
		t.Fatal(err)
	}
	b := seg.hello(d.SrcKey())
	mustWrite(t, b, payload)
	closeWrite(t, b)
	mustRead(t, conn, sent[36:])
	mustWrite(t, conn, answer[36:])
	mustEOF(t, b)
	untilIdle(t, seg)
}

// Greenplum's sender counts ic-tcp packets and sends several in one DATA
// packet: one acknowledgement for ten of those.
func TestAcknowledgesInsidePackets(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 2), nil)
	seg := qd.dialAs(2, 0)
	k := key(2, 1, 10, 1)
	r := qd.hello(back(k))
	for range 5 {
		seg.send(k, icwire.Data, ictcp(16, 500, 0))
	}
	for range 5 {
		mustRead(t, r, ictcp(16, 500, 0))
	}
	for range 8 { // of 80 packets
		seg.expect(icwire.DataAck, back(k))
	}
	// Whole ones, and one packet cut over two DATA packets.
	for range 9 {
		seg.send(k, icwire.Data, ictcp(1, 8192, 0))
	}
	cut := ictcp(1, 8192, 0)
	seg.send(k, icwire.Data, cut[:3])
	seg.send(k, icwire.Data, cut[3:])
	for range 10 {
		mustRead(t, r, cut)
	}
	seg.expect(icwire.DataAck, back(k))
	seg.send(k, icwire.Bye, nil)
	mustEOF(t, r)
	r.Close()
	seg.expect(icwire.Bye, back(k)) // and nothing before it
	untilIdle(t, qd)
}

// Towards Greenplum at most 100 DATA packets are unacknowledged, none is longer
// than Greenplum accepts, and reading goes on at 30.
func TestWindowTowardsGreenplum(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 2), nil)
	seg := qd.dialAs(2, 0)
	k := key(1, 2, 10, 1)
	s := qd.hello(k)
	data := ictcp(400, 8192, 0)
	go s.Write(data)
	var got []byte
	take := func(n int) {
		t.Helper()
		for range n {
			p := seg.expect(icwire.Data, k)
			if len(p) > 8192 {
				t.Fatalf("payload of %d bytes", len(p))
			}
			got = append(got, p...)
		}
	}
	silent := func() {
		t.Helper()
		seg.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := seg.Read(make([]byte, 1)); n > 0 {
			t.Fatalf("more than the window: %d, %v", n, err)
		}
		seg.SetReadDeadline(time.Now().Add(patience))
	}
	take(100)
	silent()
	for range 6 {
		seg.send(back(k), icwire.DataAck, nil)
	}
	silent()
	seg.send(back(k), icwire.DataAck, nil)
	take(70)
	silent()
	for range 10 {
		seg.send(back(k), icwire.DataAck, nil)
	}
	for n := 1; len(got) < len(data); n++ {
		take(1)
		if n%10 == 0 {
			seg.send(back(k), icwire.DataAck, nil)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("the bytes differ")
	}
}

// gp_max_packet_size of the cluster is not exceeded.
func TestSmallMaxPacketSize(t *testing.T) {
	n := startNode(t, 1, -1, addresses(t, 2), nil)
	n.mu.Lock()
	n.facts.MaxPacket = 1400
	n.mu.Unlock()
	if err := n.p.Reload(); err != nil {
		t.Fatal(err)
	}
	seg := n.dialAs(2, 0)
	k := key(1, 2, 10, 1)
	s := n.hello(k)
	data := ictcp(20, 1400, 0)
	mustWrite(t, s, data)
	var got []byte
	for len(got) < len(data) {
		p := seg.expect(icwire.Data, k)
		if len(p) > 1400 {
			t.Fatalf("payload of %d bytes", len(p))
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, data) {
		t.Error("the bytes differ")
	}
}

// A new connection of a peer replaces the old one, whose connections end.
func TestPeerReplaced(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 2), nil)
	old := qd.dialAs(2, 0)
	k := key(2, 1, 10, 1)
	r := qd.hello(back(k))
	old.send(k, icwire.Data, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
	fresh := qd.dialAs(2, 0)
	mustEOF(t, r)
	mustEOF(t, old)
	k.Command++
	r = qd.hello(back(k))
	fresh.send(k, icwire.Data, ictcp(1, 100, 1))
	mustRead(t, r, ictcp(1, 100, 1))
	if s := qd.p.Status(); s.Cause(2) != "" || s.Peers[0].Error != "" {
		t.Errorf("%+v", s.Peers[0])
	}
}

// What was complete when the peer went is delivered in full.
func TestPeerLostAfterBye(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 2), nil)
	seg := qd.dialAs(2, 0)
	done, cut := key(2, 1, 10, 1), key(2, 1, 11, 1)
	r, r2 := qd.hello(back(done)), qd.hello(back(cut))
	data := ictcp(90, 8192, 0) // more than the socket holds
	for range 90 {
		seg.send(done, icwire.Data, data[:8192])
		data = append(data[8192:], data[:8192]...)
	}
	seg.send(done, icwire.Bye, nil)
	seg.send(cut, icwire.Data, data[:100])
	mustRead(t, r2, data[:100])
	seg.Close()
	mustEOF(t, r2)
	mustRead(t, r, data)
	mustEOF(t, r)
	r.Close()
	untilIdle(t, qd)
}

// Packets for a backend that never comes are given up, and the peer is told.
func TestEarlyPacketsExpire(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 2), func(c *Config) {
		c.Limits.EarlyTimeout, c.Limits.EarlyBytes, c.Limits.EarlyConns = 100*time.Millisecond, 1<<20, 100
		c.Limits.Pending, c.Limits.Chain, c.Limits.Linger = 1<<20, 4, time.Second
	})
	seg := qd.dialAs(2, 0)
	k := key(2, 1, 10, 1)
	seg.send(k, icwire.Data, ictcp(1, 100, 0))
	seg.expect(icwire.Bye, back(k))
	if _, err := qd.tryHello(back(k), icwire.Magic36); err == nil {
		t.Error("a backend was served after its packets had been given up")
	}
	seg.send(k, icwire.Bye, nil)
	untilIdle(t, qd)
}

// Packets that make no sense are dropped or end the trunk, never the proxy.
func TestHostilePeer(t *testing.T) {
	qd := startNode(t, 1, -1, addresses(t, 3), nil)
	k := key(2, 1, 10, 1)
	seg := qd.dialAs(2, 0)
	seg.send(key(2, 3, 10, 1), icwire.Data, []byte("for another instance"))
	seg.send(key(3, 1, 10, 1), icwire.Data, []byte("from another instance"))
	r := qd.hello(back(k))
	seg.send(k, icwire.Data, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
	if n := qd.p.Status().Misrouted; n != 2 {
		t.Errorf("%d packets misrouted", n)
	}
	// One that ignores the window loses the connection, not the others.
	flood := key(2, 1, 11, 1)
	f := qd.hello(back(flood))
	big := ictcp(1, 8192, 0)
	for range 1000 {
		seg.send(flood, icwire.Data, big)
	}
	until(t, "the flooded connection to be closed", func() bool { return qd.p.Status().Backends == 1 })
	if _, err := io.ReadAll(f); err != nil {
		t.Errorf("the flooded backend: %v", err)
	}
	seg.send(k, icwire.Data, ictcp(1, 100, 1))
	mustRead(t, r, ictcp(1, 100, 1))
	seg.send(k, icwire.Hello, nil)
	mustEOF(t, r)
}
