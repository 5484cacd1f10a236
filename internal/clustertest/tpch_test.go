package clustertest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/tpch"
)

// tpchScale has some 87,000 rows.
const tpchScale = 0.01

// TestTPCH loads a cluster and a single PostgreSQL server with the same data,
// and compares their answers to the 22 queries.
func TestTPCH(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	load := fmt.Sprintf("trunkline cluster load tpch --scale %v --database %s --jobs 2", tpchScale, db)
	wantAll(t, "the summary", c.MustShell(t, load), "lineitem", "ROWS/S", "rows in")
	plain := c.PlainPostgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := tpch.Load(ctx, &plain.Config().Config, tpch.Options{Scale: tpchScale, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	conn := c.Connect(t, db)
	for _, table := range r.Tables {
		// Every column of every row.
		sql := fmt.Sprintf("select count(*), sum(hashtextextended(t::text, 0)::numeric) from %v t", table.Table)
		got, want := testkit.Value(t, conn, sql), testkit.Value(t, plain, sql)
		if got != want || !strings.HasPrefix(got, fmt.Sprintf("%d|", table.Total)) {
			t.Errorf("%v: %s, expected %s", table.Table, got, want)
		}
		policy := "select policytype::text || cardinality(distkey::int2[]) from gp_distribution_policy where localoid = '" + table.Table.String() + "'::regclass"
		how := "p1" // by one column
		if table.Table <= tpch.Nation {
			how = "r0"
		}
		if got := testkit.Value(t, conn, policy); got != how {
			t.Errorf("%v is distributed %s, expected %s", table.Table, got, how)
		}
		key := "select count(*) from pg_index where indisprimary and indrelid = '" + table.Table.String() + "'::regclass"
		if testkit.Value(t, conn, key) != "1" {
			t.Errorf("%v has no primary key", table.Table)
		}
	}
	queries, err := tpch.Queries(tpchScale)
	if err != nil {
		t.Fatal(err)
	}
	answers := make([][]string, len(queries))
	for i, q := range queries {
		began := time.Now()
		answers[i] = testkit.Query(t, plain, q.SQL)
		t.Logf("query %d: %d rows in %v from PostgreSQL", q.Number, len(answers[i]), time.Since(began).Round(time.Millisecond))
		if len(answers[i]) == 0 || slices.Equal(answers[i], []string{`\N`}) {
			t.Errorf("query %d has no answer at this scale: nothing can be compared", q.Number)
		}
	}
	modes(t, func(t *testing.T, mode string) {
		conn := c.Connect(t, db, mode)
		for i, q := range queries {
			t.Run(fmt.Sprintf("Q%02d", q.Number), func(t *testing.T) { sameAnswer(t, conn, q, answers[i]) })
		}
	})

	out, err := c.Shell(load)
	if err == nil {
		t.Error("tables that are there are loaded again")
	}
	wantAll(t, "the error", out, "error: in database "+db+" there are tables already: customer, lineitem, ", "--replace drops them first")
	if got := testkit.Value(t, conn, "select count(*) from orders"); got != "15000" {
		t.Errorf("%s orders are left", got)
	}
	c.MustShell(t, load+" --replace --jobs 3")
	if got := testkit.Value(t, conn, "select count(*) from orders"); got != "15000" {
		t.Errorf("%s orders after --replace", got)
	}
}

func sameAnswer(t *testing.T, conn *pgx.Conn, q tpch.Query, want []string) {
	t.Helper()
	got, err := testkit.TryQuery(conn, q.SQL)
	if err != nil {
		t.Fatalf("%s: %s", q.Title, testkit.ErrorText(err))
	}
	if diff := q.Differ(want, got); diff != "" {
		t.Errorf("%s: %s", q.Title, diff)
	}
}

// TestTPCHInterrupted ends a load by Ctrl-C, which has also made its database,
// and looks at what it leaves.
func TestTPCHInterrupted(t *testing.T) {
	c := shared(t)
	const db = "Half a TPC-H"
	t.Cleanup(func() {
		testkit.Exec(t, c.Connect(t, "template1"), `drop database if exists "`+db+`" with (force)`)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := command(ctx, filepath.Join(c.Dir, "bin", "trunkline"), "cluster", "load", "tpch", c.Dir, "--scale", "1", "--database", db, "--jobs", "2", "--progress")
	text, took := interrupt(t, cmd, "loading part", func() {})
	if took > 5*limit {
		t.Errorf("it ended after %v", took)
	}
	wantAll(t, "what it says", text, "error: interrupted", "error: database "+db+" has the tables; ", "empty: ", "0 of 8 have their primary key", "--replace")
	// Every table has what it is said to have.
	conn := c.Connect(t, "'"+db+"'")
	for _, table := range tpch.Tables {
		n := testkit.Value(t, conn, "select count(*) from "+table.String())
		_, list, _ := strings.Cut(text, "empty: ")
		list, _, _ = strings.Cut(list, ";")
		if empty := slices.Contains(strings.Split(list, ", "), table.String()); empty != (n == "0") {
			t.Errorf("%v has %s rows\n%s", table, n, text)
		}
	}
	// And the sessions are gone.
	testkit.Eventually(t, limit, func() error {
		if n := testkit.Value(t, conn, "select count(*) from pg_stat_activity where application_name = 'trunkline cluster load'"); n != "0" {
			return fmt.Errorf("%s sessions are open", n)
		}
		return nil
	})
}
