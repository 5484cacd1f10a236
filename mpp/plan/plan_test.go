package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/trunkline-db/trunkline/internal/randomsql"
)

// TestPlans runs testdata/plans: each query's plan is printed, then executed
// over a real server, and its answer compared with that of the plain database,
// where every row is in one place.
//
//	exec [segments=n]    a definition, made everywhere; DISTRIBUTED clauses count
//	load table=t         rows for a table: VALUES or SELECT
//	size table=t rows=n  what the planner takes for the table's number of rows
//	distinct table=t column=c values=n
//	                     and for the number of different values of a column
//	select [flags]       a query; "ordered": in the answer's order, "any": only
//	                     the number of rows is compared (LIMIT without ORDER BY),
//	                     "rows": the answer itself is printed and not compared
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata/plans", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			switch d.Cmd {
			case "exec":
				n := testSegments
				d.MaybeScanArgs(t, "segments", &n)
				w.createOn(d.Input, n)
				return ""
			case "load":
				var table string
				d.ScanArgs(t, "table", &table)
				w.load(table, d.Input)
				return ""
			case "size":
				var table string
				var n int
				d.ScanArgs(t, "table", &table)
				d.ScanArgs(t, "rows", &n)
				w.tables[table].size = float64(n)
				w.cat.forget()
				return ""
			case "distinct":
				var table, column string
				var n int
				d.ScanArgs(t, "table", &table)
				d.ScanArgs(t, "column", &column)
				d.ScanArgs(t, "values", &n)
				if w.tables[table].distinct == nil {
					w.tables[table].distinct = map[string]float64{}
				}
				w.tables[table].distinct[column] = float64(n)
				w.cat.forget()
				return ""
			case "select":
				return w.showSelect(d)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func (w *world) options() Options {
	n := 0
	return Options{NumSegments: testSegments, Replica: 1, Token: func() string { n++; return fmt.Sprint(n) }, Hash: w.hash, Eval: w.eval, Merges: bytewise, Sends: sends}
}

func (w *world) showSelect(d *datadriven.TestData) string {
	st, err := Parse(d.Input)
	if err != nil {
		return showError(err)
	}
	opt := w.options()
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "params":
			opt.ParamTypes = a.Vals
		case "own": // tables
			opt.Own = func(r *Relation) bool { return slices.Contains(a.Vals, r.Name) }
		case "values":
			opt.Param = func(n int) (string, bool) { return a.Vals[n-1], a.Vals[n-1] != "?" }
		}
	}
	q, err := Select(st.Node, w.cat, opt)
	if err != nil {
		return showError(err)
	}
	out := showQuery(q)
	if opt.ParamTypes != nil {
		return out
	}
	got := w.run(d.Input, q)
	if d.HasArg("rows") {
		return out + showRows(got)
	}
	want := w.ask("plain", d.Input)
	return out + compare(got, want, d.HasArg("ordered"), d.HasArg("any"))
}

func showQuery(q *Query) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", q.Kind)
	if q.Reason != "" {
		fmt.Fprintf(&b, " (%s)", q.Reason)
	}
	b.WriteString("\n")
	if q.Top != "" {
		fmt.Fprintf(&b, "  top: %s\n", q.Top)
	}
	for _, f := range q.Fold {
		fmt.Fprintf(&b, "  fold: %s of c%d, %d bytes\n", [...]string{"count", "sum", "min", "max"}[f.Op], f.Column+1, f.Size)
	}
	if q.Describe != "" {
		fmt.Fprintf(&b, "  describe: %s\n", q.Describe)
	}
	for _, s := range q.Slices {
		where := ""
		if s.Segments != nil {
			where = fmt.Sprintf(" on %v", s.Segments)
		}
		fmt.Fprintf(&b, "  slice %q%s: %s\n", s.Token, where, s.SQL)
		switch s.Motion {
		case RedistributeMotion:
			var by []string
			for _, k := range s.Keys {
				by = append(by, s.Columns[k].Name)
			}
			fmt.Fprintf(&b, "    redistributed to slice %q by %s\n", q.Slices[s.To].Token, strings.Join(by, ", "))
		case BroadcastMotion:
			fmt.Fprintf(&b, "    broadcast to slice %q\n", q.Slices[s.To].Token)
		case StayMotion:
			fmt.Fprintf(&b, "    stays, for slice %q\n", q.Slices[s.To].Token)
		}
		if s.Again {
			b.WriteString("    may be read again\n")
		}
		if s.LocksRows {
			b.WriteString("    locks rows\n")
		}
		for _, l := range s.Locks {
			fmt.Fprintf(&b, "    locks %v %s, nowait %t\n", l.Name, l.Strength, l.NoWait)
		}
		if s.Params != nil {
			fmt.Fprintf(&b, "    parameters %v\n", s.Params)
		}
		if s.Merge != nil {
			fmt.Fprintf(&b, "    merged %s\n", showMerge(s.Merge))
		}
	}
	return timestamps.ReplaceAllString(b.String(), "'TIME'")
}

var timestamps = regexp.MustCompile(`'\d\d\d\d-\d\d-\d\d( \d\d:[^']*)?'`)

func showRows(r result) string {
	if r.err != nil {
		return randomsql.ErrorText(r.err) + "\n"
	}
	var b strings.Builder
	slices.SortFunc(r.rows, slices.Compare[[]string])
	for _, row := range r.rows {
		b.WriteString("  " + strings.Join(row, "|") + "\n")
	}
	return b.String()
}

// trimmed is a result without what means nothing, as randomsql's Trimmed.
func (r result) trimmed() result {
	r.rows = r.shared().Trimmed().Rows
	return r
}

// compare tells whether two answers are the same.
func compare(got, want result, ordered, any bool) string {
	switch diff := randomsql.Difference(got.shared(), want.shared(), ordered, any); {
	case diff != "":
		return "  " + diff + "\n"
	case want.err != nil:
		return "  both fail: " + randomsql.ErrorText(want.err) + "\n"
	}
	return fmt.Sprintf("  same %d rows\n", len(got.rows))
}
