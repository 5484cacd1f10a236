package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/mpp/execute"
)

// besides has readers run the inputs among the slices.
func besides(slcs []Slice) []Slice {
	out := slices.Clone(slcs)
	reader := 0
	for i := range out {
		if out[i].Input != nil {
			reader++
			out[i].Reader = reader
		}
	}
	return out
}

// portions is source in portions.
func portions(index int16, columns string) string {
	return fmt.Sprintf("(WITH RECURSIVE gp_portions(name) AS (SELECT 'token%d 0' UNION ALL SELECT n.name FROM gp_portions p, "+
		"LATERAL pg_catalog.gp_motion_recv_0('gp_motion', p.name || ' next') AS n(name text)) "+
		"SELECT r.* FROM gp_portions p, LATERAL pg_catalog.gp_motion_recv('gp_motion', p.name) AS r(%s)) AS s%d", index, columns, index)
}

// endless are rows that do not end before the statement does, made without being
// kept.
const endless = "SELECT i, repeat('x', 200) FROM (SELECT generate_series(1, 1000000000000) i) x"

// sleepy are rows before a long sleep.
const sleepy = "SELECT i, repeat('x', 200) FROM generate_series(1, 10000) i UNION ALL SELECT 0, pg_sleep(600)::text"

// TestReaders has a slice read rows of others while these are still at work, in
// the same segments, also where it is an input itself.
func TestReaders(t *testing.T) {
	onTypes(t, []string{"tcp", "udpifc", "proxy"}, func(t *testing.T, c *icCluster, g *Gang) {
		rowsOf(g, t)
		key := execute.Key{Column: 0, OID: 20}
		start := time.Now()
		rows, err := c.ask(testContext(t), g, -1, besides([]Slice{
			{Index: 1, SQL: "SELECT content(), n > 0 FROM " + portions(2, "n bigint, t text") + " LIMIT 1"}, input(2, endless, key)})...)
		if want := []string{"0|t", "1|t", "2|t"}; err != nil || !slices.Equal(rows, want) {
			t.Fatalf("two slices: %v, %v", rows, err)
		}
		chain := besides([]Slice{
			{Index: 1, SQL: "SELECT content(), n > 0 FROM " + portions(2, "n bigint, t text") + " LIMIT 1"},
			input(2, "SELECT n, t FROM "+portions(3, "n bigint, t text"), key), input(3, endless, key)})
		chain[2].Input.To = 2
		if rows, err = c.ask(testContext(t), g, -1, chain...); err != nil || len(rows) != nsegs {
			t.Fatalf("three slices: %v, %v", rows, err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("took %s", d)
		}
		// The same readers serve again.
		pids := readerPids(g)
		rows, err = c.ask(testContext(t), g, -1, besides([]Slice{
			{Index: 1, SQL: "SELECT count(*) FROM " + portions(2, "n int, t text")}, input(2, rowsOf(g, t), execute.Key{Column: 0, OID: 23})})...)
		if err != nil || len(rows) != nsegs || !slices.Equal(readerPids(g), pids) {
			t.Errorf("%v, %v; readers %v, then %v", rows, err, pids, readerPids(g))
		}
		if len(g.backends) != nsegs {
			t.Errorf("%d backends are looked at for locks between statements", len(g.backends))
		}
	})
}

// TestUnusedReaders opens slices of which some are not run, nor those of readers that
// send to them: that is no failure, and fails no transaction, whoever ends first.
func TestUnusedReaders(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		rowsOf(g, t)
		slcs := besides([]Slice{{Index: 1, SQL: "SELECT content()"},
			{Index: 2, SQL: "SELECT count(*) FROM " + portions(3, "n int, t text")}, input(3, rowsOf(g, t), execute.Key{Column: 0, OID: 23})})
		slcs[2].Input.To = 2
		for _, block := range []bool{false, true} {
			if block {
				if err := g.Begin(testContext(t), ""); err != nil {
					t.Fatal(err)
				}
			}
			for range 20 {
				if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, []string{"0", "1", "2"}) || g.Failed() {
					t.Fatalf("in a block %t: %v, %v; failed %t", block, rows, err, g.Failed())
				}
			}
		}
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

func readerPids(g *Gang) (pids []uint32) {
	for _, m := range g.members {
		for _, r := range m.beside {
			pids = append(pids, r.pid)
		}
	}
	return pids
}

// TestReadersInTransaction has them used until the transaction has written, for its
// inputs see that, and not with a snapshot that they cannot have.
func TestReadersInTransaction(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		exec(t, g, nil, "DROP TABLE IF EXISTS rown; CREATE TABLE rown (n int, t text)")
		slcs := besides([]Slice{{Index: 1, SQL: "SELECT n, count(*) FROM " + portions(2, "n int, t text") + " GROUP BY n"},
			input(2, "SELECT n, t FROM rown", execute.Key{Column: 0, OID: 23})})
		own := slices.Clone(slcs)
		own[1].Reader = 0
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		if !g.ReadersSee() {
			t.Error("readers do not see what there is")
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || len(rows) != 0 || len(readerPids(g)) != nsegs {
			t.Errorf("before anything is written: %v, %v; %d readers", rows, err, len(readerPids(g)))
		}
		if rows, err := c.ask(testContext(t), g, -1, besides([]Slice{
			{Index: 1, SQL: "SELECT content(), n > 0 FROM " + portions(2, "n bigint, t text") + " LIMIT 1"},
			input(2, endless, execute.Key{Column: 0, OID: 20})})...); err != nil || !slices.Equal(rows, []string{"0|t", "1|t", "2|t"}) || g.Failed() {
			t.Errorf("the first of rows without end: %v, %v; failed %t", rows, err, g.Failed())
		}
		other := c.gang(t, g.cfg.InterconnectType)
		exec(t, other, nil, "INSERT INTO rown VALUES (3, 'c')")
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, []string{"3|3"}) {
			t.Errorf("the next statement: %v, %v", rows, err)
		}
		exec(t, other, nil, "TRUNCATE rown")
		exec(t, g, nil, "INSERT INTO rown VALUES (1, 'a'), (2, 'b')")
		g.MarkWrite(nil)
		// What is written its own executors read, for readers if need be.
		want := []string{"1|3", "2|3"}
		rows, err := c.ask(testContext(t), g, -1, own...)
		if err != nil || !slices.Equal(rows, want) {
			t.Errorf("in turn: %v, %v", rows, err)
		}
		reading := slices.Clone(own)
		reading[0].Reader = 1
		if rows, err = c.ask(testContext(t), g, -1, reading...); err != nil || !slices.Equal(rows, want) || !g.ReadersSee() {
			t.Errorf("by a reader: %v, %v", rows, err)
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || len(rows) != 0 {
			t.Errorf("a reader sees what the transaction has written: %v, %v", rows, err)
		}
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if rows, err = c.ask(testContext(t), g, -1, slcs...); err != nil || len(rows) != 0 {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
		if err := g.BeginLocked(testContext(t), "ISOLATION LEVEL REPEATABLE READ", ""); err != nil {
			t.Fatal(err)
		}
		if rows, err = c.ask(testContext(t), g, -1, slcs...); !g.ReadersSee() || g.Shares() || code(err) != "XX000" {
			t.Errorf("with a snapshot that is not shared: %v, %v", rows, err)
		}
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReadersFailInTransaction has a reader not open its slice, which leaves the
// transaction as it was, and fail later, which does not.
func TestReadersFailInTransaction(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		exec(t, g, nil, "DROP TABLE IF EXISTS rheld; CREATE TABLE rheld (n int, t text); INSERT INTO rheld VALUES (1, 'a')")
		held := []Slice{{Index: 1, SQL: "SELECT count(*) FROM " + source(2, "n int, t text")}, input(2, "SELECT n, t FROM rheld")}
		locker := c.gang(t, g.cfg.InterconnectType)
		lockOn(t, locker, 1, "rheld")
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		if rows, err := c.ask(testContext(t), g, -1, besides(held)...); !errors.Is(err, ErrReaders) || g.Failed() {
			t.Errorf("a lock: %v, %v; failed %t", rows, err, g.Failed())
		}
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(testContext(t))
		cancel()
		if rows, err := c.ask(ctx, g, -1, besides(held)...); code(err) != codeCanceled || g.Failed() {
			t.Errorf("cancelled before: %v, %v; failed %t", rows, err, g.Failed())
		}
		if rows, err := c.ask(testContext(t), g, -1, besides(held)...); err != nil || !slices.Equal(rows, []string{"3", "3", "3"}) {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
		broken := besides(held)
		broken[1].SQL = "SELECT n / (n - 1), t FROM rheld"
		if rows, err := c.ask(testContext(t), g, -1, broken...); code(err) != "22012" {
			t.Errorf("a division by zero: %v, %v", rows, err)
		}
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if rows, err := c.ask(testContext(t), g, -1, besides(held)...); err != nil || !slices.Equal(rows, []string{"3", "3", "3"}) {
			t.Errorf("outside: %v, %v", rows, err)
		}
	})
}

// TestReadersLocks gives up a reader that waits for a lock, which may be waited for
// because of the gang's own executor; without readers the statement waits.
func TestReadersLocks(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		exec(t, g, nil, "DROP TABLE IF EXISTS rlocked; CREATE TABLE rlocked (n int, t text); INSERT INTO rlocked VALUES (1, 'a')")
		slcs := []Slice{{Index: 1, SQL: "SELECT count(*) FROM " + source(2, "n int, t text")}, input(2, "SELECT n, t FROM rlocked")}
		locker := c.gang(t, g.cfg.InterconnectType)
		lockOn(t, locker, 1, "rlocked")
		if rows, err := c.ask(testContext(t), g, -1, besides(slcs)...); !errors.Is(err, ErrReaders) || code(err) != "55P03" {
			t.Fatalf("%v, %v", rows, err)
		}
		done := make(chan error, 1)
		go func() {
			rows, err := c.ask(testContext(t), g, -1, slcs...)
			if err == nil && !slices.Equal(rows, []string{"3", "3", "3"}) {
				err = fmt.Errorf("rows %v", rows)
			}
			done <- err
		}()
		for limit := time.Now().Add(10 * time.Second); !g.waitsForLock(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("nobody waits for the lock")
			}
		}
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReadersSettings gives readers the session's parameters as they change, and
// ends them when nobody has needed them for a while.
func TestReadersSettings(t *testing.T) {
	c, _ := newMotionCluster(t, "tcp")
	c.p.ReaderIdle = 300 * time.Millisecond
	set := map[string]string{"application_name": "one", "lock_timeout": "7s"}
	cfg := c.gang(t, "tcp").cfg
	cfg.Settings = func(context.Context) (map[string]string, error) { return set, nil }
	g := c.NewGang(cfg)
	defer g.Close()
	named := func() string {
		t.Helper()
		rows, err := c.ask(testContext(t), g, -1, besides([]Slice{{Index: 1, SQL: "SELECT n, t FROM " + portions(2, "n int, t text"), Segments: []int{0}},
			func() Slice {
				in := input(2, "SELECT 1, current_setting('application_name') || ' ' || current_setting('lock_timeout')")
				in.Segments = []int{0}
				return in
			}()})...)
		if err != nil || len(rows) != 1 {
			t.Fatal(rows, err)
		}
		return rows[0]
	}
	if got := named(); got != "1|one 100ms" {
		t.Errorf("got %s", got)
	}
	pids := readerPids(g)
	if named(); !slices.Equal(readerPids(g), pids) {
		t.Error("a reader was made anew though nothing has changed")
	}
	set = map[string]string{"application_name": "two"}
	if got := named(); got != "1|two 100ms" {
		t.Errorf("got %s", got)
	}
	pid := readerPids(g)[0]
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res := exec(t, g, []int{0}, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid))
		if string(res[0].Rows[0][0]) == "0" {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("an idle reader stays")
		}
	}
	if got := named(); got != "1|two 100ms" || readerPids(g)[0] == pid {
		t.Errorf("after the reader was ended: %s", got)
	}
}

// TestReadersLost ends a reader's backend in the middle, and has none of them to
// begin with.
func TestReadersLost(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		rowsOf(g, t)
		slcs := besides([]Slice{{Index: 1, SQL: "SELECT count(*) FROM " + portions(2, "n int, t text")}, input(2, sleepy)})
		done := make(chan error, 1)
		go func() {
			_, err := c.ask(testContext(t), g, -1, slcs...)
			done <- err
		}()
		other := c.gang(t, "tcp")
		pid := uint32(0)
		for limit := time.Now().Add(10 * time.Second); pid == 0; time.Sleep(5 * time.Millisecond) {
			res := exec(t, other, []int{1}, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
			if len(res[0].Rows) > 0 {
				_, _ = fmt.Sscan(string(res[0].Rows[0][0]), &pid)
			}
			if time.Now().After(limit) {
				t.Fatal("no reader is at work")
			}
		}
		killBackend(t, 1, pid)
		err := <-done
		if s := code(err); s != "57P01" && s != codeConnectionFailure || !strings.Contains(err.Error(), "seg1 ") {
			t.Errorf("got %v, %s", err, detail(err))
		}
		few := besides([]Slice{{Index: 1, SQL: "SELECT 1"}, input(2, rowsOf(g, t))})
		if rows, err := c.ask(testContext(t), g, -1, few...); err != nil || len(rows) != nsegs {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
		exec(t, other, nil, "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
		cfg := g.cfg
		cfg.SessionID, cfg.User = g.cfg.SessionID+1000, "plain"
		p := c.NewGang(cfg)
		defer p.Close()
		exec(t, p, nil, "SELECT 1")
		exec(t, other, nil, "ALTER DATABASE postgres CONNECTION LIMIT 0")
		defer exec(t, other, nil, "ALTER DATABASE postgres CONNECTION LIMIT -1")
		if rows, err := c.ask(testContext(t), p, -1, few...); !errors.Is(err, ErrReaders) || code(err) != "53300" {
			t.Errorf("no connections left for readers: %v, %v", rows, err)
		}
	})
}

// TestReadersRoom leaves the connections of a segment to the sessions that the
// coordinator may have.
func TestReadersRoom(t *testing.T) {
	c, g := newMotionCluster(t, "tcp")
	slcs := besides([]Slice{{Index: 1, SQL: "SELECT 1"}, input(2, rowsOf(g, t))})
	if _, err := c.ask(testContext(t), g, -1, slcs...); err != nil {
		t.Fatal(err)
	}
	seg := g.members[2].seg
	if n := c.rooms[seg].n; n != 120-60-keptConnections {
		t.Errorf("room for %d readers", n)
	}
	c.rooms[seg] = readerRoom{1, time.Now()}
	cfg := g.cfg
	cfg.SessionID++
	other := c.NewGang(cfg)
	defer other.Close()
	for range 2 {
		if _, err := c.ask(testContext(t), g, -1, slcs...); err != nil {
			t.Fatalf("a reader that is there: %v", err)
		}
		if _, err := c.ask(testContext(t), other, -1, slcs...); !errors.Is(err, ErrReaders) || !strings.Contains(err.Error(), "seg2 has no connection to spare") {
			t.Errorf("another: %v", err)
		}
	}
	g.Close()
	if _, err := c.ask(testContext(t), other, -1, slcs...); err != nil {
		t.Errorf("the only one: %v", err)
	}
}
