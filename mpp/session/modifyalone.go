package session

import (
	"errors"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
)

// An UPDATE or DELETE that several segments run has to see one snapshot of them
// all, or its WHERE reads one half of a distributed commit as it is and the other
// as it was. PostgreSQL takes the snapshot of a READ COMMITTED statement that writes
// only when that runs. So outside a block the statement is a transaction of
// REPEATABLE READ, whose snapshots the gang takes together. That fails where
// somebody else changes a row that the statement is to change, which a user of READ
// COMMITTED does not expect. Nothing has come of it then, so it is begun again: in
// a line with others that change the table in the same way, so that it meets none
// of them. The first time it is not in that line, and does not wait for them. The
// victim of a deadlock is begun again, too.

const (
	// aloneTries is how often a statement is begun before it runs as in a block after
	// all: rows that others change all the time would keep it from ever getting
	// through.
	aloneTries = 4
	// aloneLimit is how long it may have run until it is not begun once more: what
	// takes longer is too much work to be done several times.
	aloneLimit = time.Second
	// aloneWait is how long it waits for a lock the first time. Whom it waits for may
	// wait for it on another segment.
	aloneWait = 20 * time.Millisecond
)

// modifyAlone runs a statement of several segments that is a transaction of its
// own. done is false when it has to run as in a block, see modifyTogether: where the
// user may not lock the tables, for he has rights on some columns only, and where
// others change the same rows again and again. errOutdated: meanwhile somebody has
// changed what it was planned with.
func (s *Session) modifyAlone(req *request, m *modification, params []dispatch.Param) (done bool, err error) {
	if err := s.beforeDispatch(req.ctx); err != nil {
		return false, err
	}
	from := append(req.node.GetUpdateStmt().GetFromClause(), req.node.GetDeleteStmt().GetUsingClause()...)
	locks, err := s.steadyLocks(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{FromClause: from}}}, m.r)
	if err != nil {
		return false, err
	}
	level, wanted := s.steadyIsolation()
	st := &dispatch.Alone{Segments: m.Slice.Segments, Isolation: level, Locks: locks,
		SQL: m.Slice.SQL, Params: params, ResultFormats: req.formats}
	of := lineOf{s.client.Database, m.r.OID}
	defer func() {
		if err != nil {
			s.leaveLine() // else it does when the transaction ends
		}
	}()
	if s.srv.lines.formed(of) {
		if err := s.enterLine(req.ctx, of); err != nil {
			return false, err
		}
	} else if s.waits[lockTimeout] == 0 {
		st.LockTimeout = aloneWait
	}
	only := false // nobody else can change the table
	for try, ran := 1, time.Duration(0); ; try++ {
		begun := time.Now()
		res, err := s.gang.ExecAlone(req.ctx, st)
		if ran += time.Since(begun); err == nil {
			if err := s.beginWrite(); err != nil {
				return false, err
			}
			if err := s.markRows(req.ctx, m.r, st.Segments); err != nil {
				return false, err
			}
			s.modified(m, res)
			return true, nil
		}
		torn := errors.Is(err, dispatch.ErrTorn)
		switch code := pgError(err).Code; {
		case req.ctx.Err() != nil:
			return false, err
		case code == "42501":
			return false, nil // if it was not for a lock, the user hears it again
		case code == "55P03" && st.LockTimeout > 0:
			torn = true // it may be a table's
		case code != "40001" && code != "40P01":
			return false, err
		}
		s.dropNotices()
		if s.srv.catalogTick.Load() != s.cache.tick {
			return false, errOutdated
		}
		if st.LockTimeout = 0; s.txn.leave == nil {
			if err := s.enterLine(req.ctx, of); err != nil {
				return false, err
			}
		}
		st.Ahead = st.Ahead || torn
		switch {
		case try < aloneTries && ran < aloneLimit:
		case wanted || only && try >= tornTries:
			return false, err
		case !m.Replicated:
			// Not in the middle of the commit that it has most likely failed for.
			return false, s.gang.AwaitCommits(req.ctx)
		case !only:
			// Copies must stay alike, whatever each segment would see by itself.
			only, st.Ahead, try = true, true, 0
			st.Locks = append(locks, "LOCK TABLE "+m.r.name()+" IN EXCLUSIVE MODE")
		}
	}
}
