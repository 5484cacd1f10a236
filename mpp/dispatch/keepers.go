package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// A transaction that has one snapshot for all its statements shares it with readers,
// each of which imports it for the time of a statement. One that is READ ONLY exports it
// itself, when the first readers are wanted. One that may write must not, for PostgreSQL
// prepares no transaction that has exported a snapshot. But as long as it has not
// written it can be handed over to itself: keepers, one more executor on each segment,
// import what it exports and export it again; the gang's own executors then commit (a
// rollback would take parameters back that were set in it), begin anew, and import it
// from them. A keeper does nothing but keep the snapshot until the transaction ends. (A
// reader in its stead would keep the locks of what it has read, in the way of what the
// transaction does next.)
//
// The transaction takes its savepoints along, and its locks. While it is without them
// the keepers have them, so that nobody comes in between. Nobody waits for a lock in that:
// where somebody else does for one of them, which the keepers try first, there are no
// readers. Who comes only then, in a millisecond, makes the transaction fail (40001).

// isKeeper is the number of a reader that is a keeper.
const isKeeper = -1

const (
	exportSQL = "SELECT pg_catalog.pg_export_snapshot()"
	importSQL = "SET TRANSACTION SNAPSHOT "
	shareSQL  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
	lockSQL   = "SAVEPOINT locks; "             // before a keeper takes locks
	unlockSQL = "ROLLBACK TO SAVEPOINT locks; " // has it let go of them
)

// heldSQL says whether a transaction has more than locks of relations, such as an id,
// which it has when it has written or locked rows, and what takes its locks of tables
// again. Of temporary tables nobody else wants any; those of catalogs are for a moment.
const heldSQL = `SELECT pg_catalog.bool_or(l.locktype NOT IN ('relation', 'virtualxid')), pg_catalog.string_agg(
	'LOCK TABLE ONLY ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) || ' IN ' ||
	pg_catalog.regexp_replace(pg_catalog.left(l.mode, -4), '([a-z])([A-Z])', E'\\1 \\2', 'g') || ' MODE NOWAIT; ', '')
	FROM pg_catalog.pg_locks l
	LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'pg_catalog')
	ON l.locktype = 'relation' AND c.oid = l.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
	WHERE l.pid = pg_catalog.pg_backend_pid()`

// oneSnapshot says whether transactions of such modes have one snapshot for all
// statements that others can share. One of SERIALIZABLE does not see what others read.
func (t *txn) oneSnapshot() bool { return strings.Contains(strings.ToUpper(t.modes), "REPEATABLE") }

// readOnly says whether a transaction begins as READ ONLY, which it remains.
func (t *txn) readOnly() bool { return strings.Contains(strings.ToUpper(t.modes), "READ ONLY") }

// canShare says whether the transaction's snapshots can be shared as long as it has not
// written.
func (t *txn) canShare() bool { return t.fixed && t.oneSnapshot() && (t.readOnly() || !t.locked) }

// releaseSQL leaves the savepoints, saveSQL sets them again. A name that is there twice
// is that of the last one.
func (t *txn) releaseSQL() string {
	if len(t.savepoints) == 0 {
		return ""
	}
	n := 0
	for _, name := range t.savepoints {
		if name == t.savepoints[0] {
			n++
		}
	}
	return strings.Repeat("RELEASE SAVEPOINT "+catalog.Ident(t.savepoints[0])+"; ", n)
}

func (t *txn) saveSQL() (sql string) {
	for _, name := range t.savepoints {
		sql += "SAVEPOINT " + catalog.Ident(name) + "; "
	}
	return sql
}

// Share has readers be able to have the transaction's snapshots, if they cannot yet and
// ReadersSee; it comes before Open with slices of readers. ErrReaders says that
// they cannot, and that the transaction goes on without. Parameters that were set in it,
// or since a savepoint, may be set for good on the segments from then on.
func (g *Gang) Share(ctx context.Context) error {
	switch {
	case g.busy.Load():
		return errBusy()
	case g.Shares() || !g.ReadersSee():
		return nil
	case g.tx.readOnly():
		ids, err := g.export(ctx)
		if err != nil {
			return err
		}
		g.noteSnapshots(ids)
		for _, m := range g.members {
			m.noPrepare = true
		}
		return nil
	}
	return g.handOver(ctx)
}

func (g *Gang) noteSnapshots(ids []string) {
	g.tx.snapshots = make(map[Segment]string, len(ids))
	for i, m := range g.members {
		g.tx.snapshots[m.seg] = ids[i]
	}
}

// handOver has the transaction go on with snapshots that keepers have.
func (g *Gang) handOver(ctx context.Context) error {
	locks, err := g.held(ctx)
	if err != nil {
		return err
	}
	ks, err := g.keepers(ctx)
	if err != nil {
		return err
	}
	if err := g.tryLocks(ctx, ks, locks); err != nil {
		return err
	}
	ids, err := g.export(ctx)
	if err != nil {
		return err
	}
	g.tx.exported = true
	if ids, err = g.keep(ctx, ks, ids, locks); err != nil {
		return err
	}
	if err := g.beginAnew(ctx, ids, locks); err != nil {
		return err
	}
	return g.unlock(ctx, ks, locks)
}

// held is what takes the locks of the transaction on each segment again. It is
// ErrReaders where it has more than that.
func (g *Gang) held(ctx context.Context) ([]string, error) {
	res, err := g.Exec(ctx, nil, heldSQL)
	if err != nil {
		return nil, err
	}
	locks := make([]string, len(res))
	for i, r := range res {
		if string(r.Rows[0][0]) == "t" {
			return nil, errReaders(newError(codeInUse, fmt.Sprintf("the transaction has more than a snapshot on seg%d", r.Seg), nil))
		}
		locks[i] = string(r.Rows[0][1])
	}
	return locks, nil
}

// keepers has the members' keepers connected. It is ErrReaders where they are not to be
// had.
func (g *Gang) keepers(ctx context.Context) ([]*member, error) {
	ks := make([]*member, len(g.members))
	for i, m := range g.members {
		if m.keeper == nil {
			m.keeper = &member{g: g, seg: m.seg, reader: isKeeper}
		}
		ks[i] = m.keeper
	}
	return ks, g.readyReaders(ctx, ks)
}

// some says whether there are any locks.
func some(locks []string) bool {
	return slices.ContainsFunc(locks, func(sql string) bool { return sql != "" })
}

// tryLocks has the keepers take locks for a moment. It is ErrReaders where one of them
// would have to be waited for.
func (g *Gang) tryLocks(ctx context.Context, ks []*member, locks []string) error {
	if !some(locks) {
		return nil
	}
	err := g.each(ctx, ks, func(i int, k *member) error {
		_, err := k.collect(k.conn.Exec(context.Background(), "BEGIN; "+locks[i]+"COMMIT"), "")
		return err
	})
	if err != nil {
		g.leave(ctx, ks)
	}
	return g.without(ctx, err)
}

// export has the gang's own executors export the transaction's snapshots. PostgreSQL
// does so outside of savepoints only.
func (g *Gang) export(ctx context.Context) ([]string, error) {
	ids := make([]string, len(g.members))
	err := g.whole(ctx, g.members, func(ctx context.Context, i int, m *member) error {
		res, err := m.collect(m.conn.Exec(ctx, g.tx.releaseSQL()+exportSQL), "")
		if err != nil {
			return err
		}
		ids[i] = string(res.Rows[0][0])
		if len(g.tx.savepoints) > 0 {
			err = m.simple(ctx, g.forget+g.tx.saveSQL()+g.tell, "")
		}
		return err
	})
	return ids, err
}

// whole runs f for executors. The user's cancel, which would leave the transaction
// without its savepoints, or itself, is not heeded until that is done; it does not wait
// for anybody.
func (g *Gang) whole(ctx context.Context, ms []*member, f func(ctx context.Context, i int, m *member) error) error {
	if err := g.ready(ctx, ms); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.d.p.CancelTimeout)
	defer cancel()
	errs := make([]error, len(ms))
	parallel(len(ms), func(i int) { errs[i] = f(ctx, i, ms[i]) })
	return worst(ctx, errs)
}

// keep has the keepers take over snapshots and locks, and returns the names that the
// snapshots have then. It is ErrReaders when they cannot.
func (g *Gang) keep(ctx context.Context, ks []*member, ids, locks []string) ([]string, error) {
	kept := make([]string, len(ks))
	err := g.each(ctx, ks, func(i int, k *member) error {
		res, err := k.collect(k.conn.Exec(context.Background(), shareSQL+importing(ids[i])+exportSQL), "")
		if err != nil {
			return err
		}
		kept[i] = string(res.Rows[0][0])
		if locks[i] != "" {
			err = k.simple(context.Background(), lockSQL+locks[i], "")
		}
		return err
	})
	if err != nil {
		g.leave(ctx, ks)
		return nil, g.without(ctx, err)
	}
	for _, k := range ks {
		g.setBackend(k, k.pid) // others may wait for its end
		g.d.noteReader(k, time.Time{})
	}
	return kept, nil
}

// unlock has the keepers let go of the locks. It is ErrReaders when one is lost.
func (g *Gang) unlock(ctx context.Context, ks []*member, locks []string) error {
	if !some(locks) {
		return nil
	}
	err := g.whole(ctx, ks, func(ctx context.Context, i int, k *member) error {
		if locks[i] == "" {
			return nil
		}
		return k.simple(ctx, unlockSQL, "")
	})
	if err != nil {
		g.leave(ctx, g.keeping()) // or they would be in the transaction's way
		g.tx.snapshots = nil
		return errReaders(err)
	}
	return nil
}

// beginAnew begins the transaction once more, with the snapshots that the keepers have.
func (g *Gang) beginAnew(ctx context.Context, ids, locks []string) error {
	err := g.whole(ctx, g.members, func(ctx context.Context, i int, m *member) error {
		_, err := m.collect(m.conn.Exec(ctx, g.forget+"COMMIT; "+g.tx.beginSQL()+"; "+locks[i]+importing(ids[i])+g.tx.saveSQL()+g.tell), "")
		return err
	})
	if err == nil {
		g.noteSnapshots(ids)
		g.tx.exported = false
		return nil
	}
	g.tx.torn = true
	var e *Error
	if !errors.As(err, &e) || e.Lost {
		return err
	}
	again := newError("40001", "could not go on with the transaction's snapshot when readers were to have it, too", err)
	again.Detail, again.Hint = err.Error(), "Run the transaction again."
	return again
}

// errExported is the failure to prepare a transaction that was not handed over when it
// had exported its snapshots.
func errExported() error {
	e := newError("40001", "could not prepare the transaction: its snapshot was to be shared with readers, which has failed", nil)
	e.Hint = "Run the transaction again."
	return e
}

// importing is SQL by which a transaction that has begun takes a snapshot.
func importing(id string) string { return importSQL + "'" + id + "'; " }

// share has readers begin transactions with the gang's snapshots, if that has some.
func (g *Gang) share(ctx context.Context, readers []*member) error {
	if !g.tx.fixed || len(readers) == 0 {
		return nil
	}
	err := g.each(ctx, readers, func(_ int, m *member) error {
		_, err := m.collect(m.conn.Exec(context.Background(), shareSQL+importing(g.tx.snapshots[m.seg])), "")
		return err
	})
	if err != nil {
		g.leave(ctx, readers)
	}
	return g.without(ctx, err) // the keeper is lost, most likely
}

// leave ends what transactions readers have begun.
func (g *Gang) leave(ctx context.Context, readers []*member) {
	parallel(len(readers), func(i int) {
		if m := readers[i]; m.begun {
			g.finishReader(ctx, m)
		}
	})
}

// keeping are the keepers that the transaction has. They end with it.
func (g *Gang) keeping() (ks []*member) {
	for _, m := range g.members {
		if k := m.keeper; k != nil && k.begun {
			g.setBackend(k, 0)
			g.d.noteReader(k, time.Now().Add(g.d.p.ReaderIdle))
			ks = append(ks, k)
		}
	}
	return ks
}
