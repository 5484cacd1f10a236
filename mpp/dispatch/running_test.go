package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

func TestOneShot(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	for _, tx := range []bool{false, true} {
		if tx {
			if err := g.Begin(testContext(t), ""); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []Slice{
			{SQL: "SELECT i, NULL FROM generate_series(1, 20000) i"},
			{SQL: "SELECT i FROM generate_series(1, $1) i", Params: []Param{{OID: 23, Value: []byte("20000")}}, ResultFormats: []int16{1}},
			{SQL: "COPY (SELECT i FROM generate_series(1, 20000) i) TO STDOUT", Copy: true},
		} {
			s.Index = 1
			n, err := c.query(testContext(t), g, s, -1)
			if err != nil || n != nsegs*20000 {
				t.Fatalf("tx %v: %s: %d rows, %v", tx, s.SQL, n, err)
			}
			if g.members[0].begun != tx {
				t.Errorf("tx %v: begun %v", tx, g.members[0].begun)
			}
		}
		if tx {
			if err := g.CommitDistributed(testContext(t), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, err := c.query(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1", Segments: []int{1}}, -1)
	if n != 1 || err != nil {
		t.Errorf("one segment: %d rows, %v", n, err)
	}
}

func TestSliceRows(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	r, err := g.Open(testContext(t), c.command(), []Slice{{Index: 1, SQL: "SELECT 1, NULL, 'xy'::text"}}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
	if err != nil {
		t.Fatal(err)
	}
	recv, err := c.fabric.New().Receive(r.Context(), motion.ID{Session: g.cfg.SessionID, Command: r.command, SendSlice: 1}, c.self, r.Senders(1))
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := recv.Receive(r.Context())
	if want := "\x00\x03\x00\x00\x00\x011\xff\xff\xff\xff\x00\x00\x00\x02xy"; err != nil || string(b) != want {
		t.Errorf("tuple %q, want %q (%v)", b, want, err)
	}
	_ = recv.Close(testContext(t))
	if err := r.Finish(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r.Rows() != nsegs || len(r.Tags(1)) != nsegs || r.Tags(1)[0].String() != "SELECT 1" {
		t.Errorf("rows %d, tags %v", r.Rows(), r.Tags(1))
	}
}

// TestShort: a short slice has run when Open returns. One that waits for a lock all
// the same keeps nobody from committing.
func TestShort(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("txshort")
	g := c.gang()
	open := func(sql string) (rows chan string, r *Running, err error) {
		rows = make(chan string, 2*nsegs)
		var recv motion.Receiver
		command := c.command()
		run := &Run{Slice: 1, Short: true, Receivers: []motion.Peer{c.self}}
		run.Receive = func(ctx context.Context, senders []motion.Peer) (err error) {
			recv, err = c.fabric.New().Receive(ctx, motion.ID{Session: g.cfg.SessionID, Command: command, SendSlice: 1}, c.self, senders)
			go func() {
				defer close(rows)
				for {
					row, _, err := recv.Receive(ctx)
					if err != nil {
						_ = recv.Close(ctx)
						return
					}
					rows <- string(row)
				}
			}()
			return err
		}
		r, err = g.Open(testContext(t), command, []Slice{{Index: 1, SQL: sql}}, run)
		if err != nil {
			recv.Abort()
		}
		return rows, r, err
	}
	for range 2 {
		rows, r, err := open("SELECT 42")
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.Sent(1):
		default:
			t.Error("the slice has not run")
		}
		n := 0
		for row := range rows {
			n++
			if !strings.HasSuffix(row, "42") {
				t.Errorf("row %q", row)
			}
		}
		if n != nsegs {
			t.Errorf("%d rows", n)
		}
		if err := r.Finish(testContext(t)); err != nil || r.Rows() != nsegs {
			t.Errorf("%d rows, %v", r.Rows(), err)
		}
	}
	if _, _, err := open("SELECT 1/0"); err == nil || err.(*Error).Code != "22012" {
		t.Errorf("%v", err)
	}

	w := c.gang()
	write(t, w, "txshort", 0, 1, 2)
	exec(t, w, nil, "LOCK TABLE txshort")
	torn := make(chan error)
	go func() {
		_, _, err := open("SELECT count(*) FROM txshort")
		torn <- err
	}()
	for limit := time.Now().Add(10 * time.Second); !g.waitsForLock(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody waits for the lock")
		}
	}
	start := time.Now()
	if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("the commit took %v", d)
	}
	if err := <-torn; !errors.Is(err, ErrTorn) || g.Busy() {
		t.Errorf("%v, busy %v", err, g.Busy())
	}
}

// TestReceive: the receiving end is opened with the statement, and when it cannot
// be opened the statement ends.
func TestReceive(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	slcs := []Slice{{Index: 1, SQL: "SELECT 1"}, {Index: 2, SQL: "SELECT 2"}}
	for _, later := range []bool{false, true} {
		command := c.command()
		run := &Run{Slice: 1, Receivers: []motion.Peer{c.self}}
		sorry := errors.New("no receiver")
		run.Receive = func(_ context.Context, senders []motion.Peer) error {
			if len(senders) != nsegs || g.current() == nil {
				t.Errorf("%d senders, a statement under way: %v", len(senders), g.current() != nil)
			}
			return sorry
		}
		open := func() (*Running, error) {
			if !later {
				return g.Open(testContext(t), command, slcs, run)
			}
			r, err := g.Open(testContext(t), command, slcs, nil)
			if err == nil {
				if err = r.Run(*run); err != nil {
					r.Fail(err)
					_ = r.Finish(testContext(t))
				}
			}
			return r, err
		}
		if _, err := open(); !errors.Is(err, sorry) || g.Busy() {
			t.Fatalf("later %v: %v, busy %v", later, err, g.Busy())
		}
		command = c.command() // what the one before has sent is nobody's
		var recv motion.Receiver
		run.Receive = func(ctx context.Context, senders []motion.Peer) (err error) {
			recv, err = c.fabric.New().Receive(ctx, motion.ID{Session: g.cfg.SessionID, Command: command, SendSlice: 1}, c.self, senders)
			return err
		}
		r, err := open()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			if _, _, err = recv.Receive(r.Context()); err != nil {
				break
			}
			n++
		}
		if err != io.EOF || n != nsegs {
			t.Errorf("later %v: %d rows, %v", later, n, err)
		}
		_ = recv.Close(testContext(t))
		select {
		case <-r.Sent(1):
		case <-testContext(t).Done():
			t.Error("not all have sent")
		}
		select {
		case <-r.Sent(2):
			t.Error("a slice that has not run has been sent")
		default:
		}
		if err := r.Finish(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEarlyStop stops slices whose rest would take for ever.
func TestEarlyStop(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	endless := Slice{Index: 1, SQL: "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT a FROM r"}
	slow := Slice{Index: 1, SQL: "SELECT i, CASE WHEN i > 100000 THEN pg_sleep(60) END FROM generate_series(1, 100100) i"}
	for _, tx := range []bool{false, true} {
		if tx {
			if err := g.Begin(testContext(t), ""); err != nil {
				t.Fatal(err)
			}
		}
		s := slow // ended by a cancel request
		if tx {
			s = endless // ended by not asking for more
		}
		start := time.Now()
		if n, err := c.query(testContext(t), g, s, 1000); n != 1000 || err != nil {
			t.Fatalf("tx %v: %d rows, %v", tx, n, err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("tx %v: took %v", tx, d)
		}
		exec(t, g, nil, "SELECT 1")
	}
	if g.Failed() {
		t.Error("an early stop has aborted the transaction")
	}
	if err := g.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestSeveralSlices(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("several")
	g := c.gang()
	exec(t, g, nil, "INSERT INTO several SELECT generate_series(1, 10000)")
	slcs := []Slice{
		{Index: 1, SQL: "SELECT a FROM several"},
		{Index: 2, SQL: "SELECT a, a FROM several WHERE a <= 100", Segments: []int{0, 2}},
		{Index: 3, SQL: "SELECT 1 FROM several"},
	}
	for _, first := range []bool{true, false} {
		var run *Run
		if first {
			run = &Run{Slice: 1, Receivers: []motion.Peer{c.self}}
		}
		r, err := g.Open(testContext(t), c.command(), slcs, run)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Exec(testContext(t), nil, "SELECT 1"); code(err) != codeInUse || !g.Busy() {
			t.Errorf("busy gang: %v", err)
		}
		// The snapshots are taken: this is not seen.
		other := c.gang()
		exec(t, other, nil, "INSERT INTO several VALUES (1)")
		if !first {
			if err := r.Run(Run{Slice: 1, Receivers: []motion.Peer{c.self}}); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := c.receive(g, r, 1, -1); n%nsegs != 0 || n/nsegs < 10000 || n/nsegs > 10001 || err != nil {
			t.Fatalf("slice 1: %d rows, %v", n, err)
		}
		if err := r.Run(Run{Slice: 2, Receivers: []motion.Peer{c.self}}); err != nil {
			t.Fatal(err)
		}
		if n, err := c.receive(g, r, 2, 50); n != 50 || err != nil {
			t.Fatalf("slice 2: %d rows, %v", n, err)
		}
		if err := r.Finish(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if got := len(r.Tags(2)); got != 2 {
			t.Errorf("%d tags of slice 2", got)
		}
		if len(r.Tags(3)) != 0 {
			t.Error("slice 3 was not run but has tags")
		}
		exec(t, g, nil, "SELECT 1")
	}
}

func TestSliceErrors(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	atOpen := Slice{Index: 1, SQL: "SELECT nosuch"}
	atRun := Slice{Index: 1, SQL: "SELECT i, 1/(current_setting('port')::int - 15435) FROM generate_series(1, 1000000) i"}
	for i, s := range []Slice{atOpen, atRun} {
		n, err := c.query(testContext(t), g, s, -1)
		want := []string{"42703", "22012"}[i]
		if code(err) != want || !strings.Contains(err.Error(), "slice1 127.0.0.1:1543") {
			t.Errorf("got %d rows, %v", n, err)
		}
		exec(t, g, nil, "SELECT 1")
	}
	for _, bad := range [][]Slice{nil, {{Index: 1, SQL: "SELECT 1", Segments: []int{9}}}, {{Index: 1, SQL: "SELECT 1"}, {Index: 1, SQL: "SELECT 2"}}} {
		if _, err := g.Open(testContext(t), c.command(), bad, nil); err == nil {
			t.Errorf("%v was opened", bad)
		}
	}
	if g.Busy() {
		t.Error("still busy")
	}
}

func TestSliceErrorInTransaction(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	exec(t, g, nil, "SAVEPOINT a")
	if _, err := c.query(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1/(current_setting('port')::int - 15435)"}, -1); code(err) != "22012" {
		t.Fatalf("got %v", err)
	}
	if !g.Failed() {
		t.Error("not failed")
	}
	if why := g.members[2].why; code(why) != "22012" && code(g.members[1].why) != "22012" && code(g.members[0].why) != "22012" {
		t.Errorf("it is said to have failed because of %v", why)
	}
	exec(t, g, nil, "ROLLBACK TO a")
	for _, m := range g.members {
		if m.why != nil {
			t.Errorf("after the savepoint it has failed because of %v", m.why)
		}
	}
	if g.Failed() {
		t.Error("still failed")
	}
	if n, err := c.query(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1"}, -1); n != nsegs || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := g.CommitDistributed(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
}

// TestFail: what a receiver has found out ends the statement, and gives way to
// what executors know better only.
func TestFail(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	exec(t, g, nil, "SELECT 1")
	broken := &motion.Error{Code: motion.CodeInterconnect, Message: "interconnect error: connection closed prematurely", Detail: "from seg1"}
	r, err := g.Open(testContext(t), c.command(), []Slice{{Index: 1, SQL: "SELECT pg_sleep(60)"}}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
	if err != nil {
		t.Fatal(err)
	}
	r.Fail(broken)
	<-r.Failed()
	r.Cancel() // of no consequence any more
	start := time.Now()
	if err := r.Finish(context.Background()); err != error(broken) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	exec(t, g, nil, "SELECT 1")

	for i, step := range []struct{ a, b error }{
		{canceled(context.Background()), broken},
		{newError(codeInFailedTx, "current transaction is aborted", nil), broken},
		{broken, motion.Errorf("%s: the proxy of seg1 is gone", broken.Message)},
		{broken, newError(motion.CodeInterconnect, "Interconnect timeout", nil)},
		{motion.Errorf("Interconnect timeout"), newError("57P01", "terminating connection", nil)},
	} {
		if rank(step.a) >= rank(step.b) {
			t.Errorf("%d: %v counts for no less than %v", i, step.a, step.b)
		}
	}
}

func TestCancelSlices(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	exec(t, g, nil, "SELECT 1")
	// Blocked in PostgreSQL, in the motion (nobody receives), at opening.
	for _, sql := range []string{"SELECT pg_sleep(60)", "SELECT generate_series(1, 10000000)"} {
		ctx, cancel := context.WithCancel(testContext(t))
		r, err := g.Open(ctx, c.command(), []Slice{{Index: 1, SQL: sql}}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, cancel)
		<-r.Failed()
		if code(r.Err()) != codeCanceled {
			t.Errorf("Err: %v", r.Err())
		}
		start := time.Now()
		if err := r.Finish(context.Background()); code(err) != codeCanceled || strings.Contains(err.Error(), "seg") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("took %v", d)
		}
		cancel()
		exec(t, g, nil, "SELECT 1")
	}
	c.table("locked")
	locker := c.gang()
	lockOn(t, locker, 1, "locked")
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	if _, err := g.Open(ctx, c.command(), []Slice{{Index: 1, SQL: "SELECT * FROM locked"}}, nil); code(err) != codeCanceled {
		t.Errorf("got %v", err)
	}
	if err := locker.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	exec(t, g, nil, "SELECT * FROM locked")
}

func TestSegmentLostInSlice(t *testing.T) {
	c := newCluster(t, Params{})
	g := c.gang()
	exec(t, g, nil, "SELECT 1")
	r, err := g.Open(testContext(t), c.command(), []Slice{{Index: 1, SQL: "SELECT pg_sleep(60)"}}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
	if err != nil {
		t.Fatal(err)
	}
	killBackend(t, 1, g.members[1].pid)
	_, rerr := c.receive(g, r, 1, -1)
	if rerr == nil {
		t.Error("the receiver noticed nothing")
	}
	err = r.Finish(testContext(t))
	var e *Error
	if !errors.As(err, &e) || e.Seg != 1 || !e.Lost {
		t.Errorf("got %v", err)
	}
	exec(t, g, nil, "SELECT 1")
}

// TestIdleSegmentLost ends a server that has nothing to do, and others wait for what it
// may have sent: nobody sends it a command that would fail.
func TestIdleSegmentLost(t *testing.T) {
	c := newCluster(t, Params{IdleLook: 20 * time.Millisecond})
	g := c.gang()
	for _, begun := range []bool{false, true} {
		exec(t, g, nil, "SELECT 1")
		if begun {
			if err := g.Begin(testContext(t), ""); err != nil {
				t.Fatal(err)
			}
			exec(t, g, nil, "SELECT 1")
		}
		r, err := g.Open(testContext(t), c.command(), []Slice{{Index: 1, SQL: "SELECT 1"}, {Index: 2, SQL: "SELECT 2"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		killBackend(t, 1, g.members[1].pid)
		select {
		case <-r.Failed():
		case <-time.After(20 * time.Second):
			t.Error("nobody has noticed")
		}
		var e *Error
		if err := r.Finish(testContext(t)); !errors.As(err, &e) || e.Seg != 1 || !e.Lost {
			t.Errorf("got %v", err)
		}
		if begun {
			if !g.Failed() {
				t.Error("its part of the transaction is not missed")
			}
			if err := g.Rollback(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	exec(t, g, nil, "SELECT 1")
}

// TestEndedSegmentLost ends a server that has done its part while another's is under
// way, which may be waiting for it.
func TestEndedSegmentLost(t *testing.T) {
	c := newCluster(t, Params{IdleLook: 20 * time.Millisecond})
	g := c.gang()
	r, err := g.Open(testContext(t), c.command(), []Slice{{Index: 1, SQL: "SELECT 1", Segments: []int{0}}, {Index: 2, SQL: "SELECT pg_sleep(60)", Segments: []int{1}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range []int16{1, 2} {
		if err := r.Run(Run{Slice: slice, Receivers: []motion.Peer{c.self}}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.receive(g, r, 1, -1); n != 1 || err != nil {
		t.Fatalf("%d rows, %v", n, err)
	}
	received, finished := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.receive(g, r, 2, -1)
		received <- err
	}()
	go func() { finished <- r.Finish(testContext(t)) }()
	ended := func() bool {
		r.o.mu.Lock()
		defer r.o.mu.Unlock()
		return r.o.parts[0].done
	}
	for limit := time.Now().Add(20 * time.Second); !ended(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("seg0 does not end")
		}
	}
	killBackend(t, 0, g.members[0].pid)
	select {
	case err = <-finished:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody has noticed")
	}
	var e *Error
	if !errors.As(err, &e) || e.Seg != 0 || !e.Lost {
		t.Errorf("got %v", err)
	}
	if err := <-received; err == nil {
		t.Error("the receiver noticed nothing")
	}
	exec(t, g, nil, "SELECT 1")
}

func TestCopyIn(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("copied")
	g := c.gang()
	if err := g.Begin(testContext(t), ""); err != nil {
		t.Fatal(err)
	}
	in, err := g.CopyIn(testContext(t), nil, "COPY copied FROM STDIN")
	if err != nil {
		t.Fatal(err)
	}
	const rows = 100000
	for i := range rows {
		if err := in.Write(i%nsegs, fmt.Appendf(nil, "%d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := in.Finish(testContext(t))
	if n != rows || err != nil || len(in.Tags()) != nsegs {
		t.Fatalf("%d rows, %v", n, err)
	}
	g.MarkWrite(nil)
	if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.counts("copied")); got != "[33334 33333 33333]" {
		t.Errorf("counts %s", got)
	}
}

func TestCopyInErrors(t *testing.T) {
	c := newCluster(t, Params{})
	c.table("copybad")
	g := c.gang()
	open := func(ctx context.Context, sql string) *CopyIn {
		in, err := g.CopyIn(ctx, nil, sql)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := open(testContext(t), "COPY nosuch FROM STDIN")
	if _, err := in.Finish(testContext(t)); code(err) != "42P01" {
		t.Errorf("no table: %v", err)
	}
	in = open(testContext(t), "COPY copybad FROM STDIN")
	var err error
	for i := 0; err == nil; i++ { // segment 1 fails while the others go on
		line := "1\n"
		if i == 100000 {
			line = "bad\n"
		}
		err = in.Write(i%nsegs, []byte(line))
	}
	if code(err) != "22P02" || !strings.Contains(err.Error(), "(seg1 ") {
		t.Errorf("bad row: Write: %v", err)
	}
	if _, err := in.Finish(testContext(t)); code(err) != "22P02" {
		t.Errorf("bad row: Finish: %v", err)
	}
	in = open(testContext(t), "COPY copybad FROM STDIN")
	_ = in.Write(0, []byte("1\n"))
	in.Abort(errors.New("no more"))

	ctx, cancel := context.WithCancel(testContext(t))
	in = open(ctx, "COPY copybad FROM STDIN")
	_ = in.Write(0, []byte("1\n"))
	time.AfterFunc(20*time.Millisecond, cancel)
	for err = nil; err == nil; {
		err = in.Write(1, []byte("1\n"))
	}
	if _, err := in.Finish(testContext(t)); code(err) != codeCanceled {
		t.Errorf("canceled: %v", err)
	}
	if got := fmt.Sprint(c.counts("copybad")); got != "[0 0 0]" {
		t.Errorf("counts %s", got)
	}
	exec(t, g, nil, "SELECT 1")
}
