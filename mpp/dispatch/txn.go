package dispatch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// txn is the gang's transaction.
type txn struct {
	active bool
	modes  string
	// fixed: its snapshots are taken, on all segments, for good.
	fixed bool
	// opens: they are taken for good by what it opens first.
	opens bool
	// torn: that has not fit together.
	torn bool
	// snapshots are the names by which readers import them; nil: they cannot.
	snapshots map[Segment]string
	// exported: its own executors have exported them, so that they cannot prepare.
	exported bool
	// locked: see MarkLocked.
	locked bool
	// locks are those that it has for certain, of statements; see Gang.ExecTogether.
	locks map[string]bool
	// savepoints are those that stand, in order; a name may be there twice.
	savepoints []string
}

// beginSQL starts the transaction on a segment.
func (t *txn) beginSQL() string {
	if t.modes == "" {
		return "BEGIN"
	}
	return "BEGIN " + t.modes
}

// XidSQL assigns the coordinator's transaction its id and writes a record of
// it, without which PostgreSQL would not flush the commit. One text column.
const XidSQL = "SELECT x.x::text FROM pg_catalog.pg_current_xact_id() AS x(x), " +
	"pg_catalog.pg_logical_emit_message(true, 'trunkline', 'commit') AS m(m)"

// EraSQL names the time since the coordinator's PostgreSQL last started or
// recovered from a crash: its beginning, in microseconds of the epoch. A
// connection has the same one as long as it lasts. One text column.
const EraSQL = "SELECT pg_catalog.gp_server_era()::text"

// CoordinatorTxn is the coordinator's part of a transaction: a block open in
// its PostgreSQL.
type CoordinatorTxn interface {
	// Wrote says whether this part changed anything.
	Wrote() bool
	// Xid runs XidSQL in it.
	Xid(ctx context.Context) (string, error)
	// Era is what EraSQL says on its connection, at any time.
	Era(ctx context.Context) (string, error)
	// Commit commits it: the decision of the distributed transaction. A
	// *pgconn.PgError that is not FATAL means that it certainly did not
	// commit; after any other error the outcome is asked for.
	Commit(ctx context.Context) error
}

// Begin starts a transaction over all segments. modes is what BEGIN says of
// it, such as "ISOLATION LEVEL REPEATABLE READ READ ONLY". A segment gets its
// BEGIN together with the first statement, unless the isolation level needs
// one snapshot for all: then every segment gets it now. On error there is no
// transaction.
func (g *Gang) Begin(ctx context.Context, modes string) error {
	return g.BeginLocked(ctx, modes, "")
}

// BeginLocked is Begin, but that lock runs on every segment before any snapshot
// is taken: LOCK TABLE statements, which take none, so that what they name
// stays as the snapshots find it; see Lock. An error that is ErrTorn says that it
// may be tried again.
func (g *Gang) BeginLocked(ctx context.Context, modes, lock string) error {
	if err := g.lock(ctx, modes, lock); err != nil {
		return err
	}
	up := strings.ToUpper(modes)
	if strings.Contains(up, "REPEATABLE") || strings.Contains(up, "SERIALIZABLE") {
		if err := g.snapshot(ctx); err != nil {
			// Snapshots of some segments alone must not be used for anything.
			g.rollback(ctx)
			return err
		}
		g.tx.fixed = true
	}
	return nil
}

// BeginToOpen is BeginLocked for a transaction of one statement, which Open opens:
// that takes the snapshots, which readers can have then as well. When it is ErrTorn
// the transaction has failed.
func (g *Gang) BeginToOpen(ctx context.Context, modes, lock string) error {
	err := g.lock(ctx, modes, lock)
	g.tx.opens = err == nil
	return err
}

// lock begins a transaction and runs lock, which may be empty.
func (g *Gang) lock(ctx context.Context, modes, lock string) error {
	if err := g.newTx(modes); err != nil {
		return err
	}
	if lock != "" {
		if err := g.Lock(ctx, lock); err != nil {
			g.rollback(ctx)
			return err
		}
	}
	return nil
}

// newTx notes that a transaction begins, of which the segments hear later.
func (g *Gang) newTx(modes string) error {
	if g.busy.Load() {
		return errBusy()
	}
	if g.tx.active {
		return newError("25001", "there is already a transaction in progress", nil)
	}
	if _, err := g.pick(nil); err != nil {
		return err
	}
	for _, m := range g.members {
		m.forgetTx()
	}
	g.tx = txn{active: true, modes: modes}
	return nil
}

// snapshot takes the transaction's snapshot on all segments at once with
// respect to distributed commits.
func (g *Gang) snapshot(ctx context.Context) error {
	if err := g.ready(ctx, g.members); err != nil {
		return err
	}
	h, err := g.holdReading(ctx, g.members, nil)
	if err != nil {
		return err
	}
	defer h.release()
	_, err = g.Exec(ctx, nil, "SELECT 1")
	if err == nil && h.torn() {
		err = errTorn()
	}
	return err
}

// holdReading keeps commits out while the gang takes its snapshots on ms, unless one of
// its members for which counts is true (nil: any) turns out to wait for a lock, whose
// owner may be one that wants to commit; see torn. A commit that a segment has not carried out yet, for it was lost in the
// middle, is waited for.
func (g *Gang) holdReading(ctx context.Context, ms []*member, counts func(*member) bool) (*hold, error) {
	for {
		h, err := g.latchReading(ctx, counts)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(ms, func(m *member) bool { return !g.d.settled(m.seg.Content) })
		if i < 0 {
			return h, nil
		}
		h.release()
		seg := ms[i].seg
		if err := g.d.waitUntil(ctx, seg, func() bool { return g.d.settled(seg.Content) }); err != nil {
			if ctx.Err() != nil {
				return nil, canceled(ctx)
			}
			return nil, err
		}
	}
}

func (g *Gang) latchReading(ctx context.Context, counts func(*member) bool) (*hold, error) {
	p := &g.d.p
	start := time.Now()
	h, err := g.d.latch.acquire(ctx, reading, p.LatchShared, func() time.Duration {
		if time.Since(start) > p.LatchLimit || g.waiting(counts) {
			return 0
		}
		return p.LatchShared
	})
	if err != nil {
		return nil, canceled(ctx)
	}
	return h, nil
}

// waitsForLock asks the segments whether one of the gang's backends waits for
// a lock. A segment that cannot be asked counts as waiting. Any goroutine may
// call it.
func (g *Gang) waitsForLock() bool { return g.waiting(nil) }

// waiting is waitsForLock for those members for which counts is true; nil: all.
func (g *Gang) waiting(counts func(*member) bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), g.d.p.LatchLimit)
	defer cancel()
	g.mu.Lock()
	pids := maps.Clone(g.backends)
	g.mu.Unlock()
	for m, pid := range pids {
		if counts != nil && !counts(m) {
			continue
		}
		waits, err := g.d.waitsOn(ctx, m.seg, pid)
		if err != nil || waits {
			return true
		}
	}
	return false
}

// Fixed says whether the transaction's snapshots were taken when it began, on
// all segments at once: each of its statements sees the same.
func (g *Gang) Fixed() bool { return g.tx.fixed }

// InTransaction says whether Begin was called and the transaction not ended.
func (g *Gang) InTransaction() bool { return g.tx.active }

// MarkWrite notes that the transaction writes on the segments with those
// content ids, nil = all. It must be called for each statement that may.
func (g *Gang) MarkWrite(segs []int) { g.mark(segs, func(m *member) { m.wrote = true }) }

// MarkNoPrepare notes that the transaction did there what PREPARE TRANSACTION
// refuses, such as using a temporary table. That segment commits in one phase
// after the decision, so a crash in that moment loses its part.
func (g *Gang) MarkNoPrepare(segs []int) {
	g.mark(segs, func(m *member) { m.noPrepare, m.wrote = true, true })
}

// MarkLocked notes that the transaction holds locks on segments which its own
// executors must keep, as they are: LOCK TABLE, SELECT … FOR UPDATE. Share leaves it
// alone then, but for one that is READ ONLY. Outside a transaction it does nothing.
func (g *Gang) MarkLocked() { g.tx.locked = g.tx.active }

func (g *Gang) mark(segs []int, f func(*member)) {
	if ms, err := g.pick(segs); err == nil {
		for _, m := range ms {
			f(m)
		}
	}
}

// Wrote says whether the transaction has been marked as writing anywhere.
func (g *Gang) Wrote() bool {
	for _, m := range g.members {
		if m.wrote {
			return true
		}
	}
	return false
}

// Savepoint sets a savepoint of the transaction on all segments.
func (g *Gang) Savepoint(ctx context.Context, name string) error {
	_, err := g.Exec(ctx, nil, "SAVEPOINT "+catalog.Ident(name))
	if err == nil {
		g.tx.savepoints = append(g.tx.savepoints, name)
	}
	return err
}

// RollbackTo takes back on all segments what the transaction has done since it set the
// last savepoint of that name, which stays.
func (g *Gang) RollbackTo(ctx context.Context, name string) error {
	g.tx.locks = nil // they may go with it
	return g.toSavepoint(ctx, "ROLLBACK TO SAVEPOINT ", name, 1)
}

// Release forgets on all segments the last savepoint of that name and those after it.
func (g *Gang) Release(ctx context.Context, name string) error {
	return g.toSavepoint(ctx, "RELEASE SAVEPOINT ", name, 0)
}

// toSavepoint says verb of a savepoint, which ends those from keep after it on.
func (g *Gang) toSavepoint(ctx context.Context, verb, name string, keep int) error {
	if _, err := g.Exec(ctx, nil, verb+catalog.Ident(name)); err != nil {
		return err
	}
	for i := len(g.tx.savepoints) - 1; i >= 0; i-- {
		if g.tx.savepoints[i] == name {
			g.tx.savepoints = g.tx.savepoints[:i+keep]
			break
		}
	}
	return nil
}

// Failed says whether some segment's part of the transaction is aborted or
// lost, so that it cannot be committed, or its snapshots are torn.
func (g *Gang) Failed() bool { return g.tx.torn || g.failed() != nil }

func (g *Gang) failed() *member {
	for _, m := range g.members {
		if m.lost || m.begun && m.conn != nil && (m.conn.IsClosed() || m.conn.TxStatus() == 'E') {
			return m
		}
	}
	return nil
}

// Rollback ends the transaction on all segments without its changes. A segment
// that cannot be told loses its connection, which has the same effect.
func (g *Gang) Rollback(ctx context.Context) error {
	if g.busy.Load() {
		return errBusy()
	}
	g.rollback(ctx)
	return nil
}

func (g *Gang) rollback(ctx context.Context) {
	var ms []*member
	for _, m := range g.members {
		if m.begun {
			ms = append(ms, m)
		}
	}
	ms = append(ms, g.keeping()...)
	// The session may be rolling back because it was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CancelTimeout)
	defer cancel()
	_ = g.each(ctx, ms, func(_ int, m *member) error {
		if _, err := m.collect(m.conn.Exec(context.Background(), "ROLLBACK"), ""); err != nil {
			m.drop()
		}
		return nil
	})
	g.endTx()
}

// endTx forgets the transaction.
func (g *Gang) endTx() {
	g.tx = txn{}
	for _, m := range g.members {
		m.forgetTx()
	}
}

func (m *member) forgetTx() {
	m.wrote, m.noPrepare, m.lost, m.prepared, m.why = false, false, false, false, nil
}
