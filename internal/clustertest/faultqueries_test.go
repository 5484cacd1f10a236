package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// The tables of TestFaults beside the random ones. In big and fat each segment
// keeps its rows in the order of id, so that a gather shows every tuple that
// has overtaken another of its sender.
const (
	bigRows = 6000
	fatRows = 48
)

var faultTables = []string{
	"create table big (id int, grp int, val bigint, pad text) distributed by (id)",
	fmt.Sprintf("insert into big select i, i %% 97, i::bigint * 7919 %% 10007, repeat(md5(i::text), 2) from generate_series(1, %d) i", bigRows),
	"create table other (id int, ref int, note text) distributed by (id)",
	fmt.Sprintf("insert into other select i, i * 31 %% %d + 1, 'note ' || i from generate_series(1, 1500) i", bigRows),
	"create table few (grp int, name text) distributed randomly",
	"insert into few select i, 'group ' || i from generate_series(0, 96) i",
	"create table everywhere (grp int, name text) distributed replicated",
	"insert into everywhere select i, 'group ' || i from generate_series(0, 96) i",
	// Tuples of up to 60 kB, which no packet holds.
	"create table fat (id int, body text) distributed by (id)",
	fmt.Sprintf("insert into fat select i, repeat(md5(i::text), i * i %% 1900 + 1) from generate_series(1, %d) i", fatRows),
	"analyze",
}

// known is a query whose answer is known.
type known struct {
	sql     string
	ordered bool
	want    []string // sorted unless ordered
}

// fixedQueries show lost, doubled and reordered tuples of every kind of motion
// there is.
func fixedQueries() []known {
	return []known{
		{sql: "select id, grp, val, pad from big"},
		{sql: "select id, grp, val, pad from big order by id", ordered: true},
		{sql: "select pad, id from big where id % 3 = 1 order by pad", ordered: true},
		{sql: "select id, body from fat"},
		{sql: "select id, md5(body), length(body) from fat order by id", ordered: true},
		{sql: "select count(*), sum(id), sum(val), sum(hashtext(pad)::bigint), min(pad), max(pad) from big", ordered: true},
		{sql: "select grp, count(*), sum(val), string_agg(id::text, ',' order by id) from big group by grp"},
		{sql: "select id, val from big where id <= 40 order by val, id limit 17", ordered: true},
		{sql: "select id, val from big order by val desc, id limit 25 offset 100", ordered: true},
		{sql: "select pad from big where id = 4711", ordered: true},
		// Joins that no distribution helps: rows go from segment to segment, or
		// all of them to the coordinator.
		{sql: "select count(*), sum(b.val), sum(o.id), sum(hashtext(b.pad || o.note)::bigint) from big b join other o on b.id = o.ref", ordered: true},
		{sql: "select o.id, b.id, b.pad from other o join big b on b.id = o.ref where o.id % 5 = 0"},
		{sql: "select f.name, count(*), sum(b.val) from big b join few f on f.grp = b.grp group by f.name"},
		{sql: "select e.name, b.id from big b join everywhere e on e.grp = b.grp where b.id % 4 = 2"},
		{sql: "select x.grp, count(*), sum(x.val - y.val) from big x join big y on x.grp = y.grp and x.id = y.id + 97 group by x.grp"},
		{sql: "select b.id, o.note, f.name from big b join other o on o.ref = b.id join few f on f.grp = b.grp where b.val < 900 order by b.id, o.note", ordered: true},
		{sql: "select count(*) from big b where not exists (select from other o where o.ref = b.id)", ordered: true},
		{sql: "select id from big where id % 2 = 0 union all select ref from other"},
		{sql: "select grp from big intersect select grp from few"},
		{sql: "select distinct grp from big where val % 2 = 0"},
		{sql: "select id, rank() over (partition by grp order by val, id) from big where grp < 9"},
		{sql: "select count(*) from generate_series(1, 10) i, lateral (select id from big where id = i * 100) b", ordered: true},
	}
}

// randomQueries draws queries for tables that are random too, and makes the
// tables.
func randomQueries(t *testing.T, conn *pgx.Conn, seed, n int) []known {
	tables := rapid.Custom(drawTables).Example(seed)
	create(t, conn, tables, true)
	draw := rapid.Custom(func(rt *rapid.T) known {
		g := &generator{rt: rt, tables: tables}
		sql, ordered := g.query()
		return known{sql: sql, ordered: ordered}
	})
	list := make([]known, n)
	for i := range list {
		list[i] = draw.Example(seed + i)
	}
	return list
}

// answers asks each query once while nothing disturbs it. Those that fail, or
// take long, are left out.
func answers(t *testing.T, conn *pgx.Conn, list []known) (good []known) {
	t.Helper()
	testkit.Exec(t, conn, "set statement_timeout = '3s'")
	defer testkit.Exec(t, conn, "set statement_timeout = 0")
	for _, q := range list {
		rows, err := answer(conn, q.sql, false, nil)
		switch state := testkit.SQLState(err); {
		case err == nil:
			if !q.ordered {
				slices.Sort(rows)
			}
			q.want = rows
			good = append(good, q)
		case state == "57014" || strings.HasPrefix(state, "22"): // too slow; overflows and the like
		case state == "XX000" && strings.Contains(err.Error(), "failed to build any"): // PostgreSQL's planner gives up, over plain tables as well
		default:
			t.Fatalf("without any fault: %s: %v", q.sql, err)
		}
	}
	return good
}

// wrongAnswer is an answer that no failure excuses.
type wrongAnswer struct{ text string }

func (w *wrongAnswer) Error() string { return w.text }

// compare tells lost, doubled, foreign and reordered rows apart.
func compare(sql string, want, got []string, ordered bool) error {
	if !ordered {
		got = sorted(got)
	}
	if slices.Equal(want, got) {
		return nil
	}
	balance := map[string]int{}
	for _, r := range want {
		balance[r]++
	}
	for _, r := range got {
		balance[r]--
	}
	lost, more, example := 0, 0, ""
	for r, n := range balance {
		if n != 0 {
			example = r
		}
		lost, more = lost+max(n, 0), more+max(-n, 0)
	}
	what := "the rows are in another order"
	if lost+more > 0 {
		if len(example) > 200 {
			example = example[:200] + "…"
		}
		what = fmt.Sprintf("%d rows are missing, %d are too many, for example %s", lost, more, example)
	}
	return &wrongAnswer{fmt.Sprintf("%s\n%d rows, expected %d: %s", sql, len(got), len(want), what)}
}

// prober is one session's share of TestFaults. It is one goroutine's.
type prober struct {
	*faultRun
	rng    *rand.Rand
	typ    string
	table  string // this session's own, to write to
	conn   *pgx.Conn
	batch  int
	doubt  map[int]bool // batches whose INSERT failed: there as a whole or not at all
	stored map[int]bool // those whose INSERT succeeded
	last   time.Time    // of the last cancel request
}

// statement bounds one statement.
func (p *prober) statement() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), p.limit, errHung)
}

var errHung = fmt.Errorf("the statement did not end")

// rows runs one statement, to its end or to errHung.
func (p *prober) rows(sql string) ([]string, error) {
	ctx, cancel := p.statement()
	defer cancel()
	// What everybody is doing is looked at before a cancel request changes it.
	var late atomic.Bool
	defer time.AfterFunc(p.limit-10*time.Second, func() {
		if !p.hung.Swap(true) {
			late.Store(true)
			p.stacks()
		}
	}).Stop()
	results, err := p.conn.PgConn().Exec(ctx, sql).ReadAll()
	switch {
	case err == nil:
		return lines(results), nil
	case ctx.Err() != nil || late.Load():
		err = errHung
	}
	return nil, fmt.Errorf("%s\n%w", sql, err)
}

// probes are what a session does at random, by weight.
var probes = []struct {
	name   string
	weight int
	run    func(p *prober) error
}{
	{"query", 50, (*prober).query},
	{"order of a segment's rows", 8, (*prober).segmentOrder},
	{"limit", 8, (*prober).stopEarly},
	{"cursor", 8, (*prober).cursor},
	{"insert", 10, (*prober).insert},
	{"transaction", 5, (*prober).transaction},
	{"cancel", 5, (*prober).cancel},
}

func (p *prober) probe() (string, error) {
	total := 0
	for _, pr := range probes {
		total += pr.weight
	}
	n := p.rng.IntN(total)
	for _, pr := range probes {
		if n -= pr.weight; n < 0 {
			return pr.name, pr.run(p)
		}
	}
	panic("unreachable")
}

func (p *prober) query() error {
	q := p.pick()
	got, err := p.rows(q.sql)
	if err != nil {
		return err
	}
	return compare(q.sql, q.want, got, q.ordered)
}

// pick is one of the known queries; the fixed ones move more rows.
func (p *prober) pick() known {
	if len(p.random) > 0 && p.rng.IntN(2) == 0 {
		return p.random[p.rng.IntN(len(p.random))]
	}
	return p.fixed[p.rng.IntN(len(p.fixed))]
}

// segmentOrder sees whether the tuples of each sender come in the order in
// which it has sent them.
func (p *prober) segmentOrder() error {
	table, n := "big", bigRows
	if p.rng.IntN(3) == 0 {
		table, n = "fat", fatRows
	}
	sql := "select gp_segment_id, id from " + table
	rows, err := p.rows(sql)
	if err != nil {
		return err
	}
	seen, last := map[int]bool{}, map[int]int{}
	for _, r := range rows {
		var seg, id int
		if _, err := fmt.Sscanf(r, "%d|%d", &seg, &id); err != nil {
			return &wrongAnswer{fmt.Sprintf("%s\nrow %q: %v", sql, r, err)}
		}
		if seen[id] {
			return &wrongAnswer{fmt.Sprintf("%s\nrow %d came twice", sql, id)}
		}
		if id < last[seg] {
			return &wrongAnswer{fmt.Sprintf("%s\nof segment %d row %d came after row %d", sql, seg, id, last[seg])}
		}
		seen[id], last[seg] = true, id
	}
	if len(rows) != n {
		return &wrongAnswer{fmt.Sprintf("%s\n%d rows, expected %d", sql, len(rows), n)}
	}
	return nil
}

// stopEarly reads a few rows of many.
func (p *prober) stopEarly() error {
	n := 1 + p.rng.IntN(200)
	sql := fmt.Sprintf("select id, pad from big limit %d", n)
	if p.rng.IntN(2) == 0 {
		sql = fmt.Sprintf("select a.id, b.pad from (select id from big limit %d) a join big b on b.id = a.id", n)
	}
	rows, err := p.rows(sql)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r] || !p.pads[r] {
			return &wrongAnswer{fmt.Sprintf("%s\nthe row %s is doubled or none of the table's", sql, r)}
		}
		seen[r] = true
	}
	if len(rows) != n {
		return &wrongAnswer{fmt.Sprintf("%s\n%d rows", sql, len(rows))}
	}
	return nil
}

// cursor reads a query in portions, often not to its end, with another query
// in between.
func (p *prober) cursor() (err error) {
	q := p.pick()
	steps := []string{"begin", "declare c no scroll cursor for " + q.sql}
	for range p.rng.IntN(4) {
		steps = append(steps, fmt.Sprintf("fetch %d from c", 1+p.rng.IntN(len(q.want)+2)))
		if p.rng.IntN(4) == 0 {
			steps = append(steps, "select count(*) from big")
		}
	}
	switch p.rng.IntN(3) {
	case 0:
		steps = append(steps, "fetch all from c", "close c")
	case 1:
		steps = append(steps, "close c")
	}
	steps = append(steps, "commit")
	defer func() {
		if err != nil && !p.conn.IsClosed() {
			_, rerr := p.rows("rollback")
			if rerr != nil && !p.conn.IsClosed() {
				err = fmt.Errorf("rollback after %w: %w", err, rerr)
			}
		}
	}()
	var got []string
	whole := false
	for _, sql := range steps {
		rows, err := p.rows(sql)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(sql, "fetch"):
			got = append(got, rows...)
			whole = whole || sql == "fetch all from c"
		case strings.HasPrefix(sql, "select") && (len(rows) != 1 || rows[0] != fmt.Sprint(bigRows)):
			return &wrongAnswer{fmt.Sprintf("%s beside a cursor: %q", sql, rows)}
		}
	}
	what := strings.Join(steps, "; ")
	if whole {
		return compare(what, q.want, got, q.ordered)
	}
	if q.ordered {
		if len(got) > len(q.want) {
			return &wrongAnswer{fmt.Sprintf("%s\n%d rows, there are %d", what, len(got), len(q.want))}
		}
		return compare(what, q.want[:len(got)], got, true)
	}
	left := map[string]int{}
	for _, r := range q.want {
		left[r]++
	}
	for _, r := range got {
		if left[r]--; left[r] < 0 {
			return &wrongAnswer{fmt.Sprintf("%s\nthe row %s is doubled or foreign", what, r)}
		}
	}
	return nil
}

// insertSQL fills a batch of this session's table from other tables; the rows
// change segments.
func (p *prober) insertSQL() string {
	p.batch++
	if p.rng.IntN(3) == 0 {
		return fmt.Sprintf("insert into %s select %d, o.id, b.pad from other o join big b on b.id = o.ref", p.table, p.batch)
	}
	return fmt.Sprintf("insert into %s select %d, id, pad from big where id %% 4 = %d", p.table, p.batch, p.rng.IntN(4))
}

// batchRows is how many rows each batch of insertSQL has.
const batchRows = 1500

// insert stores a batch, and looks what is there.
func (p *prober) insert() error {
	_, err := p.rows(p.insertSQL())
	if err != nil {
		p.doubt[p.batch] = true
		return err
	}
	p.stored[p.batch] = true
	return p.look()
}

// look compares what this session's table holds with what it should.
func (p *prober) look() error {
	sql := fmt.Sprintf("select batch, count(*), count(distinct id), count(pad) from %s group by batch", p.table)
	rows, err := p.rows(sql)
	if err != nil {
		return err
	}
	there := map[int]bool{}
	for _, r := range rows {
		var batch, n, distinct, pads int
		if _, err := fmt.Sscanf(r, "%d|%d|%d|%d", &batch, &n, &distinct, &pads); err != nil {
			return &wrongAnswer{fmt.Sprintf("%s\nrow %q: %v", sql, r, err)}
		}
		if n != batchRows || distinct != batchRows || pads != batchRows || !p.stored[batch] && !p.doubt[batch] {
			return &wrongAnswer{fmt.Sprintf("%s\nbatch %d of %d (stored %v, failed %v) has %d rows, %d ids, %d texts, expected %d",
				sql, batch, p.batch, p.stored[batch], p.doubt[batch], n, distinct, pads, batchRows)}
		}
		there[batch] = true
	}
	for batch := range p.stored {
		if !there[batch] {
			return &wrongAnswer{fmt.Sprintf("%s\nbatch %d was stored and is not there", sql, batch)}
		}
	}
	if len(rows) < 6 {
		return nil
	}
	// What is known to be there goes; what is in doubt stays for later looks.
	for batch := range p.stored {
		if _, err := p.rows(fmt.Sprintf("delete from %s where batch = %d", p.table, batch)); err != nil {
			delete(p.stored, batch)
			p.doubt[batch] = true
			return err
		}
		delete(p.stored, batch)
	}
	return nil
}

// transaction stores a batch, sees it, and takes it back.
func (p *prober) transaction() (err error) {
	insert := p.insertSQL()
	_, err = p.rows("begin")
	if err != nil {
		return err
	}
	if _, err = p.rows(insert); err == nil {
		sql := fmt.Sprintf("select count(*), count(distinct id) from %s where batch = %d", p.table, p.batch)
		var rows []string
		if rows, err = p.rows(sql); err == nil && (len(rows) != 1 || rows[0] != fmt.Sprintf("%d|%[1]d", batchRows)) {
			err = &wrongAnswer{fmt.Sprintf("%s; %s\n%q, expected %d", insert, sql, rows, batchRows)}
		}
	}
	if p.conn.IsClosed() {
		return err
	}
	if _, rerr := p.rows("rollback"); rerr != nil && err == nil {
		err = rerr
	}
	return err
}

// cancel calls a query off while it runs. It may be late.
func (p *prober) cancel() error {
	q := p.pick()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	conn := p.conn.PgConn()
	done := make(chan error, 1)
	timer := time.AfterFunc(time.Duration(p.rng.IntN(30_000))*time.Microsecond, func() { done <- conn.CancelRequest(ctx) })
	got, err := p.rows(q.sql)
	if !timer.Stop() {
		p.last = time.Now()
		if cerr := <-done; cerr != nil {
			return fmt.Errorf("cancel request: %w", cerr)
		}
		// The request has been read, but it may yet hit the next statement.
		if _, serr := p.rows("select pg_sleep(0.05)"); serr != nil && testkit.SQLState(serr) != "57014" {
			return serr
		}
	}
	switch {
	case testkit.SQLState(err) == "57014":
		return nil
	case err != nil:
		return err
	}
	return compare(q.sql, q.want, got, q.ordered)
}
