package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestCopyByDrivers copies in the ways of drivers, with and without success.
func TestCopyByDrivers(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	i := 0
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"d"}, []string{"id", "name", "tags"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i++; i > 5000 {
			return nil, nil
		}
		return []any{10000 + i, fmt.Sprint("copy", i), []string{"\\", "\"", "\t"}}, nil
	}))
	if err != nil || n != 5000 {
		t.Fatalf("CopyFrom: %d, %v", n, err)
	}
	if got := testkit.Value(t, conn, "select count(*), min(tags) from d where id > 10000"); got != `5000|{"\\","\"",`+"\"\t\"}" {
		t.Errorf("copied: %s", got)
	}
	pc := conn.PgConn()
	for _, f := range []string{"format text", "format csv", "format csv, header", "format csv, header match, quote '''', delimiter ';', force_quote *", "format binary",
		"format text, delimiter '|', null 'none'", "format text, header"} {
		var buf bytes.Buffer
		tag, err := pc.CopyTo(ctx, &buf, "copy d to stdout with ("+strings.Replace(f, "header match", "header", 1)+")")
		if err != nil || tag.RowsAffected() != 6000 {
			t.Errorf("COPY TO (%s): %v, %v", f, tag, err)
			continue
		}
		testkit.Exec(t, conn, "drop table if exists e; create table e (like d) distributed by (name)")
		tag, err = pc.CopyFrom(ctx, &buf, "copy e from stdin with ("+strings.Replace(f, ", force_quote *", "", 1)+")")
		if err != nil || tag.RowsAffected() != 6000 {
			t.Errorf("COPY FROM (%s): %v, %v", f, tag, err)
			continue
		}
		if got := testkit.Value(t, conn, "select count(*) from (select * from d except select * from e) x"); got != "0" {
			t.Errorf("%s rows differ after COPY (%s)", got, f)
		}
	}
	testkit.Exec(t, conn, "create table k (id int primary key, v text not null check (v <> 'no'))")
	for _, bad := range []struct{ sql, data, state, text string }{
		{"copy k from stdin", "1\ta\n2\n", "22P04", `missing data for column "v"`},
		{"copy k from stdin", "1\ta\n2\tb\tc\n", "22P04", "extra data after last expected column"},
		{"copy k from stdin", "1\ta\nx\tb\n", "22P02", `invalid input syntax for type integer: "x"`},
		{"copy k from stdin", "1\ta\n1\tb\n", "23505", "duplicate key"},
		{"copy k from stdin", "1\t\\N\n", "23502", "null value in column"},
		{"copy k from stdin", "1\tno\n", "23514", "check constraint"},
		{"copy k from stdin", "1\t\xff\n", "22021", "invalid byte sequence"},
		{"copy k from stdin csv", "1,a\n2\n", "22P04", `missing data for column "v"`},
		{"copy k from stdin csv", "1,a\nx,b\n", "22P02", "invalid input syntax"},
		{"copy k from stdin csv", "1,\"a\n", "22P04", "unterminated CSV quoted field"},
		{"copy k from stdin binary", "nonsense", "22P04", "COPY file signature not recognized"},
		{"copy k (id, nix) from stdin", "", "42703", `column "nix"`},
		{"copy nix from stdin", "", "42P01", `relation "nix" does not exist`},
		{"copy k from stdin (format nix)", "", "22023", `COPY format "nix" not recognized`},
	} {
		_, err := pc.CopyFrom(ctx, strings.NewReader(bad.data), bad.sql)
		if testkit.SQLState(err) != bad.state || !strings.Contains(testkit.ErrorText(err), bad.text) {
			t.Errorf("%s with %q: %v, expected %s %s", bad.sql, bad.data, err, bad.state, bad.text)
		}
		if got := testkit.Value(t, conn, "select count(*) from k"); got != "0" {
			t.Fatalf("%s rows stay after %s with %q", got, bad.sql, bad.data)
		}
	}
	// A client that gives up.
	giveUp := errors.New("the client gives up")
	for _, sql := range []string{"copy k from stdin", "copy k from stdin csv"} {
		_, err = pc.CopyFrom(ctx, io.MultiReader(strings.NewReader("1\ta\n2\tb\n"), failingReader{giveUp}), sql)
		if err == nil {
			t.Errorf("%s went well", sql)
		}
	}
	if got := testkit.Value(t, conn, "select count(*) from k"); got != "0" {
		t.Errorf("%s rows stay after CopyFail", got)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// TestGoneClients leaves in the middle of things: what they held is freed.
func TestGoneClients(t *testing.T) {
	c, db, conn := driverTable(t)
	wide(t, c, db)
	backends := func(conn *pgx.Conn) string {
		return testkit.Value(t, conn, "select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()")
	}
	var segs []*pgx.Conn
	for dbid := uint16(firstSegment); dbid <= lastSegment; dbid++ {
		segs = append(segs, c.Utility(t, dbid, db))
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if n := backends(conn); n != "0" {
			return fmt.Errorf("%s backends of the set-up are left", n)
		}
		return nil
	})
	before := make([]string, len(segs))
	for i := range segs {
		before[i] = backends(segs[i])
	}
	for _, sql := range []string{"select * from wide", "select a.id, a.pad from wide a, wide b", "copy wide to stdout", "copy wide from stdin", "copy wide from stdin csv",
		"begin; lock table d in access share mode; declare c cursor for select * from wide; fetch 10 from c", "select pg_sleep(0.01) from d", "listen x"} {
		gone := c.Connect(t, db)
		hj, err := gone.PgConn().Hijack()
		if err != nil {
			t.Fatal(err)
		}
		hj.Frontend.Send(&pgproto3.Query{String: sql})
		if err := hj.Frontend.Flush(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // let it start
		hj.Conn.Close()
		testkit.Eventually(t, 15*time.Second, func() error {
			if n := backends(conn); n != "0" {
				return fmt.Errorf("%s: %s backends on the coordinator", sql, n)
			}
			for i := range segs {
				if n := backends(segs[i]); n != before[i] {
					return fmt.Errorf("%s: %s backends on segment %d, expected %s", sql, n, i, before[i])
				}
			}
			return nil
		})
	}
	if got := testkit.Value(t, conn, "select count(*) from wide"); got != "90000" {
		t.Errorf("%s rows", got)
	}
}

// TestCancelEverywhere ends queries wherever they are.
func TestCancelEverywhere(t *testing.T) {
	c, db, conn := driverTable(t)
	wide(t, c, db)
	for _, sql := range []string{"select pg_sleep(30)", "select count(*), sum(pg_sleep(1)::text::int) from d", "select count(*) from wide a, wide b where a.id <> b.id",
		"select a.pad from wide a, wide b", "update d set name = pg_sleep(30)::text", "insert into d (name) select pg_sleep(30)::text",
		"do $$ begin perform pg_sleep(30); end $$", "create table x as select pg_sleep(30)::text from d"} {
		for _, block := range []string{"", "begin"} {
			if block != "" {
				testkit.Exec(t, conn, block)
			}
			time.AfterFunc(200*time.Millisecond, func() { _ = conn.PgConn().CancelRequest(context.Background()) })
			start := time.Now()
			err := testkit.TryExec(conn, sql)
			if testkit.SQLState(err) != "57014" || time.Since(start) > 3*time.Second {
				t.Errorf("%s %s: after %v: %v", block, sql, time.Since(start), err)
			}
			if block != "" {
				if err := testkit.TryExec(conn, "select 1"); testkit.SQLState(err) != "25P02" {
					t.Errorf("%s: the block goes on: %v", sql, err)
				}
				testkit.Exec(t, conn, "rollback")
			}
			if n := testkit.Value(t, conn, "select count(*) from d"); n != "1000" {
				t.Fatalf("%s rows after %s", n, sql)
			}
		}
	}
}

// TestCursorsTime has a client think for longer than statement_timeout between the
// statements of a cursor, which is not their time.
func TestCursorsTime(t *testing.T) {
	_, _, conn := driverTable(t)
	const cursor = "declare c cursor for select x.id from d x join d y on x.id = y.id + 1 where random() < 2 order by 1"
	for _, level := range []string{"read committed", "repeatable read"} {
		testkit.Exec(t, conn, "begin isolation level "+level+"; set local statement_timeout = '500ms'; "+cursor)
		for _, want := range []string{"2", "3"} {
			time.Sleep(700 * time.Millisecond)
			if got := testkit.Value(t, conn, "fetch c"); got != want {
				t.Errorf("%s: got %s, want %s", level, got, want)
			}
		}
		if err := testkit.TryExec(conn, "select count(*) from d, d e, d f where d.id + e.id + f.id < 0"); testkit.SQLState(err) != "57014" {
			t.Errorf("%s: a long statement after it: %v", level, err)
		}
		testkit.Exec(t, conn, "rollback")
	}
}

// TestTemporaryUtilities runs utility statements of their own on temporary tables,
// which no transaction that has used them can be prepared with.
func TestTemporaryUtilities(t *testing.T) {
	_, _, conn := driverTable(t)
	for _, sql := range []string{"create temp table tt (i int, j int) distributed by (i)", "insert into tt select i, i from generate_series(1, 100) i",
		"analyze tt", "analyze", "create index ti on tt (j)", "alter table tt add k int", "comment on table tt is 'x'", "comment on column tt.i is 'x'",
		"create statistics tst on i, j from tt", "drop statistics tst", "reindex table tt", "alter index ti rename to tj", "drop index tj",
		"grant select on tt to public", "truncate tt", "alter table tt rename to tu", "vacuum tu", "drop table tu"} {
		if err := testkit.TryExec(conn, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := testkit.TryExec(conn, "insert into nosuch select * from d"); testkit.SQLState(err) != "42P01" {
		t.Errorf("an INSERT into what is not there: %v", err)
	}
}

// TestParametersAnywhere gives parameters to statements that PostgreSQL plans
// late or not at all.
func TestParametersAnywhere(t *testing.T) {
	_, _, conn := driverTable(t)
	ctx := bounded(t)
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "declare c cursor for select name, $2::text from d where id >= $1 and at > $3 order by id", 10, "it's", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	var name, text string
	if err := tx.QueryRow(ctx, "fetch 1 from c").Scan(&name, &text); err != nil || name != "n10" || text != "it's" {
		t.Errorf("%s, %s, %v", name, text, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	tag, err := conn.Exec(ctx, "create table x as select id, $1::text as said from d where id < $2 distributed by (id)", "hm", 11)
	if err != nil || tag.RowsAffected() != 10 {
		t.Errorf("%v, %v", tag, err)
	}
	rows, err := conn.Query(ctx, "explain select * from d where id = $1", 7)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if plan := strings.Join(lines, "\n"); err != nil || !strings.Contains(plan, "Gather Motion") || !strings.Contains(plan, "id = 7") {
		t.Errorf("%s, %v", plan, err)
	}
	for _, sql := range []string{"insert into d (id, name) select id + 1000000, $1 from d where id = $2", "update d set name = $1 where id = $2", "delete from d where name = $1 or id = $2"} {
		if _, err := conn.Exec(ctx, sql, "p", 5); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := testkit.Value(t, conn, "select count(*) from d"); n != "999" {
		t.Errorf("%s rows, expected 999", n)
	}
}

// TestRights lets a user do what he may, and no more, as in PostgreSQL.
func TestRights(t *testing.T) {
	_, _, conn := driverTable(t)
	testkit.Exec(t, conn, `create role may login; create role friend; grant friend to may; create schema closed; create table closed.s (id int) distributed by (id);
		create table part (id int, seen text, hidden text) distributed by (id); insert into part values (1, 'a', 'x'), (2, 'b', 'y');
		grant select (id, seen), update (seen) on part to may;
		create view narrow as select id, name from d where id < 10; create view mine as select id from d where name = current_user;
		create view summary as select count(*) as n from d; create view deep as select * from closed.s; create view unseen as select 1 as one from part;
		grant select on narrow, mine, summary, deep to may; grant select on d to friend; revoke friend from may`)
	t.Cleanup(func() {
		_ = testkit.TryExec(conn, "drop owned by may, friend")
		_ = testkit.TryExec(conn, "drop role may, friend")
	})
	may := testkit.ConnectAs(t, conn, "may")
	check := func(allowed map[string]string, denied ...string) {
		t.Helper()
		for sql, want := range allowed {
			if got, err := testkit.TryQuery(may, sql); err != nil || strings.Join(got, ",") != want {
				t.Errorf("%s: %v, %v; expected %s", sql, got, err, want)
			}
		}
		for _, sql := range denied {
			if err := testkit.TryExec(may, sql); testkit.SQLState(err) != "42501" {
				t.Errorf("%s: %v, expected it to be denied", sql, err)
			}
		}
	}
	check(map[string]string{
		"select count(*) from narrow": "9", "select count(*) from mine": "0", "select count(*) from deep": "0", "select * from summary": "1000", "select sum(n.id) from narrow n join narrow m using (id)": "45",
		"select id from part order by id": "1,2", "select count(seen) from part": "2", "update part set seen = 'c' where id = 1 returning seen": "c",
	}, "select * from d", "select id from d where id = 5", "select count(*) from d", "insert into d (id) values (1)", "update d set name = ''", "delete from d", "truncate d", "drop table d",
		"alter table d add x int", "create index on d (id)", "copy d to stdout", "select * from closed.s", "insert into closed.s values (1)",
		"select * from part", "select hidden from part", "update part set hidden = ''", "update part set id = 1", "delete from part", "insert into part values (1)",
		"select * from unseen", "create table nix (id int)", "create schema nix", "create role nix", "set role friend", "set session authorization gpadmin",
		"alter table d set distributed randomly", "alter system set work_mem = '1MB'", "set log_statement = 'all'", "select pg_catalog.gp_set_policy('d'::regclass, 'r', 3, '')",
		"begin; select count(*) from narrow; select * from d")
	_ = testkit.TryExec(may, "rollback")
	// A right that is given is there at once, one that is taken is not.
	testkit.Exec(t, conn, "grant friend to may")
	check(map[string]string{"select count(*) from d": "1000", "select n from summary": "1000", "select count(*) from d where id < 3": "2"},
		"select * from part")
	check(map[string]string{"set role friend; select count(*) from d": "1000"}, "select * from part", "select * from narrow")
	testkit.Exec(t, may, "reset role")
	testkit.Exec(t, conn, "revoke friend from may")
	check(nil, "select count(*) from d")
	// A superuser in the role of another has only its rights.
	testkit.Exec(t, conn, "set session authorization may")
	if err := testkit.TryExec(conn, "select * from d"); testkit.SQLState(err) != "42501" {
		t.Errorf("as may: %v", err)
	}
	testkit.Exec(t, conn, "reset session authorization")
	testkit.Exec(t, conn, "begin; set local role may")
	if err := testkit.TryExec(conn, "select * from d"); testkit.SQLState(err) != "42501" {
		t.Errorf("as may: %v", err)
	}
	testkit.Exec(t, conn, "rollback")
	if n := testkit.Value(t, conn, "select count(*) from d"); n != "1000" {
		t.Errorf("%s rows", n)
	}
}

// TestSessionState changes parameters in all ways and looks whether the
// segments follow, also when the change is taken back.
func TestSessionState(t *testing.T) {
	_, _, conn := driverTable(t)
	// It runs where the table is: nobody else knows the segment's value.
	testkit.Exec(t, conn, `create function there(int) returns text language sql immutable as $$ select current_setting('work_mem') $$;
		create schema s1; create table s1.d (id int) distributed by (id); insert into s1.d values (1), (2)`)
	check := func(want, rows string) {
		t.Helper()
		if got := strings.Join(testkit.Query(t, conn, "select distinct there(id) from public.d where id < 50"), ","); got != want {
			t.Errorf("work_mem is %s on the segments, expected %s", got, want)
		}
		if got := testkit.Value(t, conn, "select count(*) from d"); got != rows {
			t.Errorf("d is the table with %s rows, expected %s", got, rows)
		}
	}
	check("4MB", "1000")
	testkit.Exec(t, conn, "set work_mem = '5MB'; set search_path = s1, public")
	check("5MB", "2")
	testkit.Exec(t, conn, "begin; set local work_mem = '6MB'; set local search_path = public")
	check("6MB", "1000")
	testkit.Exec(t, conn, "commit")
	check("5MB", "2")
	testkit.Exec(t, conn, "begin; set work_mem = '7MB'")
	check("7MB", "2")
	testkit.Exec(t, conn, "savepoint s; set work_mem = '8MB'; set search_path = public")
	check("8MB", "1000")
	testkit.Exec(t, conn, "rollback to s")
	check("7MB", "2")
	testkit.Exec(t, conn, "rollback")
	check("5MB", "2")
	testkit.Exec(t, conn, "begin; set local work_mem = '8MB'")
	check("8MB", "2")
	testkit.Exec(t, conn, "reset work_mem")
	check("4MB", "2")
	testkit.Exec(t, conn, "rollback")
	check("5MB", "2")
	testkit.Exec(t, conn, "reset work_mem")
	testkit.Exec(t, conn, "begin; set local work_mem = '8MB'")
	check("8MB", "2")
	testkit.Exec(t, conn, "reset work_mem")
	check("4MB", "2")
	testkit.Exec(t, conn, "rollback")
	check("4MB", "2")
	testkit.Exec(t, conn, "select set_config('work_mem', '9MB', false)")
	check("9MB", "2")
	testkit.Exec(t, conn, "reset all")
	check("4MB", "1000")
	testkit.Exec(t, conn, "do $$ begin perform set_config('work_mem', '10MB', false); end $$")
	check("10MB", "1000")
	testkit.Exec(t, conn, "discard all")
	check("4MB", "1000")
	// By functions, whose callers do not show it.
	testkit.Exec(t, conn, `create function sets(name text, value text) returns int language plpgsql as $$ begin perform set_config(name, value, false); return 1; end $$;
		create function calls(text, text) returns int language sql as 'select public.sets($1, $2)';
		create function alters(value text) returns void language plpgsql as $$ begin execute 'set work_mem = ' || quote_literal(value); set search_path = s1, public; end $$`)
	testkit.Exec(t, conn, "select calls('work_mem', '6MB'), sets('search_path', 's1, public')")
	check("6MB", "2")
	testkit.Exec(t, conn, "begin; select sets('work_mem', '7MB'), calls('search_path', 'public')")
	check("7MB", "1000")
	testkit.Exec(t, conn, "rollback")
	check("6MB", "2")
	testkit.Exec(t, conn, "reset all")
	check("4MB", "1000")
	testkit.Exec(t, conn, "select alters('8MB')")
	check("8MB", "2")
	testkit.Exec(t, conn, "reset all")
	for _, sql := range []string{"set client_encoding = 'MULE_INTERNAL'", "set names 'euc_jis_2004'"} {
		if err := testkit.TryExec(conn, sql); testkit.SQLState(err) != "0A000" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// Temporary tables, in and out of transactions with others.
	testkit.Exec(t, conn, `create temp table tmp (a int) distributed by (a); insert into tmp select generate_series(1, 100)`)
	testkit.Exec(t, conn, "begin; insert into tmp values (101); insert into d (id) values (2000); commit")
	testkit.Exec(t, conn, "begin; select count(*) from tmp; delete from d where id = 2000; commit")
	if got := testkit.Value(t, conn, "select count(*) from tmp, d where a = id"); got != "101" {
		t.Errorf("%s rows", got)
	}
	testkit.Exec(t, conn, "drop table tmp; begin; create temp table tmp on commit drop as select * from d; commit")
	if err := testkit.TryExec(conn, "select * from tmp"); testkit.SQLState(err) != "42P01" {
		t.Errorf("the table that was to be dropped: %v", err)
	}
}

// TestRowsWithoutColumns reads rows that have none, whichever way they go.
func TestRowsWithoutColumns(t *testing.T) {
	_, _, conn := driverTable(t)
	for sql, want := range map[string]int{
		"select from d":                          1000,
		"select from d where id < 9 order by id": 8,
		"begin; declare c cursor for select from d; fetch 5 from c; fetch all from c; rollback":                             1000,
		"begin; declare c cursor for select from d where id < 9 order by id; fetch 5 from c; rollback":                      5,
		"begin; declare c cursor with hold for select from d where id < 9; commit; fetch 3 from c; fetch 9 from c; close c": 8,
		"begin; declare c cursor for select from d a join d b using (id); fetch 7 from c; rollback":                         7,
		"select from (select from d limit 10) x, generate_series(1, 2)":                                                     20,
	} {
		rows, err := testkit.TryQuery(conn, sql)
		if err != nil || len(rows) != want {
			t.Errorf("%s: %d rows, %v; expected %d", sql, len(rows), err, want)
		}
		if conn.PgConn().TxStatus() != 'I' {
			testkit.Exec(t, conn, "rollback")
		}
	}
}

// TestPsqlExtras does with psql what no other test does.
func TestPsqlExtras(t *testing.T) {
	c, db, _ := driverTable(t)
	for input, want := range map[string]string{
		"\\set FETCH_COUNT 7\nselect count(*) from (select * from d) x; select id from d where id < 31 order by id;":                                                          "1000\n" + numbers(1, 30),
		"\\lo_import /etc/hostname\n\\lo_unlink :LASTOID\nselect count(*) from pg_largeobject;":                                                                               "0\n",
		"select max(id) as m from d \\gset\n\\echo :m":                                                                                                                        "1000\n",
		"select 'select ' || id from d where id = 3 \\gexec":                                                                                                                  "3\n",
		"select id, name from d where id = 3 \\gdesc":                                                                                                                         "id|integer\nname|text\n",
		"begin; declare h cursor with hold for select id from d where id < 4 order by id; commit; fetch 1 from h; select count(*) from d; fetch all from h; close h;":         "1\n1000\n2\n3\n",
		"begin; declare c scroll cursor for select id from d order by id; fetch last from c; fetch first from c; fetch absolute 5 from c; fetch backward 2 from c; rollback;": "1000\n1\n5\n4\n3\n",
		"create temp table one (a int) distributed randomly;\n\\copy one from stdin\n1\n2\n\\.\n\\copy (select a + 1 from one order by 1) to stdout":                          "2\n3\n",
	} {
		out, err := c.ShellInput(input, "psql -XAtq -v ON_ERROR_STOP=1 -d "+db)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\nprinted %q, %v; expected %q", input, out, err, want)
		}
	}
}

func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// TestNonsense sends what no client should: it is told so, and that is all.
func TestNonsense(t *testing.T) {
	c, db, conn := driverTable(t)
	for name, junk := range map[string]string{"type": "?\x00\x00\x00\x04", "length": "Q\xff\xff\xff\xff", "text without end": "Q\x00\x00\x00\x08abcd", "bind": "B\x00\x00\x00\x08\x00\x00\xff\xff"} {
		other := c.Connect(t, db)
		hj, err := other.PgConn().Hijack()
		if err != nil {
			t.Fatal(err)
		}
		_ = hj.Conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := hj.Conn.Write([]byte(junk)); err != nil {
			t.Fatal(err)
		}
		m, err := hj.Frontend.Receive()
		if e, ok := m.(*pgproto3.ErrorResponse); !ok || e.Severity != "FATAL" || e.Code != "08P01" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		hj.Conn.Close()
	}
	if n := testkit.Value(t, conn, "select count(*) from d"); n != "1000" {
		t.Errorf("%s rows", n)
	}
}
