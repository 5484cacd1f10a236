package clustertest

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestRowLocks has a transaction lock rows in many ways, and others wait for it, or not.
func TestRowLocks(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	setup := c.Connect(t, db)
	testkit.Exec(t, setup, "create table a (id int, n int) distributed by (id); create table b (id int, n int) distributed by (id);"+
		"create table r (id int, n int) distributed replicated; create view va as select id, n from a where n < 1000;"+
		"insert into a select g, g from generate_series(1, 20) g; insert into b select g, g from generate_series(1, 20) g;"+
		"insert into r values (1, 1), (2, 2);"+
		"create function locks(i int) returns int language plpgsql as $$ declare x int; begin select n into x from a where id = i for update; return x; end $$")
	const (
		change1 = "update a set n = n where id = 1"
		change2 = "update a set n = n where id = 2"
		remove1 = "delete from a where id = 1"
		share1  = "select n from a where id = 1 for share"
		skip1   = "select count(*) from (select id from a where id = 1 for update skip locked) x"
		look    = "select count(*), sum(n) from a"
		changeB = "update b set n = n where id = 1"
		changeR = "update r set n = n where id = 2"
	)
	for i, test := range []struct {
		name, hold string
		waits      []string
		free       []string
	}{
		{"rows", "select n from a where id = 1 for update", []string{change1, remove1, share1}, []string{change2, changeB, look}},
		{"no key", "select n from a where id = 1 for no key update", []string{change1, share1}, []string{"select n from a where id = 1 for key share", change2}},
		{"shared", "select n from a where id = 1 for share", []string{change1, "select n from a where id = 1 for update"}, []string{share1, change2}},
		{"key shared", "select n from a where id = 1 for key share", []string{remove1}, []string{change1, share1}},
		{"on all segments", "select n from a where n < 2 or n > 10 order by n limit 30 for update of a", []string{change1}, []string{change2, look}},
		{"in order", "select n from a x where n = 1 order by id desc, n limit 1 for update of x", []string{change1}, []string{change2}},
		{"with", "with l as (select id from a where id = 1 limit 1 for update) select l.id, b.n from l join b on b.n = l.id", []string{change1}, []string{change2, changeB}},
		{"a join where the rows are", "select a.n from a join b using (id) where a.id = 1 for update of a", []string{change1}, []string{change2, changeB, look}},
		{"a join elsewhere", "select a.n from a join b on a.id = b.n for share", []string{change1, changeB}, []string{look}},
		{"replicated", "select n from r where id = 1 for update", []string{changeR}, []string{change1, "select sum(n) from r"}},
		{"a view", "select n from va where id = 1 for update", []string{change1, change2}, []string{changeB, look}},
		{"a sub-select", "select count(*) from b where id in (select id from a where n = 1 for update)", []string{change1}, []string{changeB, look}},
		{"for an insert", "insert into b select id + 100, n from a where id = 1 for update", []string{change1}, []string{change2, changeB, look}},
		{"for an update", "update b set n = x.n from (select id, n from a where id = 1 for update) x where b.id = x.id", []string{change1}, []string{look}},
		{"for a new table", "create temp table kept as select n from a where id = 1 for update", []string{change1}, []string{change2, look}},
		{"a cursor", "declare c cursor for select n from a where id = 1 for update; fetch all from c", []string{change1}, []string{change2, look}},
		{"prepared", "prepare p(int) as select n from a where id = $1 for update; execute p(1)", []string{change1}, []string{change2}},
		{"a copy", "copy (select n from a where id = 1 for update) to stdout", []string{change1}, []string{change2}},
		{"a function", "select locks(1)", []string{change1}, []string{changeB, look}},
	} {
		t.Run(test.name, func(t *testing.T) {
			holder, other := c.Connect(t, db), c.Connect(t, db, "lock_timeout=150ms")
			modes := [...]string{"", " isolation level repeatable read"}[i%2]
			testkit.Exec(t, holder, "begin"+modes)
			testkit.Exec(t, holder, test.hold)
			for _, sql := range test.waits {
				if err := testkit.TryExec(other, sql); testkit.SQLState(err) != "55P03" {
					t.Errorf("%s%s, and then %s: %v", test.hold, modes, sql, err)
				}
			}
			for _, sql := range test.free {
				if err := testkit.TryExec(other, sql); err != nil {
					t.Errorf("%s%s, and then %s: %v", test.hold, modes, sql, err)
				}
			}
			testkit.Exec(t, holder, "rollback")
			for _, sql := range test.waits {
				testkit.Exec(t, other, "begin")
				if err := testkit.TryExec(other, sql); err != nil {
					t.Errorf("after %s%s: %s: %v", test.hold, modes, sql, err)
				}
				testkit.Exec(t, other, "rollback")
			}
		})
	}

	holder, other := c.Connect(t, db), c.Connect(t, db)
	testkit.Exec(t, holder, "begin; select n from a where id = 1 for update")
	if got := testkit.Value(t, other, skip1); got != "0" {
		t.Errorf("SKIP LOCKED has found %s rows", got)
	}
	if err := testkit.TryExec(other, "select n from a where id = 1 for update nowait"); testkit.SQLState(err) != "55P03" {
		t.Errorf("NOWAIT of a row: %v", err)
	}
	if err := testkit.TryExec(other, "select a.n from a join b on a.id = b.n for update of a nowait"); testkit.SQLState(err) != "55P03" {
		t.Errorf("NOWAIT of a table: %v", err)
	}
	testkit.Exec(t, holder, "update a set n = n + 100 where id = 1; commit")

	// What others have changed since.
	testkit.Exec(t, other, "begin isolation level repeatable read; select count(*) from a")
	testkit.Exec(t, holder, "update a set n = n - 100 where id = 1")
	if err := testkit.TryExec(other, "select n from a where id = 1 for update"); testkit.SQLState(err) != "40001" {
		t.Errorf("a row that was changed after the snapshot: %v", err)
	}
	testkit.Exec(t, other, "rollback")

	for sql, state := range map[string]string{
		"select n from a where id = 1 for update":          "25006",
		"select a.n from a join b on a.id = b.n for share": "25006",
		"select locks(1)":                                      "25006",
		"select distinct n from a for update":                  "0A000",
		"select n from a for update of b":                      "42P01",
		"select n from a union all select n from b for update": "0A000",
	} {
		testkit.Exec(t, other, "begin read only")
		if err := testkit.TryExec(other, sql); testkit.SQLState(err) != state {
			t.Errorf("%s: %v, want %s", sql, err, state)
		}
		testkit.Exec(t, other, "rollback")
	}
}

// TestNoUpdateLost has clients count by reading a row FOR UPDATE and writing what they
// have computed, and take jobs off a queue, each of which is done once.
func TestNoUpdateLost(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	setup := c.Connect(t, db)
	const clients, rounds, jobs = 6, 20, 60
	testkit.Exec(t, setup, "create table counter (id int, n int) distributed by (id); insert into counter values (1, 0);"+
		"create table job (id int, done int default 0) distributed by (id); insert into job select g from generate_series(1, "+strconv.Itoa(jobs)+") g")
	var wg sync.WaitGroup
	var taken [jobs + 1]atomic.Int32
	for i := range clients {
		conn := c.Connect(t, db, "gp_interconnect_type="+interconnectTypes[i%len(interconnectTypes)])
		wg.Go(func() {
			for range rounds {
				if err := countUp(t, conn); err != nil {
					t.Error(err)
					return
				}
			}
			for {
				id, err := takeJob(t, conn)
				switch {
				case errors.Is(err, pgx.ErrNoRows):
					return
				case err != nil:
					t.Error(err)
					return
				}
				taken[id].Add(1)
			}
		})
	}
	// Somebody who locks the row all the time, in no block and on all segments.
	done := make(chan struct{})
	var watching sync.WaitGroup
	watcher := c.Connect(t, db)
	watching.Go(func() {
		for {
			if err := testkit.TryExec(watcher, "select n from counter where n >= 0 for update"); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(done)
	watching.Wait()
	if got, want := testkit.Value(t, setup, "select n from counter"), strconv.Itoa(clients*rounds); got != want {
		t.Errorf("%s rounds were counted of %s", got, want)
	}
	for id := 1; id <= jobs; id++ {
		if n := taken[id].Load(); n > 1 {
			t.Errorf("job %d was taken %d times", id, n)
		}
	}
	if got := testkit.Value(t, setup, "select count(*) from job where done <> 1"); got != "0" {
		t.Errorf("%s jobs were not done once", got)
	}
}

func countUp(t *testing.T, conn *pgx.Conn) error {
	return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(t.Context(), "select n from counter where id = 1 for update").Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "update counter set n = $1 where id = 1", n+1)
		return err
	})
}

// takeJob does a job that nobody else does. Others may have locked all there are, one on
// each segment.
func takeJob(t *testing.T, conn *pgx.Conn) (id int, err error) {
	for {
		err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			if err := tx.QueryRow(t.Context(), "select id from job where done = 0 order by id limit 1 for update skip locked").Scan(&id); err != nil {
				return err
			}
			tag, err := tx.Exec(t.Context(), "update job set done = done + 1 where id = $1", id)
			if err == nil && tag.RowsAffected() != 1 {
				err = fmt.Errorf("job %d: %s", id, tag)
			}
			return err
		})
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, err
		}
		var left int
		if err := conn.QueryRow(t.Context(), "select count(*) from job where done = 0").Scan(&left); err != nil || left == 0 {
			return 0, cmp.Or(err, pgx.ErrNoRows)
		}
	}
}

// TestLocksLast has row locks last as long as the transaction that others wait for, also
// on segments where it writes nothing, and that of a batch.
func TestLocksLast(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conns := []*pgx.Conn{c.Connect(t, db), c.Connect(t, db)}
	setup := c.Connect(t, db)
	ids := onEachSegment(t, setup, c.Segments)
	testkit.Exec(t, setup, fmt.Sprintf("create table parent (id int) distributed by (id); insert into parent values (%d);"+
		"create table child (id int, n int) distributed by (id); insert into child values (%d, 0), (%d, 0)", ids[0], ids[1], ids[2]))
	lock := fmt.Sprintf("select from parent where id = %d for update", ids[0])
	const rounds = 100
	var wg sync.WaitGroup
	for _, conn := range conns {
		wg.Go(func() {
			for range rounds {
				err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), lock); err != nil {
						return err
					}
					var least, most int
					if err := tx.QueryRow(t.Context(), "select min(n), max(n) from child").Scan(&least, &most); err != nil {
						return err
					}
					for _, id := range ids[1:] { // not where the lock is
						if _, err := tx.Exec(t.Context(), "update child set n = $1 where id = "+fmt.Sprint(id), most+1); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := testkit.Value(t, setup, "select min(n), max(n) from child"), fmt.Sprintf("%d|%[1]d", 2*rounds); got != want {
		t.Errorf("counted below a locked row: %s, want %s", got, want)
	}

	done := make(chan error, 1)
	go func() {
		var b pgx.Batch
		b.Queue(lock)
		b.Queue("select pg_sleep(1)")
		done <- conns[0].SendBatch(t.Context(), &b).Close()
	}()
	testkit.Eventually(t, 900*time.Millisecond, func() error {
		if err := testkit.TryExec(conns[1], lock+" nowait"); testkit.SQLState(err) != "55P03" {
			return fmt.Errorf("in the middle of a batch: %v", err)
		}
		return nil
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}
