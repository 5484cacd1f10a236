package clustertest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// pool is database/sql on the driver table.
func pool(t *testing.T) (*sql.DB, *pgx.Conn) {
	t.Helper()
	_, _, conn := driverTable(t)
	db := stdlib.OpenDB(*conn.Config().Copy())
	t.Cleanup(func() { db.Close() })
	return db, conn
}

// TestPoolStatements prepares statements once for all connections of a pool,
// and runs them from more goroutines than it has connections.
func TestPoolStatements(t *testing.T) {
	db, conn := pool(t)
	ctx := bounded(t)
	db.SetMaxOpenConns(4)
	testkit.Exec(t, conn, "create table acct (id int primary key, n int) distributed by (id); insert into acct select i, 0 from generate_series(1, 10) i")
	read, err := db.PrepareContext(ctx, "select name, n from d where id = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	add, err := db.PrepareContext(ctx, "update acct set n = n + $2 where id = $1 returning n")
	if err != nil {
		t.Fatal(err)
	}
	defer add.Close()
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for i := range 25 {
				id := 1 + (worker*25+i)%1000
				var name string
				var n float64
				if err := read.QueryRowContext(ctx, id).Scan(&name, &n); err != nil || name != fmt.Sprint("n", id) || n != float64(id)/8 {
					return fmt.Errorf("row %d: %q, %v, %w", id, name, n, err)
				}
				if err := add.QueryRowContext(ctx, 1+i%10, 1).Scan(&n); err != nil {
					return err
				}
				// The same statement in a transaction of its own.
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				if _, err := tx.StmtContext(ctx, add).ExecContext(ctx, 1+i%10, 100); err != nil {
					_ = tx.Rollback()
					return err
				}
				if i%2 == 0 {
					err = tx.Commit()
				} else {
					err = tx.Rollback()
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := testkit.Value(t, conn, "select sum(n) from acct"), fmt.Sprint(8*25+8*13*100); got != want {
		t.Errorf("the sum is %s, expected %s", got, want)
	}
	// A table that is another one now, under the connections' statements.
	testkit.Exec(t, conn, "drop table acct; create table acct (n bigint, id bigint) distributed randomly; insert into acct values (7, 1)")
	for range 4 {
		var n int64
		if err := add.QueryRowContext(ctx, 1, 1).Scan(&n); err != nil && testkit.SQLState(err) != "0A000" {
			t.Errorf("after the table was replaced: %v", err) // PostgreSQL: cached plan must not change result type
		}
	}
}

// TestPoolCancellation gives up in the middle of statements: they end on all
// instances, and the pool goes on.
func TestPoolCancellation(t *testing.T) {
	db, conn := pool(t)
	db.SetMaxOpenConns(3)
	for _, sql := range []string{"select count(*), sum(pg_sleep(1)::text::int) from d", "select pg_sleep(30)", "update d set name = pg_sleep(30)::text",
		"select a.name from d a, d b, d c"} {
		for _, how := range []string{"deadline", "cancel", "transaction"} {
			const patience = 300 * time.Millisecond
			if err := db.PingContext(bounded(t)); err != nil { // a connection is ready
				t.Fatal(err)
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(bounded(t), patience)
			if how == "cancel" {
				ctx, cancel = context.WithCancel(bounded(t))
				time.AfterFunc(patience, cancel)
			}
			var err error
			if how == "transaction" {
				tx, berr := db.BeginTx(ctx, nil)
				if err = berr; err == nil {
					if _, err = tx.ExecContext(ctx, "insert into d (id) values (5000)"); err == nil {
						_, err = tx.ExecContext(ctx, sql)
					}
					_ = tx.Rollback()
				}
			} else {
				var rows interface {
					Next() bool
					Err() error
					Close() error
				}
				if rows, err = db.QueryContext(ctx, sql); err == nil {
					for rows.Next() {
					}
					err = rows.Err()
					rows.Close()
				}
			}
			given := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || testkit.SQLState(err) == "57014"
			if took := time.Since(start); !given || took < patience || took > 5*time.Second {
				t.Errorf("%s, %s: %v after %v", sql, how, err, took)
			}
			cancel()
			testkit.Eventually(t, 10*time.Second, func() error {
				if n := testkit.Value(t, conn, "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid()"); n != "0" {
					return fmt.Errorf("%s, %s: %s statements still run", sql, how, n)
				}
				return nil
			})
		}
	}
	var n int
	if err := db.QueryRowContext(bounded(t), "select count(*) from d").Scan(&n); err != nil || n != 1000 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestPoolTransactions begins transactions of each isolation level.
func TestPoolTransactions(t *testing.T) {
	db, conn := pool(t)
	ctx := bounded(t)
	for level, want := range map[sql.IsolationLevel]string{sql.LevelDefault: "read committed", sql.LevelReadUncommitted: "read uncommitted",
		sql.LevelReadCommitted: "read committed", sql.LevelRepeatableRead: "repeatable read", sql.LevelSerializable: "serializable"} {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		if err != nil {
			t.Fatalf("%s: %v", level, err)
		}
		var name string
		var before, after int
		if err := tx.QueryRowContext(ctx, "show transaction_isolation").Scan(&name); err != nil || name != want {
			t.Errorf("%s: %s, %v", level, name, err)
		}
		if err := tx.QueryRowContext(ctx, "select count(*) from d where name like 'n%'").Scan(&before); err != nil {
			t.Errorf("%s: %v", level, err)
		}
		testkit.Exec(t, conn, "insert into d (id, name) values (9000, 'new'), (9001, 'new'), (9002, 'new')")
		if err := tx.QueryRowContext(ctx, "select count(*) from d where name like 'n%'").Scan(&after); err != nil {
			t.Errorf("%s: %v", level, err)
		}
		seen := 3
		if level >= sql.LevelRepeatableRead {
			seen = 0
		}
		if after-before != seen {
			t.Errorf("%s: %d new rows are seen, expected %d", level, after-before, seen)
		}
		// Rows that somebody else has changed since.
		_, err = tx.ExecContext(ctx, "update d set name = 'mine' where id = 5")
		if err != nil {
			t.Errorf("%s: %v", level, err)
		}
		testkit.Exec(t, conn, "update d set n = 0 where id = 6")
		_, err = tx.ExecContext(ctx, "update d set name = 'mine' where id = 6")
		state := ""
		if level >= sql.LevelRepeatableRead {
			state = "40001"
		}
		if testkit.SQLState(err) != state || (err == nil) != (state == "") {
			t.Errorf("%s: a row that was changed: %v, expected %q", level, err, state)
		}
		_ = tx.Rollback()
		testkit.Exec(t, conn, "delete from d where id >= 9000")
	}
	if got := testkit.Value(t, conn, "select count(*) from d where name = 'mine'"); got != "0" {
		t.Errorf("%s rows of transactions that were rolled back", got)
	}
}

// TestPoolValues sends values of many types there and back, one of 10 MB among
// them, by parameters and by a batch.
func TestPoolValues(t *testing.T) {
	db, conn := pool(t)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute) // they are large
	defer cancel()
	testkit.Exec(t, conn, `create table v (id int, s text, b bytea, i bigint, f float8, n numeric, ok bool, at timestamptz, day date, local timestamp,
		doc jsonb, ints int[], words text[], u uuid) distributed by (id)`)
	random := rand.New(rand.NewPCG(1, 2))
	large := make([]byte, 10<<20)
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	type value struct {
		ID    int
		S     sql.NullString
		B     []byte
		I     sql.NullInt64
		F     sql.NullFloat64
		N     sql.NullString
		OK    sql.NullBool
		At    sql.NullTime
		Day   sql.NullTime
		Local sql.NullTime
		Doc   []byte
		Ints  []int32
		Words []string
		U     sql.NullString
	}
	text := func(s string) sql.NullString { return sql.NullString{String: s, Valid: true} }
	when := func(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: true} }
	values := []value{
		{ID: 1},
		{2, text(""), []byte{}, sql.NullInt64{Valid: true}, sql.NullFloat64{Valid: true}, text("0"), sql.NullBool{Valid: true}, when(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)),
			when(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)), when(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)), []byte(`{}`), []int32{}, []string{}, text("00000000-0000-0000-0000-000000000000")},
		{3, text("it's \\ \" é 漢字 \t\n"), []byte{0, 1, 255, '\\', '\''}, sql.NullInt64{Int64: -1 << 63, Valid: true}, sql.NullFloat64{Float64: -1.5e-300, Valid: true},
			text("-12345678901234567890123456789.123456789012345678901234567890"), sql.NullBool{Bool: true, Valid: true}, when(time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC)),
			when(time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)), when(time.Date(1999, 12, 31, 23, 59, 59, 1000, time.UTC)), []byte(`{"a": [1, null, "x"], "é": {"b": 1.5}}`),
			[]int32{1, -2, 1 << 30}, []string{"", "NULL", `a"b\c,{}`, "é"}, text("123e4567-e89b-12d3-a456-426614174000")},
		{4, text(strings.Repeat("0123456789abcdé", 10<<20/16)), large, sql.NullInt64{Int64: 1, Valid: true}, sql.NullFloat64{Float64: 1, Valid: true}, text("1"), sql.NullBool{Bool: true, Valid: true},
			when(time.Unix(0, 0).UTC()), when(time.Unix(0, 0).UTC()), when(time.Unix(0, 0).UTC()), []byte(`[]`), slices.Repeat([]int32{7}, 100000), slices.Repeat([]string{"word"}, 100000), text("123e4567-e89b-12d3-a456-426614174000")},
	}
	const insert = "insert into v values ($1, $2, $3, $4, $5, $6::text::numeric, $7, $8, $9, $10, $11, $12, $13, $14::text::uuid)"
	args := func(v value) []any {
		var doc any
		if v.Doc != nil {
			doc = json.RawMessage(v.Doc)
		}
		return []any{v.ID, v.S, v.B, v.I, v.F, v.N, v.OK, v.At, v.Day, v.Local, doc, v.Ints, v.Words, v.U}
	}
	check := func(want value) {
		t.Helper()
		var got value
		types := pgtype.NewMap()
		err := db.QueryRowContext(ctx, "select id, s, b, i, f, n::text, ok, at, day, local, doc, ints, words, u::text from v where id = $1", want.ID).Scan(&got.ID, &got.S, &got.B,
			&got.I, &got.F, &got.N, &got.OK, &got.At, &got.Day, &got.Local, &got.Doc, types.SQLScanner(&got.Ints), types.SQLScanner(&got.Words), &got.U)
		if err != nil {
			t.Errorf("%d: %v", want.ID, err)
			return
		}
		got.At.Time = got.At.Time.UTC()
		for name, same := range map[string]bool{"text": got.S == want.S, "bytea": bytes.Equal(got.B, want.B) && (got.B == nil) == (want.B == nil), "bigint": got.I == want.I,
			"float8": got.F == want.F, "numeric": got.N == want.N, "bool": got.OK == want.OK, "timestamptz": got.At.Valid == want.At.Valid && (!got.At.Valid || got.At.Time.Equal(want.At.Time)),
			"date": got.Day.Valid == want.Day.Valid && got.Day.Time.Equal(want.Day.Time), "timestamp": got.Local.Valid == want.Local.Valid && got.Local.Time.Equal(want.Local.Time),
			"jsonb": string(got.Doc) == string(want.Doc), "int[]": slices.Equal(got.Ints, want.Ints) && (got.Ints == nil) == (want.Ints == nil),
			"text[]": slices.Equal(got.Words, want.Words) && (got.Words == nil) == (want.Words == nil), "uuid": got.U == want.U} {
			if !same {
				t.Errorf("row %d: %s is not what it was", want.ID, name)
			}
		}
	}
	for _, v := range values {
		if _, err := db.ExecContext(ctx, insert, args(v)...); err != nil {
			t.Fatalf("%d: %v", v.ID, err)
		}
		check(v)
	}
	// Found by what they are, on the segment that has them or on all.
	for _, v := range values[1:] {
		var id int
		if err := db.QueryRowContext(ctx, "select id from v where s = $1 and b = $2 and n = $3::text::numeric and at = $4 and words = $5", v.S, v.B, v.N, v.At, v.Words).Scan(&id); err != nil || id != v.ID {
			t.Errorf("row %d is not found: %d, %v", v.ID, id, err)
		}
	}
	// The same by a batch, on a connection of the pool.
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Raw(func(driver any) error {
		b := &pgx.Batch{}
		for _, v := range values {
			v.ID += 10
			b.Queue(insert, args(v)...)
			b.Queue("select count(*) from v where id = $1", v.ID).QueryRow(func(row pgx.Row) error {
				var n int
				if err := row.Scan(&n); err != nil || n != 1 {
					return fmt.Errorf("%d rows, %w", n, err)
				}
				return nil
			})
		}
		return driver.(*stdlib.Conn).Conn().SendBatch(ctx, b).Close()
	}); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		v.ID += 10
		check(v)
	}
	if got := testkit.Value(t, conn, "select count(*), count(distinct (s, b, i)) from v"); got != "8|4" {
		t.Errorf("rows and different ones: %s", got)
	}
}
