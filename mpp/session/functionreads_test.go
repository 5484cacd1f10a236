package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestFollow finds tables by texts.
func TestFollow(t *testing.T) {
	src := &functionSources{
		Texts: map[string]string{"f": "select count(*) from Sales", "g": "select f()", "v": "SELECT id FROM other.parts", "circle": "select circle(), g()",
			"only_rep": "select 1 from only public.rep", "only_any": "execute 'select 1 from only ' || t"},
		Tables: []sourceTable{{OID: 1, Schema: "public", Name: "sales", Plain: true}, {OID: 2, Schema: "other", Name: "parts"}, {OID: 3, Schema: "public", Name: "rep", Plain: true},
			{OID: 4, Schema: "public", Name: "child", Plain: true, Parents: []uint32{3}}, {OID: 5, Schema: "public", Name: "an odd-name", Plain: true},
			{OID: 6, Schema: "public", Name: "part1", Parents: []uint32{2}}},
	}
	for text, want := range map[string]string{
		"":                                "",
		"h":                               "",
		"f":                               "sales",
		"circle":                          "sales",
		"v":                               "parts hidden",
		"SALES":                           "sales",
		"salesman, my_sales":              "",
		"f rep":                           "sales,rep,child",
		"select \"an odd-name\"":          "an odd-name",
		"sales tableoid":                  "sales hidden",
		"only_rep":                        "child", // rep has a child: it is left to gp_watched
		"only_any sales":                  "sales hidden",
		"sales, only sales":               "sales",
		"select from ONLY (public.sales)": "sales hidden",
	} {
		r := &functionReads{}
		r.follow(src, text)
		var got []string
		for _, table := range r.tables {
			name := table.Name
			if table.hide {
				name += " hidden"
			}
			got = append(got, name)
		}
		if !slices.Equal(got, strings.FieldsFunc(want, func(r rune) bool { return r == ',' })) {
			t.Errorf("%q: %q, expected %s", text, got, want)
		}
	}
	for text, want := range map[string]bool{"begin COMMIT; end": true, "rollback": true, "committed": false, "f": false} {
		r := &functionReads{}
		if r.follow(src, text); r.endsTransactions() != want {
			t.Errorf("%q ends transactions: %v", text, !want)
		}
	}
	for text, want := range map[string]bool{"begin perform set_config('a', 'b', false); end": true, "select 1; SET a = 1": true, "begin\n  set local a to 1; end": true,
		"execute format('reset %I', a)": true, "-- first\nset role x": true, "begin -- then\n discard all; end": true, "if a then set b = c; end if": true,
		"update t set a = 1": false, "my_set_config": false, "insert into t values (1) on conflict do update set a = 1": false, "f": false, "settle; reset_all()": false} {
		r := &functionReads{}
		if r.follow(src, text); r.setsParameters() != want {
			t.Errorf("%q sets parameters: %v", text, !want)
		}
	}
	if got := oids([]uint32{1, 22}) + fmt.Sprint(oids(nil)); got != "'{1,22}'::oid[]'{}'::oid[]" {
		t.Error(got)
	}
}
