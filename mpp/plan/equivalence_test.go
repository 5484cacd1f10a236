package plan

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/internal/randomsql"
)

var (
	worlds  = flag.Int("plan.worlds", 10, "sets of random tables that TestEquivalence and TestModifyEquivalence make")
	queries = flag.Int("plan.queries", 40, "random queries over each, or a quarter as many changes")
)

// eachWorld calls f with many sets of random tables. script is what made them.
func eachWorld(t *testing.T, f func(rt *rapid.T, w *world, g *randomsql.Generator, script []string)) {
	w := newWorld(t)
	for _, db := range allDatabases() {
		w.exec(db, "SET statement_timeout = '5s'; "+randomsql.Session)
	}
	old := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", fmt.Sprint(*worlds))
	defer flag.Set("rapid.checks", old)
	flag.Set("rapid.nofailfile", "true") // the failure is told in full
	rapid.Check(t, func(rt *rapid.T) {
		w.t = t
		w.reset()
		g := randomsql.New(rt, testSegments)
		var script []string
		load := func(r randomsql.Relation) {
			if r.Rows != "" {
				script = append(script, "load "+r.Name+": "+r.Rows)
				w.load(r.Name, r.Rows)
			}
		}
		for i := range 2 + g.N(3) {
			tab := g.Table(i)
			for k, r := range tab.All() {
				sql := r.Create + " " + r.Distributed
				script = append(script, fmt.Sprintf("%s -- on %d segments, %g rows, values %v", sql, tab.Segments, tab.Size, tab.Distinct))
				w.createOn(sql, tab.Segments)
				if t := w.tables[r.Name]; t != nil {
					t.size, t.distinct = tab.Size, tab.Distinct
					w.cat.forget()
				}
				if k > 0 {
					load(r)
				}
			}
			load(tab.Relation)
			g.Add(tab)
		}
		f(rt, w, g, script)
	})
}

// TestEquivalence is the proof of the rule in the package comment: over random
// tables, distributions and queries, the plan's answer is the one of a
// PostgreSQL that has every row in one place, with all optimisations and with
// none.
func TestEquivalence(t *testing.T) {
	var stats struct{ queries, refused, gather, merged, top, island, redistribute, broadcast, stay int }
	// Of aggregateDistinct, of cutGroups and of placeWith.
	var once struct{ gathered, byGroups, byValue, chained, groups, everywhere, shared int }
	// Of cutJoin: parts of joins that are redistributed, broadcast, and made of others.
	var parts struct{ sent, everywhere, nested, left, below int }
	reasons, keys, sets := map[string]int{}, map[string]int{}, map[string]int{}
	slow := 0
	eachWorld(t, func(rt *rapid.T, w *world, g *randomsql.Generator, script []string) {
		if g.One(2) {
			v := g.View("v0")
			if _, err := w.conns["plain"].Exec(context.Background(), v.Create); err == nil {
				w.exec("plain", "drop view v0")
				w.everywhere(v.Create)
				g.Add(v)
				script = append(script, v.Create)
			}
		}
		for range *queries {
			query := g.Query()
			want := w.askWith("plain", query.SQL, query.Params)
			if query.Segment {
				// PostgreSQL knows no segments: all must say what the
				// simplest plan says.
				opt := w.options()
				opt.NoPushdown = true
				want = w.answer(query.SQL, query.Params, opt)
			}
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
				switch stats.queries % 4 {
				case 0:
					opt.Own = func(*Relation) bool { return true }
				case 1:
					opt.Own = func(r *Relation) bool { return r.OID%2 == 0 }
				}
				why := w.check(query, want, opt, func(q *Query) {
					if mode > 0 {
						return
					}
					switch {
					case q.Kind == Gather && q.Slices[0].Merge != nil:
						stats.merged++
					case q.Kind == Gather:
						stats.gather++
					case q.Reason == "":
						stats.island++
					default:
						stats.top++
						reasons[q.Reason]++
					}
					if countsOnce(q.Top) {
						once.gathered++
					}
					for _, s := range q.Slices {
						if s.To >= 0 && q.Slices[s.To].To >= 0 {
							once.chained++
						}
						if s.To >= 0 && s.Columns[0].Name == topColumn(0) && secondStage.MatchString(q.Slices[s.To].SQL) {
							if once.groups++; s.Motion == BroadcastMotion {
								once.everywhere++
							}
						}
						if s.To >= 0 && readsPart.MatchString(q.Slices[s.To].SQL) && strings.Contains(s.Columns[0].Name, ".") {
							switch parts.sent++; {
							case s.Motion == BroadcastMotion:
								parts.everywhere++
							case readsPart.MatchString(s.SQL):
								parts.nested++
							}
							if strings.Contains(s.SQL, "LEFT JOIN") {
								parts.left++
							}
							if partBelow.MatchString(q.Slices[s.To].SQL) {
								parts.below++
							}
						}
						switch grouped := strings.Contains(s.SQL, "GROUP BY"); {
						case !countsOnce(s.SQL):
						case q.Kind == Top && strings.Contains(q.Top, "sum(s.c"):
							once.byValue++
						case grouped:
							once.byGroups++
						}
						if sharedWith.MatchString(s.SQL) {
							once.shared++
						}
						for _, op := range setOps.FindAllString(s.SQL, -1) {
							sets[op]++
						}
						switch s.Motion {
						case RedistributeMotion:
							stats.redistribute++
							for _, k := range s.Keys {
								keys[s.Columns[k].Type]++
							}
						case BroadcastMotion:
							stats.broadcast++
						case StayMotion:
							stats.stay++
						}
					}
				})
				slow, w.slow = slow+w.slow, 0
				if why != "" {
					rt.Fatalf("%s\n%s\n%v\n%s", strings.Join(script, "\n"), query.SQL, query.Params, why)
				}
			}
		}
	})
	t.Logf("%+v, counted once: %+v, parts of joins: %+v, redistributed by %v, set operations on segments: %v, not pushed down: %v", stats, once, parts, keys, sets, reasons)
	if slow*50 > stats.queries {
		t.Errorf("%d answers of %d queries took too long", slow, stats.queries)
	}
	if stats.queries > 1000 && (len(keys) < 10 || len(sets) < 6) {
		t.Errorf("redistributed by %v, set operations on segments: %v: the generator proves little", keys, sets)
	}
	if stats.queries > 1000 && (once.gathered < 5 || once.byGroups < 5 || once.byValue < 5 || once.chained == 0 || once.groups < 5 || once.everywhere < 5) {
		t.Errorf("counted once: %+v: the generator proves little", once)
	}
	if stats.queries > 1000 && (parts.sent < 20 || parts.everywhere == 0 || parts.nested == 0 || parts.left == 0 || parts.below == 0) {
		t.Errorf("parts of joins: %+v: the generator proves little", parts)
	}
	if stats.queries > 100 && (stats.refused*4 > stats.queries || stats.merged == 0 || stats.redistribute == 0 || stats.broadcast == 0) || stats.queries > 1000 && stats.stay == 0 {
		t.Errorf("%+v: the generator proves nothing", stats)
	}
}

// answer plans and runs a query.
func (w *world) answer(sql string, params [][2]string, opt Options) result {
	opt.withParams(params)
	st, err := Parse(sql)
	var q *Query
	if err == nil {
		q, err = Select(st.Node, w.cat, opt)
	}
	if err != nil {
		return result{err: &pgconn.PgError{Message: err.Error()}} // as one that PostgreSQL refuses
	}
	return w.runWith(sql, q, params)
}

// withParams makes parameters, values and types, known to the planner.
func (o *Options) withParams(params [][2]string) {
	for _, p := range params {
		o.ParamTypes = append(o.ParamTypes, p[1])
	}
	o.Param = func(n int) (string, bool) {
		switch p := params[n-1]; p[1] {
		case "integer", "bigint", "smallint", "text", "uuid":
			return p[0], true
		}
		return "", false
	}
}

// countsOnce says whether a statement counts once what it is sent.
func countsOnce(sql string) bool { return strings.Contains(sql, "(DISTINCT s.c") }

// secondStage is a sub-select over the first stages of others.
var secondStage = regexp.MustCompile(`\(SELECT .* AS "s"\("c1"`)

// readsPart is a slice that reads a part of a join, partBelow one whose sub-select
// does.
var (
	readsPart = regexp.MustCompile(`AS "\?join`)
	partBelow = regexp.MustCompile(`\(SELECT [^()]* FROM .* AS "\?join`)
)

// sharedWith is a slice with a WITH query over what all segments send it.
var sharedWith = regexp.MustCompile(`^WITH .*gp_motion_recv`)

var setOps = regexp.MustCompile(`\b(UNION|INTERSECT|EXCEPT)( ALL)?\b`)

// check plans and runs a query and says how its answer differs from want.
func (w *world) check(query randomsql.Query, want result, opt Options, see func(*Query)) string {
	st, err := Parse(query.SQL)
	if err != nil {
		return err.Error()
	}
	opt.withParams(query.Params)
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
	got := w.runWith(query.SQL, q, query.Params)
	var pe *pgconn.PgError
	if errors.As(got.err, &pe) && pe.Code == "57014" {
		w.slow++ // a product of many tables, on a busy machine
		return ""
	}
	if want.err != nil {
		return "  SHOULD FAIL: " + randomsql.ErrorText(want.err) + "\n" + showQuery(q)
	}
	if diff := randomsql.Difference(got.shared().Trimmed(), want.shared().Trimmed(), query.Ordered, query.Any); diff != "" {
		return "  " + diff + "\n" + showQuery(q)
	}
	return ""
}

// TestModifyEquivalence is TestEquivalence for UPDATE and DELETE: after each,
// the table is the same as PostgreSQL's.
func TestModifyEquivalence(t *testing.T) {
	var stats struct{ changes, refused, direct, rows, motions int }
	eachWorld(t, func(rt *rapid.T, w *world, g *randomsql.Generator, script []string) {
		for range *queries/4 + 1 {
			table, sql := g.Change()
			st, err := Parse(sql)
			if err != nil {
				rt.Fatalf("%s: %v", sql, err)
			}
			script = append(script, sql)
			stats.changes++
			m, err := Modify(st.Node, w.cat, w.options())
			if err != nil {
				rt.Fatalf("%s\n%v", strings.Join(script, "\n"), err)
			}
			want := w.ask("plain", "EXPLAIN "+sql)
			if want.err != nil {
				stats.refused++
				continue
			}
			switch m.Kind {
			case ModifyDirect:
				stats.direct++
			case ModifyRows:
				stats.rows++
				if q, err := Select(m.Rows, w.cat, w.options()); err == nil {
					for _, s := range q.Slices {
						if s.Motion != GatherMotion {
							stats.motions++
						}
					}
				}
			}
			got := w.modify(sql, m)
			want = w.ask("plain", sql)
			got.cols = want.cols
			out := compare(got, want, false, false)
			if strings.HasPrefix(out, "  same") || strings.HasPrefix(out, "  both") {
				out = w.sameTable(table, false)
			}
			if want.err == nil && !strings.HasPrefix(out, "  same") {
				rt.Fatalf("%s\n%s\n%s", strings.Join(script, "\n"), out, showModification(m))
			}
			if want.err != nil {
				return // what has become of the segments' rows is not to be known
			}
		}
	})
	t.Logf("%+v", stats)
	if stats.changes > 50 && (stats.refused*4 > stats.changes || stats.motions == 0) {
		t.Errorf("%+v: the generator proves nothing", stats)
	}
}
