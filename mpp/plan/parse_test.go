package plan

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestText runs testdata/text: the parts of the package that read and rewrite
// statements without planning them.
func TestText(t *testing.T) {
	datadriven.Walk(t, "testdata/text", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "split":
				pieces, err := Split(d.Input)
				if err != nil {
					return showError(err)
				}
				var b strings.Builder
				for _, p := range pieces {
					fmt.Fprintf(&b, "%d: %q\n", p.Offset, p.Text)
				}
				return b.String()
			case "parse":
				st, err := Parse(d.Input)
				if err != nil {
					return showError(err)
				}
				return showStatement(st)
			case "relations":
				st, err := Parse(d.Input)
				if err != nil {
					return showError(err)
				}
				var b strings.Builder
				for _, n := range Relations(st.Node) {
					fmt.Fprintf(&b, "%q.%q\n", n.Schema, n.Name)
				}
				return b.String()
			case "settings":
				st, err := Parse(d.Input)
				if err != nil {
					return showError(err)
				}
				changed := RewriteSettings(st.Node)
				sql, err := Deparse(st.Node)
				if err != nil {
					return showError(err)
				}
				return fmt.Sprintf("%v: %s\n", changed, sql)
			}
			t.Fatalf("unknown command %q", d.Cmd)
			return ""
		})
	})
}

func showError(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return "error without SQLSTATE: " + err.Error() + "\n"
	}
	s := fmt.Sprintf("ERROR %s: %s", e.Code, e.Message)
	if e.Position > 0 {
		s += fmt.Sprintf(" at %d", e.Position)
	}
	if e.Detail != "" {
		s += "\nDETAIL: " + e.Detail
	}
	if e.Hint != "" {
		s += "\nHINT: " + e.Hint
	}
	return s + "\n"
}

func showStatement(st *Statement) string {
	var b strings.Builder
	kind := "empty"
	if st.Node != nil {
		kind = strings.TrimPrefix(fmt.Sprintf("%T", st.Node.Node), "*pg_query.Node_")
	}
	fmt.Fprintf(&b, "%s %q\n", kind, st.SQL)
	if d := st.Distribution; d != nil {
		fmt.Fprintf(&b, "distribution: %s", d.Kind)
		for _, k := range d.Keys {
			fmt.Fprintf(&b, " %q(%s)", k.Column, k.OpClass)
		}
		b.WriteString("\n")
	}
	if st.SetDistribution {
		b.WriteString("set distribution\n")
	}
	if st.Reorganize != nil {
		fmt.Fprintf(&b, "reorganize: %v\n", *st.Reorganize)
	}
	if st.ExpandTable {
		b.WriteString("expand table\n")
	}
	if st.ExecuteOn != 0 {
		fmt.Fprintf(&b, "execute on: %c\n", st.ExecuteOn)
	}
	if a := st.Node.GetAlterTableStmt(); a != nil {
		fmt.Fprintf(&b, "actions: %d\n", len(a.Cmds))
	}
	if a := st.Node.GetAlterFunctionStmt(); a != nil {
		fmt.Fprintf(&b, "actions: %d\n", len(a.Actions))
	}
	var opts []string
	for k, v := range st.Storage {
		opts = append(opts, k+"="+v)
	}
	sort.Strings(opts)
	for _, o := range opts {
		fmt.Fprintf(&b, "storage: %s\n", o)
	}
	return b.String()
}

// FuzzParse: neither Split nor Parse panics; what Split returns are parts of
// the text, at the places it says; Parse keeps the length; what Parse accepts
// Split does not cut in two.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"select 1; select 2", "create table t (a int) distributed by (a)", "select ';' ; -- x;\n /* ; */ select $$;$$",
		"create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 3",
		"create table t (a int) with (appendonly=true, fillfactor=50) distributed randomly",
		"alter table t set with (reorganize=true) distributed by (a, \"B\" int4_ops)",
		"create function f() returns setof int as $$ select 1 $$ language sql execute on all segments reads sql data",
		"create table é (é int) distributed by (é)", "alter table t expand table", "alter function f() execute on any",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if !utf8.ValidString(sql) || len(sql) > 4096 {
			return
		}
		pieces, err := Split(sql)
		if err == nil {
			runes := []rune(sql)
			for _, p := range pieces {
				if !strings.HasPrefix(string(runes[p.Offset:]), p.Text) {
					t.Fatalf("piece %q is not at %d of %q", p.Text, p.Offset, sql)
				}
			}
		}
		st, err := Parse(sql)
		if err != nil {
			return
		}
		if st.SQL != "" && len(st.SQL) != len(sql) {
			t.Fatalf("%q became %q", sql, st.SQL)
		}
		if st.Node == nil {
			return
		}
		if _, err := Split(sql); err != nil {
			t.Fatalf("Parse takes %q, Split does not: %v", sql, err)
		}
		Relations(st.Node)
		RewriteSettings(st.Node)
	})
}

// TestWalkSeesAll holds the walker against protobuf's own view of a tree.
func TestWalkSeesAll(t *testing.T) {
	res, err := pg.Parse(`WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a+1 FROM x) INSERT INTO t (a, b[1])
		SELECT CASE WHEN a IS NULL THEN ARRAY[1,2] ELSE (SELECT array_agg(z ORDER BY z) FILTER (WHERE z > 0) OVER (PARTITION BY 1 ORDER BY 2) FROM u) END
		FROM x JOIN LATERAL f(a) WITH ORDINALITY AS g(h, i) ON true, v TABLESAMPLE system (1) REPEATABLE (2)
		ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *`)
	if err != nil {
		t.Fatal(err)
	}
	want := countMessages(res.Stmts[0].Stmt.ProtoReflect())
	got := 0
	walk(res.Stmts[0].Stmt, func(any) bool { got++; return true })
	if got != want {
		t.Fatalf("walk saw %d messages, the tree has %d", got, want)
	}
}

func countMessages(m protoreflect.Message) int {
	n := 1
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				n += countMessages(v.List().Get(i).Message())
			}
		default:
			n += countMessages(v.Message())
		}
		return true
	})
	return n
}
