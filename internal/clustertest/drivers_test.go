package clustertest

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// driverTable makes a table of 1000 rows in a database of its own.
func driverTable(t *testing.T) (c *testkit.Cluster, db string, conn *pgx.Conn) {
	t.Helper()
	c = beside(t)
	db = c.Database(t)
	conn = c.Connect(t, db)
	testkit.Exec(t, conn, `create table d (id int, name text, at timestamptz, n numeric, raw bytea, tags text[]) distributed by (id);
		insert into d select i, 'n' || i, '2024-01-01 00:00:00+00'::timestamptz + i * interval '1 hour', i / 8.0, decode(lpad(to_hex(i), 4, '0'), 'hex'), array['a', i::text]
		from generate_series(1, 1000) i`)
	return c, db, conn
}

// bounded is a context for one exchange with the cluster, or for those of a short
// test.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestQueryModes runs the same statements in each of pgx's ways to talk.
func TestQueryModes(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			type row struct {
				ID   int
				Name string
				At   time.Time
				N    float64
				Raw  []byte
				Tags []string
			}
			for range 2 { // the second time from the cache
				rows, err := conn.Query(ctx, "select id, name, at, n::float8, raw, tags from d where id = $1", mode, 258)
				if err != nil {
					t.Fatal(err)
				}
				got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
				if err != nil {
					t.Fatal(err)
				}
				want := row{258, "n258", time.Date(2024, 1, 11, 18, 0, 0, 0, time.UTC), 32.25, []byte{1, 2}, []string{"a", "258"}}
				if len(got) != 1 {
					t.Fatalf("%d rows", len(got))
				}
				got[0].At = got[0].At.UTC()
				if !reflect.DeepEqual(got[0], want) {
					t.Errorf("got %v, expected %v", got[0], want)
				}
				var n, sum int
				if err := conn.QueryRow(ctx, "select count(*), sum(id) from d where id between $1 and $2 and name like $3", mode, 10, 19, "n1%").Scan(&n, &sum); err != nil {
					t.Fatal(err)
				}
				if n != 10 || sum != 145 {
					t.Errorf("count %d, sum %d", n, sum)
				}
				if err := conn.QueryRow(ctx, "select a.id from d a join d b on a.id = b.id + 1 where b.id = $1", mode, 7).Scan(&n); err != nil || n != 8 {
					t.Errorf("join: %d, %v", n, err)
				}
				var none *int
				if err := conn.QueryRow(ctx, "select $1::int", mode, nil).Scan(&none); err != nil || none != nil {
					t.Errorf("null: %v, %v", none, err)
				}
			}
			for _, st := range []struct {
				sql  string
				args []any
				tag  string
			}{
				{"insert into d (id, name) values ($1, $2), ($3, $4)", []any{2001, "x", 2002, "it's \\ \" é"}, "INSERT 0 2"},
				{"update d set name = name || $1 where id > $2", []any{"!", 2000}, "UPDATE 2"},
				{"delete from d where id > $1 and name = any($2)", []any{2000, []string{"x!", "it's \\ \" é!"}}, "DELETE 2"},
				{"select 1 where false", nil, "SELECT 0"},
				{"set work_mem = '5MB'", nil, "SET"},
			} {
				tag, err := conn.Exec(ctx, st.sql, append([]any{mode}, st.args...)...)
				if err != nil || tag.String() != st.tag {
					t.Errorf("%s: %v, %v; expected %s", st.sql, tag, err, st.tag)
				}
			}
			// Errors leave the connection as it was.
			for sql, state := range map[string]string{
				"select * from nothing":                        "42P01",
				"select id/0 from d":                           "22012",
				"select nothing from d":                        "42703",
				"insert into d (id) values ('x')":              "22P02",
				"selec 1":                                      "42601",
				"select f(1)":                                  "42883",
				"create table d (id int) distributed by (id)":  "42P07",
				"create table e (id int) distributed by (nix)": "42703",
			} {
				_, err := conn.Exec(ctx, sql, mode)
				if got := testkit.SQLState(err); got != state {
					t.Errorf("%s: SQLSTATE %q (%v), expected %s", sql, got, err, state)
				}
			}
			if n := testkit.Value(t, conn, "select count(*) from d"); n != "1000" {
				t.Errorf("%s rows", n)
			}
		})
	}
}

// TestBatches sends many statements with one Sync: they are one transaction,
// wherever each of them runs.
func TestBatches(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	testkit.Exec(t, conn, "create sequence sq")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			b := &pgx.Batch{}
			for i := range 20 {
				b.Queue("insert into d (id, name) values ($1, 'batch')", 3000+i)
				b.Queue("select count(*) from d where name = 'batch'")
				b.Queue("select $1::int + 1", i)
			}
			br := sendBatch(ctx, conn, b, mode)
			for i := range 20 {
				if _, err := br.Exec(); err != nil {
					t.Fatal(err)
				}
				var n int
				if err := br.QueryRow().Scan(&n); err != nil || n != i+1 {
					t.Fatalf("after %d inserts: %d, %v", i+1, n, err)
				}
				if err := br.QueryRow().Scan(&n); err != nil || n != i+1 {
					t.Fatalf("%d + 1 = %d, %v", i, n, err)
				}
			}
			if err := br.Close(); err != nil {
				t.Fatal(err)
			}
			// One that fails takes all with it, the local part too.
			b = &pgx.Batch{}
			b.Queue("select pg_notify('ch', 'never')")
			b.Queue("delete from d where name = 'batch'")
			b.Queue("select 1/0")
			b.Queue("select 1")
			br = sendBatch(ctx, conn, b, mode)
			err := br.Close()
			if testkit.SQLState(err) != "22012" {
				t.Errorf("SQLSTATE of %v, expected 22012", err)
			}
			if n := testkit.Value(t, conn, "select count(*) from d where name = 'batch'"); n != "20" {
				t.Errorf("%s rows after a failed batch, expected 20", n)
			}
			testkit.Exec(t, conn, "delete from d where name = 'batch'")
		})
	}
}

func sendBatch(ctx context.Context, conn *pgx.Conn, b *pgx.Batch, mode pgx.QueryExecMode) pgx.BatchResults {
	conn.Config().DefaultQueryExecMode = mode
	return conn.SendBatch(ctx, b)
}

// TestPipeline mixes statements that run on the coordinator and on segments in
// one batch without knowing their results, and fails in the middle.
func TestPipeline(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	pc := conn.PgConn()
	testkit.Exec(t, conn, "listen heard")
	run := func(stmts ...string) (tags []string, err error) {
		p := pc.StartPipeline(ctx)
		for _, s := range stmts {
			p.SendQueryParams(s, nil, nil, nil, nil)
		}
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		for {
			res, rerr := p.GetResults()
			if rerr != nil && err == nil {
				err = rerr
			}
			if rr, ok := res.(*pgconn.ResultReader); ok {
				tag, cerr := rr.Close()
				if cerr != nil && err == nil {
					err = cerr
				}
				tags = append(tags, tag.String())
			}
			if _, ok := res.(*pgconn.PipelineSync); ok || res == nil {
				break
			}
		}
		if cerr := p.Close(); cerr != nil && err == nil {
			err = cerr
		}
		return tags, err
	}
	tags, err := run("notify heard, 'one'", "insert into d (id) values (5001)", "select count(*) from d", "update d set name = 'p' where id = 5001", "select 1")
	if err != nil || strings.Join(tags, ",") != "NOTIFY,INSERT 0 1,SELECT 1,UPDATE 1,SELECT 1" {
		t.Fatalf("%v, %v", tags, err)
	}
	if _, err := run("notify heard, 'two'", "insert into d (id) values (5002)", "selec"); testkit.SQLState(err) != "42601" {
		t.Errorf("expected a syntax error, got %v", err)
	}
	if n := testkit.Value(t, conn, "select count(*) from d where id > 5000"); n != "1" {
		t.Errorf("%s rows, expected 1", n)
	}
	n, err := conn.WaitForNotification(ctx)
	if err != nil || n.Payload != "one" {
		t.Errorf("first notification %v, %v", n, err)
	}
	testkit.Exec(t, conn, "notify heard, 'three'")
	if n, err = conn.WaitForNotification(ctx); err != nil || n.Payload != "three" {
		t.Errorf("next notification %v, %v; expected three: the batch that failed notifies nobody", n, err)
	}
}

// TestNotifyIdle wakes a session that waits for nothing else.
func TestNotifyIdle(t *testing.T) {
	c, db, conn := driverTable(t)
	testkit.Exec(t, conn, "listen heard")
	other := c.Connect(t, db)
	notified := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		notified <- testkit.TryExec(other, "notify heard, 'hello'")
	})
	n, err := conn.WaitForNotification(bounded(t))
	if err == nil {
		err = <-notified
	}
	if err != nil || n.Payload != "hello" {
		t.Fatalf("%v, %v", n, err)
	}
	// A session that is ended from outside hears of it, too.
	pid := conn.PgConn().PID()
	testkit.Exec(t, other, fmt.Sprintf("select pg_terminate_backend(%d)", pid))
	_, err = conn.WaitForNotification(bounded(t))
	if testkit.SQLState(err) != "57P01" {
		t.Errorf("after pg_terminate_backend: %v", err)
	}
}

// TestSuspendedPortals fetches results in pieces, two of them at a time.
func TestSuspendedPortals(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	hj, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hj.Conn.Close()
	fe := hj.Frontend
	deadline, _ := ctx.Deadline()
	_ = hj.Conn.SetDeadline(deadline)
	until := func(end pgproto3.BackendMessage) (rows []string, last pgproto3.BackendMessage) {
		if err := fe.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.DataRow:
				rows = append(rows, string(m.Values[0]))
			case *pgproto3.ErrorResponse:
				t.Fatalf("%s: %s", m.Code, m.Message)
			case *pgproto3.PortalSuspended, *pgproto3.CommandComplete:
				last = m
			}
			if reflect.TypeOf(m) == reflect.TypeOf(end) {
				return rows, last
			}
		}
	}
	fe.Send(&pgproto3.Query{String: "begin"})
	until(&pgproto3.ReadyForQuery{})
	fe.Send(&pgproto3.Parse{Name: "s", Query: "select id from d where id > $1 order by id"})
	fe.Send(&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "p", Parameters: [][]byte{[]byte("10")}})
	fe.Send(&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "q", Parameters: [][]byte{[]byte("990")}})
	fe.Send(&pgproto3.Execute{Portal: "p", MaxRows: 3})
	fe.Send(&pgproto3.Execute{Portal: "q", MaxRows: 3})
	fe.Send(&pgproto3.Sync{})
	rows, _ := until(&pgproto3.ReadyForQuery{})
	if got := strings.Join(rows, " "); got != "11 12 13 991 992 993" {
		t.Fatalf("first pieces: %s", got)
	}
	// Something else in between.
	fe.Send(&pgproto3.Query{String: "update d set name = '' where id = 14; select count(*) from d"})
	until(&pgproto3.ReadyForQuery{})
	fe.Send(&pgproto3.Execute{Portal: "p", MaxRows: 2})
	fe.Send(&pgproto3.Sync{})
	if rows, last := until(&pgproto3.ReadyForQuery{}); strings.Join(rows, " ") != "14 15" || reflect.TypeOf(last) != reflect.TypeFor[*pgproto3.PortalSuspended]() {
		t.Fatalf("second piece: %v, %T", rows, last)
	}
	fe.Send(&pgproto3.Execute{Portal: "q"})
	fe.Send(&pgproto3.Sync{})
	if rows, last := until(&pgproto3.ReadyForQuery{}); strings.Join(rows, " ") != "994 995 996 997 998 999 1000" || reflect.TypeOf(last) != reflect.TypeFor[*pgproto3.CommandComplete]() {
		t.Fatalf("the rest: %v, %T", rows, last)
	}
	fe.Send(&pgproto3.Close{ObjectType: 'P', Name: "p"})
	fe.Send(&pgproto3.Sync{})
	until(&pgproto3.ReadyForQuery{})
	fe.Send(&pgproto3.Query{String: "commit"})
	until(&pgproto3.ReadyForQuery{})
}

// TestPreparedStatements holds prepared statements to what the tables have
// become, and SQL's PREPARE to be the same thing.
func TestPreparedStatements(t *testing.T) {
	c, db, conn := driverTable(t)
	ctx := bounded(t)
	testkit.Exec(t, conn, "create schema other; create table other.d (id int) distributed by (id); insert into other.d values (1)")
	if _, err := conn.Prepare(ctx, "n", "select count(*) from d"); err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		var n int
		if err := conn.QueryRow(ctx, "n").Scan(&n); err != nil || n != want {
			t.Errorf("%d, %v; expected %d", n, err, want)
		}
	}
	count(1000)
	testkit.Exec(t, conn, "set search_path = other, public")
	count(1)
	testkit.Exec(t, conn, "reset search_path")
	count(1000)
	if rows := testkit.Query(t, conn, "execute n"); len(rows) != 1 || rows[0] != "1000" {
		t.Errorf("EXECUTE of a statement of the protocol: %v", rows)
	}
	testkit.Exec(t, conn, "prepare m (int, text) as select name || $2 from d where id = $1")
	var name string
	if err := conn.PgConn().ExecPrepared(ctx, "m", [][]byte{[]byte("7"), []byte("?")}, nil, nil).Read().Err; err != nil {
		t.Errorf("PREPARE's statement by the protocol: %v", err)
	}
	for _, q := range []string{"execute m (3 + 4, 'x')", "execute m ('7', 'x'::varchar)"} {
		if name = testkit.Value(t, conn, q); name != "n7x" {
			t.Errorf("%s: %s", q, name)
		}
	}
	for q, state := range map[string]string{"execute m (1)": "42601", "execute nix": "26000", "deallocate nix": "26000",
		"prepare m as select 1": "42P05", "prepare w as select * from nix": "42P01", "execute m ('x', 'y')": "22P02"} {
		if err := testkit.TryExec(conn, q); testkit.SQLState(err) != state {
			t.Errorf("%s: %v, expected %s", q, err, state)
		}
	}
	// The table is another one now.
	other := c.Connect(t, db)
	testkit.Exec(t, other, "drop table d; create table d (a int, id int) distributed randomly; insert into d values (1, 2)")
	count(1)
	if err := conn.DeallocateAll(ctx); err != nil {
		t.Error(err)
	}
	if err := testkit.TryExec(conn, "execute n"); testkit.SQLState(err) != "26000" {
		t.Errorf("after DEALLOCATE ALL: %v", err)
	}
	testkit.Exec(t, conn, "prepare n as select 1")
	testkit.Exec(t, conn, "discard all")
	if err := testkit.TryExec(conn, "execute n"); testkit.SQLState(err) != "26000" {
		t.Errorf("after DISCARD ALL: %v", err)
	}
}

// TestDatabaseSQL uses the cluster as programs do, through database/sql.
func TestDatabaseSQL(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	db := stdlib.OpenDB(*conn.Config().Copy())
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	st, err := tx.PrepareContext(ctx, "insert into d (id, name) values ($1, $2)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := st.ExecContext(ctx, 7000+i, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(ctx, "insert into d (id) values (8000)"); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRowContext(ctx, "select count(*) from d where id >= $1", 7000).Scan(&n); err != nil || n != 10 {
		t.Errorf("repeatable read sees %d, %v; expected its own 10", n, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(ctx, "select count(*) from d where id >= 7000").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v; expected 1", n, err)
	}
	if tx, err = db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "insert into d (id) values (8001)"); testkit.SQLState(err) != "25006" {
		t.Errorf("writing in a read-only transaction: %v", err)
	}
	_ = tx.Rollback()
}
