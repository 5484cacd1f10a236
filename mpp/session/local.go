package session

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
)

// runLocal runs a statement on the coordinator's PostgreSQL and passes on what
// it answers. From the extended protocol it runs the portal that is bound
// there already.
func (s *Session) runLocal(req *request, text string) error {
	if req.portal != nil && !req.portal.rewritten {
		return s.executePortal(req.portal)
	}
	if req.portal != nil {
		return s.runExtended(text, req, func(m pgproto3.BackendMessage) { s.out.send(m) })
	}
	s.unnamedLost = true
	if err := s.keepWork(req); err != nil {
		return err
	}
	s.link.send(&pgproto3.Query{String: text})
	if err := s.link.flush(); err != nil {
		return err
	}
	return s.pass()
}

// keepWork keeps what earlier messages of the same batch did on the link in one
// transaction with what follows, unless that is a matter of transactions itself.
func (s *Session) keepWork(req *request) error {
	if req.node.GetTransactionStmt() != nil || outsideTransaction(req.node) {
		return nil
	}
	return s.link.keepWork()
}

// pass hands the link's messages on to the client up to ReadyForQuery. The
// CommandComplete is held back, an error is returned instead of sent.
func (s *Session) pass() error {
	var failed error
	stopped := false
	for {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CommandComplete:
			s.complete(string(m.CommandTag))
		case *pgproto3.EmptyQueryResponse:
			s.out.send(m)
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return failed
		case *pgproto3.CopyInResponse:
			s.out.send(m)
			if err := s.passCopyIn(); err != nil {
				return err
			}
		case *pgproto3.ParseComplete, *pgproto3.BindComplete, *pgproto3.NoData, *pgproto3.ParameterDescription, *pgproto3.CloseComplete:
		default:
			s.out.send(m)
		}
		s.stopIfGone(&stopped)
	}
}

// stopIfGone cancels what the link runs, once, when its client is gone: a long
// result should not run on.
func (s *Session) stopIfGone(stopped *bool) {
	if s.out.err != nil && !*stopped {
		*stopped = true
		_ = s.link.cancel(context.WithoutCancel(s.ctx))
	}
}

// functionCall runs a call of the protocol's oldest kind, by which libpq handles
// large objects. They are the coordinator's.
func (s *Session) functionCall(m *pgproto3.FunctionCall) {
	ctx, end := s.statementContext()
	defer end()
	err := s.fromClient(m)
	if err == nil {
		err = s.passCall(ctx, m)
	}
	if ferr := s.finishImplicit(ctx, err); err == nil {
		err = ferr
	}
	if refused := s.out.refusal(); refused != nil {
		err = refused
	}
	if err != nil {
		if s.fail(ctx, err); s.link.broken != nil {
			return
		}
	}
	s.out.send(&pgproto3.ReadyForQuery{TxStatus: s.link.status})
	s.out.flush()
}

// passCall passes a call on. One of the user's functions is watched.
func (s *Session) passCall(ctx context.Context, m *pgproto3.FunctionCall) error {
	done, err := s.shadowReads(ctx, &functionReads{calls: m.Function >= firstNormalOID})
	if err != nil {
		return err
	}
	s.link.send(m)
	if err := s.link.flush(); err != nil {
		return err
	}
	return done(s.pass())
}

// passCopyIn hands a client's COPY data to the link.
func (s *Session) passCopyIn() error {
	s.out.flush()
	for n := 0; ; {
		m, err := s.receive()
		if err != nil {
			s.link.send(&pgproto3.CopyFail{Message: "the client has gone"})
			_ = s.link.flush()
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			s.link.send(m)
			if n += len(m.Data); n >= flushBytes {
				n = 0
				if err := s.link.flush(); err != nil {
					return err
				}
			}
		case *pgproto3.CopyDone:
			s.link.send(m)
			return s.link.flush()
		case *pgproto3.CopyFail:
			_ = s.fromClient(m) // as much of it as can be read
			s.link.send(m)
			return s.link.flush()
		case *pgproto3.Flush, *pgproto3.Sync: // ignored while copying in
		default:
			s.link.send(&pgproto3.CopyFail{Message: "unexpected message during COPY from stdin"})
			return s.link.flush()
		}
	}
}

// runExtended runs one statement with parameters on the link as its unnamed
// statement; emit is given RowDescription (when asked for) and DataRows.
func (s *Session) runExtended(sql string, req *request, emit func(pgproto3.BackendMessage)) error {
	s.unnamedLost = true
	if err := s.keepWork(req); err != nil {
		return err
	}
	s.link.send(&pgproto3.Parse{Query: sql, ParameterOIDs: req.types}, bindParams(req.params, req.formats))
	if req.describe {
		s.link.send(&pgproto3.Describe{ObjectType: 'P'})
	}
	s.link.send(&pgproto3.Execute{})
	if s.analyzing() != nil {
		// In a block the server would tell how it went only when the next
		// statement takes the portal's place.
		s.link.send(&pgproto3.Close{ObjectType: 'P'})
	}
	s.link.send(&pgproto3.Sync{})
	if err := s.link.flush(); err != nil {
		return err
	}
	var failed error
	stopped := false
	for {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		s.stopIfGone(&stopped)
		switch m := m.(type) {
		case *pgproto3.RowDescription, *pgproto3.DataRow:
			emit(m)
		case *pgproto3.CommandComplete:
			s.complete(string(m.CommandTag))
		case *pgproto3.ErrorResponse:
			pe := pgconn.ErrorResponseToPgError(m)
			if sql != req.text {
				pe.Position = 0 // one in a text that the client does not know
			}
			failed = pe
		case *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

func bindParams(params []dispatch.Param, formats []int16) *pgproto3.Bind {
	b := &pgproto3.Bind{ResultFormatCodes: formats}
	for _, p := range params {
		b.ParameterFormatCodes = append(b.ParameterFormatCodes, p.Format)
		b.Parameters = append(b.Parameters, p.Value)
	}
	return b
}
