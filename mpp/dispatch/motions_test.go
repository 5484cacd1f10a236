package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/execute"
)

// newMotionCluster is an icCluster whose segments have the row source's
// functions, as mpp/catalog makes them.
func newMotionCluster(t *testing.T, typ string) (*icCluster, *Gang) {
	t.Helper()
	c := newICCluster(t, typ)
	g := c.gang(t, typ)
	for i, s := range shared.segs {
		exec(t, g, []int{i}, fmt.Sprintf(`SET allow_system_table_mods = on;
			CREATE OR REPLACE FUNCTION pg_catalog.gp_motion_recv(text, text) RETURNS SETOF record
				LANGUAGE c STRICT PARALLEL RESTRICTED AS '$libdir/dblink', 'dblink_record';
			CREATE OR REPLACE FUNCTION pg_catalog.gp_motion_recv_0(text, text) RETURNS SETOF record
				LANGUAGE c STRICT PARALLEL RESTRICTED ROWS 1 AS '$libdir/dblink', 'dblink_record';
			CREATE OR REPLACE FUNCTION pg_catalog.gp_motion_connect_u(text, text) RETURNS text
				LANGUAGE c STRICT PARALLEL RESTRICTED AS '$libdir/dblink', 'dblink_connect';
			CREATE OR REPLACE FUNCTION pg_catalog.gp_motion_disconnect_u(text) RETURNS text
				LANGUAGE c STRICT PARALLEL RESTRICTED AS '$libdir/dblink', 'dblink_disconnect';
			CREATE OR REPLACE FUNCTION pg_catalog.gp_motion_connect() RETURNS void LANGUAGE plpgsql AS
				$$BEGIN BEGIN PERFORM gp_motion_disconnect_u('gp_motion'); EXCEPTION WHEN connection_does_not_exist THEN NULL; END;
				PERFORM gp_motion_connect_u('gp_motion', 'host=%s port=%d user=gpadmin dbname=motion'); END$$;
			RESET allow_system_table_mods`, s.Dir.RowsDir(), s.Port))
	}
	return c, g
}

// onMotions runs a test in the types that executors are connected by here.
func onMotions(t *testing.T, f func(t *testing.T, c *icCluster, g *Gang)) {
	onTypes(t, []string{"tcp", "udpifc"}, f)
}

func onTypes(t *testing.T, types []string, f func(t *testing.T, c *icCluster, g *Gang)) {
	for _, typ := range types {
		t.Run(typ, func(t *testing.T) {
			if typ == "proxy" {
				startProxies(t)
			}
			c, g := newMotionCluster(t, typ)
			f(t, c, g)
		})
	}
}

// ask runs slice 1 into rows of text, at most limit of them if that is not
// negative.
func (c *icCluster) ask(ctx context.Context, g *Gang, limit int, slcs ...Slice) (rows []string, err error) {
	c.cmd++
	r, err := g.Open(ctx, c.cmd, slcs, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
	if err != nil {
		return nil, err
	}
	recv, err := c.ic.Receive(r.Context(), motion.ID{Session: g.cfg.SessionID, Command: c.cmd, SendSlice: 1}, c.self, r.Senders(1))
	for err == nil && len(rows) != limit {
		var b []byte
		if b, _, err = recv.Receive(r.Context()); err == nil {
			rows = append(rows, rowText(b))
		}
	}
	if err == nil {
		recv.Stop()
	}
	if err == nil || err == io.EOF {
		err = recv.Close(ctx)
	} else if recv != nil {
		recv.Abort()
	}
	if ferr := r.Finish(ctx); ferr != nil {
		err = ferr
	}
	slices.Sort(rows)
	return rows, err
}

// rowText is a DataRow's body with bars between the values.
func rowText(b []byte) string {
	var values []string
	for b = b[2:]; len(b) > 0; {
		n := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n < 0 {
			values = append(values, "-")
			continue
		}
		values = append(values, string(b[:n]))
		b = b[n:]
	}
	return strings.Join(values, "|")
}

// input makes slice index the input of slice 1.
func input(index int16, sql string, keys ...execute.Key) Slice {
	return Slice{Index: index, SQL: sql, Input: &Input{To: 1, Token: fmt.Sprintf("token%d", index), Columns: 2, Keys: keys}}
}

// source is the FROM item by which slice 1 reads that input.
func source(index int16, columns string) string {
	return fmt.Sprintf("pg_catalog.gp_motion_recv('gp_motion', 'token%d') AS s%d(%s)", index, index, columns)
}

// rowsOf are 100 rows of (number, text) that differ between segments; every
// tenth number is NULL. Each segment must know its content id.
func rowsOf(g *Gang, t *testing.T) string {
	for i := range nsegs {
		exec(t, g, []int{i}, fmt.Sprintf("CREATE OR REPLACE FUNCTION content() RETURNS int LANGUAGE sql AS 'SELECT %d'", i))
	}
	return "SELECT CASE WHEN i % 10 > 0 THEN i * 1000 + content() END, 's' || content() || 'r' || i FROM generate_series(1, 100) i"
}

// TestRedistribute sends each row to the segment that a table's would be on,
// also where another slice of some segments comes first.
func TestRedistribute(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		redistribute(t, c, g)
		redistribute(t, c, g, Slice{Index: 3, SQL: "SELECT 1", Segments: []int{nsegs - 1}})
	})
}

func redistribute(t *testing.T, c *icCluster, g *Gang, before ...Slice) {
	t.Helper()
	rows, err := c.ask(testContext(t), g, -1, append(before,
		Slice{Index: 1, SQL: "SELECT content(), n, t FROM " + source(2, "n int, t text")},
		input(2, rowsOf(g, t), execute.Key{Column: 0, OID: 23}))...)
	if err != nil || len(rows) != 100*nsegs {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	h, err := cdbhash.NewHasher([]uint32{23})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, row := range rows {
		f := strings.Split(row, "|")
		var key []byte
		if n, err := strconv.Atoi(f[1]); err == nil {
			key = binary.BigEndian.AppendUint32(nil, uint32(n))
		}
		seg, err := h.Segment([][]byte{key}, nsegs)
		if err != nil || f[0] != strconv.Itoa(seg) {
			t.Errorf("row %s is not on segment %d, %v", row, seg, err)
		}
		if seen[f[2]] {
			t.Errorf("row %s is there twice", row)
		}
		seen[f[2]] = true
	}
}

// TestTornMotions is TestTornInBlock for slices that read each other: they are given
// up before any has run, and run when they are opened again.
func TestTornMotions(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		sql := rowsOf(g, t)
		exec(t, g, nil, "DROP TABLE IF EXISTS mtorn, mbeside; CREATE TABLE mtorn (a int); CREATE TABLE mbeside (a int)")
		locker, w := c.gang(t, g.cfg.InterconnectType), c.gang(t, g.cfg.InterconnectType)
		lockOn(t, locker, 0, "mtorn")
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, g, nil, "INSERT INTO mbeside VALUES (2)")
		slcs := []Slice{{Index: 1, SQL: "SELECT content(), n, t FROM " + source(2, "n int, t text") + " WHERE (SELECT sum(a) FROM mbeside) = 2 AND NOT EXISTS (SELECT FROM mtorn)"},
			input(2, sql, execute.Key{Column: 0, OID: 23})}
		opened := make(chan error)
		go func() {
			_, err := c.ask(testContext(t), g, -1, slcs...)
			opened <- err
		}()
		for limit := time.Now().Add(10 * time.Second); !g.waitsForLock(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("nobody waits for the lock")
			}
		}
		write(t, w, "mbeside", 0, 1, 2)
		exec(t, w, nil, "DELETE FROM mbeside")
		if err := w.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Fatal(err)
		}
		if err := locker.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-opened; !errors.Is(err, ErrTorn) {
			t.Fatalf("the slices have run: %v", err)
		}
		if g.Failed() {
			t.Fatal("the transaction has failed")
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || len(rows) != 100*nsegs {
			t.Errorf("opened again: %d rows, %v", len(rows), err)
		}
		g.MarkWrite(nil)
		if err := g.CommitDistributed(testContext(t), newCoordTxn(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBroadcast sends all rows to each segment that reads them, here one, and
// joins them with those of another motion.
func TestBroadcast(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		join := "SELECT content(), count(*), count(DISTINCT s2.t) FROM " + source(2, "n int, t text") + " JOIN " + source(3, "n int, t text") + " USING (t)"
		for _, segs := range [][]int{nil, {1}} {
			rows, err := c.ask(testContext(t), g, -1, Slice{Index: 1, SQL: join, Segments: segs}, input(2, rowsOf(g, t)), input(3, rowsOf(g, t)))
			want := []string{"0|300|300", "1|300|300", "2|300|300"}
			if segs != nil {
				want = want[1:2]
			}
			if err != nil || !slices.Equal(rows, want) {
				t.Errorf("on %v: %v, %v", segs, rows, err)
			}
		}
	})
}

// TestStays: rows come to the slice that reads them on their own segment, by whichever
// executor it runs, beside those that go elsewhere.
func TestStays(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		stay := input(2, rowsOf(g, t))
		stay.Input.Stays = true
		slcs := []Slice{{Index: 1, SQL: "SELECT content(), s2.t LIKE 's' || content() || 'r%', count(*), count(DISTINCT s3.n) FROM " +
			source(2, "n int, t text") + " JOIN " + source(3, "n int, t text") + " ON s3.t = 's0r1' GROUP BY 2"},
			stay, input(3, rowsOf(g, t))}
		for _, readers := range [][]int{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {2, 1, 1}} {
			for i, k := range readers {
				slcs[i].Reader = k
			}
			if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, []string{"0|t|100|1", "1|t|100|1", "2|t|100|1"}) {
				t.Errorf("readers %v: %v, %v", readers, rows, err)
			}
		}
		for i := range slcs {
			slcs[i].Segments, slcs[i].Reader = []int{0, 2}, 0
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || !slices.Equal(rows, []string{"0|t|100|1", "2|t|100|1"}) {
			t.Errorf("on two segments: %v, %v", rows, err)
		}
	})
}

// TestMotionsInTransaction: inputs see what the transaction has written, and
// leave it usable.
func TestMotionsInTransaction(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		exec(t, g, nil, "DROP TABLE IF EXISTS own; CREATE TABLE own (n int, t text)")
		if err := g.Begin(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		exec(t, g, nil, "INSERT INTO own VALUES (1, 'a'), (2, 'b')")
		for range 2 {
			rows, err := c.ask(testContext(t), g, -1,
				Slice{Index: 1, SQL: "SELECT n, count(*) FROM " + source(2, "n int, t text") + " GROUP BY n"},
				input(2, "SELECT n, t FROM own", execute.Key{Column: 0, OID: 23}))
			if want := []string{"1|3", "2|3"}; err != nil || !slices.Equal(rows, want) {
				t.Errorf("%v, %v", rows, err)
			}
		}
		if err := g.Rollback(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWrites has a slice write what another sends it, on the segments of its key;
// what fails on one is nowhere.
func TestWrites(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		ctx := t.Context()
		exec(t, g, nil, "DROP TABLE IF EXISTS written; CREATE TABLE written (i int CHECK (i <> 41))")
		var copies bool
		write := func(sql string) (tags []string, err error) {
			if err := g.Begin(ctx, ""); err != nil {
				return nil, err
			}
			defer g.Rollback(ctx)
			g.MarkWrite(nil)
			c.cmd++
			to := Slice{Index: 2, SQL: "INSERT INTO written SELECT i FROM " + source(1, "i int"), Writes: true}
			from := Slice{Index: 1, SQL: sql, Input: &Input{To: 2, Keys: []execute.Key{{Column: 0, OID: 23}}, Token: "token1", Columns: 1}}
			if copies {
				to.SQL, to.Data = "COPY written FROM STDIN (FORMAT binary)", "token1"
				from.ResultFormats, from.Input.Binary = []int16{1}, true
			}
			r, err := g.Open(ctx, c.cmd, []Slice{to, from}, &Run{Slice: 2})
			if err == nil {
				err = r.Finish(ctx)
			}
			if err != nil {
				return nil, err
			}
			for _, tag := range r.Tags(2) {
				tags = append(tags, tag.String())
			}
			res, err := g.Exec(ctx, nil, "SELECT count(*) FROM written")
			for i, r := range res {
				if n := string(r.Rows[0][0]); !strings.HasSuffix(tags[i], " "+n) {
					t.Errorf("seg%d has %s rows, its tag says %s", i, n, tags[i])
				}
			}
			return tags, err
		}
		var first []string
		for _, copies = range []bool{false, true} {
			tags, err := write("SELECT generate_series(1, 40)")
			if err != nil || len(tags) != nsegs || slices.Contains(tags, "INSERT 0 0") {
				t.Errorf("%v, %v", tags, err)
			}
			for i := range tags {
				tags[i] = tags[i][strings.LastIndexByte(tags[i], ' ')+1:]
			}
			if first == nil {
				first = tags
			}
			if !slices.Equal(tags, first) {
				t.Errorf("%v by INSERT, %v by COPY", first, tags)
			}
			for sql, want := range map[string]string{"SELECT generate_series(1, 45)": "23514", "SELECT 1 / (30 - i) FROM generate_series(1, 40) i": "22012"} {
				if _, err := write(sql); code(err) != want {
					t.Errorf("%v, expected %s", err, want)
				}
			}
			for _, r := range exec(t, g, nil, "SELECT count(*) FROM written") {
				if n := string(r.Rows[0][0]); n != "0" {
					t.Errorf("seg%d has %s rows", r.Seg, n)
				}
			}
		}
	})
}

// TestMotionsEnd ends statements with motions in every way before all rows are
// read: nothing hangs, the error is the one that tells, and the executors are
// as they were.
func TestMotionsEnd(t *testing.T) {
	many := "SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i"
	key := execute.Key{Column: 0, OID: 23}
	all := "SELECT count(*), sum(length(t)) FROM " + source(2, "n int, t text")
	tests := []struct {
		name  string
		slcs  []Slice
		limit int
		code  string
		rows  int
	}{
		{name: "many", slcs: []Slice{{Index: 1, SQL: all}, input(2, many, key)}, limit: -1, rows: nsegs},
		{name: "unread", slcs: []Slice{{Index: 1, SQL: "SELECT 1"}, input(2, many, key)}, limit: -1, rows: nsegs},
		{name: "read in part", slcs: []Slice{{Index: 1, SQL: "SELECT * FROM " + source(2, "n int, t text") + " LIMIT 1"}, input(2, many)}, limit: -1, rows: nsegs},
		{name: "stopped", slcs: []Slice{{Index: 1, SQL: "SELECT * FROM " + source(2, "n int, t text")}, input(2, many)}, limit: 5, rows: 5},
		{name: "input fails", slcs: []Slice{{Index: 1, SQL: all}, input(2, "SELECT 1 / (content() - 1), '' FROM generate_series(1, 10)", key)}, limit: -1, code: "22012"},
		{name: "input fails late", slcs: []Slice{{Index: 1, SQL: all},
			input(2, "SELECT i / CASE WHEN content() = 1 AND i = 10000 THEN 0 ELSE 1 END, repeat('x', 200) FROM generate_series(1, 20000) i", key)}, limit: -1, code: "22012"},
		{name: "reader fails", slcs: []Slice{{Index: 1, SQL: "SELECT 1 / (n - 77) FROM " + source(2, "n int, t text")}, input(2, many, key)}, limit: -1, code: "22012"},
		{name: "input is no SQL", slcs: []Slice{{Index: 1, SQL: all}, input(2, "SELEKT")}, limit: -1, code: "42601"},
		{name: "no such key", slcs: []Slice{{Index: 1, SQL: all}, input(2, many, execute.Key{Column: 7, OID: 23})}, limit: -1, code: "08P01"},
		{name: "key not hashable", slcs: []Slice{{Index: 1, SQL: all}, input(2, many, execute.Key{Column: 0, OID: 600})}, limit: -1, code: "0A000"},
		{name: "key not of its type", slcs: []Slice{{Index: 1, SQL: all}, input(2, many, execute.Key{Column: 1, OID: 23})}, limit: -1, code: "XX000"},
	}
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		rowsOf(g, t)
		for _, tt := range tests {
			for by, slcs := range map[string][]Slice{"": tt.slcs, " by readers": besides(tt.slcs)} {
				t.Run(tt.name+by, func(t *testing.T) {
					rows, err := c.ask(testContext(t), g, tt.limit, slcs...)
					if tt.code == "" && (err != nil || len(rows) != tt.rows) || tt.code != "" && code(err) != tt.code {
						t.Errorf("%d rows, %v", len(rows), err)
					}
					if rows, err := c.ask(testContext(t), g, -1, Slice{Index: 1, SQL: "SELECT content()"}); err != nil || len(rows) != nsegs {
						t.Fatalf("afterwards: %v, %v", rows, err)
					}
				})
			}
		}
	})
}

// TestMotionsBusy: a connection to the row source that an error has left busy
// fails one statement at most.
func TestMotionsBusy(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		slcs := []Slice{{Index: 1, SQL: "SELECT count(*) FROM " + source(2, "n int, t text")}, input(2, rowsOf(g, t))}
		if _, err := c.ask(testContext(t), g, -1, slcs...); err != nil {
			t.Fatal(err)
		}
		exec(t, g, nil, `CREATE OR REPLACE FUNCTION pg_temp.send(text, text) RETURNS int LANGUAGE c AS '$libdir/dblink', 'dblink_send_query';
			SELECT pg_temp.send('gp_motion', 'nobody reads the answer')`)
		if _, err := c.ask(testContext(t), g, -1, slcs...); !strings.Contains(fmt.Sprint(err), "another command is already in progress") {
			t.Errorf("the connection is busy: %v", err)
		}
		if rows, err := c.ask(testContext(t), g, -1, slcs...); err != nil || len(rows) != nsegs {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
	})
}

// TestMotionsLost ends a segment's backend while rows go between segments: the
// error is that, and not that the others' motions have been broken off.
func TestMotionsLost(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		for range 5 {
			rowsOf(g, t)
			pid := g.members[1].pid
			done := make(chan error, 1)
			go func() {
				_, err := c.ask(testContext(t), g, -1, Slice{Index: 1, SQL: "SELECT * FROM " + source(2, "n int, t text")},
					input(2, "SELECT i, CASE WHEN content() = 1 THEN pg_sleep(60)::text END FROM generate_series(1, 10) i"))
				done <- err
			}()
			for slept := ""; slept != "1"; {
				if len(done) > 0 {
					t.Fatalf("the statement has ended: %v", <-done)
				}
				res := exec(t, c.gang(t, "tcp"), []int{1}, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %d", pid))
				slept = string(res[0].Rows[0][0])
			}
			killBackend(t, 1, pid)
			err := <-done
			if s := code(err); s != "57P01" && s != codeConnectionFailure || !strings.Contains(err.Error(), "(seg1 ") && !strings.Contains(err.Error(), "from seg1 ") {
				t.Errorf("got %v, %s", err, detail(err))
			}
			if rows, err := c.ask(testContext(t), g, -1, Slice{Index: 1, SQL: "SELECT 1"}); err != nil || len(rows) != nsegs {
				t.Fatalf("afterwards: %v, %v", rows, err)
			}
		}
	})
}

// TestMotionsCancelled cancels while inputs have no rows and slices wait for
// them.
func TestMotionsCancelled(t *testing.T) {
	onMotions(t, func(t *testing.T, c *icCluster, g *Gang) {
		rowsOf(g, t)
		ctx, cancel := context.WithCancel(testContext(t))
		exec(t, g, nil, "SELECT 1")
		done := make(chan error, 1)
		go func() {
			// Segments 0 and 2 wait for rows of segment 1.
			_, err := c.ask(ctx, g, -1, Slice{Index: 1, SQL: "SELECT * FROM " + source(2, "n int, t text")},
				input(2, "SELECT 1, '' FROM (SELECT CASE WHEN content() = 1 THEN pg_sleep(60) END) x"))
			done <- err
		}()
		other := c.gang(t, "tcp")
		for waiting := ""; waiting != "1"; {
			if len(done) > 0 {
				t.Fatalf("the statement has ended: %v", <-done)
			}
			res := exec(t, other, []int{0}, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%gp_motion_recv%' AND state = 'active' AND pid <> pg_backend_pid()")
			waiting = string(res[0].Rows[0][0])
		}
		start := time.Now()
		cancel()
		if err := <-done; code(err) != codeCanceled {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %v", d)
		}
		if rows, err := c.ask(testContext(t), g, -1, Slice{Index: 1, SQL: "SELECT 1"}); err != nil || len(rows) != nsegs {
			t.Errorf("afterwards: %v, %v", rows, err)
		}
	})
}
