package plan

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

var (
	worlds  = flag.Int("plan.worlds", 10, "sets of random tables that TestEquivalence makes")
	queries = flag.Int("plan.queries", 40, "random queries over each")
)

// TestEquivalence is the proof of the rule in the package comment: over random
// tables, distributions and queries, the plan's answer is the one of a
// PostgreSQL that has every row in one place, with all optimisations and with
// none.
func TestEquivalence(t *testing.T) {
	w := newWorld(t)
	for _, db := range allDatabases() {
		w.exec(db, "SET statement_timeout = '5s'; SET extra_float_digits = 0")
	}
	var stats struct{ queries, refused, gather, top, island int }
	reasons := map[string]int{}
	old := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", fmt.Sprint(*worlds))
	defer flag.Set("rapid.checks", old)
	flag.Set("rapid.nofailfile", "true") // the failure is told in full
	rapid.Check(t, func(rt *rapid.T) {
		w.t = t
		w.reset()
		g := &gen{t: rt}
		var script []string
		for i := range 2 + g.n(3) {
			tab, create, rows := g.table(i)
			script = append(script, create, "load "+tab.name+": "+rows)
			w.create(create)
			w.load(tab.name, rows)
			g.tables = append(g.tables, tab)
		}
		if g.one(2) {
			body, kinds := g.sel(nil, 1)
			v := genTable{name: "v0"}
			for i, k := range kinds {
				v.cols = append(v.cols, genColumn{fmt.Sprintf("o%d", i+1), k})
			}
			sql := "create view v0 as " + body
			if _, err := w.conns["plain"].Exec(context.Background(), sql); err == nil {
				w.exec("plain", "drop view v0")
				w.everywhere(sql)
				g.tables = append(g.tables, v)
				script = append(script, sql)
			}
		}
		for range *queries {
			sql, ordered, any := g.query()
			want := w.ask("plain", sql)
			stats.queries++
			var pe *pgconn.PgError
			if errors.As(want.err, &pe) {
				// Not a query PostgreSQL takes; how it fails is not the point.
				stats.refused++
				continue
			}
			for mode := range 3 {
				opt := w.options()
				opt.noIslands, opt.NoPushdown = mode == 1, mode == 2
				why := w.check(sql, want, ordered, any, opt, func(q *Query) {
					switch {
					case mode > 0:
					case q.Kind == Gather:
						stats.gather++
					case q.Reason == "":
						stats.island++
					default:
						stats.top++
						reasons[q.Reason]++
					}
				})
				if why != "" {
					rt.Fatalf("%s\n%s\n%s", strings.Join(script, "\n"), sql, why)
				}
			}
		}
	})
	t.Logf("%+v, not pushed down: %v", stats, reasons)
	if stats.queries > 100 && stats.refused*4 > stats.queries {
		t.Errorf("%d of %d queries are not valid: the generator proves nothing", stats.refused, stats.queries)
	}
}

// check plans and runs a query and says how its answer differs from want.
func (w *world) check(sql string, want result, ordered, any bool, opt Options, see func(*Query)) string {
	st, err := Parse(sql)
	if err != nil {
		return err.Error()
	}
	q, err := Select(st.Node, w.cat, opt)
	if err != nil {
		return "Select: " + err.Error()
	}
	see(q)
	for _, s := range q.Slices {
		if _, err := Parse(s.SQL); err != nil {
			return fmt.Sprintf("slice %s: %v", s.SQL, err)
		}
	}
	got := w.run(sql, q)
	if out := compare(got, want, ordered, any); !strings.HasPrefix(out, "  same") {
		return out + showQuery(q)
	}
	return ""
}
