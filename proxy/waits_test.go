package proxy

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

func wait(keys ...icwire.Key) (b []byte) {
	for _, k := range keys {
		b = k.Header(icwire.Wait, 0, icwire.Magic36).Append(b, icwire.Magic36)
	}
	return b
}

// given is how a receiver that waits for the stream of k gets it.
func given(k icwire.Key, stream []byte) []byte {
	return append(k.Flip().Header(icwire.Whole, len(stream), icwire.Magic36).Append(nil, icwire.Magic36), stream...)
}

// A stream that is short comes whole to who waits for it, and both ends are done.
func TestWait(t *testing.T) {
	nodes := startCluster(t, 3, nil)
	r := nodes[0].line()
	for i, size := range []int{1, 100, 8192, 8193, longestWaited} {
		for _, first := range []bool{true, false} {
			k, stream := key(3, 1, 21, uint32(10*i)), bytes.Repeat([]byte{byte(i + 1)}, size)
			if !first {
				k.Command++
				mustWrite(t, nodes[2].line(), whole(k, stream))
				until(t, "the stream that is early", func() bool { return nodes[0].p.Status().Early == 1 })
			}
			mustWrite(t, r, wait(back(k)))
			mustRead(t, r, answers(icwire.HelloAck, back(k)))
			if first {
				if n := nodes[0].p.Status().Backends; n != 1 {
					t.Errorf("%d backends while one waits", n)
				}
				mustWrite(t, nodes[2].line(), whole(k, stream))
			}
			mustRead(t, r, given(back(k), stream))
			untilIdle(t, nodes...)
		}
	}

	// From several at once, over a connection each or behind a hello.
	var keys []icwire.Key
	for i := range 20 {
		keys = append(keys, back(key(uint16(2+i%2), 1, int32(31+i), 1)))
	}
	mustWrite(t, r, wait(keys...))
	mustRead(t, r, answers(icwire.HelloAck, keys...))
	streams := map[icwire.Key][]byte{}
	for i, k := range keys {
		stream := ictcp(1, 1000, byte(i))
		streams[k] = stream
		sender := nodes[1+i%2]
		if i%3 == 0 {
			s := sender.line()
			mustWrite(t, s, whole(back(k), stream))
			continue
		}
		s, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sender.socket(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, s, append(back(k).Header(icwire.Hello, 0, icwire.Magic36).Append(nil, icwire.Magic36), stream...))
		closeWrite(t, s)
		t.Cleanup(func() { s.Close() })
	}
	var late []icwire.Key
	for range keys {
		h, stream := readPacket(t, r)
		k := h.DstKey()
		want, ok := streams[k]
		switch {
		case !ok:
			t.Errorf("unexpected %v", h)
		case h.Type == icwire.Bye: // its end came later than its data
			late = append(late, k)
		case h.Type != icwire.Whole || !bytes.Equal(stream, want):
			t.Errorf("%v is not the stream", h)
		}
		if h.Type == icwire.Whole {
			delete(streams, k)
		}
	}
	for _, k := range late {
		c := nodes[0].hello(k)
		mustRead(t, c, streams[k])
		mustEOF(t, c)
		c.Close()
	}
	t.Logf("%d of %d behind a hello", len(late), len(keys))
	untilIdle(t, nodes...)
}

func readPacket(t *testing.T, r io.Reader) (icwire.Header, []byte) {
	t.Helper()
	h, _, err := readHead(r)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(h.Len)-icwire.MaxHeaderLen)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return h, b
}

// What does not come at once, or is long, is there behind a hello, to the last byte
// and in its order.
func TestWaitThenHello(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	r := nodes[0].line()
	for i, c := range []struct {
		name   string
		stream []byte
		rest   int // comes later
	}{
		{"long", ictcp(5, 8000, 1), 0},
		{"incomplete", ictcp(2, 1000, 1), 1000},
		{"empty", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := key(2, 1, 21, uint32(i))
			mustWrite(t, r, wait(back(k)))
			mustRead(t, r, answers(icwire.HelloAck, back(k)))
			s := nodes[1].hello(k)
			if len(c.stream) > 0 {
				mustWrite(t, s, c.stream[:len(c.stream)-c.rest])
			} else {
				closeWrite(t, s)
			}
			mustRead(t, r, answers(icwire.Bye, back(k)))
			h := nodes[0].hello(back(k))
			if len(c.stream) > 0 {
				mustWrite(t, s, c.stream[len(c.stream)-c.rest:])
				closeWrite(t, s)
			}
			mustRead(t, h, c.stream)
			mustEOF(t, h)
			h.Close()
			s.Close()
			untilIdle(t, nodes...)
		})
	}
}

// Who waits can have the sender stop, whether that has come or not; the stream's end
// comes as any other.
func TestWaitStopped(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	r := nodes[0].line()
	stop := func(k icwire.Key) []byte {
		return append(k.Header(icwire.Wait, 1, icwire.Magic36).Append(nil, icwire.Magic36), icwire.StopByte)
	}
	for i, first := range []bool{true, false} {
		k := key(2, 1, 21, uint32(i))
		mustWrite(t, r, wait(back(k)))
		mustRead(t, r, answers(icwire.HelloAck, back(k)))
		var s *net.UnixConn
		say := func() {
			var err error
			if s, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: nodes[1].socket(), Net: "unix"}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			mustWrite(t, s, k.Header(icwire.Hello, 0, icwire.Magic36).Append(nil, icwire.Magic36))
			mustRead(t, s, answers(icwire.HelloAck, k))
		}
		if first {
			say()
		}
		mustWrite(t, r, stop(back(k)))
		if !first {
			say()
		}
		mustRead(t, s, []byte{icwire.StopByte})
		stream := ictcp(1, 100, 7)
		mustWrite(t, s, stream)
		closeWrite(t, s)
		switch h, b := readPacket(t, r); {
		case h.DstKey() != back(k):
			t.Fatalf("unexpected %v", h)
		case h.Type == icwire.Bye: // its end came later than its data
			c := nodes[0].hello(back(k))
			mustRead(t, c, stream)
			mustEOF(t, c)
			c.Close()
		case h.Type != icwire.Whole || !bytes.Equal(b, stream):
			t.Fatalf("%v is not the stream", h)
		}
		mustWrite(t, r, stop(back(k))) // it has crossed the stream
	}
	untilIdle(t, nodes...)
	bad := stop(back(key(2, 1, 22, 1)))
	bad[len(bad)-1]++
	mustWrite(t, r, bad)
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("after something else than a stop: %v", err)
	}
}

// What has no place, and who has one already, has to come with a hello, and the
// connection is as good as before.
func TestWaitDeclined(t *testing.T) {
	list := addresses(t, 2)
	qd := startNode(t, 1, -1, list, nil)
	until(t, "the socket", func() bool { return qd.p.Status().Socket != "" })
	r := qd.line()
	declined := func(k icwire.Key) {
		t.Helper()
		mustWrite(t, r, wait(k))
		mustRead(t, r, answers(icwire.Bye, k))
	}
	k := key(1, 2, 1, 1)
	declined(k) // there is no trunk
	declined(key(1, 7, 1, 1))
	foreign := k
	foreign.Local.Dbid = 2
	declined(foreign)

	g := qd.dialAs(2, 0)
	qd.untilConnected()
	h := qd.hello(k)
	declined(k) // it is there
	h.Close()
	k.Command++
	mustWrite(t, r, wait(k, k)) // the second one has its place already
	mustRead(t, r, append(answers(icwire.HelloAck, k), answers(icwire.Bye, k)...))
	if s := qd.p.Status(); s.Refused != 0 {
		t.Errorf("%d backends refused", s.Refused)
	}

	// Of Greenplum's proxy, too, a stream is taken whole if its end comes with it.
	stream := ictcp(1, 5000, 1)
	b := back(k).Header(icwire.Data, len(stream), icwire.Magic36).Append(nil, icwire.Magic36)
	b = append(b, stream...)
	mustWrite(t, g, back(k).Header(icwire.Bye, 0, icwire.Magic36).Append(b, icwire.Magic36))
	mustRead(t, r, given(k, stream))
	for {
		if h, _ := g.packet(); h.Type == icwire.Bye && h.SrcKey() == k {
			break
		}
	}
}

// Who waits learns at once that the connection with the peer has ended.
func TestWaitLost(t *testing.T) {
	list := addresses(t, 2)
	qd := startNode(t, 1, -1, list, nil)
	until(t, "the socket", func() bool { return qd.p.Status().Socket != "" })
	g := qd.dialTrunkline(2, 0)
	qd.untilConnected()
	r := qd.line()
	keys := []icwire.Key{key(1, 2, 1, 1), key(1, 2, 2, 1)}
	mustWrite(t, r, wait(keys...))
	mustRead(t, r, answers(icwire.HelloAck, keys...))
	g.Close()
	for range keys {
		if h, _ := readPacket(t, r); h.Type != icwire.Lost || h.DstKey() != keys[0] && h.DstKey() != keys[1] {
			t.Errorf("received %v", h)
		}
	}
	untilIdle(t, qd)

	// So does one who was told to say hello, and is about to.
	g = qd.dialTrunkline(2, 0)
	qd.untilConnected()
	k := key(1, 2, 3, 1)
	mustWrite(t, r, wait(k))
	mustRead(t, r, answers(icwire.HelloAck, k))
	g.send(back(k), icwire.Data, ictcp(1, 100, 1))
	mustRead(t, r, answers(icwire.Bye, k))
	g.Close()
	if h, _ := readPacket(t, r); h.Type != icwire.Lost || h.DstKey() != k {
		t.Errorf("received %v", h)
	}
	untilIdle(t, qd)
}

// A receiver that goes while it waits leaves nothing, and its senders end.
func TestWaitGivenUp(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	r := nodes[0].line()
	k1, k2 := key(2, 1, 1, 1), key(2, 1, 2, 1)
	mustWrite(t, r, wait(back(k1), back(k2)))
	mustRead(t, r, answers(icwire.HelloAck, back(k1), back(k2)))
	s := nodes[1].hello(k2)
	mustWrite(t, s, ictcp(1, 100, 1))
	mustRead(t, r, answers(icwire.Bye, back(k2))) // and no hello comes
	r.Close()
	until(t, "the end", func() bool { return nodes[0].p.Status().Backends == 0 })
	late := nodes[1].hello(k1)
	mustWrite(t, late, ictcp(1, 100, 1))
	for _, c := range []*net.UnixConn{s, late} {
		mustEOF(t, c)
		c.Close()
	}
	untilIdle(t, nodes...)
}

// A receiver that does not read gets what it is due when it does, and costs no more
// than so much memory meanwhile.
func TestWaitUnread(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	r, s := nodes[0].line(), nodes[1].line()
	const n = 400
	streams := map[icwire.Key][]byte{}
	var keys []icwire.Key
	for i := range n {
		k := back(key(2, 1, int32(i+1), 1))
		keys, streams[k] = append(keys, k), bytes.Repeat([]byte{byte(i)}, 30_000)
	}
	mustWrite(t, r, wait(keys...))
	mustRead(t, r, answers(icwire.HelloAck, keys...))
	for _, k := range keys {
		mustWrite(t, s, whole(back(k), streams[k]))
		mustRead(t, s, answers(icwire.HelloAck, back(k)))
	}
	was, since := n, time.Now()
	until(t, "all to be handed over or kept", func() bool {
		if now := nodes[0].p.Status().Backends; now != was {
			was, since = now, time.Now()
		}
		return was < n && time.Since(since) > 200*time.Millisecond
	})
	taken := 0
	for range keys {
		h, b := readPacket(t, r)
		k := h.DstKey()
		switch {
		case h.Type == icwire.Whole && bytes.Equal(b, streams[k]):
			taken++
		case h.Type == icwire.Bye:
			c := nodes[0].hello(k)
			mustRead(t, c, streams[k])
			mustEOF(t, c)
			c.Close()
		default:
			t.Fatalf("received %v", h)
		}
	}
	if most := mostUnread/30_000 + 20; taken > most {
		t.Errorf("%d streams of %d were handed over to who reads nothing", taken, n)
	}
	untilIdle(t, nodes...)
}

// What is no WAIT ends the connection.
func TestWaitBroken(t *testing.T) {
	nodes := startCluster(t, 2, func(c *Config) { c.Times.HelloTimeout = 100 * time.Millisecond })
	k := back(key(2, 1, 1, 1))
	long := k.Header(icwire.Wait, 1, icwire.Magic36).Append(nil, icwire.Magic36)
	for _, c := range []struct {
		name string
		said []byte
	}{
		{"with a payload", append(long, 'x')},
		{"plain32", k.Header(icwire.Wait, 0, icwire.Plain32).Append(nil, icwire.Plain32)},
		{"hello after it", k.Header(icwire.Hello, 0, icwire.Magic36).Append(wait(k), icwire.Magic36)},
		{"text after it", append(wait(k), "GET / HTTP/1.0\r\n\r\n and then enough for a header"...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := nodes[0].line()
			mustWrite(t, r, c.said)
			if _, err := io.ReadAll(r); os.IsTimeout(err) {
				t.Error(err)
			}
			mustWrite(t, nodes[1].line(), whole(back(k), []byte("for nobody")))
			k.Command++
		})
	}
	for _, n := range nodes {
		until(t, "no backends", func() bool { return n.p.Status().Backends == 0 })
	}
}
