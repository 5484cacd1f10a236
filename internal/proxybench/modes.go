package proxybench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// scale is how long the measurements take.
type scale struct {
	rounds int
	time   time.Duration // of a round
}

// measure does the mode, or all of them.
func (b *bench) measure(ctx context.Context) error {
	o := &b.opt
	sc, few, connections, soak := scale{5, time.Second}, scale{3, time.Second}, 10_000, 20*time.Second
	if o.Quick {
		sc, connections, soak = scale{3, 300 * time.Millisecond}, 2000, 4*time.Second
		few = sc
	}
	long := scale{few.rounds, 3 * time.Second}
	if o.Quick {
		long = scale{1, time.Second}
	}
	for _, s := range []*scale{&sc, &few, &long} {
		s.rounds = or(o.Rounds, s.rounds)
		s.time = or(o.Time, s.time)
	}
	streams, size := or(o.Streams, 8), or(o.Size, 8192)
	connections = or(o.Connections, connections)
	do := map[string]func() error{
		"throughput": func() error { return b.throughput(ctx, streams, size, sc) },
		"latency":    func() error { return b.latency(ctx, size, few) },
		"setup":      func() error { return b.setup(ctx, size, few) },
		"fair":       func() error { return b.fair(ctx, streams, size, few) },
		"unread":     func() error { return b.unread(ctx, connections, size, few) },
		"many":       func() error { return b.many(ctx, connections) },
		"steady":     func() error { return b.steady(ctx, streams, size, few) },
		"link":       func() error { return b.link(ctx, size, long) },
		"soak":       func() error { return b.soak(ctx, size, or(o.Time, soak)) },
	}
	if o.Mode != "" {
		if err := do[o.Mode](); err != nil && ctx.Err() == nil {
			return b.explain(err)
		}
		return ctx.Err()
	}
	do["throughput"] = func() error {
		for _, t := range [][2]int{{8, 8192}, {1, 8192}, {8, 512}} {
			if err := b.try(ctx, "throughput", func() error { return b.throughput(ctx, t[0], t[1], sc) }); err != nil {
				return err
			}
		}
		return nil
	}
	do["soak"] = func() error { return b.soak(ctx, size, soak) }
	for _, m := range Modes {
		if (m == "steady" || m == "link") && len(o.Proxies) > 0 {
			continue // say nothing of proxies that are not ours
		}
		if err := b.try(ctx, m, do[m]); err != nil {
			return err
		}
	}
	b.report.compare(or(o.Budget, 512<<20))
	return nil
}

// try does a part of the standard set. The rest has to be measured even if
// that fails: there are proxies that stop for good at small packets.
func (b *bench) try(ctx context.Context, mode string, do func() error) error {
	err := do()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	err = b.explain(err)
	b.report.Failures = append(b.report.Failures, err.Error())
	b.report.Results = append(b.report.Results, Result{Mode: mode, Label: "failed", Notes: strings.Split(err.Error(), "\n")})
	return nil
}

// or is n unless that is not set.
func or[T int | int64 | time.Duration](n, otherwise T) T {
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
	paths := b.paths()
	if b.other != nil {
		paths = append(paths, b.other)
	}
	paths = append(paths, directPath{b.socks})
	return b.rounds(ctx, Result{Mode: "throughput", Label: label(streams, size), Streams: streams, Size: size}, paths, sc.rounds,
		func(p path) (Figures, error) {
			r, err := throughputRound(ctx, p, pat, streams, sc.time)
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
			t, err := latencyRound(ctx, p, pat, sc.time)
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
			t, err := setupRound(ctx, p, pat, sc.time, 0)
			if err != nil {
				return nil, err
			}
			return t.figures(), nil
		})
}
