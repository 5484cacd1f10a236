package dispatch

import (
	"errors"
	"testing"
	"time"
)

const snapshotTaken = "(SELECT pg_catalog.gp_snapshot_taken())"

func TestTogetherSeesWhole(t *testing.T) {
	seesWhole(t, func(g *Gang) ([]Result, error) {
		if err := g.Begin(testContext(t), ""); err != nil {
			return nil, err
		}
		g.MarkWrite([]int{0, 1})
		return g.ExecTogether(testContext(t), &Together{Segments: []int{0, 1}, Ahead: "EXPLAIN " + changeSeen, SQL: changeSeen + " AND " + snapshotTaken})
	})
}

// TestTogetherLetsCommit: a statement that waits for a table or a row must not keep
// others from committing, and is not torn for it.
func TestTogetherLetsCommit(t *testing.T) {
	c := newCluster(t, Params{})
	for _, tc := range []struct {
		lock, ahead string
		torn        bool
	}{
		{"LOCK TABLE toglock IN ACCESS EXCLUSIVE MODE", "EXPLAIN UPDATE toglock SET a = a + $1::int", false},
		{"SELECT a FROM toglock FOR UPDATE", "EXPLAIN UPDATE toglock SET a = a + $1::int", false},
		// A lock that it has not taken ahead.
		{"LOCK TABLE toglock IN ACCESS EXCLUSIVE MODE", "SELECT $1::int", true},
	} {
		c.table("toglock")
		c.table("togbeside")
		exec(t, c.gang(), []int{0, 1}, "INSERT INTO toglock VALUES (1)")
		locker := c.gang()
		if err := locker.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, locker, []int{0}, tc.lock)
		g := c.gang()
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		g.MarkWrite([]int{0, 1})
		st := &Together{Segments: []int{0, 1}, Ahead: tc.ahead, Params: []Param{{Value: []byte("1")}},
			SQL: "UPDATE toglock SET a = a + $1::int WHERE " + snapshotTaken + " RETURNING a"}
		done := make(chan error, 1)
		go func() {
			_, err := g.ExecTogether(testContext(t), st)
			done <- err
		}()
		waitFor(t, "the statement waits", g.waitsForLock)
		w := c.gang()
		write(t, w, "togbeside", 0, 1)
		begun := time.Now()
		if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("%s: the commit of another took %v", tc.lock, d)
		}
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; errors.Is(err, ErrTorn) != tc.torn || err != nil && !tc.torn {
			t.Errorf("%s: %v", tc.lock, err)
		}
		if tc.torn {
			if err := g.Rollback(testContext(t)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Fatal(err)
		}
		if got := c.values(c.gang(), "SELECT a FROM toglock"); len(got) != 2 || got[0] != "2" || got[1] != "2" {
			t.Errorf("%s: rows are %v", tc.lock, got)
		}
	}
}

// TestTogetherAhead: locks are taken once in a transaction, and again when it has gone
// back to before; a statement that looks at no rows, or fails, ends like any other.
func TestTogetherAhead(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("togahead")
	exec(t, c.gang(), nil, "INSERT INTO togahead VALUES (1)")
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	g.MarkWrite(nil)
	ahead := func() string {
		t.Helper()
		return string(exec(t, g, []int{2}, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'togahead'::regclass AND mode = 'ExclusiveLock'")[0].Rows[0][0])
	}
	run := func(where string) (int64, error) {
		res, err := g.ExecTogether(testContext(t), &Together{Ahead: "LOCK TABLE togahead IN EXCLUSIVE MODE", Locks: "togahead",
			SQL: "UPDATE togahead SET a = a + 1 WHERE " + where + " AND " + snapshotTaken})
		return rowsChanged(res), err
	}
	if err := g.Savepoint(testContext(t), "s"); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"true", "false", "a > 0"} {
		n, err := run(where)
		if want := map[bool]int64{true: 3}[where != "false"]; err != nil || n != want {
			t.Errorf("WHERE %s: %d rows, %v", where, n, err)
		}
	}
	if n := ahead(); n != "1" {
		t.Errorf("the table is locked %s times", n)
	}
	if err := g.RollbackTo(testContext(t), "s"); err != nil {
		t.Fatal(err)
	}
	if n := ahead(); n != "0" {
		t.Errorf("the table is locked %s times after ROLLBACK TO", n)
	}
	if n, err := run("a = 1"); err != nil || n != 3 || ahead() != "1" {
		t.Errorf("after ROLLBACK TO: %d rows, %v, the table is locked %s times", n, err, ahead())
	}
	if _, err := run("1 / (a - 2) = 0"); code(err) != "22012" {
		t.Errorf("a statement that fails: %v", err)
	}
	c.latch.mu.Lock()
	if held := c.latch.active[reading]; held > 0 || !g.Failed() {
		t.Errorf("after an error the latch is held %d times; the transaction has failed: %t", held, g.Failed())
	}
	c.latch.mu.Unlock()
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
