package dispatch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// codeSnapshotTaken is the SQLSTATE of the notice by which gp_snapshot_taken() says
// that a statement has its snapshot.
const codeSnapshotTaken = "TL001"

// Together is a statement that changes rows on several segments, in a transaction of
// READ COMMITTED, whose statements take a snapshot each.
type Together struct {
	Segments []int // content ids of those that run it; nil means all
	// Ahead takes the locks that SQL does before its snapshot: EXPLAIN of it, with its
	// parameters. It is not run again in a transaction that has run it for the same
	// Locks on the same segments; "" for what may need other locks each time.
	Ahead, Locks string
	// SQL has (SELECT pg_catalog.gp_snapshot_taken()) in its WHERE. PostgreSQL takes it
	// for a condition that needs to be looked at only once, before any row is.
	SQL           string
	Params        []Param
	ResultFormats []int16
}

// ExecTogether is Gang.ExecParams for a statement whose snapshots are taken together
// on all its segments with respect to distributed commits: none runs until each
// segment has told that it has its own, as long as nobody waits for a lock before
// that. Those of tables are taken before; should it wait for another all the same,
// and others commit meanwhile, the error is ErrTorn, and the transaction cannot go on.
func (g *Gang) ExecTogether(ctx context.Context, st *Together) ([]Result, error) {
	if g.busy.Load() {
		return nil, errBusy()
	}
	ms, err := g.pick(st.Segments)
	if err != nil {
		return nil, err
	}
	if err := g.ahead(ctx, ms, st); err != nil {
		return nil, err
	}
	if err := g.ready(ctx, ms); err != nil {
		return nil, err
	}
	without := make(map[*member]*atomic.Bool, len(ms)) // those that have no snapshot yet
	for _, m := range ms {
		without[m] = new(atomic.Bool)
		without[m].Store(true)
	}
	h, err := g.holdReading(ctx, ms, func(m *member) bool { return without[m] != nil && without[m].Load() })
	if err != nil {
		return nil, err
	}
	o := g.start(ctx, ms)
	var left atomic.Int32
	left.Store(int32(len(ms)))
	results := make([]Result, len(ms))
	values, oids, formats := split(st.Params)
	parallel(len(ms), func(i int) {
		m := ms[i]
		taken := sync.OnceFunc(func() {
			without[m].Store(false)
			if left.Add(-1) > 0 {
				return
			}
			if h.torn() {
				o.fail(errTorn())
			}
			h.release()
		})
		m.onSnapshot = taken
		var b pgconn.Batch
		b.ExecParams(st.SQL, values, oids, formats, st.ResultFormats)
		var err error
		results[i], err = m.collect(m.conn.ExecBatch(context.Background(), &b), "")
		m.onSnapshot = nil
		taken() // it never will, then, or was in no need of one
		o.finish(i, err)
	})
	if err := o.end(); err != nil {
		return nil, err
	}
	return results, nil
}

// ahead takes the locks of a statement, on one segment first as Gang.Lock does.
func (g *Gang) ahead(ctx context.Context, ms []*member, st *Together) error {
	key := fmt.Sprint(st.Segments, st.Locks)
	if st.Locks != "" && g.tx.ahead[key] {
		return nil
	}
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
	if g.tx.ahead == nil {
		g.tx.ahead = map[string]bool{}
	}
	g.tx.ahead[key] = true
	return nil
}
