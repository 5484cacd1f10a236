package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// lockOn begins a transaction that keeps everybody else from a table of a segment.
func lockOn(t *testing.T, g *Gang, seg int, table string) {
	t.Helper()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, g, []int{seg}, "LOCK TABLE "+table)
}

// write begins a transaction and inserts one row on each of the segments.
func write(t *testing.T, g *Gang, table string, segs ...int) {
	t.Helper()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, g, segs, "INSERT INTO "+table+" VALUES (1)")
	g.MarkWrite(segs)
}

// prepared returns how many prepared transactions of ours there are.
func prepared(t *testing.T) int {
	t.Helper()
	n := 0
	for _, s := range shared.segs {
		conn, err := s.Connect(testContext(t), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := query(testContext(t), conn, "SELECT gid FROM pg_prepared_xacts")
		if err != nil {
			t.Fatal(err)
		}
		n += len(rows)
		_ = conn.Close(context.Background())
	}
	return n
}

func (c *cluster) wantCounts(table, want string) {
	c.t.Helper()
	if got := fmt.Sprint(c.counts(table)); got != want {
		c.t.Errorf("counts of %s are %s, want %s", table, got, want)
	}
}

func TestCommit(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("tx")
	g := c.gang()

	write(t, g, "tx", 1) // one writer: one phase
	exec(t, g, []int{0}, "SELECT 1")
	if g.members[2].begun {
		t.Error("BEGIN went to a segment that has nothing to do")
	}
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if g.InTransaction() || g.Wrote() {
		t.Error("transaction still there")
	}
	c.wantCounts("tx", "[0 1 0]")

	write(t, g, "tx", 1, 2) // two writers and a reader
	exec(t, g, []int{0}, "SELECT 1")
	x := newCoordTxn(t)
	x.commit = func(ctx context.Context) error {
		if n := prepared(t); n != 2 {
			t.Errorf("%d transactions are prepared at the decision", n)
		}
		return x.plainCommit(ctx)
	}
	if err := g.CommitDistributed(testContext(t), x); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("tx", "[0 2 1]")

	write(t, g, "tx", 1) // one writer and the coordinator
	x = newCoordTxn(t)
	x.wrote = true
	x.commit = func(ctx context.Context) error {
		if n := prepared(t); n != 1 {
			t.Errorf("%d transactions are prepared at the decision", n)
		}
		return x.plainCommit(ctx)
	}
	if err := g.CommitDistributed(testContext(t), x); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("tx", "[0 3 1]")

	write(t, g, "tx", 0, 1, 2)
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("tx", "[0 3 1]")
	if n := prepared(t); n != 0 {
		t.Errorf("%d transactions are left prepared", n)
	}
}

func TestCommitTemporary(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txtemp")
	g := c.gang()
	write(t, g, "txtemp", 0, 1, 2)
	exec(t, g, nil, "CREATE TEMP TABLE tt (a int)")
	g.MarkNoPrepare([]int{0, 2})
	// Segment 1 is not marked: PREPARE refuses and everything is undone.
	err := g.CommitDistributed(testContext(t), newCoordTxn(t))
	if code(err) != "0A000" {
		t.Fatalf("got %v", err)
	}
	write(t, g, "txtemp", 0, 1, 2)
	exec(t, g, nil, "CREATE TEMP TABLE tt (a int)")
	g.MarkNoPrepare(nil)
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("txtemp", "[1 1 1]")
	exec(t, g, nil, "SELECT * FROM tt")
}

func TestCommitFailures(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txfail")
	g := c.gang()

	// The coordinator refuses.
	write(t, g, "txfail", 0, 1)
	x := newCoordTxn(t)
	x.commit = func(context.Context) error { return &pgconn.PgError{Severity: "ERROR", Code: "23505", Message: "no"} }
	if err := g.CommitDistributed(testContext(t), x); code(err) != "23505" {
		t.Errorf("got %v", err)
	}

	// A segment refuses to prepare.
	write(t, g, "txfail", 0, 1)
	exec(t, g, []int{1}, "LISTEN x")
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); code(err) != "0A000" {
		t.Errorf("got %v", err)
	}

	// A segment's block is aborted.
	write(t, g, "txfail", 0, 1)
	_, _ = g.Exec(testContext(t), []int{1}, "SELECT nosuch")
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); code(err) != codeInFailedTx {
		t.Errorf("got %v", err)
	}

	// A segment is lost before.
	write(t, g, "txfail", 0, 1)
	killBackend(t, 1, g.members[1].pid)
	err := g.CommitDistributed(testContext(t), newCoordTxn(t))
	var e *Error
	if !errors.As(err, &e) || e.Seg != 1 || !e.Lost {
		t.Errorf("got %v", err)
	}

	// No coordinator for two writers.
	write(t, g, "txfail", 0, 1)
	if err := g.CommitDistributed(testContext(t), nil); err == nil {
		t.Error("committed without a decision")
	}
	c.wantCounts("txfail", "[0 0 0]")
	if n := prepared(t); n != 0 {
		t.Errorf("%d transactions are left prepared", n)
	}
}

// crash kills a segment's server, keeps it down for a while and starts it.
func crash(t *testing.T, p interface {
	Signal(syscall.Signal) error
	Start() error
}, down time.Duration) *sync.WaitGroup {
	t.Helper()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(down)
		if err := p.Start(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(wg.Wait)
	return &wg
}

// TestCrashBetweenPhases kills a segment when the commit is decided. The
// commit stands, and no reader sees a part of it.
func TestCrashBetweenPhases(t *testing.T) {
	for _, down := range []time.Duration{100 * time.Millisecond, 1500 * time.Millisecond} {
		// The longer one outlasts the retries: recovery takes over.
		const retry = 800 * time.Millisecond
		c := newCluster(t, Params{CommitRetry: retry, RecoverEvery: 100 * time.Millisecond})
		ctx, cancel := context.WithCancel(context.Background())
		var bg sync.WaitGroup
		bg.Go(func() { _ = c.Recover(ctx) })
		c.table("txcrash")
		g := c.gang()
		var warned sync.Map
		g.cfg.OnNotice = func(seg int, n *pgconn.Notice) {
			if strings.Contains(n.Message, "does not answer") {
				warned.Store(seg, true)
			}
		}
		write(t, g, "txcrash", 0, 1, 2)
		x := newCoordTxn(t)
		var wg *sync.WaitGroup
		var killed time.Time
		x.commit = func(ctx context.Context) error {
			err := x.plainCommit(ctx)
			// The backend would go on for a moment without its postmaster.
			if kerr := syscall.Kill(int(g.members[1].pid), syscall.SIGKILL); kerr != nil {
				t.Error(kerr)
			}
			killed = time.Now()
			wg = crash(t, shared.segs[1], down)
			return err
		}
		if err := g.CommitDistributed(testContext(t), x); err != nil {
			t.Fatal(err)
		}
		c.wantCounts("txcrash", "[1 1 1]")
		wg.Wait()
		// A busy machine may take longer to start the server than the retries go on.
		late := down > time.Second || time.Since(killed) > retry/2
		if _, w := warned.Load(1); w != (down > time.Second) && !(w && late) {
			t.Errorf("down %v: warned is %v", down, w)
		}
		if n := prepared(t); n != 0 {
			t.Errorf("down %v: %d transactions are left prepared", down, n)
		}
		exec(t, g, nil, "SELECT 1")
		cancel()
		bg.Wait()
	}
}

// TestCrashInPrepare kills a segment before the decision: nothing is left.
func TestCrashInPrepare(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txprep")
	g := c.gang()
	write(t, g, "txprep", 0, 1, 2)
	wg := crash(t, shared.segs[1], 200*time.Millisecond)
	x := newCoordTxn(t)
	if err := g.CommitDistributed(testContext(t), x); err == nil {
		t.Error("committed")
	}
	if _, err := query(testContext(t), x.conn, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	c.wantCounts("txprep", "[0 0 0]")
	if n := prepared(t); n != 0 {
		t.Errorf("%d transactions are left prepared", n)
	}
}

// TestCoordinatorLost kills the coordinator's server around its commit.
func TestCoordinatorLost(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txcoord")
	for _, committed := range []bool{true, false} {
		g := c.gang()
		write(t, g, "txcoord", 0, 2)
		x := newCoordTxn(t)
		x.commit = func(ctx context.Context) error {
			var err error
			if committed {
				err = x.plainCommit(ctx)
			}
			crash(t, shared.coord, 200*time.Millisecond)
			return errors.Join(err, errors.New("connection lost"))
		}
		err := g.CommitDistributed(testContext(t), x)
		if (err == nil) != committed {
			t.Errorf("committed %v: %v", committed, err)
		}
		c.wantCounts("txcoord", "[1 0 1]")
		if n := prepared(t); n != 0 {
			t.Errorf("%d transactions are left prepared", n)
		}
	}
}

// TestDispatcherDies leaves prepared transactions of a dispatcher that is no
// more; the next one finds them, in whatever database they are.
func TestDispatcherDies(t *testing.T) {
	c := newCluster(t, Params{})
	exec(t, c.gang(), nil, "DROP DATABASE IF EXISTS other")
	exec(t, c.gang(), nil, "CREATE DATABASE other")
	c.table("txdied")
	leave := func(db string) *coordTxn {
		g := c.NewGang(GangConfig{SessionID: 77, User: "gpadmin", Database: db, InterconnectType: "memory"})
		defer g.Close()
		exec(t, g, nil, "CREATE TABLE IF NOT EXISTS txdied (a int)")
		write(t, g, "txdied", 0, 1, 2)
		x := newCoordTxn(t)
		exec(t, g, nil, "PREPARE TRANSACTION '"+x.gid(t)+"'")
		return x
	}
	yes, no, open := leave("postgres"), leave("other"), leave("postgres")
	if err := yes.plainCommit(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := query(testContext(t), no.conn, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	foreign := c.gang()
	exec(t, foreign, nil, "BEGIN; INSERT INTO txdied VALUES (5); PREPARE TRANSACTION 'trunkline_x'")

	next := newCluster(t, Params{})
	next.wantCounts("txdied", "[1 1 1]") // the first use recovers
	if n := prepared(t); n != 2*nsegs {
		t.Errorf("%d transactions are prepared, want the undecided and the foreign one on each segment", n)
	}
	if err := open.plainCommit(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := next.RecoverNow(testContext(t)); err != nil {
		t.Fatal(err)
	}
	next.wantCounts("txdied", "[2 2 2]")
	exec(t, foreign, nil, "ROLLBACK PREPARED 'trunkline_x'")
	exec(t, foreign, nil, "DROP DATABASE other")
}

// TestXidGivenAgain has a prepared transaction whose coordinator lost its
// transaction id in a crash and has given it to another one, which commits.
func TestXidGivenAgain(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txagain")
	x := newCoordTxn(t)
	now := x.gid(t)
	of := now[:strings.LastIndexByte(now, '_')]
	for _, gid := range []string{now, of + "_1"} {
		g := c.NewGang(GangConfig{SessionID: 77, User: "gpadmin", Database: "postgres", InterconnectType: "memory"})
		write(t, g, "txagain", 0, 1, 2)
		exec(t, g, nil, "PREPARE TRANSACTION '"+gid+"'")
		g.Close()
	}
	if err := x.plainCommit(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.RecoverNow(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("txagain", "[1 1 1]")
	if n := prepared(t); n != 0 {
		t.Errorf("%d transactions are prepared still", n)
	}
}

// TestAtomicVisibility reads while transactions commit over all segments: the
// segments' sums must always agree.
func TestAtomicVisibility(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txvis")
	exec(t, c.gang(), nil, "INSERT INTO txvis VALUES (0)")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			g, x := c.gang(), newCoordTxn(t)
			for first := true; ; first = false {
				select {
				case <-stop:
					return
				default:
				}
				if err := g.Begin(testContext(t), ""); err != nil {
					t.Error(err)
					return
				}
				// Always in the same order, or the two would deadlock.
				for i := range nsegs {
					if _, err := g.Exec(testContext(t), []int{i}, "UPDATE txvis SET a = a + 1"); err != nil {
						t.Error(err)
						return
					}
				}
				g.MarkWrite(nil)
				if !first {
					if _, err := query(testContext(t), x.conn, "BEGIN"); err != nil {
						t.Error(err)
						return
					}
				}
				if err := g.CommitDistributed(testContext(t), x); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	g := c.gang()
	rounds, distinct := 0, map[string]bool{}
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); rounds++ {
		vals := c.values(g, "SELECT a FROM txvis")
		for _, v := range vals {
			if v != vals[0] {
				t.Errorf("a statement saw a part of a transaction: %v", vals)
			}
		}
		distinct[vals[0]] = true
	}
	close(stop)
	wg.Wait()
	if len(distinct) < 3 {
		t.Errorf("only %d different states in %d rounds: nothing was tested", len(distinct), rounds)
	}
}

// TestBeginFails wants nothing to be left of a transaction whose snapshot could not
// be taken on one segment: what comes next must not see the others as they were.
func TestBeginFails(t *testing.T) {
	c := newCluster(t, Params{ConnectTimeout: time.Second})
	c.table("txbegin")
	g := c.gang()
	const modes = "ISOLATION LEVEL REPEATABLE READ"
	exec(t, g, nil, "SELECT 1")
	c.qes[1]()
	if err := g.Begin(testContext(t), modes); err == nil {
		t.Fatal("a transaction began without a segment")
	}
	if g.InTransaction() || g.Failed() {
		t.Error("the transaction is there")
	}
	c.startQE(1)
	exec(t, c.gang(), nil, "INSERT INTO txbegin VALUES (1)")
	if err := g.Begin(testContext(t), modes); err != nil {
		t.Fatal(err)
	}
	for _, r := range exec(t, g, nil, "SELECT count(*) FROM txbegin") {
		if n := string(r.Rows[0][0]); n != "1" {
			t.Errorf("seg%d shows %s rows, want 1", r.Seg, n)
		}
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// TestRepeatableRead wants one snapshot of all segments for the transaction.
func TestRepeatableRead(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txrr")
	g, w := c.gang(), c.gang()
	if err := g.Begin(testContext(t), "ISOLATION LEVEL REPEATABLE READ"); err != nil {
		t.Fatal(err)
	}
	write(t, w, "txrr", 0, 1, 2)
	if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	for _, r := range exec(t, g, nil, "SELECT count(*) FROM txrr") {
		if string(r.Rows[0][0]) != "0" {
			t.Errorf("seg%d sees a later commit", r.Seg)
		}
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// TestLatchDoesNotDeadlock: a statement waits for a row lock while it opens;
// the lock's owner must still be able to commit.
func TestLatchDoesNotDeadlock(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txlock")
	w, r := c.gang(), c.gang()
	write(t, w, "txlock", 0, 1, 2)
	exec(t, w, nil, "LOCK TABLE txlock")
	done := make(chan []string, 1)
	go func() { done <- c.values(r, "SELECT a FROM txlock") }()
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("the commit took %v", d)
	}
	if got := fmt.Sprint(<-done); got != "[1 1 1]" {
		t.Errorf("got %s", got)
	}
}

// TestTornInBlock opens slices in a transaction while a lock keeps one segment's
// waiting and another transaction commits: they are opened again, and the
// transaction is as it was.
func TestTornInBlock(t *testing.T) {
	for _, level := range []string{"READ COMMITTED", "REPEATABLE READ"} {
		t.Run(level, func(t *testing.T) { tornInBlock(t, level) })
	}
}

func tornInBlock(t *testing.T, level string) {
	c := newCluster(t, Params{})
	fixed := level != "READ COMMITTED"
	c.table("txtorn")
	c.table("txbeside")
	locker := c.gang()
	lockOn(t, locker, 0, "txtorn")
	g := c.gang()
	begin := g.BeginToOpen
	if !fixed {
		begin = g.BeginLocked
	}
	if err := begin(testContext(t), "ISOLATION LEVEL "+level, "LOCK TABLE txbeside IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	if !fixed {
		exec(t, g, nil, "INSERT INTO txbeside VALUES (2)")
	}
	slice := []Slice{{Index: 1, SQL: "SELECT a FROM txtorn"}}
	opened := make(chan error)
	go func() {
		_, err := g.Open(testContext(t), c.command(), slice, nil)
		opened <- err
	}()
	for limit := time.Now().Add(10 * time.Second); !g.waitsForLock(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody waits for the lock")
		}
	}
	w := c.gang()
	write(t, w, "txbeside", 0, 1, 2)
	if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if err := locker.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; !errors.Is(err, ErrTorn) {
		t.Fatalf("the slices are open: %v", err)
	}
	if g.Failed() != fixed {
		t.Fatalf("the transaction has failed: %t", g.Failed())
	}
	if fixed {
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); !errors.Is(err, ErrTorn) || g.InTransaction() || g.Failed() {
			t.Fatalf("committed: %v; in a transaction %t, failed %t", err, g.InTransaction(), g.Failed())
		}
		if err := begin(testContext(t), "ISOLATION LEVEL "+level, ""); err != nil {
			t.Fatal(err)
		}
	}
	r, err := g.Open(testContext(t), c.command(), slice, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if fixed {
		exec(t, g, nil, "INSERT INTO txbeside VALUES (2)")
	}
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	c.wantCounts("txbeside", "[2 2 2]")
}

// TestSavepoints keeps the list of a transaction's savepoints as the segments have it.
func TestSavepoints(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txsaved")
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	g.MarkWrite(nil)
	const odd = `A "quoted" name`
	for i, step := range []struct {
		do         func(context.Context, string) error
		name, code string
		want       []string
		rows       int // afterwards, one more for each step
	}{
		{g.Savepoint, "a", "", []string{"a"}, 0},
		{g.Savepoint, odd, "", []string{"a", odd}, 1},
		{g.Savepoint, "a", "", []string{"a", odd, "a"}, 2},
		{g.RollbackTo, "a", "", []string{"a", odd, "a"}, 2},
		{g.Release, "a", "", []string{"a", odd}, 3},
		{g.Savepoint, "b", "", []string{"a", odd, "b"}, 4},
		{g.RollbackTo, odd, "", []string{"a", odd}, 1},
		{g.RollbackTo, "b", "3B001", []string{"a", odd}, -1},
		{g.RollbackTo, "a", "", []string{"a"}, 0},
		{g.Release, "a", "", nil, 1},
	} {
		if err := step.do(testContext(t), step.name); code(err) != step.code {
			t.Fatalf("step %d: %v", i, err)
		}
		if !slices.Equal(g.tx.savepoints, step.want) {
			t.Errorf("step %d: %q, want %q", i, g.tx.savepoints, step.want)
		}
		if step.rows < 0 {
			continue
		}
		for _, r := range exec(t, g, nil, "SELECT count(*) FROM txsaved") {
			if n := string(r.Rows[0][0]); n != fmt.Sprint(step.rows) {
				t.Errorf("step %d: %s rows, want %d", i, n, step.rows)
			}
		}
		exec(t, g, nil, "INSERT INTO txsaved VALUES (1)")
	}
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if len(g.tx.savepoints) > 0 {
		t.Errorf("afterwards there are %q", g.tx.savepoints)
	}
	c.wantCounts("txsaved", "[2 2 2]")
}
