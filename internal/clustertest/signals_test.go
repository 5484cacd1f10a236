package clustertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// slowTable makes a table whose rows take a while, wherever they are read: more
// than a minute for all of them.
func slowTable(t *testing.T, c *testkit.Cluster, db string) *pgx.Conn {
	t.Helper()
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table d (id int, name text) distributed by (id); insert into d select i, 'n' || i from generate_series(1, 1000) i;
		create function slow(int) returns int immutable language plpgsql as $$ begin perform pg_sleep(0.2); return $1; end $$; grant all on d to public`)
	return conn
}

// slowStatements run on the segments; while most of them do, the session's
// process on the coordinator is idle.
var slowStatements = []string{
	"select slow(id) from d", "select count(*) from d where slow(id) > 0", "update d set name = 'x' where slow(id) > 0", "insert into d select slow(id) from d",
	"select count(*) from d a join d b on slow(a.id) = b.id + 1", "declare c cursor for select slow(id) from d; fetch all from c", "select pg_sleep(60)",
}

// TestSignalFunctions ends statements and sessions from another session, as
// administrators do.
func TestSignalFunctions(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	admin := slowTable(t, c, db)
	modes(t, func(t *testing.T, mode string) {
		for _, sql := range slowStatements {
			conn := c.Connect(t, db, mode)
			testkit.Exec(t, conn, "begin; insert into d values (-1)")
			for _, f := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
				state := map[string]string{"pg_cancel_backend": "57014", "pg_terminate_backend": "57P01"}[f]
				if f == "pg_terminate_backend" {
					testkit.Exec(t, conn, "rollback; begin; insert into d values (-1)")
				}
				signalled := make(chan error, 1)
				time.AfterFunc(300*time.Millisecond, func() {
					rows, err := testkit.TryQuery(admin, fmt.Sprintf("select %s(%d)", f, conn.PgConn().PID()))
					if err == nil && (len(rows) != 1 || rows[0] != "t") {
						err = fmt.Errorf("%v", rows)
					}
					signalled <- err
				})
				start := time.Now()
				if err := testkit.TryExec(conn, sql); testkit.SQLState(err) != state || time.Since(start) > 4*time.Second {
					t.Errorf("%s by %s: after %v: %v", sql, f, time.Since(start), err)
				}
				if err := <-signalled; err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
			if err := testkit.TryExec(conn, "select 1"); err == nil {
				t.Errorf("%s: the session goes on", sql)
			}
		}
		if got := testkit.Value(t, admin, "select count(*), min(id) from d"); got != "1000|1" {
			t.Errorf("the table has %s", got)
		}
	})
	// An own one, and none.
	if err := testkit.TryExec(admin, "select pg_cancel_backend(pg_backend_pid())"); testkit.SQLState(err) != "57014" {
		t.Errorf("a session that cancels itself: %v", err)
	}
	if got := testkit.Value(t, admin, "select pg_cancel_backend(1), pg_terminate_backend(1)"); got != "f|f" {
		t.Errorf("a process that is no session's: %s", got)
	}
	conn := c.Connect(t, db)
	if got := testkit.Value(t, admin, fmt.Sprintf("select pg_cancel_backend(%d)", conn.PgConn().PID())); got != "t" {
		t.Errorf("an idle session: %s", got)
	}
	if got := testkit.Value(t, conn, "select count(*) from d"); got != "1000" {
		t.Errorf("the statement after a cancellation of none: %s", got)
	}
	if err := testkit.TryExec(conn, "select pg_terminate_backend(pg_backend_pid())"); testkit.SQLState(err) != "57P01" {
		t.Errorf("a session that ends itself: %v", err)
	}
}

// TestSignalRights: who may cancel whose statements.
func TestSignalRights(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	admin := slowTable(t, c, db)
	testkit.Exec(t, admin, `create role ann login; create role bob login; create role guard login; create role team; grant pg_signal_backend to guard;
		create function help(p int) returns bool language sql security definer as 'select pg_cancel_backend(p)'`)
	t.Cleanup(func() {
		if err := testkit.TryExec(admin, "drop owned by ann, bob, guard, team; drop role ann, bob, guard, team"); err != nil {
			t.Error(err)
		}
	})
	as := func(role string) *pgx.Conn { return testkit.ConnectAs(t, admin, role) }
	ann, bob, guard := as("ann"), as("bob"), as("guard")
	for _, tc := range []struct {
		who, whose *pgx.Conn
		call       string
		state      string // of the one who calls
		ends       bool   // the statement
	}{
		{ann, bob, "pg_cancel_backend(%d)", "42501", false},
		{ann, admin, "pg_cancel_backend(%d)", "42501", false},
		{ann, bob, "pg_terminate_backend(%d)", "42501", false},
		{admin, bob, "pg_terminate_backend(%d, -1)", "22003", false},
		{ann, bob, "gp_tell_session('cancel', %d)", "42501", false},
		{ann, bob, "gp_tell_other('cancel', %d)", "42501", false},
		{ann, bob, "gp_tell_own('cancel', %d)", "", false},
		{ann, admin, "gp_signal_session('cancel', %d)", "", false},
		{guard, admin, "pg_cancel_backend(%d)", "42501", false},
		{guard, admin, "gp_tell_other('cancel', %d)", "", false},
		{ann, as("ann"), "pg_cancel_backend(%d)", "", true},
		{guard, bob, "pg_cancel_backend(%d)", "", true},
		{ann, bob, "help(%d)", "", true},
		{admin, bob, "pg_cancel_backend(%d)", "", true},
	} {
		call := fmt.Sprintf("select "+tc.call, tc.whose.PgConn().PID())
		done := make(chan error, 1)
		time.AfterFunc(300*time.Millisecond, func() { done <- testkit.TryExec(tc.who, call) })
		// Two seconds, unless somebody ends them.
		start := time.Now()
		err := testkit.TryExec(tc.whose, "select slow(id) from d where id in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)")
		if state := testkit.SQLState(err); (state == "57014") != tc.ends || !tc.ends && err != nil {
			t.Errorf("%s by %s on %s: after %v: %v", call, tc.who.Config().User, tc.whose.Config().User, time.Since(start), err)
		}
		if err := <-done; testkit.SQLState(err) != tc.state {
			t.Errorf("%s by %s on %s: %v", call, tc.who.Config().User, tc.whose.Config().User, err)
		}
	}
}

// TestStatementTimeout: the error is that of the time that ran out, not of what
// it brought about between segments.
func TestStatementTimeout(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	slowTable(t, c, db)
	modes(t, func(t *testing.T, mode string) {
		conn := c.Connect(t, db, mode)
		testkit.Exec(t, conn, "set statement_timeout = '500ms'")
		for _, sql := range slowStatements {
			start := time.Now()
			err := testkit.TryExec(conn, "begin; "+sql)
			if testkit.SQLState(err) != "57014" || time.Since(start) > 4*time.Second {
				t.Errorf("%s: after %v: %v", sql, time.Since(start), err)
			}
			testkit.Exec(t, conn, "rollback")
		}
		if got := testkit.Value(t, conn, "select count(*) from d"); got != "1000" {
			t.Errorf("%s rows", got)
		}
	})
}

// TestIdleTimeouts: a session whose statement runs on the segments is not idle,
// one whose client says nothing is.
func TestIdleTimeouts(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	slowTable(t, c, db)
	for _, set := range []string{"set idle_in_transaction_session_timeout = '400ms'", "set idle_session_timeout = '400ms'"} {
		// More than half a second on a segment.
		for _, sql := range []string{"select 1", "select slow(id) from d where id <= 9", "insert into d select slow(id) + 5000 from d where id <= 9"} {
			if set != "set idle_session_timeout = '400ms'" {
				conn := c.Connect(t, db)
				testkit.Exec(t, conn, set)
				testkit.Exec(t, conn, "begin; savepoint s")
				testkit.Exec(t, conn, sql)
				if err := testkit.TryExec(conn, "select 1/0 from d"); testkit.SQLState(err) != "22012" {
					t.Errorf("%s: %s: %v", set, sql, err)
				}
				testkit.Exec(t, conn, "rollback to s")
				if got := testkit.Value(t, conn, "show idle_in_transaction_session_timeout"); got != "400ms" {
					t.Errorf("%s: after %s it is %s", set, sql, got)
				}
				if _, err := conn.WaitForNotification(bounded(t)); testkit.SQLState(err) != "25P03" {
					t.Errorf("%s: after %s: %v", set, sql, err)
				}
			}
			conn := c.Connect(t, db)
			testkit.Exec(t, conn, set)
			testkit.Exec(t, conn, sql)
			testkit.Exec(t, conn, "begin; select count(*) from d; savepoint s; rollback to s; "+sql+"; rollback; begin; "+sql+"; rollback")
			if set == "set idle_in_transaction_session_timeout = '400ms'" {
				time.Sleep(600 * time.Millisecond)
				testkit.Exec(t, conn, "select 1")
			} else if _, err := conn.WaitForNotification(bounded(t)); testkit.SQLState(err) != "57P05" {
				t.Errorf("%s: after %s: %v", set, sql, err)
			}
		}
	}
}
