package clustertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// psql types statements into psql and returns what it prints.
func psql(t *testing.T, c *testkit.Cluster, db, input string, env ...string) string {
	t.Helper()
	out, err := c.ShellInput(input, "psql -v ON_ERROR_STOP=1 -d "+db, env...)
	if err != nil {
		t.Fatalf("psql: %v\n%s\n%s", err, input, out)
	}
	return out
}

func wantAll(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s has no %q:\n%s", what, w, text)
		}
	}
}

func TestPsqlDescribes(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	psql(t, c, db, `
		create table items (id int primary key, name text not null default 'x', price numeric(8,2)) distributed by (id);
		create index on items (name);
		create view dear as select * from items where price > 100;
		create function twice(i int) returns int language sql as 'select 2 * i';
		insert into items select i, 'n' || i, i from generate_series(1, 200) i;`)
	wantAll(t, `\d`, psql(t, c, db, `\d`), "items", "dear", "table", "view")
	wantAll(t, `\d items`, psql(t, c, db, `\d items`),
		`Table "public.items"`, "numeric(8,2)", "not null", "'x'::text", `"items_pkey" PRIMARY KEY, btree (id)`, `"items_name_idx" btree (name)`)
	wantAll(t, `\dt`, psql(t, c, db, `\dt`), "items", "gpadmin", "(1 row)")
	wantAll(t, `\df`, psql(t, c, db, `\df`), "twice", "i integer", "(1 row)")
	wantAll(t, `\d+ dear`, psql(t, c, db, `\d+ dear`), "View definition", "items.price > 100")
	wantAll(t, `\l`, psql(t, c, db, `\l`), db, "template1")
	wantAll(t, `\du`, psql(t, c, db, `\du`), "gpadmin", "Superuser")
	wantAll(t, `\dn`, psql(t, c, db, `\dn`), "public")
	wantAll(t, `\di`, psql(t, c, db, `\di`), "items_pkey")
	wantAll(t, "a view", psql(t, c, db, "select count(*), max(twice(id)) from dear;"), "100 | 400")
}

func TestPsqlCopy(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	in := c.Path(db + ".csv")
	var csv strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&csv, "%d,\"name, %d\",\n", i, i)
	}
	if err := os.WriteFile(in, []byte(csv.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	modes(t, func(t *testing.T, mode string) {
		options := "PGOPTIONS=-c " + mode
		out := c.Path(db + ".out")
		wantAll(t, `\copy`, psql(t, c, db, `
			drop table if exists c;
			create table c (id int, name text, note text) distributed by (id);
			\copy c from '`+in+`' csv
			\copy (select id, name from c where id < 3 order by id) to '`+out+`'
			\copy c (id, name, note) to '`+out+`.all' csv
			select count(*), count(note), count(distinct name) from c;`, options),
			"COPY 5000", "COPY 3", "5000 |     0 |  5000")
		got, err := os.ReadFile(out)
		if want := "0\tname, 0\n1\tname, 1\n2\tname, 2\n"; err != nil || string(got) != want {
			t.Errorf("%v: %q, expected %q", err, got, want)
		}
		all, err := os.ReadFile(out + ".all")
		if err != nil {
			t.Fatal(err)
		}
		if a, b := sortedLines(string(all)), sortedLines(csv.String()); a != b {
			t.Errorf("what came out is not what went in: %d and %d bytes", len(a), len(b))
		}
		// A bad line: nothing of the file stays, the line is named.
		bad, err := c.ShellInput("7,seven,\nx,bad,\n8,eight,\n", `psql -d `+db+` -c "copy c from stdin csv"`, options)
		if err == nil {
			t.Error("a bad line was taken")
		}
		wantAll(t, "the error", bad, `invalid input syntax for type integer: "x"`, "line 2")
		wantAll(t, "count", psql(t, c, db, "select count(*) from c;", options), "5000")
	})
}

func sortedLines(s string) string {
	return strings.Join(sorted(strings.Split(s, "\n")), "\n")
}

func TestPgbench(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	wantAll(t, "pgbench -i", c.MustShell(t, "pgbench -i -q "+db), "done in")
	conn := c.Connect(t, db)
	if n := testkit.Value(t, conn, "select count(*) from pgbench_accounts"); n != "100000" {
		t.Fatalf("%s accounts", n)
	}
	total, turn := 0, 0
	modes(t, func(t *testing.T, mode string) {
		turn++
		for i, script := range []struct {
			name, flags string
			n           int
		}{
			{"select only", "-S -c 4 -t 50", 200},
			{"tpcb-like", "-c 2 -t 10", 20},
		} {
			// Each script by each protocol, and in each mode; not all three.
			protocol := []string{"simple", "extended", "prepared"}[(turn+i)%3]
			out, err := c.Shell(fmt.Sprintf("pgbench -n -M %s %s %s", protocol, script.flags, db), "PGOPTIONS=-c "+mode)
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", protocol, script.name, err, out)
			}
			wantAll(t, protocol+" "+script.name, out,
				fmt.Sprintf("transactions actually processed: %d/%[1]d", script.n), "failed transactions: 0")
			if script.name == "tpcb-like" {
				total += script.n
			}
		}
	})
	// Each transaction adds its amount to one row of each of three tables and
	// notes it in the fourth: the four sums agree or something was lost.
	sums := testkit.Query(t, conn, `
		select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
			(select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history),
			(select count(*) from pgbench_history)`)[0]
	f := strings.Split(sums, "|")
	if f[0] != f[1] || f[1] != f[2] || f[2] != f[3] || f[4] != fmt.Sprint(total) {
		t.Errorf("sums of accounts, tellers, branches, history and its count: %s; expected equal sums and %d", sums, total)
	}
}
