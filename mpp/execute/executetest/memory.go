package executetest

import (
	"context"
	"io"
	"sync"

	"github.com/trunkline-db/trunkline/motion"
)

// Fabric is an interconnect in memory: all executors made by New of one
// Fabric reach each other.
type Fabric struct {
	// Depth is how many tuples a stream holds before Send blocks.
	Depth int

	mu      sync.Mutex
	streams map[streamKey]*stream
}

type streamKey struct {
	id         motion.ID
	send, recv end
}

type end struct {
	content int16
	pid     int32
}

func endOf(p motion.Peer) end { return end{p.Content, p.Pid} }

// stream goes from one sender to one receiver.
type stream struct {
	tuples  chan []byte
	eos     chan struct{} // sender has ended it
	stopped chan struct{} // receiver wants no more
	closed  chan struct{} // receiver has closed
	failed  chan struct{} // one side has aborted
	once    [4]sync.Once
}

func (s *stream) set(i int) {
	ch := []chan struct{}{s.eos, s.stopped, s.closed, s.failed}[i]
	s.once[i].Do(func() { close(ch) })
}

func isSet(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

const (
	sEOS = iota
	sStopped
	sClosed
	sFailed
)

func (f *Fabric) stream(id motion.ID, s, r motion.Peer) *stream {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := streamKey{id, endOf(s), endOf(r)}
	if st := f.streams[k]; st != nil {
		return st
	}
	if f.streams == nil {
		f.streams = make(map[streamKey]*stream)
	}
	st := &stream{
		tuples: make(chan []byte, max(f.Depth, 1)), eos: make(chan struct{}),
		stopped: make(chan struct{}), closed: make(chan struct{}), failed: make(chan struct{}),
	}
	f.streams[k] = st
	return st
}

// New returns an executor's access to the fabric.
func (f *Fabric) New() motion.Interconnect { return &memory{f: f} }

type memory struct{ f *Fabric }

func (m *memory) Type() string { return "memory" }
func (m *memory) Addr() string { return "" }
func (m *memory) Close() error { return nil }

func (m *memory) Send(_ context.Context, id motion.ID, self motion.Peer, receivers []motion.Peer) (motion.Sender, error) {
	s := new(sender)
	for _, r := range receivers {
		s.to = append(s.to, m.f.stream(id, self, r))
	}
	return s, nil
}

func (m *memory) Receive(_ context.Context, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	r := new(receiver)
	for _, s := range senders {
		r.from = append(r.from, m.f.stream(id, s, self))
	}
	return r, nil
}

type sender struct{ to []*stream }

var errBroken = motion.Errorf("interconnect error: the other side has gone")

func (s *sender) Send(ctx context.Context, to int, tuple []byte) error {
	st := s.to[to]
	if isSet(st.stopped) {
		return motion.ErrStopped
	}
	select {
	case st.tuples <- append([]byte(nil), tuple...):
		return nil
	case <-st.stopped:
		return motion.ErrStopped
	case <-st.failed:
		return errBroken
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sender) Broadcast(ctx context.Context, tuple []byte) error {
	stopped := 0
	for i := range s.to {
		switch err := s.Send(ctx, i, tuple); err {
		case nil:
		case motion.ErrStopped:
			stopped++
		default:
			return err
		}
	}
	if stopped == len(s.to) {
		return motion.ErrStopped
	}
	return nil
}

func (s *sender) Flush(context.Context) error { return nil }

func (s *sender) Stopped() bool {
	for _, st := range s.to {
		if !isSet(st.stopped) {
			return false
		}
	}
	return true
}

func (s *sender) Close(ctx context.Context) error {
	for _, st := range s.to {
		st.set(sEOS)
	}
	for _, st := range s.to {
		select {
		case <-st.closed:
		case <-st.failed:
			return errBroken
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *sender) Abort() {
	for _, st := range s.to {
		st.set(sFailed)
	}
}

type receiver struct {
	from []*stream
	done int
}

func (r *receiver) Receive(ctx context.Context) ([]byte, int, error) {
	for r.done < len(r.from) {
		t, err := r.ReceiveFrom(ctx, r.done)
		if err == io.EOF {
			r.done++
			continue
		}
		return t, r.done, err
	}
	return nil, 0, io.EOF
}

func (r *receiver) ReceiveFrom(ctx context.Context, i int) ([]byte, error) {
	st := r.from[i]
	select {
	case t := <-st.tuples:
		return t, nil
	case <-st.failed:
		return nil, errBroken
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-st.eos:
		select {
		case t := <-st.tuples:
			return t, nil
		default:
			return nil, io.EOF
		}
	}
}

func (r *receiver) Stop() {
	for _, st := range r.from {
		st.set(sStopped)
	}
}

func (r *receiver) Close(context.Context) error {
	for _, st := range r.from {
		st.set(sClosed)
	}
	return nil
}

func (r *receiver) Abort() {
	for _, st := range r.from {
		st.set(sFailed)
	}
}
