package icbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

const (
	// slotLimit bounds a query on loopback, however many sessions run it.
	slotLimit = 3 * time.Minute
	// holdTime bounds the wait until all sessions are where they shall be.
	holdTime = 2 * time.Minute
	// longRun is what a query may take to be run in more than one round: with
	// many sessions on many segments, each run has many samples, and a matrix
	// of such takes hours.
	longRun = 4 * time.Second
)

// loopback measures on a cluster of that many segments, all on this machine.
func (b *bench) loopback(ctx context.Context, segments int) (err error) {
	where := fmt.Sprintf("%d segments", segments)
	b.say("%s: making the cluster", where)
	s, err := b.makeSite(ctx, segments, false)
	if err != nil {
		return err
	}
	defer func() {
		b.say("%s: removing the cluster", where)
		err = errors.Join(err, b.remove(ctx, s))
	}()
	b.say("%s: loading", where)
	if err := b.load(ctx, s, 0); err != nil {
		return err
	}
	if err := s.c.AwaitProxies(ctx, readyTime); err != nil {
		return err
	}
	set := queries(b.opt.Rows, b.opt.GatherRows)
	if err := b.explain(ctx, s, where, set); err != nil {
		return err
	}
	for _, n := range b.opt.Sessions {
		for round := range b.opt.Rounds {
			for _, typ := range b.opt.Types {
				p := Place{Segments: segments, Sessions: n}
				if err := b.loopbackRound(ctx, s, p, round, typ, set); err != nil {
					return err
				}
				if round == 0 {
					b.say("%s, %d sessions, %s: counting connections", where, n, typ)
					b.peaks(ctx, s, p, typ, set, n == slices.Max(b.opt.Sessions))
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// loopbackRound runs each query of the set for a slot of time in sessions of
// its own. A query that fails is recorded, and left out in the rounds to come.
func (b *bench) loopbackRound(ctx context.Context, s *site, p Place, round int, typ string, set []query) error {
	m, err := s.meter(ctx)
	if err != nil {
		return err
	}
	list, err := s.openSessions(ctx, typ, p.Sessions)
	if err != nil {
		for _, q := range set {
			b.report.cell(p, q.name, typ).fail(err)
		}
		return ctx.Err()
	}
	defer func() { closeSessions(list) }()
	fresh := true
	for i := range set {
		q := &set[i]
		cell := b.report.cell(p, q.name, typ)
		if cell.Error != "" || b.tooLong(p, q.name) {
			continue
		}
		b.say("%d segments, %d sessions, round %d of %d, %s, %s", p.Segments, p.Sessions, round+1, b.opt.Rounds, typ, q.name)
		if err := b.slot(ctx, s, m, list, fresh, q, cell); err != nil {
			cell.fail(err)
			// The sessions may be in any state, or gone.
			closeSessions(list)
			if list, err = s.openSessions(ctx, typ, p.Sessions); err != nil {
				return err
			}
			fresh = true
		} else {
			fresh = false
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// tooLong says whether a query has been measured at a place in each type, and
// takes too long to be so again.
func (b *bench) tooLong(p Place, query string) bool {
	long := false
	for _, typ := range b.opt.Types {
		c := b.report.find(p, query, typ)
		if c == nil || len(c.Rounds) == 0 && c.Error == "" {
			return false
		}
		for _, f := range c.Rounds {
			long = long || f[ElapsedP50] > benchreport.Milliseconds(longRun)
		}
	}
	return long
}

// slot runs a query in all sessions at once for a slot and adds a round to the
// cell. In fresh sessions the first run is not counted: executors are started
// for it.
func (b *bench) slot(ctx context.Context, s *site, m *meter, list []*session, fresh bool, q *query, cell *Cell) error {
	ctx, cancel := context.WithTimeoutCause(ctx, slotLimit, fmt.Errorf("not done after %v", slotLimit))
	defer cancel()
	if fresh {
		if err := together(list, func(_ int, c *session) error { _, err := c.ask(ctx, q); return err }); err != nil {
			return err
		}
	}
	marks := s.markLogs()
	before, err := m.read()
	if err != nil {
		return err
	}
	client := movedBy(list)
	var mu sync.Mutex
	var elapsed []float64
	var rows int64
	start := time.Now()
	err = together(list, func(_ int, c *session) error {
		for first := true; first || time.Since(start) < b.opt.Slot; first = false {
			t := time.Now()
			r, err := c.ask(ctx, q)
			if err != nil {
				return err
			}
			mu.Lock()
			elapsed = append(elapsed, benchreport.Milliseconds(time.Since(t)))
			rows += r.bytes
			mu.Unlock()
		}
		return nil
	})
	wall := time.Since(start).Seconds()
	if err != nil {
		return err
	}
	after, err := m.read()
	if err != nil {
		return err
	}
	moved := after.minus(before)
	moved.bytes -= movedBy(list) - client
	runs := float64(len(elapsed))
	f := Figures{
		ElapsedP50: benchreport.Median(elapsed), ElapsedP95: benchreport.Quantile(elapsed, 0.95), Runs: runs, PerSecond: runs / wall,
		NetKB: float64(moved.bytes) / 1e3 / runs, Retransmits: float64(moved.retransmits),
	}
	if q.rows > 0 {
		f[Rate] = float64(rows) / 1e6 / wall
	}
	if cell.Type == "udpifc" {
		delete(f, Retransmits)
		if own, ok := marks.since(); ok {
			f[Retransmits], f[NetPackets] = float64(own.retransmits), float64(own.packets)/runs
		}
	}
	cell.Rounds = append(cell.Rounds, f)
	cell.elapsed = append(cell.elapsed, elapsed...)
	return nil
}
