package icwire

import "encoding/binary"

// The ic-tcp packet, which is what a stream from a sending to a receiving
// backend consists of, on a TCP connection of its own (type tcp) and on the
// unix socket between backend and proxy:
//
//	offset  type  field
//	     0  u32   length, these four bytes included
//	     4        whole tuple chunks up to the end
//
// The other way there is at most one byte, StopByte, with nothing around it.
const (
	TupleHeaderLen = 4
	// MaxTuplePacket is the longest packet a receiver takes. The largest
	// gp_max_packet_size is a little less.
	MaxTuplePacket = 1 << 16
	// StopByte is how a receiver asks its sender to send no more.
	StopByte = 'S'
)

// OpenTuplePacket appends the header of a packet to dst. Its length is filled
// in by CloseTuplePacket once the chunks are there.
func OpenTuplePacket(dst []byte) []byte {
	return append(dst, 0, 0, 0, 0)
}

// CloseTuplePacket ends the packet that fills packet from its first to its
// last byte.
func CloseTuplePacket(packet []byte) {
	binary.LittleEndian.PutUint32(packet, uint32(len(packet)))
}

// NextTuplePacket takes the first packet off buf, the unread part of a stream:
// its chunks (a part of buf, not a copy) and the number of bytes it occupies.
// When buf does not hold the whole packet it returns ErrShort, with n set once
// the header is complete. A length that no packet can have, or one above
// MaxTuplePacket, is a *ProtocolError.
func NextTuplePacket(buf []byte) (chunks []byte, n int, err error) {
	if len(buf) < TupleHeaderLen {
		return nil, 0, ErrShort
	}
	size := binary.LittleEndian.Uint32(buf)
	switch {
	case size < TupleHeaderLen+ChunkHeaderLen:
		return nil, 0, protocolErrorf("packet length %d leaves no room for a tuple chunk", size)
	case size > MaxTuplePacket:
		return nil, 0, protocolErrorf("packet length %d is above the largest, %d", size, MaxTuplePacket)
	}
	n = int(size)
	if len(buf) < n {
		return nil, n, ErrShort
	}
	return buf[TupleHeaderLen:n:n], n, nil
}
