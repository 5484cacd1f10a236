package icbench

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// Names of the queries.
const (
	Short        = "short"
	Gather       = "gather"
	Redistribute = "redistribute"
	Broadcast    = "broadcast"
	FiveSlices   = "five-slices"
)

// query is one of the set.
type query struct {
	name, about string
	sql         string
	// answer is the single row's text that must come out; "" for a query of
	// many rows, of which rows come.
	answer string
	rows   int64
	// motions are those that the plan must have, by kind.
	motions map[string]int
	// held is the same query, each scan of which waits for the lock of holdLock
	// on its segment. An executor does one slice after the other, so one scan
	// of each segment and session waits at a time.
	held string
	plan map[string]int // the motions that held has; see explain
}

const (
	gatherMotion       = "Gather"
	redistributeMotion = "Redistribute"
	broadcastMotion    = "Broadcast"

	// holdLock is the key of the advisory lock that held queries wait for.
	holdLock = "42"

	shortRows = 100
	padBytes  = 100
	farPad    = 1000
	prime     = 7919 // makes of a row's number a key that is unique, too
)

// Queries names the set, in order, with what each is.
func Queries() [][2]string {
	var list [][2]string
	for _, q := range queries(100, 100) {
		list = append(list, [2]string{q.name, q.about})
	}
	return list
}

// queries are those of the set over tables of that many rows.
func queries(rows, gatherRows int) []query {
	if rows%prime == 0 {
		rows++ // see tables
	}
	count := strconv.Itoa(rows)
	five := func(where string) string {
		return "select count(*) from t1 a join t2 b on a.k = b.k join t3 c on b.k = c.k join t4 d on c.k = d.k" + where
	}
	return []query{
		{
			name: Short, about: fmt.Sprintf("count over %d rows", shortRows),
			sql: "select count(*) from few", answer: strconv.Itoa(shortRows),
		}, {
			name: Gather, about: fmt.Sprintf("%d rows of some %d bytes to the client", gatherRows, padBytes+10),
			sql: "select id, pad from wide", rows: int64(gatherRows), motions: map[string]int{gatherMotion: 1},
			held: "select hold(id) from wide",
		}, {
			name: Redistribute, about: fmt.Sprintf("join of two tables of %d rows by a column that neither is distributed by", rows),
			sql:    "select count(*), sum(length(a.pad) + length(b.pad)) from t1 a join t2 b on a.k = b.k",
			answer: count + "|" + strconv.Itoa(2*padBytes*rows), motions: map[string]int{gatherMotion: 1, redistributeMotion: 2},
			held: "select count(*) from t1 a join t2 b on a.k = b.k where hold(a.id) > 0 and hold(b.id) > 0",
		}, {
			name: Broadcast, about: fmt.Sprintf("join of %d rows with %d by a column that neither is distributed by", shortRows, rows),
			sql: "select count(*) from small s join t1 a on s.k = a.k", answer: strconv.Itoa(shortRows),
			motions: map[string]int{gatherMotion: 1, broadcastMotion: 1},
		}, {
			name: FiveSlices, about: fmt.Sprintf("join of four tables of %d rows: four motions and the gather", rows),
			sql: five(""), answer: count, motions: map[string]int{gatherMotion: 1, redistributeMotion: 4},
			held: five(" where hold(a.id) > 0 and hold(b.id) > 0 and hold(c.id) > 0 and hold(d.id) > 0"),
		},
	}
}

// farQueries are those of the set over the WAN: with a bigger gather, and
// what takes the most time last.
func farQueries(rows, gatherRows, farRows int) []query {
	set := queries(rows, gatherRows)
	for i := range set {
		if set[i].name == Gather {
			q := set[i]
			q.about = fmt.Sprintf("%d rows of %d bytes to the client", farRows, farPad)
			q.sql, q.rows = "select id, pad from far", int64(farRows)
			return append(slices.Delete(set, i, i+1), q)
		}
	}
	return set
}

// tables are the statements that make and fill the tables. farRows are those
// of the table for the wide area network, none if 0.
func tables(rows, gatherRows, farRows int) []string {
	if rows%prime == 0 {
		rows++
	}
	list := []string{
		`create function hold(i int) returns int immutable language plpgsql as
			$$begin perform pg_advisory_xact_lock_shared(` + holdLock + `); return i; end$$`,
		"create table few (id int) distributed by (id)",
		fmt.Sprintf("insert into few select generate_series(1, %d)", shortRows),
		"create table wide (id int, pad text) distributed by (id)",
		fmt.Sprintf("insert into wide select i, repeat('w', %d) from generate_series(1, %d) i", padBytes, gatherRows),
		"create table small (id int, k int) distributed by (id)",
		fmt.Sprintf("insert into small select i, i from generate_series(0, %d) i", shortRows-1),
	}
	for t := 1; t <= 4; t++ {
		list = append(list,
			fmt.Sprintf("create table t%d (id int, k int, pad text) distributed by (id)", t),
			fmt.Sprintf("insert into t%d select i, (i::bigint * %d %% %d)::int, repeat('x', %d) from generate_series(1, %d) i",
				t, prime, rows, padBytes, rows))
	}
	if farRows > 0 {
		list = append(list, "create table far (id int, pad text) distributed by (id)",
			fmt.Sprintf("insert into far select i, repeat('f', %d) from generate_series(1, %d) i", farPad, farRows))
	}
	for _, t := range []string{"few", "wide", "small", "t1", "t2", "t3", "t4"} {
		list = append(list, "analyze "+t)
	}
	return list
}

// load makes the tables.
func (b *bench) load(ctx context.Context, s *site, farRows int) error {
	c, err := s.connect(ctx, b.opt.Types[len(b.opt.Types)-1])
	if err != nil {
		return err
	}
	defer c.close()
	for _, sql := range tables(b.opt.Rows, b.opt.GatherRows, farRows) {
		if _, err := c.run(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// expected are the motions that the plan must have on so many segments. With
// two, a join sends no more rows by a broadcast of one side than by moving both.
func (q *query) expected(segments int) map[string]int {
	if q.name == Redistribute && segments == 2 {
		return map[string]int{gatherMotion: 1, broadcastMotion: 1}
	}
	return q.motions
}

var motionLine = regexp.MustCompile(`\b(Gather|Redistribute|Broadcast) Motion\b`)

// countMotions counts the motions in the text of an EXPLAIN by kind.
func countMotions(text string) map[string]int {
	n := map[string]int{}
	for _, m := range motionLine.FindAllStringSubmatch(text, -1) {
		n[m[1]]++
	}
	return n
}

// describeMotions puts counts of motions into words.
func describeMotions(n map[string]int) string {
	var words []string
	for _, kind := range []string{gatherMotion, redistributeMotion, broadcastMotion} {
		if n[kind] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[kind], strings.ToLower(kind)))
		}
	}
	if words == nil {
		return "no motion"
	}
	return strings.Join(words, ", ")
}

// explain compares the plans of a cluster with what the queries are meant to
// show, and notes the difference.
func (b *bench) explain(ctx context.Context, s *site, where string, set []query) error {
	c, err := s.connect(ctx, b.opt.Types[len(b.opt.Types)-1])
	if err != nil {
		return err
	}
	defer c.close()
	for i := range set {
		q := &set[i]
		if q.motions == nil {
			continue
		}
		for _, sql := range []string{q.sql, q.held} {
			if sql == "" {
				continue
			}
			r, err := c.run(ctx, "explain "+sql)
			if err != nil {
				b.note("%s: no plan of query %s: %s", where, q.name, benchreport.FirstLine(err))
				break
			}
			got := countMotions(strings.Join(r.text, "\n"))
			want := q.expected(len(s.c.Instances()) - 1)
			if len(want) > 1 && len(got) == 1 && got[gatherMotion] > 0 {
				// It shows how rows would be gathered. Whether they were is
				// seen in the sockets.
				got = want
			}
			if sql == q.held {
				q.plan = got
			}
			for kind, n := range want {
				if got[kind] != n {
					b.note("%s: the plan of query %s has %s, expected %s.", where, q.name, describeMotions(got), describeMotions(want))
					break
				}
			}
		}
	}
	return nil
}
