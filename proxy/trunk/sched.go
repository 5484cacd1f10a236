package trunk

import "github.com/trunkline-db/trunkline/icwire"

// scheduler decides what is written next: control packets first, then the
// streams by deficit round robin. It is not safe for concurrent use.
type scheduler struct {
	control []byte
	active  ring // with something queued, in the order of their turns
	open    map[icwire.ID]*Stream
	queued  int // bytes in all streams
}

// Stream is the sending direction of one logical connection.
type Stream struct {
	t       *Trunk
	id      icwire.ID
	queue   []*Buffer
	queued  int // bytes
	deficit int
	active  bool
	turn    bool   // has been given its quantum for this turn
	closed  bool   // BYE is queued or written
	wake    func() // somebody waits for room
}

// get returns the stream of id. As long as the last packets of a former
// connection of the same key are queued, its successor shares the stream, so
// that they cannot be overtaken.
func (s *scheduler) get(t *Trunk, id icwire.ID) *Stream {
	st := s.open[id]
	if st == nil {
		st = &Stream{t: t, id: id}
		s.open[id] = st
	}
	st.closed = false
	return st
}

// push queues b on st.
func (s *scheduler) push(st *Stream, b *Buffer) {
	st.queue = append(st.queue, b)
	st.queued += len(b.B)
	s.queued += len(b.B)
	if !st.active {
		st.active = true
		s.active.push(st)
	}
}

func (s *scheduler) empty() bool { return len(s.control) == 0 && s.active.n == 0 }

// full says whether st must not take more now.
func (s *scheduler) full(st *Stream) bool {
	return st.queued >= streamQueue || st.queued > 0 && s.queued >= trunkQueue
}

// collect appends the next batch of buffers to dst, up to maxBatch bytes and
// maxVectors buffers, those of dst included.
func (s *scheduler) collect(dst []*Buffer) []*Buffer {
	size := 0
	for s.active.n > 0 && size < maxBatch && len(dst) < maxVectors {
		st := s.active.first()
		if !st.turn {
			st.turn = true
			st.deficit += quantum
		}
		n, bytes := 0, 0
		for n < len(st.queue) && len(dst) < maxVectors && size+bytes < maxBatch {
			b := st.queue[n]
			if len(b.B) > st.deficit {
				break
			}
			st.deficit -= len(b.B)
			bytes += len(b.B)
			dst = append(dst, b)
			n++
		}
		size += bytes
		st.queued -= bytes
		s.queued -= bytes
		rest := copy(st.queue, st.queue[n:])
		clear(st.queue[rest:])
		st.queue = st.queue[:rest]
		if st.wake != nil && !s.full(st) {
			st.wake()
			st.wake = nil
		}
		switch {
		case rest == 0:
			st.deficit, st.turn, st.active = 0, false, false
			s.active.pop()
			if st.closed {
				delete(s.open, st.id)
				st.queue = nil
			}
		case len(st.queue[0].B) > st.deficit:
			st.turn = false
			s.active.push(s.active.pop())
		}
	}
	return dst
}

// drop releases everything that is queued.
func (s *scheduler) drop() {
	for s.active.n > 0 {
		st := s.active.pop()
		for _, b := range st.queue {
			b.Release()
		}
		if st.wake != nil {
			st.wake()
		}
		*st = Stream{t: st.t, id: st.id}
	}
	s.control, s.queued = nil, 0
	clear(s.open)
}

// ring is a queue of streams that reuses its memory.
type ring struct {
	at   []*Stream
	head int
	n    int
}

func (r *ring) first() *Stream { return r.at[r.head] }

func (r *ring) push(st *Stream) {
	if r.n == len(r.at) {
		at := make([]*Stream, max(8, 2*r.n))
		k := copy(at, r.at[r.head:])
		copy(at[k:], r.at[:r.head])
		r.at, r.head = at, 0
	}
	r.at[(r.head+r.n)%len(r.at)] = st
	r.n++
}

func (r *ring) pop() *Stream {
	st := r.at[r.head]
	r.at[r.head] = nil
	r.head = (r.head + 1) % len(r.at)
	r.n--
	return st
}
