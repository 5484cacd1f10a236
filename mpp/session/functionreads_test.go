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
	if got := oids([]uint32{1, 22}) + fmt.Sprint(oids(nil)); got != "'{1,22}'::oid[]'{}'::oid[]" {
		t.Error(got)
	}
}
