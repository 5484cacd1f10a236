package dispatch

import (
	"errors"
	"fmt"
	"testing"
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
// others from committing. Where its snapshots are torn for it, it is taken back and run
// again, unless it cannot be.
func TestTogetherLetsCommit(t *testing.T) {
	c := newCluster(t, Params{})
	const table, rows = "LOCK TABLE toglock IN ACCESS EXCLUSIVE MODE", "SELECT a FROM toglock FOR UPDATE"
	for name, tc := range map[string]struct {
		lock, locks, before string
		known               bool
		torn                bool
	}{
		"a table, locked ahead":                 {lock: table},
		"a table, the first statement":          {lock: table, locks: "toglock"},
		"a table, later":                        {lock: table, locks: "toglock", before: "INSERT INTO togbefore VALUES (7)"},
		"rows, locked ahead":                    {lock: rows},
		"rows, later":                           {lock: rows, locks: "toglock", before: "INSERT INTO togbefore VALUES (7)"},
		"a table that should have been locked":  {lock: table, locks: "toglock", known: true, torn: true},
		"rows of a table that should have been": {lock: rows, locks: "toglock", known: true},
	} {
		c.table("toglock")
		c.table("togbefore")
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
		if tc.before != "" {
			exec(t, g, []int{0}, tc.before)
		}
		st := &Together{Segments: []int{0, 1}, Ahead: "EXPLAIN UPDATE toglock SET a = a + $1::int", Locks: tc.locks, Params: []Param{{Value: []byte("1")}},
			SQL: "UPDATE toglock SET a = a + $1::int WHERE " + snapshotTaken + " RETURNING a"}
		if tc.known {
			g.tx.locks = map[string]bool{fmt.Sprint(st.Segments, st.Locks): true}
		}
		done := make(chan error, 1)
		go func() {
			res, err := g.ExecTogether(testContext(t), st)
			if n := rowsChanged(res); err == nil && n != 2 {
				err = fmt.Errorf("%d rows were changed", n)
			}
			done <- err
		}()
		waitFor(t, "the statement waits", g.waitsForLock)
		c.commitsBeside("togbeside")
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; errors.Is(err, ErrTorn) != tc.torn || err != nil && !tc.torn {
			t.Errorf("%s: %v", name, err)
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
			t.Errorf("%s: rows are %v", name, got)
		}
		if got := c.values(c.gang(), "SELECT a FROM togbefore"); len(got) != len(tc.before)/len("INSERT INTO togbefore VALUES (7)") {
			t.Errorf("%s: of before there is %v", name, got)
		}
	}
}

// TestTogetherKnows: a statement can be taken back only if its locks may be new to the
// transaction; one that looks at no rows, or fails, ends like any other.
func TestTogetherKnows(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("togknown")
	exec(t, c.gang(), nil, "INSERT INTO togknown VALUES (1)")
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	g.MarkWrite(nil)
	if err := g.Savepoint(testContext(t), "s"); err != nil {
		t.Fatal(err)
	}
	run := func(where string) (int64, error) {
		res, err := g.ExecTogether(testContext(t), &Together{Ahead: "SELECT 1", Locks: "togknown",
			SQL: "UPDATE togknown SET a = a + 1 WHERE (" + where + ") AND " + snapshotTaken})
		return rowsChanged(res), err
	}
	for _, tc := range []struct {
		where string
		rows  int64
	}{{"false", 0}, {"true", 3}, {"a > 0", 3}} {
		if n, err := run(tc.where); err != nil || n != tc.rows || len(g.tx.locks) != 1 {
			t.Errorf("WHERE %s: %d rows, %v; %d locks are known", tc.where, n, err, len(g.tx.locks))
		}
	}
	if err := g.RollbackTo(testContext(t), "s"); err != nil || g.tx.locks != nil {
		t.Fatal(err, g.tx.locks)
	}
	if n, err := run("a = 1"); err != nil || n != 3 {
		t.Errorf("after ROLLBACK TO: %d rows, %v", n, err)
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

// TestTogetherLost: a segment is lost while the statement waits for a lock, and somebody
// commits, so that it would be taken back; its own error is said, and that is the end of
// the transaction, as when the time for the lock is over.
func TestTogetherLost(t *testing.T) {
	c := newCluster(t, Params{})
	for end, want := range map[string]string{"lost": "57P01", "timeout": "55P03", "cancel": "57014"} {
		c.table("toglost")
		c.table("togbeside")
		locker, g := c.gang(), c.gang()
		if err := locker.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, locker, []int{1}, "LOCK TABLE toglost IN ACCESS EXCLUSIVE MODE")
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		g.MarkWrite(nil)
		exec(t, g, nil, "INSERT INTO togbeside VALUES (1)")
		if end == "timeout" {
			exec(t, g, nil, "SET LOCAL lock_timeout = 500")
		}
		done := make(chan error, 1)
		go func() {
			_, err := g.ExecTogether(testContext(t), &Together{Ahead: "EXPLAIN UPDATE toglost SET a = 1", Locks: "toglost", SQL: "UPDATE toglost SET a = 1 WHERE " + snapshotTaken})
			done <- err
		}()
		waitFor(t, "the statement waits", g.waitsForLock)
		c.commitsBeside("togbeside")
		switch end {
		case "lost":
			g.mu.Lock()
			pid := g.backends[g.members[1]]
			g.mu.Unlock()
			exec(t, c.gang(), []int{1}, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
		case "cancel":
			g.Cancel()
		}
		if err := <-done; code(err) != want || errors.Is(err, ErrTorn) || !g.Failed() {
			t.Errorf("%s: %v, want %s; failed %t", end, err, want, g.Failed())
		}
		for _, gang := range []*Gang{g, locker} {
			if err := gang.Rollback(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
