package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	pg "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/internal/randomsql"
)

// TestInsert runs testdata/insert: each INSERT … SELECT, which gives every
// column of its table in order, is planned, run over the segments and in the
// plain database, and the tables compared; every row must be on the segment
// that its key hashes to.
//
//	exec [segments=n], load   as in TestPlans
//	insert table=t            the statement; t is what it fills. "plan": it is not run
func TestInsert(t *testing.T) {
	datadriven.Walk(t, "testdata/insert", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			var table string
			switch d.Cmd {
			case "exec":
				n := testSegments
				d.MaybeScanArgs(t, "segments", &n)
				w.createOn(d.Input, n)
				return ""
			case "load":
				d.ScanArgs(t, "table", &table)
				w.load(table, d.Input)
				return ""
			case "insert":
				d.ScanArgs(t, "table", &table)
				in, err := w.planInsert(table, d.Input)
				if err != nil {
					return showError(err)
				}
				if d.HasArg("plan") {
					return showInsertion(in)
				}
				return showInsertion(in) + w.insert(table, d.Input, in)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func insertRows(sql string) (*pg.Node, error) {
	st, err := Parse(sql)
	if err != nil {
		return nil, err
	}
	return st.Node.GetInsertStmt().SelectStmt, nil
}

func (w *world) planInsert(table, sql string) (*Insertion, error) {
	rows, err := insertRows(sql)
	if err != nil {
		return nil, err
	}
	rel := w.relation(table)
	columns := make([]int, len(rel.Columns))
	for i := range columns {
		columns[i] = i
	}
	return Insert(rows, rel, columns, w.cat, w.options())
}

func showInsertion(in *Insertion) string {
	if in.Slices == nil {
		reason := in.Reason
		if reason == "" {
			reason = in.Query.Kind.String() + ": " + in.Query.Reason
		}
		return "elsewhere (" + reason + ")\n"
	}
	var b strings.Builder
	if in.Replicated {
		b.WriteString("replicated ")
	}
	b.WriteString(map[bool]string{false: "here", true: "sent"}[in.Moved])
	if in.Reason != "" {
		b.WriteString(" (" + in.Reason + ")")
	}
	for i, s := range in.Slices {
		b.WriteString("\n  ")
		if i > 0 {
			var by []string
			for _, k := range s.Keys {
				by = append(by, s.Columns[k].Name)
			}
			fmt.Fprintf(&b, "%s %q to %d", s.Motion, strings.Join(by, ", "), s.To)
		} else {
			b.WriteString("insert")
		}
		if s.Segments != nil {
			fmt.Fprintf(&b, " on %v", s.Segments)
		}
		b.WriteString(": " + s.SQL)
	}
	return b.String() + "\n"
}

// insert executes a plan as the cluster would and compares. What the cluster's
// coordinator would have to place is not run.
func (w *world) insert(table, sql string, in *Insertion) string {
	if in.Slices == nil {
		return ""
	}
	want := w.ask("plain", sql)
	q := &Query{Kind: Gather, Slices: in.Slices}
	defer w.forgetMotions(q)
	if err := w.inputs(q, nil); err != nil {
		return compare(result{err: err}, want, false, false)
	}
	for _, i := range orAll(in.Slices[0].Segments) {
		if r := w.ask(segmentDB(i), "INSERT INTO "+table+" "+in.Slices[0].SQL); r.err != nil {
			return compare(r, want, false, false)
		}
	}
	if want.err != nil {
		return compare(result{}, want, false, false)
	}
	return w.sameTable(table, false) + w.misplaced(table)
}

// misplaced tells of a row of a hashed table that is not where its key says.
func (w *world) misplaced(table string) string {
	tab := w.tables[table]
	if tab.policy.Kind != Hashed {
		return ""
	}
	var oids []uint32
	var keys []string
	rel := w.relation(table)
	for _, k := range rel.Policy.Keys {
		oids, keys = append(oids, rel.Columns[k].TypeOID), append(keys, quote(rel.Columns[k].Name)+"::text")
	}
	n := tab.policy.NumSegments
	for i := range testSegments {
		r := w.ask(segmentDB(i), "SELECT "+strings.Join(keys, ", ")+" FROM "+table)
		for _, row := range r.rows {
			if k, ok := hashRow(oids, row, n); !ok || k != i {
				return fmt.Sprintf("  MISPLACED: %q is on segment %d, not %d\n", row, i, k)
			}
		}
	}
	return ""
}

var wrong = regexp.MustCompile(`(?m)^  (MISPLACED|WRONG|FAILS|SHOULD FAIL|DIFFERENT)`)

// TestInsertEquivalence is the proof that rows which segments insert by
// themselves are those that one PostgreSQL inserts, and in their places.
func TestInsertEquivalence(t *testing.T) {
	var stats struct{ inserts, refused, here, sent, replicated int }
	eachWorld(t, func(rt *rapid.T, w *world, g *randomsql.Generator, script []string) {
		for _, tab := range g.Tables() {
			if slices.ContainsFunc(tab.More, func(r randomsql.Relation) bool { return strings.Contains(r.Create, "inherits") }) {
				return // its rows in a child are not where the parent's key says
			}
		}
		for i := range *queries {
			into, sql := g.Insertion(fmt.Sprintf("n%d", i))
			table, create := into.Name, into.Create+" "+into.Distributed
			w.create(create)
			script = append(script, create, sql)
			stats.inserts++
			if w.ask("plain", "EXPLAIN "+sql).err != nil {
				stats.refused++
				continue
			}
			in, err := w.planInsert(table, sql)
			if err != nil {
				rt.Fatalf("%s\n%v", strings.Join(script, "\n"), err)
			}
			switch {
			case in.Moved:
				stats.sent++
			case in.Slices != nil:
				stats.here++
				if in.Replicated {
					stats.replicated++
				}
			}
			out := w.insert(table, sql, in)
			if out != "" && wrong.MatchString(out) {
				rt.Fatalf("%s\n%s\n%s", strings.Join(script, "\n"), out, showInsertion(in))
			}
		}
	})
	t.Logf("%+v", stats)
	if stats.inserts > 50 && (stats.refused*4 > stats.inserts || stats.here*20 < stats.inserts || stats.sent*20 < stats.inserts || stats.replicated == 0) {
		t.Errorf("%+v: the generator proves nothing", stats)
	}
}
