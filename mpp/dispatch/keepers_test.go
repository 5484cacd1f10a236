package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/mpp/execute"
)

// keptTable makes a table of one row a segment, and slices that have its rows counted,
// read by readers and not.
func keptTable(t *testing.T, g *Gang) (besideSlices, own []Slice) {
	t.Helper()
	exec(t, g, nil, "DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int, t text); INSERT INTO kept VALUES (1, 'a')")
	own = []Slice{{Index: 1, SQL: "SELECT n, count(*) FROM " + portions(2, "n int, t text") + " GROUP BY n"},
		input(2, "SELECT n, t FROM kept", execute.Key{Column: 0, OID: 23})}
	return besides(own), own
}

// keeperPids are the backends of the gang's keepers that are in a transaction.
func keeperPids(g *Gang) (pids []uint32) {
	for _, m := range g.members {
		if m.keeper != nil && m.keeper.begun {
			pids = append(pids, m.keeper.pid)
		}
	}
	return pids
}

// TestKeepers has readers see what a transaction with one snapshot sees, which can be
// prepared nevertheless, and has nobody keep the locks of what they have read.
func TestKeepers(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		slcs, own := keptTable(t, g)
		begin := func(modes string) {
			t.Helper()
			g.ExpectReaders()
			if err := g.Begin(testContext(t), modes); err != nil {
				t.Fatal(err)
			}
		}
		ask := func(slcs []Slice, want ...string) {
			t.Helper()
			if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, want) {
				t.Errorf("%v, %v; want %v", rows, err, want)
			}
			for _, m := range g.members {
				for _, r := range m.beside {
					if r.begun {
						t.Error("a reader is still in its transaction")
					}
				}
			}
		}
		other := c.gang(t, g.cfg.InterconnectType)
		for _, modes := range []string{"ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL REPEATABLE READ READ ONLY"} {
			exec(t, other, nil, "TRUNCATE kept; INSERT INTO kept VALUES (1, 'a')")
			begin(modes)
			keepers := nsegs
			if strings.HasSuffix(modes, "READ ONLY") {
				keepers = 0
			}
			if !g.ReadersSee(false) || len(keeperPids(g)) != keepers {
				t.Fatalf("%s: readers see %t, %d keepers", modes, g.ReadersSee(false), len(keeperPids(g)))
			}
			if see := g.ReadersSee(true); see != (keepers > 0) {
				t.Errorf("%s: readers see %t below a savepoint", modes, see)
			}
			exec(t, other, nil, "INSERT INTO kept VALUES (2, 'b')")
			ask(slcs, "1|3")
			ask(own, "1|3")
			if err := g.Rollback(testContext(t)); err != nil || len(keeperPids(g)) != 0 {
				t.Errorf("%v, %d keepers afterwards", err, len(keeperPids(g)))
			}
			ask(slcs, "1|3", "2|3")
			begin(modes)
			ask(slcs, "1|3", "2|3")
			exec(t, other, nil, "BEGIN; LOCK TABLE kept NOWAIT; COMMIT")
			if err := g.CommitDistributed(testContext(t), nil); err != nil || len(keeperPids(g)) != 0 {
				t.Errorf("%v, %d keepers afterwards", err, len(keeperPids(g)))
			}
		}

		// It writes, in two phases.
		begin("ISOLATION LEVEL REPEATABLE READ")
		ask(slcs, "1|3", "2|3")
		if g.MarkWrite(nil); g.ReadersSee(false) {
			t.Error("readers see what the transaction has written")
		}
		exec(t, g, nil, "INSERT INTO kept VALUES (3, 'c')")
		ask(own, "1|3", "2|3", "3|3")
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil || len(keeperPids(g)) != 0 {
			t.Errorf("%v, %d keepers afterwards", err, len(keeperPids(g)))
		}
		ask(slcs, "1|3", "2|3", "3|3")

		// What it has lent does not stop it from being committed where it has written.
		exec(t, g, nil, "CREATE TEMP TABLE own (i int)")
		begin("ISOLATION LEVEL REPEATABLE READ READ ONLY")
		ask(slcs, "1|3", "2|3", "3|3")
		exec(t, g, nil, "INSERT INTO own VALUES (1)")
		g.MarkWrite(nil)
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Error(err)
		}
		exec(t, g, nil, "DROP TABLE own")

		// Nobody keeps a snapshot for nobody again and again, and none is shared of
		// SERIALIZABLE.
		for i, keepers := range []int{nsegs, 0, 0} {
			if err := g.Begin(testContext(t), "ISOLATION LEVEL REPEATABLE READ"); err != nil || len(keeperPids(g)) != keepers || g.ReadersSee(false) != (keepers > 0) {
				t.Errorf("block %d: %v, %d keepers, want %d", i, err, len(keeperPids(g)), keepers)
			}
			ask(own, "1|3", "2|3", "3|3")
			if err := g.Rollback(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		begin("ISOLATION LEVEL SERIALIZABLE")
		if g.ReadersSee(false) || len(keeperPids(g)) != 0 {
			t.Error("a transaction of SERIALIZABLE has keepers")
		}
		ask(own, "1|3", "2|3", "3|3")
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestKeeperLost ends a keeper in the transaction, which goes on without readers, and
// between two.
func TestKeeperLost(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		slcs, own := keptTable(t, g)
		other := c.gang(t, g.cfg.InterconnectType)
		for _, lost := range []bool{true, false} {
			exec(t, other, nil, "TRUNCATE kept; INSERT INTO kept VALUES (1, 'a')")
			g.ExpectReaders()
			if err := g.Begin(testContext(t), "ISOLATION LEVEL REPEATABLE READ"); err != nil {
				t.Fatal(err)
			}
			exec(t, other, nil, "INSERT INTO kept VALUES (2, 'b')")
			kill := func(m *member) {
				exec(t, other, []int{int(m.seg.Content)}, fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", m.pid))
			}
			if lost {
				kill(g.members[1].keeper)
				if rows, err := c.ask(testContext(t), g, -1, slcs...); !errors.Is(err, ErrReaders) || g.Failed() {
					t.Errorf("without a keeper: %v, %v; failed %t", rows, err, g.Failed())
				}
			}
			if rows, err := c.ask(testContext(t), g, -1, own...); err != nil || !slices.Equal(rows, []string{"1|3"}) {
				t.Errorf("without readers: %v, %v", rows, err)
			}
			g.MarkWrite(nil)
			exec(t, g, nil, "INSERT INTO kept VALUES (3, 'c')")
			if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
				t.Error(err)
			}
			kill(g.members[2].keeper)
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, []string{"1|3", "2|3", "3|3"}) {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
	})
}

// TestNoKeepers begins transactions where no segment has a connection to spare for a
// keeper: they do without readers.
func TestNoKeepers(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		_, own := keptTable(t, g)
		g.d.mu.Lock()
		for _, s := range g.d.cfg.Segments() {
			g.d.rooms[s] = readerRoom{0, time.Now()}
		}
		g.d.mu.Unlock()
		g.ExpectReaders()
		const modes = "ISOLATION LEVEL REPEATABLE READ"
		for _, begin := range []func() error{
			func() error { return g.Begin(testContext(t), modes) },
			func() error { return g.BeginShared(testContext(t), modes, "LOCK TABLE kept IN SHARE MODE") },
		} {
			if err := begin(); err != nil || len(keeperPids(g)) != 0 || g.ReadersSee(false) || !g.Fixed() {
				t.Fatalf("%v, %d keepers, readers see %t, fixed %t", err, len(keeperPids(g)), g.ReadersSee(false), g.Fixed())
			}
			if rows, err := c.ask(testContext(t), g, -1, own...); err != nil || !slices.Equal(rows, []string{"1|3"}) {
				t.Errorf("%v, %v", rows, err)
			}
			if err := g.CommitDistributed(testContext(t), nil); err != nil {
				t.Error(err)
			}
		}
	})
}
