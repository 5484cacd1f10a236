package session

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// runProcedure runs DO and CALL. Outside a transaction block a procedure may
// end transactions, so that none is begun for it, unless it needs tables'
// rows and does not look as if it did.
func (s *Session) runProcedure(req *request) error {
	r, err := s.functionReads(req.node, req.params)
	if err != nil {
		return err
	}
	if s.link.status == 'I' && !s.link.unsynced && (len(r.tables) == 0 || r.endsTransactions()) {
		return s.runFree(req, r)
	}
	done, err := s.shadowReads(req.ctx, r)
	if err != nil {
		return err
	}
	s.txn.ddl = true // it may do anything on the coordinator
	return done(s.runLocal(req, req.text))
}

// runFree runs DO or CALL outside a transaction block. The scans of the copies
// are looked at in the same message as the statement, before the server counts
// them as everybody's. Tables' rows are put in place by a transaction of their
// own, and removed by another.
func (s *Session) runFree(req *request, r *functionReads) (err error) {
	sh := &shadows{s: s}
	defer s.catalogChanged() // it may do anything on the coordinator
	if len(r.tables) > 0 {
		if err := s.beginImplicit(); err != nil {
			return err
		}
		w, err := s.watch(req.ctx, r)
		if err != nil {
			return err
		}
		if sh, err = s.fill(req.ctx, r, w, true); err != nil {
			return err
		}
		if _, err := s.commit(req.ctx, "COMMIT"); err != nil {
			_ = sh.close()
			return err
		}
		defer func() {
			if cerr := sh.close(); err == nil {
				err = cerr
			}
			if s.link.broken != nil || s.link.status != 'I' {
				return
			}
			if _, derr := s.local(sh.drop()); err == nil {
				err = withoutContext(derr)
			}
		}()
	}
	// From here on this session has counted nothing.
	if _, err := s.local("SELECT pg_catalog.pg_stat_force_next_flush()"); err != nil {
		return err
	}
	s.unnamedLost = true
	s.link.send(&pgproto3.Parse{Query: req.text, ParameterOIDs: req.types}, bindParams(req.params, req.formats))
	if req.describe {
		s.link.send(&pgproto3.Describe{ObjectType: 'P'})
	}
	s.link.send(&pgproto3.Execute{},
		&pgproto3.Parse{Query: `SELECT pg_catalog.gp_watched('{}')`},
		&pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	if err := s.link.flush(); err != nil {
		return err
	}
	var failed error
	ran := false
	stopped := false
	for {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		s.stopIfGone(&stopped)
		switch m := m.(type) {
		case *pgproto3.RowDescription, *pgproto3.DataRow:
			if !ran {
				s.out.send(m)
			}
		case *pgproto3.CommandComplete:
			if !ran {
				s.complete(string(m.CommandTag))
			}
			ran = true
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
			if ran {
				failed = withoutContext(failed)
			}
		case *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

// runFetch runs FETCH and MOVE. A cursor that a function has opened may read
// copies only now.
func (s *Session) runFetch(req *request) error {
	if !s.txn.functions || s.link.status != 'T' {
		return s.runLocal(req, req.text)
	}
	done, err := s.shadowReads(req.ctx, &functionReads{calls: true})
	if err != nil {
		return err
	}
	return done(s.runLocal(req, req.text))
}

// keptRows runs a query whose functions need to be readied for, for a cursor
// or portal that is read by later statements: sql reads the rows that it
// yielded, for as long as the transaction lasts.
func (s *Session) keptRows(req *request, node *pg.Node) (sql string, set *sources, err error) {
	if err := s.connectRows(); err != nil {
		return "", nil, err
	}
	q, err := s.plan(node, req.types, req.params)
	if err != nil {
		return "", nil, err
	}
	cols, err := s.columnsOf(node, q, req.types)
	if err != nil {
		return "", nil, err
	}
	spool := &rowsource.Spool{}
	if err := s.rowsOf(req.ctx, q, node, req.params, req.types, nil, spool.Add); err != nil {
		spool.Close()
		return "", nil, err
	}
	set = &sources{s: s}
	src := &source{set: set, slice: plan.Slice{Token: rowsource.NewToken(), Columns: cols}, spool: spool}
	set.list = []*source{src}
	src.publish()
	s.txn.open = append(s.txn.open, set)
	var names, defs []string
	for i, c := range cols {
		names = append(names, fmt.Sprintf("c%d AS %s", i, ident(c.Name)))
		defs = append(defs, fmt.Sprintf("c%d %s", i, c.Type))
	}
	if len(cols) == 0 {
		defs = []string{"c0 boolean"}
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM pg_catalog.gp_motion_recv('gp_motion', '" + src.slice.Token +
		"') AS t(" + strings.Join(defs, ", ") + ")", set, nil
}
