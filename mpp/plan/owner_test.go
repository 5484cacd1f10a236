package plan

import (
	"slices"
	"strings"
	"testing"
)

// ownedCatalog has views of others, whose tables their owners may read.
type ownedCatalog struct {
	fakeCatalog
	owners map[string]string
	asked  *[]string
}

var ownedViews = map[string]string{
	"agg":     "SELECT t.b, count(*) AS n FROM t WHERE t.a > 5 AND t.b <> now()::text GROUP BY t.b;",
	"nested":  "SELECT agg.b, u.k FROM agg JOIN u ON u.k = agg.n;",
	"sampled": "SELECT count(*) AS n FROM t TABLESAMPLE bernoulli ('10'::real);",
	"called":  "SELECT count(*) AS n FROM t TABLESAMPLE bernoulli (length('x'));",
	"star":    "SELECT x.*, x.gp_segment_id FROM t x(one) JOIN u ON u.k = x.one;",
	"limited": "SELECT t.a FROM t ORDER BY t.a LIMIT 3;",
}

func (c ownedCatalog) Relation(schema, name string) (*Relation, error) {
	if def := ownedViews[name]; def != "" {
		return &Relation{Schema: "public", Name: name, Kind: 'v', ViewDef: def}, nil
	}
	return c.fakeCatalog.Relation(schema, name)
}

func (c ownedCatalog) ReadAs(schema, name, as string) (*Relation, error) {
	*c.asked = append(*c.asked, as+" reads "+name)
	r, err := c.Relation(schema, name)
	if r != nil {
		v := *r
		if as == "cid" && name == "t" { // who may see some rows
			v.Kind, v.Policy, v.ViewDef, v.Filtered = 'v', nil, "SELECT a, b, c, k FROM public.t WHERE b = current_user AND a < (SELECT max(u.a) FROM u, t WHERE false)", true
			v.Owner = "cid"
			return &v, err
		}
		v.Owner = c.owners[name]
		r = &v
	}
	return r, err
}

func TestOwnerReads(t *testing.T) {
	owners := map[string]string{"agg": "ann", "nested": "bob", "sampled": "ann", "called": "ann", "star": "ann", "limited": "ann"}
	for _, c := range []struct {
		sql   string
		asked []string
		reads []string // owner, table, columns, SQL
		sqls  []string // of the slices
		top   string   // a part of it
	}{
		{"SELECT * FROM agg WHERE n > 3 AND b = 'x'", []string{" reads agg", "ann reads t"},
			[]string{"ann t a,b: SELECT t.a, t.b FROM public.t"},
			[]string{`SELECT t.b AS c1, pg_catalog.count(*) AS c2 FROM pg_catalog.gp_owner_rows($1::text) AS "t"("a" integer, "b" text) WHERE (t.a > 5) AND (t.b <> 'TIME'::timestamp with time zone::text) GROUP BY 1`}, "OFFSET 0"},
		{"SELECT k FROM nested, t WHERE t.a = k", []string{" reads nested", "bob reads agg", "ann reads t", "bob reads u"},
			[]string{"ann t a,b: SELECT t.a, t.b FROM public.t", "", "bob u k: SELECT u.k FROM public.u"}, nil, ""},
		{"SELECT * FROM sampled", nil, []string{"ann t : SELECT NULL::boolean AS \"?\" FROM public.t TABLESAMPLE bernoulli('10'::real)"}, nil, ""},
		{"SELECT * FROM star", nil, []string{"ann t a,b,c,k: SELECT x.one, x.b, x.c, x.k, pg_catalog.gp_execution_segment() AS gp_segment_id FROM public.t x(one)", "ann u k: SELECT u.k FROM public.u"}, nil, ""},
		{"SELECT * FROM limited", nil, []string{"ann t a: SELECT t.a FROM public.t"}, nil, "LIMIT 3"},
	} {
		var asked []string
		cat := ownedCatalog{owners: owners, asked: &asked}
		st, err := Parse(c.sql)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Select(st.Node, cat, Options{NumSegments: 3, Eval: func(string) (string, error) { return "TIME", nil }})
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if c.asked != nil && !slices.Equal(asked, c.asked) {
			t.Errorf("%s: asked %q, expected %q", c.sql, asked, c.asked)
		}
		var reads, sqls []string
		for _, s := range q.Slices {
			sqls = append(sqls, s.SQL)
			if s.Read == nil {
				reads = append(reads, "")
				continue
			}
			reads = append(reads, s.Read.Owner+" "+s.Read.Table+" "+strings.Join(s.Read.Columns, ",")+": "+s.Read.SQL)
		}
		if !slices.Equal(reads, c.reads) {
			t.Errorf("%s: reads\n%s\nexpected\n%s", c.sql, strings.Join(reads, "\n"), strings.Join(c.reads, "\n"))
		}
		if c.sqls != nil && !slices.Equal(sqls, c.sqls) {
			t.Errorf("%s: slices\n%s\nexpected\n%s", c.sql, strings.Join(sqls, "\n"), strings.Join(c.sqls, "\n"))
		}
		if !strings.Contains(q.Top, c.top) || c.top == "LIMIT 3" && strings.Contains(q.Top, "OFFSET") {
			t.Errorf("%s: %s", c.sql, q.Top)
		}
	}
	// A table with policies is read through them, and so is one in them.
	st, _ := Parse("SELECT * FROM limited")
	_, err := Select(st.Node, ownedCatalog{owners: map[string]string{"limited": "cid"}, asked: new([]string)}, Options{NumSegments: 3})
	if err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("policies that read their table: %v", err)
	}
	// Nothing is called with the owner's rights.
	st, _ = Parse("SELECT * FROM called")
	if _, err := Select(st.Node, ownedCatalog{owners: owners, asked: new([]string)}, Options{NumSegments: 3}); err == nil {
		t.Error("a sample whose size is an expression is read with the owner's rights")
	}
}
