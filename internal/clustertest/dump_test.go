package clustertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// dumped is a database with something of everything that a dump has to bring
// back.
const dumped = `
	create schema shop;
	create type shop.mood as enum ('sad', 'ok', 'happy');
	create domain shop.posint as int check (value > 0);
	create sequence shop.seq start 42 increment 3;
	create table shop.hashed (k1 int, k2 text, v numeric default 1.5, m shop.mood, primary key (k1, k2)) distributed by (k2, k1);
	create table shop.second (a int, b text, c int, constraint chk check (a > 0)) distributed by (c);
	create table shop.child (extra text) inherits (shop.second) distributed by (c);
	create table shop.bare (); insert into shop.bare select from generate_series(1, 7);
	create table shop.rnd (at timestamptz, note text) distributed randomly;
	create table shop."Rep l'icated" (name text, rgb bytea) distributed replicated;
	create table shop.ser (id serial, gen int generated always as identity, dbl int generated always as (7) stored, p shop.posint, "Key" int) distributed by ("Key");
	create table shop.part (id int, day date, amount int) distributed by (amount) partition by range (day);
	create table shop.part_jan partition of shop.part for values from ('2024-01-01') to ('2024-02-01');
	create table shop.part_feb partition of shop.part for values from ('2024-02-01') to ('2024-03-01') partition by list (id);
	create table shop.part_feb_rest partition of shop.part_feb default;
	create table shop.part_rest partition of shop.part default;
	create index part_amount on shop.part (amount);
	create unlogged table shop.unlogged (x int, old int) distributed by (old);
	alter table shop.unlogged rename old to new;
	create view shop.dear as select h.k1, r.name from shop.hashed h join shop."Rep l'icated" r on r.name = h.k2;
	create function shop.twice(i int) returns int language sql immutable as 'select 2 * i';
	create function shop.total() returns bigint language plpgsql as $$ begin return (select sum(a) from shop.second); end $$;
	create aggregate shop.mysum(int) (sfunc = int4pl, stype = int, initcond = 0);
	insert into shop.hashed select i, 'k' || i % 10, i / 3.0, (array['sad', 'ok', 'happy'])[1 + i % 3]::shop.mood from generate_series(1, 1000) i;
	insert into shop.second select i, 'b' || i, i % 7 from generate_series(1, 500) i;
	insert into shop.child select i, 'c' || i, i % 7 from generate_series(1, 50) i;
	insert into shop.rnd select timestamptz '2024-02-29 12:00+00' + i * interval '1 hour', E'tab\there\\ü' from generate_series(1, 100) i;
	insert into shop."Rep l'icated" values ('k1', '\xff0000'), ('k2', null);
	insert into shop.ser (p, "Key") select i, i from generate_series(1, 20) i;
	insert into shop.part select i, date '2024-01-01' + i % 90, i from generate_series(1, 900) i;
	insert into shop.unlogged select i, i from generate_series(1, 30) i;
	select nextval('shop.seq');
	grant usage on schema shop to dump_reader, dump_owner;
	grant select on all tables in schema shop to dump_reader, dump_owner;
	grant insert (k1, k2) on shop.hashed to dump_writer;
	grant execute on function shop.twice(int) to dump_writer;
	revoke all on function shop.total() from public;
	grant usage on sequence shop.seq to dump_reader;
	alter default privileges in schema shop grant select on tables to dump_writer;
	alter view shop.dear owner to dump_owner;
	comment on table shop.hashed is 'it''s hashed';
	alter table shop.second enable row level security; create policy pol on shop.second using (a > 0);`

// TestRestore restores dumps of a database in the ways there are, and holds what
// comes out to what went in: contents, rights, and where the rows are.
func TestRestore(t *testing.T) {
	c := beside(t)
	testkit.Exec(t, c.Connect(t, "postgres"), "create role dump_reader login; create role dump_writer; create role dump_owner")
	t.Cleanup(func() { // after the databases are gone
		if err := testkit.TryExec(c.Connect(t, "postgres"), "drop role dump_reader, dump_writer, dump_owner"); err != nil {
			t.Error(err)
		}
	})
	db := c.Database(t)
	copies := map[string]string{}
	for _, how := range []string{"plain", "custom", "directory", "inserts", "unlabelled"} {
		copies[how] = c.Database(t)
	}
	a := c.Connect(t, db)
	testkit.Exec(t, a, dumped)
	// pg_dump draws a word for \restrict anew each time.
	schema := func(db string) string { return c.MustShell(t, `pg_dump -s `+db+` | grep -v '^\\\(un\)\?restrict'`) }
	original := schema(db)
	wantAll(t, "the dump", original, "SECURITY LABEL FOR greenplum ON TABLE shop.hashed IS 'DISTRIBUTED BY (k2, k1)';",
		`SECURITY LABEL FOR greenplum ON TABLE shop."Rep l'icated" IS 'DISTRIBUTED REPLICATED';`, "IS 'DISTRIBUTED BY (new)';")
	queries := []string{"select * from shop.dear order by 1, 2", "select shop.total(), shop.twice(4), (select shop.mysum(k1) from shop.hashed)", "select count(*) from shop.second",
		"select s.last_value, s.is_called, i.last_value, g.last_value from shop.seq s, shop.ser_id_seq i, shop.ser_gen_seq g", "select obj_description('shop.hashed'::regclass)",
		"select c.relname, c.relacl::text, c.relowner::regrole from pg_class c where relnamespace = 'shop'::regnamespace order by 1",
		"select attname, attacl::text from pg_attribute where attacl is not null and attrelid = 'shop.hashed'::regclass",
		"select proname, proacl::text from pg_proc where pronamespace = 'shop'::regnamespace order by 1",
		"select defaclobjtype, defaclacl::text from pg_default_acl where defaclnamespace = 'shop'::regnamespace"}
	for _, table := range testkit.Query(t, a, "select c.oid::regclass from pg_class c where relnamespace = 'shop'::regnamespace and relkind in ('r', 'p')") {
		queries = append(queries, "select t::text from "+table+" t order by 1")
		if !strings.Contains(table, "rnd") && !strings.Contains(table, "bare") && !strings.Contains(table, "Rep") { // where a key says
			queries = append(queries, "select gp_segment_id, count(*), sum(hashtext(t::text)) from "+table+" t group by 1 order by 1")
		}
	}
	const policies = "select localoid::regclass::text, pg_get_table_distributedby(localoid) from gp_distribution_policy order by 1"
	want := map[string]string{}
	for _, q := range queries {
		want[q] = strings.Join(testkit.Query(t, a, q), "\n")
	}
	path := c.Path("dump")
	t.Cleanup(func() { os.RemoveAll(path) })
	restore := "psql -q -v ON_ERROR_STOP=1 -d "
	for how, copied := range copies {
		t.Run(how, func(t *testing.T) {
			c.MustShell(t, "set -o pipefail; rm -rf "+path+"; "+map[string]string{
				"plain":      fmt.Sprintf("pg_dump %s | %s %s", db, restore, copied),
				"custom":     fmt.Sprintf("pg_dump -Fc %s | pg_restore -e -d %s", db, copied),
				"directory":  fmt.Sprintf("pg_dump -Fd -f %s %s && pg_restore -e -j 3 -d %s %[1]s", path, db, copied),
				"inserts":    fmt.Sprintf("pg_dump --rows-per-insert=50 --column-inserts %s | %s %s -1", db, restore, copied),
				"unlabelled": fmt.Sprintf("pg_dump --no-security-labels -Fc %s | pg_restore -e -1 -d %s", db, copied),
			}[how])
			b := c.Connect(t, copied)
			for _, q := range queries {
				if how == "unlabelled" && strings.Contains(q, "gp_segment_id") {
					continue
				}
				if got := strings.Join(testkit.Query(t, b, q), "\n"); got != want[q] {
					t.Errorf("%s\n%.300s\nexpected\n%.300s", q, got, want[q])
				}
			}
			p, q := strings.Join(testkit.Query(t, a, policies), "\n"), strings.Join(testkit.Query(t, b, policies), "\n")
			if (p == q) != (how != "unlabelled") {
				t.Errorf("the policies\n%s\nare now\n%s", p, q)
			}
			if s := schema(copied); how != "unlabelled" && s != original {
				t.Errorf("a dump of the copy is\n%s", s)
			}
			reader := c.Connect(t, copied)
			testkit.Exec(t, reader, "set role dump_reader")
			if n := testkit.Value(t, reader, "select count(*) from shop.hashed"); n != "1000" {
				t.Errorf("the reader sees %s rows", n)
			}
			if err := testkit.TryExec(reader, "insert into shop.hashed (k1, k2) values (0, '')"); testkit.SQLState(err) != "42501" {
				t.Errorf("what the reader may: %v", err)
			}
		})
	}
	if out, err := c.Shell("rm -rf " + path + "; pg_dump -Fd -j 3 -f " + path + " " + db); err == nil || !strings.Contains(out, "SET TRANSACTION SNAPSHOT is not supported in a cluster") {
		t.Errorf("pg_dump with synchronized snapshots: %v, %s", err, out)
	}
	for sql, state := range map[string]string{
		"security label for greenplum on table shop.rnd is 'DISTRIBUTED BY (note)'":                     "",
		"security label for greenplum on table shop.rnd is 'DISTRIBUTED BY (nix)'":                      "42703",
		"security label for greenplum on table shop.rnd is 'nonsense'":                                  "22023",
		"security label for greenplum on table shop.rnd is 'DISTRIBUTED RANDOMLY; drop table shop.rnd'": "22023",
		"security label for greenplum on table shop.rnd is 'WITH (reorganize=true)'":                    "22023",
		"security label for greenplum on table shop.rnd is null":                                        "0A000",
		"security label for greenplum on column shop.rnd.note is 'DISTRIBUTED RANDOMLY'":                "0A000",
		"security label for greenplum on table nix is 'DISTRIBUTED RANDOMLY'":                           "42P01",
		"security label for other on table shop.rnd is 'x'":                                             "22023",
	} {
		if err := testkit.TryExec(a, sql); testkit.SQLState(err) != state {
			t.Errorf("%s: %v, expected %q", sql, err, state)
		}
	}
	if got := testkit.Value(t, a, "select pg_get_table_distributedby('shop.rnd'::regclass), (select count(*) from shop.rnd), (select label from pg_seclabels where objoid = 'shop.rnd'::regclass)"); got != "DISTRIBUTED BY (note)|100|DISTRIBUTED BY (note)" {
		t.Errorf("after the labels: %s", got)
	}
}
