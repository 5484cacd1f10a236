package plan

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestModify runs testdata/modify: each UPDATE or DELETE is planned, run over
// the segments and in the plain database, and the tables compared.
//
//	exec, load             as in TestPlans
//	modify table=t [any]   the statement; t is what it changes. "any": only the
//	                       number of rows is compared; "plan": it is not run
func TestModify(t *testing.T) {
	datadriven.Walk(t, "testdata/modify", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			switch d.Cmd {
			case "exec":
				w.create(d.Input)
				return ""
			case "load":
				var table string
				d.ScanArgs(t, "table", &table)
				w.load(table, d.Input)
				return ""
			case "modify":
				var table string
				d.ScanArgs(t, "table", &table)
				if d.HasArg("plan") {
					return planModify(w, d.Input)
				}
				return w.showModify(table, d.Input, d.HasArg("any"))
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func planModify(w *world, sql string) string {
	st, err := Parse(sql)
	if err != nil {
		return showError(err)
	}
	m, err := Modify(st.Node, w.cat, w.options())
	if err != nil {
		return showError(err)
	}
	return showModification(m)
}

func (w *world) showModify(table, sql string, any bool) string {
	st, err := Parse(sql)
	if err != nil {
		return showError(err)
	}
	m, err := Modify(st.Node, w.cat, w.options())
	if err != nil {
		return showError(err)
	}
	got := w.modify(sql, m)
	want := w.ask("plain", sql)
	out := showModification(m)
	if m.Kind == ModifyLocal {
		got.cols = want.cols
	}
	if m.Returning && got.cols != nil {
		// Columns are those that Describe tells; here the rows matter.
		got.cols = want.cols
	}
	out += compare(got, want, false, any)
	return out + w.sameTable(table, any)
}

func showModification(m *Modification) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", m.Kind)
	if m.Reason != "" {
		fmt.Fprintf(&b, " (%s)", m.Reason)
	}
	b.WriteString("\n")
	if m.Describe != "" {
		fmt.Fprintf(&b, "  describe: %s\n", m.Describe)
	}
	switch m.Kind {
	case ModifyLocal:
		b.WriteString("  " + showQuery(m.Query))
	case ModifyDirect:
		where := ""
		if m.Slice.Segments != nil {
			where = fmt.Sprintf(" on %v", m.Slice.Segments)
		}
		if m.Replicated {
			where += " replicated"
		}
		fmt.Fprintf(&b, "  slice%s: %s\n", where, m.Slice.SQL)
	case ModifyRows:
		rows, _ := Deparse(m.Rows)
		fmt.Fprintf(&b, "  rows: %s\n", rows)
		if m.NewRow {
			fmt.Fprintf(&b, "  new row: columns %v\n", m.NewColumns)
		}
		apply, err := m.ApplySQL("source")
		fmt.Fprintf(&b, "  apply: %s\n", apply)
		if err != nil {
			fmt.Fprintf(&b, "  ERROR %v\n", err)
		}
	}
	return b.String()
}

// modify executes a plan as the cluster would.
func (w *world) modify(sql string, m *Modification) result {
	all := firstSegments(testSegments)
	switch m.Kind {
	case ModifyLocal:
		return w.run(sql, m.Query)
	case ModifyDirect:
		segs := m.Slice.Segments
		if segs == nil {
			segs = all
		}
		var out result
		for i, s := range segs {
			r := w.ask("seg"+strconv.Itoa(s), m.Slice.SQL)
			if r.err != nil {
				return r
			}
			if out.cols = r.cols; i == 0 || !m.Replicated {
				out.rows = append(out.rows, r.rows...)
			}
		}
		return out
	}
	q, err := Select(m.Rows, w.cat, w.options())
	if err != nil {
		return result{err: err}
	}
	text, err := Deparse(m.Rows)
	if err != nil {
		return result{err: err}
	}
	rows := w.run(text, q)
	if rows.err != nil {
		return rows
	}
	describe := q.Describe
	if describe == "" {
		describe = text
	}
	cols, err := w.cat.Describe(describe, nil)
	if err != nil {
		return result{err: err}
	}
	fixed := 2
	if m.HasTable {
		fixed++
	}
	if len(cols) != fixed+m.NumValues {
		return result{err: fmt.Errorf("rows have %d columns, not %d+%d", len(cols), fixed, m.NumValues)}
	}
	var def []string
	for i, c := range cols {
		def = append(def, fmt.Sprintf("c%d %s", i+1, c.Type))
	}
	apply, err := m.ApplySQL("pg_temp.source")
	if err != nil {
		return result{err: err}
	}
	out := result{cols: []string{}}
	for _, s := range all {
		db := segmentDB(s)
		w.exec(db, "DROP TABLE IF EXISTS pg_temp.source; CREATE TEMP TABLE source ("+strings.Join(def, ", ")+")")
		var mine [][]string
		for _, row := range rows.rows {
			if row[0] == strconv.Itoa(s) || m.Replicated {
				mine = append(mine, row)
			}
		}
		if _, err := w.conns[db].PgConn().CopyFrom(context.Background(), strings.NewReader(copyText(mine)), "COPY pg_temp.source FROM STDIN"); err != nil {
			return result{err: err}
		}
		r := w.ask(db, apply)
		if r.err != nil {
			return r
		}
		if s == 0 || !m.Replicated {
			out.rows = append(out.rows, r.rows...)
		}
	}
	if m.NewRow {
		seen := map[string]bool{}
		var fresh [][]string
		for _, row := range rows.rows {
			key := strings.Join(row[:fixed], "|")
			if !seen[key] {
				seen[key] = true
				fresh = append(fresh, row[fixed:fixed+len(m.NewColumns)])
				if m.Returning {
					out.rows = append(out.rows, row[fixed+len(m.NewColumns):])
				}
			}
		}
		name := m.Target.Name
		w.exec("plain", "CREATE TEMP TABLE fresh AS SELECT * FROM "+name+" LIMIT 0")
		var list []string
		for _, i := range m.NewColumns {
			list = append(list, quote(m.Target.Columns[i].Name))
		}
		if _, err := w.conns["plain"].PgConn().CopyFrom(context.Background(), strings.NewReader(copyText(fresh)), "COPY fresh ("+strings.Join(list, ",")+") FROM STDIN"); err != nil {
			return result{err: err}
		}
		w.place(name)
	}
	return out
}

func copyText(rows [][]string) string {
	var buf strings.Builder
	for _, row := range rows {
		for i, v := range row {
			if i > 0 {
				buf.WriteByte('\t')
			}
			if v == "∅" {
				buf.WriteString(`\N`)
			} else {
				buf.WriteString(strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(v))
			}
		}
		buf.WriteByte('\n')
	}
	return buf.String()
}

// sameTable compares a table's rows on the segments, or on the coordinator when
// it is not distributed, with those in the plain database.
func (w *world) sameTable(table string, any bool) string {
	sql := "SELECT * FROM " + table
	want := w.ask("plain", sql).trimmed()
	tab := w.tables[table]
	if tab == nil {
		return compare(w.ask("coord", sql).trimmed(), want, false, any)
	}
	out := ""
	got := result{}
	for i := range testSegments {
		r := w.ask("seg"+strconv.Itoa(i), sql).trimmed()
		got.cols = r.cols
		if got.err == nil {
			got.err = r.err
		}
		if tab.policy.Kind == Replicated {
			out += compare(r, want, false, any)
			continue
		}
		got.rows = append(got.rows, r.rows...)
	}
	if tab.policy.Kind == Replicated {
		return out
	}
	return compare(got, want, false, any)
}
