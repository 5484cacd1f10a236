package clustertest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// propertySchemas is how many sets of tables are tried: TRUNKLINE_PROPERTY_SCHEMAS, or
// as many as given.
func propertySchemas(t *testing.T, schemas int) int {
	t.Helper()
	if s := os.Getenv("TRUNKLINE_PROPERTY_SCHEMAS"); s != "" {
		var err error
		if schemas, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	return schemas
}

// TestSameAnswers fills random tables, distributed in random ways, with the
// same rows on the cluster and on one plain PostgreSQL, and asks both random
// SELECTs. They must give the same rows, or both the same SQLSTATE.
//
// TRUNKLINE_PROPERTY_SCHEMAS sets how many sets of tables are tried.
func TestSameAnswers(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	plain := c.PlainPostgres(t)
	schemas := propertySchemas(t, 4)
	sessions := map[string]*pgx.Conn{tcp: c.Connect(t, db, tcp), proxy: c.Connect(t, db, proxy)}
	// A query that is drawn to join everything with everything tells nothing
	// that a smaller one would not.
	if _, err := plain.Exec(context.Background(), "SET statement_timeout = '500ms'"); err != nil {
		t.Fatal(err)
	}
	asked, failed, slow := 0, 0, 0
	for i := range schemas {
		// One set of tables for many queries: making tables is what costs.
		tables := rapid.Custom(drawTables).Example(int(seed(t)) + i)
		for _, conn := range []*pgx.Conn{plain, sessions[tcp]} {
			create(t, conn, tables, conn != plain)
		}
		rapid.Check(t, func(rt *rapid.T) {
			g := &generator{rt: rt, tables: tables}
			sql, ordered := g.query()
			mode := rapid.SampledFrom([]string{tcp, proxy}).Draw(rt, "mode")
			var params [][]byte
			extended := g.n(0, 2) == 0
			if extended {
				sql, params = g.parameters(sql)
			}
			want, wantErr := answer(plain, sql, extended, params)
			if testkit.SQLState(wantErr) == "57014" {
				slow++
				return
			}
			got, gotErr := answer(sessions[mode], sql, extended, params)
			asked++
			if wantErr != nil || gotErr != nil {
				failed++
				if testkit.SQLState(wantErr) != testkit.SQLState(gotErr) {
					rt.Fatalf("%s\nwith %q in %s: %v\nPostgreSQL: %v\n%s", sql, params, mode, gotErr, wantErr, describe(tables))
				}
				return
			}
			if !ordered {
				want, got = sorted(want), sorted(got)
			}
			if w, g := strings.Join(want, "\n"), strings.Join(got, "\n"); w != g {
				rt.Fatalf("%s\nwith %q in %s: %d rows\n%s\nPostgreSQL: %d rows\n%s\n%s", sql, params, mode, len(got), g, len(want), w, describe(tables))
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d queries, %d of them errors on both sides; %d more took PostgreSQL too long", asked, failed, slow)
	if slow*20 > asked {
		t.Errorf("the generator is of little use: %d queries took too long", slow)
	}
	if failed*4 > asked {
		t.Errorf("the generator is of little use: %d of %d queries are errors", failed, asked)
	}
}

// answer is testkit.TryQuery, by either protocol, without the zeros that
// numbers end in: 1 and 1.0 are equal, and which of them stands for a group is
// nobody's business.
func answer(conn *pgx.Conn, sql string, extended bool, params [][]byte) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if extended {
		r := conn.PgConn().ExecParams(ctx, sql, params, nil, nil, nil).Read()
		return lines([]*pgconn.Result{r}), r.Err
	}
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	return lines(results), nil
}

func lines(results []*pgconn.Result) (lines []string) {
	for _, res := range results {
		for _, row := range res.Rows {
			fields := make([]string, len(row))
			for i, f := range row {
				switch fields[i] = string(f); {
				case f == nil:
					fields[i] = `\N`
				case res.FieldDescriptions[i].DataTypeOID == pgtype.NumericOID && strings.Contains(fields[i], "."):
					fields[i] = strings.TrimSuffix(strings.TrimRight(fields[i], "0"), ".")
				}
			}
			lines = append(lines, strings.Join(fields, "|"))
		}
	}
	return lines
}

// seed is rapid's own when it is given one, so that -rapid.seed repeats the
// tables too.
func seed(t *testing.T) uint64 {
	var n uint64
	rapid.Check(t, func(rt *rapid.T) {
		if n == 0 {
			n = rapid.Uint64Range(1, 1<<31).Draw(rt, "seed")
		}
	})
	return n
}

// table is a random table with its rows.
type table struct {
	name        string
	cols        []column
	distributed string     // the clause
	rows        [][]string // literals
	view        string     // a view's query; it has neither rows nor a clause
	unique      bool       // k is the primary key
	serial      string     // how a column s is numbered, "" for none
}

type column struct {
	name, typ string
	extra     string // constraints and defaults
}

// values are the literals of each type, few enough to collide in joins.
var values = map[string][]string{
	"int":     {"0", "1", "2", "3", "-1", "7", "100000", "2147483647", "-2147483648"},
	"bigint":  {"0", "1", "2", "3", "-5", "9000000000", "-9000000000"},
	"numeric": {"0", "1", "1.0", "2.50", "-3.14159", "100000.001", "1e20"},
	"text":    {"''", "'a'", "'b'", "'A'", "'ab'", "'a b'", "'ä'", "'\\N'", "'it''s'"},
	"bool":    {"true", "false"},
	"date":    {"date '2024-01-01'", "date '2024-02-29'", "date '1999-12-31'", "date '0044-03-15 BC'"},
}

var types = []string{"int", "int", "bigint", "numeric", "text", "text", "bool", "date"}

func drawTables(rt *rapid.T) []table {
	tables := make([]table, 3)
	for i := range tables {
		tb := table{name: fmt.Sprintf("t%d", i)}
		tb.cols = append(tb.cols, column{name: "k", typ: rapid.SampledFrom([]string{"int", "bigint", "text"}).Draw(rt, "key type")})
		for j := range rapid.IntRange(1, 4).Draw(rt, "columns") {
			tb.cols = append(tb.cols, column{name: fmt.Sprintf("c%d", j), typ: rapid.SampledFrom(types).Draw(rt, "type")})
		}
		switch rapid.IntRange(0, 5).Draw(rt, "distribution") {
		case 0:
			tb.distributed = "distributed randomly"
		case 1:
			tb.distributed = "distributed replicated"
		case 2:
			tb.distributed = "distributed by (k, c0)"
		case 3:
			tb.distributed = "distributed by (c0)"
		default:
			tb.distributed = "distributed by (k)"
		}
		rows := rapid.IntRange(10, 40).Draw(rt, "rows")
		if rapid.IntRange(0, 7).Draw(rt, "empty") == 0 {
			rows = 0
		}
		for range rows {
			row := make([]string, len(tb.cols))
			for j, col := range tb.cols {
				row[j] = "null"
				if rapid.IntRange(0, 4).Draw(rt, "null") > 0 {
					row[j] = rapid.SampledFrom(values[col.typ]).Draw(rt, "value")
				}
			}
			tb.rows = append(tb.rows, row)
		}
		tables[i] = tb
	}
	g := &generator{rt: rt, tables: tables, names: 1000}
	var views []table
	for i := range 2 {
		g.depth = 1
		body, typs := g.body()
		v := table{name: fmt.Sprintf("v%d", i), view: body}
		for j, typ := range typs {
			v.cols = append(v.cols, column{name: fmt.Sprintf("c%d", j), typ: typ})
		}
		views = append(views, v)
	}
	return append(tables, views...)
}

func (tb table) create(distributed bool) string {
	if tb.view != "" {
		names := make([]string, len(tb.cols))
		for i, col := range tb.cols {
			names[i] = col.name
		}
		return fmt.Sprintf("create view %s (%s) as %s", tb.name, strings.Join(names, ", "), tb.view)
	}
	cols := make([]string, len(tb.cols))
	for i, col := range tb.cols {
		cols[i] = strings.TrimSuffix(col.name+" "+col.typ+" "+col.extra, " ")
	}
	if tb.serial != "" {
		cols = append(cols, "s "+tb.serial)
	}
	sql := fmt.Sprintf("create table %s (%s)", tb.name, strings.Join(cols, ", "))
	if distributed {
		sql += " " + tb.distributed
	}
	return sql
}

func (tb table) insert() string {
	rows := make([]string, len(tb.rows))
	for i, row := range tb.rows {
		rows[i] = "(" + strings.Join(row, ", ") + ")"
	}
	return fmt.Sprintf("insert into %s (%s) values %s", tb.name, strings.Join(names(tb.cols), ", "), strings.Join(rows, ", "))
}

func create(t *testing.T, conn *pgx.Conn, tables []table, distributed bool) {
	t.Helper()
	for _, tb := range slices.Backward(tables) { // views first
		kind := "table"
		if tb.view != "" {
			kind = "view"
		}
		testkit.Exec(t, conn, fmt.Sprintf("drop %s if exists %s", kind, tb.name))
	}
	for _, tb := range tables {
		testkit.Exec(t, conn, tb.create(distributed))
		if len(tb.rows) > 0 {
			testkit.Exec(t, conn, tb.insert())
		}
	}
}

// describe prints what makes the tables, to repeat a failure by hand.
func describe(tables []table) string {
	var b strings.Builder
	for _, tb := range tables {
		fmt.Fprintf(&b, "%s;\n", tb.create(true))
		if len(tb.rows) > 0 {
			fmt.Fprintf(&b, "%s;\n", tb.insert())
		}
	}
	return b.String()
}
