package rowsource

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestPortions reads in portions while rows come, and portions it has had again:
// no row is lost, doubled, changed or overtaken, whether it went through the file
// or not.
func TestPortions(t *testing.T) {
	inFile, inMemory, again := false, false, false
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 100, 5000, queueChunk - 12, queueChunk, 300_000}), 0, 60).Draw(t, "sizes")
		reads := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}), len(sizes), len(sizes)).Draw(t, "reads")
		room := NewMemory(4 * queueChunk)
		q := NewQueue(room)
		defer func() {
			if q.Close(); room.used.Load() != 0 {
				t.Errorf("%d bytes are still taken", room.used.Load())
			}
		}()
		portions := [][2]int{{0, 0}} // first row and the one after the last
		check := func(n int) {
			i := portions[n-1][1]
			if n < len(portions) {
				i, again = portions[n][0], true
			}
			first := i
			if err := q.Portion(n, func(row []byte) error {
				if want := numbered(i, sizes[i]); string(row) != string(want) {
					return fmt.Errorf("row %d of portion %d is not what was written", i, n)
				}
				i++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if n == len(portions) {
				portions = append(portions, [2]int{first, i})
			} else if i != portions[n][1] {
				t.Fatalf("portion %d ends at row %d, and at %d when read again", n, portions[n][1], i)
			}
		}
		take := func() bool {
			n := len(portions)
			more, err := q.More(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if more {
				check(n)
			}
			return more
		}
		for i, size := range sizes {
			if err := q.Add(numbered(i, size)); err != nil {
				t.Fatal(err)
			}
			if reads[i] > 0 && portions[len(portions)-1][1] <= i {
				take()
			}
			if n := len(portions); reads[i] > 1 && n > 1 {
				check(1 + i%(n-1))
			}
			q.mu.Lock()
			inFile, inMemory = inFile || q.filed > 0, inMemory || q.bytes > 0
			if q.bytes > 4*queueChunk {
				t.Fatalf("%d bytes in memory", q.bytes)
			}
			q.mu.Unlock()
		}
		q.End()
		for take() {
		}
		if last := portions[len(portions)-1][1]; last != len(sizes) {
			t.Fatalf("%d of %d rows", last, len(sizes))
		}
		for n := 1; n < len(portions); n++ {
			check(n)
		}
		if err := q.Portion(len(portions), nil); err == nil {
			t.Fatal("there is a portion after the last")
		}
		if _, err := q.More(t.Context(), len(portions)+1); err == nil {
			t.Fatal("a portion was left out and nobody noticed")
		}
		if err := q.Read(t.Context(), nil); err != ErrReadTwice {
			t.Fatalf("read again: %v", err)
		}
	})
	if !inFile || !inMemory || !again {
		t.Errorf("in the file %v, in memory %v, read again %v: some of it was not tried", inFile, inMemory, again)
	}
}

// TestPortionWaits has few rows wait for others for a moment, a chunk not at all,
// and a failure heard of at once.
func TestPortionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(NewMemory(1 << 20))
		defer q.Close()
		more := func(n int) (bool, time.Duration, error) {
			start := time.Now()
			some, err := q.More(t.Context(), n)
			return some, time.Since(start), err
		}
		add := func(after time.Duration, size int) {
			time.AfterFunc(after, func() { _ = q.Add(make([]byte, size)) })
		}
		add(time.Second, 10)
		add(time.Second+gatherTime/2, 10)
		if some, took, err := more(1); !some || err != nil || took != time.Second+gatherTime {
			t.Errorf("two rows: %v, %v, after %s", some, err, took)
		}
		rows := 0
		if err := q.Portion(1, func([]byte) error { rows++; return nil }); err != nil || rows != 2 {
			t.Errorf("%d rows, %v", rows, err)
		}
		add(time.Second, queueChunk)
		add(time.Second, queueChunk)
		if some, took, err := more(2); !some || err != nil || took != time.Second {
			t.Errorf("a chunk: %v, %v, after %s", some, err, took)
		}
		if some, took, err := more(3); !some || err != nil || took != gatherTime {
			t.Errorf("the second chunk: %v, %v, after %s", some, err, took)
		}
		boom := errors.New("boom")
		time.AfterFunc(time.Second, func() { q.Fail(boom) })
		if _, took, err := more(4); err != boom || took != time.Second {
			t.Errorf("a failure: %v, after %s", err, took)
		}
		if err := q.Portion(1, nil); err != boom {
			t.Errorf("after a failure: %v", err)
		}
	})
}

// portions reads a source as the planner has segments do it.
const portions = "(WITH RECURSIVE gp_portions(name) AS (SELECT 'tok 0' UNION ALL SELECT n.name FROM gp_portions p, " +
	"LATERAL recv_0('gp_motion', p.name || ' next') AS n(name text)) " +
	"SELECT r.* FROM gp_portions p, LATERAL recv('gp_motion', p.name) AS r(a int, b text)) AS t"

// columnPortions is portions with the rows in columns.
const columnPortions = "(WITH RECURSIVE gp_portions(name) AS (SELECT 'tok 0' UNION ALL SELECT n.name FROM gp_portions p, " +
	"LATERAL recv_0('gp_motion', p.name || ' next') AS n(name text)) " +
	"SELECT unnest(r.a) AS a, unnest(r.b) AS b FROM gp_portions p, LATERAL recv('gp_motion', p.name || ' columns') AS r(a int[], b text[])) AS t"

// TestServerPortions has PostgreSQL read portions, before the last row is there,
// and again in a join that looks at them for each of its rows.
func TestServerPortions(t *testing.T) {
	srv := pgtest.Start(t)
	s, dir := listen(t, Config{})
	conn := dial(t, srv)
	prepare(t, conn, dir)
	q := NewQueue(NewMemory(1 << 20))
	defer q.Close()
	s.Add("tok", Source{Columns: 2, Queue: q})
	if err := q.Add(appendText2("1", "one")); err != nil {
		t.Fatal(err)
	}
	// Nothing tells this query of an end.
	if got, err := value(conn, "SELECT a || b FROM "+portions+" LIMIT 1"); err != nil || got != "1one" {
		t.Fatalf("the first row: %s, %v", got, err)
	}
	const n = 20_000
	fill := func(fail error) {
		q = NewQueue(NewMemory(1 << 20))
		t.Cleanup(q.Close)
		s.Add("tok", Source{Columns: 2, Queue: q})
		for i := range n {
			_ = q.Add(appendText2(fmt.Sprint(i), strings.Repeat("x", 100)))
		}
		if fail != nil {
			q.Fail(fail)
			return
		}
		q.End()
	}
	fill(nil)
	again := "SET enable_material=off; SET enable_hashjoin=off; SET enable_mergejoin=off; SELECT count(*) || ' ' || sum(a) FROM generate_series(0, 2) g JOIN " + portions + " ON a % 3 >= g"
	want := 0
	for i := range n {
		want += i%3 + 1
	}
	if got, err := value(conn, again); err != nil || !strings.HasPrefix(got, fmt.Sprint(want, " ")) {
		t.Errorf("read for each of three rows: %s, %v; expected %d", got, err, want)
	}
	fill(nil)
	if got, err := value(conn, strings.Replace(again, portions, columnPortions, 1)); err != nil || !strings.HasPrefix(got, fmt.Sprint(want, " ")) {
		t.Errorf("in columns, read for each of three rows: %s, %v; expected %d", got, err, want)
	}
	for _, from := range []string{portions, columnPortions} {
		fill(&pgconn.PgError{Code: "22012", Message: "division by zero"})
		if _, err := value(conn, "SELECT count(*) FROM "+from); code(err) != "22012" {
			t.Errorf("a source that has failed: %v", err)
		}
	}
	fill(nil)
	if got, err := value(conn, "SELECT count(*) FROM recv('gp_motion', 'tok') AS t(a int, b text)"); err != nil || got != fmt.Sprint(n) {
		t.Errorf("whole: %s, %v", got, err)
	}
	if _, err := value(conn, "SELECT count(*) FROM "+portions); code(err) != "XX000" || !strings.Contains(err.Error(), ErrReadTwice.Error()) {
		t.Errorf("in portions after it was read whole: %v", err)
	}
	// The planner counts on so many portions.
	if got, err := value(conn, "EXPLAIN SELECT * FROM "+portions); err != nil || !strings.Contains(got, " rows=1010000 ") {
		t.Errorf("101 portions of 10000 rows each are expected to be %s, %v", got, err)
	}
	if got, err := value(conn, "EXPLAIN SELECT * FROM "+columnPortions); err != nil || !strings.Contains(got, " rows=10100000 ") {
		t.Errorf("101 portions of 10000 arrays each are expected to be %s, %v", got, err)
	}
	for _, bad := range []string{"tok x", "tok -1", "tok 1 columns next", "tok 1 next columns", "tok 7 columns", "tok 1 last", "tok 7", "nix 0"} {
		if _, err := value(conn, "SELECT a FROM recv('gp_motion', '"+bad+"') AS t(a int)"); err == nil {
			t.Errorf("%q was answered", bad)
		}
	}
}

// prepare gives a connection the functions that read the row source in dir.
func prepare(t testing.TB, conn *pgconn.PgConn, dir string) {
	t.Helper()
	if _, err := value(conn, `CREATE EXTENSION dblink;
CREATE FUNCTION pg_catalog.recv(text, text) RETURNS SETOF record LANGUAGE c STRICT PARALLEL RESTRICTED ROWS 10000 AS '$libdir/dblink', 'dblink_record';
CREATE FUNCTION pg_catalog.recv_0(text, text) RETURNS SETOF record LANGUAGE c STRICT PARALLEL RESTRICTED ROWS 1 AS '$libdir/dblink', 'dblink_record';
SET jit = off; SELECT dblink_connect('gp_motion', 'host=`+dir+` port=6000 user=x dbname=x')`); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkRead is what PostgreSQL takes for a row, whole and in portions.
func BenchmarkRead(b *testing.B) {
	srv := pgtest.Start(b)
	s, dir := listen(b, Config{})
	conn := dial(b, srv)
	prepare(b, conn, dir)
	ways := []struct{ name, from string }{
		{"whole", "recv('gp_motion', 'tok') AS t(a int, b text)"},
		{"portions", portions},
		{"columns", columnPortions},
	}
	for _, n := range []int{100, 300_000} {
		for _, w := range ways {
			b.Run(fmt.Sprintf("%s/%d", w.name, n), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					q := NewQueue(NewMemory(64 << 20))
					text := strings.Repeat("x", 20)
					for i := range n {
						if err := q.Add(appendText2(fmt.Sprint(i), text)); err != nil {
							b.Fatal(err)
						}
					}
					q.End()
					s.Add("tok", Source{Columns: 2, Queue: q})
					b.StartTimer()
					got, err := value(conn, "SELECT count(*) || ' ' || sum(a) FROM "+w.from)
					if want := fmt.Sprintf("%d %d", n, n*(n-1)/2); err != nil || got != want {
						b.Fatal(got, err)
					}
					q.Close()
				}
			})
		}
	}
}

func appendText2(a, b string) []byte { return appendText(appendText([]byte{0, 2}, a), b) }
