package tpch

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

func TestQueries(t *testing.T) {
	list, err := Queries(0.01)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != NumQueries {
		t.Errorf("%d queries", len(list))
	}
	for i, q := range list {
		if q.Number != i+1 || q.Title == "" || strings.Contains(q.Title, "select") || strings.ContainsAny(q.SQL, ";$") {
			t.Errorf("query %d is %+v", i+1, q)
		}
		if tree, err := pg.Parse(q.SQL); err != nil || len(tree.Stmts) != 1 || tree.Stmts[0].Stmt.GetSelectStmt() == nil {
			t.Errorf("query %d: %v", i+1, err)
		}
	}
	for scale, want := range map[float64]string{0.01: "* 0.01\n", 1: "* 0.0001\n", 10: "* 0.00001\n", 3: "* 0.0000333333\n"} {
		list, err := Queries(scale)
		if err != nil || !strings.Contains(list[10].SQL, want) {
			t.Errorf("scale %v: %v\n%s", scale, err, list[10].SQL)
		}
	}
	if _, err := Queries(0); err == nil {
		t.Error("scale 0 is taken")
	}
}

func TestDiffer(t *testing.T) {
	for _, tc := range []struct {
		query     int
		want, got string
		diff      string
	}{
		{1, "a b", "a b", ""},
		{1, "a b", "b a", "row 1 of 2 is b, expected a"},
		{3, "a b b", "b a b", ""}, // rows may be equal by its ORDER BY
		{3, "a b b", "a a b", "row 2 of 3 is a, expected b"},
		{1, "a b", "a", "1 rows, expected 2"},
		{18, "", "a", "1 rows, expected 0"},
	} {
		if d := (Query{Number: tc.query}).Differ(strings.Fields(tc.want), strings.Fields(tc.got)); d != tc.diff {
			t.Errorf("query %d, %q and %q: %q, want %q", tc.query, tc.want, tc.got, d, tc.diff)
		}
	}
}
