package plan

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// fakeCatalog knows a few tables without any server.
type fakeCatalog struct{}

func fakeRelation(name string, kind PolicyKind, keys ...int) *Relation {
	r := &Relation{Schema: "public", Name: name, Kind: 'r', Rows: 1000, Columns: []Column{
		{Name: "a", TypeOID: 23, Type: "integer"}, {Name: "b", TypeOID: 25, Type: "text"},
		{Name: "c", TypeOID: 1700, Type: "numeric(10,2)"}, {Name: "k", TypeOID: 20, Type: "bigint"}}}
	if kind != 0 {
		r.Policy = &Policy{Kind: kind, Keys: keys}
	}
	return r
}

var fakeRelations = map[string]*Relation{
	"t": fakeRelation("t", Hashed, 0), "u": fakeRelation("u", Hashed, 3), "m": fakeRelation("m", Hashed, 0, 1),
	"s": fakeRelation("s", Random), "r": fakeRelation("r", Replicated), "loc": fakeRelation("loc", 0),
	"v": {Schema: "public", Name: "v", Kind: 'v', ViewDef: "SELECT t.a, t.b, count(*) AS n FROM t JOIN u ON t.a = u.k GROUP BY t.a, t.b;",
		Columns: []Column{{Name: "a", TypeOID: 23, Type: "integer"}, {Name: "b", TypeOID: 25, Type: "text"}, {Name: "n", TypeOID: 20, Type: "bigint"}}},
	"pk": func() *Relation { r := fakeRelation("pk", Hashed, 0); r.PrimaryKey = []int{0}; return r }(),
}

func (fakeCatalog) Relation(schema, name string) (*Relation, error) {
	if schema != "" && schema != "public" {
		return nil, nil
	}
	return fakeRelations[name], nil
}

func (c fakeCatalog) ReadAs(schema, name, _ string) (*Relation, error) {
	return c.Relation(schema, name)
}

func (fakeCatalog) Function(schema, name string) (Func, error) {
	f := Func{Found: true, Builtin: true, Volatility: 'i', Location: 'a'}
	switch name {
	case "count", "sum", "min", "max", "avg", "string_agg", "array_agg":
		f.Aggregate = true
	case "rank", "row_number":
		f.Window = true
	case "unnest", "generate_series":
		f.SetReturning = true
	case "random", "nextval":
		f.Volatility = 'v'
	case "now":
		f.Volatility = 's'
	case "lower", "upper", "abs", "length", "coalesce":
	case "on_segments":
		f = Func{Found: true, Volatility: 'v', SetReturning: true, Location: 's'}
	default:
		f = Func{}
	}
	return f, nil
}

// Describe makes up as many columns as the select list has.
func (fakeCatalog) Describe(sql string, _ []int) ([]Column, error) {
	st, err := Parse(sql)
	if err != nil {
		return nil, err
	}
	sel := nodeSelect(st.Node)
	for sel != nil && sel.Larg != nil {
		sel = sel.Larg
	}
	if sel == nil {
		return nil, errors.New("fake: not a SELECT")
	}
	var cols []Column
	for _, n := range sel.TargetList {
		if isStar(n.GetResTarget().GetVal()) {
			return nil, errors.New("fake: no stars")
		}
		name, _ := targetName(n.GetResTarget())
		cols = append(cols, Column{Name: name, TypeOID: 25, Type: "text"})
	}
	return cols, nil
}

// FuzzPlan plans whatever the parser takes: nothing panics, no tree given is
// changed, and all SQL that comes out can be parsed.
func FuzzPlan(f *testing.F) {
	for _, s := range []string{
		"select * from t", "select count(*), avg(c) from t join u on t.a = u.k where b > 'x' group by t.b having sum(k) > 1 order by 1 limit 3",
		"with recursive q as (select a from t union all select a + 1 from q where a < 5) select * from q, v",
		"select t, (t).a, t.gp_segment_id, ctid from t left join r using (a) where exists (select 1 from u where u.k = t.a)",
		"select distinct on (b) *, row_number() over (partition by a) from t natural join m as x(p, q)",
		"select * from gp_dist_random('t') x, on_segments() y", "select b, pk.c from pk group by pk.a, rollup (b)",
		"update t set b = (select max(b) from u), c = $1 from r where r.a = t.a returning *, r.b",
		"update t set a = a + 1, (b, c) = (select b, c from u) where a in (select a from v)",
		"delete from r using s where s.a = r.a", "update loc set b = 'x' where a in (select a from t)",
		"select * from (t join u using (k)) as j(x, y) where j.x = 3", "values (1), ((select a from t))",
		"insert into t select * from u", "select unnest(array[a]) from t tablesample bernoulli (10) for update of t",
		"select (select a from t limit 1), array(select k from u), a = any (select a from m) from s",
		"select a from t union select k from u order by 1", "select public.t.a from public.t where public.t.a = 1 and now() > '2020-01-01'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if !utf8.ValidString(sql) || len(sql) > 2000 {
			return
		}
		st, err := Parse(sql)
		if err != nil || st.Node == nil {
			return
		}
		before, err := Deparse(st.Node)
		if err != nil {
			return // pg_query cannot write it: nothing to plan
		}
		must := func(what, sql string) {
			if _, err := Parse(sql); err != nil {
				t.Fatalf("%s of %q: %v\n%s", what, before, err, sql)
			}
		}
		opt := Options{NumSegments: 3, ParamTypes: []string{"integer"}, Eval: func(string) (string, error) { return "2020-01-01", nil },
			Hash: func(_ []Column, v []string, n int) (int, bool) { return len(v[0]) % n, true }}
		check := func(q *Query) {
			if q.Top != "" {
				must("top", q.Top)
			}
			if q.Describe != "" {
				must("describe", q.Describe)
			}
			for _, s := range q.Slices {
				must("slice", s.SQL)
			}
			if q.Kind == Gather && len(q.Slices) == 0 || q.Kind == Top && (q.Top == "" || strings.Contains(q.Top, "?gp")) {
				t.Fatalf("%q: %+v", before, q)
			}
		}
		switch st.Node.Node.(type) {
		case *pg.Node_SelectStmt:
			for _, off := range []bool{false, true} {
				opt.NoPushdown = off
				if q, err := Select(st.Node, fakeCatalog{}, opt); err == nil {
					check(q)
				}
			}
		case *pg.Node_UpdateStmt, *pg.Node_DeleteStmt:
			m, err := Modify(st.Node, fakeCatalog{}, opt)
			if err != nil {
				break
			}
			switch m.Kind {
			case ModifyLocal:
				check(m.Query)
			case ModifyDirect:
				must("slice", m.Slice.SQL)
			case ModifyRows:
				apply, err := m.ApplySQL("x")
				if err != nil {
					t.Fatalf("%q: %v", before, err)
				}
				must("apply", apply)
				if q, err := Select(m.Rows, fakeCatalog{}, opt); err == nil {
					check(q)
				}
			}
		}
		if after, err := Deparse(st.Node); err != nil || after != before {
			t.Fatalf("planning changed %q to %q (%v)", before, after, err)
		}
		_, _ = ReplaceSegmentID(st.Node, fakeCatalog{})
	})
}

func BenchmarkSelect(b *testing.B) {
	for _, bm := range []struct{ name, sql string }{
		{"point", "select b, c from t where a = 42"},
		{"count", "select b, count(*) from t where c > 5 group by b order by 2 desc limit 10"},
		{"join", "select t.b, sum(u.c) from t join u on t.a = u.k where u.b = 'x' group by t.b"},
		{"gather", "select t.b from t join u on t.a = u.a where u.b = 'x'"},
		{"local", "select * from loc where a = 1"},
	} {
		b.Run(bm.name, func(b *testing.B) {
			st, err := Parse(bm.sql)
			if err != nil {
				b.Fatal(err)
			}
			opt := Options{NumSegments: 3, Hash: func(_ []Column, v []string, n int) (int, bool) { return 1, true }}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Select(st.Node, fakeCatalog{}, opt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			if _, err := Parse("select t.b, sum(u.c) from t join u on t.a = u.k where u.b = 'x' group by t.b"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
