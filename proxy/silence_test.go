package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// A peer that has been silent for too long is given the time from one look to
// the next: a machine that was stopped has its answer in the socket, unread.
func TestSilenceIsDoubted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	n := startNode(t, 1, -1, addresses(t, 2), func(c *Config) { c.PeerTimeout, c.Poll = time.Nanosecond, time.Hour })
	pr := n.p.peers[2]
	tr := trunk.New(conn.(*net.TCPConn), icwire.Magic36, icwire.MaxPacketLen)
	over := make(chan error, 1)
	go func() { over <- tr.Run(&session{pr: pr, t: tr}) }()
	if !pr.attach(tr, trunk.Agreement{Trunkline: true}, "") { // which asks
		t.Fatal("not attached")
	}
	look := func() bool {
		pr.mu.Lock()
		defer pr.mu.Unlock()
		pr.watch()
		return pr.doubted == tr
	}
	silent := func() { until(t, "a moment of silence", func() bool { return tr.Silent() > 0 }) }
	silent()
	if !look() {
		t.Fatal("silent for too long, and not doubted")
	}
	select {
	case err := <-over:
		t.Fatalf("given up at the first look: %v", err)
	default:
	}
	// The answer that was on its way.
	ask := readPing(t, there)
	ask.Type, ask.SrcContent, ask.SrcDbid, ask.DstContent, ask.DstDbid = icwire.Pong, ask.DstContent, ask.DstDbid, ask.SrcContent, ask.SrcDbid
	if _, err := there.Write(append(ask.Append(nil, icwire.Magic36), make([]byte, 8)...)); err != nil {
		t.Fatal(err)
	}
	until(t, "the answer", func() bool { return tr.Silent() == 0 })
	if look() {
		t.Error("doubted still, after an answer")
	}
	silent() // that look has asked again
	if !look() {
		t.Error("not doubted when silent again")
	}
	look()
	if err := <-over; err == nil || !strings.Contains(err.Error(), "no sign of life") {
		t.Errorf("the second time in a row: %v", err)
	}
}

// readPing reads the first PING a peer is sent.
func readPing(t *testing.T, c net.Conn) icwire.Header {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for buf := make([]byte, 4096); ; {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for b = append(b, buf[:n]...); ; {
			h, _, n, err := icwire.Next(b, icwire.Magic36, icwire.MaxPacketLen)
			if err != nil {
				break
			}
			if h.Type == icwire.Ping {
				return h
			}
			b = b[n:]
		}
	}
}
