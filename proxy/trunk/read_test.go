package trunk

import (
	"bytes"
	"testing"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/internal/race"
)

// parts puts the parts of packets together again.
type parts struct {
	t     testing.TB
	whole []string
	open  []byte
	cur   icwire.Header
}

func (p *parts) Batch() {}

func (p *parts) Packet(h icwire.Header, payload []byte, end bool) error {
	if len(p.open) > 0 && h != p.cur {
		p.t.Fatalf("%v began within %v", h, p.cur)
	}
	if !end && (h.Type != icwire.Data || len(payload) == 0) {
		p.t.Fatalf("%v came in parts", h)
	}
	p.cur, p.open = h, append(p.open, payload...)
	if end {
		p.whole = append(p.whole, h.String()+string(p.open))
		p.open = p.open[:0]
	}
	return nil
}

// FuzzParser: whatever the bytes and wherever they are cut, the packets are the
// same, and so is the error.
func FuzzParser(f *testing.F) {
	k := key(1)
	good := k.Header(icwire.Data, 500, icwire.Magic36).Append(nil, icwire.Magic36)
	good = append(good, bytes.Repeat([]byte("x"), 500)...)
	good = append(k.Header(icwire.DataAck, 8, icwire.Magic36).Append(good, icwire.Magic36), 1, 2, 3, 4, 5, 6, 7, 8)
	good = k.Header(icwire.Bye, 0, icwire.Magic36).Append(good, icwire.Magic36)
	f.Add(good, []byte{1, 36, 200, 7})
	f.Add(append(good, 0), []byte{255})
	f.Add(good[:540], []byte{})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		feed := func(cuts []byte) ([]string, string, int) {
			p := parts{t: t}
			ps := parser{t: New(nil, icwire.Magic36, 8228), h: &p}
			have := []byte{}
			for rest := stream; len(rest) > 0; {
				n := len(rest)
				if len(cuts) > 0 {
					n, cuts = min(n, int(cuts[0])+1), cuts[1:]
				}
				have = append(have, rest[:n]...)
				rest = rest[n:]
				left, err := ps.take(have)
				if err != nil {
					return p.whole, err.Error(), 0
				}
				if left > icwire.MaxHeaderLen+MaxControl {
					t.Fatalf("%d bytes have to come again", left)
				}
				have = append([]byte{}, have[len(have)-left:]...)
			}
			return p.whole, "", len(have) + ps.left
		}
		one, err, left := feed(nil)
		many, err2, left2 := feed(cuts)
		if len(one) != len(many) || err != err2 || left != left2 {
			t.Fatalf("%d packets, %q, %d bytes left in one piece; %d, %q, %d in many", len(one), err, left, len(many), err2, left2)
		}
		for i := range one {
			if one[i] != many[i] {
				t.Fatalf("packet %d is %q in one piece, %q in many", i, one[i], many[i])
			}
		}
	})
}

// In the steady state a packet costs no allocation: sending, writing, reading
// and handing over.
func TestNoAllocation(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector makes the pools of buffers allocate")
	}
	a, b := tcpPair(t)
	out, in := New(a, icwire.Magic36, icwire.MaxPacketLen), New(b, icwire.Magic36, icwire.MaxPacketLen)
	room := make(chan struct{}, 1)
	ends := []func() error{run(out, newRecord()), run(in, drain(room))}
	s := out.Open(key(1).ID())
	h := key(1).Header(icwire.Data, 8192, icwire.Magic36)
	ack := key(1).Header(icwire.DataAck, 0, icwire.Magic36)
	payload := make([]byte, 8192)
	n := testing.AllocsPerRun(2000, func() {
		room <- struct{}{}
		buf := Get(len(payload) + 36)
		buf.B = append(h.Append(buf.B, icwire.Magic36), payload...)
		s.Send(buf)
		out.Control(ack)
		out.Flush()
	})
	out.Close()
	in.Close()
	for _, end := range ends {
		_ = end()
	}
	if n >= 1 {
		t.Errorf("%v allocations a packet", n)
	}
}
