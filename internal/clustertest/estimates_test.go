package clustertest

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

var motionRows = regexp.MustCompile(`Gather Motion 3:1 .* rows=(\d+) `)

// gathered is how many rows the coordinator's planner expects of a table that
// is gathered.
func gathered(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	sql := "explain select string_agg(w, ',' order by w) from " + table
	for _, l := range testkit.Query(t, conn, sql) {
		if m := motionRows.FindStringSubmatch(l); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n%101 == 0 {
				return strconv.Itoa(n / 101 * 100) // PostgreSQL takes 100 portions to be 101
			}
			return m[1]
		}
	}
	t.Fatalf("%s shows no motion", sql)
	return ""
}

// TestEstimates has the coordinator learn how large tables are: soon when they
// are loaded, at once by ANALYZE.
func TestEstimates(t *testing.T) {
	c := beside(t)
	conn := c.Connect(t, c.Database(t))
	testkit.Exec(t, conn, `create table plain (id int, w text) distributed by (id);
		create table parts (id int, w text) partition by hash (id) distributed by (id);
		create table parts_0 partition of parts for values with (modulus 2, remainder 0);
		create table parts_1 partition of parts for values with (modulus 2, remainder 1);
		create table parent (id int, w text) distributed by (id); create table child () inherits (parent) distributed by (id)`)
	for _, table := range []string{"plain", "parts", "parent"} {
		if n := gathered(t, conn, table); n != "100" {
			t.Errorf("%s rows expected of %s, which is empty", n, table)
		}
		into := table
		if table == "parent" {
			into = "child"
		}
		testkit.Exec(t, conn, "insert into "+into+" select i, 'w' from generate_series(1, 100000) i")
	}
	for _, table := range []string{"plain", "parts", "parent"} {
		for limit := time.Now().Add(10 * time.Second); gathered(t, conn, table) != "100000"; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s rows expected of %s, which has 100000", gathered(t, conn, table), table)
			}
		}
	}
	// Other sessions see it, and what ANALYZE has found, at once.
	for _, sql := range []string{"delete from plain where id % 10 > 0", "vacuum plain", "analyze plain"} {
		testkit.Exec(t, conn, sql)
	}
	if n := gathered(t, c.Connect(t, conn.Config().Database), "plain"); n != "10000" {
		t.Errorf("%s rows expected of 10000", n)
	}
}
