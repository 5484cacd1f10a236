package session

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// modification is an UPDATE or DELETE of a distributed table in the parts that
// matter here.
type modification struct {
	verb      string // UPDATE or DELETE
	target    *pg.RangeVar
	alias     string // under which the statement knows the target
	r         *relation
	set       []*pg.Node // ResTargets of SET
	from      []*pg.Node // FROM or USING
	where     *pg.Node
	with      *pg.WithClause
	returning []*pg.Node
	fields    []pgproto3.FieldDescription
}

// runModify runs UPDATE, DELETE and MERGE.
func (s *Session) runModify(req *request) error {
	m := &modification{}
	switch n := req.node.Node.(type) {
	case *pg.Node_UpdateStmt:
		st := n.UpdateStmt
		*m = modification{verb: "UPDATE", target: st.Relation, set: st.TargetList, from: st.FromClause, where: st.WhereClause, with: st.WithClause, returning: st.ReturningList}
	case *pg.Node_DeleteStmt:
		st := n.DeleteStmt
		*m = modification{verb: "DELETE", target: st.Relation, from: st.UsingClause, where: st.WhereClause, with: st.WithClause, returning: st.ReturningList}
	case *pg.Node_MergeStmt:
		m.target = n.MergeStmt.Relation
	}
	var err error
	if m.r, err = s.relation(m.target.Schemaname, m.target.Relname); err != nil {
		return err
	}
	if m.r == nil || m.r.Policy == nil {
		return s.runLocalWrite(req)
	}
	if m.verb == "" {
		return sqlError("0A000", "MERGE is not supported on distributed tables")
	}
	if m.r.Kind == 'v' {
		return sqlError("0A000", "%s of a view over distributed tables is not supported", m.verb)
	}
	if m.with != nil {
		if err := s.refuseWritingCTE(m.with); err != nil {
			return err
		}
	}
	if m.alias = m.target.Alias.GetAliasname(); m.alias == "" {
		m.alias = m.target.Relname
	}
	checked := proto.Clone(req.node).(*pg.Node)
	text := req.text
	if changed, err := plan.ReplaceSegmentID(checked, planCatalog{s: s, params: req.types}); err != nil {
		return err
	} else if changed {
		if text, err = plan.Deparse(checked); err != nil {
			return err
		}
	}
	if m.fields, err = s.validate(&request{text: text, types: req.types}); err != nil {
		return err
	}
	if len(m.returning) > 0 && req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: withFormats(m.fields, req.formats)})
	}
	if err := s.beginWrite(); err != nil {
		return err
	}
	direct, err := s.runsInPlace(m)
	if err != nil {
		return err
	}
	var rows int64
	switch {
	case direct:
		rows, err = s.modifyInPlace(req, m, text)
	case m.r.Policy.Kind == plan.Replicated:
		return sqlError("0A000", "%s of a replicated table must give the same result on every segment: it can use replicated tables and functions that are not volatile only", m.verb)
	default:
		rows, err = s.modifyByRow(req, m)
	}
	if err != nil {
		return err
	}
	s.complete(fmt.Sprintf("%s %d", m.verb, rows))
	return nil
}

// runsInPlace says whether each segment can run the statement on its own rows:
// nothing in it looks at rows elsewhere, changes with each call, or moves a row.
func (s *Session) runsInPlace(m *modification) (bool, error) {
	if m.with != nil {
		return false, nil
	}
	for _, t := range m.set {
		for _, k := range m.r.Policy.Keys {
			if m.r.columns[k].Name == t.GetResTarget().Name {
				return false, nil
			}
		}
		if t.GetResTarget().Val.GetSetToDefault() != nil {
			return false, nil // a default may be a sequence's next value
		}
	}
	scope := &pg.SelectStmt{FromClause: m.from, WhereClause: m.where, TargetList: append(append([]*pg.Node{}, m.set...), m.returning...)}
	local := true
	for _, name := range plan.Relations(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: scope}}) {
		r, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return false, err
		}
		// A replicated table is whole on every segment.
		local = local && r != nil && r.Policy != nil && r.Policy.Kind == plan.Replicated
	}
	if !local {
		return false, nil
	}
	var ferr error
	visit(scope.ProtoReflect(), func(n *pg.Node) bool {
		f := n.GetFuncCall()
		if f == nil {
			return true
		}
		schema, name := "", f.Funcname[len(f.Funcname)-1].GetString_().GetSval()
		if len(f.Funcname) > 1 {
			schema = f.Funcname[len(f.Funcname)-2].GetString_().GetSval()
		}
		known, err := (planCatalog{s: s}).Function(schema, name)
		if err != nil {
			ferr = err
		}
		if !known.Found || known.Volatility == 'v' || !known.Builtin && known.Volatility != 'i' {
			local = false
		}
		return true
	})
	return local, ferr
}

// modifyInPlace runs the statement on the segments that may have its rows.
func (s *Session) modifyInPlace(req *request, m *modification, text string) (int64, error) {
	segs := s.keySegments(req, m)
	if err := s.beforeDispatch(req.ctx); err != nil {
		return 0, err
	}
	if err := s.markWrite(req.ctx, m.r, segs); err != nil {
		return 0, err
	}
	var res []dispatch.Result
	var err error
	if len(req.params) > 0 || len(req.formats) > 0 {
		res, err = s.gang.ExecParams(req.ctx, segs, text, req.params, req.formats)
	} else {
		res, err = s.gang.Exec(req.ctx, segs, text)
	}
	if err != nil {
		return 0, err
	}
	return s.returned(m, res), nil
}

// returned passes RETURNING's rows on and counts what was changed.
func (s *Session) returned(m *modification, res []dispatch.Result) int64 {
	var rows int64
	for i, r := range res {
		if m.r.Policy.Kind == plan.Replicated && i > 0 {
			break // every segment says the same
		}
		rows += r.Tag.RowsAffected()
		if len(m.returning) > 0 {
			for _, row := range r.Rows {
				s.out.send(&pgproto3.DataRow{Values: row})
			}
		}
	}
	return rows
}

// keySegments is the one segment a statement concerns when its WHERE gives the
// whole distribution key; nil for all.
func (s *Session) keySegments(req *request, m *modification) []int {
	if m.r.Policy.Kind != plan.Hashed || len(m.from) > 0 {
		return nil
	}
	given := map[string]string{}
	conjuncts(m.where, func(n *pg.Node) {
		e := n.GetAExpr()
		if e == nil || e.Kind != pg.A_Expr_Kind_AEXPR_OP || len(e.Name) != 1 || e.Name[0].GetString_().GetSval() != "=" {
			return
		}
		for _, side := range [2][2]*pg.Node{{e.Lexpr, e.Rexpr}, {e.Rexpr, e.Lexpr}} {
			col := side[0].GetColumnRef().GetFields()
			if len(col) == 0 || len(col) > 2 || len(col) == 2 && col[0].GetString_().GetSval() != m.alias {
				continue
			}
			if v, ok := constantText(side[1], req); ok {
				given[col[len(col)-1].GetString_().GetSval()] = v
			}
		}
	})
	var cols []plan.Column
	var values []string
	for _, k := range m.r.Policy.Keys {
		v, ok := given[m.r.columns[k].Name]
		if !ok || m.r.columns[k].oid != m.r.columns[k].base {
			return nil
		}
		cols, values = append(cols, m.r.Columns[k]), append(values, v)
	}
	if seg, ok := hashText(cols, values, m.r.Policy.NumSegments); ok {
		return []int{seg}
	}
	return nil
}

// conjuncts calls f for each part of a condition that must hold.
func conjuncts(n *pg.Node, f func(*pg.Node)) {
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pg.BoolExprType_AND_EXPR {
		for _, a := range b.Args {
			conjuncts(a, f)
		}
		return
	}
	if n != nil {
		f(n)
	}
}

// constantText is a constant's or a parameter's value as text, when its type
// cannot make "=" mean something else than it does for the column's own.
func constantText(n *pg.Node, req *request) (string, bool) {
	if c := n.GetAConst(); c != nil && !c.Isnull {
		switch v := c.Val.(type) {
		case *pg.A_Const_Ival:
			return strconv.Itoa(int(v.Ival.GetIval())), true
		case *pg.A_Const_Sval:
			return v.Sval.GetSval(), true
		}
	}
	if p := n.GetParamRef(); p != nil && int(p.Number) <= len(req.params) && int(p.Number) <= len(req.types) {
		prm := req.params[p.Number-1]
		if prm.Format == 0 && prm.Value != nil {
			switch req.types[p.Number-1] {
			case 20, 21, 23, 25, 1043:
				return string(prm.Value), true
			}
		}
	}
	return "", false
}

// modifyByRow finds the rows first, as any SELECT does, with their new values,
// and then changes each where it lies. As in Greenplum without its global
// deadlock detector the table is locked against other writers meanwhile.
func (s *Session) modifyByRow(req *request, m *modification) (int64, error) {
	if err := s.beforeDispatch(req.ctx); err != nil {
		return 0, err
	}
	if err := s.markWrite(req.ctx, m.r, []int{}); err != nil {
		return 0, err
	}
	if _, err := s.gang.Exec(req.ctx, nil, "LOCK TABLE "+m.r.name()+" IN EXCLUSIVE MODE"); err != nil {
		return 0, err
	}
	b, err := s.newRowChange(m, req)
	if err != nil {
		return 0, err
	}
	q, err := s.plan(b.query, req.types)
	if err != nil {
		return 0, err
	}
	spool := &rowSpool{}
	defer spool.close()
	if err := s.rowsOf(req.ctx, q, b.query, req.params, req.types, b.formats(req), spool.add); err != nil {
		return 0, err
	}
	return b.apply(req, spool)
}

// expression deparses one expression.
func expression(n *pg.Node) (string, error) {
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
		TargetList:  []*pg.Node{{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Val: n}}}},
		LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}}})
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(text, "SELECT "), nil
}
