package session

import (
	"regexp"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

var tables = regexp.MustCompile(`\b[a-z]+[0-9]?(_[0-9])?\.`)

// TestQuiet has a real server explain statements that tell, and looks for the plans
// that they have when they do not.
func TestQuiet(t *testing.T) {
	l := dialTest(t, pgtest.Start(t))
	_, err := l.query(`CREATE FUNCTION pg_catalog.gp_snapshot_taken() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
		CREATE TABLE t (a int, b int); CREATE TABLE p (a int, b int) PARTITION BY HASH (a);
		CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE p2 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1)`)
	if err != nil {
		t.Fatal(err)
	}
	explain := func(options, sql string) (serverPlan, string) {
		t.Helper()
		res, err := l.query("EXPLAIN (COSTS OFF" + options + ") " + sql)
		if err != nil {
			t.Fatalf("%v\n%s", err, sql)
		}
		p, err := readPlan(firstColumn(res.rows), strings.Contains(options, "JSON"))
		if err != nil {
			t.Fatal(err)
		}
		return p, strings.Join(p.lines, "\n")
	}
	for _, sql := range []string{
		"UPDATE t SET b = b + 1 WHERE a > 3",
		"UPDATE t SET b = b + 1 WHERE true",
		"DELETE FROM t WHERE a = 3 AND b = 4 OR a = 5",
		"DELETE FROM t WHERE false",
		"UPDATE p SET b = p.b + 1 FROM t WHERE t.a = p.a RETURNING *",
		"UPDATE p SET b = p.b + 1 WHERE a > 3 AND now() > '2000-1-1'",
		"DELETE FROM p WHERE now() > '2000-1-1' AND current_date < '2100-1-1' RETURNING a",
		"DELETE FROM t WHERE a = (SELECT 1)",
		"DELETE FROM t WHERE (SELECT 1) = 1",
	} {
		telling, returning, has := strings.Cut(sql, " RETURNING")
		where, cond, _ := strings.Cut(telling, "WHERE ")
		telling = where + "WHERE (" + cond + ") AND (SELECT pg_catalog.gp_snapshot_taken())"
		if has {
			telling += " RETURNING" + returning
		}
		_, want := explain("", sql)
		p, text := explain("", telling)
		quiet := strings.Join(p.quiet().lines, "\n")
		if quiet != want {
			t.Errorf("%s:\n%s\n\nmade\n%s\n\nexpected\n%s", sql, text, quiet, want)
		}
		wantJSON, _ := explain(", FORMAT JSON", sql)
		pJSON, _ := explain(", FORMAT JSON", telling)
		if got, want := outline(pJSON.quiet().tree), outline(wantJSON.tree); got != want {
			t.Errorf("%s: in JSON %s, expected %s", sql, got, want)
		}
		_, want = explain(", VERBOSE", sql)
		verbose, text := explain(", VERBOSE", telling)
		// With a sub-select in the statement columns are shown with their tables.
		if quiet := strings.Join(verbose.quiet().lines, "\n"); tables.ReplaceAllString(quiet, "") != tables.ReplaceAllString(want, "") {
			t.Errorf("%s, verbose:\n%s\n\nmade\n%s\n\nexpected\n%s", sql, text, quiet, want)
		}
	}
}
