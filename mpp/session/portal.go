package session

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// portal is a prepared statement with its parameters. It stands on the link
// under the same name.
type portal struct {
	name      string
	prep      *prepared
	params    []dispatch.Param
	formats   []int16
	rewritten bool
	maxRows   uint32
	started   bool
	sources   *sources
}

// execute runs a portal.
func (s *Session) execute(ctx context.Context, m *pgproto3.Execute) error {
	po := s.portl[m.Portal]
	if po == nil {
		// One that DECLARE CURSOR made, or none at all.
		return s.executePortal(&portal{name: m.Portal, maxRows: m.MaxRows})
	}
	po.maxRows = m.MaxRows
	if po.prep.stmt == nil || po.prep.stmt.Node == nil && po.prep.stmt.SQL == "" && !po.prep.stmt.SetDistribution {
		return s.executePortal(po)
	}
	if s.txn.functions && po.prep.stmt.Node.GetFetchStmt() != nil {
		po.rewritten = true // see runFetch
	}
	if !po.rewritten || po.started {
		if po.prep.stmt != nil && po.prep.stmt.Node != nil {
			s.freshCache()
		}
		return s.executePortal(po)
	}
	p := po.prep
	req := &request{ctx: ctx, stmt: p.stmt, text: p.stmt.SQL, node: p.stmt.Node, params: po.params, formats: po.formats, portal: po}
	if len(po.params) > 0 {
		types, err := s.paramTypes(p)
		if err != nil {
			return err
		}
		req.types = types
		for i := range req.params {
			if i < len(types) && types[i] < firstNormalOID {
				req.params[i].OID = types[i]
			}
		}
	}
	if st := p.stmt.Node.GetSelectStmt(); st != nil && m.MaxRows > 0 {
		return s.executeSuspendable(req, po)
	}
	return s.run(req)
}

// executePortal runs the link's portal of that name.
func (s *Session) executePortal(po *portal) error {
	s.link.send(&pgproto3.Execute{Portal: po.name, MaxRows: po.maxRows}, &pgproto3.Flush{})
	s.link.unsynced = true
	if err := s.link.flush(); err != nil {
		return err
	}
	stopped := false
	for {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CommandComplete:
			s.complete(string(m.CommandTag))
			return nil
		case *pgproto3.EmptyQueryResponse, *pgproto3.PortalSuspended:
			s.out.send(m)
			return nil
		case *pgproto3.ErrorResponse:
			return s.resync(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.DataRow, *pgproto3.CopyData:
			s.out.send(m)
			s.stopIfGone(&stopped)
		case *pgproto3.CopyInResponse:
			s.out.send(m)
			if err := s.passCopyIn(); err != nil {
				return err
			}
		default:
			s.out.send(m)
		}
	}
}

// executeSuspendable runs a SELECT that the client fetches in pieces: as a
// portal of the link, which reads the slices as sources and keeps the rows.
func (s *Session) executeSuspendable(req *request, po *portal) error {
	node := knownLimits(req.node, req.params, req.types)
	reads, err := s.functionReads(node, req.params)
	if err != nil {
		return err
	}
	var sql string
	if reads.calls {
		sql, po.sources, err = s.keptRows(req, node)
	} else {
		var slices []plan.Slice
		if sql, slices, _, err = s.topOf(node, req.types, true); err == nil && len(slices) > 0 {
			po.sources, err = s.openCursor(slices, req.params)
		}
	}
	if err != nil {
		return err
	}
	s.unnamedLost = true
	bind := bindParams(req.params, req.formats)
	bind.DestinationPortal = po.name
	s.link.send(&pgproto3.Close{ObjectType: 'P', Name: po.name}, &pgproto3.Parse{Query: sql, ParameterOIDs: req.types}, bind)
	for range 3 {
		if err := s.swallow(); err != nil {
			return err
		}
	}
	po.started = true
	return s.executePortal(po)
}

// forget drops what the client closes.
func (s *Session) forget(m *pgproto3.Close) {
	if m.ObjectType == 'S' {
		delete(s.prep, m.Name)
		return
	}
	if p := s.portl[m.Name]; p != nil {
		s.closePortal(p)
		delete(s.portl, m.Name)
	}
}

func (s *Session) closePortal(p *portal) {
	if p.sources == nil {
		return
	}
	_ = s.closeOpen(func(set *sources) bool { return set == p.sources })
	p.sources = nil
}
