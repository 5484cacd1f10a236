package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Alone is a statement that changes rows on several segments and is all that its
// transaction does before it commits.
type Alone struct {
	Segments []int // content ids of those that run it; nil means all
	// Isolation is REPEATABLE READ or SERIALIZABLE: with less the statement would
	// take a snapshot of its own on each segment.
	Isolation string
	// Locks are LOCK TABLE statements that keep what SQL names as its snapshots find
	// it; they run before.
	Locks []string
	// LockTimeout is how long it may wait for each lock, in whole milliseconds; then
	// it fails with 55P03. 0: as the session has it.
	LockTimeout time.Duration
	// Ahead has the locks taken before anything else, on one segment first, as
	// Gang.BeginLocked does: for a statement that has waited for one of them, so
	// that its snapshots were torn. It costs two round trips.
	Ahead         bool
	SQL           string
	Params        []Param
	ResultFormats []int16
}

// ExecAlone begins a transaction and runs a statement in it that sees one
// snapshot of all its segments: as Gang.Exec after Gang.BeginLocked would, but
// each segment gets all of it in one message, and tells when it has taken its
// snapshot. On success the transaction is open, marked as one that writes on the
// segments. On error there is none. ErrTorn, and 40001 because a row was changed
// by another transaction meanwhile, say that it may be tried again.
func (g *Gang) ExecAlone(ctx context.Context, st *Alone) ([]Result, error) {
	if err := g.newTx("ISOLATION LEVEL " + st.Isolation); err != nil {
		return nil, err
	}
	g.MarkWrite(st.Segments)
	res, err := g.execAlone(ctx, st)
	if err != nil {
		g.rollback(ctx)
		return nil, err
	}
	return res, nil
}

func (g *Gang) execAlone(ctx context.Context, st *Alone) ([]Result, error) {
	ms, err := g.pick(st.Segments)
	if err != nil {
		return nil, err
	}
	if err := g.ready(ctx, ms); err != nil {
		return nil, err
	}
	if st.Ahead && len(st.Locks) > 0 {
		for _, segs := range [][]int{{int(ms[0].seg.Content)}, st.Segments} {
			if _, err := g.Exec(ctx, segs, strings.Join(st.Locks, "; ")); err != nil {
				return nil, err
			}
		}
	}
	h, err := g.holdReading(ctx, ms, nil)
	if err != nil {
		return nil, err
	}
	o := g.start(ctx, ms)
	var without atomic.Int32 // segments without a snapshot
	without.Store(int32(len(ms)))
	results := make([]Result, len(ms))
	parallel(len(ms), func(i int) {
		taken := sync.OnceFunc(func() {
			if without.Add(-1) > 0 {
				return
			}
			if h.torn() {
				o.fail(errTorn())
			}
			h.release()
		})
		var err error
		results[i], err = ms[i].execAlone(st, taken)
		taken() // it never will, then
		o.finish(i, err)
	})
	if err := o.end(); err != nil {
		return nil, err
	}
	return results, nil
}

// AwaitCommits waits until distributed commits under way are done on all
// segments, within the limits of the latch.
func (g *Gang) AwaitCommits(ctx context.Context) error {
	ms, err := g.pick(nil)
	if err != nil {
		return err
	}
	h, err := g.holdReading(ctx, ms, nil)
	h.release()
	return err
}

// execAlone is the part of one segment. taken is called when its snapshot is
// there: PostgreSQL needs one to analyze an UPDATE or DELETE, and a transaction
// of such isolation keeps its first. So it has answered Parse then, which the
// Flush behind that makes it say before it goes on.
func (m *member) execAlone(st *Alone, taken func()) (res Result, err error) {
	res.Seg = int(m.seg.Content)
	p := m.conn.StartPipeline(context.Background())
	var before []string
	if !m.begun {
		before = append(before, m.g.tx.beginSQL())
		if st.LockTimeout > 0 {
			before = append(before, fmt.Sprintf("SET LOCAL lock_timeout = %d", st.LockTimeout.Milliseconds()))
		}
		before = append(before, st.Locks...)
	}
	for _, sql := range before {
		p.SendQueryParams(sql, nil, nil, nil, nil)
	}
	values, oids, formats := split(st.Params)
	p.SendPrepare("", st.SQL, oids)
	p.SendFlushRequest()
	p.SendQueryPrepared("", values, formats, st.ResultFormats)
	err = p.Sync()
	for range before {
		if err == nil {
			err = finishResult(p, nil)
		}
	}
	if err == nil {
		_, err = p.GetResults()
	}
	if err == nil {
		taken()
		err = finishResult(p, &res)
	}
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	m.noteStatus()
	if err != nil {
		return res, m.fail(err, 0, "")
	}
	return res, nil
}

// finishResult reads the next result of a pipeline to its end, into res unless
// that is nil.
func finishResult(p *pgconn.Pipeline, res *Result) error {
	r, err := p.GetResults()
	if err != nil {
		return err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return errors.New("a statement without a result")
	}
	if res != nil {
		res.read(rr)
	}
	tag, err := rr.Close()
	if res != nil {
		res.Tag = tag
	}
	return err
}
