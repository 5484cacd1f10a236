package session

import (
	"context"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
)

// txn is what the session knows of its transaction besides the link's status.
type txn struct {
	// implicit: the session opened the link's block itself, for one statement
	// or one query string, and ends it before the client hears of it.
	implicit   bool
	savepoints []string
	// open are the sources of cursors and suspended portals.
	open []*sources
	// temp: a temporary table was used, which no prepared transaction may.
	temp bool
	// settings: parameters were set in it.
	settings bool
	// ddl: relations may look different when it ends.
	ddl bool
	// leave, if not nil, lets go of the line that the session is in.
	leave func()
	// noReaders: a statement of it had to do without them, and so do those after it.
	noReaders bool
	// definer, if not nil, is what others know of it; see definitions.
	definer *definer
	// changed is what it has written.
	changed changes
	// functions: functions of the user's have run, which may have opened
	// cursors.
	functions bool
}

// beginImplicit opens a transaction on the link unless there is one.
func (s *Session) beginImplicit() error {
	switch s.link.status {
	case 'E':
		return errAborted()
	case 'T':
		return nil
	}
	if _, err := s.local("BEGIN"); err != nil {
		return err
	}
	s.txn.implicit = true
	return nil
}

func errAborted() error {
	return sqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}

// beforeDispatch readies the gang for the next thing: in the link's
// transaction, with its savepoints and parameters.
func (s *Session) beforeDispatch(ctx context.Context) error {
	if s.link.status == 'E' {
		return errAborted()
	}
	if err := s.settleSources(); err != nil {
		return err
	}
	if err := s.syncSettings(ctx); err != nil {
		return err
	}
	if err := s.putOffIdle(); err != nil {
		return err
	}
	if s.link.status != 'T' || s.gang.InTransaction() {
		return nil
	}
	modes := ""
	if !s.txn.implicit || s.applied[defaultIsolation] != "read committed" {
		res, err := s.local("SELECT 'ISOLATION LEVEL ' || pg_catalog.upper(pg_catalog.current_setting('transaction_isolation')) || " +
			"CASE WHEN pg_catalog.current_setting('transaction_read_only')::boolean THEN ' READ ONLY' ELSE ' READ WRITE' END")
		if err != nil {
			return err
		}
		modes = string(res.value())
	}
	if err := s.gang.Begin(ctx, modes); err != nil {
		return err
	}
	for _, name := range s.txn.savepoints {
		if err := s.gang.Savepoint(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// settleSources frees the gang from cursors that have not been read.
func (s *Session) settleSources() error {
	for _, set := range s.txn.open {
		if err := set.settle(); err != nil {
			return err
		}
	}
	return nil
}

// endSources forgets the sources of cursors, which end with the transaction.
func (s *Session) endSources() {
	for _, set := range s.txn.open {
		_ = set.close()
	}
	s.txn.open = nil
}

// coordinatorPart is the link's side of a distributed commit.
type coordinatorPart struct {
	s   *Session
	sql string // how the block is ended
	tag string // what the link answered
}

// Wrote says whether the link's transaction has changed anything.
func (c *coordinatorPart) Wrote() bool {
	if c.s.link.status == 'I' && !c.s.link.unsynced {
		return false
	}
	res, err := c.s.local("SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL")
	return err != nil || string(res.value()) == "t"
}

// Xid assigns the transaction id that the decision is known by.
func (c *coordinatorPart) Xid(context.Context) (string, error) {
	if c.s.link.status == 'I' { // only segments took part until now
		if _, err := c.s.local("BEGIN"); err != nil {
			return "", err
		}
	}
	res, err := c.s.local(dispatch.XidSQL)
	if err != nil {
		return "", err
	}
	return string(res.value()), nil
}

// Era is asked for once in a session.
func (c *coordinatorPart) Era(context.Context) (string, error) {
	if c.s.era == "" {
		res, err := c.s.local(dispatch.EraSQL)
		if err != nil {
			return "", err
		}
		c.s.era = string(res.value())
	}
	return c.s.era, nil
}

// Commit ends the link's block.
func (c *coordinatorPart) Commit(context.Context) error {
	if c.s.link.status == 'I' {
		return nil
	}
	res, err := c.s.local(c.sql)
	if err != nil {
		return err
	}
	c.tag = res.tag
	if strings.HasPrefix(res.tag, "ROLLBACK") {
		return sqlError("25P02", "the transaction was rolled back on the coordinator")
	}
	return nil
}

// commit ends the transaction everywhere and returns the link's command tag.
func (s *Session) commit(ctx context.Context, sql string) (tag string, err error) {
	part := &coordinatorPart{s: s, sql: sql}
	// Cursors that outlive the transaction read their sources while the link
	// commits; nobody reads those of the others any more.
	if err = s.closeOpen(func(set *sources) bool { return set.portal }); err == nil {
		err = s.settleSources()
	}
	if err == nil {
		if s.gang.InTransaction() {
			if s.txn.temp {
				s.gang.MarkNoPrepare(nil)
			}
			unhush := s.hush()
			err = s.gang.CommitDistributed(ctx, part)
			unhush()
		} else {
			err = part.Commit(ctx)
		}
	}
	if err != nil {
		s.rollback()
		return "", err
	}
	s.transactionEnded()
	return part.tag, nil
}

// rollback ends the transaction everywhere, whatever state it is in.
func (s *Session) rollback() {
	s.abortGang()
	if s.link.broken == nil && s.link.status != 'I' {
		_, _ = s.local("ROLLBACK")
	}
	s.transactionEnded()
}

func (s *Session) transactionEnded() {
	s.endSources()
	if s.txn.ddl {
		s.catalogChanged()
	}
	s.endDefining()
	if s.txn.settings {
		s.settingsChanged() // SET LOCAL has ended, or SET was rolled back
		s.settingsLost = true
	}
	s.leaveLine()
	s.txn = txn{}
	s.idle.blockEnds()
}

// leaveLine lets the next one in the line have his turn.
func (s *Session) leaveLine() {
	if s.txn.leave != nil {
		s.txn.leave()
		s.txn.leave = nil
	}
}

// finishImplicit ends the block that the session opened itself.
func (s *Session) finishImplicit(ctx context.Context, failed error) error {
	if !s.txn.implicit {
		return nil
	}
	if failed != nil || s.link.status == 'E' {
		s.rollback()
		return nil
	}
	_, err := s.commit(ctx, "COMMIT")
	return err
}

// runTransaction runs BEGIN, COMMIT and their kin.
func (s *Session) runTransaction(req *request, st *pg.TransactionStmt) error {
	ctx := req.ctx
	switch st.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		if s.txn.implicit {
			// The query string goes on as a block of the client's own.
			s.txn.implicit = false
			s.complete("BEGIN")
			return nil
		}
		return s.runLocal(req, req.text)
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		if s.link.status == 'E' {
			s.abortGang()
			err := s.runLocal(req, req.text)
			s.transactionEnded()
			return err
		}
		if s.link.status == 'I' {
			return s.runLocal(req, req.text) // a warning
		}
		tag, err := s.commit(ctx, req.text)
		if err == nil {
			s.complete(tag)
		}
		return err
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		s.abortGang()
		err := s.runLocal(req, req.text)
		s.transactionEnded()
		return err
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		if s.link.status == 'T' {
			if err := s.settleSources(); err != nil {
				return err
			}
		}
		if err := s.runLocal(req, req.text); err != nil {
			return err
		}
		if s.gang.InTransaction() {
			if err := s.gang.Savepoint(ctx, st.SavepointName); err != nil {
				return err
			}
		}
		s.txn.savepoints = append(s.txn.savepoints, st.SavepointName)
		return nil
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO, pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		_ = s.settleSources()
		if err := s.runLocal(req, req.text); err != nil {
			return err
		}
		onGang := s.gang.RollbackTo
		if st.Kind == pg.TransactionStmtKind_TRANS_STMT_RELEASE {
			onGang = s.gang.Release
		} else {
			s.idle.rolledBack()
		}
		if s.gang.InTransaction() {
			if err := onGang(ctx, st.SavepointName); err != nil {
				return err
			}
		}
		if s.txn.ddl {
			s.catalogChanged()
		}
		if s.txn.settings {
			s.settingsChanged()
			s.settingsLost = true
		}
		for i := len(s.txn.savepoints) - 1; i >= 0; i-- {
			if s.txn.savepoints[i] == st.SavepointName {
				keep := i + 1
				if st.Kind == pg.TransactionStmtKind_TRANS_STMT_RELEASE {
					keep = i
				}
				s.txn.savepoints = s.txn.savepoints[:keep]
				break
			}
		}
		return nil
	}
	return sqlError("0A000", "PREPARE TRANSACTION and its kin are not supported: the cluster commits in two phases itself")
}

// abortGang ends the transaction on the segments without its changes. What
// cursors have not read of their slices nobody will: until they are closed the
// segments are not free to roll back.
func (s *Session) abortGang() {
	for _, set := range s.txn.open {
		set.abandon()
	}
	if !s.gang.InTransaction() {
		return
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(s.ctx), cleanupLimit)
	defer done()
	if err := s.gang.Rollback(ctx); err != nil {
		s.log("rollback on the segments", "error", err)
	}
}
