package stream

import (
	"bytes"
	"io"
	"testing"
)

// FuzzReceive: whatever comes, in whatever pieces, ends in io.EOF or an error,
// and the pieces make no difference to the tuples of a good stream.
func FuzzReceive(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b, uint16(100))
	}
	f.Add(packets("0:ab 1:cd", "2:ef", "3:gh 5: 4:"), uint16(1))
	f.Add(packets("1:cd 4:"), uint16(5))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		if len(in) > 1<<18 {
			return
		}
		a, errA := receiveBytes(t, in, int(piece)+1, false)
		b, errB := receiveBytes(t, in, len(in)+1, false)
		if errA == io.EOF && errB == io.EOF && !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
			t.Errorf("%d tuples in pieces of %d, %d in one", len(a), piece+1, len(b))
		}
	})
}

// FuzzPack: what the packer packs the unpacker unpacks, in packets of at most
// the size asked for.
func FuzzPack(f *testing.F) {
	f.Add([]byte{0, 1, 2, 200, 255}, uint16(512))
	f.Add([]byte{7, 7, 7, 255, 0, 0, 255, 255}, uint16(8192))
	f.Add(bytes.Repeat([]byte{90}, 300), uint16(65507))
	f.Fuzz(func(t *testing.T, sizes []byte, max uint16) {
		if max < MinPacket || max > MaxPacket || len(sizes) > 500 {
			return
		}
		var stream []byte
		p := newPacker(int(max))
		out := func() {
			b := p.take()
			if len(b.b) > b.size+endRoom {
				t.Fatalf("%d bytes in a buffer of %d", len(b.b), b.size)
			}
			stream = append(stream, b.b...)
			b.release()
		}
		tuple := func(i int) []byte {
			n := int(sizes[i])
			return bytes.Repeat([]byte{byte(i)}, n*n*n/256)
		}
		for i := range sizes {
			b := tuple(i)
			if p.fits(len(b)) {
				for !p.add(b) {
					out()
				}
				continue
			}
			for first := true; len(b) > 0; {
				n := p.addPart(b, first)
				if n == 0 {
					out()
					continue
				}
				b, first = b[n:], false
			}
		}
		p.end()
		out()

		var u unpacker
		i := 0
		for len(stream) > 0 {
			blk := getBuffer(0, true)
			blk.b = append(blk.b, stream[:min(len(stream), largeBuffer)]...)
			whole, _, _, err := frame(blk.b, 0)
			if err != nil || whole == 0 {
				t.Fatalf("framing: %d, %v", whole, err)
			}
			blk.b, stream = blk.b[:whole], stream[whole:]
			u.load(blk)
			for {
				got, ok, err := u.next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if want := tuple(i); !bytes.Equal(got, want) {
					t.Fatalf("tuple %d has %d bytes, not %d", i, len(got), len(want))
				}
				i++
			}
		}
		if i != len(sizes) || !u.eos {
			t.Fatalf("%d of %d tuples, end %v", i, len(sizes), u.eos)
		}
	})
}
