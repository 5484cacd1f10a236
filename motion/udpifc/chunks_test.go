package udpifc

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/icwire"
)

// TestChunks: tuples of any length come out of packets of any size as they went
// in.
func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		max := rapid.IntRange(minPacket, 2000).Draw(t, "packet")
		u := unpacker{}
		for range rapid.IntRange(1, 10).Draw(t, "tuples") {
			want := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 5*max).Draw(t, "length"))
			var packets [][]byte
			head := make([]byte, icwire.UDPHeaderLen)
			if fits(len(want), max) {
				packets = append(packets, whole(head, want))
			} else {
				for rest := want; len(rest) > 0; {
					p, n := part(bytes.Clone(head), rest, len(packets) == 0, max)
					packets = append(packets, p)
					rest = rest[n:]
				}
			}
			for i, p := range packets {
				if len(p) > max {
					t.Fatalf("packet of %d bytes, %d are allowed", len(p), max)
				}
				u.load(p[icwire.UDPHeaderLen:])
				got, ok, err := u.next()
				if last := i == len(packets)-1; err != nil || ok != last || last && !bytes.Equal(got, want) {
					t.Fatalf("packet %d of %d: %v, %v, %d bytes, want %d", i, len(packets), ok, err, len(got), len(want))
				}
				if _, ok, err := u.next(); ok || err != nil {
					t.Fatalf("a second tuple, %v", err)
				}
			}
		}
	})
}

// FuzzUnpacker: whatever a packet holds, what comes out of it was in it, and
// after an error nothing more is wanted.
func FuzzUnpacker(f *testing.F) {
	f.Add(icwire.AppendChunk(whole(nil, []byte("row")), icwire.ChunkEndOfStream, nil))
	b, _ := part(nil, make([]byte, 900), true, minPacket)
	b, _ = part(b, make([]byte, 100), false, minPacket)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		u := unpacker{}
		u.load(b)
		bytes, tuples := 0, 0
		for {
			tuple, ok, err := u.next()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			tuples++
			bytes += len(tuple)
		}
		if bytes+4*tuples > len(b) {
			t.Fatalf("%d tuples of %d bytes from %d", tuples, bytes, len(b))
		}
		if len(u.rest) != 0 {
			t.Fatal("the packet is not used up")
		}
	})
}
