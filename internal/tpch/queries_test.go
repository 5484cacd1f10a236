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
