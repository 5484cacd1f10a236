package stream

import (
	"bytes"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// frame looks at a block from offset from, where a packet starts, and returns
// where its last whole packet ends, how long the packet that follows is (0:
// not known yet), and whether the stream has ended in it.
func frame(b []byte, from int) (whole, next int, eos bool, err error) {
	whole = from
	for {
		chunks, n, err := icwire.NextTuplePacket(b[whole:])
		if err == icwire.ErrShort {
			return whole, n, false, nil
		}
		if err != nil {
			return whole, 0, false, err
		}
		whole += n
		if ends(chunks) {
			return whole, 0, true, nil
		}
	}
}

var endChunk = icwire.AppendChunk(nil, icwire.ChunkEndOfStream, nil)

// ends says whether the end of the stream is the last of these chunks. Only
// when the last bytes look like it are the chunks gone through.
func ends(chunks []byte) bool {
	if !bytes.HasSuffix(chunks, endChunk) {
		return false
	}
	for {
		t, _, n, err := icwire.NextChunk(chunks)
		if err != nil || len(chunks) == n {
			return err == nil && t == icwire.ChunkEndOfStream
		}
		chunks = chunks[n:]
	}
}

// unpacker takes the tuples out of one stream's blocks.
type unpacker struct {
	src, mn int     // for messages: sender's content id, motion node
	blk     *buffer // whole packets; nil for none
	pos     int     // of the next chunk, or packet
	end     int     // of the packet pos is in; pos when at a packet
	part    []byte  // the tuple being put together
	inPart  bool
	eos     bool
}

// load gives it the next block. The one before must have been used up.
func (u *unpacker) load(b *buffer) { u.blk, u.pos, u.end = b, 0, 0 }

// drop gives up the block, as far as it was.
func (u *unpacker) drop() {
	if u.blk != nil {
		u.blk.release()
		u.blk = nil
	}
}

// next returns the next tuple, which is valid until the next call. ok is false
// when the block is used up or the stream has ended.
func (u *unpacker) next() (tuple []byte, ok bool, err error) {
	if cap(u.part) > keepTuple && !u.inPart {
		u.part = nil
	}
	for u.blk != nil && !u.eos {
		if u.pos == u.end {
			chunks, n, err := icwire.NextTuplePacket(u.blk.b[u.pos:])
			if err != nil { // the block has been framed: it is at its end
				u.drop()
				return nil, false, nil
			}
			u.end = u.pos + n
			u.pos = u.end - len(chunks)
		}
		t, body, n, err := icwire.NextChunk(u.blk.b[u.pos:u.end])
		if err != nil {
			return nil, false, parseError(err, u.end-u.pos)
		}
		u.pos += n
		tuple, ok, err = u.chunk(t, body)
		if ok || err != nil {
			return tuple, ok, err
		}
	}
	u.drop()
	return nil, false, nil
}

// chunk takes one chunk and returns the tuple it completes, if any.
func (u *unpacker) chunk(t icwire.ChunkType, body []byte) (tuple []byte, ok bool, err error) {
	switch t {
	case icwire.ChunkWhole, icwire.ChunkEmpty:
		if u.inPart {
			return nil, false, u.disorder(t, "after partial tuple data")
		}
		return body, true, nil
	case icwire.ChunkStart:
		if u.inPart {
			return nil, false, u.disorder(t, "after partial tuple data")
		}
		u.inPart = true
		u.part = append(u.part[:0], body...)
	case icwire.ChunkMid, icwire.ChunkEnd:
		if !u.inPart {
			return nil, false, u.disorder(t, "without any leading tuple data")
		}
		if len(u.part)+len(body) > maxTuple {
			return nil, false, motion.Errorf("interconnect error: cannot convert chunks to a heap tuple")
		}
		u.part = append(u.part, body...)
		if t == icwire.ChunkEnd {
			u.inPart = false
			return u.part, true, nil
		}
	case icwire.ChunkEndOfStream:
		if u.inPart {
			return nil, false, u.disorder(t, "after partial tuple data")
		}
		u.eos = true
	}
	return nil, false, nil
}

func (u *unpacker) disorder(t icwire.ChunkType, how string) error {
	return motion.Errorf("received %v chunk from [src=%d,mn=%d] %s", t, u.src, u.mn, how)
}
