package session

import (
	"context"
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
	t := &planTree{slices: q.Slices, segments: s.numSegments()}
	if err := s.slicePlans(req.ctx, t, st); err != nil {
		return err
	}
	var out []string
	if q.Kind == plan.Gather {
		out = t.gather()
	} else {
		tokens, err := s.readTokens(len(slices) > 0, func(prefix string) ([][]byte, error) {
			res, err := s.local(prefix + sql)
			if err != nil {
				return nil, err
			}
			return firstColumn(res.rows), nil
		})
		if err != nil {
			return err
		}
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
		out = t.place(planLines(firstColumn(res.rows)), tokens)
	}
	if q.Reason != "" {
		out = append(out, "Not pushed down: "+q.Reason)
	}
	s.sendPlan(req, append(out, "Interconnect: "+s.icType, "Optimizer: Postgres-based planner"))
	return nil
}

// slicePlans asks one of each slice's segments what it does for it.
func (s *Session) slicePlans(ctx context.Context, t *planTree, st *pg.ExplainStmt) error {
	for i := range t.slices {
		sl := &t.slices[i]
		if rd := sl.Read; rd != nil {
			t.plans = append(t.plans, []string{fmt.Sprintf("Scan on %s with the rights of %s", rd.Table, rd.Owner), "  for: " + sl.SQL})
			t.tokens = append(t.tokens, nil)
			continue
		}
		segs := []int{0}
		if len(sl.Segments) > 0 {
			segs = sl.Segments[:1]
		}
		ask := func(prefix string) ([][]byte, error) {
			if err := s.beforeDispatch(ctx); err != nil {
				return nil, err
			}
			res, err := s.gang.Exec(ctx, segs, prefix+sl.SQL)
			if err != nil {
				return nil, err
			}
			return firstColumn(res[0].Rows), nil
		}
		// One segment alone has nothing to read from the others: what reads
		// them is not run.
		prefix, _, err := explainOptions(st, t.reads(i))
		if err != nil {
			return err
		}
		lines, err := ask(prefix)
		if err != nil {
			return err
		}
		tokens, err := s.readTokens(t.reads(i), ask)
		if err != nil {
			return err
		}
		t.plans, t.tokens = append(t.plans, planLines(lines)), append(t.tokens, tokens)
	}
	return nil
}

// readTokens are the tokens of the row sources in a plan, in the order in which
// EXPLAIN shows them. Only a verbose one names them, and it shows the same
// nodes in the same order.
func (s *Session) readTokens(any bool, ask func(prefix string) ([][]byte, error)) ([]string, error) {
	if !any {
		return nil, nil
	}
	lines, err := ask("EXPLAIN (VERBOSE, COSTS OFF) ")
	if err != nil {
		return nil, err
	}
	return tokensRead(planLines(lines)), nil
}

func firstColumn(rows [][][]byte) [][]byte {
	out := make([][]byte, len(rows))
	for i, row := range rows {
		out[i] = row[0]
	}
	return out
}

func planLines(values [][]byte) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
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

// explainPrefix is EXPLAIN with the client's options.
func explainPrefix(st *pg.ExplainStmt) (prefix string, analyze bool, err error) {
	return explainOptions(st, false)
}

// explainOptions is explainPrefix; with planOnly it is without what runs the
// statement.
func explainOptions(st *pg.ExplainStmt, planOnly bool) (prefix string, analyze bool, err error) {
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
			if planOnly {
				continue
			}
		case "timing", "wal":
			if planOnly {
				continue // they ask for ANALYZE
			}
		}
		opts = append(opts, strings.TrimSpace(d.Defname+" "+value))
	}
	if len(opts) == 0 {
		return "EXPLAIN ", analyze, nil
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
