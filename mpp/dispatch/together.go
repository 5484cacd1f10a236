package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// codeSnapshotTaken is the SQLSTATE of the notice by which gp_snapshot_taken() says
// that a statement has its snapshot.
const codeSnapshotTaken = "TL001"

// beforeTogether is the savepoint to which a statement is taken back.
const beforeTogether = `"?together"`

// Together is a statement that changes rows on several segments, in a transaction of
// READ COMMITTED, whose statements take a snapshot each.
type Together struct {
	Segments []int // content ids of those that run it; nil means all
	// Locks tells the locks that SQL takes before its snapshot, so that one with the
	// same has them already. "": they are other ones each time.
	Locks string
	// Ahead takes these locks: EXPLAIN of SQL, with its parameters.
	Ahead string
	// SQL has (SELECT pg_catalog.gp_snapshot_taken()) in its WHERE. PostgreSQL takes it
	// for a condition that needs to be looked at only once, before any row is.
	SQL           string
	Params        []Param
	ResultFormats []int16
	// Again, if not nil, is called before SQL is run again: what segments have said of
	// it so far is not to be heard of.
	Again func()
}

// ExecTogether is Gang.ExecParams for a statement whose snapshots are taken together
// on all its segments with respect to distributed commits, which wait until each segment
// has told that it has its own. They wait for none that waits for a lock before that:
// then the snapshots are torn if somebody has committed. Locks may be new to the
// transaction when it runs its first statement with them. That is taken back if need be,
// the locks are taken ahead, and it is run again. A statement without Locks takes them
// ahead each time. Should a statement wait for a lock all the same, and its snapshots be
// torn, the error is ErrTorn, and the transaction cannot go on.
func (g *Gang) ExecTogether(ctx context.Context, st *Together) ([]Result, error) {
	if g.busy.Load() {
		return nil, errBusy()
	}
	ms, err := g.pick(st.Segments)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprint(st.Segments, st.Locks)
	first := st.Locks != "" && !g.tx.locks[key]
	if st.Locks == "" {
		if err := g.ahead(ctx, ms, st); err != nil {
			return nil, err
		}
	}
	t := &together{Together: st, ms: ms, undo: first}
	res, err := g.together(ctx, t)
	if first && errors.Is(err, ErrTorn) {
		if err := g.takeBack(ctx, t); err != nil {
			return nil, err
		}
		if err := g.ahead(ctx, ms, st); err != nil {
			return nil, err
		}
		if st.Again != nil {
			st.Again()
		}
		res, err = g.together(ctx, &together{Together: st, ms: ms})
	}
	if err != nil {
		return nil, err
	}
	if first {
		if g.tx.locks == nil {
			g.tx.locks = map[string]bool{}
		}
		g.tx.locks[key] = true
	}
	return res, nil
}

// ahead takes the locks of a statement, on one segment first as Gang.Lock does.
func (g *Gang) ahead(ctx context.Context, ms []*member, st *Together) error {
	for _, part := range [][]*member{ms[:1], ms[1:]} {
		if len(part) == 0 {
			continue
		}
		segs := make([]int, len(part))
		for i, m := range part {
			segs[i] = int(m.seg.Content)
		}
		if _, err := g.ExecParams(ctx, segs, st.Ahead, st.Params, nil); err != nil {
			return err
		}
	}
	return nil
}

// together is one run of a statement.
type together struct {
	*Together
	ms    []*member
	undo  bool   // it can be taken back
	saved []bool // of those that were in the transaction before, which have a savepoint
	left  atomic.Int32
}

// together runs the statement on its segments.
func (g *Gang) together(ctx context.Context, t *together) ([]Result, error) {
	if err := g.ready(ctx, t.ms); err != nil {
		return nil, err
	}
	without := make(map[*member]*atomic.Bool, len(t.ms)) // who has no snapshot yet
	for _, m := range t.ms {
		without[m] = new(atomic.Bool)
		without[m].Store(true)
	}
	h, err := g.holdReading(ctx, t.ms, func(m *member) bool { return without[m] != nil && without[m].Load() })
	if err != nil {
		return nil, err
	}
	t.saved = make([]bool, len(t.ms))
	t.left.Store(int32(len(t.ms)))
	o := g.start(ctx, t.ms)
	results := make([]Result, len(t.ms))
	parallel(len(t.ms), func(i int) {
		m := t.ms[i]
		taken := sync.OnceFunc(func() {
			without[m].Store(false)
			if t.left.Add(-1) > 0 {
				return
			}
			if h.torn() {
				o.fail(errTorn())
			}
			h.release()
		})
		m.onSnapshot = taken
		var err error
		results[i], err = m.collect(m.conn.ExecBatch(context.Background(), t.batch(i)), "")
		m.onSnapshot = nil
		o.finish(i, err)
		taken() // it never will, then, or was in no need of one
	})
	return results, o.end()
}

// batch is what one segment gets.
func (t *together) batch(i int) *pgconn.Batch {
	var b pgconn.Batch
	switch m := t.ms[i]; {
	case !m.begun:
		b.ExecParams(m.g.tx.beginSQL(), nil, nil, nil, nil)
	case t.undo:
		t.saved[i] = true
		b.ExecParams("SAVEPOINT "+beforeTogether, nil, nil, nil, nil)
	}
	values, oids, formats := split(t.Params)
	b.ExecParams(t.SQL, values, oids, formats, t.ResultFormats)
	return &b
}

// takeBack undoes a run. Its savepoints stay: they are in nobody's way, and there is one
// more only for each of a transaction's Locks.
func (g *Gang) takeBack(ctx context.Context, t *together) error {
	if err := g.ready(ctx, t.ms); err != nil {
		return err // one is lost, and its part of the transaction
	}
	return g.each(ctx, t.ms, func(i int, m *member) error {
		sql := "ROLLBACK"
		switch {
		case t.saved[i]:
			sql = "ROLLBACK TO SAVEPOINT " + beforeTogether
		case !m.begun:
			return nil
		}
		_, err := m.collect(m.conn.Exec(context.Background(), sql), "")
		if err == nil {
			m.why = nil
		}
		return err
	})
}
