package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// times are durations of something done over and over.
type times struct {
	all     []time.Duration
	elapsed time.Duration
	cpu     time.Duration // of the processes in between
}

// figures sorts t and sums it up.
func (t *times) figures() Figures {
	slices.Sort(t.all)
	n := float64(len(t.all))
	return Figures{
		P50: benchreport.Milliseconds(percentile(t.all, 50)), P99: benchreport.Milliseconds(percentile(t.all, 99)),
		PerSecond: n / t.elapsed.Seconds(),
		CPUEach:   float64(t.cpu.Microseconds()) / n,
	}
}

// percentile returns the smallest of the sorted values that p percent of them
// do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// repeat calls do for d, at least once, and after a short run that does not
// count. With pause it waits that long before each.
func repeat(ctx context.Context, pids []int, d, pause time.Duration, do func() error) (t *times, err error) {
	for until := time.Now().Add(min(warmUp, d/4)); time.Now().Before(until); {
		if err := do(); err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
	cpu, err := cpuTimes(pids)
	if err != nil {
		return nil, err
	}
	t = &times{}
	for begin := time.Now(); t.elapsed < d; t.elapsed = time.Since(begin) {
		if pause > 0 {
			if err := sleep(ctx, pause); err != nil {
				return nil, err
			}
		}
		at := time.Now()
		if err := do(); err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
		t.all = append(t.all, time.Since(at))
	}
	t.cpu, err = cpuTimes(pids)
	t.cpu -= cpu
	return t, err
}

// latencyRound sends a lone packet to the other end and one back, over and
// over.
func latencyRound(ctx context.Context, p path, pat *pattern, d time.Duration) (*times, error) {
	s, err := p.open(0)
	if err != nil {
		return nil, err
	}
	defer s.close()
	there, back := pat.source(0), pat.source(1)
	in := [2]*check{pat.check(0), pat.check(1)}
	buf := make([]byte, pat.size)
	once := func(from, to *sock, b []byte, c *check) error {
		if _, err := from.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(to, buf); err != nil {
			return fmt.Errorf("a lone packet: %w", err)
		}
		return c.add(buf)
	}
	t, err := repeat(ctx, p.pids(), d, 0, func() error {
		if err := once(s.from, s.to, there.next(), in[0]); err != nil {
			return err
		}
		return once(s.to, s.from, back.next(), in[1])
	})
	if err != nil {
		return nil, err
	}
	return t, s.finish()
}

// finish ends a stream in order: the sender, then the receiver.
func (s stream) finish() error {
	if err := s.from.closeWrite(); err != nil {
		return err
	}
	if err := s.to.expectEOF(); err != nil {
		return err
	}
	s.to.close()
	if err := s.from.expectEOF(); err != nil {
		return err
	}
	s.from.close()
	return nil
}

// setup opens both ends of a connection, sends one packet and closes it,
// until the sender has seen the end.
type setup struct {
	p   path
	pat *pattern
	src *source
	buf []byte
	n   int // connections made
}

func newSetup(p path, pat *pattern) *setup {
	return &setup{p: p, pat: pat, src: pat.source(0), buf: make([]byte, pat.size)}
}

func (u *setup) once() error {
	s, err := u.p.open(u.n)
	if err != nil {
		return err
	}
	defer s.close()
	u.n++
	c := u.pat.check(0)
	u.src.seq = 0
	if _, err := s.from.Write(u.src.next()); err != nil {
		return err
	}
	// Before anything is read: Greenplum's proxy holds a lone packet back
	// until the stream ends.
	if err := s.from.closeWrite(); err != nil {
		return err
	}
	if n, err := io.ReadFull(s.to, u.buf); isEOF(err) && n == 0 {
		return errors.New("a new connection was ended before its packet: the receiving proxy has answered HELLO and then turned it away, as it does when it is not connected with its peer; its log and status say why")
	} else if err != nil {
		return fmt.Errorf("the packet of a new connection, %d of %d bytes: %w", n, len(u.buf), err)
	}
	if err := c.add(u.buf); err != nil {
		return err
	}
	if err := s.to.expectEOF(); err != nil {
		return err
	}
	s.to.close()
	return s.from.expectEOF()
}

// setupRound makes connections one after the other.
func setupRound(ctx context.Context, p path, pat *pattern, d, pause time.Duration) (*times, error) {
	return repeat(ctx, p.pids(), d, pause, newSetup(p, pat).once)
}
