package session

import (
	"context"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// simpleQuery answers a query string. Its statements are one transaction
// unless they say otherwise, as in PostgreSQL.
func (s *Session) simpleQuery(m *pgproto3.Query) {
	ctx, end := s.statementContext()
	defer end()
	err := s.fromClient(m)
	if err == nil {
		err = s.runString(ctx, m.String)
	}
	if ferr := s.finishImplicit(ctx, err); err == nil {
		err = ferr
	}
	if err != nil {
		s.pending = nil
		if s.fail(ctx, err); s.link.broken != nil {
			return // without ReadyForQuery, which would say that all is well
		}
	}
	if err := s.followEncoding(); err != nil {
		s.pending = nil
		if s.fail(ctx, err); s.link.broken != nil {
			return
		}
	}
	s.flushPending()
	s.out.send(&pgproto3.ReadyForQuery{TxStatus: s.link.status})
	s.out.flush()
}

// fail reports an error and makes the client's transaction block, if it is in
// one, a failed one.
func (s *Session) fail(ctx context.Context, err error) {
	if ctx.Err() != nil && s.ctx.Err() == nil {
		if pe := pgError(err); pe.Code != "57014" {
			err = context.Canceled
		}
	}
	if s.ctx.Err() != nil {
		err = errShutdown()
	}
	if s.terminated.Load() && s.link.broken == nil {
		s.link.fail(errShutdown())
	}
	if s.link.broken != nil {
		return // the session ends with a FATAL of its own
	}
	s.passNotices()
	s.out.send(errorResponse(pgError(err)))
	s.poison()
	if s.link.status == 'E' && len(s.txn.savepoints) == 0 {
		// Nothing of it is left, and its locks are in the way of others. What a
		// savepoint keeps has them still.
		s.abortGang()
	}
}

func (s *Session) runString(ctx context.Context, sql string) error {
	pieces, err := plan.Split(sql)
	if err != nil {
		return err
	}
	if len(pieces) == 0 {
		s.out.send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	for i, p := range pieces {
		s.flushPending()
		if err := ctx.Err(); err != nil {
			return err
		}
		stmt, err := s.parseOnce(p.Text)
		if err == nil {
			req := &request{ctx: ctx, stmt: stmt, text: stmt.SQL, node: stmt.Node, describe: true, last: i == len(pieces)-1}
			if len(pieces) > 1 && stmt.Node.GetTransactionStmt() == nil && s.link.status == 'I' && !outsideTransaction(stmt.Node) {
				err = s.beginImplicit()
			}
			if err == nil {
				err = s.run(req)
			}
			if refused := s.out.refusal(); refused != nil {
				err = refused
			}
			if err == nil {
				err = s.followEncoding()
			}
		}
		if err != nil {
			return shiftPosition(err, p.Offset)
		}
	}
	return nil
}

// shiftPosition makes an error's position one in the whole query string.
func shiftPosition(err error, offset int) error {
	pe := pgError(err)
	if offset == 0 || pe.Position == 0 {
		return err
	}
	moved := *pe
	moved.Position += int32(offset)
	return &moved
}

// run runs one statement.
func (s *Session) run(req *request) error {
	if s.link.status == 'E' && !endsFailedBlock(req.node) {
		return errAborted()
	}
	if req.node == nil {
		return s.runGreenplumOnly(req)
	}
	if s.link.status == 'I' && !s.txn.implicit {
		s.txn.temp = false
	}
	s.freshCache()
	if q := s.quick(req); q != nil {
		req.quick = q
		return s.runPlanned(req, q.query)
	}
	sets, err := plan.CheckSetConfig(req.node, checkSetting)
	if err != nil {
		return err
	}
	if req.portal == nil && plan.RewriteSettings(req.node) {
		if req.text, err = plan.Deparse(req.node); err != nil {
			return err
		}
	}
	if sets {
		defer s.settingsChanged()
	}
	switch n := req.node.Node.(type) {
	case *pg.Node_SelectStmt:
		if n.SelectStmt.IntoClause != nil {
			return s.runSelectInto(req, n.SelectStmt)
		}
		return s.runSelect(req, req.node)
	case *pg.Node_InsertStmt:
		return s.runInsert(req, n.InsertStmt)
	case *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		return s.runModify(req)
	case *pg.Node_CopyStmt:
		return s.runCopy(req, n.CopyStmt)
	case *pg.Node_TransactionStmt:
		return s.runTransaction(req, n.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		return s.runSet(req, n.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		return s.runShow(req, n.VariableShowStmt)
	case *pg.Node_ExplainStmt:
		return s.runExplain(req)
	case *pg.Node_DeclareCursorStmt:
		return s.runDeclare(req)
	case *pg.Node_PrepareStmt:
		return s.runPrepare(req, n.PrepareStmt)
	case *pg.Node_ExecuteStmt:
		return s.runExecute(req, n.ExecuteStmt)
	case *pg.Node_DeallocateStmt:
		return s.runDeallocate(req, n.DeallocateStmt)
	case *pg.Node_CreateTableAsStmt:
		return s.runCreateAs(req, n.CreateTableAsStmt)
	case *pg.Node_DoStmt, *pg.Node_CallStmt:
		defer s.settingsChanged()
		return s.runProcedure(req)
	case *pg.Node_FetchStmt:
		return s.cursorError(s.runFetch(req))
	case *pg.Node_SecLabelStmt:
		if n.SecLabelStmt.Provider == policyProvider {
			return s.runPolicyLabel(req, n.SecLabelStmt)
		}
	case *pg.Node_ClosePortalStmt:
		return s.runClose(req, n.ClosePortalStmt)
	case *pg.Node_ListenStmt, *pg.Node_UnlistenStmt, *pg.Node_NotifyStmt,
		*pg.Node_AlterSystemStmt:
		return s.runLocal(req, req.text)
	case *pg.Node_ConstraintsSetStmt:
		return s.runSetConstraints(req)
	}
	return s.runUtility(req)
}

// endsFailedBlock says whether a statement may run in a failed block.
func endsFailedBlock(n *pg.Node) bool {
	t := n.GetTransactionStmt()
	if t == nil {
		return false
	}
	switch t.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		return true
	}
	return false
}
