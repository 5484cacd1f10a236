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

// line is a backend's connection for whole streams.
func (n *node) line() *net.UnixConn {
	n.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.socket(), Net: "unix"})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	return c
}

func whole(k icwire.Key, stream []byte) []byte {
	return append(k.Header(icwire.Whole, len(stream), icwire.Magic36).Append(nil, icwire.Magic36), stream...)
}

// answers is what the proxy says to streams of the keys that it has taken, or
// not.
func answers(ty icwire.Type, keys ...icwire.Key) (b []byte) {
	for _, k := range keys {
		h := k.Header(icwire.Hello, 0, icwire.Magic36).HelloAck()
		h.Type = ty
		b = h.Append(b, icwire.Magic36)
	}
	return b
}

func TestWhole(t *testing.T) {
	nodes := startCluster(t, 3, nil)
	c := nodes[2].line()

	// One after the other; the receiver is there before, or comes after.
	for i, size := range []int{1, 100, 4096, 8192, 60_000, icwire.MaxPacketLen - icwire.MaxHeaderLen} {
		k, stream := key(3, 1, 21, uint32(i)), bytes.Repeat([]byte{byte(i + 1)}, size)
		var r *net.UnixConn
		if i%2 == 0 {
			r = nodes[0].hello(back(k))
		}
		mustWrite(t, c, whole(k, stream))
		mustRead(t, c, answers(icwire.HelloAck, k))
		if r == nil {
			r = nodes[0].hello(back(k))
		}
		mustRead(t, r, stream)
		mustEOF(t, r)
		r.Close()
	}
	untilIdle(t, nodes...)

	// Several at once, in pieces.
	var said []byte
	var keys []icwire.Key
	for i := range 20 {
		k := key(3, uint16(1+i%2), int32(31+i), 1)
		keys = append(keys, k)
		said = append(said, whole(k, ictcp(1, 1000, byte(i)))...)
	}
	for len(said) > 0 {
		n := min(len(said), 4567)
		mustWrite(t, c, said[:n])
		said = said[n:]
	}
	mustRead(t, c, answers(icwire.HelloAck, keys...))
	for i, k := range keys {
		r := nodes[i%2].hello(back(k))
		mustRead(t, r, ictcp(1, 1000, byte(i)))
		mustEOF(t, r)
		r.Close()
	}
	untilIdle(t, nodes...)

	// A receiver that stops early changes nothing for the sender.
	k := key(3, 1, 61, 1)
	r := nodes[0].hello(back(k))
	mustWrite(t, r, []byte("S"))
	time.Sleep(20 * time.Millisecond) // it is there before the sender
	mustWrite(t, c, whole(k, []byte("data")))
	ack := make([]byte, icwire.MaxHeaderLen)
	if _, err := io.ReadFull(c, ack); err != nil {
		t.Fatal(err)
	}
	// Its byte has made a connection of the key, so the sender has to say hello.
	if !bytes.Equal(ack, answers(icwire.Bye, k)) {
		t.Errorf("the answer is % x", ack)
	}
	s := nodes[2].hello(k)
	mustWrite(t, s, []byte("data"))
	closeWrite(t, s)
	mustRead(t, r, []byte("data"))
	mustEOF(t, r)
	r.Close()
	s.Close()
	untilIdle(t, nodes...)
}

// What cannot go on at once has to come with a hello, and the connection is as
// good as before.
func TestWholeDeclined(t *testing.T) {
	list := addresses(t, 2)
	qd := startNode(t, 1, -1, list, nil)
	until(t, "the socket", func() bool { return qd.p.Status().Socket != "" })
	c := qd.line()
	declined := func(k icwire.Key, stream []byte) {
		t.Helper()
		mustWrite(t, c, whole(k, stream))
		mustRead(t, c, answers(icwire.Bye, k))
	}
	k := key(1, 2, 1, 1)
	declined(k, []byte("no trunk"))
	declined(key(1, 7, 1, 1), []byte("no such peer"))
	foreign := k
	foreign.Local.Dbid = 2
	declined(foreign, []byte("another's backend"))

	g := qd.dialAs(2, 0)
	qd.untilConnected()
	declined(k, make([]byte, icwire.DefaultPayload+1)) // longer than Greenplum's proxy takes
	g.send(back(k), icwire.Data, ictcp(1, 100, 1))
	until(t, "the packet that is early", func() bool { return qd.p.Status().Early == 1 })
	declined(k, []byte("the key is in use"))
	if s := qd.p.Status(); s.Refused != 0 {
		t.Errorf("%d backends refused", s.Refused)
	}

	k = key(1, 2, 2, 1)
	stream := ictcp(1, icwire.DefaultPayload, 1)
	mustWrite(t, c, whole(k, stream))
	mustRead(t, c, answers(icwire.HelloAck, k))
	if got := g.expect(icwire.Data, k); !bytes.Equal(got, stream) {
		t.Error("the data differs")
	}
	g.expect(icwire.Bye, k)
}

// A connection that ends in the middle, or says something else, sends nothing on.
func TestWholeBroken(t *testing.T) {
	nodes := startCluster(t, 2, func(c *Config) { c.Times.HelloTimeout = 100 * time.Millisecond })
	stream := []byte("a stream")
	half := whole(key(2, 1, 2, 1), stream)
	half = half[:len(half)-1]
	for i, c := range []struct {
		name   string
		placed bool // the first is good, and only what follows is not
		said   func(k icwire.Key) []byte
	}{
		{"half", false, func(k icwire.Key) []byte { b := whole(k, stream); return b[:len(b)-1] }},
		{"no stream", false, func(k icwire.Key) []byte { return whole(k, nil) }},
		{"plain32", false, func(k icwire.Key) []byte {
			return append(k.Header(icwire.Whole, 1, icwire.Plain32).Append(nil, icwire.Plain32), 'x')
		}},
		{"hello", true, func(k icwire.Key) []byte {
			return k.Header(icwire.Hello, 0, icwire.Magic36).Append(whole(k, stream), icwire.Magic36)
		}},
		{"text", true, func(k icwire.Key) []byte {
			return append(whole(k, stream), "GET / HTTP/1.0\r\n\r\n and then enough for a header"...)
		}},
		{"half another", true, func(k icwire.Key) []byte { return append(whole(k, stream), half...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := key(2, 1, 11, uint32(i))
			uc := nodes[1].line()
			mustWrite(t, uc, c.said(k))
			if n, err := uc.Read(make([]byte, 100)); n > 0 || os.IsTimeout(err) {
				t.Errorf("%d bytes of an answer, %v", n, err)
			}
			if c.placed { // its receiver learns that it is gone
				r := nodes[0].hello(back(k))
				mustEOF(t, r)
				r.Close()
			}
		})
	}
	untilIdle(t, nodes...)
	// Who waits between two streams may do so for long.
	c := nodes[1].line()
	for i := range 2 {
		k := key(2, 1, 21, uint32(i))
		mustWrite(t, c, whole(k, stream))
		mustRead(t, c, answers(icwire.HelloAck, k))
		r := nodes[0].hello(back(k))
		mustRead(t, r, stream)
		r.Close()
		time.Sleep(200 * time.Millisecond)
	}
}

// The sender goes before the answer.
func TestWholeUnanswered(t *testing.T) {
	nodes := startCluster(t, 2, nil)
	for i := range 20 {
		k := key(2, 1, 1, uint32(i))
		r := nodes[0].hello(back(k))
		c := nodes[1].line()
		mustWrite(t, c, whole(k, []byte("a stream")))
		c.Close()
		got, err := io.ReadAll(r)
		if s := string(got); err != nil || s != "" && s != "a stream" {
			t.Errorf("%q, %v", s, err)
		}
		r.Close()
	}
	untilIdle(t, nodes...)
}
