package icwire

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func captures(f *testing.F) [][]byte {
	files, err := filepath.Glob("testdata/peer.*.bin")
	if err != nil {
		f.Fatal(err)
	}
	var all [][]byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzNext: whatever the bytes, Next stays inside them, makes progress or says
// why not, and what it decodes encodes back to the same bytes.
func FuzzNext(f *testing.F) {
	for _, b := range captures(f) {
		f.Add(b, false)
		f.Add(b[4:], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		d := Magic36
		if plain {
			d = Plain32
		}
		maxLen := DefaultPayload + d.HeaderLen()
		for {
			h, payload, n, err := Next(b, d, maxLen)
			if err != nil {
				var pe *ProtocolError
				if !errors.Is(err, ErrShort) && !errors.As(err, &pe) {
					t.Fatalf("unexpected error %v", err)
				}
				if errors.Is(err, ErrShort) && n != 0 && n <= len(b) {
					t.Fatalf("ErrShort with %d of %d bytes there", len(b), n)
				}
				return
			}
			if n < d.HeaderLen() || n > maxLen || n > len(b) || len(payload) != n-d.HeaderLen() {
				t.Fatalf("packet of %d bytes, payload %d", n, len(payload))
			}
			if enc := append(h.Append(nil, d), payload...); !bytes.Equal(enc, b[:n]) {
				t.Fatalf("% x encodes back as % x", b[:n], enc)
			}
			b = b[n:]
		}
	})
}

// FuzzDetectDialect: the answer for a prefix never contradicts the answer for
// the whole.
func FuzzDetectDialect(f *testing.F) {
	f.Add([]byte{0xfe, 0xca, 0xdd, 0xba, 1})
	f.Add([]byte{32, 0, 4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DetectDialect(b)
		for n := range b {
			pd, perr := DetectDialect(b[:n])
			if perr == nil && (err != nil || pd != d) {
				t.Fatalf("prefix %d says %v, whole %v %v", n, pd, d, err)
			}
			if perr != nil && !errors.Is(perr, ErrShort) && err == nil {
				t.Fatalf("prefix %d refused, whole accepted", n)
			}
		}
	})
}

// FuzzPacketCounter: the count does not depend on how the stream is cut, as
// long as the stream is whole packets.
func FuzzPacketCounter(f *testing.F) {
	for _, b := range captures(f) {
		if len(b) > 108 {
			f.Add(b[108:], 7)
		}
	}
	f.Add([]byte{4, 0, 0, 0, 3, 0, 0, 0}, 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, min(size, 1<<16))
		var whole, cut PacketCounter
		n := whole.Add(b)
		m := 0
		for rest := b; len(rest) > 0; {
			k := min(size, len(rest))
			m += cut.Add(rest[:k])
			rest = rest[k:]
		}
		if !whole.broken && n != m {
			t.Fatalf("%d packets whole, %d in pieces of %d", n, m, size)
		}
		if whole.broken != cut.broken {
			t.Fatalf("broken %v whole, %v in pieces", whole.broken, cut.broken)
		}
	})
}
