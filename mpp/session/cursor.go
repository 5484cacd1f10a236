package session

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// runDeclare opens a cursor on the local server; what its query needs from
// segments is read as sources when the cursor is first fetched from.
func (s *Session) runDeclare(req *request) error {
	const scroll, noScroll, hold = 0x0002, 0x0004, 0x0020 // CURSOR_OPT_…
	req, err := s.withoutParams(req)
	if err != nil {
		return err
	}
	st := req.node.GetDeclareCursorStmt()
	reads, err := s.functionReads(st.Query, nil)
	if err != nil {
		return err
	}
	if len(reads.tables) > 0 && s.link.status == 'I' && st.Options&hold != 0 {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	var sql string
	var needs []plan.Slice
	var set *sources
	q := &plan.Query{Kind: plan.Top}
	if len(reads.tables) > 0 && s.link.status == 'T' {
		sql, set, err = s.keptRows(req, st.Query)
	} else {
		sql, needs, q, err = s.topOf(st.Query, req.types, true)
	}
	if err != nil {
		return err
	}
	s.txn.functions = s.txn.functions || reads.calls
	simple := *req
	simple.portal = nil
	if q.Kind == plan.Local && q.Top == "" || s.link.status == 'I' && st.Options&hold == 0 {
		return s.runLocal(&simple, req.text)
	}
	top, err := parseOne(sql)
	if err != nil {
		return err
	}
	clone := proto.Clone(st).(*pg.DeclareCursorStmt)
	clone.Query = top
	portions := slices.ContainsFunc(needs, func(sl plan.Slice) bool { return sl.Large })
	if portions && st.Options&(scroll|noScroll) == 0 && st.Query.GetSelectStmt().GetLockingClause() == nil {
		// PostgreSQL lets a cursor go back whose plan can, as that of a scan can, but not
		// that of a scan in portions.
		clone.Options |= scroll
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_DeclareCursorStmt{DeclareCursorStmt: clone}})
	if err != nil {
		return err
	}
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	if len(needs) > 0 {
		if set, err = s.openCursor(needs, nil); err != nil {
			return err
		}
	}
	if set != nil {
		set.cursor, set.portal = st.Portalname, st.Options&hold == 0
	}
	return s.runLocal(&simple, text)
}

// runClose closes a cursor, or all of them, and what its query has running.
func (s *Session) runClose(req *request, st *pg.ClosePortalStmt) error {
	err := s.closeOpen(func(set *sources) bool {
		return set.cursor != "" && (set.cursor == st.Portalname || st.Portalname == "")
	})
	if err != nil {
		return err
	}
	return s.runLocal(req, req.text)
}

// runPrepare keeps the statement; the local server gets a form of it that it
// can check.
func (s *Session) runPrepare(req *request, st *pg.PrepareStmt) error {
	if s.prep[st.Name] != nil {
		return sqlError("42P05", "prepared statement %q already exists", st.Name)
	}
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
	res, err := s.local("SELECT t.oid::oid::bigint, t.oid::text FROM pg_catalog.pg_prepared_statements p, " +
		"pg_catalog.unnest(p.parameter_types) WITH ORDINALITY AS t(oid, n) WHERE p.name = " + literal(st.Name) + " ORDER BY t.n")
	if err != nil {
		return err
	}
	for _, row := range res.rows {
		oid, _ := strconv.ParseUint(string(row[0]), 10, 32)
		p.given = append(p.given, uint32(oid))
		p.typeNames = append(p.typeNames, string(row[1]))
	}
	s.prep[st.Name] = p
	s.complete("PREPARE")
	return nil
}

// paramTypeNames are the names of a statement's parameter types.
func (s *Session) paramTypeNames(p *prepared) ([]string, error) {
	if p.typeNames != nil {
		return p.typeNames, nil
	}
	types, err := s.paramTypes(p)
	if err != nil {
		return nil, err
	}
	for _, oid := range types {
		name, err := s.typeName(oid)
		if err != nil {
			return nil, err
		}
		p.typeNames = append(p.typeNames, name)
	}
	return p.typeNames, nil
}

// runExecute runs a statement of PREPARE with its parameters written in.
func (s *Session) runExecute(req *request, st *pg.ExecuteStmt) error {
	simple := *req
	simple.portal = nil
	node, err := s.executed(st)
	if err != nil {
		return err
	}
	if node == nil {
		return s.runLocal(&simple, req.text)
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

// executed is the statement that an EXECUTE runs, with its parameters written
// in; nil when the local server runs it.
func (s *Session) executed(st *pg.ExecuteStmt) (*pg.Node, error) {
	p := s.prep[st.Name]
	if p == nil || p.stmt == nil || p.stmt.Node == nil {
		return nil, nil
	}
	if err := s.refresh(st.Name); err != nil {
		return nil, err
	}
	if !p.rewritten {
		return nil, nil
	}
	types, err := s.paramTypeNames(p)
	if err != nil {
		return nil, err
	}
	if len(st.Params) != len(types) {
		e := sqlError("42601", "wrong number of parameters for prepared statement %q", st.Name)
		e.Detail = fmt.Sprintf("Expected %d parameters but got %d.", len(types), len(st.Params))
		return nil, e
	}
	node := proto.Clone(p.stmt.Node).(*pg.Node)
	if len(st.Params) > 0 {
		// Each parameter is evaluated once, here.
		var exprs []string
		for i, p := range st.Params {
			text, err := plan.Deparse(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
				TargetList:  []*pg.Node{{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Val: p}}}},
				LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}}})
			if err != nil {
				return nil, err
			}
			exprs = append(exprs, "CAST(("+text+") AS "+types[i]+")")
		}
		sql := "SELECT " + strings.Join(exprs, ", ")
		ask, err := parseOne(sql)
		if err != nil {
			return nil, err
		}
		done, err := s.shadow(&request{ctx: s.ctx}, ask)
		if err != nil {
			return nil, err
		}
		res, err := s.evaluate(sql)
		if err = done(err); err != nil {
			return nil, err
		}
		values := make([]*pg.Node, len(types))
		for i, v := range res.rows[0] {
			if values[i], err = constant(v, types[i]); err != nil {
				return nil, err
			}
		}
		replaceParams(node, values)
	}
	return node, nil
}

func (s *Session) runDeallocate(req *request, st *pg.DeallocateStmt) error {
	simple := *req
	simple.portal = nil
	if err := s.runLocal(&simple, req.text); err != nil {
		return err
	}
	s.deallocate(st.Name)
	return nil
}

// deallocate forgets a named statement, or all with the name "".
func (s *Session) deallocate(name string) {
	for n := range s.prep {
		if n != "" && (n == name || name == "") {
			delete(s.prep, n)
		}
	}
}
