package clustertest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// bankScript moves money between two accounts anywhere, in one order so that no
// two wait for each other, and looks whether it is all there.
const bankScript = `\set a random(1, 500)
\set b random(501, 1000)
\set n random(-500, 500)
begin;
update bank set n = n - :n where id = :a;
update bank set n = n + :n where id = :b;
insert into moves (a, b, n, at) values (:a, :b, :n, now());
select sum(n) as total from bank \gset
\if :total <> 0
select 1/0;
\endif
select count(*) as c from bank join moves on bank.id = moves.a where moves.b = :b \gset
end;
`

// TestPgbenchClients runs pgbench's scripts and one of a user's with 8 clients at
// a time, on tables that are generated on the server and partitioned.
func TestPgbenchClients(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	wantAll(t, "pgbench -i", c.MustShell(t, "pgbench -i -q -I dtGvp -s 2 --partitions=3 "+db), "done in")
	conn := c.Connect(t, db)
	if n := testkit.Value(t, conn, "select count(*), count(distinct aid), min(abalance), max(bid) from pgbench_accounts"); n != "200000|200000|0|2" {
		t.Fatalf("accounts: %s", n)
	}
	testkit.Exec(t, conn, `create table bank (id int primary key, n int) distributed by (id); insert into bank select i, 0 from generate_series(1, 1000) i;
		create table moves (a int, b int, n int, at timestamptz) distributed randomly; analyze bank, moves`)
	script := c.Path("bank.sql")
	if err := os.WriteFile(script, []byte(bankScript), 0o644); err != nil {
		t.Fatal(err)
	}
	const clients = 8
	updates, moves, turn := 0, 0, 0
	modes(t, func(t *testing.T, mode string) {
		turn++
		for i, run := range []struct {
			script string
			n      int // transactions of each client
			count  *int
		}{{"-b select-only", 25, nil}, {"-b simple-update", 5, &updates}, {"-b tpcb-like", 3, &updates}, {"-f " + script, 3, &moves}} {
			// Each script by each protocol, and in each mode; not all three.
			protocol := []string{"simple", "prepared"}[(turn+i)%2]
			out, err := c.Shell(fmt.Sprintf("pgbench -n -M %s -c %d -j 2 -t %d %s %s", protocol, clients, run.n, run.script, db), "PGOPTIONS=-c "+mode)
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", protocol, run.script, err, out)
			}
			wantAll(t, protocol+" "+run.script, out, fmt.Sprintf("transactions actually processed: %d/%[1]d", clients*run.n), "failed transactions: 0")
			if run.count != nil {
				*run.count += clients * run.n
			}
		}
	})
	got := strings.Split(testkit.Value(t, conn, "select (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history), (select count(*) from pgbench_history), "+
		"(select sum(n) from bank), (select count(*) from moves), (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)"), "|")
	if got[0] != got[1] || got[2] != fmt.Sprint(updates) || got[3] != "0" || got[4] != fmt.Sprint(moves) || got[5] != "t" {
		t.Errorf("accounts, history, its count, bank, moves, tellers as branches: %v; expected equal sums, %d, 0, %d, t", got, updates, moves)
	}
}
