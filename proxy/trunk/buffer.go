package trunk

import (
	"math/bits"
	"sync"
)

// BulkSize is the size of the largest Buffer that is used again: it holds the
// longest packet there is.
const BulkSize = 64 << 10

// Buffers come in powers of two, from minSize to BulkSize, so that no more
// than half of one is wasted on bytes that wait long.
const (
	minSize = 512
	minBits = 9
)

var pools [8]sync.Pool // 512 bytes to 64 kB

// Buffer is a reusable piece of memory. B is the part in use.
type Buffer struct {
	B     []byte
	class int // index of its pool, or -1
}

// Get returns an empty Buffer with room for at least n bytes.
func Get(n int) *Buffer {
	if n > BulkSize {
		return &Buffer{B: make([]byte, 0, n), class: -1}
	}
	class := bits.Len(uint(max(n, minSize)-1)) - minBits
	if b, _ := pools[class].Get().(*Buffer); b != nil {
		b.B = b.B[:0]
		return b
	}
	return &Buffer{B: make([]byte, 0, minSize<<class), class: class}
}

// Release gives the memory back. The Buffer must not be used afterwards.
func (b *Buffer) Release() {
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}
