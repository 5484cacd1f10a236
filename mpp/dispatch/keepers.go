package dispatch

import (
	"context"
	"strings"
	"time"
)

// A transaction that has one snapshot for all its statements shares it with readers,
// each of which imports it for the time of a statement. One that is READ ONLY exports it
// when the first readers are wanted. One that may write must not, for PostgreSQL prepares
// no transaction that has exported a snapshot. It imports one itself, from a keeper: one
// more executor on each segment, which does nothing but take the snapshot, in a
// transaction of its own, and keep it. (A reader in its stead would keep the locks of
// what it has read as well, in the way of what the transaction does next.) That can be
// done only at its beginning, and takes as long as a short query: so it is not done when
// the keepers of the last transaction were for nobody, until some statement wants readers.

// isKeeper is the number of a reader that is a keeper.
const isKeeper = -1

const (
	exportSQL = "SELECT pg_catalog.pg_export_snapshot()"
	importSQL = "SET TRANSACTION SNAPSHOT "
	shareSQL  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
)

// oneSnapshot says whether transactions of such modes have one snapshot for all
// statements that others can share. One of SERIALIZABLE does not see what others read.
func (t *txn) oneSnapshot() bool { return strings.Contains(strings.ToUpper(t.modes), "REPEATABLE") }

// readOnly says whether a transaction begins as READ ONLY, which it remains.
func (t *txn) readOnly() bool { return strings.Contains(strings.ToUpper(t.modes), "READ ONLY") }

// ExpectReaders says that a statement wants readers.
func (g *Gang) ExpectReaders() { g.spare = false }

// wantsKeepers says whether the transaction that begins is to have them.
func (g *Gang) wantsKeepers() bool {
	return g.tx.oneSnapshot() && !g.tx.readOnly() && !g.spare
}

// lends says whether the gang's own executors can export the transaction's snapshots.
func (g *Gang) lends() bool { return g.tx.fixed && g.tx.oneSnapshot() && g.tx.readOnly() }

// lend has them do so, if readers have no snapshots yet.
func (g *Gang) lend(ctx context.Context) error {
	if g.Shares() {
		return nil
	}
	res, err := g.Exec(ctx, nil, exportSQL)
	if err != nil {
		return err
	}
	g.tx.snapshots = make(map[Segment]string, len(res))
	for i, m := range g.members {
		g.tx.snapshots[m.seg] = string(res[i].Rows[0][0])
		m.noPrepare = true
	}
	return nil
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

// keep has the keepers take the transaction's snapshots. It is ErrReaders when they
// cannot.
func (g *Gang) keep(ctx context.Context, ks []*member) error {
	ids := make([]string, len(ks))
	err := g.each(ctx, ks, func(i int, k *member) error {
		res, err := k.collect(k.conn.Exec(context.Background(), shareSQL+exportSQL), "")
		if err == nil {
			ids[i] = string(res.Rows[0][0])
		}
		return err
	})
	if err != nil {
		g.leave(ctx, ks)
		return g.without(ctx, err)
	}
	g.tx.snapshots = make(map[Segment]string, len(ks))
	for i, k := range ks {
		g.tx.snapshots[k.seg] = ids[i]
		g.setBackend(k, k.pid) // others may wait for its end
		g.d.noteReader(k, time.Time{})
	}
	return nil
}

// importing is SQL by which a transaction that has begun takes the snapshot of m's
// segment.
func (g *Gang) importing(m *member) string { return importSQL + "'" + g.tx.snapshots[m.seg] + "'" }

// share has readers begin transactions with the gang's snapshots, if that has some.
func (g *Gang) share(ctx context.Context, readers []*member) error {
	if !g.tx.fixed || len(readers) == 0 {
		return nil
	}
	if err := g.lend(ctx); err != nil {
		return err
	}
	err := g.each(ctx, readers, func(_ int, m *member) error {
		_, err := m.collect(m.conn.Exec(context.Background(), shareSQL+g.importing(m)), "")
		return err
	})
	if err == nil {
		g.tx.shared = true
		return nil
	}
	g.leave(ctx, readers)
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
