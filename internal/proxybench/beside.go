package proxybench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// fair measures setup beside heavy streams, and these beside setup.
func (b *bench) fair(ctx context.Context, streams, size int, sc scale) error {
	pat := newPattern(size)
	res := Result{Mode: "fair", Label: "setup beside " + label(streams, size), Streams: streams, Size: size}
	return b.rounds(ctx, res, b.paths(), sc.rounds, func(p path) (Figures, error) {
		f, err := startFlow(p, pat, streams)
		if err != nil {
			return nil, err
		}
		fig, err := besideFlow(ctx, p, f, pat, sc.time, b.opt.SetupEvery)
		if e := f.end(); e != nil {
			err = e
		}
		return fig, err
	})
}

func besideFlow(ctx context.Context, p path, f *flow, pat *pattern, d, pause time.Duration) (Figures, error) {
	before, err1 := f.watch(ctx, p.pids(), d/2)
	var during rate
	watched := make(chan error, 1)
	go func() {
		var err error
		during, err = f.watch(ctx, p.pids(), d)
		watched <- err
	}()
	// Not over before the watch is.
	t, err2 := repeat(ctx, p.pids(), d+warmUp, pause, newSetup(p, pat).once)
	err3 := <-watched
	after, err4 := f.watch(ctx, p.pids(), d/2)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	fig := t.figures()
	delete(fig, CPUEach) // it would be that of the heavy streams
	alone := (before.mbps + after.mbps) / 2
	fig[Alone], fig[MBps], fig[OfAlone] = alone, during.mbps, during.mbps/alone
	return fig, nil
}

// fresh starts proxies whose memory nothing else has grown; given ones are
// taken as they are. stop ends them.
func (b *bench) fresh(ctx context.Context, res *Result) (p *proxyPath, stop func(), err error) {
	if len(b.opt.Proxies) > 0 {
		res.Notes = append(res.Notes, "the proxies' memory before is that after all they have done so far")
		return b.proxies, func() {}, nil
	}
	ends, children, err := b.startProxies(ctx, res.Mode, proxyWord)
	if err != nil {
		return nil, nil, err
	}
	if p, err = newProxyPath(b.socks, ends, b.opt.Dialect); err != nil {
		return nil, nil, err
	}
	return p, func() {
		for _, c := range children {
			c.stop()
		}
	}, newSetup(p, newPattern(minPacket)).once()
}

// atMost cuts the number of connections to what the limit of open files
// allows.
func atMost(n int, res *Result) int {
	const others = 300
	if may := (roomFor(2*n+others) - others) / 2; may < n {
		res.Notes = append(res.Notes, fmt.Sprintf("%d connections instead of %d: more open files are not allowed (ulimit -n)", may, n))
		n = may
	}
	return n
}

// many measures the memory of idle connections.
func (b *bench) many(ctx context.Context, n int) error {
	res := Result{Mode: "many", Size: 64}
	n = atMost(n, &res)
	res.Label, res.Connections = fmt.Sprintf("%d idle connections", n), n
	p, stop, err := b.fresh(ctx, &res)
	if err != nil {
		return err
	}
	defer stop()
	_, before, err := settled(ctx, p.pids())
	if err != nil {
		return err
	}
	c, err := openCrowd(ctx, p, newPattern(res.Size), n, func(i int) { b.say("many: %d of %d connections opened", i, n) })
	if err != nil {
		return fmt.Errorf("many: %w", err)
	}
	defer c.close()
	if err := c.use(); err != nil {
		return fmt.Errorf("many: %w", err)
	}
	b.say("many: waiting for memory to settle")
	sum, after, err := settled(ctx, p.pids())
	if err != nil {
		return err
	}
	f := Figures{RSS: float64(sum.RSS)}
	for i := range after {
		each := float64(after[i].RSS-before[i].RSS) / float64(n)
		f[RSSEach] += each
		f[RSSEachMax] = max(f[RSSEachMax], each)
		f[AnonEach] += float64(after[i].Anon-before[i].Anon) / float64(n)
	}
	res.Paths = []PathResult{{Path: PathProxies, Rounds: []Figures{f}}}
	res.Notes = append(res.Notes, "memory of the processes; what the kernel keeps for their sockets is not in it")
	b.add(res)
	return nil
}

// unread measures a live stream beside connections nobody reads.
func (b *bench) unread(ctx context.Context, n, size int, sc scale) error {
	pat := newPattern(size)
	res := Result{Mode: "unread", Size: size, Streams: 1}
	n = atMost(n, &res)
	res.Label, res.Connections = fmt.Sprintf("a live stream beside %d unread", n), n
	p, stop, err := b.fresh(ctx, &res)
	if err != nil {
		return err
	}
	defer stop()
	before, _, err := settled(ctx, p.pids())
	if err != nil {
		return err
	}
	live, err := startFlow(p, pat, 1)
	if err != nil {
		return err
	}
	f, err := b.besideUnread(ctx, p, live, pat, n, sc, &res)
	if e := live.end(); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("unread: %w", err)
	}
	f[RSSGrowth] = f[RSS] - float64(before.RSS)
	res.Paths = []PathResult{{Path: PathProxies, Rounds: []Figures{f}}}
	b.add(res)
	return nil
}

func (b *bench) besideUnread(ctx context.Context, p path, live *flow, pat *pattern, n int, sc scale, res *Result) (Figures, error) {
	alone, err := b.watchLive(ctx, p, live, "alone", sc)
	if err != nil {
		return nil, err
	}
	c, err := openCrowd(ctx, p, pat, n, func(i int) { b.say("unread: %d of %d connections opened", i, n) })
	if err != nil {
		return nil, err
	}
	defer c.close()
	taken, err := b.fillUp(ctx, c, res)
	if err != nil {
		return nil, err
	}
	if err := b.warmMemory(ctx, p, live, alone.ownCPU, sc, res); err != nil {
		return nil, err
	}
	beside, err := b.watchLive(ctx, p, live, "beside unread ones", sc)
	if err != nil {
		return nil, err
	}
	sum, each, err := memoryOfAll(p.pids())
	if err != nil {
		return nil, err
	}
	for i := range min(n, 3) {
		if err := c.drain(i); err != nil {
			return nil, fmt.Errorf("a connection that was unread for long: %w", err)
		}
	}
	// Once more, as the machine may have become slower or faster.
	c.close()
	if _, _, err := settled(ctx, p.pids()); err != nil {
		return nil, err
	}
	again, err := b.watchLive(ctx, p, live, "alone again", sc)
	if err != nil {
		return nil, err
	}
	before := (alone.mbps + again.mbps) / 2
	f := Figures{Alone: before, MBps: beside.mbps, OfAlone: beside.mbps / before,
		OwnCPUPerGB: beside.ownCPU, Accepted: float64(taken), RSS: float64(sum.RSS)}
	for _, m := range each {
		f[RSSMax] = max(f[RSSMax], float64(m.RSS))
	}
	return f, nil
}

// watchLive returns the medians of several looks at the live stream.
func (b *bench) watchLive(ctx context.Context, p path, live *flow, what string, sc scale) (m rate, err error) {
	var mbps, own []float64
	for i := range sc.rounds {
		b.say("unread: live stream %s, round %d of %d", what, i+1, sc.rounds)
		r, err := live.watch(ctx, p.pids(), sc.time)
		if err != nil {
			return m, err
		}
		mbps, own = append(mbps, r.mbps), append(own, r.ownCPU)
	}
	m.mbps, m.ownCPU = benchreport.Median(mbps), benchreport.Median(own)
	return m, nil
}

// warmMemory lets the live stream run until the kernel's memory is warm again.
// Filling the unread connections has used up the pages that were at hand, and
// a virtual machine's next ones may have to be brought by its host, at some
// microseconds each. That shows in what this process pays for a GB, which no
// proxy has a part in.
func (b *bench) warmMemory(ctx context.Context, p path, live *flow, own float64, sc scale, res *Result) error {
	const cold, limit = 1.15, 20
	for i := range limit {
		b.say("unread: until the machine's memory is warm, %d", i+1)
		r, err := live.watch(ctx, p.pids(), sc.time)
		if err != nil || r.ownCPU <= cold*own {
			return err
		}
	}
	res.Notes = append(res.Notes, "the machine's memory was still cold: compare OWN CPU with that of other measurements")
	return nil
}

// fillUp writes to c until the path takes hardly anything more.
func (b *bench) fillUp(ctx context.Context, c *crowd, res *Result) (sum int64, err error) {
	_, all, err := available()
	if err != nil {
		return 0, err
	}
	short := false
	enough := func() bool {
		left, _, err := available()
		short = short || err == nil && left < all/4
		return short
	}
	for idle := 0; idle < 5 && !short; {
		b.say("unread: %d MB taken", sum/1e6)
		n, err := c.fill(ctx, enough)
		if err != nil {
			return sum, err
		}
		sum += n
		if idle++; n > int64(len(c.streams))*100 {
			idle = 0
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return sum, err
		}
	}
	if short {
		res.Notes = append(res.Notes, "no more was written, as three quarters of the machine's memory were in use")
	}
	return sum, nil
}
