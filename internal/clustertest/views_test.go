package clustertest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// viewSchema is made on the cluster and, without DISTRIBUTED, on a plain
// PostgreSQL. The reader may read views and no table.
const viewSchema = `
create role view_owner; create role view_inner; create role view_reader login; create role view_nobody;
create schema vs; grant usage on schema vs to view_owner, view_inner, view_reader, view_nobody; grant create on schema vs to view_owner, view_inner, view_reader, view_nobody;
create schema vault; grant usage, create on schema vault to view_owner;
set role view_owner;
create table vs.a (id int, g int, x numeric, "Note %d" text) distributed by (id);
insert into vs.a select i, i % 7, i * 1.5, 'note ' || i from generate_series(1, 100) i;
create table vs.b (bid int, aid int, k text) distributed by (bid);
insert into vs.b select i, i % 100 + 1, chr(97 + i % 5) from generate_series(1, 200) i;
create table vs.r (g int, name text) distributed replicated;
insert into vs.r select i, 'group ' || i from generate_series(0, 6) i;
create table vault.hidden (id int, h int) distributed by (id);
insert into vault.hidden select i, i % 3 from generate_series(1, 30) i;
create function vs.whoami() returns text language sql stable as 'select current_user::text';
create view vs.v_local as select id, x from vs.a where id <= 10;
create view vs.v_agg as select g, count(*) as n, sum(x) as s from vs.a group by g;
create view vs.v_all as select count(*) as n, max("Note %d") as note from vs.a;
create view vs.v_rows as select count(*) as n from vs.a where id > 3 and g is not null;
create view vs.v_join as select a.id, a.x, b.bid, b.k from vs.a join vs.b on a.id = b.aid where b.k <> 'c';
create view vs.v_key as select k, avg(x) as m from vs.a join vs.b on aid = id group by k;
create view vs.v_repl as select r.name, count(*) as n from vs.a join vs.r using (g) group by r.name;
create view vs.v_union as select id, 'a' as t from vs.a where id < 5 union all select bid, k from vs.b where bid < 4 union select 1, 'a';
create view vs.v_limit as select id, x from vs.a order by x desc, id limit 5 offset 2;
create view vs.v_distinct as select distinct g, id % 2 as odd from vs.a;
create view vs.v_window as select id, g, rank() over (partition by g order by x desc) as place, sum(x) over (order by id) as run from vs.a;
create view vs.v_cte as with big as (select * from vs.a where x > 100), per as (select aid, count(*) as n from vs.b group by aid) select big.id, per.n from big left join per on per.aid = big.id;
create view vs.v_recursive as with recursive up(i) as (select min(id) from vs.a union all select up.i + 1 from up where up.i < (select count(*) from vs.r)) select i from up;
create view vs.v_sub as select r.g, (select count(*) from vs.a where a.g = r.g) as n, exists (select from vs.b where b.aid = r.g) as seen from vs.r;
create view vs.v_outer as select a.id, b.bid from vs.a left join vs.b on b.aid = a.id and b.bid > 150 where a.id < 20;
create view vs.v_whole as select a as row, a.id from vs.a join vs.b on bid = g;
create view vs.v_system as select count(distinct ctid) > 0 as some, count(tableoid) as n from vs.a;
create view vs.v_vault as select h, count(*) as n from vault.hidden group by h;
create view vs.v_who as select vs.whoami() as f, current_user as u, count(*) as n from vs.a;
create view vs.v_user as select id, count(*) over () as n from vs.a where "Note %d" = 'note 4' or "Note %d" = current_user;
create view vs.v_barrier with (security_barrier) as select id, g, count(*) over (partition by g) as n from vs.a where id % 10 = 0;
create view vs.v_invoker with (security_invoker) as select g, count(*) as n from vs.a group by g;
create view vs.v_columns as select g, sum(id) as ids, sum(x) as xs from vs.a group by g;
create view vs.v_revoked as select count(*) as n from vs.a;
create view vs.v_ungranted as select count(*) as n from vs.a;
create view vs.v_sample as select count(*) as n from vs.b tablesample bernoulli (100);
create view vs.v_over_invoker as select * from vs.v_invoker;
grant select on vs.v_local, vs.v_agg, vs.v_all, vs.v_rows, vs.v_join, vs.v_key, vs.v_repl, vs.v_union, vs.v_limit, vs.v_distinct, vs.v_window, vs.v_cte, vs.v_recursive,
	vs.v_sub, vs.v_outer, vs.v_whole, vs.v_system, vs.v_vault, vs.v_who, vs.v_user, vs.v_barrier, vs.v_invoker, vs.v_revoked, vs.v_sample, vs.v_over_invoker to view_reader;
grant select (g, ids) on vs.v_columns to view_reader;
grant select (id, g) on vs.a to view_inner; grant select on vs.v_agg, vs.v_revoked to view_inner;
reset role; set role view_inner;
create table vs.own (id int, w int) distributed by (w);
insert into vs.own select i, i % 4 from generate_series(1, 40) i;
create view vs.i_nested as select w, n, s from vs.own join vs.v_agg on g = id;
create view vs.i_columns as select g, count(id) as n from vs.a group by g;
create view vs.i_denied as select g, sum(x) as s from vs.a group by g;
create view vs.i_ungranted as select * from vs.v_ungranted;
create view vs.i_revoked as select n + 1 as n from vs.v_revoked;
grant select on vs.i_nested, vs.i_columns, vs.i_denied, vs.i_ungranted, vs.i_revoked to view_owner, view_reader;
reset role; set role view_owner;
create view vs.o_deep as select w, max(s) as m from vs.i_nested group by w;
grant select on vs.o_deep to view_reader;
revoke select on vs.v_revoked from view_reader, view_inner;
reset role; set role view_nobody;
create view vs.n_denied as select count(*) as n from vs.b;
create view vs.n_local as select bid from vs.b;
grant select on vs.n_denied, vs.n_local to view_reader;
reset role; set role view_inner;
create table vs.rules (who text, least int) distributed replicated; insert into vs.rules values ('view_reader', 3), ('view_inner', 9);
create table vs.ruled (id int, who text, x int) distributed by (id);
insert into vs.ruled select i, (array['view_reader', 'view_inner', 'view_owner'])[i % 3 + 1], i from generate_series(1, 60) i;
alter table vs.ruled enable row level security;
create policy own on vs.ruled using (who = current_user);
create policy big on vs.ruled for select to view_owner using (x > 55 and id > (select min(least) from vs.rules));
create policy even on vs.ruled as restrictive to view_owner, view_nobody using (x % 2 = 0);
create policy not_this on vs.ruled for delete using (true);
grant select on vs.ruled, vs.rules to view_owner, view_nobody;
create view vs.p_owner as select who, count(*) as n, sum(x) as s from vs.ruled group by who;
reset role; set role view_owner;
create view vs.p_other as select who, count(*) as n, sum(x) as s from vs.ruled group by who;
create view vs.p_join as select r.id, b.k, r from vs.ruled r join vs.b on b.aid = r.x;
create view vs.p_rows as select id from vs.ruled;
reset role; set role view_nobody;
create view vs.p_no_rules as select count(*) as n from vs.ruled;
reset role; grant select on vs.p_owner, vs.p_other, vs.p_join, vs.p_rows, vs.p_no_rules to view_reader, view_inner;`

var distributed = regexp.MustCompile(` distributed (by \(\w+\)|replicated)`)

// bySegment is what an error of a segment says of where it is from.
var bySegment = regexp.MustCompile(` \(seg\d+ [^)]*\)`)

// TestViewRights reads views as one who may read them and not their tables, and
// as one who may read everything. Rows and refusals are PostgreSQL's.
func TestViewRights(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	super := c.Connect(t, db)
	plain := c.PlainPostgres(t)
	drop := func() {
		for _, conn := range []*pgx.Conn{super, plain} {
			_ = testkit.TryExec(conn, "reset session authorization; drop owned by view_owner, view_inner, view_reader, view_nobody cascade")
			_ = testkit.TryExec(conn, "drop schema vs cascade; drop schema vault cascade; drop role view_owner, view_inner, view_reader, view_nobody")
		}
	}
	t.Cleanup(drop)
	testkit.Exec(t, super, viewSchema)
	testkit.Exec(t, plain, distributed.ReplaceAllString(viewSchema, ""))
	reader := testkit.ConnectAs(t, super, "view_reader")
	testkit.Exec(t, plain, "set session authorization view_reader")

	queries := []string{
		"select * from vs.v_local", "select count(*), sum(x) from vs.v_local where id > 3",
		"select * from vs.v_agg", "select n from vs.v_agg where g = 3", "select sum(n) from vs.v_agg", "select * from vs.v_all", "select n from vs.v_rows",
		"select * from vs.v_join", "select k, count(*) from vs.v_join group by k", "select * from vs.v_join where id = 7 and k > 'a'",
		"select * from vs.v_key", "select * from vs.v_repl", "select * from vs.v_union", "select * from vs.v_limit", "select max(x) from vs.v_limit", "select * from vs.v_distinct",
		"select * from vs.v_window", "select id from vs.v_window where place = 1", "select * from vs.v_cte", "select * from vs.v_recursive", "select * from vs.v_sub", "select * from vs.v_outer",
		"select id from vs.v_whole", "select (v.row).g, v.id from vs.v_whole v", "select * from vs.v_system", "select * from vs.v_vault", "select * from vs.v_who", "select * from vs.v_user", "select * from vs.v_sample",
		"select * from vs.v_invoker", "select * from vs.v_over_invoker",
		"select g, ids from vs.v_columns", "select g from vs.v_columns where xs > 0", "select * from vs.v_columns", "select count(*) from vs.v_columns",
		"select * from vs.v_revoked", "select * from vs.v_ungranted", "select * from vs.v_nowhere", "select nix from vs.v_agg",
		"select * from vs.i_nested", "select * from vs.i_columns", "select * from vs.i_denied", "select * from vs.i_ungranted", "select * from vs.i_revoked", "select * from vs.o_deep",
		"select * from vs.n_denied", "select * from vs.n_local", "select n from vs.n_denied where false",
		"select * from vs.a", "select count(*) from vs.a join vs.v_agg using (g)", "select g from vs.v_agg union select id from vs.b", "select * from vault.hidden",
		"select * from vs.v_agg x join vs.i_nested y using (n) join vs.i_columns z on x.g = z.g where w = 1",
		"select (select n from vs.v_agg v where v.g = l.id) from vs.v_local l", "with w as (select * from vs.v_key) select count(*) from w",
		"select v from vs.v_agg v where v.g = 1", "select vs.whoami(), n from vs.v_all", "select current_user, g from vs.v_agg",
		"create temp table copied as select * from vs.v_agg; select * from copied", "insert into copied select g, ids, 0 from vs.v_columns; select count(*) from copied",
		"begin; declare c cursor for select id, bid from vs.v_outer order by id, bid; fetch 3 from c; commit",
		"copy (select id, k from vs.v_join where id < 3 order by 1, 2) to stdout",
		"select * from vs.p_owner", "select * from vs.p_other", "select id, k from vs.p_join", "select id, (r).x from vs.p_join", "select * from vs.p_rows", "select * from vs.p_no_rules", "select * from vs.ruled",
		"begin isolation level repeatable read read only; select * from vs.v_agg; commit",
	}
	compare := func(who string, conn *pgx.Conn) {
		t.Helper()
		for _, sql := range queries {
			want, wantErr := answer(plain, sql, false, nil)
			got, gotErr := answer(conn, sql, false, nil)
			if testkit.SQLState(wantErr) != testkit.SQLState(gotErr) || testkit.SQLState(wantErr) == "42501" && wantErr.Error() != bySegment.ReplaceAllString(gotErr.Error(), "") {
				t.Errorf("%s: %s: %v; PostgreSQL: %v", who, sql, gotErr, wantErr)
			} else if w, g := strings.Join(sorted(want), "\n"), strings.Join(sorted(got), "\n"); w != g {
				t.Errorf("%s: %s:\n%s\nPostgreSQL:\n%s", who, sql, g, w)
			}
			for _, conn := range []*pgx.Conn{plain, conn} {
				_ = testkit.TryExec(conn, "rollback")
			}
		}
	}
	queries = append(queries, "select * from vs.v_agg for update")
	compare("reader", reader)
	queries = queries[:len(queries)-1]
	for _, conn := range []*pgx.Conn{plain, super} {
		testkit.Exec(t, conn, "drop table if exists copied; reset session authorization; set role view_inner")
	}
	compare("owner of some", super)
	for _, conn := range []*pgx.Conn{plain, super} {
		testkit.Exec(t, conn, "drop table if exists copied; reset role")
	}
	compare("superuser", super)

	for _, sql := range []string{"select n from vs.v_agg where g = $1", "select count(*) from vs.v_join where k = $2 and id < $1", "select xs from vs.v_columns where g = $1"} {
		_ = testkit.TryExec(plain, "set session authorization view_reader")
		params := [][]byte{[]byte("3"), []byte("b")}[:strings.Count(sql, "$")]
		want, wantErr := answer(plain, sql, true, params)
		got, gotErr := answer(reader, sql, true, params)
		if testkit.SQLState(wantErr) != testkit.SQLState(gotErr) || strings.Join(want, "\n") != strings.Join(got, "\n") {
			t.Errorf("%s: %v, %v; PostgreSQL: %v, %v", sql, got, gotErr, want, wantErr)
		}
	}
}

// TestViewRightsGuarded tries to see by a view what it leaves out.
func TestViewRightsGuarded(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	super := c.Connect(t, db)
	t.Cleanup(func() {
		_ = testkit.TryExec(super, "reset role; rollback; drop owned by guard_owner, guard_reader cascade")
		_ = testkit.TryExec(super, "drop role guard_owner, guard_reader")
	})
	testkit.Exec(t, super, `create role guard_owner; create role guard_reader login; grant create on schema public to guard_owner, guard_reader; set role guard_owner;
		create table secrets (id int, g int, word text) distributed by (id); insert into secrets select i, i % 3, 'word ' || i from generate_series(1, 30) i;
		create view open_words with (security_barrier) as select s.id, s.word, p.n from secrets s join (select g, count(*) as n from secrets group by g) p using (g) where s.id % 10 = 0;
		create view counted as select count(*) as n from secrets;
		grant select on open_words, counted to guard_reader; grant insert on secrets to guard_reader; reset role`)
	reader := testkit.ConnectAs(t, super, "guard_reader")
	testkit.Exec(t, reader, `create function leak(w text) returns boolean language plpgsql cost 0.0001 immutable as $$ begin
		if w not in ('word 10', 'word 20', 'word 30') then raise exception 'seen %', w; end if; return true; end $$`)
	if n := testkit.Value(t, reader, "select count(*) from open_words where leak(word)"); n != "3" {
		t.Errorf("%s rows, expected 3", n)
	}
	// The function behind it all is of no use by itself.
	for _, sql := range []string{"select * from gp_owner_rows('x') as t(id int)", "select * from gp_owner_rows('../../PG_VERSION') as t(id int)", "select gp_lock_to_read('secrets')"} {
		if err := testkit.TryExec(reader, sql); testkit.SQLState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	// A transaction sees what it has written itself.
	testkit.Exec(t, reader, "begin; insert into secrets values (31, 1, 'x')")
	if n := testkit.Value(t, reader, "select n from counted"); n != "31" {
		t.Errorf("%s rows, expected 31", n)
	}
	testkit.Exec(t, reader, "rollback")
	if n := testkit.Value(t, reader, "select n from counted"); n != "30" {
		t.Errorf("%s rows, expected 30", n)
	}
	plan := strings.Join(testkit.Query(t, reader, "explain select * from counted"), "\n")
	if !strings.Contains(plan, "Scan on secrets with the rights of guard_owner") {
		t.Errorf("%s", plan)
	}
	if err := testkit.TryExec(reader, "explain select * from secrets"); testkit.SQLState(err) != "42501" {
		t.Errorf("explain: %v", err)
	}
	testkit.Exec(t, super, "revoke select on counted from guard_reader")
	if err := testkit.TryExec(reader, "select n from counted"); testkit.SQLState(err) != "42501" {
		t.Errorf("a right that is gone: %v", err)
	}
	testkit.Exec(t, super, "grant select on counted to guard_reader; revoke select on secrets from guard_owner")
	if err := testkit.TryExec(reader, "select n from counted"); testkit.SQLState(err) != "42501" || !strings.Contains(err.Error(), "permission denied for table secrets") {
		t.Errorf("a right that the owner has not got: %v", err)
	}
}
