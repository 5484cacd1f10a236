package session

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// runCopy runs COPY.
func (s *Session) runCopy(req *request, st *pg.CopyStmt) error {
	simple := *req
	simple.portal = nil
	req = &simple
	switch format, _ := copyOption(st, "format"); format {
	case "", "text", "csv", "binary":
	default:
		return s.runLocal(req, req.text) // which refuses it
	}
	st, err := s.encodeCopy(req, st)
	if err != nil {
		return err
	}
	if st.Query != nil {
		return s.copyQuery(req, st)
	}
	r, err := s.relation(st.Relation.Schemaname, st.Relation.Relname)
	if err != nil {
		return err
	}
	if r == nil || r.Policy == nil {
		return s.runLocal(req, req.text)
	}
	if !st.IsFrom {
		return s.copyTo(req, st, r)
	}
	if opts, ok := s.directCopy(st, r); ok {
		return s.copyDirect(req, st, r, opts)
	}
	return s.copyThrough(req, st, r)
}

// copyQuery runs COPY (query) TO on the local server, over its sources.
func (s *Session) copyQuery(req *request, st *pg.CopyStmt) (err error) {
	if st.Query.GetSelectStmt() == nil {
		return s.runLocalWrite(req)
	}
	sql, slices, q, err := s.topOf(st.Query, nil, true)
	if err != nil {
		return err
	}
	if q.Kind != plan.Gather {
		done, serr := s.shadow(req, st.Query)
		if serr != nil {
			return serr
		}
		defer func() { err = done(err) }()
	}
	if q.Kind == plan.Local && q.Top == "" {
		return s.runLocal(req, req.text)
	}
	clone := proto.Clone(st).(*pg.CopyStmt)
	if clone.Query, err = parseOne(sql); err != nil {
		return err
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: clone}})
	if err != nil {
		return err
	}
	if len(slices) == 0 {
		return s.runLocal(req, text)
	}
	set, err := s.openSources(req.ctx, slices, nil)
	if err != nil {
		return err
	}
	err = s.runLocal(req, text)
	if cerr := set.close(); cerr != nil {
		return cerr
	}
	return err
}

func copyOption(st *pg.CopyStmt, name string) (string, bool) {
	for _, o := range st.Options {
		d := o.GetDefElem()
		if d.Defname != name {
			continue
		}
		if d.Arg == nil {
			return "true", true
		}
		if v := d.Arg.GetString_(); v != nil {
			return v.Sval, true
		}
		return settingValue([]*pg.Node{d.Arg}), true
	}
	return "", false
}

// copyTo sends a table: the local server says what comes before the rows, the
// segments send them in the client's format.
func (s *Session) copyTo(req *request, st *pg.CopyStmt, r *relation) error {
	format, _ := copyOption(st, "format")
	if st.IsProgram || st.Filename != "" || format == "binary" {
		var cols []string
		for _, c := range st.Attlist {
			cols = append(cols, ident(c.GetString_().GetSval()))
		}
		if len(cols) == 0 {
			for i := range r.columns {
				if !r.columns[i].generated {
					cols = append(cols, ident(r.columns[i].Name))
				}
			}
		}
		query, err := parseOne("SELECT " + strings.Join(cols, ", ") + " FROM " + r.name())
		if err != nil {
			return err
		}
		clone := proto.Clone(st).(*pg.CopyStmt)
		clone.Relation, clone.Attlist, clone.Query = nil, nil, query
		return s.copyQuery(req, clone)
	}
	// The local server's copy of the table is empty: its answer is the
	// beginning of ours, and it checks the statement and the rights.
	s.unnamedLost = true
	s.link.send(&pgproto3.Query{String: req.text})
	if err := s.link.flush(); err != nil {
		return err
	}
	var failed error
	for done := false; !done; {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyOutResponse, *pgproto3.CopyData:
			s.out.send(m)
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			done = true
		}
	}
	if failed != nil {
		return failed
	}
	clone := proto.Clone(st).(*pg.CopyStmt)
	clone.Options = nil
	for _, o := range st.Options {
		if o.GetDefElem().Defname != "header" {
			clone.Options = append(clone.Options, o)
		}
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: clone}})
	if err != nil {
		return err
	}
	var segs []int
	if r.Policy.Kind == plan.Replicated {
		segs = []int{0}
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	rows := 0
	err = s.gatherFirst(req.ctx, []dispatch.Slice{{Index: 1, SQL: text, Copy: true, Segments: segs}}, nil, false, func(line []byte) error {
		rows++
		s.out.send(copyBody(line))
		return s.out.err
	})
	if err != nil {
		return err
	}
	s.out.send(&pgproto3.CopyDone{})
	s.complete(fmt.Sprintf("COPY %d", rows))
	return nil
}
