package proxybench

import (
	"context"
	"fmt"
	"time"
)

// scale is how long the measurements take.
type scale struct {
	rounds  int
	seconds time.Duration
}

// measure does the mode, or all of them.
func (b *bench) measure(ctx context.Context) error {
	o := &b.opt
	sc := scale{5, time.Second}
	if o.Quick {
		sc = scale{3, 400 * time.Millisecond}
	}
	if o.Rounds > 0 {
		sc.rounds = o.Rounds
	}
	if o.Time > 0 {
		sc.seconds = o.Time
	}
	size := or(o.Size, 8192)
	switch o.Mode {
	case "throughput":
		return b.throughput(ctx, or(o.Streams, 8), size, sc)
	case "latency":
		return b.latency(ctx, size, sc)
	case "setup":
		return b.setup(ctx, size, sc)
	}
	for _, t := range [][2]int{{8, 8192}, {1, 8192}, {8, 512}} {
		if err := b.throughput(ctx, t[0], t[1], sc); err != nil {
			return err
		}
	}
	if err := b.latency(ctx, size, sc); err != nil {
		return err
	}
	if err := b.setup(ctx, size, sc); err != nil {
		return err
	}
	b.report.compare()
	return nil
}

func or(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

func label(streams, size int) string {
	if streams == 1 {
		return fmt.Sprintf("1 stream × %d bytes", size)
	}
	return fmt.Sprintf("%d streams × %d bytes", streams, size)
}

func (b *bench) throughput(ctx context.Context, streams, size int, sc scale) error {
	pat := newPattern(size)
	paths := append(b.paths(), directPath{b.socks})
	return b.rounds(ctx, Result{Mode: "throughput", Label: label(streams, size), Streams: streams, Size: size}, paths, sc.rounds,
		func(p path) (Figures, error) {
			r, err := throughputRound(ctx, p, pat, streams, sc.seconds)
			f := Figures{MBps: r.mbps, OwnCPUPerGB: r.ownCPU}
			if p.pids() != nil {
				f[CPUPerGB] = r.cpu
			}
			return f, err
		})
}

func (b *bench) latency(ctx context.Context, size int, sc scale) error {
	pat := newPattern(size)
	return b.rounds(ctx, Result{Mode: "latency", Label: fmt.Sprintf("%d bytes there and back", size), Size: size}, b.paths(), sc.rounds,
		func(p path) (Figures, error) {
			t, err := latencyRound(ctx, p, pat, sc.seconds)
			if err != nil {
				return nil, err
			}
			return t.figures(), nil
		})
}

func (b *bench) setup(ctx context.Context, size int, sc scale) error {
	pat := newPattern(size)
	return b.rounds(ctx, Result{Mode: "setup", Label: fmt.Sprintf("one packet of %d bytes", size), Size: size}, b.paths(), sc.rounds,
		func(p path) (Figures, error) {
			t, err := setupRound(ctx, p, pat, sc.seconds, 0)
			if err != nil {
				return nil, err
			}
			return t.figures(), nil
		})
}
