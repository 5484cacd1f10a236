package clustertest

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestSideBySide has slices run in executors beside the session's own: they see and
// do what the session would.
func TestSideBySide(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	setup := c.Connect(t, db)
	testkit.Exec(t, setup, "create table a (i int, k int, d date) with (autovacuum_enabled = off) distributed by (i);"+
		"create table b (i int, k int, d date) with (autovacuum_enabled = off) distributed by (i);"+
		"insert into a select g, g * 7 % 1000, '2020-02-01'::date + g from generate_series(0, 999) g; insert into b select i, k, d from a; analyze a; analyze b")
	lookLarge(t, c, db)
	const join = "select count(*), sum(a.i - b.i), max(b.d) from a join b using (k)"
	seg0 := backendOf(t, c, 2, db)
	executors := func(of *pgx.Conn) string {
		t.Helper()
		return testkit.Value(t, seg0, fmt.Sprintf("select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name = '%s'",
			testkit.Value(t, of, "show application_name")))
	}
	for _, typ := range interconnectTypes {
		t.Run(typ, func(t *testing.T) {
			conn := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=beside_"+typ)
			ask := func(want string) {
				t.Helper()
				if got := testkit.Value(t, conn, join); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			const all = "1000|0|2022-10-27"
			testkit.Eventually(t, 10*time.Second, func() error { // guesses live a second
				ask(all)
				if executors(conn) < "2" {
					return errors.New("nobody works on seg0 beside the session's own executor")
				}
				return nil
			})
			testkit.Exec(t, conn, "set datestyle = 'SQL, DMY'")
			ask("1000|0|27/10/2022")
			testkit.Exec(t, conn, "reset datestyle")

			// What the coordinator finishes reads no further than it needs, in a
			// block as well as outside; an error behind that is none.
			for _, block := range []string{"", "begin"} {
				testkit.Exec(t, conn, block)
				if got := testkit.Value(t, conn, "select count(*) from (select 1 / (1000 - i) from a where random() < 2 limit 3) x"); got != "3" {
					t.Errorf("%s: a LIMIT of 3 has %s rows", block, got)
				}
				if got := testkit.Value(t, conn, "select count(*), sum(i) from (select i from a where random() < 2 limit 1000000) x"); got != "1000|499500" {
					t.Errorf("%s: all rows are %s", block, got)
				}
				if block != "" {
					testkit.Exec(t, conn, "commit")
				}
			}
			var pe *pgconn.PgError
			if err := testkit.TryExec(conn, "select count(*) from (select 1 / (i - 500) as q from a where random() < 2 limit 1000000) x where q < 9"); !errors.As(err, &pe) || pe.Code != "22012" {
				t.Errorf("a division by zero: %v", err)
			}

			// EXPLAIN ANALYZE has them too, who say how they have run their slices.
			cfg := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=explainer_"+typ).Config().Copy()
			var notices []string
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
			explainer, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer testkit.Close(explainer)
			for _, failing := range []string{"", "insert into b select 1 / (i - 500), k, d from a", "select 1 / (a.i - 500) from a join b using (k)"} {
				if failing != "" {
					if err := testkit.TryExec(explainer, "explain analyze "+failing); testkit.SQLState(err) != "22012" {
						t.Errorf("%s: %v", failing, err)
					}
					if got := testkit.Value(t, explainer, join); got != all || len(notices) > 0 {
						t.Errorf("after EXPLAIN ANALYZE that has failed: %s, %q", got, notices)
					}
				}
				plan := strings.Join(testkit.Query(t, explainer, "explain (analyze, costs off, timing off, summary off) "+join), "\n")
				if n := executors(explainer); n < "2" {
					t.Errorf("EXPLAIN ANALYZE has %s executors on seg0", n)
				}
				for _, want := range []string{`(Redistribute|Broadcast) Motion 3:3  \(slice2; segments: 3\) \(actual rows=[0-9]+ loops=1\)\n( +Hash Key: .*\n)? +->  Seq Scan on [ab] \(actual rows=`,
					`\(slice2\)    Rows out: 333.3 avg x 3 workers`} {
					if !regexp.MustCompile(want).MatchString(plan) {
						t.Errorf("no %s in\n%s", want, plan)
					}
				}
				if strings.Contains(plan, "portions") {
					t.Errorf("the plan speaks of portions:\n%s", plan)
				}
				if got := testkit.Value(t, explainer, join); got != all {
					t.Errorf("after EXPLAIN ANALYZE: %s", got)
				}
			}

			// A block has them until it has written.
			block := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=block_"+typ)
			asks := func(want string) {
				t.Helper()
				if got := testkit.Value(t, block, join); got != want {
					t.Errorf("in a block: got %s, want %s", got, want)
				}
			}
			testkit.Exec(t, block, "begin")
			asks(all)
			if executors(block) < "2" {
				t.Error("nobody works on seg0 beside the session's own executor in a block")
			}
			testkit.Exec(t, block, "set local datestyle = 'SQL, DMY'")
			asks("1000|0|27/10/2022")
			testkit.Exec(t, block, "reset datestyle; declare c cursor for "+join+"; declare d cursor for select a.i from a join b using (k) order by 1")
			asks(all)
			if got := testkit.Value(t, block, "fetch c"); got != all {
				t.Errorf("a cursor: %s", got)
			}
			testkit.Exec(t, conn, "delete from b where i >= 500")
			asks("500|0|2021-06-14")
			if got := testkit.Value(t, block, "fetch absolute 1000 d"); got != "999" {
				t.Errorf("a cursor's last row: %s", got)
			}
			testkit.Exec(t, block, "savepoint s; insert into b select i, k, d from a where i >= 500")
			asks(all)
			testkit.Exec(t, block, "rollback to s")
			asks("500|0|2021-06-14")
			testkit.Exec(t, block, "insert into b select i, k, d from a where i >= 500")
			testkit.Exec(t, block, "commit")
			ask(all)

			// A block with one snapshot has them too: they see what it sees, and it is
			// committed in two phases.
			for _, mode := range []string{"", " read only"} {
				repeat := c.Connect(t, db, "gp_interconnect_type="+typ, fmt.Sprintf("application_name=repeat%d_%s", len(mode), typ))
				sees := func(want string) {
					t.Helper()
					if got := testkit.Value(t, repeat, join); got != want {
						t.Errorf("in a block of repeatable read%s: got %s, want %s", mode, got, want)
					}
				}
				testkit.Exec(t, repeat, "create temp table own (i int) distributed by (i); insert into own values (7)")
				testkit.Exec(t, repeat, "begin isolation level repeatable read"+mode)
				testkit.Exec(t, repeat, "select * from a where i = 1; select pg_sleep(0)")
				if got := executors(repeat); got != "1" {
					t.Errorf("repeatable read%s: %s executors on seg0 before any are wanted", mode, got)
				}
				testkit.Exec(t, repeat, "savepoint r; set local datestyle = 'SQL, DMY'; savepoint r")
				sees("1000|0|27/10/2022")
				want := "3" // with what keeps the snapshot
				if mode != "" {
					want = "2"
				}
				if got := executors(repeat); got != want {
					t.Errorf("repeatable read%s: %s executors on seg0, want %s", mode, got, want)
				}
				testkit.Exec(t, conn, "delete from b where i >= 500")
				testkit.Exec(t, repeat, "release r; rollback to r")
				sees(all)
				testkit.Exec(t, repeat, "savepoint s")
				if err := testkit.TryExec(repeat, "select 1 / count(*) from a join b using (k) where a.i < 0"); testkit.SQLState(err) != "22012" {
					t.Errorf("a division by zero: %v", err)
				}
				testkit.Exec(t, repeat, "rollback to s; declare c cursor for select a.i from a join b using (k) order by 1")
				sees(all)
				if got := testkit.Value(t, repeat, "fetch absolute 1000 c"); got != "999" {
					t.Errorf("a cursor's last row: %s", got)
				}
				testkit.Exec(t, conn, "insert into b select i, k, d from a where i >= 500")
				if mode == "" {
					testkit.Exec(t, repeat, "lock table a, b; insert into b select a.i + 1000, a.k + 1000, a.d from a join b using (k)")
					sees(all)
					testkit.Exec(t, repeat, "insert into a select i, k, d from b where i >= 1000")
					if got := testkit.Value(t, repeat, join); got != "2000|0|2022-10-27" {
						t.Errorf("after it has written: %s", got)
					}
				}
				testkit.Exec(t, repeat, "commit; delete from a where i >= 1000; delete from b where i >= 1000")
				sees(all)
				if got := testkit.Value(t, repeat, "select i from own"); got != "7" {
					t.Errorf("a temporary table has %s", got)
				}
			}

			// So has a statement of such a block that writes, and one that begins one itself.
			for i, tc := range []struct{ block, sql string }{
				{"begin isolation level repeatable read", "create table r as select a.i, b.k from a join b using (k) distributed by (i)"},
				{"begin isolation level repeatable read", "create table r as select i, k from a distributed by (k)"},
				{"begin isolation level repeatable read", "create table r as select i, k from a limit 0 distributed by (i); insert into r select a.i, b.k from a join b using (k)"},
				{"", "create table r as select i, k from a distributed by (k)"},
				{"", "explain analyze create table r as select i, k from a distributed by (k)"},
				{"", "create table r (i int, k int) distributed by (k); explain analyze insert into r select a.i, k from a join b using (k)"},
			} {
				writer := c.Connect(t, db, "gp_interconnect_type="+typ, fmt.Sprintf("application_name=writer%d_%s", i, typ))
				testkit.Exec(t, writer, tc.block)
				for _, sql := range strings.Split(tc.sql, "; ") {
					testkit.Exec(t, writer, sql)
				}
				want := "3"
				if i == 2 {
					want = "1" // it has written
				}
				if got := executors(writer); got != want {
					t.Errorf("%s: %s: %s executors on seg0, want %s", tc.block, tc.sql, got, want)
				}
				if tc.block != "" {
					testkit.Exec(t, writer, "commit")
				}
				if got := testkit.Value(t, writer, "select count(*), sum(i), count(distinct k) from r"); got != "1000|499500|1000" {
					t.Errorf("%s: %s has made %s", tc.block, tc.sql, got)
				}
				testkit.Exec(t, writer, "drop table r")
			}

			// Rows that segments insert into other segments: alone, in a block that has
			// written something, and in a table that is made of them.
			sender := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=sender_"+typ)
			testkit.Exec(t, sender, "create table s1 (k int, i int) distributed by (k); create table s2 (k int, i int) distributed by (k)")
			for i, sql := range []string{"insert into s1 select k, i from a", "begin; insert into s1 select k, i + 1000 from a",
				"create table s3 as select k, i from s1 distributed by (k)", "create table s4 as select k, i from s3 where i < 1000 distributed by (i)"} {
				testkit.Exec(t, sender, sql)
				if got := executors(sender); i == 0 && got < "2" {
					t.Errorf("%s: %s executors on seg0", sql, got)
				}
			}
			testkit.Exec(t, sender, "savepoint s; insert into s2 select i, k from s3; commit")
			joiner := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=joiner_"+typ)
			testkit.Exec(t, joiner, "insert into s2 select a.i, b.k from a join b using (k)")
			if got := executors(joiner); got < "2" {
				t.Errorf("rows of a join are inserted by %s executors on seg0", got)
			}
			const sums = "select (select count(*) || ' ' || sum(i) || ' ' || count(distinct k) from s1), (select count(*) || ' ' || sum(i) from s2), (select count(*) || ' ' || sum(i) from s4)"
			if got, want := testkit.Value(t, conn, sums), "2000 1999000 1000|3000 1498500|1000 499500"; got != want {
				t.Errorf("inserted: %s, want %s", got, want)
			}
			testkit.Exec(t, sender, "drop table s1; drop table s2; drop table s3; drop table s4")

			// Its own changes, also those of a savepoint, and temporary tables: what
			// only its own executors see, and readers join.
			own := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=own_"+typ)
			mine := func(sql, want string) {
				t.Helper()
				testkit.Exec(t, own, sql)
				if got := testkit.Value(t, own, join); got != want {
					t.Errorf("after %s: got %s, want %s", sql, got, want)
				}
			}
			mine("begin; update b set d = d + 1", "1000|0|2022-10-28")
			if got := executors(own); got != "2" {
				t.Errorf("a join of what the transaction has written has %s executors on seg0", got)
			}
			mine("savepoint s; delete from a where i >= 500", "500|0|2021-06-15")
			mine("rollback to s", "1000|0|2022-10-28")
			testkit.Exec(t, own, "declare c cursor for select a.i, b.d from a join b using (k) order by 1")
			mine("savepoint s; alter table b add column e int; delete from b where i >= 500", "500|0|2021-06-15")
			if got := testkit.Value(t, own, "fetch absolute 1000 c"); got != "999|2022-10-28" {
				t.Errorf("a cursor's last row: %s", got)
			}
			mine("rollback to s; insert into a select a.i + 1000, a.k + 1000, a.d from a join b using (k); insert into b select i, k, d from a where i >= 1000", "2000|0|2022-10-28")
			mine("rollback; create temp table b (i int, k int, d date) distributed by (i); insert into b select i, k, d + 2 from public.b; analyze b", "1000|0|2022-10-29")
			mine("begin; delete from b where i >= 500", "500|0|2021-06-16")
			mine("rollback; drop table b", all)

			// EXPLAIN says where they do not.
			inTurn := func(why string) {
				t.Helper()
				plan := strings.Join(testkit.Query(t, conn, "explain (costs off) "+join), "\n")
				line := "\nSlices Run in Turn: " + why + "\n"
				if why == "" && strings.Contains(plan, "in Turn") || why != "" && !strings.Contains(plan, line) {
					t.Errorf("expected %q in\n%s", why, plan)
				}
			}
			inTurn("")
			testkit.Exec(t, conn, "begin isolation level serializable")
			inTurn("the transaction is SERIALIZABLE, or has locked tables")
			testkit.Exec(t, conn, "rollback; begin; update b set d = d + 1; create table fresh as select i, k from a distributed by (k); insert into fresh select k, i from b")
			inTurn("")
			testkit.Exec(t, conn, "alter table b add column e int")
			inTurn("the transaction has written")
			ask("1000|0|2022-10-28")
			testkit.Exec(t, conn, "rollback; create temp table many (i int, j int) distributed by (i); insert into many select i, i + 1 from generate_series(1, 60000) i; analyze many;"+
				"create temp table little (i int) distributed by (i); insert into little select generate_series(1, 9000); analyze little")
			for query, want := range map[string]struct{ turn, stays bool }{
				"select count(*) from little x left join many y on x.i = y.j": {false, true},
				"select x from little x left join many y on x.i = y.j":        {true, false}, // rows that are values stay in their slice
				"select count(*) from many x left join many y on x.i = y.j":   {true, false}, // as many as come
			} {
				plan := strings.Join(testkit.Query(t, conn, "explain "+query), "\n")
				if strings.Contains(plan, "\nSlices Run in Turn: temporary tables\n") != want.turn || strings.Contains(plan, "Explicit Redistribute Motion") != want.stays {
					t.Errorf("%s:\n%s", query, plan)
				}
			}
			if got := testkit.Value(t, conn, "select count(*), sum(x.i), sum(y.i) from little x left join many y on x.i = y.j"); got != "9000|40504500|40495500" {
				t.Errorf("a join of temporary tables: %s", got)
			}
			if got := testkit.Value(t, conn, "select count(*), sum(i) from (select i from many where random() < 2 limit 1000000) x"); got != "60000|1800030000" {
				t.Errorf("all rows of a temporary table: %s", got)
			}
			testkit.Exec(t, conn, "drop table many; drop table little")
			ask(all)

			// Locks on segments are waited for, a reader's like the session's own.
			other, n := backendOf(t, c, 2, db), 0
			for _, table := range []string{"a", "b", "a", "b"} {
				waiter, name := conn, "beside_"
				if n++; n > 2 {
					waiter, name = block, "block_"
					testkit.Exec(t, block, "begin")
				}
				testkit.Exec(t, other, "begin; lock table "+table)
				done := make(chan string, 1)
				go func() {
					var n int
					err := waiter.QueryRow(t.Context(), "select count(*) from a join b using (k)").Scan(&n)
					done <- fmt.Sprint(n, " ", err)
				}()
				testkit.Eventually(t, 20*time.Second, func() error {
					if n := testkit.Value(t, seg0, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = '"+name+typ+"'"); n == "0" {
						return errors.New("nobody waits for " + table)
					}
					return nil
				})
				select {
				case got := <-done:
					t.Errorf("with %s locked: %s", table, got)
				case <-time.After(300 * time.Millisecond): // a reader's patience, and more
				}
				testkit.Exec(t, other, "commit")
				if got := <-done; got != "1000 <nil>" {
					t.Errorf("after the lock of %s: %s", table, got)
				}
				if waiter == block {
					asks(all)
					testkit.Exec(t, block, "commit")
				}
			}

			// Rights are those of now.
			testkit.Exec(t, conn, "create role reads_"+typ+"; grant select on a to reads_"+typ+"; set role reads_"+typ)
			if err := testkit.TryExec(conn, join); !errors.As(err, &pe) || pe.Code != "42501" {
				t.Errorf("as a role without rights: %v", err)
			}
			testkit.Exec(t, conn, "reset role; set statement_timeout = 100")
			if err := testkit.TryExec(conn, "select count(*) from a, b, a c where a.k + b.k + c.k <> 1"); !errors.As(err, &pe) || pe.Code != "57014" {
				t.Errorf("a statement's time: %v", err)
			}
			testkit.Exec(t, conn, "reset statement_timeout; drop owned by reads_"+typ+"; drop role reads_"+typ)
			ask(all)
		})
	}
}

// TestLimitStopsInBlock has the coordinator need a few rows of many, in a block that
// has written and in one that has not: the segments are stopped, and the block goes
// on.
func TestLimitStopsInBlock(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	setup := c.Connect(t, db)
	testkit.Exec(t, setup, "create table wide (i int, t text) distributed by (i); create table done (i int) distributed by (i);"+
		"insert into wide select g, repeat('x', 300) from generate_series(1, 240000) g; analyze wide")
	seg0 := backendOf(t, c, 2, db)
	number := func(sql string) int {
		t.Helper()
		n, err := strconv.Atoi(testkit.Value(t, seg0, sql))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const scanned = "select seq_tup_read from pg_stat_user_tables where relname = 'wide'"
	rows := number("select reltuples::int from pg_class where relname = 'wide'")
	read, whole := 0, 0
	for _, typ := range interconnectTypes {
		for _, level := range []string{"read committed", "repeatable read"} {
			for _, before := range []string{"", "insert into done values (1), (2), (3), (4)"} {
				t.Run(fmt.Sprintf("%s/%s/%t", typ, level, before != ""), func(t *testing.T) {
					was := number(scanned)
					conn := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=limited")
					testkit.Exec(t, conn, "begin isolation level "+level+"; "+before)
					for range 2 {
						if got := testkit.Value(t, conn, "select count(*), max(length(t)) from (select t from wide where random() < 2 limit 3) x"); got != "3|300" {
							t.Errorf("got %s", got)
						}
					}
					testkit.Exec(t, conn, "insert into done values (5); commit")
					testkit.Close(conn) // its servers tell what they have read when they end
					testkit.Eventually(t, 20*time.Second, func() error {
						if n := number("select count(*) from pg_stat_activity where application_name = 'limited'"); n > 0 {
							return fmt.Errorf("%d of its servers are there still", n)
						}
						return nil
					})
					n := number(scanned) - was
					if n == 0 {
						t.Error("nobody has read the table")
					}
					read, whole = read+n, whole+2*rows
				})
			}
		}
	}
	// How much is under way when the LIMIT is reached is a matter of time.
	if t.Logf("seg0 has read %d of %d rows", read, whole); read > whole*3/4 {
		t.Errorf("seg0 has read %d of %d rows", read, whole)
	}
	if got := testkit.Value(t, setup, "select count(*), sum(i) from done"); got != "36|120" {
		t.Errorf("the blocks have written %s", got)
	}
}
