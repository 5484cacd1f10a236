package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

func TestExec(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	res := exec(t, g, nil, "SELECT 1; SELECT 'x' AS a, NULL AS b, current_setting('port')")
	if len(res) != nsegs {
		t.Fatalf("%d results", len(res))
	}
	for i, r := range res {
		row := r.Rows[0]
		if r.Seg != i || string(row[0]) != "x" || row[1] != nil || string(row[2]) != fmt.Sprint(shared.segs[i].Port) {
			t.Errorf("result %d: seg %d, row %q", i, r.Seg, row)
		}
		if r.Fields[0].Name != "a" || r.Tag.String() != "SELECT 1" {
			t.Errorf("fields %v, tag %s", r.Fields, r.Tag)
		}
	}
	res, err := g.ExecParams(testContext(t), []int{2}, "SELECT $1::int + 1, $2::text", []Param{{OID: 23, Value: []byte("41")}, {OID: 25}}, []int16{0})
	if err != nil {
		t.Fatal(err)
	}
	if len(res) != 1 || res[0].Seg != 2 || string(res[0].Rows[0][0]) != "42" || res[0].Rows[0][1] != nil {
		t.Errorf("got %v", res)
	}
}

func TestExecError(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	_, err := g.Exec(testContext(t), nil, "SELECT CASE WHEN current_setting('port') = '15434' THEN 1/(current_setting('port')::int - 15434) ELSE length(pg_sleep(20)::text) END")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	if e.Code != "22012" || e.Seg != 1 || e.Lost {
		t.Errorf("got %+v", e)
	}
	if want := fmt.Sprintf("division by zero (seg1 127.0.0.1:15434 pid=%d)", g.members[1].pid); e.Message != want {
		t.Errorf("message %q, want %q", e.Message, want)
	}
	exec(t, g, nil, "SELECT 1") // the connections are still good
	if _, err := g.Exec(testContext(t), nil, "SELEKT 1"); code(err) != "42601" {
		t.Errorf("got %v", err)
	}
}

func TestErrorPosition(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	_, err := g.Exec(testContext(t), nil, "SELECT nosuch")
	var plain *Error
	if !errors.As(err, &plain) || plain.Position != 8 {
		t.Fatalf("got %v", err)
	}
	if err := g.Begin(testContext(t), "READ WRITE"); err != nil {
		t.Fatal(err)
	}
	_, err = g.Exec(testContext(t), nil, "SELECT nosuch")
	var inTx *Error
	if !errors.As(err, &inTx) || inTx.Position != 8 {
		t.Errorf("in a transaction the position is off: %v", inTx)
	}
	if !g.Failed() {
		t.Error("the transaction should be aborted")
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	exec(t, g, nil, "SELECT 1")
}

func TestCancel(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	exec(t, g, nil, "SELECT 1")
	for _, how := range []string{"ctx", "Cancel"} {
		ctx, cancel := context.WithCancel(testContext(t))
		f := cancel
		if how == "Cancel" {
			f = g.Cancel
		}
		time.AfterFunc(50*time.Millisecond, f)
		start := time.Now()
		_, err := g.Exec(ctx, nil, "SELECT pg_sleep(20)")
		if code(err) != codeCanceled || strings.Contains(err.Error(), "seg") {
			t.Errorf("%s: got %v", how, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", how, d)
		}
		cancel()
		exec(t, g, nil, "SELECT 1")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(&pgconn.PgError{Severity: "ERROR", Code: "57P01", Message: "shutting down"})
	if _, err := g.Exec(ctx, nil, "SELECT pg_sleep(20)"); code(err) != "57P01" {
		t.Errorf("got %v", err)
	}
	exec(t, g, nil, "SELECT 1")
}

func TestSettings(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.NewGang(GangConfig{SessionID: 99, User: "gpadmin", Database: "postgres", InterconnectType: "memory",
		Startup: map[string]string{"application_name": "me"},
		Settings: func(context.Context) (map[string]string, error) {
			return map[string]string{"work_mem": "5MB", "trunkline.x": "it's"}, nil
		}})
	defer g.Close()
	row := exec(t, g, []int{0}, "SELECT current_setting('work_mem'), current_setting('trunkline.x'), current_setting('application_name')")[0].Rows[0]
	if fmt.Sprintf("%s", row) != "[5MB it's me]" {
		t.Errorf("got %s", row)
	}
	if err := g.SetAll(testContext(t), map[string]string{"work_mem": "6MB"}); err != nil {
		t.Fatal(err)
	}
	row = exec(t, g, []int{0, 1}, "SHOW work_mem")[0].Rows[0]
	if string(row[0]) != "6MB" {
		t.Errorf("got %s", row)
	}
}

func TestReconnectBetweenStatements(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	exec(t, g, nil, "SELECT 1")
	killBackend(t, 1, g.members[1].pid)
	exec(t, g, nil, "SELECT 1")
	if g.members[1].conn.PID() == 0 || g.members[0].lost {
		t.Error("not reconnected")
	}
	// The whole instance goes and comes back.
	c.qes[2]()
	started := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() {
		c.startQE(2)
		close(started)
	})
	exec(t, g, nil, "SELECT 1")
	<-started
}

// killBackend terminates a backend and waits until it is gone.
func killBackend(t *testing.T, seg int, pid uint32) {
	t.Helper()
	conn, err := shared.segs[seg].Connect(testContext(t), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := query(testContext(t), conn, fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", pid)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the executor closes its side
}

func detail(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Detail
	}
	return ""
}

func TestLostInTransaction(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, g, nil, "SELECT 1")
	killBackend(t, 1, g.members[1].pid)
	_, err := g.Exec(testContext(t), nil, "SELECT 2")
	var e *Error
	if !errors.As(err, &e) || !e.Lost || e.Seg != 1 {
		t.Fatalf("got %v", err)
	}
	if !g.Failed() {
		t.Error("transaction should have failed")
	}
	// The reason is told again and again.
	const why = "terminating connection due to administrator command (seg1 "
	_, err = g.Exec(testContext(t), nil, "SELECT 2")
	if code(err) != codeInFailedTx || !strings.Contains(detail(err), why) {
		t.Errorf("got %v, %q", err, detail(err))
	}
	err = g.CommitDistributed(testContext(t), nil)
	if code(err) != codeInFailedTx || !strings.Contains(detail(err), why) {
		t.Errorf("got %v, %q", err, detail(err))
	}
	exec(t, g, nil, "SELECT 3")
}

func TestConnectErrors(t *testing.T) {
	c := newCluster(t, Params{ConnectTimeout: 300 * time.Millisecond})
	g := c.NewGang(GangConfig{User: "gpadmin", Database: "nosuchdb", InterconnectType: "memory"})
	defer g.Close()
	if _, err := g.Exec(testContext(t), nil, "SELECT 1"); code(err) != "3D000" || !strings.Contains(err.Error(), "(seg") {
		t.Errorf("got %v", err)
	}
	c.qes[1]()
	g = c.gang()
	start := time.Now()
	_, err := g.Exec(testContext(t), nil, "SELECT 1")
	if code(err) != codeConnectionFailure || !strings.Contains(err.Error(), "seg1 127.0.0.1:15434") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if _, err := g.Exec(testContext(t), []int{0, 7}, "SELECT 1"); !strings.Contains(fmt.Sprint(err), "no segment with content id 7") {
		t.Errorf("got %v", err)
	}
}

// TestExecLocking: what locks out readers comes before or behind the opening of a
// statement's slices on all segments, and waits for neither for long.
func TestExecLocking(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("strong")
	g, other := c.gang(), c.gang()
	exec(t, g, nil, "SELECT 1")
	h, err := other.latchReading(testContext(t), nil) // in the middle of opening
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		err := g.Begin(testContext(t), "")
		if err == nil {
			_, err = g.ExecLocking(testContext(t), nil, "LOCK TABLE strong")
		}
		done <- err
	}()
	for limit := time.Now().Add(10 * time.Second); !c.latch.wanted(committing); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the latch is not waited for")
		}
	}
	if n := string(exec(t, other, []int{0}, "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'")[0].Rows[0][0]); n != "0" {
		t.Errorf("%s locks are taken or waited for already", n)
	}
	h.release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Who waits for a lock keeps nobody out: others open and commit.
	go func() {
		_, err := other.ExecLocking(testContext(t), nil, "BEGIN; LOCK TABLE strong; COMMIT")
		done <- err
	}()
	for limit := time.Now().Add(10 * time.Second); !other.waitsForLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the lock is not waited for")
		}
	}
	if n, err := c.query(testContext(t), c.gang(), Slice{Index: 1, SQL: "SELECT 1"}, -1); n != nsegs || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
