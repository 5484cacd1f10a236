package clustertest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// crossing returns n pairs of ids of different segments, by a table of all ids.
func crossing(t *testing.T, conn *pgx.Conn, n int) (pairs [][2]int) {
	t.Helper()
	testkit.Exec(t, conn, "create table ids (id int) distributed by (id); insert into ids select generate_series(1, 200)")
	var first []int
	for _, row := range testkit.Query(t, conn, "select id, gp_segment_id from ids order by id") {
		id, seg, _ := strings.Cut(row, "|")
		i, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case seg == "0":
			first = append(first, i)
		case len(first) > 0 && len(pairs) < n:
			pairs = append(pairs, [2]int{first[0], i})
			first = first[1:]
		}
	}
	if len(pairs) < n {
		t.Fatalf("%d pairs of ids on different segments", len(pairs))
	}
	return pairs
}

// TestModifySeesWhole moves a sum between two accounts of different segments, pair
// by pair, while statements change rows for each account that has it: there is one
// of each pair, in whatever snapshot.
func TestModifySeesWhole(t *testing.T) {
	c := shared(t)
	for _, mode := range []string{tcp, proxy} {
		t.Run(mode, func(t *testing.T) {
			db := c.Database(t)
			conn := c.Connect(t, db, mode)
			const n = 8
			pairs := crossing(t, conn, n)
			testkit.Exec(t, conn, `create table account (id int, amount int) distributed by (id); create table seen (id int, n int) distributed by (id);
				create table own (id int, amount int, n int) distributed by (id)`)
			for _, p := range pairs {
				testkit.Exec(t, conn, fmt.Sprintf("insert into account values (%d, 100), (%d, 0)", p[0], p[1]))
			}
			testkit.Exec(t, conn, "insert into seen select id, 0 from account; insert into own select id, amount, 0 from account; create table kept as select * from own distributed by (id)")
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			moves := make(chan struct{}, 1000)
			move := func(mover *pgx.Conn, table string, p [2]int) {
				sql := fmt.Sprintf("begin; update %s set amount = 100 - amount where id = %d; update %[1]s set amount = 100 - amount where id = %[3]d; commit", table, p[0], p[1])
				if err := testkit.TryExec(mover, sql); err != nil {
					if testkit.SQLState(err) != "40P01" {
						t.Errorf("%s: %v", sql, err)
					}
					_ = testkit.TryExec(mover, "rollback")
				}
			}
			for w := range 2 {
				mover := c.Connect(t, db, mode)
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						move(mover, "account", pairs[w*n/2+i%(n/2)])
						select {
						case moves <- struct{}{}:
						case <-ctx.Done():
						}
					}
				})
			}
			limit := time.After(120 * time.Second)
			for run := range 300 {
				select {
				case <-moves:
				case <-limit:
					t.Fatal("nothing moves")
				}
				sql, args := "update seen set n = n + 1 from account a where a.id = seen.id and a.amount = $1", []any{100}
				switch run % 3 {
				case 1:
					sql = "delete from seen using (select id from account where amount = $1) a where a.id = seen.id"
				case 2:
					sql, args = "update seen set n = a.amount from account a where a.id = seen.id and a.amount > 0 returning n", nil
				}
				tag, err := conn.Exec(ctx, sql, args...)
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if tag.RowsAffected() != n {
					t.Errorf("run %d: %s: %d rows, expected %d", run, sql, tag.RowsAffected(), n)
				}
				if tag.Delete() {
					testkit.Exec(t, conn, "insert into seen select a.id, 0 from account a where not exists (select 1 from seen where seen.id = a.id)")
				}
			}
			// Where the statement is not all that its transaction does, or is explained, or
			// the user may not lock the tables.
			clerk := "clerk_" + db
			testkit.Exec(t, conn, "create role "+clerk+"; grant select (id, amount) on account to "+clerk+"; grant select (id), update (n) on seen to "+clerk)
			defer testkit.Exec(t, conn, "drop owned by "+clerk+"; drop role "+clerk)
			for run := range 80 {
				select {
				case <-moves:
				case <-limit:
					t.Fatal("nothing moves")
				}
				mark := -1 - run
				sql := fmt.Sprintf("update seen set n = %d from account a where a.id = seen.id and a.amount = 100", mark)
				var err error
				switch run % 4 {
				case 0:
					err = testkit.TryExec(conn, "begin; "+sql+"; commit")
				case 1:
					batch := &pgx.Batch{}
					batch.Queue("update seen set n = n + $1", 0)
					batch.Queue(strings.ReplaceAll(sql, "100", "$1"), 100)
					err = conn.SendBatch(ctx, batch).Close()
				case 2:
					_, err = testkit.TryQuery(conn, "explain analyze "+sql)
				case 3:
					err = testkit.TryExec(conn, "set role "+clerk+"; "+sql)
					testkit.Exec(t, conn, "reset role")
				}
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if got := testkit.Value(t, conn, "select count(*) from seen where n = "+strconv.Itoa(mark)); got != strconv.Itoa(n) {
					t.Errorf("run %d: %s: %s rows, expected %d", run, sql, got, n)
				}
			}
			// Those whose own rows are changed meanwhile: one at a time, so that the
			// statement is not begun again too often.
			mover := c.Connect(t, db, mode)
			for run := range 150 {
				done := make(chan struct{})
				go func() {
					defer close(done)
					move(mover, "own", pairs[run%n])
				}()
				sql := "update own set n = n + 1 where amount = 100"
				if run%2 == 1 {
					sql = "delete from own where amount = 100"
				}
				tag, err := conn.Exec(ctx, sql)
				<-done
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if tag.RowsAffected() != n {
					t.Errorf("run %d: %s: %d rows, expected %d", run, sql, tag.RowsAffected(), n)
				}
				if tag.Delete() {
					testkit.Exec(t, conn, "truncate own; insert into own select * from kept")
				}
			}
		})
	}
}

// TestHotRows has many sessions change the same rows of all segments at the same
// time, in each protocol, with and without RETURNING. All get through.
func TestHotRows(t *testing.T) {
	c := shared(t)
	for _, mode := range []string{tcp, proxy} {
		t.Run(mode, func(t *testing.T) {
			db := c.Database(t)
			conn := c.Connect(t, db, mode)
			testkit.Exec(t, conn, "create table hot (id int, n int) distributed by (id); insert into hot select i, 0 from generate_series(1, 12) i; create table rep (id int, n int) distributed replicated; insert into rep select i, 0 from generate_series(1, 5) i")
			const sessions, times = 8, 30
			var wg sync.WaitGroup
			for k := range sessions {
				client := c.Connect(t, db, mode)
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
					defer cancel()
					for range times {
						var err error
						switch k % 4 {
						case 0:
							err = testkit.TryExec(client, "update hot set n = n + 1")
						case 1:
							_, err = client.Exec(ctx, "update hot set n = n + $1 where id <= $2", 1, 12)
						case 2:
							var rows []string
							if rows, err = testkit.TryQuery(client, "update hot set n = n + 1 returning id"); err == nil && len(rows) != 12 {
								err = fmt.Errorf("%d rows came back", len(rows))
							}
						case 3:
							_, err = client.Exec(ctx, "update hot set n = hot.n + 1 from hot as other where other.id = hot.id")
						}
						if err != nil {
							t.Errorf("session %d: %v", k, err)
							return
						}
						if err := testkit.TryExec(client, "update rep set n = n + 1 where n >= 0"); err != nil {
							t.Errorf("session %d, replicated: %v", k, err)
							return
						}
					}
				})
			}
			wg.Wait()
			want := fmt.Sprintf("%d|%[1]d", sessions*times)
			if got := testkit.Value(t, conn, "select min(n), max(n) from hot"); got != want {
				t.Errorf("%s, expected %s", got, want)
			}
			if got := testkit.Value(t, conn, "select min(n), max(n) from gp_dist_random('rep')"); got != want {
				t.Errorf("the copies: %s, expected %s", got, want)
			}
		})
	}
}

// TestModifyWaits looks at statements of several segments that have to wait, or
// begin again: what they see, what the client hears, who may, and what stays as it
// was.
func TestModifyWaits(t *testing.T) {
	c := shared(t)
	modes(t, func(t *testing.T, mode string) {
		db := c.Database(t)
		conn, other := c.Connect(t, db, mode), c.Connect(t, db, mode)
		testkit.Exec(t, conn, "create table t (id int, n int) distributed by (id); insert into t select i, i from generate_series(1, 90) i")
		var servers []*pgx.Conn
		for _, dbid := range []uint16{coordinatorDbid, firstSegment, firstSegment + 1, lastSegment} {
			servers = append(servers, c.Utility(t, dbid, db))
		}
		waits := func(what string) {
			t.Helper()
			testkit.Eventually(t, 20*time.Second, func() error {
				for _, server := range servers {
					if testkit.Value(t, server, "select count(*) from pg_locks where not granted") != "0" {
						return nil
					}
				}
				return errors.New("nobody waits for " + what)
			})
		}
		waitsLong := func(interval string) {
			t.Helper()
			testkit.Eventually(t, 20*time.Second, func() error {
				if testkit.Value(t, servers[1], "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query_start < now() - interval '"+interval+"'") == "0" {
					return errors.New("nobody waits for a row")
				}
				return nil
			})
		}
		start := func(sql string) <-chan error {
			done := make(chan error, 1)
			go func() {
				tag, err := conn.Exec(context.Background(), sql)
				if err == nil && tag.RowsAffected() != 90 {
					err = fmt.Errorf("%d rows", tag.RowsAffected())
				}
				done <- err
			}()
			return done
		}
		// Whoever has changed some of the rows commits, or does not.
		for _, end := range []string{"commit", "rollback"} {
			testkit.Exec(t, other, "begin; update t set n = n + 1000 where id in (3, 4, 5, 6)")
			done := start("update t set n = n + 1 returning id, n")
			waits("rows")
			testkit.Exec(t, other, end)
			if err := <-done; err != nil {
				t.Errorf("%s: %v", end, err)
			}
		}
		if got := testkit.Value(t, conn, "select count(*) from t where n = id + 2 + case when id between 3 and 6 then 1000 else 0 end"); got != "90" {
			t.Errorf("%s rows are right, expected 90", got)
		}
		// What has waited so long runs with a snapshot of each segment, and a replicated
		// table is locked for it.
		testkit.Exec(t, conn, "create table rep (id int, n int) distributed replicated; insert into rep select i, i from generate_series(1, 90) i; create table before as select * from t distributed by (id)")
		for _, table := range []string{"t", "rep"} {
			testkit.Exec(t, other, "begin; update "+table+" set n = n + 1000")
			done := start("update " + table + " set n = n * 2 where n > 1000 or n < 10000")
			waitsLong("1200 ms")
			testkit.Exec(t, other, "commit")
			if err := <-done; err != nil {
				t.Errorf("%s: %v", table, err)
			}
		}
		if got := testkit.Value(t, conn, "select count(*) from t join before b using (id) where t.n = (b.n + 1000) * 2"); got != "90" {
			t.Errorf("%s rows are right after a long wait, expected 90", got)
		}
		if got := testkit.Value(t, conn, "select count(*), count(distinct gp_segment_id) from gp_dist_random('rep') where n = (id + 1000) * 2"); got != "270|3" {
			t.Errorf("%s rows in copies are right after a long wait, expected 270|3", got)
		}
		// One segment's part of the table is written anew: a snapshot of before would
		// see no rows there.
		seg := c.Utility(t, firstSegment, db)
		testkit.Exec(t, seg, "begin; create temp table kept on commit drop as select * from t; truncate t; insert into t select * from kept")
		again := start("update t set n = n + 1")
		waits("the table")
		testkit.Exec(t, seg, "commit")
		if err := <-again; err != nil {
			t.Errorf("a table that was written anew on a segment: %v", err)
		}
		// The table is written anew.
		testkit.Exec(t, other, "begin; alter table t alter n type bigint")
		done := start("update t set n = n + 1")
		waits("the table")
		testkit.Exec(t, other, "commit")
		if err := <-done; err != nil {
			t.Errorf("a table that was written anew: %v", err)
		}
		// Its key changes, so that the statement has to be planned anew.
		testkit.Exec(t, other, "begin; alter table t set distributed by (n)")
		done = start("update t set n = n + 1 returning *")
		waits("the table")
		testkit.Exec(t, other, "commit")
		if err := <-done; err != nil {
			t.Errorf("a table with another key: %v", err)
		}
		testkit.Exec(t, conn, "create table places as select id, n from t distributed by (n)")
		if got := testkit.Value(t, conn, "select count(*) from t join places p using (n) where t.gp_segment_id = p.gp_segment_id"); got != "90" {
			t.Errorf("%s rows are in their place, expected 90", got)
		}
		// Somebody waits for the statement on one segment and the statement for him on
		// another.
		testkit.Exec(t, conn, "alter table t set distributed by (id)")
		pair := crossing(t, conn, 1)[0]
		testkit.Exec(t, other, fmt.Sprintf("begin; update t set n = 0 where id = %d", pair[0]))
		done = start("update t set n = n + 1")
		waitsLong("200 ms") // longer than it does before it begins again
		if err := testkit.TryExec(other, fmt.Sprintf("update t set n = 0 where id = %d", pair[1])); testkit.SQLState(err) != "40P01" {
			t.Errorf("who waits crosswise: %v", err)
		}
		testkit.Exec(t, other, "rollback")
		if err := <-done; err != nil {
			t.Errorf("who was waited for crosswise: %v", err)
		}
		// The user's own limits, for rows and behind another who waits for them.
		testkit.Exec(t, other, fmt.Sprintf("begin; update t set n = 0 where id = %d", pair[0]))
		third := c.Connect(t, db, mode)
		for _, behind := range []bool{false, true} {
			if behind {
				done = start("update t set n = n + 1")
				waitsLong("200 ms")
			}
			for set, state := range map[string]string{"lock_timeout = 100": "55P03", "statement_timeout = 300": "57014"} {
				testkit.Exec(t, third, "set "+set)
				if err := testkit.TryExec(third, "update t set n = n + 1"); testkit.SQLState(err) != state {
					t.Errorf("%s: %v", set, err)
				}
				testkit.Exec(t, third, "reset lock_timeout; reset statement_timeout")
			}
		}
		testkit.Exec(t, other, "rollback")
		if err := <-done; err != nil {
			t.Error(err)
		}
		// He has asked for more, and hears of it.
		testkit.Exec(t, conn, "set default_transaction_isolation = 'repeatable read'; update t set n = n + 1")
		testkit.Exec(t, conn, "begin; select count(*) from t")
		testkit.Exec(t, other, "update t set n = n + 1 where id = 1")
		if err := testkit.TryExec(conn, "update t set n = n + 1"); testkit.SQLState(err) != "40001" {
			t.Errorf("in a block of REPEATABLE READ: %v", err)
		}
		testkit.Exec(t, conn, "rollback; reset default_transaction_isolation")
		// Rights on some columns only.
		role := "clerk_" + db
		testkit.Exec(t, conn, "create role "+role+" login; grant select (id, n), update (n) on t to "+role)
		defer testkit.Exec(t, conn, "drop owned by "+role+"; drop role "+role)
		testkit.Exec(t, conn, "set role "+role+"; update t set n = -1 where id > 0")
		for _, sql := range []string{"update t set id = 1", "delete from t", "update t set n = 0 from pg_catalog.pg_authid where n = 1"} {
			if err := testkit.TryExec(conn, sql); testkit.SQLState(err) != "42501" {
				t.Errorf("%s: %v", sql, err)
			}
		}
		testkit.Exec(t, conn, "reset role")
		if got := testkit.Value(t, conn, "select count(*) from t where n = -1"); got != "90" {
			t.Errorf("%s rows, expected 90", got)
		}
		// A batch of the extended protocol is a READ COMMITTED transaction: what comes
		// later in it sees what others have committed meanwhile, and may change it.
		results := conn.PgConn().StartPipeline(context.Background())
		results.SendQueryParams("update t set n = 1", nil, nil, nil, nil)
		results.SendFlushRequest()
		if err := results.Flush(); err != nil {
			t.Fatal(err)
		}
		read := func() pgconn.CommandTag {
			t.Helper()
			r, err := results.GetResults()
			if err != nil {
				t.Fatal(err)
			}
			tag, err := r.(*pgconn.ResultReader).Close()
			if err != nil {
				t.Fatal(err)
			}
			return tag
		}
		if tag := read(); tag.RowsAffected() != 90 {
			t.Errorf("in a batch: %s", tag)
		}
		testkit.Exec(t, other, "insert into t select i, 7 from generate_series(100, 109) i")
		results.SendQueryParams("update t set n = n + 1", nil, nil, nil, nil)
		if err := results.Sync(); err != nil {
			t.Fatal(err)
		}
		if tag := read(); tag.RowsAffected() != 100 {
			t.Errorf("later in a batch: %s, expected 100 rows", tag)
		}
		if err := results.Close(); err != nil {
			t.Error(err)
		}
	})
}
