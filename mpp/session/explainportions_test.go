package session

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestUnportioned has a real server explain and run what reads row sources in
// portions, and looks for one scan in the place of each.
func TestUnportioned(t *testing.T) {
	l := dialTest(t, pgtest.Start(t))
	// Three portions of five rows.
	_, err := l.query(`CREATE FUNCTION pg_catalog.gp_motion_recv_0(text, text) RETURNS SETOF record LANGUAGE sql ROWS 1 AS
			$$ SELECT split_part($2, ' ', 1) || ' ' || split_part($2, ' ', 2)::int + 1 WHERE split_part($2, ' ', 2)::int < 3 $$;
		CREATE FUNCTION pg_catalog.gp_motion_recv_4(text, text) RETURNS SETOF record LANGUAGE plpgsql ROWS 10000 AS
			$$ BEGIN IF $2 NOT LIKE '% 0' THEN RETURN QUERY SELECT i, 'v' || i FROM generate_series(1, 5) i; END IF; END $$;
		CREATE FUNCTION pg_catalog.gp_motion_recv_2(text, text) RETURNS SETOF record LANGUAGE plpgsql ROWS 100 AS
			$$ BEGIN IF $2 NOT LIKE '% 0 columns' THEN RETURN QUERY SELECT array_agg(i), array_agg('v' || i) FROM generate_series(1, 5) i; END IF; END $$;
		CREATE TABLE a (id int, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 100) i; ANALYZE a;
		SET enable_mergejoin = off; SET jit = off`)
	if err != nil {
		t.Fatal(err)
	}
	source := func(token, alias string) string {
		return fmt.Sprintf("(WITH RECURSIVE gp_portions(name) AS (SELECT '%s 0' UNION ALL SELECT n.name FROM gp_portions p, "+
			"LATERAL pg_catalog.gp_motion_recv_0('gp_motion', p.name || ' next') AS n(name pg_catalog.text)) "+
			"SELECT %[2]s.* FROM gp_portions p, LATERAL pg_catalog.gp_motion_recv_4('gp_motion', p.name) AS %[2]s(id int, v text)) AS %[2]s", token, alias)
	}
	arrays := func(token, alias string) string {
		return fmt.Sprintf("(WITH RECURSIVE gp_portions(name) AS (SELECT '%s 0' UNION ALL SELECT n.name FROM gp_portions p, "+
			"LATERAL pg_catalog.gp_motion_recv_0('gp_motion', p.name || ' next') AS n(name pg_catalog.text)) "+
			"SELECT unnest(%[2]s.id) AS id, unnest(%[2]s.v) AS v FROM gp_portions p, LATERAL pg_catalog.gp_motion_recv_2('gp_motion', p.name || ' columns') AS %[2]s(id int[], v text[])) AS %[2]s", token, alias)
	}
	explain := func(options, sql string) [][]byte {
		t.Helper()
		res, err := l.query(options + sql)
		if err != nil {
			t.Fatalf("%v\n%s", err, sql)
		}
		return firstColumn(res.rows)
	}
	for _, c := range []struct{ name, sql, want, tokens, json string }{
		{"the whole plan", "SELECT b.id FROM " + source("k1", "b"), `
Function Scan on gp_motion_recv b (actual rows=15 loops=1)`, "k1", "Function Scan b 15"},
		{"joined", "SELECT count(*) FROM a JOIN " + source("k1", `"B x"`) + ` ON a.id = "B x".id WHERE "B x".v LIKE 'v%' AND "B x".v = 'v1'`, `
Aggregate (actual rows=1 loops=1)
  ->  Nested Loop (actual rows=3 loops=1)
        Join Filter: (a.id = "B x".id)
        Rows Removed by Join Filter: 297
        ->  Function Scan on gp_motion_recv "B x" (actual rows=3 loops=1)
              Filter: ((v ~~ 'v%'::text) AND (v = 'v1'::text))
              Rows Removed by Filter: 12
        ->  Materialize (actual rows=100 loops=3)
              ->  Seq Scan on a (actual rows=100 loops=1)`, "k1", "Aggregate 1, Nested Loop 3, Function Scan B x -12 3, Materialize 100, Seq Scan a 100"},
		{"two, one of them in a subquery that stays", "SELECT * FROM " + source("k1", "b") + " LEFT JOIN (SELECT c.id, random() FROM " + source("k2", "c") + " LIMIT 2) AS d ON d.id = b.id WHERE b.v = 'v1'", `
Hash Left Join (actual rows=3 loops=1)
  Hash Cond: (b.id = c.id)
  ->  Function Scan on gp_motion_recv b (actual rows=3 loops=1)
        Filter: (v = 'v1'::text)
        Rows Removed by Filter: 12
  ->  Hash (actual rows=2 loops=1)
        ->  Limit (actual rows=2 loops=1)
              ->  Function Scan on gp_motion_recv c (actual rows=2 loops=1)`, "k1 k2", "Hash Join 3, Function Scan b -12 3, Hash 2, Limit 2, Function Scan c 2"},
		{"with subplans in conditions", "SELECT count(*) FROM " + source("k1", "b") + " WHERE b.id NOT IN (SELECT c.id + 3 FROM " + source("k2", "c") + " WHERE c.id > ALL (SELECT a.id FROM a WHERE a.id < 0)) AND b.v <> 'v1'", `
Aggregate (actual rows=1 loops=1)
  ->  Function Scan on gp_motion_recv b (actual rows=6 loops=1)
        Filter: ((v <> 'v1'::text) AND (NOT (SubPlan 3)))
        Rows Removed by Filter: 10
        SubPlan 3
          ->  Materialize (actual rows=8 loops=12)
                ->  Function Scan on gp_motion_recv c (actual rows=15 loops=1)
                      Filter: (SubPlan 1)
                      SubPlan 1
                        ->  Materialize (actual rows=0 loops=15)
                              ->  Seq Scan on a (actual rows=0 loops=1)
                                    Filter: (id < 0)
                                    Rows Removed by Filter: 100`, "k1 k2", "Aggregate 1, Function Scan b -10 6, Materialize 8, Function Scan c 15, Materialize 0, Seq Scan a -100 0"},
		{"none runs", "SELECT b.id FROM a LEFT JOIN " + source("k1", "b") + " ON a.id = b.id WHERE a.id < 0", `
Hash Right Join (actual rows=0 loops=1)
  Hash Cond: (b.id = a.id)
  ->  Function Scan on gp_motion_recv b (never executed)
  ->  Hash (actual rows=0 loops=1)
        ->  Seq Scan on a (actual rows=0 loops=1)
              Filter: (id < 0)
              Rows Removed by Filter: 100`, "k1", "Hash Join 0, Function Scan b, Hash 0, Seq Scan a -100 0"},
		{"as arrays", "SELECT b.id FROM " + arrays("k1", "b"), `
Function Scan on gp_motion_recv b (actual rows=15 loops=1)`, "k1", "Function Scan b 15"},
		{"as arrays, joined", "SELECT sum(\"B x\".id), a.v FROM a JOIN " + arrays("k1", `"B x"`) + ` ON a.id = "B x".id AND a.v <= "B x".v GROUP BY a.v ORDER BY sum("B x".id)`, `
Sort (actual rows=1 loops=1)
  Sort Key: (sum("B x".id))
  Sort Method: quicksort  Memory: 25kB
  ->  HashAggregate (actual rows=1 loops=1)
        Group Key: a.v
        ->  Hash Join (actual rows=15 loops=1)
              Hash Cond: ("B x".id = a.id)
              Join Filter: (a.v <= "B x".v)
              ->  Function Scan on gp_motion_recv "B x" (actual rows=15 loops=1)
              ->  Hash (actual rows=100 loops=1)
                    ->  Seq Scan on a (actual rows=100 loops=1)`, "k1", "Sort 1, Aggregate 1, Hash Join 15, Function Scan B x 15, Hash 100, Seq Scan a 100"},
		{"as arrays, filtered", "SELECT count(*) FROM " + arrays("k1", "b") + " WHERE b.v = 'v1' AND b.id NOT IN (SELECT c.id + 3 FROM " + arrays("k2", "c") + ")", `
Aggregate (actual rows=1 loops=1)
  ->  Function Scan on gp_motion_recv b (actual rows=3 loops=1)
        Filter: ((NOT (hashed SubPlan 2)) AND (b.v = 'v1'::text))
        Rows Removed by Filter: 12
        SubPlan 2
          ->  Function Scan on gp_motion_recv c (actual rows=15 loops=1)`, "k1 k2", "Aggregate 1, Function Scan b -12 3, Function Scan c 15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := readPlan(explain("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ", c.sql), false)
			if err != nil {
				t.Fatal(err)
			}
			got := regexp.MustCompile(`(?m)^ *(Buckets|Batches): .*\n?`).ReplaceAllString(strings.Join(p.lines, "\n"), "")
			if got = strings.TrimSpace(got); got != strings.TrimSpace(c.want) {
				t.Errorf("%s\n\nexpected\n%s", got, c.want)
			}
			if got := strings.Join(tokensRead(explain(namesTokens, c.sql)), " "); got != c.tokens {
				t.Errorf("tokens %s, expected %s", got, c.tokens)
			}
			verbose := strings.Join(unportioned(planLines(explain("EXPLAIN (VERBOSE) ", c.sql))), "\n")
			if strings.Contains(verbose, "gp_portions") || strings.Contains(verbose, "unnest") || strings.Count(verbose, "Function Scan") != strings.Count(c.want, "Function Scan") {
				t.Errorf("verbose:\n%s", verbose)
			}
			p, err = readPlan(explain("EXPLAIN (ANALYZE, FORMAT JSON) ", c.sql), true)
			if err != nil {
				t.Fatal(err)
			}
			if text := fmt.Sprint(p.tree); strings.Contains(text, "unnest") {
				t.Errorf("in JSON: %s", text)
			}
			if got, want := outline(p.tree), c.json; got != want {
				t.Errorf("in JSON: %s\nexpected %s", got, want)
			}
		})
	}
}

// outline is the nodes of a plan in JSON, with their rows.
func outline(n planNode) string {
	out := fmt.Sprintf("%s %v", n["Node Type"], n["Alias"])
	if n["Alias"] == nil {
		out = fmt.Sprint(n["Node Type"])
	}
	if r, _ := n["Rows Removed by Filter"].(float64); r > 0 {
		out += fmt.Sprintf(" -%v", r)
	}
	if n["Actual Loops"] != 0.0 {
		out += fmt.Sprintf(" %v", n["Actual Rows"])
	}
	for _, c := range n.children() {
		out += ", " + outline(c)
	}
	return out
}
