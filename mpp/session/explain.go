package session

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

func literal(s string) string { return catalog.Literal(s) }

// runExplain shows a plan: motions in Greenplum's words, and under each what a
// segment's PostgreSQL does for it.
func (s *Session) runExplain(req *request, st *pg.ExplainStmt) error {
	simple := *req
	simple.portal = nil
	if st.Query.GetSelectStmt() == nil || st.Query.GetSelectStmt().IntoClause != nil {
		return s.runLocal(&simple, req.text)
	}
	sql, slices, q, err := s.topOf(st.Query, nil)
	if err != nil {
		return err
	}
	if q.Kind == plan.Local && q.Top == "" {
		return s.runLocal(&simple, req.text)
	}
	prefix, analyze, err := explainPrefix(st)
	if err != nil {
		return err
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
	out = append(out, " Interconnect: "+s.icType, " Optimizer: Postgres-based planner")
	if req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("QUERY PLAN"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}})
	}
	for _, l := range out {
		s.out.send(&pgproto3.DataRow{Values: [][]byte{[]byte(l)}})
	}
	s.complete("EXPLAIN")
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
		case "format":
			if !strings.EqualFold(value, "text") {
				return "", false, sqlError("0A000", "EXPLAIN of a distributed query is printed as text only")
			}
		}
		opts = append(opts, strings.TrimSpace(d.Defname+" "+value))
	}
	if len(opts) == 0 {
		return "EXPLAIN ", false, nil
	}
	return "EXPLAIN (" + strings.Join(opts, ", ") + ") ", analyze, nil
}
