package clustertest

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/randomsql"
	"github.com/trunkline-db/trunkline/internal/testkit"
)

// randomTry is one query and the way in which it is asked.
type randomTry struct {
	query    randomsql.Query
	typ      string   // of the interconnect
	extended bool     // by the extended protocol
	writes   []string // in the same transaction, before
	cursor   int      // rows that are fetched at a time; 0: no cursor
	early    bool     // the cursor is opened before the writes, which it does not see
	block    string   // BEGIN and its modes; "": in no block, unless there has to be one
	explain  bool     // EXPLAIN ANALYZE after it must do, too

	*randomRun
	conn *pgconn.PgConn // to the cluster
	done []string       // there
}

func (r *randomTry) String() string {
	protocol := "simple"
	if r.extended {
		protocol = "extended"
	}
	return fmt.Sprintf("in %s, by the %s protocol, with %q", r.typ, protocol, r.query.Params)
}

// drawTry draws one.
func drawTry(g *randomsql.Generator, w *randomWorld) *randomTry {
	r := &randomTry{typ: interconnectTypes[g.N(len(interconnectTypes))], extended: g.One(2), query: g.Query()}
	if g.One(3) {
		for range 1 + g.N(2) {
			r.writes = append(r.writes, drawWrite(g, w))
		}
	}
	if g.One(4) {
		r.cursor = 1 + g.N(20)
		r.early = r.writes != nil && g.One(2)
	}
	if g.One(4) {
		r.block = "begin isolation level repeatable read"
		if r.writes == nil && g.One(2) {
			r.block += " read only"
		}
	}
	r.explain = g.One(5)
	return r
}

// drawWrite draws a change of a table.
func drawWrite(g *randomsql.Generator, w *randomWorld) string {
	if g.One(3) {
		// Rows that it has already, which only a primary key forbids.
		if tab := w.tables[g.N(len(w.tables))]; tab.Rows != "" {
			return "insert into " + tab.Name + " " + tab.Rows
		}
	}
	_, sql := g.Change()
	return sql
}

// randomLimit is within what time each statement ends, one way or the other.
const randomLimit = 90 * time.Second

// run says how the cluster's answers differ from PostgreSQL's.
func (r *randomTry) run() (difference string) {
	if r.block != "" || r.cursor > 0 || r.writes != nil {
		r.ofPlain("begin", nil)
		r.ofCluster(cmp.Or(r.block, "begin"), nil)
		defer func() {
			r.ofPlain("rollback", nil)
			if got := r.ofCluster("rollback", nil); got.Err != nil && difference == "" {
				difference = "rollback: " + randomsql.ErrorText(got.Err)
			}
		}()
	}
	var want, got randomsql.Answer
	ask := func() {
		want = r.ofPlain(r.query.SQL, r.query.Params)
		switch {
		case tookTooLong(want):
		case r.cursor > 0:
			got = r.ofCluster("declare c cursor for "+r.query.Inline(), nil)
		default:
			got = r.ofCluster(r.query.SQL, r.query.Params)
		}
	}
	if r.early {
		ask()
	}
	for _, sql := range r.writes {
		if want.Err != nil || got.Err != nil {
			break
		}
		want, got := r.ofPlain(sql, nil), randomsql.Answer{}
		if !tookTooLong(want) {
			got = r.ofCluster(sql, nil)
		}
		if tookTooLong(want) || tookTooLong(got) {
			r.slow++
			return ""
		}
		if d := randomsql.Difference(got.Trimmed(), want.Trimmed(), false, false); d != "" || want.Err != nil {
			return d
		}
	}
	if !r.early {
		ask()
	}
	if r.cursor > 0 && !tookTooLong(want) {
		for got.Err == nil {
			part := r.ofCluster(fmt.Sprintf("fetch %d from c", r.cursor), nil)
			got = randomsql.Answer{Cols: part.Cols, Rows: append(got.Rows, part.Rows...), Err: part.Err}
			if len(part.Rows) == 0 {
				break
			}
		}
	}
	switch {
	case tookTooLong(want) || tookTooLong(got):
		r.slow++
		return ""
	case want.Err != nil:
		r.refused++
	case r.writes != nil:
		r.blocks++
	}
	if r.cursor > 0 {
		r.cursors++
	}
	if d := randomsql.Difference(got.Trimmed(), want.Trimmed(), r.query.Ordered, r.query.Any); d != "" || want.Err != nil || !r.explain {
		return d
	}
	switch plan := r.ofCluster("explain analyze "+r.query.Inline(), nil); {
	case tookTooLong(plan):
		r.slow++
	case plan.Err != nil:
		return "EXPLAIN ANALYZE: " + randomsql.ErrorText(plan.Err)
	case len(plan.Rows) == 0:
		return "EXPLAIN ANALYZE says nothing"
	default:
		r.explained++
		for _, row := range plan.Rows {
			if strings.Contains(row[0], "gp_portions") || strings.Contains(row[0], "gp_motion_recv") {
				return "EXPLAIN ANALYZE shows how rows are read: " + row[0]
			}
		}
	}
	return ""
}

// tookTooLong says whether statement_timeout has ended a statement.
func tookTooLong(a randomsql.Answer) bool { return testkit.SQLState(a.Err) == "57014" }

// ofPlain runs a statement on the plain server.
func (r *randomTry) ofPlain(sql string, params [][2]string) randomsql.Answer {
	ctx, cancel := context.WithTimeout(context.Background(), randomLimit)
	defer cancel()
	return randomsql.Ask(ctx, r.plain.PgConn(), sql, params)
}

// ofCluster runs a statement on the cluster.
func (r *randomTry) ofCluster(sql string, params [][2]string) (a randomsql.Answer) {
	r.done = append(r.done, sql)
	ctx, cancel := context.WithTimeout(context.Background(), randomLimit)
	defer cancel()
	if r.extended {
		a = randomsql.Ask(ctx, r.conn, sql, params)
	} else {
		a = randomsql.AskSimple(ctx, r.conn, randomsql.Query{SQL: sql, Params: params}.Inline())
	}
	if ctx.Err() != nil {
		r.hung = true
	}
	return a
}
