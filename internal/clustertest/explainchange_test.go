package clustertest

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// changedPlan is what EXPLAIN (FORMAT JSON) prints of a change.
type changedPlan struct {
	Plan       changedNode
	Statistics []struct {
		Slice, Workers, Statements int
		Operation                  string
		Rows                       int64  `json:"Rows Written"`
		Most                       int64  `json:"Maximum Rows Written"`
		Bytes                      int64  `json:"Bytes Received"`
		By                         string `json:"Written By"`
		Out                        int64  `json:"Rows Out"`
	} `json:"Slice statistics"`
	Reason       string  `json:"Not Pushed Down"`
	Planning     float64 `json:"Planning Time"`
	Time         float64 `json:"Execution Time"`
	Interconnect string
	Optimizer    string
}

type changedNode struct {
	Type      string `json:"Node Type"`
	Operation string
	Gang      string `json:"Gang Type"`
	Slice     *int
	Segments  int
	Rows      *float64 `json:"Actual Rows"`
	Plans     []changedNode
}

// outline are the nodes from top to bottom; motions with their slices.
func (n changedNode) outline() string {
	s := n.Type
	if n.Operation != "" {
		s = n.Operation
	}
	if n.Slice != nil {
		s += fmt.Sprintf("[%d]", *n.Slice)
	}
	var below []string
	for _, c := range n.Plans {
		below = append(below, c.outline())
	}
	if len(below) > 0 {
		s += "(" + strings.Join(below, ", ") + ")"
	}
	return s
}

func readChange(t *testing.T, text string) (p changedPlan) {
	t.Helper()
	var all []changedPlan
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	return all[0]
}

// TestExplainAnalyzeChange runs changes of all kinds under EXPLAIN ANALYZE. First
// in a transaction that is rolled back, where the plan in JSON says as many rows,
// and as many on the segment with most, as the tables then have; then for good.
func TestExplainAnalyzeChange(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, explainTables+`;
		create table empty (id int, b int, w text) distributed by (id); create table rnd (id int, v text) distributed randomly;
		create table rep (id int, v text) distributed replicated; create table uniq (id int primary key, n int) distributed by (id);
		insert into rep select i, 'r' from generate_series(1, 9) i; insert into uniq select i, 0 from generate_series(1, 50) i;
		create table parts (id int, d int) distributed by (id) partition by range (d);
		create table parts1 partition of parts for values from (0) to (5); create table parts2 partition of parts for values from (5) to (10);
		insert into parts select i, i % 10 from generate_series(1, 100) i;
		create function total() returns bigint language plpgsql as $$ begin return (select count(*) from public.b); end $$;
		prepare ins (int, text) as insert into b values ($1, $2); prepare upd (text, int) as update a set w = $1 where b = $2;
		analyze empty; analyze rep; analyze uniq; analyze parts`)
	for _, tc := range []struct {
		sql      string
		rows     int64 // written, by each operation
		segments int   // that write
		outline  string
		by       string
		text     []string
		count    string // a query of one number; the largest of a segment where it is grouped by segment
		want     string
	}{
		{sql: "insert into b values (1000, 'x')", rows: 1, segments: 1, outline: "Insert[0](Result)", by: "Insert",
			text:  []string{`^Insert on b  \(slice0; segments: 1\)  \(cost=.*\) \(actual time=.* rows=0 loops=1\)\n  Distributed: by \(id\)\n  ->  Result .*actual`, `\n  \(slice0\)    Rows inserted: 1 \(seg[012]\)\.  Received: \d+ bytes in 1 statement\.  Time: \d+\.\d+ ms\.\n`},
			count: "select count(*) from b where id = 1000", want: "1"},
		{sql: "insert into b select i, 'many' from generate_series(2001, 2090) i", rows: 90, segments: 3, outline: "Insert[0](Function Scan)", by: "COPY",
			text:  []string{`^Insert on b  \(slice0; segments: 3\)`, `Function Scan on generate_series i  .*actual time=.* rows=90`, `Rows inserted: 30 avg x 3 workers, \d+ max \(seg[012]\)\.  Received: \d+ bytes by COPY`},
			count: "select count(*) from b where v = 'many'", want: "90"},
		{sql: "insert into empty select * from a", rows: 1000, segments: 3, outline: "Insert[0](Seq Scan)", by: "Insert",
			text:  []string{`\n  ->  Seq Scan on a .* \(actual time=`, `Rows inserted: 333\.3 avg x 3 workers, \d+ max \(seg[012]\)\.  Received: \d+ bytes in 3 statements`, `\nInterconnect: `, `\nPlanning Time: \d`, `\nExecution Time: \d+\.\d+ ms\n$`},
			count: "select count(*) from empty", want: "1000"},
		{sql: "insert into empty select id + 5000, b, w from a where id <= 60 returning id", rows: 60, segments: 3, outline: "Insert[0](Values Scan(Gather Motion[1](Seq Scan)))", by: "Insert",
			text:  []string{`Insert on empty .* rows=[1-9]\d* loops=1\)\n`, `\n        ->  Gather Motion 3:1  \(slice1`},
			count: "select count(*) from empty where id > 5000", want: "60"},
		{sql: "insert into uniq values (1, 1), (2, 1), (60, 1) on conflict (id) do update set n = 7", rows: 3, outline: "Insert[0](Values Scan)|Insert[0](Result)", by: "Insert",
			text: []string{`Conflict Resolution: UPDATE`}, count: "select sum(n) from uniq", want: "15"},
		{sql: "insert into rnd select total(), v from b where id < 12", rows: 12, segments: 3, by: "COPY", outline: "Insert[0](Subquery Scan(Gather Motion[1](Seq Scan)))",
			text: []string{`Distributed: randomly`, `Not pushed down: .*function total`}, count: "select count(*) from rnd where id >= 100", want: "12"},
		{sql: "insert into empty select id + 20000, b, w from a where id < 901", rows: 900, segments: 3, by: "COPY", outline: "Insert[0](Redistribute Motion[1](Seq Scan))",
			text: []string{`\n  ->  Redistribute Motion 3:3  \(slice1; segments: 3\).* rows=\d+ loops=1\)\n        Hash Key: id\n        ->  Seq Scan on a .*actual`,
				`\(slice0\)    Rows inserted: 300 avg x 3 workers, \d+ max \(seg[012]\)\.  Received: what slice1 has sent, by COPY`, `\(slice1\)    Rows out: 300 avg x 3 workers, \d+ max \(seg[012]\)\.  Sent: [1-9]\d* bytes`},
			count: "select count(*) from empty where id > 20000", want: "900"},
		{sql: "insert into rep select 100, v from b where id = 3", rows: 3, segments: 3, by: "COPY", outline: "Insert[0](Broadcast Motion[1](Seq Scan))",
			text: []string{`Distributed: replicated`, `Rows inserted: 1 avg x 3 workers, 1 max`}, count: "select count(*) from rep where id = 100", want: "1"},
		{sql: "execute ins(3000, 'executed')", rows: 1, segments: 1, by: "Insert", outline: "Insert[0](Result)|Insert[0](Result(Values Scan))|Insert[0](Result(Result))",
			text: []string{`^Insert on b  \(slice0; segments: 1\)`}, count: "select count(*) from b where v = 'executed'", want: "1"},
		{sql: "update a set w = 'seven' where id = 7", rows: 1, segments: 1, outline: "Update[0](Seq Scan)", by: "Update",
			text:  []string{`^Update on a  \(slice0; segments: 1\)`, `Seq Scan on a .*rows=1 loops`, `Rows updated: 1 \(seg[012]\)`},
			count: "select count(*) from a where w = 'seven'", want: "1"},
		{sql: "update a set w = 'all' where id <= 300 returning id, w", rows: 300, segments: 3, outline: "Update[0](Seq Scan)", by: "Update",
			text: []string{`^Update on a .* rows=[1-9]\d* loops=1\)`, `Rows updated: 100 avg`}, count: "select count(*) from a where w = 'all'", want: "300"},
		{sql: "execute upd('executed', 5)", rows: 10, segments: 3, outline: "Update[0](Seq Scan)", by: "Update", count: "select count(*) from a where w = 'executed'", want: "10"},
		{sql: "update a set w = b.v from b where a.b = b.id and a.id between 401 and 700", rows: 300, segments: 3, by: "Update",
			text: []string{`Values Scan on "\*VALUES\*".*\n +->  Gather Motion 3:1  \(slice1; segments: 3\).* rows=300`, `(Broadcast|Redistribute) Motion 3:3  \(slice2; segments: 3\)`, `Not pushed down: rows that join may be on different segments`},
			// One of the rows was changed above.
			count: "select count(*) from a where id between 401 and 700 and w like 'v%'", want: "300"},
		{sql: "update a set id = id + 10000 where id between 801 and 900", rows: 100, segments: 3, by: "Delete,Insert",
			text:  []string{`^Update on a  \(slice0; segments: 3\).*\n  ->  Delete on a `, `\n  ->  Insert on a .*\n        Distributed: by \(id\)`, `Rows deleted: 33\.3 avg`, `Rows inserted: 33\.3 avg`},
			count: "select count(*) from a where id > 10000", want: "100"},
		{sql: "update a set w = 'none' where b > 1000 and b in (select id from b)", rows: 0, segments: 3, by: "",
			text: []string{`Rows updated: 0\.`, `Gather Motion .*rows=0`}, count: "select count(*) from a where w = 'none'", want: "0"},
		{sql: "update rep set v = 'all' where id < 4", rows: 9, segments: 3, outline: "Update[0](Seq Scan)", by: "Update", count: "select count(*) from rep where v = 'all'", want: "3"},
		{sql: "update parts set d = 9 - d where id <= 40", rows: 40, segments: 3, by: "Update", text: []string{`Update on parts1`}, count: "select count(*) from parts1 where id <= 40", want: "20"},
		{sql: "delete from a using b where a.id = b.id and b.id between 11 and 20", rows: 10, segments: 3, by: "Delete", outline: "",
			text: []string{`^Delete on a  \(slice0; segments: \d\)`, `Rows deleted: \d`}, count: "select count(*) from a where id between 11 and 20", want: "0"},
		{sql: "delete from a using b where a.b = b.id and b.id in (30, 31) returning a.id, b.v", rows: 20, segments: 3, by: "Delete",
			text: []string{`Gather Motion .* rows=20`}, count: "select count(*) from a where b in (30, 31)", want: "0"},
		{sql: "create table made as select id, w from a where id <= 10 distributed by (id)", rows: 10, segments: 3, outline: "Insert[0](Seq Scan)", by: "Insert",
			text: []string{`^Insert on made  \(slice0; segments: 3\)`}, count: "select count(*) from made", want: "10"},
		{sql: "select id into filled from b where id < 5", rows: 5, segments: 3, by: "Insert", count: "select count(*) from filled", want: "5"},
		{sql: "create table lone as select 1 as i distributed by (i)", rows: 1, segments: 3, outline: "Insert[0](Result)", by: "COPY", count: "select sum(i) from lone", want: "1"},
	} {
		makes := strings.HasPrefix(tc.sql, "create") || strings.HasPrefix(tc.sql, "select")
		before := ""
		if !makes {
			before = testkit.Value(t, conn, tc.count)
		}
		testkit.Exec(t, conn, "begin isolation level repeatable read; set local client_min_messages = warning")
		text := strings.Join(testkit.Query(t, conn, "explain (analyze, format json) "+tc.sql), "\n")
		p := readChange(t, text)
		if got := testkit.Value(t, conn, tc.count); got != tc.want {
			t.Errorf("%s: %s changed, expected %s", tc.sql, got, tc.want)
		}
		sent := strings.Contains(p.Plan.outline(), "Insert[0](Redistribute") || strings.Contains(p.Plan.outline(), "Insert[0](Broadcast")
		var by []string
		for _, s := range p.Statistics {
			if s.Slice > 0 {
				continue
			}
			if by = append(by, s.By); s.By == "" {
				by = nil
			}
			if s.Rows != tc.rows || tc.rows > 0 && (s.Workers != tc.segments && tc.segments != 0 && !strings.HasPrefix(tc.sql, "delete") || s.Most > s.Rows || s.Most*int64(s.Workers) < s.Rows || s.Bytes == 0 && !sent) ||
				(s.By == "COPY") != (s.Statements == 0) && s.By != "" {
				t.Errorf("%s: %+v\n%s", tc.sql, s, text)
			}
		}
		if got := strings.Join(by, ","); got != tc.by {
			t.Errorf("%s: written by %s, expected %s\n%s", tc.sql, got, tc.by, text)
		}
		if got := p.Plan.outline(); tc.outline != "" && !slices.Contains(strings.Split(tc.outline, "|"), got) {
			t.Errorf("%s: %s, expected %s", tc.sql, got, tc.outline)
		}
		if p.Plan.Slice == nil || *p.Plan.Slice != 0 || p.Plan.Gang != "primary writer" || p.Plan.Rows == nil || p.Time <= 0 || p.Planning <= 0 || p.Interconnect == "" || p.Optimizer == "" {
			t.Errorf("%s\n%s", tc.sql, text)
		}
		testkit.Exec(t, conn, "rollback")
		if makes {
			if err := testkit.TryExec(conn, tc.count); testkit.SQLState(err) != "42P01" {
				t.Errorf("%s: rolled back, but: %v", tc.sql, err)
			}
		} else if got := testkit.Value(t, conn, tc.count); got != before {
			t.Errorf("%s: rolled back, but %s, before it %s", tc.sql, got, before)
		}

		plan := strings.Join(testkit.Query(t, conn, "explain analyze "+tc.sql), "\n") + "\n"
		has(t, plan, tc.text...)
		if got := testkit.Value(t, conn, tc.count); got != tc.want {
			t.Errorf("%s: %s changed, expected %s\n%s", tc.sql, got, tc.want, plan)
		}
	}

	// What each segment has, it was said to have been given.
	text := strings.Join(testkit.Query(t, conn, "explain (analyze, format json) create table spread as select i, i % 7 as j from generate_series(1, 500) i distributed by (j)"), "\n")
	counts := testkit.Query(t, conn, "select count(*) from spread group by gp_segment_id order by 1 desc")
	if s := readChange(t, text).Statistics[0]; fmt.Sprint(s.Most) != counts[0] || s.Rows != 500 {
		t.Errorf("on segments %v, said %+v", counts, s)
	}
}

// TestExplainChangeAtLength changes more rows than one statement takes, and looks
// at the options.
func TestExplainChangeAtLength(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, `create table t (id int, n int) distributed by (id); create table s (id int) distributed by (id);
		insert into t select i, i % 50 from generate_series(1, 6000) i; insert into s select generate_series(0, 49); analyze t; analyze s`)
	explain := func(sql string) string { return strings.Join(testkit.Query(t, conn, "explain "+sql), "\n") + "\n" }
	plan := explain("(analyze, verbose, buffers, wal) update t x set n = n + 100 where n in (select id from s)")
	has(t, plan, `^Update on public\.t x  \(slice0; segments: 3\)`, `Buffers: shared hit=`, `WAL: records=`, `Output: `,
		`Rows updated: 2000 avg x 3 workers, \d+ max \(seg[012]\)\.  Received: \d+ bytes in [6-9] statements \(the plan is seg[012]'s first of [23]\)`)
	if got := testkit.Value(t, conn, "select count(*) from t where n >= 100"); got != "6000" {
		t.Errorf("%s rows changed", got)
	}
	plan = explain("(analyze, costs off, timing off, summary off) delete from t where id <= 5000 and n in (select id + 100 from s)")
	has(t, plan, `^Delete on t  \(slice0; segments: 3\) \(actual rows=0 loops=1\)\n`, `Gather Motion 3:1  \(slice1; segments: 3\) \(actual rows=5000 loops=1\)`, `Rows deleted: 1666\.7 avg`)
	for _, not := range []string{"cost=", "time=", "Time:", "never executed"} {
		if strings.Contains(plan, not) {
			t.Errorf("%q in\n%s", not, plan)
		}
	}
	if got := testkit.Value(t, conn, "select count(*) from t"); got != "1000" {
		t.Errorf("%s rows left", got)
	}

	// The same plans, without anything done.
	for sql, want := range map[string][]string{
		"insert into t values (1, 1)":                          {`^Insert on t  \(slice0; segments: 1\)  \(cost=.*\)\n  Distributed: by \(id\)\n  ->  Result `},
		"insert into t select id, 1 from s":                    {`^Insert on t  \(slice0; segments: 3\)  \(cost=.*\)\n  Distributed: by \(id\)\n  ->  Seq Scan on s `},
		"insert into t select id + 1, 1 from s":                {`^Insert on t  \(slice0; segments: 3\)  \(cost=`, `\n  ->  Redistribute Motion 3:3  \(slice1; segments: 3\)`},
		"insert into t select id, 1 from s returning id":       {`^Insert on t  \(slice0; segments: 3\)  \(cost=`, `\n  ->  Gather Motion 3:1  \(slice1; segments: 3\)`, `Not pushed down: RETURNING`},
		"(costs off) update t set n = 0 where id = 5":          {`^Update on t  \(slice0; segments: 1\)\n  ->  Seq Scan on t\n        Filter: \(id = 5\)\n`},
		"update t set id = 0 where n = 5":                      {`^Update on t  \(slice0; segments: 3\)  \(cost=.*\)\n  ->  Gather Motion`, `Not pushed down: it changes the distribution key`},
		"(format json) delete from t using s where t.n = s.id": {`"Operation": "Delete"`, `"Node Type": "Gather Motion"`},
		"(format json) insert into t values (1, 1)":            {`"Segments": 1`},
	} {
		plan := explain(sql)
		has(t, plan, want...)
		if strings.Contains(plan, "ctual") || strings.Contains(plan, "slice0)  ") {
			t.Errorf("%s\n%s", sql, plan)
		}
		if strings.Contains(sql, "json") {
			readChange(t, plan)
		}
	}
	if got := testkit.Value(t, conn, "select count(*), min(n), max(id) from t"); got != "1000|100|6000" {
		t.Errorf("EXPLAIN has changed rows: %s", got)
	}
}

// TestExplainChangeFails: errors are the statement's own, and leave nothing.
func TestExplainChangeFails(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	testkit.Exec(t, c.Connect(t, db), explainTables+`; create table u (id int primary key, v int check (v > 0)); insert into u values (1, 1), (2, 2);
		create role onlooker login; grant select on a, b, u to onlooker`)
	cfg := c.Connect(t, db).Config().Copy()
	var notices []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer testkit.Close(conn)
	fails := func(sql string) *pgconn.PgError {
		t.Helper()
		var pe *pgconn.PgError
		if err := testkit.TryExec(conn, sql); !errors.As(err, &pe) {
			t.Fatalf("%s: %v", sql, err)
		}
		return pe
	}
	const explain = "explain (analyze) "
	for _, sql := range []string{
		"insert into u values (1, 5)",
		"insert into u values (9, -5)",
		"insert into u select id, 1 from b",
		"insert into u select id + 100, 1 / (id - 7) from b",
		"insert into u values ('x', 1)",
		"insert into u (nothing) values (1)",
		"insert into nowhere values (1)",
		"update u set v = v - 2",
		"update u set v = 1 / (v - 1) where id = 1",
		"update u set v = a.b / 0 from a where a.b = u.id",
		"update u set id = 5 returning 1 / (v - 1)",
		"delete from u where nothing = 1",
		"delete from u using a where a.b = u.id and 1 / (a.id - 101) > 0",
		"merge into u using b on u.id = b.id when matched then delete",
		"create table u as select 1 as i",
		"create table made as select id / 0 from a",
		"create materialized view made as select * from a",
		"execute nothing(1)",
	} {
		own, explained := fails(sql), fails(explain+sql)
		if own.Position > 0 {
			own.Position += int32(len(explain))
		}
		if own.Code != explained.Code || own.Position != explained.Position || own.ConstraintName != explained.ConstraintName ||
			strings.Split(own.Message, " (seg")[0] != strings.Split(explained.Message, " (seg")[0] {
			t.Errorf("%s: %+v, without EXPLAIN %+v", sql, explained, own)
		}
		notices = nil
		if got := strings.Join(testkit.Query(t, conn, "select id, v from u order by id"), ","); got != "1|1,2|2" || len(notices) > 0 {
			t.Errorf("after %s: %s, %q", sql, got, notices)
		}
	}
	for sql, code := range map[string]string{
		"explain (analyze, nothing) delete from u":                                         "42601",
		"explain (analyze, format jpeg) delete from u":                                     "22023",
		"explain (analyze) insert into pg_catalog.pg_description select 1, 2, 3, w from a": "0A000",
		"set role onlooker; explain analyze delete from u":                                 "42501",
		"begin read only; explain analyze insert into u values (7, 7)":                     "25006",
	} {
		if pe := fails(sql); pe.Code != code {
			t.Errorf("%s: %v", sql, pe)
		}
		testkit.Exec(t, conn, "rollback; reset role")
	}

	// In a block, up to a savepoint.
	testkit.Exec(t, conn, "begin; explain analyze insert into u values (3, 3); savepoint s; explain analyze delete from u where id < 3")
	if got := testkit.Value(t, conn, "select count(*) from u"); got != "1" {
		t.Errorf("%s rows in the transaction", got)
	}
	if pe := fails("explain analyze insert into u values (3, 3)"); pe.Code != "23505" {
		t.Error(pe)
	}
	testkit.Exec(t, conn, "rollback to s")
	notices = nil
	if got := strings.Join(testkit.Query(t, conn, "select id from u order by id"), ","); got != "1,2,3" {
		t.Errorf("after the savepoint: %s", got)
	}
	testkit.Exec(t, conn, "commit; update u set v = 9 where id = 3")
	if got := testkit.Value(t, conn, "select count(*) from u where v = 9"); got != "1" || len(notices) > 0 {
		t.Errorf("%s, %q", got, notices)
	}

	// An ordinary user's notices and parameters are as they were.
	testkit.Exec(t, conn, "grant all on u to onlooker; create function says(i int) returns int language plpgsql as $$ begin raise notice 'said %', i; return i; end $$; set role onlooker")
	for level, want := range map[string]string{"notice": "[said 10 said 11]", "warning": "[]"} {
		testkit.Exec(t, conn, "begin; set local client_min_messages = "+level)
		notices = nil
		testkit.Query(t, conn, "explain analyze insert into u select says(i), i from generate_series(10, 11) i")
		if got := fmt.Sprint(notices); got != want || testkit.Value(t, conn, "show client_min_messages") != level {
			t.Errorf("%s: %s, expected %s", level, got, want)
		}
		testkit.Exec(t, conn, "set work_mem = '7MB'; rollback; set work_mem = '8MB'; select count(*) from a; reset work_mem; select count(*) from a")
	}
}

// TestExplainChangeInMessages sends changes in the extended protocol: parameters
// are values by then, and what is wanted back are lines of text whatever the
// statement itself would return.
func TestExplainChangeInMessages(t *testing.T) {
	c := beside(t)
	ctx, conn := t.Context(), c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, explainTables)
	lines := func(sql string, args ...any) string {
		t.Helper()
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || rows.CommandTag().String() != "EXPLAIN" {
			t.Fatalf("%s: %v, %s", sql, err, rows.CommandTag())
		}
		return strings.Join(all, "\n") + "\n"
	}
	has(t, lines("explain analyze update a set w = $1 where id = $2 returning id, b, w", "it's", 7), `^Update on a .*rows=1 loops=1`, `Filter: \(id = 7\)`)
	has(t, lines("explain analyze insert into b values ($1, $2) returning *", 5000, `a "b" \ c`), `Rows inserted: 1 \(seg`)
	has(t, lines("explain analyze insert into b select id + $1, $2 from a where id <= $3", 7000, "sel", 30), `Rows inserted: 10 avg`)
	if got := testkit.Value(t, conn, `select (select w from a where id = 7), (select v from b where id = 5000), (select count(*) from b where v = 'sel')`); got != `it's|a "b" \ c|30` {
		t.Error(got)
	}

	// A batch is one transaction: what came before its error goes, too.
	batch := &pgx.Batch{}
	batch.Queue("explain analyze delete from a where id <= $1", 500)
	batch.Queue("explain analyze insert into b select 1 / (id - $1), 'x' from a", 600)
	if err := conn.SendBatch(ctx, batch).Close(); testkit.SQLState(err) != "22012" {
		t.Errorf("the batch: %v", err)
	}
	if got := testkit.Value(t, conn, "select count(*) from a"); got != "1000" {
		t.Errorf("%s rows after a batch that has failed", got)
	}
	batch = &pgx.Batch{}
	batch.Queue("explain analyze delete from a where id <= $1", 500)
	batch.Queue("explain analyze update a set w = $1 from b where a.b = b.id and b.id = $2", "batched", 9)
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		t.Error(err)
	}
	if got := testkit.Value(t, conn, "select count(*), count(*) filter (where w = 'batched') from a"); got != "500|5" {
		t.Errorf("%s rows after a batch", got)
	}
}

// TestExplainFormats prints plans in XML and YAML.
func TestExplainFormats(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, explainTables)
	for _, sql := range []string{
		"select a.w, b.v from a join b on a.b = b.id where w <> '<&\"]]>'",
		"update a set w = '<&\"' from b where a.b = b.id and b.v <> E'\\n'",
	} {
		for _, options := range []string{"", "analyze, ", "analyze, verbose, costs off, "} {
			text := testkit.Value(t, conn, "explain ("+options+"format xml) "+sql)
			nodes := map[string]int{}
			for dec := xml.NewDecoder(strings.NewReader(text)); ; {
				tok, err := dec.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				if el, ok := tok.(xml.StartElement); ok {
					if nodes[el.Name.Local]++; el.Name.Space != "http://www.postgresql.org/2009/explain" {
						t.Errorf("%v\n%s", el.Name, text)
					}
				}
			}
			if nodes["Query"] != 1 || nodes["Plan"] < 4 || nodes["Plan"] != nodes["Node-Type"] || nodes["Optimizer"] != 1 || (nodes["Bytes-Sent"] > 0) != (options != "") {
				t.Errorf("%v\n%s", nodes, text)
			}
			// The coordinator's server reads it, too.
			if n := testkit.Value(t, conn, "select array_length(xpath('//e:Plan', '"+strings.ReplaceAll(text, "'", "''")+"'::xml, array[array['e', 'http://www.postgresql.org/2009/explain']]), 1)"); n != fmt.Sprint(nodes["Plan"]) {
				t.Errorf("%s plans, expected %d", n, nodes["Plan"])
			}
			text = testkit.Value(t, conn, "explain ("+options+"format yaml) "+sql)
			has(t, text+"\n", `^- Plan: \n    Node Type: "`, `\n( +)- Node Type: "Seq Scan"\n +Parent Relationship: "`, `\n  Optimizer: "Postgres-based planner"\n`)
		}
	}
}
