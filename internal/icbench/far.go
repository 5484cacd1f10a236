package icbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

const (
	// shortRuns are those of the short query in a round over the WAN.
	shortRuns = 3
	// leaveTime bounds how long a query that was told to end may take to.
	leaveTime = 15 * time.Second
	// quietTime bounds the wait until nothing is under way any more.
	quietTime = 5 * time.Second
)

// far measures on a cluster each instance of which is on a host of its own,
// with an emulated wide area network between them, which is changed for each
// round trip and loss.
func (b *bench) far(ctx context.Context) (err error) {
	if err := wan.Available(); err != nil {
		b.note("The WAN was not measured: %v", err)
		return nil
	}
	b.report.Setup.WAN = true
	b.say("WAN: making the cluster")
	s, err := b.makeSite(ctx, b.opt.WANSegments, true)
	if err != nil {
		return err
	}
	defer func() {
		b.say("WAN: removing the cluster")
		err = errors.Join(err, b.remove(ctx, s))
	}()
	b.say("WAN: loading")
	rows := b.opt.Size * 1e6 / farPad
	if err := b.load(ctx, s, rows); err != nil {
		return err
	}
	set := farQueries(b.opt.Rows, b.opt.GatherRows, rows)
	for _, loss := range b.opt.Loss {
		for _, rtt := range b.opt.RTT {
			p := Place{WAN: true, Segments: b.opt.WANSegments, Sessions: 1, RTTMS: benchreport.Milliseconds(rtt), LossPercent: 100 * loss}
			if err := b.farPlace(ctx, s, p, wan.Link{Delay: rtt / 2, Rate: b.opt.Rate, Loss: loss}, set); err != nil {
				return err
			}
		}
	}
	return nil
}

// farPlace measures over one kind of link.
func (b *bench) farPlace(ctx context.Context, s *site, p Place, link wan.Link, set []query) error {
	where := fmt.Sprintf("WAN, %g ms, %g %% loss", p.RTTMS, p.LossPercent)
	b.say("%s: connecting", where)
	if err := s.setLinks(link); err != nil {
		return err
	}
	if err := s.renewProxies(ctx); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	m, err := s.meter(ctx)
	if err != nil {
		return err
	}
	sessions := map[string]*session{}
	defer func() {
		for _, c := range sessions {
			c.close()
		}
	}()
	for round := range b.opt.WANRounds {
		for _, typ := range b.opt.Types {
			for i := range set {
				q := &set[i]
				cell := b.report.cell(p, q.name, typ)
				if cell.Error != "" {
					continue
				}
				b.say("%s, round %d of %d, %s, %s", where, round+1, b.opt.WANRounds, q.name, typ)
				c := sessions[typ]
				if c == nil {
					if c, err = b.farSession(ctx, s, typ, &set[0]); err != nil {
						if ctx.Err() != nil {
							return ctx.Err()
						}
						cell.fail(err)
						continue
					}
					sessions[typ] = c
				}
				if err := b.farRound(ctx, s, m, c, q, cell); err != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					cell.fail(err)
					c.close() // it may be in any state
					delete(sessions, typ)
				}
				s.awaitQuiet(ctx)
			}
		}
		b.say("%s, round %d of %d, %s", where, round+1, b.opt.WANRounds, PlainTCP)
		cell := b.report.cell(p, Gather, PlainTCP)
		f, err := s.plainTCP(ctx, int64(b.opt.Size)*1e6, b.opt.Limit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			cell.fail(err)
		} else {
			cell.Rounds = append(cell.Rounds, f)
		}
		s.awaitQuiet(ctx)
	}
	return nil
}

// farSession opens a session and has its executors started by a first query.
func (b *bench) farSession(ctx context.Context, s *site, typ string, first *query) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, slotLimit, fmt.Errorf("no session after %v", slotLimit))
	defer cancel()
	c, err := s.connect(ctx, typ)
	if err != nil {
		return nil, err
	}
	if _, err := c.ask(ctx, first); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// farRound runs a query once, the short one a few times, and adds a round to
// the cell.
func (b *bench) farRound(ctx context.Context, s *site, m *meter, c *session, q *query, cell *Cell) error {
	runs := 1
	if q.name == Short {
		runs = shortRuns
	}
	marks := s.markLogs()
	before, err := m.read()
	if err != nil {
		return err
	}
	var elapsed []float64
	f := Figures{}
	for range runs {
		r, took, done, err := c.within(ctx, q, b.opt.Limit)
		if err != nil {
			return err
		}
		f[Runs]++
		if q.rows > 0 {
			f[Rate] = float64(r.bytes) / 1e6 / took.Seconds()
		}
		if !done {
			f[Unfinished] = 1
			if total := float64(q.rows * farPad); q.rows > 0 && r.bytes > 0 {
				f[Estimate] = benchreport.Milliseconds(took) * max(1, total/float64(r.bytes))
			}
			break
		}
		elapsed = append(elapsed, benchreport.Milliseconds(took))
	}
	after, err := m.read()
	if err != nil {
		return err
	}
	if len(elapsed) > 0 {
		f[ElapsedP50], f[ElapsedP95] = benchreport.Median(elapsed), benchreport.Quantile(elapsed, 0.95)
	}
	moved := after.minus(before)
	f[NetKB], f[NetPackets], f[Retransmits] = float64(moved.bytes)/1e3/f[Runs], float64(moved.packets)/f[Runs], float64(moved.retransmits)
	if cell.Type == "udpifc" {
		delete(f, Retransmits)
		if own, ok := marks.since(); ok {
			f[Retransmits] = float64(own.retransmits)
		}
	}
	cell.Rounds = append(cell.Rounds, f)
	cell.elapsed = append(cell.elapsed, elapsed...)
	return nil
}

// within asks a query. One that is not done after limit is told to end; then
// done is false, and took and the bytes of the result are those of that moment.
func (c *session) within(ctx context.Context, q *query, limit time.Duration) (r result, took time.Duration, done bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit+leaveTime, errors.New("the query does not end when it is told to"))
	defer cancel()
	type answer struct {
		result
		took time.Duration
		err  error
	}
	before := c.got.Load()
	start := time.Now()
	ended := make(chan answer, 1)
	go func() {
		r, err := c.ask(ctx, q)
		ended <- answer{r, time.Since(start), err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a := <-ended:
		return a.result, a.took, true, a.err
	case <-timer.C:
	}
	r.bytes, took = c.got.Load()-before, time.Since(start)
	err = c.conn.CancelRequest(ctx)
	a := <-ended
	switch {
	case a.err == nil: // it was quicker
		return a.result, a.took, true, nil
	case sqlState(a.err) == "57014": // query_canceled
		return r, took, false, nil
	}
	return r, took, false, errors.Join(a.err, err)
}

// setLinks makes all links alike.
func (s *site) setLinks(l wan.Link) error {
	for a := range s.net.Hosts() {
		for b := range a {
			if err := s.net.SetLink(a, b, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitQuiet waits until next to nothing goes between the hosts, so that the
// remains of one measurement are not in the next. Proxies and idle
// connections say something now and then.
func (s *site) awaitQuiet(ctx context.Context) {
	const look, few = 50 * time.Millisecond, 20 // packets
	before := s.net.Total().Sent
	for range int(quietTime / look) {
		if !pause(ctx, look) {
			return
		}
		now := s.net.Total().Sent
		if now-before <= few {
			return
		}
		before = now
	}
}
