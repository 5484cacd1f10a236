package rowsource

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

// queueChunk is how many bytes go to a reader, or to the file, at a time.
const queueChunk = 64 << 10

// Memory is what the queues of an instance may keep in memory together, beside
// a chunk or two each; what is more goes to files. It may be used concurrently.
type Memory struct {
	limit int64
	used  atomic.Int64
}

// NewMemory returns a Memory of so many bytes.
func NewMemory(limit int64) *Memory { return &Memory{limit: limit} }

func (m *Memory) take(n int) bool {
	if m.used.Add(int64(n)) <= m.limit {
		return true
	}
	m.give(n)
	return false
}

func (m *Memory) give(n int) { m.used.Add(-int64(n)) }

// Queue hands rows from one goroutine, which never waits for the other, to
// another in their order: in memory as far as the Memory goes, else through an
// unlinked file. Add, End and Close belong to the writer's side, Read to the
// reader; Fail may be called by anyone.
type Queue struct {
	wake chan struct{} // of one token: there is something for the reader
	room *Memory

	mu     sync.Mutex
	memory [][]byte // whole chunks, older than those in the file
	bytes  int      // in memory
	file   *os.File
	sizes  []int // of the chunks in the file that are not read
	in     int64 // where the next goes
	out    int64 // where the first of them is
	tail   []byte
	free   [][]byte
	ended  bool
	err    error
	read   bool
}

// NewQueue returns an empty queue, which must be closed.
func NewQueue(room *Memory) *Queue { return &Queue{wake: make(chan struct{}, 1), room: room} }

// ErrReadTwice says that a Queue has had a reader already.
var ErrReadTwice = errors.New("a row source is read twice")

// Add appends a copy of row. An error is that of the file, or what Fail was
// told; the row is lost then.
func (q *Queue) Add(row []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	if len(q.tail) > 0 && len(q.tail)+4+len(row) > queueChunk {
		if err := q.push(); err != nil {
			q.err = err
			q.signal()
			return err
		}
	}
	if q.tail == nil {
		q.tail = q.buffer(4 + len(row))
	}
	q.tail = binary.BigEndian.AppendUint32(q.tail, uint32(len(row)))
	q.tail = append(q.tail, row...)
	q.signal()
	return nil
}

// push moves the chunk being filled to those that wait. q.mu is held.
func (q *Queue) push() error {
	c := q.tail
	if len(q.sizes) == 0 && q.room.take(len(c)) {
		q.memory, q.bytes, q.tail = append(q.memory, c), q.bytes+len(c), nil
		return nil
	}
	if q.file == nil {
		f, err := os.CreateTemp("", "trunkline-rows-*")
		if err != nil {
			return err
		}
		_ = os.Remove(f.Name()) // the descriptor is all that is needed
		q.file = f
	}
	if len(q.sizes) == 0 {
		q.in, q.out = 0, 0
	}
	if _, err := q.file.WriteAt(c, q.in); err != nil {
		return err
	}
	q.in += int64(len(c))
	q.sizes = append(q.sizes, len(c))
	q.tail = c[:0]
	return nil
}

func (q *Queue) buffer(n int) []byte {
	if k := len(q.free); k > 0 && n <= queueChunk {
		b := q.free[k-1]
		q.free = q.free[:k-1]
		return b[:0]
	}
	return make([]byte, 0, max(n, queueChunk))
}

// signal tells the reader. q.mu is held.
func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// End says that no row follows.
func (q *Queue) End() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.signal()
}

// Fail makes Read and Add return err from now on, unless it has ended or failed
// before.
func (q *Queue) Fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil && !q.ended {
		q.err = err
		q.signal()
	}
}

// Close fails the queue, if it has not ended, and frees what waits in it; a
// reader may still be there.
func (q *Queue) Close() {
	q.Fail(context.Canceled)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.file != nil {
		q.file.Close()
		q.file = nil
	}
	if len(q.memory)+len(q.sizes)+len(q.tail) > 0 && q.err == nil {
		q.err = context.Canceled
	}
	q.room.give(q.bytes)
	q.memory, q.sizes, q.tail, q.free, q.bytes = nil, nil, nil, nil, 0
	q.signal()
}

// Read sinks all rows in order, waiting for those to come, and returns nil
// after the last, the sink's error, or why it was failed. A row is valid during
// the call of sink only. It can be called once.
func (q *Queue) Read(ctx context.Context, sink func(row []byte) error) error {
	q.mu.Lock()
	again := q.read
	q.read = true
	q.mu.Unlock()
	if again {
		return ErrReadTwice
	}
	var last []byte
	for {
		c, err := q.next(ctx, last)
		if c == nil || err != nil {
			return err
		}
		for rest := c; len(rest) > 0; {
			n := int(binary.BigEndian.Uint32(rest))
			if err := sink(rest[4 : 4+n]); err != nil {
				return err
			}
			rest = rest[4+n:]
		}
		last = c
	}
}

// next returns the chunk that comes next, nil at the end; used is one that the
// reader is done with.
func (q *Queue) next(ctx context.Context, used []byte) ([]byte, error) {
	for {
		q.mu.Lock()
		if used != nil && cap(used) <= queueChunk && len(q.free) < 2 {
			q.free = append(q.free, used)
		}
		used = nil
		c, ended, err := q.take()
		q.mu.Unlock()
		if c != nil || ended || err != nil {
			return c, err
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take returns a chunk if there is one. q.mu is held.
func (q *Queue) take() (c []byte, ended bool, err error) {
	switch {
	case q.err != nil:
		return nil, false, q.err
	case len(q.memory) > 0:
		c = q.memory[0]
		q.memory[0] = nil
		q.memory, q.bytes = q.memory[1:], q.bytes-len(c)
		q.room.give(len(c))
		return c, false, nil
	case len(q.sizes) > 0:
		c = q.buffer(q.sizes[0])[:q.sizes[0]]
		if _, err := q.file.ReadAt(c, q.out); err != nil {
			q.err = err
			return nil, false, err
		}
		q.out += int64(len(c))
		q.sizes = q.sizes[1:]
		return c, false, nil
	case len(q.tail) > 0:
		c, q.tail = q.tail, nil
		return c, false, nil
	}
	return nil, q.ended, nil
}
