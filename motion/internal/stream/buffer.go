package stream

import "sync"

// buffer is a pooled piece of memory. b has the length that is in use.
type buffer struct {
	b    []byte
	size int // of the two sizes; cap(b) is size+endRoom
}

var pools = [2]sync.Pool{
	{New: func() any { return newBuffer(smallBuffer) }},
	{New: func() any { return newBuffer(largeBuffer) }},
}

func newBuffer(size int) *buffer {
	return &buffer{b: make([]byte, 0, size+endRoom), size: size}
}

// getBuffer returns an empty buffer for at least need bytes, the large one
// when large is set. need is at most largeBuffer.
func getBuffer(need int, large bool) *buffer {
	if large || need > smallBuffer {
		return pools[1].Get().(*buffer)
	}
	return pools[0].Get().(*buffer)
}

// release gives the buffer back. The caller must not use it any more.
func (b *buffer) release() {
	b.b = b.b[:0]
	if b.size == smallBuffer {
		pools[0].Put(b)
	} else {
		pools[1].Put(b)
	}
}
