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

const (
	repeatable = "ISOLATION LEVEL REPEATABLE READ"
	onlyReads  = repeatable + " READ ONLY"
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

// kept is a test's gang, with slices of keptTable, and another gang.
type kept struct {
	*testing.T
	c         *icCluster
	g, other  *Gang
	slcs, own []Slice
}

// onKept runs a test of transactions that are shared with readers.
func onKept(t *testing.T, test func(k *kept)) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		k := &kept{T: t, c: c, g: g, other: c.gang(t, g.cfg.InterconnectType)}
		k.slcs, k.own = keptTable(t, g)
		test(k)
	})
}

// must fails the test on an error of what is done next.
func (k *kept) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// begin begins a transaction in which the table has a row a segment, and then one more
// that it must not see.
func (k *kept) begin(modes string, savepoints ...string) {
	k.Helper()
	exec(k.T, k.other, nil, "DELETE FROM kept; INSERT INTO kept VALUES (1, 'a')")
	k.must(k.g.Begin(testContext(k.T), modes))
	for _, name := range savepoints {
		k.must(k.g.Savepoint(testContext(k.T), name))
	}
	exec(k.T, k.other, nil, "INSERT INTO kept VALUES (2, 'b')")
	if !k.g.ReadersSee() || len(keeperPids(k.g)) > 0 {
		k.Fatalf("%s: readers see %t, %d keepers to begin with", modes, k.g.ReadersSee(), len(keeperPids(k.g)))
	}
}

// share shares the transaction, which has that many keepers then.
func (k *kept) share(keepers int) {
	k.Helper()
	k.must(k.g.Share(testContext(k.T)))
	if !k.g.Shares() || len(keeperPids(k.g)) != keepers {
		k.Fatalf("shared %t, %d keepers, want %d", k.g.Shares(), len(keeperPids(k.g)), keepers)
	}
	if n := len(k.g.backends); n != nsegs+keepers {
		k.Errorf("%d backends are looked at for locks", n)
	}
}

// notShared wants Share to be ErrReaders, and to leave the transaction as it was.
func (k *kept) notShared() {
	k.Helper()
	if err := k.g.Share(testContext(k.T)); !errors.Is(err, ErrReaders) || k.g.Shares() || k.g.Failed() || len(keeperPids(k.g)) > 0 {
		k.Fatalf("%v; shared %t, failed %t, %d keepers", err, k.g.Shares(), k.g.Failed(), len(keeperPids(k.g)))
	}
	k.ask(k.own, "1|3")
}

func (k *kept) ask(slcs []Slice, want ...string) {
	k.Helper()
	if rows, err := k.c.ask(testContext(k.T), k.g, -1, slcs...); err != nil || !slices.Equal(rows, want) {
		k.Errorf("%v, %v; want %v", rows, err, want)
	}
	for _, m := range k.g.members {
		for _, r := range m.beside {
			if r.begun {
				k.Error("a reader is still in its transaction")
			}
		}
	}
}

// sees asks readers and the gang's own executors, who see the transaction's snapshot.
func (k *kept) sees() {
	k.Helper()
	k.ask(k.slcs, "1|3")
	k.ask(k.own, "1|3")
}

func (k *kept) commit(coord CoordinatorTxn) {
	k.Helper()
	if err := k.g.CommitDistributed(testContext(k.T), coord); err != nil || len(keeperPids(k.g)) > 0 || len(k.g.backends) != nsegs {
		k.Errorf("%v, %d keepers afterwards, %d backends are looked at for locks", err, len(keeperPids(k.g)), len(k.g.backends))
	}
}

func (k *kept) rollback() {
	k.Helper()
	if err := k.g.Rollback(testContext(k.T)); err != nil || len(keeperPids(k.g)) > 0 {
		k.Errorf("%v, %d keepers afterwards", err, len(keeperPids(k.g)))
	}
}

// write has the transaction write in all segments.
func (k *kept) write() {
	k.Helper()
	if k.g.MarkWrite(nil); k.g.ReadersSee() != k.g.Shares() {
		k.Errorf("readers see %t, and have the snapshots of before: %t", k.g.ReadersSee(), k.g.Shares())
	}
	exec(k.T, k.g, nil, "INSERT INTO kept VALUES (3, 'c')")
}

// kill ends a backend.
func (k *kept) kill(m *member) {
	k.Helper()
	exec(k.T, k.other, []int{int(m.seg.Content)}, fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", m.pid))
}

// TestKeepers has readers see what a transaction with one snapshot sees, which can be
// prepared nevertheless, and has nobody keep the locks of what they have read.
func TestKeepers(t *testing.T) {
	onKept(t, func(k *kept) {
		for _, modes := range []string{repeatable, onlyReads} {
			keepers := nsegs
			if modes == onlyReads {
				keepers = 0
			}
			k.begin(modes)
			k.share(keepers)
			pids := keeperPids(k.g)
			k.ask(k.slcs, "1|3")
			exec(k.T, k.other, nil, "BEGIN; LOCK TABLE kept NOWAIT; COMMIT")
			k.share(keepers)
			k.sees()
			k.rollback()
			k.ask(k.slcs, "1|3", "2|3")
			k.begin(modes)
			k.share(keepers)
			if !slices.Equal(keeperPids(k.g), pids) {
				k.Errorf("other keepers than before: %v, %v", keeperPids(k.g), pids)
			}
			k.sees()
			k.commit(nil)
		}

		// It writes, in two phases.
		k.begin(repeatable)
		k.share(nsegs)
		k.sees()
		k.write()
		k.ask(k.own, "1|3", "3|3")
		k.commit(newCoordTxn(k.T))
		k.ask(k.slcs, "1|3", "2|3", "3|3")
		k.g.MarkLocked() // means nothing now

		// What it has lent does not stop it from being committed where it has written.
		exec(k.T, k.g, nil, "CREATE TEMP TABLE own (i int) ON COMMIT DELETE ROWS")
		k.begin(onlyReads)
		k.share(0)
		exec(k.T, k.g, nil, "INSERT INTO own VALUES (1)")
		k.g.MarkWrite(nil)
		k.commit(newCoordTxn(k.T))

		// Temporary tables are there before and after, and can be read.
		k.begin(repeatable)
		exec(k.T, k.g, nil, "SELECT * FROM own")
		k.share(nsegs)
		exec(k.T, k.g, nil, "SELECT * FROM own")
		k.sees()
		k.rollback()
		exec(k.T, k.g, nil, "DROP TABLE own")

		// None is shared of SERIALIZABLE.
		k.must(k.g.Begin(testContext(k.T), "ISOLATION LEVEL SERIALIZABLE"))
		if err := k.g.Share(testContext(k.T)); err != nil || k.g.ReadersSee() || len(keeperPids(k.g)) > 0 {
			k.Errorf("a transaction of SERIALIZABLE: %v; readers see %t, %d keepers", err, k.g.ReadersSee(), len(keeperPids(k.g)))
		}
		k.rollback()
	})
}

// TestSharedSavepoints shares transactions that have savepoints, which are there
// afterwards.
func TestSharedSavepoints(t *testing.T) {
	onKept(t, func(k *kept) {
		ctx := testContext(k.T)
		for _, modes := range []string{repeatable, onlyReads} {
			keepers := nsegs
			if modes == onlyReads {
				keepers = 0
			}
			k.begin(modes, "a", "b", "a", "c", "a")
			k.must(k.g.RollbackTo(ctx, "c"))
			k.must(k.g.Savepoint(ctx, "d"))
			k.must(k.g.Release(ctx, "c"))
			k.share(keepers)
			k.sees()
			k.must(k.g.Savepoint(ctx, "e"))
			k.sees()
			if _, err := k.g.Exec(ctx, []int{1}, "SELECT 1 / 0"); code(err) != "22012" || !k.g.Failed() {
				k.Errorf("%v; failed %t", err, k.g.Failed())
			}
			for _, name := range []string{"e", "a", "b", "a"} {
				k.must(k.g.RollbackTo(ctx, name))
				k.sees()
				k.must(k.g.Release(ctx, name))
			}
			if err := k.g.Release(ctx, "a"); code(err) != "3B001" {
				k.Errorf("more savepoints than before: %v", err)
			}
			k.rollback()
		}
		k.begin(repeatable, "a")
		k.share(nsegs)
		k.write()
		k.must(k.g.RollbackTo(ctx, "a"))
		k.ask(k.own, "1|3")
		k.write()
		k.commit(newCoordTxn(k.T))
		k.ask(k.slcs, "1|3", "2|3", "3|3")
	})
}

// TestSharedLocks: a transaction that is shared keeps the locks it has, and no others are
// in its way.
func TestSharedLocks(t *testing.T) {
	onKept(t, func(k *kept) {
		exec(k.T, k.g, nil, `DROP SCHEMA IF EXISTS "kept Odd" CASCADE; CREATE SCHEMA "kept Odd"; CREATE TABLE "kept Odd"."T" (n int PRIMARY KEY) PARTITION BY RANGE (n);
			CREATE TABLE "kept Odd".part PARTITION OF "kept Odd"."T" FOR VALUES FROM (0) TO (9)`)
		locked := func(table, mode string) {
			k.Helper()
			for i := range nsegs {
				if _, err := k.other.Exec(testContext(k.T), []int{i}, "BEGIN; LOCK TABLE "+table+" IN "+mode+" MODE NOWAIT"); code(err) != codeLockNotAvailable {
					k.Errorf("seg%d: a lock of %s: %v", i, table, err)
				}
				exec(k.T, k.other, []int{i}, "ROLLBACK")
			}
		}
		k.begin(repeatable)
		exec(k.T, k.g, nil, `SELECT * FROM kept; SELECT * FROM "kept Odd"."T"; SELECT * FROM pg_class`)
		k.share(nsegs)
		for _, table := range []string{"kept", `"kept Odd"."T"`, `"kept Odd".part`} {
			locked(table, "ACCESS EXCLUSIVE")
		}
		k.sees()
		// Nor is it in its own way.
		k.g.MarkWrite(nil)
		exec(k.T, k.g, nil, "SET LOCAL lock_timeout = 1000; LOCK TABLE kept NOWAIT; ALTER TABLE kept ADD x int; TRUNCATE kept")
		k.commit(newCoordTxn(k.T))
		exec(k.T, k.other, nil, "BEGIN; LOCK TABLE kept NOWAIT; COMMIT; ALTER TABLE kept DROP x")

		// With the locks that it has begun with.
		exec(k.T, k.other, nil, "INSERT INTO kept VALUES (1, 'a')")
		k.must(k.g.BeginLocked(testContext(k.T), repeatable, "LOCK TABLE kept IN ROW EXCLUSIVE MODE"))
		exec(k.T, k.other, nil, "INSERT INTO kept VALUES (2, 'b')")
		k.share(nsegs)
		locked("kept", "SHARE")
		k.sees()
		k.write()
		k.commit(newCoordTxn(k.T))

		// Not with what nobody else can have beside it, nor when it has written or locked
		// rows, or has locked what is no relation, even if nobody has said so.
		for _, sql := range []string{"LOCK TABLE kept IN SHARE ROW EXCLUSIVE MODE", "UPDATE kept SET n = 1",
			"SELECT * FROM kept FOR UPDATE", "SELECT pg_advisory_xact_lock(4711)"} {
			k.begin(repeatable, "s")
			exec(k.T, k.g, []int{1}, sql)
			k.notShared()
			k.must(k.g.RollbackTo(testContext(k.T), "s"))
			k.write()
			k.commit(newCoordTxn(k.T))
		}
		k.begin(repeatable)
		k.g.MarkLocked()
		if err := k.g.Share(testContext(k.T)); err != nil || k.g.ReadersSee() {
			k.Errorf("a transaction that is said to have locks: %v; readers see %t", err, k.g.ReadersSee())
		}
		k.rollback()
		k.begin(onlyReads)
		k.g.MarkLocked()
		k.share(0)
		k.rollback()

		// Not when somebody waits for one; who comes too late for that ends it.
		third := k.c.gang(k.T, k.g.cfg.InterconnectType)
		wait := func() (done chan error) {
			done = make(chan error, 1)
			waits := fmt.Sprintf("SELECT FROM pg_locks WHERE pid = %d AND NOT granted", k.other.members[1].pid)
			go func() {
				_, err := k.other.Exec(context.Background(), []int{1}, "BEGIN; LOCK TABLE kept; COMMIT")
				done <- err
			}()
			for limit := time.Now().Add(10 * time.Second); len(exec(k.T, third, []int{1}, waits)[0].Rows) == 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(limit) {
					k.Fatal("nobody waits for the lock")
				}
			}
			return done
		}
		k.begin(repeatable)
		exec(k.T, k.g, nil, "SELECT * FROM kept")
		done := wait()
		k.notShared()
		k.write()
		k.commit(newCoordTxn(k.T))
		k.must(<-done)
		k.begin(repeatable)
		exec(k.T, k.g, nil, "SELECT * FROM kept")
		locks, ks := k.tried()
		done = wait()
		ids, err := k.g.export(testContext(k.T))
		k.must(err)
		if _, err = k.g.keep(testContext(k.T), ks, ids, locks); !errors.Is(err, ErrReaders) || k.g.Failed() || len(keeperPids(k.g)) > 0 {
			k.Errorf("%v; failed %t, %d keepers", err, k.g.Failed(), len(keeperPids(k.g)))
		}
		k.ask(k.own, "1|3")
		k.commit(nil)
		k.must(<-done)
		k.begin(repeatable)
		exec(k.T, k.g, nil, "SELECT * FROM kept")
		locks, ks = k.tried()
		ids, err = k.g.export(testContext(k.T))
		k.must(err)
		ids, err = k.g.keep(testContext(k.T), ks, ids, locks)
		k.must(err)
		done = wait()
		if err = k.g.beginAnew(testContext(k.T), ids, locks); code(err) != "40001" || !strings.Contains(detail(err), "kept") || !k.g.Failed() {
			k.Errorf("%v, %s; failed %t", err, detail(err), k.g.Failed())
		}
		if err := k.g.CommitDistributed(testContext(k.T), nil); code(err) != "40001" || k.g.Failed() || len(keeperPids(k.g)) > 0 {
			k.Errorf("%v; failed %t, %d keepers", err, k.g.Failed(), len(keeperPids(k.g)))
		}
		k.must(<-done)
		exec(k.T, k.other, nil, `DROP SCHEMA "kept Odd" CASCADE`)
	})
}

// tried is as far as Share comes before it changes anything.
func (k *kept) tried() (locks []string, ks []*member) {
	k.Helper()
	locks, err := k.g.held(testContext(k.T))
	k.must(err)
	ks, err = k.g.keepers(testContext(k.T))
	k.must(err)
	k.must(k.g.tryLocks(testContext(k.T), ks, locks))
	return locks, ks
}

// TestSharedState has own executors know after a transaction was shared what they were
// told in it before, and forget it with the savepoint or the transaction; what was set in
// it stays.
func TestSharedState(t *testing.T) {
	onKept(t, func(k *kept) {
		const tell, forget = "SELECT set_config('kept.told', 'yes', false)", "SELECT set_config('kept.told', '', false)"
		has := func(name, want string) {
			k.Helper()
			for _, r := range exec(k.T, k.g, nil, "SELECT coalesce(current_setting('"+name+"', true), '')") {
				if got := string(r.Rows[0][0]); got != want {
					k.Errorf("seg%d: %s is %q, want %q", r.Seg, name, got, want)
				}
			}
		}
		exec(k.T, k.g, nil, "DO $$ BEGIN CREATE ROLE keptreader; EXCEPTION WHEN duplicate_object THEN END $$; GRANT SELECT ON kept TO keptreader")
		for _, modes := range []string{repeatable, onlyReads} {
			keepers := nsegs
			if modes == onlyReads {
				keepers = 0
			}
			for _, savepoints := range [][]string{nil, {"s"}} {
				k.begin(modes, savepoints...)
				exec(k.T, k.g, nil, "SET ROLE keptreader; SELECT * FROM kept")
				k.g.TellReaders(tell, forget)
				exec(k.T, k.g, nil, tell)
				k.share(keepers)
				has("role", "keptreader")
				has("kept.told", "yes")
				if rows := exec(k.T, k.g, []int{1}, "SELECT * FROM kept")[0].Rows; len(rows) != 1 {
					k.Errorf("%s: %d rows", modes, len(rows))
				}
				if savepoints != nil {
					k.must(k.g.RollbackTo(testContext(k.T), "s"))
				} else {
					k.rollback()
				}
				has("kept.told", "")
				k.rollback()
				k.g.TellReaders("", "")
				exec(k.T, k.g, nil, "RESET ROLE")
			}
		}
	})
}

// TestKeeperLost ends keepers in the transaction, which goes on without readers, in the
// middle of its being shared, so that it cannot be prepared, and between two.
func TestKeeperLost(t *testing.T) {
	onKept(t, func(k *kept) {
		for _, lost := range []bool{true, false} {
			k.begin(repeatable)
			k.share(nsegs)
			if lost {
				k.kill(k.g.members[1].keeper)
				if rows, err := k.c.ask(testContext(k.T), k.g, -1, k.slcs...); !errors.Is(err, ErrReaders) || k.g.Failed() {
					k.Errorf("without a keeper: %v, %v; failed %t", rows, err, k.g.Failed())
				}
			}
			k.ask(k.own, "1|3")
			k.write()
			k.commit(newCoordTxn(k.T))
			k.kill(k.g.members[2].keeper)
		}
		k.ask(k.slcs, "1|3", "2|3", "3|3")

		lose := func() {
			k.Helper()
			k.begin(repeatable, "s")
			locks, ks := k.tried()
			k.kill(ks[1])
			ids, err := k.g.export(testContext(k.T))
			k.must(err)
			k.g.tx.exported = true
			if _, err := k.g.keep(testContext(k.T), ks, ids, locks); !errors.Is(err, ErrReaders) || k.g.Failed() || len(keeperPids(k.g)) > 0 {
				k.Errorf("%v; failed %t, %d keepers", err, k.g.Failed(), len(keeperPids(k.g)))
			}
			k.must(k.g.RollbackTo(testContext(k.T), "s"))
			k.ask(k.own, "1|3")
		}
		lose()
		k.write()
		if err := k.g.CommitDistributed(testContext(k.T), newCoordTxn(k.T)); code(err) != "40001" || k.g.InTransaction() {
			k.Errorf("%v; in a transaction %t", err, k.g.InTransaction())
		}
		k.ask(k.slcs, "1|3", "2|3")
		lose()
		k.g.MarkWrite([]int{1})
		exec(k.T, k.g, []int{1}, "INSERT INTO kept VALUES (3, 'c')")
		k.commit(newCoordTxn(k.T))
		k.ask(k.slcs, "1|3", "2|3", "3|1")
		lose()
		k.share(nsegs)
		k.sees()
		k.write()
		k.commit(newCoordTxn(k.T))

		// One that is lost last leaves nobody in the way.
		k.begin(repeatable)
		exec(k.T, k.g, nil, "SELECT * FROM kept")
		locks, ks := k.tried()
		ids, err := k.g.export(testContext(k.T))
		k.must(err)
		ids, err = k.g.keep(testContext(k.T), ks, ids, locks)
		k.must(err)
		k.must(k.g.beginAnew(testContext(k.T), ids, locks))
		k.kill(ks[1])
		if err := k.g.unlock(testContext(k.T), ks, locks); !errors.Is(err, ErrReaders) || k.g.Failed() || k.g.Shares() || len(keeperPids(k.g)) > 0 {
			k.Errorf("%v; failed %t, shared %t, %d keepers", err, k.g.Failed(), k.g.Shares(), len(keeperPids(k.g)))
		}
		k.ask(k.own, "1|3")
		k.g.MarkWrite(nil)
		exec(k.T, k.g, nil, "LOCK TABLE kept NOWAIT; INSERT INTO kept VALUES (3, 'c')")
		k.commit(newCoordTxn(k.T))

		// The transaction is lost with one of its own executors.
		k.begin(repeatable)
		k.kill(k.g.members[1])
		if err := k.g.Share(testContext(k.T)); err == nil || errors.Is(err, ErrReaders) || !k.g.Failed() {
			k.Errorf("without an executor: %v; failed %t", err, k.g.Failed())
		}
		k.rollback()
		k.begin(onlyReads, "s")
		k.kill(k.g.members[1])
		for range 2 {
			if err := k.g.Share(testContext(k.T)); err == nil || errors.Is(err, ErrReaders) || !k.g.Failed() {
				k.Errorf("without an executor: %v; failed %t", err, k.g.Failed())
			}
		}
		k.rollback()
	})
}

// TestShareCancelled cancels transactions' being shared at any time: they are as they
// were, or shared, and have their savepoints.
func TestShareCancelled(t *testing.T) {
	onKept(t, func(k *kept) {
		shared, cancelled := 0, 0
		for i := range 60 {
			k.begin(repeatable, "s", "s")
			exec(k.T, k.g, nil, "SELECT * FROM kept")
			ctx, cancel := context.WithTimeout(testContext(k.T), time.Duration(i)*100*time.Microsecond)
			err := k.g.Share(ctx)
			if cancel(); err == nil {
				shared++
			} else if cancelled++; code(err) != codeCanceled || errors.Is(err, ErrReaders) || k.g.Shares() {
				k.Errorf("%v; shared %t", err, k.g.Shares())
			}
			k.must(k.g.RollbackTo(testContext(k.T), "s"))
			k.must(k.g.Release(testContext(k.T), "s"))
			k.must(k.g.RollbackTo(testContext(k.T), "s"))
			k.share(nsegs)
			k.sees()
			k.write()
			k.commit(newCoordTxn(k.T))
		}
		if k.Logf("%d shared, %d cancelled", shared, cancelled); cancelled == 0 {
			k.Error("nothing was cancelled")
		}
	})
}

// TestNoKeepers shares transactions where no segment has a connection to spare for a
// keeper, or none can be made: they do without readers.
func TestNoKeepers(t *testing.T) {
	onKept(t, func(k *kept) {
		room := func(n int) {
			k.g.d.mu.Lock()
			for _, s := range k.g.d.cfg.Segments() {
				k.g.d.rooms[s] = readerRoom{n, time.Now()}
			}
			k.g.d.mu.Unlock()
		}
		room(0)
		k.begin(repeatable, "s")
		k.notShared()
		k.begunWith(onlyReads, 0)
		room(100)
		k.begin(repeatable, "s")
		k.share(nsegs)
		k.sees()
		k.write()
		k.commit(newCoordTxn(k.T))
	})
}

// begunWith ends the transaction and shares another one.
func (k *kept) begunWith(modes string, keepers int) {
	k.Helper()
	k.must(k.g.RollbackTo(testContext(k.T), "s"))
	k.write()
	k.commit(newCoordTxn(k.T))
	k.begin(modes)
	k.share(keepers)
	k.ask(k.own, "1|3")
	k.rollback()
}
