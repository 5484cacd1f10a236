package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
	body := st.Query
	e := body.GetExecuteStmt()
	if as := body.GetCreateTableAsStmt(); as != nil && !analyze {
		e = as.Query.GetExecuteStmt()
	}
	if e != nil {
		if body, err = s.executed(e); err != nil {
			return err
		}
		if body == nil {
			return s.runLocal(&simple, req.text)
		}
	}
	if change, far, err := s.changes(body, analyze); err != nil {
		return err
	} else if far {
		return s.explainChange(req, st, body, analyze)
	} else if change && analyze {
		simple.node = body
		return s.runLocalWrite(&simple)
	}
	query := explained(body)
	if query == nil {
		return s.runLocal(&simple, req.text)
	}
	sql, slices, q, err := s.topOf(query, nil, true)
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
	t := s.newTree(st, q.Slices, s.placed(q.Slices))
	var o outcome
	if analyze && len(q.Slices) > 0 {
		if t.ran, o, err = s.analyze(req.ctx, st, q, sql); err != nil {
			return err
		}
		t.setSQL(t.ran.sql)
	}
	if err := s.slicePlans(req.ctx, t, st); err != nil {
		return err
	}
	local := s.asking(sql)
	var tokens []string
	if q.Kind != plan.Gather {
		if tokens, err = s.readTokens(len(slices) > 0, local); err != nil {
			return err
		}
		if t.ran == nil {
			lines, err := local(prefix)
			if err != nil {
				return err
			}
			if o.top, err = readPlan(lines, t.json); err != nil {
				return err
			}
		}
	}
	f := footing{reason: q.Reason, locked: lockedBy(q.Slices), inTurn: s.inTurn(q.Slices), summary: explainOn(st, "summary", true)}
	if t.ran != nil {
		f.lines, f.statistics = t.ran.statistics(), t.ran.statisticsJSON()
		if q.Kind == plan.Gather {
			f.took = o.last
		}
	}
	return s.sendPlan(req, st, t.body(q, o, tokens), f)
}

// asking returns what asks the local server for a plan of sql.
func (s *Session) asking(sql string) func(prefix string) ([][]byte, error) {
	return func(prefix string) ([][]byte, error) {
		res, err := s.local(prefix + sql)
		if err != nil {
			return nil, err
		}
		return firstColumn(res.rows), nil
	}
}

// newTree is the tree for the plan of a statement with these slices, placed so.
func (s *Session) newTree(st *pg.ExplainStmt, slices []plan.Slice, at placement) *planTree {
	t := &planTree{slices: slices, segments: s.numSegments(), json: explainFormat(st) != "text", timing: explainOn(st, "timing", true)}
	for i := range slices {
		t.sql = append(t.sql, at.sql(slices, i))
	}
	return t
}

// setSQL takes over what the slices have been run as, if they have.
func (t *planTree) setSQL(sql []string) {
	if sql != nil {
		t.sql = sql
	}
}

// serverPlan is a plan as one server has printed it: in lines, or in JSON.
type serverPlan struct {
	lines []string
	tree  planNode
	rest  map[string]any // what else was in the JSON
}

func (p serverPlan) empty() bool { return p.lines == nil && p.tree == nil }

// readPlan reads what EXPLAIN has printed.
func readPlan(values [][]byte, json bool) (p serverPlan, err error) {
	if json {
		p.tree, p.rest, err = treeIn(values)
	} else {
		p.lines = planLines(values)
	}
	return p.unportioned(), err
}

// body is the plan of a query without what stands below it.
func (t *planTree) body(q *plan.Query, o outcome, tokens []string) serverPlan {
	switch {
	case q.Kind == plan.Gather && t.json:
		return serverPlan{tree: t.gatherNode(o)}
	case q.Kind == plan.Gather:
		return serverPlan{lines: t.gather(o)}
	case t.json:
		return serverPlan{tree: t.placeTree(o.top.tree, tokens), rest: o.top.rest}
	}
	return serverPlan{lines: t.place(o.top.lines, tokens)}
}

// footing is what stands below a plan.
type footing struct {
	reason     string
	locked     []string // tables
	inTurn     string   // why slices do not run beside each other
	lines      []string // of each slice, with ANALYZE
	statistics []any    // the same in JSON
	planning   time.Duration
	took       time.Duration
	summary    bool // the times are wanted
}

// inTurn says why slices that would run beside each other, in readers, run one after the
// other; "" when they do not.
func (s *Session) inTurn(sls []plan.Slice) string {
	many := s.placed(sls).inTurn(sls)
	switch {
	case many < 0:
		return ""
	case sls[many].Temp || sls[sls[many].To].Temp:
		return "temporary tables"
	case locksRows(sls):
		return "rows that are locked"
	case s.gang.InTransaction() && s.gang.Wrote():
		return "the transaction has written"
	case !s.gang.ReadersSee():
		return "the transaction is SERIALIZABLE, or has locked tables"
	case s.txn.noReaders:
		return "a statement of the transaction could not have readers"
	}
	return ""
}

const (
	optimizer   = "Postgres-based planner"
	tookKey     = "Execution Time"
	planningKey = "Planning Time"
	lockedKey   = "Tables Locked in EXCLUSIVE Mode"
	inTurnKey   = "Slices Run in Turn"
)

// below adds the footing to a plan in lines. The times that a server has printed
// stand where Greenplum has them.
func (f footing) below(lines []string, interconnect string) []string {
	var took, planning string
	lines = slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		switch {
		case strings.HasPrefix(l, tookKey+": "):
			took = l
		case strings.HasPrefix(l, planningKey+": "):
			planning = l
		default:
			return false
		}
		return true
	})
	if f.reason != "" {
		lines = append(lines, "Not pushed down: "+f.reason)
	}
	if len(f.locked) > 0 {
		lines = append(lines, lockedKey+": "+strings.Join(f.locked, ", "))
	}
	if f.inTurn != "" {
		lines = append(lines, inTurnKey+": "+f.inTurn)
	}
	if f.planning > 0 && f.summary {
		planning = fmt.Sprintf("%s: %.3f ms", planningKey, milliseconds(f.planning))
	}
	if planning != "" {
		lines = append(lines, planning)
	}
	lines = append(append(lines, f.lines...), "Interconnect: "+interconnect, "Optimizer: "+optimizer)
	if f.took > 0 && f.summary {
		took = fmt.Sprintf("%s: %.3f ms", tookKey, milliseconds(f.took))
	}
	if took != "" {
		lines = append(lines, took)
	}
	return lines
}

// sendPlan answers an EXPLAIN.
func (s *Session) sendPlan(req *request, st *pg.ExplainStmt, p serverPlan, f footing) error {
	format := explainFormat(st)
	lines, oid := p.lines, uint32(25)
	if format == "text" {
		lines = f.below(lines, s.icType)
	} else {
		rest := maps.Clone(p.rest)
		if rest == nil {
			rest = map[string]any{}
		}
		if f.reason != "" {
			rest["Not Pushed Down"] = f.reason
		}
		if len(f.locked) > 0 {
			rest[lockedKey] = f.locked
		}
		if len(f.statistics) > 0 {
			rest["Slice statistics"] = f.statistics
		}
		if f.inTurn != "" {
			rest[inTurnKey] = f.inTurn
		}
		if f.planning > 0 && f.summary {
			rest[planningKey] = milliseconds(f.planning)
		}
		if f.took > 0 && f.summary {
			rest[tookKey] = milliseconds(f.took)
		}
		rest["Interconnect"], rest["Optimizer"] = s.icType, optimizer
		text, err := printPlan(format, p.tree, rest)
		if err != nil {
			return err
		}
		lines = []string{text}
		switch format {
		case "json":
			oid = 114
		case "xml":
			oid = 142
		}
	}
	if req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("QUERY PLAN"), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1}}})
	}
	for _, l := range lines {
		s.out.send(&pgproto3.DataRow{Values: [][]byte{[]byte(l)}})
	}
	s.complete("EXPLAIN")
	return nil
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
			p := t.ran.planOf(i, seg)
			if !explainOn(st, "costs", true) {
				p.dropCosts() // auto_explain always shows them
			}
			t.plans[i], t.trees[i] = p.lines, p.tree
		}
		ask := func(prefix string) ([][]byte, error) {
			if err := s.beforeDispatch(ctx); err != nil {
				return nil, err
			}
			res, err := s.gang.Exec(ctx, []int{seg}, prefix+t.sql[i])
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
			p, err := readPlan(lines, t.json)
			if err != nil {
				return err
			}
			t.plans[i], t.trees[i] = p.lines, p.tree
		}
		if t.ran != nil && t.ran.tokens != nil {
			t.tokens[i] = t.ran.tokens[i][seg]
			continue
		}
		if t.tokens[i], err = s.readTokens(t.reads(i), ask); err != nil {
			return err
		}
	}
	return nil
}

// namesTokens begins the EXPLAIN that names the tokens of row sources.
const namesTokens = "EXPLAIN (VERBOSE, COSTS OFF) "

// readTokens are the tokens of the row sources in a plan, in the order in which
// EXPLAIN shows them. Only a verbose one names them, and it shows the same
// nodes in the same order.
func (s *Session) readTokens(any bool, ask func(prefix string) ([][]byte, error)) ([]string, error) {
	if !any {
		return nil, nil
	}
	lines, err := ask(namesTokens)
	if err != nil {
		return nil, err
	}
	return tokensRead(lines), nil
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

// explained is the SELECT in a statement that EXPLAIN shows the plan of; nil
// when there is none.
func explained(n *pg.Node) *pg.Node {
	switch st := n.Node.(type) {
	case *pg.Node_SelectStmt:
		if st.SelectStmt.IntoClause != nil {
			sel := proto.Clone(n).(*pg.Node)
			sel.GetSelectStmt().IntoClause = nil
			return sel
		}
		return n
	case *pg.Node_DeclareCursorStmt:
		return explained(st.DeclareCursorStmt.Query)
	case *pg.Node_CreateTableAsStmt:
		return explained(st.CreateTableAsStmt.Query)
	}
	return nil
}

// changes says whether a statement changes the rows of a table, and whether that
// is a distributed one. A table that is to be made is, when the statement runs.
func (s *Session) changes(n *pg.Node, runs bool) (change, far bool, err error) {
	var rv *pg.RangeVar
	switch st := n.Node.(type) {
	case *pg.Node_InsertStmt:
		rv = st.InsertStmt.Relation
	case *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		rv, _ = modifyTarget(n)
	case *pg.Node_CreateTableAsStmt:
		return runs, runs, nil
	case *pg.Node_SelectStmt:
		into := runs && st.SelectStmt.IntoClause != nil
		return into, into, nil
	default:
		return false, false, nil
	}
	r, err := s.relation(rv.Schemaname, rv.Relname)
	return true, r != nil && r.Policy != nil, err
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
		case "timing", "wal", "summary":
			if planOnly {
				continue // they ask for ANALYZE, or speak of the whole
			}
		case "format":
			if f := explainFormat(st); f == "yaml" || f == "xml" {
				value = "json" // which is turned into them
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

// explainOn says whether an option that is on or off is on; byDefault when it is
// not given.
func explainOn(st *pg.ExplainStmt, name string, byDefault bool) bool {
	on := byDefault
	for _, o := range st.Options {
		if d := o.GetDefElem(); d.Defname == name {
			on = !optionOff(d)
		}
	}
	return on
}

// explainFormat is text, json, yaml or xml.
func explainFormat(st *pg.ExplainStmt) string {
	format := "text"
	for _, o := range st.Options {
		if d := o.GetDefElem(); d.Defname == "format" {
			format = strings.ToLower(optionValue(d))
		}
	}
	return format
}
