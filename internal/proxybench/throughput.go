package proxybench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// flow is a number of streams with data running through them.
type flow struct {
	streams []*flowStream
	stop    atomic.Bool
	wg      sync.WaitGroup
	broken  chan struct{} // closed when a stream fails
	once    sync.Once
}

var errBroken = errors.New("a stream has failed")

type flowStream struct {
	stream
	out  *source
	in   *check
	got  atomic.Int64 // bytes that have come out
	_    [64]byte     // counters of two streams share no cache line
	errs [2]error
}

// startFlow opens n streams and keeps writing packets into each, one write
// call a packet.
func startFlow(p path, pat *pattern, n int) (*flow, error) {
	f := &flow{broken: make(chan struct{})}
	for i := range n {
		s, err := p.open(i)
		if err != nil {
			for _, s := range f.streams {
				s.close()
			}
			return nil, err
		}
		s.from.shared, s.to.shared = true, true
		f.streams = append(f.streams, &flowStream{stream: s, out: pat.source(uint32(i)), in: pat.check(uint32(i))})
	}
	for _, s := range f.streams {
		f.wg.Go(func() { s.errs[0] = f.noted(s.send(&f.stop)) })
		f.wg.Go(func() { s.errs[1] = f.noted(s.receive()) })
	}
	return f, nil
}

func (f *flow) noted(err error) error {
	if err != nil {
		f.once.Do(func() { close(f.broken) })
	}
	return err
}

// sleep waits for d, unless a stream fails or ctx ends.
func (f *flow) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-f.broken:
		return errBroken
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *flowStream) send(stop *atomic.Bool) error {
	for !stop.Load() {
		if _, err := s.from.Write(s.out.next()); err != nil {
			s.to.cut()
			return fmt.Errorf("sending: %w", err)
		}
	}
	if err := s.from.closeWrite(); err != nil {
		return err
	}
	return s.from.expectEOF()
}

// readSize is what a played receiver reads at once.
const readSize = 64 << 10

func (s *flowStream) receive() error {
	defer s.to.close() // which is the end for the sender
	buf := make([]byte, readSize)
	for {
		n, err := s.to.Read(buf)
		if n == 0 {
			if isEOF(err) {
				return nil
			}
			s.from.cut()
			return fmt.Errorf("receiving: %w", err)
		}
		if err := s.in.add(buf[:n]); err != nil {
			s.from.cut()
			return fmt.Errorf("data corrupted: %w", err)
		}
		s.got.Add(int64(n))
	}
}

// bytes is how much has come out of all streams.
func (f *flow) bytes() (n int64) {
	for _, s := range f.streams {
		n += s.got.Load()
	}
	return n
}

// end stops the senders, lets everything arrive and says what was wrong.
func (f *flow) end() error {
	f.stop.Store(true)
	f.wg.Wait()
	var errs []error
	for _, s := range f.streams {
		s.close()
		err := errors.Join(s.errs[1], s.errs[0])
		if err == nil {
			err = s.in.end(s.out.seq)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// warmUp is the part of a measurement before it counts.
const warmUp = 150 * time.Millisecond

// rate is what a flow did in a window of time.
type rate struct {
	mbps   float64 // 10^6 bytes a second, out of all streams
	cpu    float64 // seconds of the processes in between for 10^9 bytes
	ownCPU float64 // and of this process
	bytes  int64
}

// watch measures f for d.
func (f *flow) watch(ctx context.Context, pids []int, d time.Duration) (r rate, err error) {
	if err := f.sleep(ctx, min(warmUp, d/4)); err != nil {
		return r, err
	}
	cpu0, err := cpuTimes(pids)
	own0, err2 := ownCPU()
	n0, t0 := f.bytes(), time.Now()
	if err := errors.Join(err, err2, f.sleep(ctx, d)); err != nil {
		return r, err
	}
	for f.bytes() == n0 && time.Since(t0) < d+patience { // a very short window, or trouble
		if err := f.sleep(ctx, time.Millisecond); err != nil {
			return r, err
		}
	}
	cpu1, err := cpuTimes(pids)
	own1, err2 := ownCPU()
	n1, t1 := f.bytes(), time.Now()
	if err := errors.Join(err, err2); err != nil {
		return r, err
	}
	r.bytes = n1 - n0
	if r.bytes <= 0 {
		return r, fmt.Errorf("no byte came out of %d streams in %v", len(f.streams), t1.Sub(t0).Round(time.Millisecond))
	}
	gb := float64(r.bytes) / 1e9
	r.mbps = gb * 1000 / t1.Sub(t0).Seconds()
	r.cpu = (cpu1 - cpu0).Seconds() / gb
	r.ownCPU = (own1 - own0).Seconds() / gb
	return r, nil
}

// throughputRound measures streams through p once.
func throughputRound(ctx context.Context, p path, pat *pattern, streams int, d time.Duration) (rate, error) {
	return throughputAfter(ctx, p, pat, streams, 0, d)
}

// throughputAfter measures streams once they have run for warm.
func throughputAfter(ctx context.Context, p path, pat *pattern, streams int, warm, d time.Duration) (rate, error) {
	f, err := startFlow(p, pat, streams)
	if err != nil {
		return rate{}, err
	}
	_ = f.sleep(ctx, warm) // watch sees what is wrong
	r, err := f.watch(ctx, p.pids(), d)
	if e := f.end(); e != nil { // the reason, where both have failed
		err = e
	}
	return r, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
