package icwire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The handshakes as a Greenplum 6.24.3 cluster sent them.
func TestGoldenHandshakes(t *testing.T) {
	helloSeg := Header{
		Len: 36, Type: Hello,
		SrcContent: 0, SrcDbid: 2, SrcPid: 31552,
		DstContent: -1, DstDbid: 1, DstPid: 31551,
		Session: 8, Command: 6, SendSlice: 1, RecvSlice: 0,
	}
	helloQD := helloSeg.HelloAck()
	helloQD.Type = Hello
	peer := Header{Len: 36, Type: PeerHello, SrcContent: 1, SrcDbid: 3, SrcPid: 31429, DstContent: 0, DstDbid: 2}
	peerQD := peer
	peerQD.DstContent, peerQD.DstDbid = -1, 1
	for _, c := range []struct {
		name string
		h    Header
		hex  string
	}{
		{"HELLO of a QE", helloSeg, "fecaddba2400040000000200407b0000ffff01003f7b0000080000000600000001000000"},
		{"HELLO_ACK to it", helloSeg.HelloAck(), "fecaddba24000500ffff01003f7b000000000200407b0000080000000600000001000000"},
		{"HELLO of the QD", helloQD, "fecaddba24000400ffff01003f7b000000000200407b0000080000000600000001000000"},
		{"HELLO_ACK to the QD", helloQD.HelloAck(), "fecaddba2400050000000200407b0000ffff01003f7b0000080000000600000001000000"},
		{"PEER_HELLO", peer, "fecaddba2400010001000300c57a00000000020000000000000000000000000000000000"},
		{"PEER_HELLO_ACK", peer.PeerHelloAck(31410), "fecaddba2400020001000300b27a00000000020000000000000000000000000000000000"},
		{"PEER_HELLO to the coordinator", peerQD, "fecaddba2400010001000300c57a0000ffff010000000000000000000000000000000000"},
		{"PEER_HELLO_ACK of the coordinator", peerQD.PeerHelloAck(31477), "fecaddba2400020001000300f57a0000ffff010000000000000000000000000000000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := hex.EncodeToString(c.h.Append(nil, Magic36)); got != c.hex {
				t.Errorf("encoded\n got %s\nwant %s", got, c.hex)
			}
			got, err := Decode(unhex(t, c.hex), Magic36)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.h, got); d != "" {
				t.Errorf("decoded (-want +got)\n%s", d)
			}
		})
	}
}

// Every packet of the captured peer connections decodes and encodes back to
// the captured bytes; in the other dialect it is the same without the magic.
func TestGoldenCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/peer.*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	count := map[Type]int{}
	ictcp := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := DetectDialect(b); err != nil || (d != Magic36) {
			t.Errorf("%s: DetectDialect = %v, %v", f, d, err)
		}
		counters := map[ID]*PacketCounter{}
		for len(b) > 0 {
			h, payload, n, err := Next(b, Magic36, DefaultPayload+36)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			count[h.Type]++
			if enc := append(h.Append(nil, Magic36), payload...); !bytes.Equal(enc, b[:n]) {
				t.Errorf("%s: %v encodes as % x", f, h, enc)
			}
			if h.Type == Data {
				c := counters[h.SrcKey().ID()]
				if c == nil {
					c = new(PacketCounter)
					counters[h.SrcKey().ID()] = c
				}
				ictcp += c.Add(payload)
			}
			plain := h
			plain.Len -= 4
			p := append(plain.Append(nil, Plain32), payload...)
			if !bytes.Equal(p[4:], b[8:n]) {
				t.Errorf("%s: plain32 differs from magic36 by more than magic and length", f)
			}
			if got, pl, m, err := Next(p, Plain32, DefaultPayload+32); err != nil || got != plain || m != n-4 || !bytes.Equal(pl, payload) {
				t.Errorf("%s: plain32: %v %d %v", f, got, m, err)
			}
			b = b[n:]
		}
	}
	want := map[Type]int{PeerHello: 6, PeerHelloAck: 6, Data: 3, Bye: 6}
	if d := cmp.Diff(want, count); d != "" {
		t.Errorf("packets in the captures (-want +got)\n%s", d)
	}
	if ictcp != 3 {
		t.Errorf("%d ic-tcp packets in the captures, want 3", ictcp)
	}
}

func TestKeyString(t *testing.T) {
	k := Key{
		Session: 7, Command: 3, SendSlice: 2, RecvSlice: 1,
		Local: End{0, 2, 236979}, Remote: End{1, 3, 236982},
	}
	const want = "con7,cmd3,slice[2->1] seg0:dbid2:p236979->seg1:dbid3:p236982"
	if got := k.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	h := k.Header(Data, 10, Magic36)
	if h.SrcKey() != k || h.DstKey() != k.Flip() || h.Len != 46 {
		t.Errorf("header %v does not give the key back", h)
	}
	other := k
	other.Session, other.Local.Content, other.Remote.Content = 9, 5, 6
	if other.ID() != k.ID() {
		t.Error("session and contents must not be part of the identity")
	}
}

func TestDetectDialect(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Dialect
		err  string // "", "short" or "bad"
	}{
		{"", 0, "short"},
		{"fe", 0, "short"},
		{"fecadd", 0, "short"},
		{"fecaddba", Magic36, ""},
		{"fecaddbb", 0, "bad"},
		{"20", 0, "short"},
		{"2000", 0, "short"},
		{"200004", 0, "short"},
		{"20000400", Plain32, ""},
		{"20000100", Plain32, ""},
		{"20000600", 0, "bad"},
		{"20000401", 0, "bad"},
		{"2100", 0, "bad"},
		{"474554202f", 0, "bad"},
		{"00", 0, "bad"},
	} {
		d, err := DetectDialect(unhex(t, c.in))
		var pe *ProtocolError
		switch {
		case c.err == "" && (err != nil || d != c.want),
			c.err == "short" && !errors.Is(err, ErrShort),
			c.err == "bad" && !errors.As(err, &pe):
			t.Errorf("%s: %v, %v", c.in, d, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Header{Type: Data, SrcDbid: 2, DstDbid: 3}.Append(nil, Magic36)
	for _, c := range []struct {
		name string
		edit func(b []byte)
	}{
		{"magic", func(b []byte) { b[0] = 0 }},
		{"length 0", func(b []byte) { b[4], b[5] = 0, 0 }},
		{"length 35", func(b []byte) { b[4], b[5] = 35, 0 }},
		{"length 65535", func(b []byte) { b[4], b[5] = 255, 255 }},
		{"type 14", func(b []byte) { b[6] = 14 }},
	} {
		b := bytes.Clone(good)
		c.edit(b)
		var pe *ProtocolError
		if _, _, _, err := Next(b, Magic36, DefaultPayload+36); !errors.As(err, &pe) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Decode(good[:35], Magic36); !errors.Is(err, ErrShort) {
		t.Errorf("half a header: %v", err)
	}
	long := Header{Len: 100, Type: Data}.Append(nil, Plain32)
	if h, _, n, err := Next(long, Plain32, 200); !errors.Is(err, ErrShort) || n != 100 || h.Len != 100 {
		t.Errorf("header without its payload: %v %d %v", h, n, err)
	}
}

func TestPacketCounter(t *testing.T) {
	stream := []byte{8, 0, 0, 0, 1, 2, 3, 4, 4, 0, 0, 0, 5, 0, 0, 0, 9, 6, 0, 0, 0, 1, 2}
	for size := 1; size <= len(stream); size++ {
		var c PacketCounter
		n := 0
		for rest := stream; len(rest) > 0; {
			k := min(size, len(rest))
			n += c.Add(rest[:k])
			rest = rest[k:]
		}
		if n != 4 {
			t.Errorf("in pieces of %d: %d packets, want 4", size, n)
		}
	}
	var c PacketCounter
	if n := c.Add([]byte("S\x00\x00\x00")) + c.Add([]byte{0}); n != 0 {
		t.Errorf("unfinished packet counted: %d", n)
	}
	var broken PacketCounter
	if a, b := broken.Add([]byte{3, 0, 0, 0, 7}), broken.Add([]byte{1}); a != 1 || b != 1 {
		t.Errorf("broken stream: %d, %d; want one a call", a, b)
	}
}

func BenchmarkAppendDecode(b *testing.B) {
	h := Header{Len: 8228, Type: Data, SrcDbid: 2, DstDbid: 3}
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = h.Append(buf[:0], Magic36)
		if _, err := Decode(buf, Magic36); err != nil {
			b.Fatal(err)
		}
	}
}
