package trunk

import "sync"

// The sizes buffers come in. A DATA packet of Greenplum's default size fits
// dataSize, eight of them fit bulkSize, each with its header.
const (
	smallSize = 512
	midSize   = 2048
	dataSize  = 8192 + 36
	bulkSize  = 8 * dataSize
)

var sizes = [...]int{smallSize, midSize, dataSize, bulkSize}

var pools [len(sizes)]sync.Pool

// Buffer is a reusable piece of memory. B is the part in use.
type Buffer struct {
	B     []byte
	class int // index of its pool, or -1
}

// Get returns an empty Buffer with room for at least n bytes.
func Get(n int) *Buffer {
	for i, size := range sizes {
		if n > size {
			continue
		}
		if b, _ := pools[i].Get().(*Buffer); b != nil {
			b.B = b.B[:0]
			return b
		}
		return &Buffer{B: make([]byte, 0, size), class: i}
	}
	return &Buffer{B: make([]byte, 0, n), class: -1}
}

// Release gives the memory back. The Buffer must not be used afterwards.
func (b *Buffer) Release() {
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}
