package icwire

import (
	"bytes"
	"testing"
)

// FuzzTuplePacket: whatever the bytes, packets and chunks stay inside them,
// progress is made, and what decodes encodes to the same bytes.
func FuzzTuplePacket(f *testing.F) {
	for _, stream := range capturedStreams(f) {
		f.Add(stream)
	}
	f.Add([]byte{8, 0, 0, 0, 0, 0, 4, 0})
	f.Add([]byte{13, 0, 0, 0, 1, 0, 1, 0, 'a', 0, 0, 3, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		for rest := in; ; {
			chunks, n, err := NextTuplePacket(rest)
			if err != nil {
				return
			}
			packet := rest[:n]
			again := OpenTuplePacket(nil)
			for len(chunks) > 0 {
				typ, body, k, err := NextChunk(chunks)
				if err != nil {
					return
				}
				if k != ChunkHeaderLen+len(body) {
					t.Fatalf("chunk of %d bytes takes %d", len(body), k)
				}
				again = AppendChunk(again, typ, body)
				chunks = chunks[k:]
			}
			CloseTuplePacket(again)
			if !bytes.Equal(again, packet) {
				t.Fatalf("%x became %x", packet, again)
			}
			rest = rest[n:]
		}
	})
}

func FuzzRegistration(f *testing.F) {
	f.Add(Registration{RecvSlice: 1, SendSlice: 2, SrcContent: 3, SrcPort: 40000, SrcPid: 5, Session: 6, Command: 7}.Append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := DecodeRegistration(in)
		if err != nil {
			return
		}
		if again := r.Append(nil); !bytes.Equal(again, in[:RegistrationLen]) {
			t.Fatalf("%x became %x", in, again)
		}
	})
}
