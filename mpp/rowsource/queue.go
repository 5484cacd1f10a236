package rowsource

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// queueChunk is how many bytes go to a reader, or to the file, at a time.
const queueChunk = 64 << 10

// InstanceMemory is how many bytes of rows that motions have brought may wait in
// memory in all sessions of an instance. An instance's process is otherwise some
// 20 MB; files beyond it are in the page cache while there is room.
const InstanceMemory = 64 << 20

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
// unlinked file. Add, End and Close belong to the writer's side, Read, or More and
// Portion, to the reader; Fail may be called by anyone.
type Queue struct {
	wake chan struct{} // of one token: there is something for the reader
	room *Memory

	mu     sync.Mutex
	chunks []chunk // whole ones that wait, and with portions those read too
	next   int     // the first of them that waits
	bytes  int     // of them in memory
	file   *os.File
	in     int64 // where the next one goes
	filed  int   // how many of those that wait are in the file
	tail   []byte
	free   [][]byte // chunks to be used again
	ended  bool
	err    error
	read   bool
	again  bool  // all can be read several times; see Keep
	starts []int // of the portions, in chunks; the last is the one that comes next
}

// chunk is some whole rows, each with its length before it.
type chunk struct {
	memory []byte // nil: it is in the file
	at     int64
	size   int
}

// NewQueue returns an empty queue, which must be closed.
func NewQueue(room *Memory) *Queue { return &Queue{wake: make(chan struct{}, 1), room: room} }

// Keep has what is read stay until Close, so that Read can be called again. It is called
// before anything is read.
func (q *Queue) Keep() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.starts, q.again = []int{0}, true
}

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
	if q.filed == 0 && q.room.take(len(c)) {
		q.tail = nil
		if q.keeps() && 2*len(c) < cap(c) {
			q.tail, c = c[:0], bytes.Clone(c) // it will stay
		}
		q.chunks, q.bytes = append(q.chunks, chunk{memory: c, size: len(c)}), q.bytes+len(c)
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
	if q.filed == 0 && !q.keeps() {
		q.in = 0
	}
	if _, err := q.file.WriteAt(c, q.in); err != nil {
		return err
	}
	q.chunks = append(q.chunks, chunk{at: q.in, size: len(c)})
	q.in += int64(len(c))
	q.filed++
	q.tail = c[:0]
	return nil
}

// keeps says whether what has been read stays, to be read again. q.mu is held.
func (q *Queue) keeps() bool { return q.starts != nil }

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
	if (q.keeps() || len(q.chunks) > q.next || len(q.tail) > 0) && q.err == nil {
		q.err = context.Canceled
	}
	q.room.give(q.bytes)
	q.chunks, q.next, q.filed, q.tail, q.free, q.bytes = nil, 0, 0, nil, nil, 0
	q.signal()
}

// Read sinks all rows in order, waiting for those to come, and returns nil
// after the last, the sink's error, or why it was failed. A row is valid during
// the call of sink only. It can be called once, unless the queue keeps its rows.
func (q *Queue) Read(ctx context.Context, sink func(row []byte) error) error {
	q.mu.Lock()
	twice, again := q.read, q.again
	q.read = true
	q.mu.Unlock()
	switch {
	case again:
		return q.readKept(ctx, sink)
	case twice:
		return ErrReadTwice
	}
	for {
		some, err := q.wait(ctx, 0)
		if err != nil || !some {
			return err
		}
		q.mu.Lock()
		c, err := q.take()
		q.mu.Unlock()
		if err != nil {
			return err
		}
		if err := sinkChunk(c, sink); err != nil {
			return err
		}
		q.reuse(c)
	}
}

// readKept is Read in portions.
func (q *Queue) readKept(ctx context.Context, sink func(row []byte) error) error {
	for n := 1; ; n++ {
		if some, err := q.More(ctx, n); err != nil || !some {
			return err
		}
		if err := q.Portion(n, sink); err != nil {
			return err
		}
	}
}

func sinkChunk(c []byte, sink func(row []byte) error) error {
	for rest := c; len(rest) > 0; {
		n := int(binary.BigEndian.Uint32(rest))
		if err := sink(rest[4 : 4+n]); err != nil {
			return err
		}
		rest = rest[4+n:]
	}
	return nil
}

const (
	// gatherTime is how long a few rows wait for others that may come: a portion
	// costs its reader as much as some hundred rows.
	gatherTime = 2 * time.Millisecond
	// portionBytes is about how many bytes of rows a portion has at most.
	portionBytes = 8 * queueChunk
)

// More waits until portion n, from 1, can be read, and says whether there is one,
// false after the last. Portions are asked for in their order, or again; that a
// second reader does not come upon them is the caller's business. What has been
// read stays until Close, so that Portion can be called again.
func (q *Queue) More(ctx context.Context, n int) (bool, error) {
	q.mu.Lock()
	switch {
	case q.starts == nil && q.read:
		q.mu.Unlock()
		return false, ErrReadTwice
	case q.starts == nil:
		q.read, q.starts = true, []int{0}
	}
	known, next := n < len(q.starts), len(q.starts)
	q.mu.Unlock()
	if known {
		return true, nil
	}
	if n != next {
		return false, fmt.Errorf("portion %d of a row source is asked for, and %d is the next", n, next)
	}
	some, err := q.wait(ctx, gatherTime)
	if err != nil || !some {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chunks) == q.next {
		if err := q.push(); err != nil {
			q.err = err
			return false, err
		}
	}
	for size := 0; q.next < len(q.chunks) && size < portionBytes; q.next++ {
		c := &q.chunks[q.next]
		if size += c.size; c.memory == nil {
			q.filed--
		}
	}
	q.starts = append(q.starts, q.next)
	return true, nil
}

// Portion sinks the rows of portion n, which More has said is there, as Read does.
func (q *Queue) Portion(n int, sink func(row []byte) error) error {
	q.mu.Lock()
	err := q.err
	if err == nil && (n < 1 || n >= len(q.starts)) {
		err = fmt.Errorf("there is no portion %d of a row source", n)
	}
	if err != nil {
		q.mu.Unlock()
		return err
	}
	from, to := q.starts[n-1], q.starts[n]
	q.mu.Unlock()
	for i := from; i < to; i++ {
		q.mu.Lock()
		c, err := q.at(i)
		filed := err == nil && q.chunks[i].memory == nil
		q.mu.Unlock()
		if err != nil {
			return err
		}
		if err := sinkChunk(c, sink); err != nil {
			return err
		}
		if filed {
			q.reuse(c)
		}
	}
	return nil
}

// wait waits until there are rows and says whether there are, false at the end.
// A chunk that is not full is let grow for a while.
func (q *Queue) wait(ctx context.Context, grow time.Duration) (bool, error) {
	var late <-chan time.Time
	for {
		q.mu.Lock()
		full, few, ended, err := len(q.chunks) > q.next, len(q.tail) > 0, q.ended, q.err
		q.mu.Unlock()
		switch {
		case err != nil:
			return false, err
		case full, few && grow == 0, ended:
			return full || few, nil
		}
		if few && late == nil {
			t := time.NewTimer(grow)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-q.wake:
		case <-late:
			grow = 0
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// reuse takes back a chunk that the reader is done with.
func (q *Queue) reuse(c []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(c) <= queueChunk && len(q.free) < 2 {
		q.free = append(q.free, c)
	}
}

// take returns the chunk that waits first, or the one being filled. q.mu is held.
func (q *Queue) take() ([]byte, error) {
	if q.err != nil {
		return nil, q.err
	}
	if q.next == len(q.chunks) {
		c := q.tail
		q.tail = nil
		return c, nil
	}
	c, err := q.at(q.next)
	if err != nil {
		return nil, err
	}
	if q.chunks[q.next].memory == nil {
		q.filed--
	} else {
		q.bytes -= len(c)
		q.room.give(len(c))
	}
	q.chunks[q.next] = chunk{}
	if q.next++; q.next == len(q.chunks) {
		q.chunks, q.next = q.chunks[:0], 0
	}
	return c, nil
}

// at returns chunk i. q.mu is held.
func (q *Queue) at(i int) ([]byte, error) {
	if q.err != nil {
		return nil, q.err
	}
	c := q.chunks[i]
	if c.memory != nil {
		return c.memory, nil
	}
	b := q.buffer(c.size)[:c.size]
	if _, err := q.file.ReadAt(b, c.at); err != nil {
		q.err = err
		return nil, err
	}
	return b, nil
}
