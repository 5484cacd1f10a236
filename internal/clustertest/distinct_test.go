package clustertest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestDistinctAggregates counts once what is on several segments: few values
// are gathered and counted on the coordinator, many are redistributed and counted
// on the segments, also those of tables that were themselves redistributed.
func TestDistinctAggregates(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, `create table ev (id int, x int, few int, name text, day date) distributed by (id);
		create table dim (id int, x int, size int) distributed by (id);
		insert into ev select i, nullif(i % 20000, 7), i / 11 % 3, 'n' || i % 9000, date '2020-01-01' + i % 2000 from generate_series(1, 60000) i;
		insert into ev select i, i % 20000, null, null, null from generate_series(1, 5000) i;
		insert into dim select i, i, i % 7 from generate_series(1, 20000) i;
		analyze ev; analyze dim`)
	conns := map[string]*pgx.Conn{}
	for _, typ := range []string{udpifc, tcp, proxy} {
		conns[typ] = c.Connect(t, conn.Config().Database, typ)
	}
	const moved, gathered = `Redistribute Motion 3:3`, `Gather Motion 3:1  \(slice1; segments: 3\)`
	for _, q := range []struct {
		sql, want string
		plan      []string // patterns of EXPLAIN
		not       string   // what is not there
	}{
		{"select count(distinct few), count(*) from ev", "3|65000", []string{gathered}, "Redistribute"},
		// One value is NULL in the first rows and there in the others.
		{"select count(distinct x), sum(distinct x), count(*), sum(id), min(name) from ev", "20000|199990000|65000|1812532500|n0",
			[]string{gathered, moved + ` +\(slice2; segments: 3\).*\n.*Hash Key: s\.c1`, `HashAggregate.*\n.*Group Key: ev\.x|Group Key: x`}, ""},
		{"select count(distinct x) filter (where few = 1), sum(distinct x) filter (where few = 1) from ev", "9089|90868178", []string{moved}, ""},
		{"select few, count(distinct x), count(*) from ev group by few having count(distinct x) > 5 order by few nulls first",
			`\N|5000|5000 0|9091|20004 1|9089|19998 2|9090|19998`, []string{moved}, ""},
		{"select name, count(distinct few), sum(few) from ev group by name order by 2 desc, name desc limit 2", "n999|3|6 n998|3|8",
			[]string{`Merge Key`, moved + ` +\(slice2; segments: 3\).*\n.*Hash Key: s\.c1`}, ""},
		{"select count(distinct day) from ev where id <= 60000", "2000", []string{moved}, ""},
		{"select d.size, count(distinct e.name) from ev e join dim d on e.x = d.x where d.size < 2 group by 1 order by 1",
			"0|4856 1|4857", []string{`Redistribute Motion 3:3 +\(slice2; segments: 3\)`, `Motion 3:3 +\(slice3; segments: 3\)`}, ""},
	} {
		plan := strings.Join(testkit.Query(t, conn, "explain "+q.sql), "\n")
		has(t, plan, q.plan...)
		if q.not != "" && strings.Contains(plan, q.not) {
			t.Errorf("%s: %s in\n%s", q.sql, q.not, plan)
		}
		has(t, strings.Join(testkit.Query(t, conn, "explain analyze "+q.sql), "\n"), append(q.plan, "Execution Time")...)
		for typ, conn := range conns {
			if got := strings.Join(testkit.Query(t, conn, q.sql), " "); got != q.want {
				t.Errorf("%s: %s: %s, wanted %s", typ, q.sql, got, q.want)
			}
		}
	}
}

// TestMovedGroups joins sub-selects that aggregate with tables whose rows are
// elsewhere: what each segment has aggregated goes to where the others are, or to
// all segments.
func TestMovedGroups(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, `create table line (id int, part int, qty numeric, price int) distributed by (id);
		create table part (k int primary key, name text) distributed by (k);
		insert into line select i, i % 500, i % 13 / 2.0, i % 90 from generate_series(1, 50000) i;
		insert into part select i, 'n' || i % 10 from generate_series(0, 999) i;
		analyze line; analyze part`)
	for _, q := range []struct {
		sql, want string
		plan      []string
	}{
		{"select count(*), sum(x.q), sum(x.n) from part join (select part, sum(qty) as q, count(distinct price) as n from line group by part) x on x.part = k where k < 100",
			"100|30001.50000000000000000000|900", []string{`Redistribute Motion 3:3 +\(slice2; segments: 3\).*\n.*Hash Key: s\.c1.*\n +-> +HashAggregate`}},
		{"select count(*), sum(price) from line, part where k = part and name = 'n3' and qty < (select 0.2 * avg(l.qty) from line l where l.part = k)",
			"770|33120", []string{`Broadcast Motion 3:3 .*\n +-> +HashAggregate`}},
	} {
		if got := strings.Join(testkit.Query(t, conn, q.sql), " "); got != q.want {
			t.Errorf("%s: %s, wanted %s", q.sql, got, q.want)
		}
		has(t, strings.Join(testkit.Query(t, conn, "explain "+q.sql), "\n"), q.plan...)
		has(t, strings.Join(testkit.Query(t, conn, "explain analyze "+q.sql), "\n"), "Execution Time")
	}
}
