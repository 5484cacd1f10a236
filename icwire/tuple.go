package icwire

import (
	"encoding/binary"
	"fmt"
)

// A tuple chunk, of which an ic-tcp packet holds one or more:
//
//	offset  type  field
//	     0  u16   size   of the body, without this header
//	     2  u16   type
//	     4        body
//
// Chunks follow each other without padding. (Greenplum aligns them to a
// constant that is 1 on amd64: the captured streams are full of chunks at odd
// offsets.)
const (
	ChunkHeaderLen = 4
	// MaxChunkBody is the longest body the size field can express.
	MaxChunkBody = 1<<16 - 1
)

// ChunkType says which part of a tuple a chunk is.
type ChunkType uint16

// The chunk types. A tuple is one Whole chunk, or a Start, any number of Mids
// and an End. A stream ends with one EndOfStream chunk.
const (
	ChunkWhole       ChunkType = 0
	ChunkStart       ChunkType = 1
	ChunkMid         ChunkType = 2
	ChunkEnd         ChunkType = 3
	ChunkEndOfStream ChunkType = 4 // no body; the last of its stream
	ChunkEmpty       ChunkType = 5 // a tuple of no bytes
)

var chunkNames = [...]string{"TC_WHOLE", "TC_PARTIAL_START", "TC_PARTIAL_MID", "TC_PARTIAL_END", "TC_END_OF_STREAM", "TC_EMPTY"}

// String returns the name Greenplum's messages use, such as "TC_WHOLE".
func (t ChunkType) String() string {
	if int(t) < len(chunkNames) {
		return chunkNames[t]
	}
	return fmt.Sprintf("TC_%d", uint16(t))
}

// AppendChunk appends a chunk to dst and returns the longer slice. It panics
// when body is longer than MaxChunkBody: the caller has cut it wrongly.
func AppendChunk(dst []byte, t ChunkType, body []byte) []byte {
	if len(body) > MaxChunkBody {
		panic(fmt.Sprintf("icwire: chunk body of %d bytes", len(body)))
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(body)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(t))
	return append(dst, body...)
}

// NextChunk takes the first chunk off src, the unread rest of an ic-tcp
// packet: its type, its body (a part of src, not a copy) and the number of
// bytes it occupies. As packets hold whole chunks only, a chunk that does not
// fit into src is a *ProtocolError; so is an unknown type.
func NextChunk(src []byte) (t ChunkType, body []byte, n int, err error) {
	if len(src) < ChunkHeaderLen {
		return 0, nil, 0, protocolErrorf("%d bytes are left in the packet, a chunk header has %d", len(src), ChunkHeaderLen)
	}
	size := int(binary.LittleEndian.Uint16(src))
	t = ChunkType(binary.LittleEndian.Uint16(src[2:]))
	n = ChunkHeaderLen + size
	if n > len(src) {
		return 0, nil, 0, protocolErrorf("chunk of %d bytes in a packet that has %d left", n, len(src))
	}
	if int(t) >= len(chunkNames) {
		return 0, nil, 0, protocolErrorf("tuple chunk of unrecognized type %d (len %d)", uint16(t), size)
	}
	return t, src[ChunkHeaderLen:n:n], n, nil
}
