package dispatch

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDeadlock lets two sessions lock rows of two segments in opposite order.
func TestDeadlock(t *testing.T) {
	c := newCluster(t, Params{DeadlockTimeout: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var bg sync.WaitGroup
	bg.Go(func() { _ = c.Recover(ctx) })
	defer bg.Wait()
	defer cancel()
	c.table("dead")
	a, b := c.gang(), c.gang()
	write(t, a, "dead", 0)
	write(t, b, "dead", 1)
	exec(t, a, []int{0}, "LOCK TABLE dead")
	exec(t, b, []int{1}, "LOCK TABLE dead")
	errs := make(chan error, 2)
	for i, g := range []*Gang{a, b} {
		go func() {
			_, err := g.Exec(testContext(t), []int{1 - i}, "LOCK TABLE dead")
			if err != nil {
				_ = g.Rollback(context.Background())
			}
			errs <- err
		}()
	}
	e1, e2 := <-errs, <-errs
	if e1 == nil {
		e1, e2 = e2, e1
	}
	if code(e1) != "40P01" || e2 != nil {
		t.Fatalf("got %v and %v", e1, e2)
	}
	for _, w := range []string{"Session 2 waits on seg1; blocked by session 3.", "Session 3 waits on seg0; blocked by session 2."} {
		if d := e1.(*Error).Detail; !strings.Contains(d, w) {
			t.Errorf("detail %q lacks %q", d, w)
		}
	}
}

// TestDeadlockThroughCoordinator has one of the waits on the coordinator.
func TestDeadlockThroughCoordinator(t *testing.T) {
	c := newCluster(t, Params{DeadlockTimeout: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var bg sync.WaitGroup
	bg.Go(func() { _ = c.Recover(ctx) })
	defer bg.Wait()
	defer cancel()
	c.table("deadc")
	a, b := c.gang(), c.gang()
	xa, xb := newCoordTxn(t), newCoordTxn(t)
	a.cfg.CoordinatorPID, b.cfg.CoordinatorPID = xa.conn.PID(), xb.conn.PID()
	write(t, a, "deadc", 0)
	exec(t, a, []int{0}, "LOCK TABLE deadc")
	write(t, b, "deadc", 1)
	if _, err := query(testContext(t), xb.conn, "SELECT pg_advisory_xact_lock(1)"); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := query(testContext(t), xa.conn, "SELECT pg_advisory_xact_lock(1)")
		waited <- err
	}()
	if _, err := b.Exec(testContext(t), []int{0}, "LOCK TABLE deadc"); code(err) != "40P01" {
		t.Errorf("got %v", err)
	}
	if _, err := query(testContext(t), xb.conn, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	_ = a.Rollback(testContext(t))
	_ = b.Rollback(testContext(t))
}

func TestCycle(t *testing.T) {
	gangs := make([]*Gang, 5)
	for i := range gangs {
		gangs[i] = &Gang{cfg: GangConfig{SessionID: int32(i)}}
	}
	for edges, want := range map[string]string{
		"":                    "",
		"0-1 1-2 0-2":         "",
		"0-1 1-0":             "01",
		"3-0 0-1 1-2 2-1":     "12",
		"0-1 0-2 2-3 3-0":     "023",
		"4-3 3-2 2-1 1-0":     "",
		"0-1 1-2 2-3 3-4 4-0": "01234",
	} {
		var ws []wait
		for _, e := range strings.Fields(edges) {
			ws = append(ws, wait{from: gangs[e[0]-'0'], to: gangs[e[2]-'0']})
		}
		seen := make(map[int32]bool)
		for _, w := range cycle(ws) {
			seen[w.from.cfg.SessionID] = true
		}
		got := ""
		for i := range int32(5) {
			if seen[i] {
				got += fmt.Sprint(i)
			}
		}
		if got != want {
			t.Errorf("%q: cycle %q, want %q", edges, got, want)
		}
	}
}
