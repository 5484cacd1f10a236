package clustertest

import (
	"context"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/randomsql"
	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestSetOperations runs set operations that the segments evaluate, with and
// without motions, and looks at what EXPLAIN says of them.
func TestSetOperations(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table a (id int, v text, d date) distributed by (id);
		create table b (id bigint, v varchar(10), d date) distributed by (id);
		create table s (id int, v text, d date) distributed randomly;
		insert into a select i, 'v' || i % 50, date '2020-01-01' + i % 40 from generate_series(1, 1000) i;
		insert into b select i, 'v' || i % 60, date '2020-01-01' + i % 30 from generate_series(501, 1500) i;
		insert into s select i, 'v' || i % 70, date '2020-01-01' + i % 20 from generate_series(1, 1000) i;
		analyze a; analyze b; analyze s;
		create view everything as select id, v, d from a union all select id, v, d from b union all select id, v, d from s`)
	for _, q := range []struct {
		sql, want string
		plan      []string // patterns of EXPLAIN
	}{
		{"select count(*), sum(id), count(distinct v) from everything", "3000|2001500|70",
			[]string{`Gather Motion 3:1`, `Append`, `Seq Scan on a`, `Seq Scan on b`, `Seq Scan on s`}},
		{"select count(*), sum(x.id) from (select id, v from a union all select id, v from b) x join b on b.id = x.id", "1500|1375750",
			[]string{`Gather Motion 3:1`, `Append`}},
		{"with w as (select id, d from a union all select id, d from s) select count(*) from w join b on b.id = w.id and b.d = w.d", "289",
			[]string{`Redistribute Motion 3:3  \(slice2; segments: 3\)`, `Hash Key: (s\.)?id`}},
		{"select id from a union select id from b order by 1 desc limit 2", "1500 1499", []string{`Gather Motion 3:1`}},
		{"select count(*) from (select id, v from a intersect select id, v from b) x", "100", []string{`SetOp Intersect`}},
		{"select id, d from a except all select id, d from b where id > 502 order by 1 desc limit 1", "1000|2020-01-01", []string{`SetOp Except`}},
		{"select count(*), min(d) from (select d from a union select d from s) x", "40|2020-01-01",
			[]string{`Redistribute Motion 3:3 .*\n.*Hash Key: (a\.)?d`, `Redistribute Motion 3:3 .*\n.*Hash Key: (s\.)?d`}},
		{"select v from s except select v from a order by v limit 2", "v50 v51", []string{`Redistribute Motion`}},
	} {
		if got := strings.Join(testkit.Query(t, conn, q.sql), " "); got != q.want {
			t.Errorf("%s: %s, wanted %s", q.sql, got, q.want)
		}
		has(t, strings.Join(testkit.Query(t, conn, "explain "+q.sql), "\n"), q.plan...)
		has(t, strings.Join(testkit.Query(t, conn, "explain analyze "+q.sql), "\n"), append(q.plan, "Execution Time")...)
	}
	// An arm with one of several parameters, each of a type of its own.
	const one = "select x.d from (select d from a union all select $2::date from b where id > 1490) x, generate_series(1, 2) g where g <> $1::integer"
	got := randomsql.Ask(context.Background(), conn.PgConn(), one, [][2]string{{"2", "integer"}, {"2020-01-02", "date"}})
	if got.Err != nil || len(got.Rows) != 1010 {
		t.Errorf("%s: %d rows, %v", one, len(got.Rows), got.Err)
	}
	// What one segment sends, whichever that is, does not change where the rows
	// of others go.
	testkit.Exec(t, conn, "create table r (id int) distributed replicated; insert into r values (1), (2)")
	for range 8 {
		const sql = "select id from r union all (select a.id from a join s on a.id = s.id order by 1 limit 2000)"
		if got := testkit.Query(t, conn, sql); len(got) != 1002 {
			t.Fatalf("%s: %d rows", sql, len(got))
		}
	}
	// A plan says why the coordinator does it.
	has(t, strings.Join(testkit.Query(t, conn, "explain select id from a union select d - date '2020-01-01' from b"), "\n"),
		`Gather Motion 3:1  \(slice1`, `Gather Motion 3:1  \(slice2`, `Not pushed down: a set operation with equal rows that may be on different segments`)
}
