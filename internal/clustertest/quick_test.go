package clustertest

import (
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestKeptPlans asks the same again and again, in the simple protocol and prepared,
// while what the question means changes.
func TestKeptPlans(t *testing.T) {
	c := shared(t)
	conn := c.Connect(t, c.Database(t))
	other := c.Connect(t, conn.Config().Database)
	exec := func(sql string) { t.Helper(); testkit.Exec(t, conn, sql) }
	const count, all, one = "select count(*), max(i), sum(i), min(i) from t", "select i from t", "select i from t where i = 2"
	prepared := func(sql string) []string {
		t.Helper()
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var got []string
		for rows.Next() {
			got = append(got, string(rows.RawValues()[0]))
		}
		if rows.Err() != nil {
			t.Fatalf("%s: %v", sql, rows.Err())
		}
		return got
	}
	want := func(when, counts string, rows, ones int) {
		t.Helper()
		for range 2 {
			if got := testkit.Value(t, conn, count); got != counts {
				t.Errorf("%s: %s is %s, want %s", when, count, got, counts)
			}
			for sql, n := range map[string]int{all: rows, one: ones} {
				if got := testkit.Query(t, conn, sql); len(got) != n {
					t.Errorf("%s: %s has %d rows, want %d", when, sql, len(got), n)
				}
				if got := prepared(sql); len(got) != n {
					t.Errorf("%s: %s, prepared, has %d rows, want %d", when, sql, len(got), n)
				}
			}
		}
	}
	exec("create table t (i int) distributed by (i); insert into t select generate_series(1, 10)")
	want("at first", "10|10|55|1", 10, 1)
	exec("insert into t values (2), (null)")
	want("after INSERT", "12|10|57|1", 12, 2)
	testkit.Exec(t, other, "alter table t set distributed randomly")
	want("after another session has distributed it anew", "12|10|57|1", 12, 2)
	exec("create schema s; create table s.t (i int) distributed by (i); insert into s.t values (2)")
	want("with another of that name", "12|10|57|1", 12, 2)
	exec("set search_path = s")
	want("after SET search_path", "1|2|2|2", 1, 1)
	exec("begin; create temp table t (i int) distributed by (i)")
	want("with a temporary one", `0|\N|\N|\N`, 0, 0)
	exec("rollback")
	want("after its transaction", "1|2|2|2", 1, 1)
	exec("begin; drop table s.t; create table s.t (i int) distributed replicated; insert into s.t values (2), (3)")
	want("after it was made anew", "2|3|5|2", 2, 1)
	exec("rollback; reset search_path")
	want("after RESET search_path", "12|10|57|1", 12, 2)
	exec("create role nobody_" + conn.Config().Database + "; set role nobody_" + conn.Config().Database)
	for _, sql := range []string{count, all, one} {
		if err := testkit.TryExec(conn, sql); testkit.SQLState(err) != "42501" {
			t.Errorf("%s of somebody without rights: %v", sql, err)
		}
	}
	exec("reset role; truncate t")
	want("after TRUNCATE", `0|\N|\N|\N`, 0, 0)
	exec("drop table t; create table t (i bigint, j int); insert into t select i, i from generate_series(1, 3) i")
	if got := testkit.Value(t, conn, count); got != "3|3|6|1" {
		t.Errorf("of another type: %s", got)
	}
	exec("drop table t")
	if err := testkit.TryExec(conn, count); testkit.SQLState(err) != "42P01" {
		t.Errorf("of a table that is gone: %v", err)
	}
	exec("drop role nobody_" + conn.Config().Database)
}

// TestKeptStatements changes a table's column while other sessions ask for it all
// the time: they get what it was or what it is.
func TestKeptStatements(t *testing.T) {
	c := shared(t)
	conn := c.Connect(t, c.Database(t))
	asker := c.Connect(t, conn.Config().Database)
	testkit.Exec(t, conn, "create table t (id int, v int) distributed by (id); insert into t select i, 7 from generate_series(1, 30) i")
	ask := func(want string) {
		t.Helper()
		for range 3 {
			if got := testkit.Value(t, asker, "select v from t where id = 1"); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if got := testkit.Query(t, asker, "select v from t"); len(got) != 30 || got[0] != want {
				t.Errorf("%q, want 30 of %s", got, want)
			}
		}
	}
	ask("7")
	testkit.Exec(t, conn, "alter table t alter v type text using 'v' || v")
	ask("v7")
	testkit.Exec(t, asker, "begin; alter table t alter v type int using 8")
	ask("8")
	testkit.Exec(t, asker, "rollback")
	ask("v7")
	testkit.Exec(t, asker, "deallocate all; discard plans")
	ask("v7")
	testkit.Exec(t, asker, "discard all")
	ask("v7")
	testkit.Exec(t, conn, "alter table t drop v; alter table t add v numeric default 1.50")
	ask("1.50")
}
