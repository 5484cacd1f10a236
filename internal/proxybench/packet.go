package proxybench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/trunkline-db/trunkline/icwire"
)

// A packet of the measurements is an ic-tcp packet with one tuple chunk:
//
//	offset  type  field
//	     0  u32   length, these four bytes included
//	     4  u16   chunk size
//	     6  u16   chunk type, whole
//	     8  u32   stream
//	    12  u64   number of the packet in its stream
//	    20        bytes that depend on the offset and on the number
//
// The receiver knows every byte beforehand and compares, which is cheaper than
// any sum and finds more: what is lost, doubled, out of order, of another
// stream, or left over in a buffer.
const (
	packetHeader = 20
	minPacket    = packetHeader
	maxPacket    = icwire.MaxTuplePacket
	// variants is how many different bodies follow each other. A prime, so
	// that no buffer size makes a stale one look right.
	variants = 7
)

// pattern holds the bodies of packets of one size. It is read only.
type pattern struct {
	size    int
	packets [variants][]byte
}

func newPattern(size int) *pattern {
	p := &pattern{size: size}
	rnd := rand.NewChaCha8([32]byte{'t', 'r', 'u', 'n', 'k'})
	for i := range p.packets {
		b := make([]byte, size)
		_, _ = rnd.Read(b) // never fails
		p.packets[i] = b
	}
	return p
}

func (p *pattern) header(b []byte, stream uint32, seq uint64) {
	binary.LittleEndian.PutUint32(b, uint32(p.size))
	binary.LittleEndian.PutUint16(b[4:], uint16(p.size-icwire.TupleHeaderLen-icwire.ChunkHeaderLen))
	binary.LittleEndian.PutUint16(b[6:], uint16(icwire.ChunkWhole))
	binary.LittleEndian.PutUint32(b[8:], stream)
	binary.LittleEndian.PutUint64(b[12:], seq)
}

// source makes the packets of one stream.
type source struct {
	pat    *pattern
	stream uint32
	seq    uint64 // of the next
	own    [variants][]byte
}

func (p *pattern) source(stream uint32) *source {
	s := &source{pat: p, stream: stream}
	all := make([]byte, 0, variants*p.size)
	for i, v := range p.packets {
		all = append(all, v...)
		s.own[i] = all[i*p.size : (i+1)*p.size]
	}
	return s
}

// next returns the next packet, which holds until variants more are taken.
func (s *source) next() []byte {
	b := s.own[s.seq%variants]
	s.pat.header(b, s.stream, s.seq)
	s.seq++
	return b
}

// check compares a stream with what its source made.
type check struct {
	pat    *pattern
	stream uint32
	seq    uint64
	at     int // bytes of packet seq that have come
	bytes  int64
	head   [packetHeader]byte
}

func (p *pattern) check(stream uint32) *check {
	c := &check{pat: p, stream: stream}
	p.header(c.head[:], stream, 0)
	return c
}

// add takes the next bytes of the stream, however they are cut.
func (c *check) add(b []byte) error {
	for len(b) > 0 {
		want := c.pat.packets[c.seq%variants][c.at:]
		if c.at < packetHeader {
			want = c.head[c.at:]
		}
		n := min(len(b), len(want))
		if !bytes.Equal(b[:n], want[:n]) {
			i := 0
			for b[i] == want[i] {
				i++
			}
			return fmt.Errorf("stream %d: byte %d, in packet %d at %d, is %#02x, sent was %#02x",
				c.stream, c.bytes+int64(i), c.seq, c.at+i, b[i], want[i])
		}
		b = b[n:]
		c.bytes += int64(n)
		if c.at += n; c.at == c.pat.size {
			c.seq++
			c.at = 0
			c.pat.header(c.head[:], c.stream, c.seq)
		}
	}
	return nil
}

// end says whether a stream of n whole packets has come in full.
func (c *check) end(n uint64) error {
	if c.seq != n || c.at != 0 {
		return fmt.Errorf("stream %d: %d packets and %d bytes of %d packets sent have come", c.stream, c.seq, c.at, n)
	}
	return nil
}
