package clustertest

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestNoColumns does to tables without columns what one PostgreSQL lets be done to
// them, and compares.
func TestNoColumns(t *testing.T) {
	c := shared(t)
	conn, plain := c.Connect(t, c.Database(t)), c.PlainPostgres(t)
	testkit.Exec(t, conn, "create table t (id int, v int) distributed by (id); create table er () distributed replicated; create table ed () distributed randomly")
	testkit.Exec(t, plain, "create table t (id int, v int); create table er (); create table ed ()")
	both := []*pgx.Conn{plain, conn}
	for _, sql := range []string{
		"insert into t select i, i from generate_series(1, 100) i",
		"create table e ()",
		"insert into e default values",
		"insert into e select from generate_series(1, 3)",
		"insert into e select from t where id <= 20",
		"insert into e table e",
		"insert into e default values returning 7 as seven",
		"insert into e select from t where id <= 4 returning 1",
		"insert into e default values on conflict do nothing",
		"with x as (select from t where id < 5) insert into e select from x",
		"insert into ed select from e",
		"insert into er default values",
		"insert into er select from t where v < 6",
		"create table f as select from e",
		"create table g as select from t",
		"create table h as select",
		"select into i from t where id = 7",
		"create view v as select from e",
		"insert into e select from v",
		"select from h",
		"select from e union all select from h",
		"select count(*) from (select from e) x, h",
		"select 1 from e",
		"select e::text, h is null from e, h",
		"explain (costs off, format json) delete from e",
		"delete from ed",
		"delete from er where exists (select from t where id = 1000)",
		"delete from g where exists (select from t where id = 7)",
		"alter table e add a int; insert into e values (1); insert into e select id from t where id < 4; alter table e drop a",
		"insert into e default values",
		"create table made (n int generated always as (7) stored)",
		"insert into made default values",
		"insert into made values (default), (default)",
		"insert into made select from t where id < 3",
		"select * from made",
		"begin; insert into e default values; savepoint a; insert into e select from t; rollback to a; insert into e default values; commit",
		"truncate f; insert into f select from e; truncate e; insert into e select from f",
	} {
		var got [2]string
		for i, conn := range both {
			results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			for _, r := range results {
				if strings.HasPrefix(sql, "explain") {
					continue // it has to work
				}
				got[i] += r.CommandTag.String() + ";"
				for _, row := range r.Rows {
					for _, v := range row {
						got[i] += string(v) + ","
					}
					got[i] += ";"
				}
			}
			for _, table := range []string{"e", "ed", "er", "f", "g", "h", "i", "made"} {
				if testkit.Value(t, conn, "select to_regclass('"+table+"') is null") != "t" {
					got[i] += " " + table + " " + testkit.Value(t, conn, "select count(*) from "+table)
				}
			}
		}
		if got[0] != got[1] {
			t.Fatalf("%s:\n%s, expected\n%s", sql, got[1], got[0])
		}
	}
	if n := testkit.Value(t, conn, "select count(*), (select count(*) from er) from gp_dist_random('er')"); n != "18|6" {
		t.Errorf("copies and rows of the replicated table: %s", n)
	}
	testkit.Exec(t, conn, "delete from er where exists (select from t where id = 7)")
	if n := testkit.Value(t, conn, "select count(*) from gp_dist_random('er')"); n != "0" {
		t.Errorf("%s copies are left", n)
	}
	rows := testkit.Value(t, conn, "select count(*) from e")
	for _, format := range []string{"text", "csv", "binary"} {
		var data strings.Builder
		if _, err := conn.PgConn().CopyTo(context.Background(), &data, "copy e to stdout (format "+format+")"); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		testkit.Exec(t, conn, "truncate f")
		if _, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader(data.String()), "copy f from stdin (format "+format+")"); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if got := testkit.Value(t, conn, "select count(*) from f"); got != rows {
			t.Errorf("%s: %s rows, expected %s", format, got, rows)
		}
	}
	tag, err := conn.Exec(context.Background(), "insert into e select from t where id <= $1", 10)
	if err != nil || tag.String() != "INSERT 0 10" {
		t.Errorf("with a parameter: %s, %v", tag, err)
	}
	lines := strings.Join(testkit.Query(t, conn, "explain (analyze, costs off, timing off) insert into e default values"), "\n")
	if !strings.Contains(lines, "Rows inserted: 1 ") {
		t.Errorf("the plan is\n%s", lines)
	}
}
