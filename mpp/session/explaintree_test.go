package session

import (
	"regexp"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
	"github.com/trunkline-db/trunkline/mpp/merge"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestExplainTree has a real server explain the slices of a plan with all
// kinds of motions. The row sources would fail if they were called.
func TestExplainTree(t *testing.T) {
	l := dialTest(t, pgtest.Start(t))
	_, err := l.query(`CREATE FUNCTION pg_catalog.gp_motion_recv(text, text) RETURNS SETOF record LANGUAGE plpgsql STRICT AS $$ BEGIN RAISE 'called'; END $$;
		CREATE FUNCTION pg_catalog.gp_motion_recv_3(text, text) RETURNS SETOF record LANGUAGE plpgsql STRICT ROWS 2000 AS $$ BEGIN RAISE 'called'; END $$;
		CREATE TABLE t (id int, b text); CREATE TABLE o (id int, v text); CREATE TABLE r (v text, "W x" int);
		SET enable_mergejoin = off; SET enable_nestloop = off`)
	if err != nil {
		t.Fatal(err)
	}
	explain := func(options, sql string) [][]byte {
		t.Helper()
		res, err := l.query("EXPLAIN " + options + sql)
		if err != nil {
			t.Fatalf("%v\n%s", err, sql)
		}
		return firstColumn(res.rows)
	}
	tree := func(options string, slices []plan.Slice) *planTree {
		t.Helper()
		tr := &planTree{slices: slices, segments: 3}
		for i := range slices {
			tr.plans = append(tr.plans, planLines(explain(options, slices[i].SQL)))
			var tokens []string
			if tr.reads(i) {
				tokens = tokensRead(explain("(VERBOSE, COSTS OFF) ", slices[i].SQL))
			}
			tr.tokens = append(tr.tokens, tokens)
		}
		return tr
	}
	check := func(got []string, want string) {
		t.Helper()
		if g := strings.Join(got, "\n"); g != strings.TrimSpace(want) {
			t.Errorf("%s\n\nexpected\n%s", g, want)
		}
	}
	hashed := []plan.Slice{
		{To: -1, SQL: `SELECT t.b, o.v, r.v FROM t JOIN pg_catalog.gp_motion_recv('gp_motion', 'k1') AS o(id int, v text) ON t.id = o.id
			LEFT JOIN pg_catalog.gp_motion_recv_3('gp_motion', 'k2') AS r("W x" int, v text) ON r."W x" = t.id AND r.v > 'x'`},
		{To: 0, Motion: plan.RedistributeMotion, Token: "k1", Keys: []int{0}, Columns: []plan.Column{{Name: "id"}, {Name: "v"}},
			SQL: "SELECT o.id, o.v FROM o WHERE o.v <> 'y'"},
		{To: 0, Motion: plan.BroadcastMotion, Token: "k2", Segments: []int{1}, SQL: `SELECT r."W x", r.v FROM r`},
	}
	// One function scan is below the other's hash, whatever the order in FROM.
	got := tree("(COSTS OFF) ", hashed).gather(outcome{})
	check(got, `
Gather Motion 3:1  (slice1; segments: 3)
  ->  Hash Join
        Hash Cond: (t.id = o.id)
        ->  Hash Left Join
              Hash Cond: (t.id = r."W x")
              ->  Seq Scan on t
              ->  Hash
                    ->  Broadcast Motion 1:3  (slice3; segments: 1)
                          Filter: (v > 'x'::text)
                          ->  Seq Scan on r
        ->  Hash
              ->  Redistribute Motion 3:3  (slice2; segments: 3)
                    Hash Key: o.id
                    ->  Seq Scan on o
                          Filter: (v <> 'y'::text)`)
	verbose := strings.Join(tree("(VERBOSE) ", hashed).gather(outcome{}), "\n")
	for _, want := range []string{"Gather Motion 3:1  (slice1; segments: 3)  (cost=", "Redistribute Motion 3:3  (slice2; segments: 3)  (cost=0.",
		"Hash Key: o.id\n", "Output: o.v, o.id", "Broadcast Motion 1:3  (slice3; segments: 1)  (cost=0.25..25.25 rows=667 width=36)"} {
		if !strings.Contains(verbose, want) {
			t.Errorf("no %q in\n%s", want, verbose)
		}
	}
	if strings.Contains(verbose, "gp_motion_recv") {
		t.Errorf("a row source shows:\n%s", verbose)
	}

	// Rows that are merged, and not all of them.
	sorted := []plan.Slice{{To: -1, SQL: "SELECT t.id FROM t ORDER BY t.b, t.id LIMIT 7",
		Merge: &merge.Spec{Columns: 1, Limit: 5, Offset: 2, Keys: []merge.Key{{Name: "b"}, {Name: "id"}}}}}
	check(tree("(COSTS OFF) ", sorted).gather(outcome{}), `
Limit
  ->  Gather Motion 3:1  (slice1; segments: 3)
        Merge Key: b, id
        ->  Limit
              ->  Sort
                    Sort Key: b, id
                    ->  Seq Scan on t`)
	tr := tree("", sorted)
	tr.timing, tr.ran = true, &analysis{slices: sorted, sent: [][]sentRows{{{rows: 7}, {rows: 7}, {rows: 1}}}}
	costly := strings.Join(tr.gather(outcome{rows: 5}), "\n")
	for _, want := range []string{`Limit  \(cost=.* rows=5 width=36\) \(actual time=0.000..0.000 rows=5 loops=1\)`,
		`Gather Motion 3:1  \(slice1; segments: 3\)  \(cost=.* rows=21 width=36\) \(actual time=0.000..0.000 rows=7 loops=1\)`} {
		if !regexp.MustCompile(want).MatchString(costly) {
			t.Errorf("no %q in\n%s", want, costly)
		}
	}
	tr.json, tr.trees = true, []planNode{{"Node Type": "Limit", "Plan Rows": 7.0}}
	text, err := printPlan("json", tr.gatherNode(outcome{rows: 5}), nil)
	if err != nil {
		t.Fatal(err)
	}
	check([]string{strings.Join(strings.Fields(text), " ")}, `[ { "Plan": { "Node Type": "Limit", "Plan Rows": 5, "Actual Startup Time": 0, "Actual Total Time": 0, "Actual Rows": 5, "Actual Loops": 1, `+
		`"Plans": [ { "Node Type": "Gather Motion", "Senders": 3, "Receivers": 1, "Slice": 1, "Segments": 3, "Gang Type": "primary reader", `+
		`"Parent Relationship": "Outer", "Plan Rows": 21, "Actual Startup Time": 0, "Actual Total Time": 0, "Actual Rows": 7, "Actual Loops": 1, `+
		`"Merge Key": ["b", "id"], "Plans": [ { "Node Type": "Limit", "Parent Relationship": "Outer", "Plan Rows": 7 } ] } ] } } ]`)
	sorted[0].Merge = &merge.Spec{Columns: 1, Limit: -1, Keys: []merge.Key{{Name: "(b || 'x'::text)"}}}
	check(tree("(COSTS OFF) ", sorted).gather(outcome{})[:2], `
Gather Motion 3:1  (slice1; segments: 3)
  Merge Key: (b || 'x'::text)`)

	// A statement of the coordinator over gathered slices, two by one name,
	// one in a sub-plan of the other's filter.
	const top = `SELECT count(*) FROM pg_catalog.gp_motion_recv('gp_motion', 'a') AS s(c1 int, c2 text)
		WHERE NOT s.c1 IN (SELECT s.c1 FROM pg_catalog.gp_motion_recv('gp_motion', 'b') AS s(c1 int)) AND s.c2 <> '->  Function Scan on gp_motion_recv s'`
	tr = tree("(COSTS OFF) ", []plan.Slice{
		{To: -1, Token: "b", Segments: []int{2}, SQL: "SELECT id FROM o WHERE id = 5"},
		{To: -1, Token: "a", SQL: "SELECT t.id, t.b FROM t JOIN pg_catalog.gp_motion_recv('gp_motion', 'c') AS o(id int) ON t.id = o.id"},
		{To: 1, Token: "c", Motion: plan.RedistributeMotion, Keys: []int{0}, Columns: []plan.Column{{Name: "id"}}, SQL: "SELECT o.id FROM o"},
	})
	check(tr.place(planLines(explain("(COSTS OFF) ", top)), tokensRead(explain("(VERBOSE, COSTS OFF) ", top))), `
Aggregate
  ->  Gather Motion 3:1  (slice2; segments: 3)
        Filter: ((NOT (hashed SubPlan 1)) AND (c2 <> '->  Function Scan on gp_motion_recv s'::text))
        SubPlan 1
          ->  Gather Motion 1:1  (slice1; segments: 1)
                ->  Seq Scan on o
                      Filter: (id = 5)
        ->  Hash Join
              Hash Cond: (t.id = o.id)
              ->  Seq Scan on t
              ->  Hash
                    ->  Redistribute Motion 3:3  (slice3; segments: 3)
                          Hash Key: o.id
                          ->  Seq Scan on o`)

	inJSON, err := readPlan(explain("(COSTS OFF, FORMAT JSON) ", top), true)
	if err != nil {
		t.Fatal(err)
	}
	tr.trees = []planNode{{"Node Type": "Seq Scan", "Alias": "b"}, {"Node Type": "Seq Scan", "Alias": "a"}, nil}
	if got, want := outline(tr.placeTree(inJSON.tree, tokensRead(explain("(VERBOSE, COSTS OFF) ", top)))), "Aggregate <nil>, Gather Motion <nil>, Gather Motion <nil>, Seq Scan b <nil>, Seq Scan a <nil>"; got != want {
		t.Errorf("in JSON: %s, expected %s", got, want)
	}

	// A source that is the whole plan, and one that is not the plan's own.
	check(tr.place(planLines(explain("(COSTS OFF) ", "SELECT * FROM pg_catalog.gp_motion_recv('gp_motion', 'b') AS s(c1 int) WHERE c1 > 3")), []string{"b"}), `
Gather Motion 1:1  (slice1; segments: 1)
  Filter: (c1 > 3)
  ->  Seq Scan on o
        Filter: (id = 5)`)
	check(tr.place([]string{"Function Scan on gp_motion_recv s"}, []string{"other"}), "Function Scan on gp_motion_recv s")
}
