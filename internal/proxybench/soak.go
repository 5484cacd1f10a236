package proxybench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// What a soak does at the same time.
const (
	soakStreams = 2 // heavy ones, closed and opened again now and then
	soakSetups  = 4 // that make one connection after the other
	soakSamples = 40
)

// soak moves data and makes connections for d and looks at the proxies' memory
// and descriptors.
func (b *bench) soak(ctx context.Context, size int, d time.Duration) error {
	res := Result{Mode: "soak", Label: fmt.Sprintf("%v of short connections and heavy streams", d), Size: size, Streams: soakStreams}
	p, stop, err := b.fresh(ctx, &res)
	if err != nil {
		return err
	}
	defer stop()
	before, _, err := settled(ctx, p.pids())
	if err != nil {
		return err
	}
	pat := newPattern(size)
	var moved, made atomic.Int64
	work, done := context.WithTimeout(ctx, d)
	defer done()
	var wg sync.WaitGroup
	errs := make([]error, soakStreams+soakSetups)
	for i := range errs {
		wg.Go(func() {
			defer func() {
				if errs[i] != nil {
					done() // no use in going on
				}
			}()
			if i < soakStreams {
				errs[i] = soakFlow(work, p, pat, d/20, &moved)
				return
			}
			for u := newSetup(p, pat); work.Err() == nil && errs[i] == nil; made.Add(1) {
				errs[i] = u.once()
				moved.Add(int64(size))
			}
		})
	}
	begin := time.Now()
	var failed error
	for sleep(work, d/soakSamples) == nil {
		m, _, err := memoryOfAll(p.pids())
		if err != nil {
			failed = err
			done()
			break
		}
		s := MemorySample{time.Since(begin).Seconds(), m, int(made.Load()), moved.Load()}
		res.Series = append(res.Series, s)
		b.say("soak: %.0f s of %v, %d connections, %.1f GB, RSS %.1f MB, %d descriptors",
			s.Second, d, s.Connections, float64(s.Bytes)/1e9, float64(m.RSS)/1e6, m.FDs)
	}
	wg.Wait()
	if err := errors.Join(append(errs, failed, ctx.Err())...); err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	after, _, err := settled(ctx, p.pids())
	if err != nil {
		return err
	}
	f := Figures{
		TotalOpened: float64(made.Load()), TotalBytes: float64(moved.Load()),
		RSS: float64(after.RSS), Descriptors: float64(after.FDs - before.FDs),
		RSSTrend: trend(res.Series),
	}
	res.Paths = []PathResult{{Path: PathProxies, Rounds: []Figures{f}}}
	b.add(res)
	return nil
}

// soakFlow keeps one heavy stream busy, a new one every d.
func soakFlow(ctx context.Context, p path, pat *pattern, d time.Duration, moved *atomic.Int64) error {
	for ctx.Err() == nil {
		f, err := startFlow(p, pat, 1)
		if err != nil {
			return err
		}
		_ = f.sleep(ctx, d)
		err = f.end()
		moved.Add(f.bytes())
		if err != nil {
			return err
		}
	}
	return nil
}

// trend is the memory in the last quarter of a soak as a part of that in the
// second, medians. The first is for growing to what it takes.
func trend(series []MemorySample) float64 {
	quarter := func(n int) []float64 {
		var v []float64
		for _, s := range series[len(series)*n/4 : len(series)*(n+1)/4] {
			v = append(v, float64(s.RSS))
		}
		return v
	}
	if len(series) < 4 {
		return 1
	}
	return benchreport.Median(quarter(3)) / benchreport.Median(quarter(1))
}
