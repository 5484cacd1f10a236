package clustertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestStatementsAwaitDefinitions has statements meet a table that another transaction
// has defined anew and not committed yet. They wait, and do what they would if they had
// been asked after it, as on one PostgreSQL.
func TestStatementsAwaitDefinitions(t *testing.T) {
	c := shared(t)
	plain := c.PlainPostgres(t)
	for _, mode := range []string{proxy} { // how rows travel does not matter
		db := c.Database(t)
		conn, other := c.Connect(t, db, mode), c.Connect(t, db, mode)
		look := c.Utility(t, coordinatorDbid, db)
		for _, tc := range []struct {
			define  string // what the cluster's other session does
			same    string // what PostgreSQL does instead; "": that
			ask     string
			ordered bool
			find    string // asked afterwards; "": nothing
		}{
			{define: "alter table t set distributed by (b)", same: "select", ask: "insert into t select i, i + 500 from generate_series(101, 130) i", find: "select id, b from t where b in (603, 612, 620, 630) order by id"},
			{define: "alter table t set distributed by (b)", same: "select", ask: "insert into t values (7, 77)", find: "select * from t where b = 77"},
			{define: "alter table t set distributed by (b)", same: "select", ask: "select * from t where id = 5"},
			{define: "alter table t set distributed by (b)", same: "select", ask: "select * from t where id = 5 for update"},
			{define: "alter table t set distributed by (b)", same: "select", ask: "update t set n = 1 where id = 5", find: "select * from t order by id"},
			{define: "alter table t set distributed by (b)", same: "select", ask: "delete from t where id = 5", find: "select count(*) from t"},
			{define: "alter table t set distributed replicated", same: "select", ask: "insert into t values (7, 77)", find: "select count(*) from t"},
			{define: "alter table t set distributed replicated", same: "select", ask: "update t set n = 1", find: "select count(*) from t where n = 1"},
			{define: "alter table t set distributed replicated", same: "select", ask: "select count(*) from t"},
			{define: "alter table t alter n type real", ask: "insert into t select k, k, k from u", find: "select id, n from t where id > 60 order by id"},
			{define: "alter table t alter n type text", ask: "select max(n) from t"},
			{define: "alter table t alter n type text", ask: "select n, count(*) from t group by n order by n limit 5", ordered: true},
			{define: "alter table t drop column n, add column z int default 5", ask: "select * from t order by id limit 4", ordered: true},
			{define: "alter table t drop column n", ask: "insert into t values (61, 5)", find: "select * from t where id = 61"},
			{define: "alter table t rename n to m; alter table t rename b to n; alter table t rename m to b", ask: "insert into t values (61, 1, 2)", find: "select id, b, n from t where id = 61"},
			{define: "alter table t rename to old; create table t (id int, b int, n int); insert into t values (1, 1, 1)", ask: "select * from t where id <= 3 order by id", ordered: true},
			{define: "drop table t", ask: "select count(*) from t where id = 3"},
			{define: "alter table t add check (n <> 61)", ask: "insert into t values (61, 61, 61)"},
			{define: "truncate t", ask: "select count(*) from t"},
			{define: "lock table t", ask: "select count(*) from t where id = 3"},
		} {
			for _, block := range []string{"", "begin"} {
				for _, end := range []string{"commit", "rollback"} {
					if end == "rollback" && block != "" {
						continue
					}
					name := fmt.Sprintf("%s; %s %s; %s", tc.define, block, tc.ask, end)
					for _, on := range []*pgx.Conn{plain, conn} {
						testkit.Exec(t, on, "rollback; drop table if exists t, old, u; create table t (id int, b int, n int); insert into t select i, i + 1000, i from generate_series(1, 60) i; create table u (k int); insert into u values (61), (62), (63)")
					}
					testkit.Query(t, conn, "select count(*), max(n) from t where id = 3") // so that it is known
					same := tc.define
					if tc.same != "" {
						same = tc.same
					}
					testkit.Exec(t, plain, "begin; "+same+"; "+end)
					testkit.Exec(t, other, "begin; "+tc.define)
					type outcome struct {
						rows []string
						err  error
					}
					done := make(chan outcome, 1)
					go func() {
						if block != "" {
							_ = testkit.TryExec(conn, block)
						}
						rows, err := testkit.TryQuery(conn, tc.ask)
						done <- outcome{rows, err}
					}()
					testkit.Eventually(t, 20*time.Second, func() error {
						if testkit.Value(t, look, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == "0" {
							return errors.New("nobody waits: " + name)
						}
						return nil
					})
					testkit.Exec(t, other, end)
					got := <-done
					if block != "" {
						_ = testkit.TryExec(conn, "commit")
					}
					rows, err := testkit.TryQuery(plain, tc.ask)
					if testkit.SQLState(err) != testkit.SQLState(got.err) {
						t.Errorf("%s: %v; PostgreSQL: %v", name, got.err, err)
						continue
					}
					if fmt.Sprint(rows) != fmt.Sprint(got.rows) {
						t.Errorf("%s: %v; PostgreSQL: %v", name, got.rows, rows)
					}
					if tc.find != "" {
						if want, got := fmt.Sprint(testkit.Query(t, plain, tc.find)), fmt.Sprint(testkit.Query(t, conn, tc.find)); want != got {
							t.Errorf("%s; %s: %s; PostgreSQL: %s", name, tc.find, got, want)
						}
					}
				}
			}
		}
		// The user's own limits, and deadlocks with who waits there.
		testkit.Exec(t, conn, "drop table if exists t, u; create table t (id int, b int, n int); create table u (k int)")
		testkit.Exec(t, other, "begin; alter table t add column z int")
		for set, state := range map[string]string{"lock_timeout = 100": "55P03", "statement_timeout = 100": "57014"} {
			testkit.Exec(t, conn, "set "+set)
			for range 2 {
				if err := testkit.TryExec(conn, "select count(*) from t"); testkit.SQLState(err) != state {
					t.Errorf("%s: %v", set, err)
				}
			}
			testkit.Exec(t, conn, "reset lock_timeout; reset statement_timeout")
		}
		testkit.Exec(t, conn, "begin; insert into u values (1)")
		waiting := make(chan error, 1)
		go func() { waiting <- testkit.TryExec(conn, "select count(*) from t") }()
		testkit.Eventually(t, 20*time.Second, func() error {
			if testkit.Value(t, look, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == "0" {
				return errors.New("nobody waits")
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		_, err := other.Exec(ctx, "alter table u add column z int")
		first := <-waiting
		if (testkit.SQLState(err) == "40P01") == (testkit.SQLState(first) == "40P01") {
			t.Errorf("who waits for each other: %v, %v", err, first)
		}
		testkit.Exec(t, conn, "rollback")
		testkit.Exec(t, other, "rollback")
		// A block that has failed keeps nobody waiting, whatever its client does.
		testkit.Exec(t, conn, "begin; insert into u values (1)")
		if err := testkit.TryExec(conn, "select 1 / 0"); testkit.SQLState(err) != "22012" {
			t.Error(err)
		}
		testkit.Exec(t, other, "set lock_timeout = '5s'; alter table u add column w int; reset lock_timeout")
		if err := testkit.TryExec(conn, "select count(*) from u"); testkit.SQLState(err) != "25P02" {
			t.Errorf("in a block that has failed: %v", err)
		}
		testkit.Exec(t, conn, "rollback; insert into u values (1, 1)")
	}
}
