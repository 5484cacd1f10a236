package clustertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestKeptPlans asks the same again and again, in the simple protocol and prepared,
// while what the question means changes.
func TestKeptPlans(t *testing.T) {
	c := beside(t)
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
	c := beside(t)
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

// TestKeyParameters asks for rows by their key, as a parameter, while a segment that
// does not have them stands still.
func TestKeyParameters(t *testing.T) {
	c := shared(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, `create table t (k bigint, name text, v int) distributed by (k); insert into t select i, 'n' || i, 0 from generate_series(1, 40) i;
		create table u (id uuid, name text, v int) distributed by (id, name)`)
	const id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
	if _, err := conn.Exec(t.Context(), "insert into u values ($1, $2, 1)", id, "n"); err != nil {
		t.Fatal(err)
	}
	seg := func(sql string) int {
		var n int
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, tc := range []struct {
		table, where string
		args         []any
		on           int
	}{
		{"t", "k = $1", []any{7}, seg("select gp_segment_id from t where k = 7")},
		{"t", "$1 = k and name = $2", []any{int64(8), "n8"}, seg("select gp_segment_id from t where k = 8")},
		{"t", "k = cast($1 as text)::bigint or false", []any{"9"}, -1},
		{"t", "k = $1::bigint", []any{int64(9)}, seg("select gp_segment_id from t where k = 9")},
		{"u", "id = $1 and name = $2", []any{id, "n"}, seg("select gp_segment_id from u")},
	} {
		ask := func(what string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for range 2 {
				var name string
				if err := conn.QueryRow(ctx, "select name from "+tc.table+" where "+tc.where, tc.args...).Scan(&name); err != nil {
					t.Fatalf("%s, %s: %v", what, tc.where, err)
				}
				tag, err := conn.Exec(ctx, "update "+tc.table+" set v = v + 1 where "+tc.where, tc.args...)
				if err != nil || tag.RowsAffected() != 1 {
					t.Fatalf("%s, update where %s: %v, %v", what, tc.where, tag, err)
				}
			}
		}
		ask("all at work")
		if tc.on < 0 {
			continue
		}
		other := 1 // seg0 is the one that is asked how large tables are
		if tc.on == 1 {
			other = 2
		}
		thaw := testkit.Freeze(t, c.Pid(t, uint16(coordinatorDbid+1+other), testkit.InstanceProcess))
		ask(fmt.Sprintf("without seg%d", other))
		thaw()
		ask("all at work again")
	}
}
