package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

const (
	accounts = 1000
	balance  = 100 // of each account in the beginning
	// stuckAfter is how long a statement of a crowd may take: longer than the
	// cluster needs to repair itself, and to run what has queued up.
	stuckAfter = 2 * wholeAgain
)

// crowd is many sessions that move money between accounts, and look at it.
type crowd struct {
	t  *testing.T
	c  *testkit.Cluster
	db string

	next      atomic.Int64 // number of a transfer
	mu        sync.Mutex
	confirmed []int64
	refused   map[string]int // errors by code
	transfers atomic.Int64
	looks     atomic.Int64
	stuck     sync.Once // told where the first of them is
}

// TestCrowd moves money between accounts from many sessions while others look,
// and processes are killed: no look ever sees half of a transfer, none that was
// confirmed is lost, none is there by half, nobody is stuck.
//
// TRUNKLINE_CROWD is for how long, with 200 sessions; else 30 sessions do so for
// some seconds.
func TestCrowd(t *testing.T) {
	c := shared(t)
	sessions, length, pause := 20, 4*time.Second, 1500*time.Millisecond
	if s := os.Getenv("TRUNKLINE_CROWD"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		sessions, pause = 200, 10*time.Second
	}
	cr := &crowd{t: t, c: c, db: c.Database(t), refused: map[string]int{}}
	conn := c.Connect(t, cr.db)
	testkit.Exec(t, conn, fmt.Sprintf(`create table accounts (id int primary key, balance bigint) distributed by (id);
		create table ledger (tx bigint, giver int, taker int, amount int) distributed by (tx);
		insert into accounts select i, %d from generate_series(0, %d) i; analyze accounts`, balance, accounts-1))
	testkit.Close(conn)

	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() { cr.session(ctx, i) })
	}
	kinds := []testkit.Process{testkit.Proxy, testkit.Postgres, testkit.InstanceProcess, testkit.Proxy}
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
			continue
		case <-time.After(pause/2 + rand.N(pause)):
		}
		// Each instance gets its turn, the coordinator too.
		c.Kill(t, uint16(coordinatorDbid+n%(c.Segments+1)), kinds[rand.IntN(len(kinds))])
		c.Whole(t, wholeAgain)
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stuckAfter + wholeAgain):
		t.Fatal("a session is stuck")
	}
	cr.check()
}

// session is one of the crowd: every third only looks.
func (cr *crowd) session(ctx context.Context, n int) {
	mode := []string{udpifc, tcp, proxy}[n%3]
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			testkit.Close(conn)
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = cr.c.TryConnect(cr.db, mode); err != nil {
				conn = nil
				time.Sleep(50 * time.Millisecond)
				continue
			}
		}
		one, cancel := context.WithTimeout(context.Background(), stuckAfter)
		var err error
		if n%3 == 2 || rand.IntN(10) == 0 {
			err = cr.look(one, conn, mode)
		} else {
			err = cr.transfer(one, conn)
		}
		if one.Err() != nil {
			cr.t.Errorf("session %d, %s, is stuck: %v", n, mode, err)
			cr.stuck.Do(func() { cr.c.Abort(cr.t) })
			conn.Close(one) //nolint:errcheck // it is given up
		}
		cancel()
		if err != nil {
			cr.refuse(err)
		}
	}
}

// refuse counts an error. Those that say that something is wrong with the
// cluster's answers have been told already.
func (cr *crowd) refuse(err error) {
	code := "connection lost"
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		code = pe.Code
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.refused[code]++
}

// look adds up all the money, twice in a transaction that must see the same.
func (cr *crowd) look(ctx context.Context, conn *pgx.Conn, mode string) error {
	switch rand.IntN(4) {
	case 0:
		return cr.sum(ctx, conn, mode, "select sum(balance)::bigint, count(*) from accounts")
	case 1: // rows that move between segments
		return cr.sum(ctx, conn, mode, "select sum(a.balance)::bigint, count(*) from accounts a join accounts b on a.id = b.id * 7 % 1000")
	}
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		first, err := cr.richest(ctx, tx)
		if err != nil {
			return err
		}
		if err := cr.sum(ctx, tx, mode, "select sum(balance)::bigint, count(*) from accounts"); err != nil {
			return err
		}
		second, err := cr.richest(ctx, tx)
		if err == nil && first != second {
			cr.t.Errorf("%s: a transaction saw %s and then %s", mode, first, second)
		}
		return err
	})
}

type asker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// sum asks for all the money. Where it is wrong in a transaction with one snapshot
// it also says which segments see less, or more, than others.
func (cr *crowd) sum(ctx context.Context, q asker, mode, sql string) error {
	const want = accounts * balance
	var total, rows int64
	began := time.Now()
	if err := q.QueryRow(ctx, sql).Scan(&total, &rows); err != nil {
		return err
	}
	cr.looks.Add(1)
	if total == want && rows == accounts {
		return nil
	}
	cr.t.Errorf("%s, at %s after %v: %s: %d in %d accounts, not %d in %d", mode, time.Now().Format(time.TimeOnly), time.Since(began), sql, total, rows, want, accounts)
	if tx, ok := q.(pgx.Tx); ok {
		for _, what := range []string{"select gp_segment_id, sum(balance), count(*) from accounts group by 1 order by 1", seenAmiss} {
			rows, err := tx.Query(ctx, what)
			if err != nil {
				return err
			}
			all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
				v, err := r.Values()
				return fmt.Sprint(v...), err
			})
			if err != nil {
				return err
			}
			cr.t.Logf("%s:\n%s", what, strings.Join(all, "\n"))
		}
	}
	return nil
}

// seenAmiss lists accounts that are not what the ledger says, and the last
// transfers of each with the segment that wrote them down.
const seenAmiss = `select a.seg, a.id, a.balance - 100 - coalesce(l.sum, 0), l.last from (select gp_segment_id as seg, * from accounts) a left join
	(select who, sum(amount), string_agg(tx || ' on ' || seg || ': ' || amount, ', ' order by tx desc) as last from
		(select taker as who, amount, tx, gp_segment_id as seg from ledger union all select giver, -amount, tx, gp_segment_id from ledger) m group by who) l
	on l.who = a.id where a.balance <> 100 + coalesce(l.sum, 0)`

func (cr *crowd) richest(ctx context.Context, tx pgx.Tx) (s string, err error) {
	err = tx.QueryRow(ctx, "select string_agg(id || ':' || balance, ' ' order by balance desc, id) from (select * from accounts order by balance desc, id limit 20) x").Scan(&s)
	return s, err
}

// transfer moves money, and writes it down.
func (cr *crowd) transfer(ctx context.Context, conn *pgx.Conn) error {
	tx, giver, taker, amount := cr.next.Add(1), rand.IntN(accounts), rand.IntN(accounts), 1+rand.IntN(20)
	kept := rand.IntN(8) > 0
	err := pgx.BeginFunc(ctx, conn, func(t pgx.Tx) error {
		for _, s := range []struct {
			sql  string
			args []any
		}{
			{"update accounts set balance = balance - $1 where id = $2", []any{amount, giver}},
			{"update accounts set balance = balance + $1 where id = $2", []any{amount, taker}},
			{"insert into ledger values ($1, $2, $3, $4)", []any{tx, giver, taker, amount}},
		} {
			tag, err := t.Exec(ctx, s.sql, s.args...)
			if err != nil {
				return err
			}
			if tag.RowsAffected() != 1 {
				cr.t.Errorf("%s %v: %v", s.sql, s.args, tag)
			}
		}
		if !kept {
			return errGivenUp
		}
		return nil
	})
	if errors.Is(err, errGivenUp) {
		return nil
	}
	if err == nil {
		cr.transfers.Add(1)
		cr.mu.Lock()
		cr.confirmed = append(cr.confirmed, tx)
		cr.mu.Unlock()
	}
	return err
}

var errGivenUp = errors.New("given up")

// check compares the accounts with what is written down.
func (cr *crowd) check() {
	t := cr.t
	cr.c.Whole(t, wholeAgain)
	noPrepared(t, cr.c, cr.db)
	cr.c.WaitProxies(t)
	conn := cr.c.Connect(t, cr.db)
	if got := testkit.Value(t, conn, "select sum(balance), count(*) from accounts"); got != fmt.Sprintf("%d|%d", accounts*balance, accounts) {
		t.Errorf("in the end there is %s", got)
	}
	wrong := testkit.Query(t, conn, fmt.Sprintf(`select a.id, a.balance, %d + coalesce(l.sum, 0) from accounts a left join
		(select who, sum(amount) from (select taker as who, amount from ledger union all select giver, -amount from ledger) m group by who) l
		on l.who = a.id where a.balance <> %d + coalesce(l.sum, 0)`, balance, balance))
	if len(wrong) > 0 {
		t.Errorf("accounts that are not what the ledger says: %q", wrong)
	}
	if twice := testkit.Query(t, conn, "select tx, count(*) from ledger group by tx having count(*) > 1"); len(twice) > 0 {
		t.Errorf("written down twice: %q", twice)
	}
	there := map[string]bool{}
	for _, tx := range testkit.Query(t, conn, "select tx from ledger") {
		there[tx] = true
	}
	for _, tx := range cr.confirmed {
		if !there[fmt.Sprint(tx)] {
			t.Errorf("transfer %d was confirmed and is lost", tx)
		}
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	var codes []string
	for code, n := range cr.refused {
		codes = append(codes, fmt.Sprintf("%s %d", code, n))
	}
	slices.Sort(codes)
	t.Logf("%d transfers, %d looks; %d in the ledger; refused: %s", cr.transfers.Load(), cr.looks.Load(), len(there), strings.Join(codes, ", "))
	if cr.transfers.Load() < 10 || cr.looks.Load() < 10 {
		t.Errorf("only %d transfers and %d looks", cr.transfers.Load(), cr.looks.Load())
	}
}
