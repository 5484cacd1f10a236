package proxy

import (
	"bytes"
	"testing"

	"github.com/trunkline-db/trunkline/icwire"
)

// FuzzReadHello: what is taken for a hello is one, and encodes back to what
// was read.
func FuzzReadHello(f *testing.F) {
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		for _, ty := range []icwire.Type{icwire.Hello, icwire.PeerHello, icwire.Data} {
			f.Add(icwire.Header{Type: ty, SrcDbid: 2, DstDbid: 1}.Append(nil, d), uint16(ty))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, ty uint16) {
		h, d, err := readHello(bytes.NewReader(b), icwire.Type(ty))
		if err == nil && (h.Type != icwire.Type(ty) || !bytes.Equal(h.Append(nil, d), b[:d.HeaderLen()])) {
			t.Fatalf("% x was read as %v", b, h)
		}
	})
}
