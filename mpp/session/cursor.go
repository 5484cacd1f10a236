package session

import (
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// runDeclare opens a cursor on the local server; what its query needs from
// segments is read as sources when the cursor is first fetched from.
func (s *Session) runDeclare(req *request, st *pg.DeclareCursorStmt) error {
	const hold = 0x0020 // CURSOR_OPT_HOLD
	sql, slices, q, err := s.topOf(st.Query, req.types)
	if err != nil {
		return err
	}
	simple := *req
	simple.portal = nil
	if q.Kind == plan.Local && q.Top == "" || s.link.status == 'I' && st.Options&hold == 0 {
		return s.runLocal(&simple, req.text)
	}
	if len(req.params) > 0 {
		return sqlError("0A000", "DECLARE CURSOR with parameters is not supported on distributed tables")
	}
	top, err := parseOne(sql)
	if err != nil {
		return err
	}
	clone := proto.Clone(st).(*pg.DeclareCursorStmt)
	clone.Query = top
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_DeclareCursorStmt{DeclareCursorStmt: clone}})
	if err != nil {
		return err
	}
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	if len(slices) > 0 {
		if _, err := s.openCursor(slices, nil); err != nil {
			return err
		}
	}
	return s.runLocal(&simple, text)
}

// sqlPrepared is a statement of PREPARE.
type sqlPrepared struct {
	node  *pg.Node
	types []string // of its parameters
}

// runPrepare keeps the statement; the local server gets a form of it that it
// can check.
func (s *Session) runPrepare(req *request, st *pg.PrepareStmt) error {
	p := &prepared{stmt: &plan.Statement{Node: st.Query}}
	var err error
	if p.stmt.SQL, err = plan.Deparse(st.Query); err != nil {
		return err
	}
	if err := s.localForm(p); err != nil {
		return err
	}
	body, err := parseOne(p.local)
	if err != nil {
		return err
	}
	clone := proto.Clone(st).(*pg.PrepareStmt)
	clone.Query = body
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_PrepareStmt{PrepareStmt: clone}})
	if err != nil {
		return err
	}
	if _, err := s.local(text); err != nil {
		return err
	}
	if p.rewritten {
		res, err := s.local("SELECT unnest(parameter_types)::text FROM pg_catalog.pg_prepared_statements WHERE name = " + literal(st.Name))
		if err != nil {
			return err
		}
		sp := &sqlPrepared{node: st.Query}
		for _, row := range res.rows {
			sp.types = append(sp.types, string(row[0]))
		}
		s.sqlPr[st.Name] = sp
	}
	s.complete("PREPARE")
	return nil
}

// runExecute runs a statement of PREPARE with its parameters written in.
func (s *Session) runExecute(req *request, st *pg.ExecuteStmt) error {
	sp := s.sqlPr[st.Name]
	simple := *req
	simple.portal = nil
	if sp == nil {
		return s.runLocal(&simple, req.text)
	}
	if len(st.Params) != len(sp.types) {
		e := sqlError("42601", "wrong number of parameters for prepared statement %q", st.Name)
		e.Detail = fmt.Sprintf("Expected %d parameters but got %d.", len(sp.types), len(st.Params))
		return e
	}
	node := proto.Clone(sp.node).(*pg.Node)
	if len(st.Params) > 0 {
		// Each parameter is evaluated once, here.
		var exprs []string
		for i, p := range st.Params {
			text, err := plan.Deparse(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
				TargetList:  []*pg.Node{{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Val: p}}}},
				LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}}})
			if err != nil {
				return err
			}
			exprs = append(exprs, "CAST(("+text+") AS "+sp.types[i]+")")
		}
		res, err := s.evaluate("SELECT " + strings.Join(exprs, ", "))
		if err != nil {
			return err
		}
		values := make([]*pg.Node, len(sp.types))
		for i, v := range res.rows[0] {
			lit := "NULL"
			if v != nil {
				lit = literal(string(v))
			}
			n, err := parseOne("SELECT CAST(" + lit + " AS " + sp.types[i] + ")")
			if err != nil {
				return err
			}
			values[i] = n.GetSelectStmt().TargetList[0].GetResTarget().Val
		}
		replaceParams(node, values)
	}
	text, err := plan.Deparse(node)
	if err != nil {
		return err
	}
	simple.node, simple.text = node, text
	simple.stmt = &plan.Statement{SQL: text, Node: node}
	simple.params, simple.types = nil, nil
	return s.run(&simple)
}

func (s *Session) runDeallocate(req *request, st *pg.DeallocateStmt) error {
	if st.Name == "" {
		clear(s.sqlPr)
	} else {
		delete(s.sqlPr, st.Name)
	}
	simple := *req
	simple.portal = nil
	return s.runLocal(&simple, req.text)
}
