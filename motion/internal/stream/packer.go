package stream

import "github.com/trunkline-db/trunkline/icwire"

// packer puts tuples into chunks and chunks into packets, one packet behind
// the other in one buffer.
type packer struct {
	max  int     // longest packet
	buf  *buffer // nil when empty
	open int     // where the open packet starts in buf; -1 for none
	big  bool    // the stream has filled a small buffer

	taken   int64 // bytes handed over
	packets int64 // begun for tuples
}

func newPacker(max int) packer { return packer{max: max, open: -1} }

const chunkOverhead = icwire.TupleHeaderLen + icwire.ChunkHeaderLen

// len is the number of bytes waiting.
func (p *packer) len() int {
	if p.buf == nil {
		return 0
	}
	return len(p.buf.b)
}

// fits says whether a tuple of n bytes goes into a packet as one chunk.
func (p *packer) fits(n int) bool { return n+chunkOverhead <= p.max }

// add puts a tuple that fits into the buffer. It returns false, having done
// nothing, when the buffer has no room.
func (p *packer) add(tuple []byte) bool {
	t := icwire.ChunkWhole
	if len(tuple) == 0 {
		t = icwire.ChunkEmpty
	}
	need := icwire.ChunkHeaderLen + len(tuple)
	if p.open >= 0 && len(p.buf.b)-p.open+need <= p.max && len(p.buf.b)+need <= p.buf.size {
		p.buf.b = icwire.AppendChunk(p.buf.b, t, tuple)
		return true
	}
	if !p.packet(icwire.TupleHeaderLen + need) {
		return false
	}
	p.buf.b = icwire.AppendChunk(p.buf.b, t, tuple)
	return true
}

// addPart puts the next part of a tuple too long for one packet into a packet
// of its own. It returns how many bytes of rest it took, 0 when the buffer has
// no room.
func (p *packer) addPart(rest []byte, first bool) int {
	n := min(len(rest), p.max-chunkOverhead)
	t := icwire.ChunkMid
	switch {
	case first:
		t = icwire.ChunkStart
	case n == len(rest):
		t = icwire.ChunkEnd
	}
	if !p.packet(chunkOverhead + n) {
		return 0
	}
	p.buf.b = icwire.AppendChunk(p.buf.b, t, rest[:n])
	return n
}

// packet opens a new packet if it can grow to size bytes.
func (p *packer) packet(size int) bool {
	p.close()
	switch {
	case p.buf == nil:
		p.buf = getBuffer(size, p.big)
	case len(p.buf.b)+size <= p.buf.size:
	case p.buf.size == smallBuffer && len(p.buf.b)+size <= largeBuffer:
		p.big = true
		small := p.buf
		p.buf = getBuffer(size, true)
		p.buf.b = append(p.buf.b, small.b...)
		small.release()
	default:
		return false
	}
	p.open = len(p.buf.b)
	p.buf.b = icwire.OpenTuplePacket(p.buf.b)
	p.packets++
	return true
}

// end puts in the end of the stream, for which there is always room.
func (p *packer) end() {
	if p.buf == nil {
		p.buf = getBuffer(endRoom, false)
	}
	if p.open < 0 || len(p.buf.b)-p.open+icwire.ChunkHeaderLen > p.max {
		p.close()
		p.open = len(p.buf.b)
		p.buf.b = icwire.OpenTuplePacket(p.buf.b)
	}
	p.buf.b = icwire.AppendChunk(p.buf.b, icwire.ChunkEndOfStream, nil)
}

func (p *packer) close() {
	if p.open >= 0 {
		icwire.CloseTuplePacket(p.buf.b[p.open:])
		p.open = -1
	}
}

// take hands the buffer over, nil when there is nothing in it.
func (p *packer) take() *buffer {
	if p.buf == nil {
		return nil
	}
	p.close()
	b := p.buf
	p.taken += int64(len(b.b))
	p.buf = nil
	return b
}

// drop forgets what is in the buffer.
func (p *packer) drop() {
	if b := p.take(); b != nil {
		b.release()
	}
}
