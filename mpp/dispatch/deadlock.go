package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// deadlockConfirm is the pause between the two looks that a cycle of waits
// must survive: edges read from several servers at different times may make
// one that never was.
const deadlockConfirm = 50 * time.Millisecond

// onCoordinator is the place of a wait in the coordinator's PostgreSQL, among
// the content ids of the segments.
const onCoordinator int16 = -1

// backend names a PostgreSQL backend of the cluster.
type backend struct {
	content int16
	pid     uint32
}

// wait is one session's statement waiting for a lock that another holds.
type wait struct {
	from, to *Gang
	op       *op // of from; nil when it waits on the coordinator
	at       int16
}

// deadlocks looks for sessions that wait for each other on different servers,
// which none of the servers can see, and cancels one of each such cycle, until
// ctx ends.
func (d *Dispatcher) deadlocks(ctx context.Context) {
	pause := d.p.DeadlockTimeout
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if !d.suspicious(time.Now().Add(-d.p.DeadlockTimeout)) {
			pause = d.p.DeadlockTimeout
			continue
		}
		// A look costs a connection to each server. Long queries are common
		// and deadlocks rare, so the looks get rarer too.
		pause = min(2*pause, 4*d.p.DeadlockTimeout)
		if err := d.breakDeadlock(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("cannot look for deadlocks between segments", "err", err)
		}
	}
}

// suspicious says whether a statement on the segments has been running since
// before t, and another session is there to wait for.
func (d *Dispatcher) suspicious(t time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gangs) < 2 {
		return false
	}
	for g := range d.gangs {
		if o := g.current(); o != nil && o.began.Before(t) {
			return true
		}
	}
	return false
}

// breakDeadlock finds a cycle of waits and ends the statement in it that began
// last.
func (d *Dispatcher) breakDeadlock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.p.ConnectTimeout)
	defer cancel()
	first, err := d.waits(ctx)
	if err != nil {
		return err
	}
	ring := cycle(first)
	if ring == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(deadlockConfirm):
	}
	second, err := d.waits(ctx)
	if err != nil {
		return err
	}
	var victim *op
	var text []string
	for _, w := range ring {
		if !slices.Contains(second, w) {
			return nil // it has moved on
		}
		where := "the coordinator"
		if w.at != onCoordinator {
			where = fmt.Sprintf("seg%d", w.at)
		}
		text = append(text, fmt.Sprintf("Session %d waits on %s; blocked by session %d.", w.from.cfg.SessionID, where, w.to.cfg.SessionID))
		if w.op != nil && (victim == nil || w.op.began.After(victim.began)) {
			victim = w.op
		}
	}
	if victim == nil {
		return nil // all on the coordinator, which sees it itself
	}
	e := newError("40P01", "deadlock detected", nil)
	e.Detail = strings.Join(text, "\n")
	e.Hint = "Sessions wait for each other on different segments; run the transaction again."
	d.log.Info("deadlock between segments", "victim", victim.g.cfg.SessionID, "detail", e.Detail)
	victim.fail(e)
	return nil
}

// waits asks all servers which sessions wait for which.
func (d *Dispatcher) waits(ctx context.Context) ([]wait, error) {
	owner := make(map[backend]*Gang)
	d.mu.Lock()
	for g := range d.gangs {
		g.mu.Lock()
		for m, pid := range g.backends {
			owner[backend{m.seg.Content, pid}] = g
		}
		g.mu.Unlock()
		if g.cfg.CoordinatorPID != 0 {
			owner[backend{onCoordinator, g.cfg.CoordinatorPID}] = g
		}
	}
	d.mu.Unlock()

	var ws []wait
	look := func(content int16, connect func() (*pgconn.PgConn, error)) error {
		conn, err := connect()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.Background()) }()
		rows, err := query(ctx, conn, "SELECT pid, b FROM pg_catalog.pg_stat_activity, pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) b WHERE wait_event_type = 'Lock'")
		if err != nil {
			return err
		}
		for _, r := range rows {
			from, to := owner[backendOf(content, r[0])], owner[backendOf(content, r[1])]
			if from == nil || to == nil || from == to {
				continue
			}
			w := wait{from: from, to: to, at: content}
			if content != onCoordinator {
				if w.op = from.current(); w.op == nil {
					continue // it has just ended
				}
			}
			ws = append(ws, w)
		}
		return nil
	}
	for _, seg := range d.cfg.Segments() {
		if err := look(seg.Content, func() (*pgconn.PgConn, error) { return d.connectSegment(ctx, seg, "postgres") }); err != nil {
			return nil, err
		}
	}
	err := look(onCoordinator, func() (*pgconn.PgConn, error) { return d.connectCoordinator(ctx) })
	return ws, err
}

func backendOf(content int16, pid []byte) backend {
	n, _ := strconv.ParseUint(string(pid), 10, 32)
	return backend{content, uint32(n)}
}

// cycle returns waits that form a ring, nil when there are none.
func cycle(ws []wait) []wait {
	out := make(map[*Gang][]wait)
	for _, w := range ws {
		out[w.from] = append(out[w.from], w)
	}
	done := make(map[*Gang]bool)
	var path []wait
	var visit func(g *Gang) []wait
	visit = func(g *Gang) []wait {
		if i := slices.IndexFunc(path, func(w wait) bool { return w.from == g }); i >= 0 {
			return slices.Clone(path[i:])
		}
		if done[g] {
			return nil
		}
		done[g] = true
		for _, w := range out[g] {
			path = append(path, w)
			if r := visit(w.to); r != nil {
				return r
			}
			path = path[:len(path)-1]
		}
		return nil
	}
	for _, w := range ws {
		if r := visit(w.from); r != nil {
			return r
		}
	}
	return nil
}
