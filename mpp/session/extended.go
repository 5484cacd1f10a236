package session

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// prepared is a statement of the extended protocol. It stands on the link
// under the same name, rewritten so that the local server can describe it.
type prepared struct {
	text  string // the client's
	stmt  *plan.Statement
	local string   // what the link was given
	given []uint32 // parameter types the client named
	types []uint32 // as described; nil until known
	// rewritten says that running the link's statement is not running the
	// client's.
	rewritten bool
	tick      uint64   // of the catalog that localForm saw
	path      uint64   // of the names that it saw
	typeNames []string // of types, when EXECUTE has asked for them
}

// extended handles one message of the extended protocol.
func (s *Session) extended(m pgproto3.FrontendMessage) {
	if _, ok := m.(*pgproto3.Sync); ok {
		s.sync()
		return
	}
	if s.skipToSync {
		return
	}
	s.inBatch = true
	defer func() { s.inBatch = false }()
	ctx, end := s.statementContext()
	defer end()
	err := s.fromClient(m)
	if err == nil {
		err = s.extendedMessage(ctx, m)
	}
	if refused := s.out.refusal(); refused != nil {
		err = refused
	}
	if err == nil {
		err = s.followEncoding()
	}
	if err != nil {
		s.skipToSync = true
		s.pending = nil
		s.fail(ctx, err)
		if s.txn.implicit {
			s.rollback()
		} else if s.link.unsynced {
			// What the batch has done on the link until now must go too.
			s.link.send(&pgproto3.Execute{Portal: "trunkline: the batch has failed"})
			_ = s.expect()
		}
	}
}

// extendedMessage does what a message asks for.
func (s *Session) extendedMessage(ctx context.Context, m pgproto3.FrontendMessage) (err error) {
	switch m := m.(type) {
	case *pgproto3.Parse:
		s.flushPending()
		err = s.parse(m)
	case *pgproto3.Bind:
		s.flushPending()
		err = s.bind(m)
	case *pgproto3.Describe:
		s.flushPending()
		if m.ObjectType == 'S' {
			err = s.refresh(m.Name)
		}
		if err == nil {
			s.link.send(m)
			err = s.expect()
		}
	case *pgproto3.Close:
		s.flushPending()
		s.forget(m)
		s.link.send(m)
		err = s.expect()
	case *pgproto3.Execute:
		s.flushPending()
		if err = s.expectRows(m.Portal); err == nil {
			err = s.execute(ctx, m)
		}
	case *pgproto3.Flush:
		s.flushPending()
		s.out.flush()
	default:
		err = sqlError("08P01", "invalid frontend message type %T", m)
	}
	return err
}

// sync ends a batch: the implicit transaction is over.
func (s *Session) sync() {
	ctx, end := s.statementContext()
	defer end()
	var err error
	if s.skipToSync {
		err = context.Canceled // an error was reported: roll back
	}
	if ferr := s.finishImplicit(ctx, err); ferr != nil {
		s.pending = nil
		s.fail(ctx, ferr)
	}
	s.skipToSync = false
	s.flushPending()
	s.link.send(&pgproto3.Sync{})
	if s.link.flush() != nil {
		return // the session ends with a FATAL of its own
	}
	for {
		m, err := s.link.receive()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			break
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok {
			s.out.send(e)
		}
	}
	if s.link.status == 'I' {
		for name, p := range s.portl {
			s.closePortal(p)
			delete(s.portl, name)
		}
	}
	if err := s.followEncoding(); err != nil {
		s.fail(ctx, err)
	}
	s.out.send(&pgproto3.ReadyForQuery{TxStatus: s.link.status})
	s.out.flush()
}

// expect passes on the link's answer to what was just sent: one message, but
// for Describe of a statement, which has two.
func (s *Session) expect() error {
	return s.expectOne(func(m pgproto3.BackendMessage) { s.out.send(m) })
}

// expectOne is expect for answers that are not only passed on.
func (s *Session) expectOne(pass func(pgproto3.BackendMessage)) error {
	s.link.send(&pgproto3.Flush{})
	if err := s.link.flush(); err != nil {
		return err
	}
	for {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return s.resync(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.ParameterDescription:
			pass(m)
		case *pgproto3.ParseComplete, *pgproto3.BindComplete, *pgproto3.CloseComplete, *pgproto3.RowDescription, *pgproto3.NoData:
			pass(m)
			return nil
		}
	}
}

// resync makes the link usable again after an error in the extended protocol,
// in which it ignores everything up to a Sync.
func (s *Session) resync(err error) error {
	s.link.send(&pgproto3.Sync{})
	if ferr := s.link.flush(); ferr != nil {
		return ferr
	}
	for {
		m, rerr := s.link.receive()
		if rerr != nil {
			return rerr
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			return err
		}
	}
}

// parse prepares a statement here and on the link.
func (s *Session) parse(m *pgproto3.Parse) error {
	pieces, err := plan.Split(m.Query)
	if err != nil {
		return err
	}
	if len(pieces) > 1 {
		return sqlError("42601", "cannot insert multiple commands into a prepared statement")
	}
	if m.Name != "" && s.prep[m.Name] != nil {
		return sqlError("42P05", "prepared statement %q already exists", m.Name)
	}
	delete(s.prep, m.Name)
	p := &prepared{text: m.Query, local: m.Query, given: append([]uint32(nil), m.ParameterOIDs...)}
	if len(pieces) == 1 {
		if p.stmt, err = plan.Parse(pieces[0].Text); err != nil {
			return shiftPosition(err, pieces[0].Offset)
		}
		if p.stmt.Node != nil && (s.link.status != 'E' || endsFailedBlock(p.stmt.Node)) {
			s.freshCache()
			if err := s.localForm(p); err != nil {
				return err
			}
		}
	}
	s.link.send(&pgproto3.Parse{Name: m.Name, Query: p.local, ParameterOIDs: p.given})
	if err := s.expect(); err != nil {
		if len(pieces) == 1 && p.local == p.stmt.SQL {
			err = shiftPosition(err, pieces[0].Offset)
		}
		return err
	}
	s.prep[m.Name] = p
	if m.Name == "" {
		s.unnamedLost = false
	}
	return nil
}

// refresh makes the link's statement of that name what it should be: one that
// the session's own queries have not replaced, made for the catalog as it is.
func (s *Session) refresh(name string) error {
	p := s.prep[name]
	if p == nil || s.link.status == 'E' {
		return nil // the link says so
	}
	stale := false
	if p.stmt != nil && p.stmt.Node != nil {
		s.freshCache()
		if p.tick != s.cache.tick || p.path != s.path {
			before := p.local
			if err := s.localForm(p); err != nil {
				return err
			}
			p.types, p.typeNames = nil, nil
			stale = p.local != before
		}
	}
	if !stale && (name != "" || !s.unnamedLost) {
		return nil
	}
	if name != "" {
		s.link.send(&pgproto3.Close{ObjectType: 'S', Name: name})
		if err := s.swallow(); err != nil {
			return err
		}
	}
	s.link.send(&pgproto3.Parse{Name: name, Query: p.local, ParameterOIDs: p.given})
	if err := s.swallow(); err != nil {
		return err
	}
	if name == "" {
		s.unnamedLost = false
	}
	return nil
}

// localForm finds the text under which the local server can describe a
// statement.
func (s *Session) localForm(p *prepared) error {
	n := p.stmt.Node
	p.tick, p.path = s.cache.tick, s.path
	p.local, p.rewritten = p.stmt.SQL, false
	if _, err := plan.CheckSetConfig(n, checkSetting); err != nil {
		return err
	}
	if plan.RewriteSettings(n) {
		text, err := plan.Deparse(n)
		if err != nil {
			return err
		}
		p.local = text
		p.rewritten = true // it may be set_config: the segments will want to know
	}
	switch st := n.Node.(type) {
	case *pg.Node_SelectStmt:
		if st.SelectStmt.IntoClause != nil {
			return nil
		}
		q, err := s.plan(n, nil, nil)
		if err != nil {
			return err
		}
		if q.Kind != plan.Local {
			p.rewritten = true
		} else if !p.rewritten {
			reads, err := s.functionReads(n, nil)
			if err != nil {
				return err
			}
			p.rewritten = reads.calls
		}
		if q.Kind == plan.Local && q.Top != "" {
			p.local = q.Top
		} else if q.Describe != "" {
			p.local = q.Describe
		}
	case *pg.Node_VariableShowStmt:
		if sql := s.showSQL(st.VariableShowStmt); sql != "" {
			p.local, p.rewritten = sql, true
		}
	case *pg.Node_VariableSetStmt:
		// Greenplum's parameters are not PostgreSQL's: prepare something
		// that returns as little.
		p.rewritten = true
		if strings.HasPrefix(strings.ToLower(st.VariableSetStmt.Name), "gp_") {
			p.local = "RESET " + gucPrefix + "none"
		}
	case *pg.Node_FetchStmt, *pg.Node_ClosePortalStmt, *pg.Node_ListenStmt, *pg.Node_UnlistenStmt, *pg.Node_NotifyStmt:
	default:
		p.rewritten = true
	}
	return nil
}

// bind binds a portal here and on the link.
func (s *Session) bind(m *pgproto3.Bind) error {
	p := s.prep[m.PreparedStatement]
	if p == nil {
		s.link.send(m)
		return s.expect() // the link says that there is none
	}
	if err := s.refresh(m.PreparedStatement); err != nil {
		return err
	}
	po := &portal{name: m.DestinationPortal, prep: p, rewritten: p.rewritten, formats: append([]int16(nil), m.ResultFormatCodes...)}
	for i, v := range m.Parameters {
		prm := dispatch.Param{}
		if len(m.ParameterFormatCodes) == 1 {
			prm.Format = m.ParameterFormatCodes[0]
		} else if i < len(m.ParameterFormatCodes) {
			prm.Format = m.ParameterFormatCodes[i]
		}
		if v != nil {
			prm.Value = append([]byte{}, v...)
		}
		po.params = append(po.params, prm)
	}
	if old := s.portl[po.name]; old != nil {
		s.closePortal(old)
	}
	s.portl[po.name] = po
	s.link.send(m)
	if err := s.expect(); err != nil {
		delete(s.portl, po.name)
		return err
	}
	return nil
}

// swallow waits for the one answer to what was just sent and keeps it back.
func (s *Session) swallow() error {
	s.link.send(&pgproto3.Flush{})
	if err := s.link.flush(); err != nil {
		return err
	}
	m, err := s.link.receive()
	if err != nil {
		return err
	}
	if e, ok := m.(*pgproto3.ErrorResponse); ok {
		return s.resync(pgconn.ErrorResponseToPgError(e))
	}
	return nil
}

// paramTypes are a prepared statement's parameter types as the local server
// found them.
func (s *Session) paramTypes(p *prepared) ([]uint32, error) {
	if p.types != nil {
		return p.types, nil
	}
	s.unnamedLost = true
	types, _, err := s.link.describe(p.local, p.given)
	if err != nil {
		return nil, err
	}
	p.types = append([]uint32{}, types...)
	return p.types, nil
}
