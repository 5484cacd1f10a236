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
	format := explainFormat(st)
	if format != "text" && format != "json" {
		return sqlError("0A000", "EXPLAIN of a distributed query is printed as text or JSON only")
	}
	t := &planTree{slices: q.Slices, segments: s.numSegments(), json: format == "json"}
	var o outcome
	if analyze && len(q.Slices) > 0 {
		if t.ran, o, err = s.analyze(req.ctx, st, q, sql); err != nil {
			return err
		}
	}
	if err := s.slicePlans(req.ctx, t, st); err != nil {
		return err
	}
	local := func(prefix string) ([][]byte, error) {
		res, err := s.local(prefix + sql)
		if err != nil {
			return nil, err
		}
		return firstColumn(res.rows), nil
	}
	var tokens []string
	if q.Kind != plan.Gather {
		if tokens, err = s.readTokens(len(slices) > 0, local); err != nil {
			return err
		}
		if t.ran == nil {
			prefix, _, perr := explainPrefix(st)
			if perr != nil {
				return perr
			}
			if o.top, err = local(prefix); err != nil {
				return err
			}
		}
	}
	lines, err := s.planText(t, q, o, tokens)
	if err != nil {
		return err
	}
	s.sendPlan(req, lines, t.json)
	return nil
}

// planText puts the plan of a statement together.
func (s *Session) planText(t *planTree, q *plan.Query, o outcome, tokens []string) (lines []string, err error) {
	const optimizer = "Postgres-based planner"
	if t.json {
		var tree planNode
		rest := map[string]any{}
		if q.Kind == plan.Gather {
			tree = t.gatherNode(o)
		} else if tree, rest, err = treeIn(o.top); err != nil {
			return nil, err
		} else {
			tree = t.placeTree(tree, tokens)
		}
		if q.Reason != "" {
			rest["Not Pushed Down"] = q.Reason
		}
		if t.ran != nil {
			rest["Slice statistics"] = t.ran.statisticsJSON()
			if q.Kind == plan.Gather {
				rest["Execution Time"] = milliseconds(o.last)
			}
		}
		rest["Interconnect"], rest["Optimizer"] = s.icType, optimizer
		return printTree(tree, rest)
	}
	if q.Kind == plan.Gather {
		lines = t.gather(o)
	} else {
		lines = t.place(planLines(o.top), tokens)
	}
	if q.Reason != "" {
		lines = append(lines, "Not pushed down: "+q.Reason)
	}
	if t.ran != nil {
		lines = append(lines, t.ran.statistics()...)
	}
	lines = append(lines, "Interconnect: "+s.icType, "Optimizer: "+optimizer)
	if t.ran != nil && q.Kind == plan.Gather {
		lines = append(lines, fmt.Sprintf("Execution Time: %.3f ms", milliseconds(o.last)))
	}
	return lines, nil
}

// slicePlans asks one of each slice's segments what it does for it, or takes what
// it has said of that when it did it.
func (s *Session) slicePlans(ctx context.Context, t *planTree, st *pg.ExplainStmt) error {
	prefix, _, err := explainOptions(st, t.ran != nil)
	if err != nil {
		return err
	}
	t.plans, t.trees, t.tokens = make([][]string, len(t.slices)), make([]planNode, len(t.slices)), make([][]string, len(t.slices))
	for i := range t.slices {
		sl := &t.slices[i]
		if rd := sl.Read; rd != nil {
			what := fmt.Sprintf("Scan on %s with the rights of %s", rd.Table, rd.Owner)
			t.plans[i] = []string{what, "  for: " + sl.SQL}
			t.trees[i] = planNode{"Node Type": "Scan with the rights of an owner", "Relation Name": rd.Table, "Owner": rd.Owner, "For": sl.SQL}
			continue
		}
		seg := 0
		if len(sl.Segments) > 0 {
			seg = sl.Segments[0]
		}
		if t.ran != nil {
			if n, ok := t.ran.busiest(i); ok {
				seg = n
			}
			if t.json {
				t.trees[i] = t.ran.treeOf(i, seg)
			} else {
				t.plans[i] = t.ran.planOf(i, seg)
			}
			if !explainCosts(st) {
				t.dropCosts(i)
			}
		}
		ask := func(prefix string) ([][]byte, error) {
			if err := s.beforeDispatch(ctx); err != nil {
				return nil, err
			}
			res, err := s.gang.Exec(ctx, []int{seg}, prefix+sl.SQL)
			if err != nil {
				return nil, err
			}
			return firstColumn(res[0].Rows), nil
		}
		if t.plans[i] == nil && t.trees[i] == nil { // it is not run, or was not
			lines, err := ask(prefix)
			if err != nil {
				return err
			}
			if t.json {
				if t.trees[i], _, err = treeIn(lines); err != nil {
					return err
				}
			} else {
				t.plans[i] = planLines(lines)
			}
		}
		if t.tokens[i], err = s.readTokens(t.reads(i), ask); err != nil {
			return err
		}
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

// sendPlan answers an EXPLAIN, whose lines are one value when it is in JSON.
func (s *Session) sendPlan(req *request, lines []string, json bool) {
	oid := uint32(25)
	if json {
		oid = 114
	}
	if req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("QUERY PLAN"), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1}}})
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
	s.sendPlan(req, lines, false)
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
		value := optionValue(d)
		switch d.Defname {
		case "analyze":
			analyze = !optionOff(d)
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

func optionValue(d *pg.DefElem) string {
	if d.Arg.GetString_() != nil {
		return d.Arg.GetString_().GetSval()
	}
	return settingValue([]*pg.Node{d.Arg})
}

func optionOff(d *pg.DefElem) bool {
	v := optionValue(d)
	return strings.EqualFold(v, "off") || strings.EqualFold(v, "false") || v == "0"
}

// explainCosts says whether costs are to be shown. Auto_explain shows them always.
func explainCosts(st *pg.ExplainStmt) bool {
	for _, o := range st.Options {
		if d := o.GetDefElem(); d.Defname == "costs" {
			return !optionOff(d)
		}
	}
	return true
}

func explainFormat(st *pg.ExplainStmt) string {
	for _, o := range st.Options {
		if d := o.GetDefElem(); d.Defname == "format" {
			return strings.ToLower(d.Arg.GetString_().GetSval())
		}
	}
	return "text"
}
