package wan

import (
	"math/bits"
	"time"
)

// parcel is a packet under way.
type parcel struct {
	due  time.Duration
	seq  uint64 // breaks ties, so that what is due together keeps its order
	data []byte
	path *path
	age  uint32 // of the path when it was sent: a cut outdates it
}

// queue is a heap of parcels by due time, with the memory of their packets.
// It allocates only while it grows. Not safe for concurrent use.
type queue struct {
	heap  []parcel
	seq   uint64
	bytes int          // held by parcels and by those taken and not yet recycled
	free  [10][][]byte // by class: 128, 256, ... 65536 bytes
}

const minClass = 7 // 128 bytes

// class is the index into free for packets of size bytes, 1 to 65536.
func class(size int) int { return max(bits.Len(uint(size-1)), minClass) - minClass }

// push copies data.
func (q *queue) push(due time.Duration, data []byte, p *path, age uint32) {
	var buf []byte
	c := class(len(data))
	if n := len(q.free[c]); n > 0 {
		buf, q.free[c] = q.free[c][n-1], q.free[c][:n-1]
	} else {
		buf = make([]byte, 1<<(c+minClass))
	}
	buf = buf[:len(data)]
	copy(buf, data)
	q.bytes += cap(buf)
	q.heap = append(q.heap, parcel{due: due, seq: q.seq, data: buf, path: p, age: age})
	q.seq++
	q.up(len(q.heap) - 1)
}

// pop takes the first parcel if it is due at now. Its data is the caller's
// until recycle.
func (q *queue) pop(now time.Duration) (parcel, bool) {
	if len(q.heap) == 0 || q.heap[0].due > now {
		return parcel{}, false
	}
	first := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap[last] = parcel{}
	q.heap = q.heap[:last]
	q.down(0)
	return first, true
}

func (q *queue) recycle(data []byte) {
	data = data[:cap(data)]
	q.bytes -= len(data)
	c := class(len(data))
	q.free[c] = append(q.free[c], data)
}

// next is when the first parcel is due.
func (q *queue) next() (time.Duration, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].due, true
}

func (a *parcel) before(b *parcel) bool {
	return a.due < b.due || a.due == b.due && a.seq < b.seq
}

func (q *queue) up(i int) {
	h := q.heap
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(&h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *queue) down(i int) {
	h := q.heap
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
