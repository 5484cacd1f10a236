package session

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

func literal(s string) string { return catalog.Literal(s) }

// runExplain shows a plan: motions in Greenplum's words, and under each what a
// segment's PostgreSQL does for it.
func (s *Session) runExplain(req *request) (err error) {
	req, err = s.withoutParams(req)
	if err != nil {
		return err
	}
	st := req.node.GetExplainStmt()
	simple := *req
	simple.portal = nil
	prefix, analyze, err := explainPrefix(st)
	if err != nil {
		return err
	}
	query, err := s.explained(st.Query)
	if err != nil {
		return err
	}
	if query == nil {
		if changed, derr := s.changesDistributed(st.Query); derr != nil || changed == nil {
			return orElse(derr, s.runLocal(&simple, req.text))
		} else if analyze {
			return sqlError("0A000", "EXPLAIN ANALYZE of a statement that changes the distributed table %q is not supported", changed.Name)
		}
		return s.explainChange(req, st.Query, prefix)
	}
	sql, slices, q, err := s.topOf(query, nil)
	if err != nil {
		return err
	}
	if analyze && q.Kind != plan.Gather {
		done, serr := s.shadow(req, query)
		if serr != nil {
			return serr
		}
		defer func() { err = done(err) }()
	}
	if q.Kind == plan.Local && q.Top == "" {
		return s.runLocal(&simple, req.text)
	}
	if format := explainFormat(st); format != "text" {
		return sqlError("0A000", "EXPLAIN of a distributed query is printed as text only")
	}
	var lines []string
	addPlan := func(indent string, res [][][]byte) {
		for _, row := range res {
			lines = append(lines, indent+string(row[0]))
		}
	}
	if q.Kind == plan.Gather {
		lines = append(lines, s.motionLine(" ", 1, &slices[0]))
	} else {
		var set *sources
		if analyze && len(slices) > 0 {
			if set, err = s.openSources(req.ctx, slices, nil); err != nil {
				return err
			}
		}
		res, err := s.local(prefix + sql)
		if set != nil {
			if cerr := set.close(); cerr != nil {
				return cerr
			}
		}
		if err != nil {
			return err
		}
		addPlan("", res.rows)
		for i := range slices {
			lines = append(lines, s.motionLine(" ", i+1, &slices[i]))
		}
	}
	// What each slice does, as one of its segments sees it.
	var out []string
	at := 0
	for _, l := range lines {
		out = append(out, l)
		if !strings.Contains(l, "(slice") {
			continue
		}
		if rd := slices[at].Read; rd != nil {
			out = append(out, fmt.Sprintf("   ->  Scan on %s with the rights of %s", rd.Table, rd.Owner), "         for: "+slices[at].SQL)
			at++
			continue
		}
		segs := slices[at].Segments
		if segs == nil {
			segs = []int{0}
		}
		if err := s.beforeDispatch(req.ctx); err != nil {
			return err
		}
		res, err := s.gang.Exec(req.ctx, segs[:1], prefix+slices[at].SQL)
		if err != nil {
			return err
		}
		for i, row := range res[0].Rows {
			indent := "         "
			if i == 0 {
				indent = "   ->  "
			}
			out = append(out, indent+string(row[0]))
		}
		at++
	}
	if q.Reason != "" {
		out = append(out, " Not pushed down: "+q.Reason)
	}
	s.sendPlan(req, append(out, " Interconnect: "+s.icType, " Optimizer: Postgres-based planner"))
	return nil
}

// sendPlan answers an EXPLAIN.
func (s *Session) sendPlan(req *request, lines []string) {
	if req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("QUERY PLAN"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}})
	}
	for _, l := range lines {
		s.out.send(&pgproto3.DataRow{Values: [][]byte{[]byte(l)}})
	}
	s.complete("EXPLAIN")
}

// explained is the SELECT in a statement that EXPLAIN shows the plan of; nil
// when there is none.
func (s *Session) explained(n *pg.Node) (*pg.Node, error) {
	switch st := n.Node.(type) {
	case *pg.Node_SelectStmt:
		if st.SelectStmt.IntoClause != nil {
			sel := proto.Clone(n).(*pg.Node)
			sel.GetSelectStmt().IntoClause = nil
			return sel, nil
		}
		return n, nil
	case *pg.Node_DeclareCursorStmt:
		return s.explained(st.DeclareCursorStmt.Query)
	case *pg.Node_CreateTableAsStmt:
		return s.explained(st.CreateTableAsStmt.Query)
	case *pg.Node_ExecuteStmt:
		node, err := s.executed(st.ExecuteStmt)
		if err != nil || node == nil {
			return nil, err
		}
		return s.explained(node)
	}
	return nil, nil
}

// changesDistributed is the distributed table that a statement changes, nil if
// it changes none.
func (s *Session) changesDistributed(n *pg.Node) (*relation, error) {
	var rv *pg.RangeVar
	switch st := n.Node.(type) {
	case *pg.Node_InsertStmt:
		rv = st.InsertStmt.Relation
	case *pg.Node_UpdateStmt:
		rv = st.UpdateStmt.Relation
	case *pg.Node_DeleteStmt:
		rv = st.DeleteStmt.Relation
	default:
		return nil, nil
	}
	r, err := s.relation(rv.Schemaname, rv.Relname)
	if r == nil || r.Policy == nil {
		return nil, err
	}
	return r, nil
}

// explainChange shows what a segment does for an INSERT, UPDATE or DELETE.
func (s *Session) explainChange(req *request, n *pg.Node, prefix string) error {
	text, err := plan.Deparse(n)
	if err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	res, err := s.gang.Exec(req.ctx, []int{0}, prefix+text)
	if err != nil {
		return err
	}
	lines := []string{fmt.Sprintf(" On each of %d segments, as one of them would do it:", s.numSegments())}
	for _, row := range res[0].Rows {
		lines = append(lines, "   "+string(row[0]))
	}
	s.sendPlan(req, lines)
	return nil
}

func (s *Session) motionLine(indent string, n int, sl *plan.Slice) string {
	senders := s.numSegments()
	if sl.Segments != nil {
		senders = len(sl.Segments)
	}
	return fmt.Sprintf("%sGather Motion %d:1  (slice%d; segments: %d)", indent, senders, n, senders)
}

// explainPrefix is EXPLAIN with the client's options.
func explainPrefix(st *pg.ExplainStmt) (prefix string, analyze bool, err error) {
	var opts []string
	for _, o := range st.Options {
		d := o.GetDefElem()
		value := settingValue([]*pg.Node{d.Arg})
		if d.Arg.GetString_() != nil {
			value = d.Arg.GetString_().GetSval()
		}
		off := strings.EqualFold(value, "off") || strings.EqualFold(value, "false") || value == "0"
		switch d.Defname {
		case "analyze":
			analyze = !off
		}
		opts = append(opts, strings.TrimSpace(d.Defname+" "+value))
	}
	if len(opts) == 0 {
		return "EXPLAIN ", false, nil
	}
	return "EXPLAIN (" + strings.Join(opts, ", ") + ") ", analyze, nil
}

func explainFormat(st *pg.ExplainStmt) string {
	for _, o := range st.Options {
		if d := o.GetDefElem(); d.Defname == "format" {
			return strings.ToLower(d.Arg.GetString_().GetSval())
		}
	}
	return "text"
}
