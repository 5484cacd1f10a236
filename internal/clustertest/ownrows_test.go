package clustertest

import (
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestOwnRows looks for what only a session's own executors see where a statement does
// not name it, or where others read beside them: with enough rows that readers would be
// asked.
func TestOwnRows(t *testing.T) {
	c := beside(t)
	for _, mode := range []string{tcp, proxy} {
		db := c.Database(t)
		conn := c.Connect(t, db, mode)
		testkit.Exec(t, conn, `drop table if exists t, u, allowed, secured cascade; create table t (k int, x int) distributed by (k); insert into t select i, i from generate_series(1, 60000) i;
			create table u (c int, n int) distributed by (n); insert into u select i, i from generate_series(1, 60000) i; analyze t; analyze u;
			create table allowed (g int) distributed replicated; insert into allowed values (1);
			create table secured (k int, x int, g int) distributed by (k); insert into secured select i, i, i % 3 from generate_series(1, 60000) i; analyze secured;
			alter table secured enable row level security; create policy few on secured using (g in (select g from allowed));
			create view v as select * from secured`)
		role := "reader_" + db
		testkit.Exec(t, conn, "create role "+role+"; grant all on all tables in schema public to "+role)
		defer testkit.Exec(t, conn, "reset role; drop owned by "+role+"; drop role "+role)
		for _, tc := range []struct{ before, sql, want string }{
			{"insert into t values (60001, 7)", "select count(*) from t join u on t.x = u.c", "60001"},
			{"insert into t values (60001, 7)", "select count(*) from t a join t b on a.x = b.k", "60001"},
			{"insert into t values (60001, 7); delete from u where c = 9", "select count(*) from t join u on t.x = u.c join t as again on again.k = t.x where exists (select from t e where e.k = u.c)", "60000"},
			{"create temp table own (i int, j int) on commit drop distributed by (i); insert into own select i, i from generate_series(1, 50000) i; analyze own", "select count(*) from own x join own y on x.j = y.i left join t on t.k = y.i and t.x < 100", "50000"},
			{"insert into allowed select 7 from generate_series(1, 3); insert into t values (60001, 7)", "select count(*) from t join u on t.x = u.c join allowed on allowed.g = u.c", "7"},
			{"insert into u values (7, 60001)", "select count(*) from t join u on t.x = u.c", "60001"},
			{"update t set x = 7 where k <= 10; delete from u where c = 8", "select count(*) from t join u on t.x = u.c", "60000"},
			{"truncate u; insert into u select 7, i from generate_series(1, 50000) i", "select count(*) from t join u on t.x = u.c", "50000"},
			{"insert into secured values (60001, 7, 1)", "select count(*) from v join u on v.x = u.c", "60001"},
			{"set local role " + role + "; insert into allowed values (2)", "select count(*) from secured s join u on s.x = u.c", "40000"},
			{"set local role " + role + "; delete from allowed", "select count(*) from secured s join u on s.x = u.c", "0"},
			{"create temp table child () inherits (t) on commit drop; insert into child select i, i from generate_series(1, 100) i", "select count(*) from t join u on t.x = u.c", "60100"},
			{"create table fresh (a int); insert into t values (60001, 7)", "select count(*) from gp_dist_random('pg_class') r join u on length(r.relname) = u.c where r.relname = 'fresh'", "3"},
			{"create table fresh as select i from generate_series(1, 50000) i distributed by (i); insert into fresh values (0)", "select count(*) from fresh f join u on f.i = u.c join t on t.x = u.c", "50000"},
			{"create table fresh (a int) distributed by (a); insert into fresh select k from t", "select count(*), count(f.a) from t left join fresh f on f.a = t.x join u on u.c = t.x", "60000|60000"},
			{"declare early cursor for select count(*) from t join u on t.x = u.c; insert into t values (60001, 7)", "fetch early", "60000"},
		} {
			for _, block := range []string{"begin; ", "begin isolation level repeatable read; select count(*) from t join u on t.x = u.c; "} {
				ask := block + tc.before
				testkit.Exec(t, conn, ask)
				if got := testkit.Value(t, conn, tc.sql); got != tc.want {
					t.Errorf("%s; %s: %s, expected %s\n%s", ask, tc.sql, got, tc.want, strings.Join(testkit.Query(t, conn, "explain "+strings.ReplaceAll(tc.sql, "fetch early", "select 1")), "\n"))
				}
				testkit.Exec(t, conn, "rollback")
			}
		}
		// In later transactions a temporary child of a table is there as well.
		testkit.Exec(t, conn, "create temp table child () inherits (t); insert into child select i, i from generate_series(1, 100) i")
		if got := testkit.Value(t, conn, "select count(*) from t join u on t.x = u.c"); got != "60100" {
			t.Errorf("with a temporary child: %s", got)
		}
	}
}
