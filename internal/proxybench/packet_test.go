package proxybench

import (
	"testing"

	"github.com/trunkline-db/trunkline/icwire"
)

// A path that changes a byte, loses some or says nothing is found out.
func TestCheck(t *testing.T) {
	pat := newPattern(500)
	src := pat.source(3)
	var b []byte
	for range 20 {
		b = append(b, src.next()...)
	}
	for _, step := range []int{1, 7, 499, 500, 501, len(b)} {
		c := pat.check(3)
		for at := 0; at < len(b); at += step {
			if err := c.add(b[at:min(at+step, len(b))]); err != nil {
				t.Fatalf("pieces of %d: %v", step, err)
			}
		}
		if err := c.end(20); err != nil {
			t.Error(err)
		}
		if c.end(21) == nil {
			t.Error("a lost packet was not found")
		}
	}
	for _, change := range []func(b []byte) []byte{
		func(b []byte) []byte { b[0]++; return b },
		func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		func(b []byte) []byte { b[5*500+12]++; return b },
		func(b []byte) []byte { return append(b[:500:500], b[501:]...) },
		func(b []byte) []byte { return append(b[:500:500], b[1000:]...) },               // a packet lost
		func(b []byte) []byte { copy(b[7*500+100:7*500+200], b[6*500+100:]); return b }, // stale
	} {
		if err := pat.check(3).add(change(append([]byte(nil), b...))); err == nil {
			t.Error("a change was not found")
		}
	}
	if pat.check(4).add(b) == nil {
		t.Error("another stream's data was taken")
	}
	if _, _, err := icwire.NextTuplePacket(b); err != nil {
		t.Error("not an ic-tcp packet:", err)
	}
}
