package clustertest

import (
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestDeferrable has constraints that are checked later be checked as on one PostgreSQL.
func TestDeferrable(t *testing.T) {
	c := beside(t)
	plain := c.PlainPostgres(t)
	conn := c.Connect(t, c.Database(t))
	const late = "begin; set constraints all deferred; "
	for _, sql := range []string{
		"create table d (id int primary key deferrable, n int)",
		"insert into d values (1, 1), (2, 2), (3, 3), (4, 4)",
		"insert into d values (1, 9)",
		"update d set n = 5 where id = 1",
		late + "insert into d values (1, 9); delete from d where id = 1 and n = 5; commit",
		late + "insert into d values (2, 9); commit",
		late + "insert into d select id, 7 from d; commit",
		late + "insert into d select id, 7 from d; set constraints all immediate",
		late + "insert into d select id, 7 from d; delete from d where n = 7; set constraints d_pkey immediate; insert into d values (3, 8)",
		"begin; savepoint a; set constraints all deferred; rollback to a; insert into d values (2, 9)",
		"begin isolation level repeatable read; set constraints d_pkey deferred; insert into d values (2, 9); select count(*) from d; commit",
		"set constraints all deferred; insert into d values (1, 9)",
		"begin; set constraints unknown deferred",
		"create table e (id int, n int); insert into e values (1, 1), (2, 2)",
		"alter table e add constraint u unique (id, n) deferrable initially deferred",
		"begin; insert into e values (1, 1); select count(*) from e; commit",
		"begin; insert into e values (1, 1); delete from e where id = 1; insert into e values (1, 1); commit",
		"alter table e alter column n type bigint",
		"insert into e values (1, 1)",
		"create table p (id int, n int, primary key (id, n) deferrable) partition by range (n)",
		"create table p1 partition of p for values from (0) to (10); create table p2 (id int not null, n int not null)",
		"alter table p attach partition p2 for values from (10) to (20)",
		"insert into p values (1, 1), (1, 11)",
		"insert into p values (1, 1)",
		"insert into p values (1, 11)",
		late + "insert into p values (1, 11); commit",
		"create table x (id int, exclude (id with =) deferrable initially deferred)",
		"begin; insert into x values (1), (1), (2); delete from x; insert into x values (1); commit",
		"insert into x values (1)",
		"create temp table tt (id int unique deferrable); insert into tt values (1)",
		"insert into tt values (1)",
	} {
		want, got := testkit.TryExec(plain, sql), testkit.TryExec(conn, sql)
		if testkit.SQLState(want) != testkit.SQLState(got) {
			t.Errorf("%s: %v; PostgreSQL: %v", sql, got, want)
		}
		_, _ = testkit.TryExec(plain, "rollback"), testkit.TryExec(conn, "rollback")
		for _, table := range []string{"d", "e", "p", "x", "tt"} {
			rows := "select * from " + table
			if want, err := testkit.TryQuery(plain, rows); err == nil {
				if got := testkit.Query(t, conn, rows); strings.Join(sorted(got), " ") != strings.Join(sorted(want), " ") {
					t.Errorf("after %s: %s: %v; PostgreSQL: %v", sql, table, got, want)
				}
			}
		}
	}
}
