package icwire

import "encoding/binary"

// PacketCounter counts the ic-tcp packets in a byte stream that arrives in
// pieces cut anywhere. A Greenplum sender fills its window by ic-tcp packets
// but sends several of them in one Data packet, so that a receiver must count
// inside the payloads to acknowledge what the sender counts.
//
// The zero value is ready for the first byte of a stream.
type PacketCounter struct {
	left   uint32 // bytes of the current packet still to come
	prefix [4]byte
	have   uint8 // bytes of prefix seen
	broken bool
}

// Add takes the next bytes of the stream and returns how many packets end in
// them. Once a length is impossible (below 4) the rest of the stream is no
// packets any more: Add then counts each call as one packet, which is how
// Greenplum's own receiver counts.
func (c *PacketCounter) Add(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	if c.broken {
		return 1
	}
	n := 0
	for len(b) > 0 {
		if c.left > 0 {
			k := min(uint64(c.left), uint64(len(b)))
			c.left -= uint32(k)
			b = b[k:]
			if c.left == 0 {
				n++
			}
			continue
		}
		k := copy(c.prefix[c.have:], b)
		c.have += uint8(k)
		b = b[k:]
		if c.have < 4 {
			return n
		}
		c.have = 0
		size := binary.LittleEndian.Uint32(c.prefix[:])
		if size < 4 {
			c.broken = true
			return n + 1
		}
		if c.left = size - 4; c.left == 0 {
			n++
		}
	}
	return n
}
