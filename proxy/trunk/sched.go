package trunk

import "github.com/trunkline-db/trunkline/icwire"

// scheduler decides what is written next: control packets first, then the
// streams by deficit round robin. It is not safe for concurrent use.
type scheduler struct {
	control []byte
	active  []*Stream // with something queued, in the order of their turns
	open    map[icwire.ID]*Stream
	queued  int // bytes in all streams
}

// Stream is the sending direction of one logical connection.
type Stream struct {
	t       *Trunk
	id      icwire.ID
	queue   []*Buffer
	deficit int
	active  bool
	turn    bool // has been given its quantum for this turn
	closed  bool // BYE is queued or written
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
	s.queued += len(b.B)
	if !st.active {
		st.active = true
		s.active = append(s.active, st)
	}
}

func (s *scheduler) empty() bool { return len(s.control) == 0 && len(s.active) == 0 }

// collect appends the next batch of buffers to dst, up to maxBatch bytes and
// maxVectors buffers, those of dst included.
func (s *scheduler) collect(dst []*Buffer) []*Buffer {
	size := 0
	for len(s.active) > 0 && size < maxBatch && len(dst) < maxVectors {
		st := s.active[0]
		if !st.turn {
			st.turn = true
			st.deficit += quantum
		}
		n := 0
		for n < len(st.queue) && len(dst) < maxVectors && size < maxBatch {
			b := st.queue[n]
			if len(b.B) > st.deficit {
				break
			}
			st.deficit -= len(b.B)
			size += len(b.B)
			dst = append(dst, b)
			n++
		}
		rest := copy(st.queue, st.queue[n:])
		clear(st.queue[rest:])
		st.queue = st.queue[:rest]
		switch {
		case rest == 0:
			st.deficit, st.turn, st.active = 0, false, false
			s.pop()
			if st.closed {
				delete(s.open, st.id)
				st.queue = nil
			}
		case len(st.queue[0].B) > st.deficit:
			st.turn = false
			s.pop()
			s.active = append(s.active, st)
		}
	}
	s.queued -= size
	return dst
}

func (s *scheduler) pop() {
	n := copy(s.active, s.active[1:])
	s.active[n] = nil
	s.active = s.active[:n]
}

// drop releases everything that is queued.
func (s *scheduler) drop() {
	for _, st := range s.active {
		for _, b := range st.queue {
			b.Release()
		}
		st.queue, st.active, st.turn, st.deficit = nil, false, false, 0
	}
	s.active, s.control, s.queued = nil, nil, 0
	clear(s.open)
}
