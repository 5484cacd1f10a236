package udpifc

import (
	"errors"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// fits says whether a tuple of n bytes goes into a packet of at most max bytes
// as one chunk.
func fits(n, max int) bool { return icwire.UDPHeaderLen+icwire.ChunkHeaderLen+n <= max }

// whole appends a tuple as one chunk.
func whole(buf, tuple []byte) []byte {
	if len(tuple) == 0 {
		return icwire.AppendChunk(buf, icwire.ChunkEmpty, nil)
	}
	return icwire.AppendChunk(buf, icwire.ChunkWhole, tuple)
}

// part appends as much of the rest of a long tuple as one packet holds, and
// returns how much that was.
func part(buf, rest []byte, first bool, max int) ([]byte, int) {
	n := min(len(rest), max-icwire.UDPHeaderLen-icwire.ChunkHeaderLen)
	t := icwire.ChunkMid
	switch {
	case first:
		t = icwire.ChunkStart
	case n == len(rest):
		t = icwire.ChunkEnd
	}
	return icwire.AppendChunk(buf, t, rest[:n]), n
}

// unpacker takes the tuples out of one connection's packets.
type unpacker struct {
	src, mn int    // for messages: sender's content id, motion node
	packet  []byte // nil for none
	rest    []byte // of packet
	tuple   []byte // being put together
	inTuple bool
	eos     bool
}

// load gives it the chunks of the next packet. The one before must have been
// used up.
func (u *unpacker) load(packet []byte) { u.packet, u.rest = packet, packet }

// next returns the next tuple, which is valid until the next call. ok is false
// when the packet is used up.
func (u *unpacker) next() (tuple []byte, ok bool, err error) {
	if cap(u.tuple) > keepTuple && !u.inTuple {
		u.tuple = nil
	}
	for len(u.rest) > 0 {
		if u.eos {
			return nil, false, parseError(errors.New("received data after the end of the stream"), len(u.rest))
		}
		t, body, n, err := icwire.NextChunk(u.rest)
		if err != nil {
			return nil, false, parseError(err, len(u.rest))
		}
		u.rest = u.rest[n:]
		if tuple, ok, err = u.chunk(t, body); ok || err != nil {
			return tuple, ok, err
		}
	}
	return nil, false, nil
}

// chunk takes one chunk and returns the tuple it completes, if any.
func (u *unpacker) chunk(t icwire.ChunkType, body []byte) (tuple []byte, ok bool, err error) {
	middle := t == icwire.ChunkMid || t == icwire.ChunkEnd
	if u.inTuple && !middle {
		return nil, false, u.disorder(t, "after partial tuple data")
	}
	switch {
	case t == icwire.ChunkWhole, t == icwire.ChunkEmpty:
		return body, true, nil
	case t == icwire.ChunkStart:
		u.inTuple = true
		u.tuple = append(u.tuple[:0], body...)
	case t == icwire.ChunkEndOfStream:
		u.eos = true
	case !u.inTuple:
		return nil, false, u.disorder(t, "without any leading tuple data")
	case len(u.tuple)+len(body) > maxTuple:
		return nil, false, motion.Errorf("interconnect error: cannot convert chunks to a heap tuple")
	default:
		u.tuple = append(u.tuple, body...)
		if t == icwire.ChunkEnd {
			u.inTuple = false
			return u.tuple, true, nil
		}
	}
	return nil, false, nil
}

func (u *unpacker) disorder(t icwire.ChunkType, how string) error {
	return motion.Errorf("received %v chunk from [src=%d,mn=%d] %s", t, u.src, u.mn, how)
}
