package proxy

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// The life of a logical connection, by who comes first and who sends.
func TestOneConnection(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	data := ictcp(30, 8192, 1)
	for _, c := range []struct {
		name             string
		sender, receiver int
		senderFirst      bool
	}{
		{"to the coordinator, receiver first", 1, 0, false},
		{"to the coordinator, sender first", 1, 0, true},
		{"to the segment, receiver first", 0, 1, false},
		{"to the segment, sender first", 0, 1, true},
		{"on the segment itself, receiver first", 1, 1, false},
		{"on the segment itself, sender first", 1, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := key(uint16(c.sender+1), uint16(c.receiver+1), 10, 3)
			var s, r *net.UnixConn
			if c.senderFirst {
				s = nodes[c.sender].hello(k)
				mustWrite(t, s, data)
				closeWrite(t, s)
				time.Sleep(5 * time.Millisecond)
				r = nodes[c.receiver].hello(back(k))
			} else {
				r = nodes[c.receiver].hello(back(k))
				s = nodes[c.sender].hello(k)
				mustWrite(t, s, data[:5])
				mustRead(t, r, data[:5]) // a part of a packet is not held back
				mustWrite(t, s, data[5:])
				mustRead(t, r, data[5:8197])
				closeWrite(t, s)
				mustRead(t, r, data[8197:])
				mustEOF(t, r)
			}
			if c.senderFirst {
				mustRead(t, r, data)
				mustEOF(t, r)
			}
			r.Close()
			mustEOF(t, s)
			untilIdle(t, nodes...)
		})
	}
}

func TestEarlyStop(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	k := key(2, 1, 10, 1)
	r, s := nodes[0].hello(back(k)), nodes[1].hello(k)
	mustWrite(t, s, ictcp(1, 500, 0))
	mustRead(t, r, ictcp(1, 500, 0))
	mustWrite(t, r, []byte("S"))
	mustRead(t, s, []byte("S"))
	closeWrite(t, s)
	mustEOF(t, r)
	r.Close()
	mustEOF(t, s)
	untilIdle(t, nodes...)
}

// All pairs of four proxies at once, both directions, odd sizes, every byte
// checked; one TCP connection for each pair.
func TestEverybodyToEverybody(t *testing.T) {
	nodes := startCluster(t, 4, nil)
	var wg sync.WaitGroup
	for i, a := range nodes {
		for j, b := range nodes {
			for n := range 3 {
				k := key(uint16(i+1), uint16(j+1), int32(100*i+10*j+n), 1)
				data := ictcp(40, 97+n*4000+i, byte(i*4+j))
				wg.Go(func() {
					s := a.hello(k)
					if _, err := s.Write(data); err != nil {
						t.Errorf("%v: %v", k, err)
					}
					s.CloseWrite()
					if _, err := s.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("%v: sender's end: %v", k, err)
					}
				})
				wg.Go(func() {
					r := b.hello(back(k))
					got, err := io.ReadAll(r)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%v: %d of %d bytes, %v", k, len(got), len(data), err)
					}
					r.Close()
				})
			}
		}
	}
	wg.Wait()
	untilIdle(t, nodes...)
	for _, n := range nodes {
		if s := n.p.Status(); s.Refused+s.Rejected+s.Misrouted != 0 || len(s.Peers) != 3 {
			t.Errorf("%+v", s)
		}
	}
}

// A receiver that does not read holds up its own sender, within the window,
// and nobody else.
func TestUnread(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	stuck := key(2, 1, 10, 1)
	nodes[0].hello(back(stuck))
	s := nodes[1].hello(stuck)
	if err := s.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(s, bytes.NewReader(ictcp(2000, 8192, 0)))
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
		t.Fatalf("16 MB went to a receiver that does not read: %d bytes, %v", n, err)
	}
	if n > 3<<20 {
		t.Errorf("%d bytes were taken from the sender", n)
	}
	live := key(2, 1, 11, 1)
	r, w := nodes[0].hello(back(live)), nodes[1].hello(live)
	data := ictcp(1000, 8192, 3)
	go func() { w.Write(data) }()
	mustRead(t, r, data)
}

// The same key comes back while the first is closing: the second backend is
// answered when the first has ended, and gets its own bytes.
func TestSameKeySuccessor(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	k := key(2, 1, 10, 1)
	r1, s1 := nodes[0].hello(back(k)), nodes[1].hello(k)
	one, two := ictcp(3, 300, 1), ictcp(3, 300, 2)
	mustWrite(t, s1, one)
	closeWrite(t, s1)
	mustRead(t, r1, one)
	mustEOF(t, r1)
	var s2, r2 *net.UnixConn
	var wg sync.WaitGroup
	wg.Go(func() { s2 = nodes[1].hello(k) })
	wg.Go(func() { r2 = nodes[0].hello(back(k)) })
	time.Sleep(20 * time.Millisecond)
	r1.Close()
	mustEOF(t, s1)
	wg.Wait()
	mustWrite(t, s2, two)
	closeWrite(t, s2)
	mustRead(t, r2, two)
	mustEOF(t, r2)
	r2.Close()
	mustEOF(t, s2)
	untilIdle(t, nodes...)
}

// A backend that dies ends the other end's stream; one that dies without
// reading lets the sender finish.
func TestBackendDies(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	k := key(2, 1, 10, 1)
	r, s := nodes[0].hello(back(k)), nodes[1].hello(k)
	mustWrite(t, s, ictcp(1, 100, 0))
	s.Close()
	mustRead(t, r, ictcp(1, 100, 0))
	mustEOF(t, r)
	r.Close()
	untilIdle(t, nodes...)

	k = key(2, 1, 11, 1)
	r, s = nodes[0].hello(back(k)), nodes[1].hello(k)
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0)[:50])
	r.Close()
	mustEOF(t, s)
	mustWrite(t, s, ictcp(500, 8192, 0)) // five windows, thrown away
	s.Close()
	untilIdle(t, nodes...)
}

// The loss of a proxy ends its connections everywhere, and when it is back so
// are they.
func TestProxyDies(t *testing.T) {
	list := addresses(t, 3)
	var nodes []*node
	for _, e := range list {
		nodes = append(nodes, startNode(t, e.Dbid, e.Content, list, nil))
	}
	for _, n := range nodes {
		n.untilConnected()
	}
	broken, whole := key(2, 1, 10, 1), key(3, 1, 11, 1)
	r, s := nodes[0].hello(back(broken)), nodes[1].hello(broken)
	r2, s2 := nodes[0].hello(back(whole)), nodes[2].hello(whole)
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
	nodes[1].stop()
	mustEOF(t, r)
	mustEOF(t, s)
	mustWrite(t, s2, ictcp(1, 100, 0))
	mustRead(t, r2, ictcp(1, 100, 0))
	if c := nodes[0].p.Status().Cause(2); c != "the proxy of seg0 (dbid 2) has not connected to the proxy of seg-1 (dbid 1): the peer closed the connection" {
		t.Errorf("cause: %q", c)
	}
	nodes[1] = startNode(t, 2, 0, list, nil)
	for _, n := range nodes {
		n.untilConnected()
	}
	k := key(2, 1, 20, 1)
	r, s = nodes[0].hello(back(k)), nodes[1].hello(k)
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))

	// A backend that asks only now what has become of its connection.
	st := nodes[0].p.Status()
	at := st.Peers[0].LostAt
	if why := st.Explain(2, false); why != "" {
		t.Errorf("cause of nothing: %q", why)
	}
	want := "the connection of the proxy of seg-1 (dbid 1) with that of seg0 (dbid 2) at " + list[1].Addr() + " was lost 2.5 s ago: the peer closed the connection"
	if why := st.Loss(2, at.Add(2500*time.Millisecond)); why != want {
		t.Errorf("loss %q, want %q", why, want)
	}
	late := st
	late.Peers = slices.Clone(st.Peers)
	late.Peers[0].Since = at.Add(20 * time.Second) // connected again, what was lost ends now
	if why := late.Loss(2, at.Add(21*time.Second)); !strings.Contains(why, "was lost 21.0 s ago") {
		t.Errorf("loss before the peer came back: %q", why)
	}
	if why := st.Explain(2, true); !strings.Contains(why, "the peer closed the connection") {
		t.Errorf("explanation %q", why)
	}
	if why := st.Loss(2, time.Now().Add(time.Minute)); why != "" {
		t.Errorf("loss of long ago: %q", why)
	}
	st = nodes[1].p.Status() // the new one has lost nothing
	if why := st.Loss(1, st.Started.Add(time.Second)); why != "the proxy of seg0 (dbid 2) was started again 1.0 s ago" {
		t.Errorf("loss with the proxy: %q", why)
	}
}

func TestPlain32(t *testing.T) {
	nodes := startCluster(t, 2, func(c *Config) { c.Dialect = DialectPlain32 })
	k := key(2, 1, 10, 1)
	r, err := nodes[0].tryHello(back(k), icwire.Plain32)
	if err != nil {
		t.Fatal(err)
	}
	s, err := nodes[1].tryHello(k, icwire.Plain32)
	if err != nil {
		t.Fatal(err)
	}
	data := ictcp(20, 8192, 0)
	mustWrite(t, s, data)
	mustRead(t, r, data)
	if _, err := nodes[0].tryHello(back(key(2, 1, 11, 1)), icwire.Magic36); err == nil {
		t.Error("a backend of the other dialect was served")
	}
}

// A proxy that is not told the dialect takes it from its first backend, dials
// with it, and so teaches the others.
func TestDialectIsLearned(t *testing.T) {
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		t.Run(d.String(), func(t *testing.T) {
			list := addresses(t, 2)
			var nodes []*node
			for _, e := range list {
				nodes = append(nodes, startNode(t, e.Dbid, e.Content, list, func(c *Config) { c.Dialect = DialectAuto }))
			}
			if s := nodes[1].p.Status(); s.Dialect != "auto" || s.Peers[0].State == StateConnected {
				t.Errorf("before anybody spoke: %+v", s)
			}
			k := key(2, 1, 10, 1)
			s, err := nodes[1].tryHello(k, d)
			if err != nil {
				t.Fatal(err)
			}
			r, err := nodes[0].tryHello(back(k), d)
			if err != nil {
				t.Fatal(err)
			}
			mustWrite(t, s, ictcp(1, 100, 0))
			mustRead(t, r, ictcp(1, 100, 0))
			for _, n := range nodes {
				if got := n.p.Status().Dialect; got != d.String() {
					t.Errorf("%s says %s", n.p.label, got)
				}
			}
		})
	}
}
