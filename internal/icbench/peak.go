package icbench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/sim"
)

// holder holds the lock that held queries wait for, on each segment.
type holder struct{ segments []*session }

func (s *site) newHolder(ctx context.Context) (*holder, error) {
	h := &holder{}
	for _, inst := range s.c.Instances() {
		if inst.Content < 0 {
			continue
		}
		c, err := s.utility(ctx, int(inst.Content))
		if err != nil {
			h.close()
			return nil, err
		}
		h.segments = append(h.segments, c)
	}
	return h, nil
}

func (h *holder) close() { closeSessions(h.segments) }

func (h *holder) do(ctx context.Context, sql string) error {
	return together(h.segments, func(_ int, c *session) error { _, err := c.run(ctx, sql); return err })
}

// await waits until n executors on each segment wait for the lock.
func (h *holder) await(ctx context.Context, n int) error {
	const waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
	for content, c := range h.segments {
		for {
			r, err := c.run(ctx, waiting)
			if err != nil {
				return err
			}
			if len(r.text) == 1 && r.text[0] == strconv.Itoa(n) {
				break
			}
			if !pause(ctx, 20*time.Millisecond) {
				return fmt.Errorf("%s of %d executors wait on segment %d: %w", r.text, n, content, context.Cause(ctx))
			}
		}
	}
	return nil
}

// peaks counts sockets while all sessions are in the middle of a query: the
// executors of each session have opened the motions of it and wait, in the scan of
// the slice that comes first, for a lock. Without all it is the query with the
// most slices only.
func (b *bench) peaks(ctx context.Context, s *site, p Place, typ string, set []query, all bool) {
	for _, q := range set {
		if q.held == "" || !all && q.name != FiveSlices {
			continue
		}
		peak := Peak{Segments: p.Segments, Sessions: p.Sessions, Query: q.name, Type: typ}
		n, err := s.peak(ctx, p.Sessions, typ, &q)
		if err == nil {
			peak.Sockets = n
			peak.Sim, err = simulate(p.Segments, p.Sessions, typ, q.plan)
		}
		if err != nil {
			peak.Error = benchreport.FirstLine(err)
		}
		b.report.Peaks = append(b.report.Peaks, peak)
	}
}

// simulate is what package sim says of a query with those motions. Which slice
// reads which does not matter to the counts.
func simulate(segments, sessions int, typ string, motions map[string]int) (*Sockets, error) {
	var list []sim.Motion
	for _, kind := range []string{gatherMotion, redistributeMotion, broadcastMotion} {
		for range motions[kind] {
			list = append(list, sim.Motion{Kind: sim.Kind(strings.ToLower(kind))})
		}
	}
	if list == nil {
		return nil, nil
	}
	r, err := sim.Compute(sim.Cluster{Engine: sim.Trunkline, Segments: segments, Hosts: 1, System: sim.DefaultSystem()}, list, sessions)
	if err != nil {
		return nil, err
	}
	all := r.Type(sim.Type(typ)).All
	return &Sockets{
		TCP: int(all.TCPConnections), Within: int(all.SameInstance), UDP: int(all.UDPSockets), Listen: int(all.ListeningPorts),
	}, nil
}

func (s *site) peak(ctx context.Context, sessions int, typ string, q *query) (n Sockets, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, holdTime, fmt.Errorf("not there after %v", holdTime))
	defer cancel()
	h, err := s.newHolder(ctx)
	if err != nil {
		return n, err
	}
	defer h.close()
	if err := s.awaitIdle(ctx); err != nil {
		return n, err
	}
	list, err := s.openSessions(ctx, typ, sessions)
	if err != nil {
		return n, err
	}
	defer closeSessions(list)
	if err := h.do(ctx, "select pg_advisory_lock("+holdLock+")"); err != nil {
		return n, err
	}
	// All that runs ends when the lock is given back, or at the latest when the
	// client leaves.
	qctx, leave := context.WithCancel(ctx)
	defer leave()
	done := make(chan error, 1)
	go func() {
		done <- together(list, func(_ int, c *session) error { _, err := c.run(qctx, q.held); return err })
	}()
	wctx, early := context.WithCancelCause(ctx)
	defer early(nil)
	ended := make(chan error, 1)
	go func() {
		err := <-done
		if err != nil {
			early(err)
		}
		ended <- err
	}()
	err = h.await(wctx, sessions)
	if err == nil {
		n, err = s.settled(ctx, typ)
	} else {
		leave()
	}
	h.close() // gives the locks back
	if qerr := <-ended; err == nil {
		err = qerr
	}
	return n, err
}

// awaitIdle waits until the executors of sessions that are over have closed what
// they had.
func (s *site) awaitIdle(ctx context.Context) error {
	for {
		pids, err := s.pids(ctx)
		if err != nil {
			return err
		}
		left, _, err := countSockets(pids)
		if err != nil || left == (Sockets{}) {
			return err
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("executors of earlier sessions still have %d TCP connections and %d ports: %w", left.TCP, left.Ports(), context.Cause(ctx))
		}
	}
}

// settled counts until three counts in a row are the same: what executors only
// try, or have just closed, is not held.
func (s *site) settled(ctx context.Context, typ string) (n Sockets, err error) {
	const look, same, most = 100 * time.Millisecond, 3, 50
	run := 0
	for range most {
		last := n
		if n, err = s.count(ctx, typ); err != nil {
			return n, err
		}
		if run++; n != last {
			run = 1
		}
		if run >= same || !pause(ctx, look) {
			break
		}
	}
	return n, nil
}

// count counts what a type holds now: of type proxy the proxies' own sockets
// and what executors hold beside their unix sockets, of the others what
// executors hold.
func (s *site) count(ctx context.Context, typ string) (Sockets, error) {
	pids, err := s.pids(ctx)
	if err != nil {
		return Sockets{}, err
	}
	executors, proxies, err := countSockets(pids)
	if err != nil || typ != "proxy" {
		return executors, err
	}
	return Sockets{
		TCP: executors.TCP + proxies.TCP, Within: executors.Within + proxies.Within,
		UDP: executors.UDP + proxies.UDP, Listen: executors.Listen + proxies.Listen,
	}, nil
}
