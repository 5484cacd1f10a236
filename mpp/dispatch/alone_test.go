package dispatch

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// rowsChanged is how many rows the segments have changed together.
func rowsChanged(res []Result) (n int64) {
	for _, r := range res {
		n += r.Tag.RowsAffected()
	}
	return n
}

// oneThere makes the tables of a test: NAME has a 1 on segment 0 and a 0 on
// segment 1, NAME_seen a row on each.
func (c *cluster) oneThere(name string) {
	c.t.Helper()
	c.table(name)
	c.table(name + "_seen")
	g := c.gang()
	exec(c.t, g, []int{0}, "INSERT INTO "+name+" VALUES (1)")
	exec(c.t, g, []int{1}, "INSERT INTO "+name+" VALUES (0)")
	exec(c.t, g, []int{0, 1}, "INSERT INTO "+name+"_seen VALUES (0)")
}

// commitsBeside has somebody write to a table on two segments and commit, which nobody
// must keep from that.
func (c *cluster) commitsBeside(table string) {
	c.t.Helper()
	w := c.gang()
	write(c.t, w, table, 0, 1)
	begun := time.Now()
	if err := w.CommitDistributed(testContext(c.t), newCoordTxn(c.t)); err != nil {
		c.t.Fatal(err)
	}
	if d := time.Since(begun); d > 2*time.Second {
		c.t.Errorf("a commit beside took %v", d)
	}
	w.Close()
}

// waitFor fails the test when f does not become true.
func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("never: " + what)
		}
	}
}

const changeSeen = "UPDATE alhalf_seen SET a = alhalf_seen.a + 1 FROM alhalf WHERE alhalf.a = 1"

// seesWhole changes rows by a condition that holds on exactly one segment, while a
// commit moves what it looks for from one to the other and is not done yet on the
// second. run runs changeSeen on segments 0 and 1 in a transaction of g.
func seesWhole(t *testing.T, run func(g *Gang) ([]Result, error)) {
	t.Helper()
	c := newCluster(t, Params{})
	c.oneThere("alhalf")
	g, w := c.gang(), c.gang()
	exec(t, g, nil, "SELECT 1")
	if err := w.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, w, []int{0, 1}, "UPDATE alhalf SET a = 1 - a")
	w.MarkWrite([]int{0, 1})
	second := int(w.members[1].pid)
	thaw := func() { _ = syscall.Kill(second, syscall.SIGCONT) }
	defer thaw()
	x := newCoordTxn(t)
	x.commit = func(ctx context.Context) error {
		if err := syscall.Kill(second, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		return x.plainCommit(ctx)
	}
	committed := make(chan error, 1)
	go func() { committed <- w.CommitDistributed(testContext(t), x) }()
	waitFor(t, "a commit is half done", func() bool {
		return string(exec(t, g, []int{0}, "SELECT a FROM alhalf")[0].Rows[0][0]) == "0"
	})
	if n := rowsChanged(exec(t, g, []int{0, 1}, changeSeen)); n != 0 {
		t.Fatalf("%d rows were changed in the middle of the commit, so that nothing is tested", n)
	}
	type outcome struct {
		res []Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := run(g)
		done <- outcome{res, err}
	}()
	waitFor(t, "the statement waits for the commit", func() bool { return c.latch.wanted(reading) })
	thaw()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	if n := rowsChanged(o.res); n != 1 {
		t.Errorf("%d rows were changed, want 1", n)
	}
	if !g.InTransaction() || !g.Wrote() || g.members[2].begun {
		t.Error("the transaction is not what it should be")
	}
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if got := c.values(c.gang(), "SELECT a FROM alhalf_seen WHERE a > 0"); len(got) != 1 {
		t.Errorf("rows that were changed: %v", got)
	}
}

func TestAloneSeesWhole(t *testing.T) {
	seesWhole(t, func(g *Gang) ([]Result, error) {
		return g.ExecAlone(testContext(t), &Alone{Segments: []int{0, 1}, Isolation: "REPEATABLE READ", SQL: changeSeen,
			Locks: []string{"LOCK TABLE alhalf IN ACCESS SHARE MODE", "LOCK TABLE alhalf_seen IN ROW EXCLUSIVE MODE"}})
	})
}

// TestAnalysisTakesSnapshot is what ExecAlone relies on: in a transaction of
// REPEATABLE READ the answer to Parse says that the snapshot is there.
func TestAnalysisTakesSnapshot(t *testing.T) {
	c := newCluster(t, Params{})
	c.oneThere("alparse")
	for _, sql := range []string{"UPDATE alparse_seen SET a = 1 FROM alparse WHERE alparse.a = 1", "DELETE FROM alparse_seen USING alparse WHERE alparse.a = 1"} {
		conn, err := shared.segs[0].Connect(testContext(t), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := query(testContext(t), conn, "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Prepare(testContext(t), "", sql, nil); err != nil {
			t.Fatal(err)
		}
		exec(t, c.gang(), []int{0}, "UPDATE alparse SET a = 0")
		r := conn.ExecPrepared(testContext(t), "", nil, nil, nil).Read()
		if r.Err != nil || r.CommandTag.RowsAffected() != 1 {
			t.Errorf("%s: %s, %v: it has seen what was committed after its analysis", sql, r.CommandTag, r.Err)
		}
		_ = conn.Close(context.Background())
		exec(t, c.gang(), []int{0}, "UPDATE alparse SET a = 1")
	}
}

// TestAloneLetsCommit: a statement that waits for a lock on one segment must not keep
// others from committing, and is torn when it has waited before its snapshots were
// there, but not when after that.
func TestAloneLetsCommit(t *testing.T) {
	c := newCluster(t, Params{})
	for _, tc := range []struct {
		lock string
		torn bool
	}{
		{"LOCK TABLE allock IN ACCESS EXCLUSIVE MODE", true},
		{"SELECT a FROM allock FOR UPDATE", false},
	} {
		c.table("allock")
		c.table("albeside")
		exec(t, c.gang(), []int{0, 1}, "INSERT INTO allock VALUES (1)")
		locker := c.gang()
		if err := locker.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, locker, []int{0}, tc.lock)
		g := c.gang()
		st := &Alone{Segments: []int{0, 1}, Isolation: "REPEATABLE READ", SQL: "UPDATE allock SET a = a + 1", Locks: []string{"LOCK TABLE allock IN ROW EXCLUSIVE MODE"}}
		done := make(chan error, 1)
		go func() {
			_, err := g.ExecAlone(testContext(t), st)
			done <- err
		}()
		waitFor(t, "the statement waits", g.waitsForLock)
		c.commitsBeside("albeside")
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		err := <-done
		if errors.Is(err, ErrTorn) != tc.torn || err != nil && !tc.torn {
			t.Errorf("%s: %v", tc.lock, err)
		}
		if tc.torn {
			if g.InTransaction() || g.Failed() {
				t.Error("the transaction is there")
			}
			st.Ahead = true
			if _, err := g.ExecAlone(testContext(t), st); err != nil {
				t.Error(err)
			}
		}
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Fatal(err)
		}
		if got := c.values(c.gang(), "SELECT a FROM allock"); len(got) != 2 || got[0] != "2" || got[1] != "2" {
			t.Errorf("%s: rows are %v", tc.lock, got)
		}
	}
}

// TestAloneFails: an error anywhere leaves nothing, and connections that can be
// used.
func TestAloneFails(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("alfail")
	exec(t, c.gang(), []int{0, 1}, "INSERT INTO alfail VALUES (0)")
	exec(t, c.gang(), []int{2}, "INSERT INTO alfail VALUES (1)")
	g := c.gang()
	for _, tc := range []struct{ sql, lock, code string }{
		{"UPDATE alfail SET a = 1 / a", "LOCK TABLE alfail IN ROW EXCLUSIVE MODE", "22012"},
		{"UPDATE alfail SET b = 1", "LOCK TABLE alfail IN ROW EXCLUSIVE MODE", "42703"},
		{"UPDATE alfail SET a = 2", "LOCK TABLE nothere IN ROW EXCLUSIVE MODE", "42P01"},
	} {
		_, err := g.ExecAlone(testContext(t), &Alone{Isolation: "REPEATABLE READ", SQL: tc.sql, Locks: []string{tc.lock}})
		if code(err) != tc.code || g.InTransaction() {
			t.Errorf("%s: %v, want %s; in a transaction: %t", tc.sql, err, tc.code, g.InTransaction())
		}
	}
	// It is cancelled, or loses a segment, or waits too long, for a row that somebody
	// else has changed, who is first in the end.
	w := c.gang()
	if err := w.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, w, []int{1}, "UPDATE alfail SET a = 5")
	w.MarkWrite([]int{1})
	done := make(chan error, 1)
	for want, end := range map[string]func(){
		"57014": g.Cancel,
		"57P01": func() {
			g.mu.Lock()
			pid := g.backends[g.members[1]]
			g.mu.Unlock()
			exec(t, w, []int{1}, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
		},
		"55P03": nil,
	} {
		st := &Alone{Isolation: "REPEATABLE READ", SQL: "UPDATE alfail SET a = 9"}
		if end == nil {
			st.LockTimeout = 5 * time.Millisecond
		}
		go func() {
			_, err := g.ExecAlone(testContext(t), st)
			done <- err
		}()
		if end != nil {
			waitFor(t, "the statement waits", g.waitsForLock)
			end()
		}
		if err := <-done; code(err) != want || g.InTransaction() || g.Failed() {
			t.Errorf("%v, want %s; in a transaction: %t", err, want, g.InTransaction())
		}
	}
	go func() {
		_, err := g.ExecAlone(testContext(t), &Alone{Isolation: "REPEATABLE READ", SQL: "UPDATE alfail SET a = $1::int + a RETURNING a", Params: []Param{{Value: []byte("7")}}})
		done <- err
	}()
	waitFor(t, "the statement waits", g.waitsForLock)
	if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "40001" || errors.Is(err, ErrTorn) {
		t.Errorf("a row that was changed: %v", err)
	}
	res, err := g.ExecAlone(testContext(t), &Alone{Isolation: "REPEATABLE READ", SQL: "UPDATE alfail SET a = $1::int + a RETURNING a", Params: []Param{{Value: []byte("7")}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"7", "12", "8"} {
		if res[i].Seg != i || len(res[i].Rows) != 1 || string(res[i].Rows[0][0]) != want {
			t.Errorf("seg%d: %q, want %s", res[i].Seg, res[i].Rows, want)
		}
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
