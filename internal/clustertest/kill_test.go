package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// wholeAgain is how soon a cluster must have repaired itself.
const wholeAgain = 30 * time.Second

// TestKillDuringQuery kills one process while a query is half read. The query
// fails and says why; a moment later everything works again, untouched.
func TestKillDuringQuery(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	wide(t, c, db)
	const all = "select id, pad from wide"
	for _, tc := range []struct {
		dbid    uint16
		process testkit.Process
		mode    string
		names   []string // one of them must be in the error
		query   string
	}{
		{3, testkit.Proxy, proxy, []string{"seg1", "dbid 3", "dbid3"}, all},
		{coordinatorDbid, testkit.Proxy, proxy, []string{"seg-1", "dbid 1", "dbid1", "coordinator"}, all},
		{3, testkit.Postgres, proxy, []string{"seg1"}, all},
		{3, testkit.Postgres, tcp, []string{"seg1"}, all},
		{3, testkit.InstanceProcess, proxy, []string{"seg1", "dbid 3", "dbid3"}, all},
		{3, testkit.InstanceProcess, tcp, []string{"seg1", "dbid 3", "dbid3"}, all},
		{3, testkit.InstanceProcess, udpifc, []string{"seg1", "dbid 3", "dbid3"}, all},
		// A plain gather does without the coordinator's PostgreSQL.
		{coordinatorDbid, testkit.Postgres, proxy, []string{"coordinator"}, "select id, pad from wide, pg_class where relname = 'wide'"},
		{coordinatorDbid, testkit.InstanceProcess, proxy, nil, all},
	} {
		t.Run(fmt.Sprintf("%s of dbid %d, %s", tc.process, tc.dbid, tc.mode), func(t *testing.T) {
			conn := c.Connect(t, db, tc.mode)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			rows, err := conn.Query(ctx, tc.query)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for n < 100 && rows.Next() {
				n++
			}
			c.Kill(t, tc.dbid, tc.process)
			start := time.Now()
			for rows.Next() {
				n++
			}
			err = rows.Err()
			rows.Close()
			if err == nil {
				t.Fatalf("the query ended as if nothing had happened, after %d rows", n)
			}
			text := testkit.ErrorText(err)
			t.Logf("after %v and %d rows: %s", time.Since(start).Round(time.Millisecond), n, strings.ReplaceAll(text, "\n", "\n\t"))
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("the query failed only after %v", took)
			}
			named := tc.names == nil
			for _, name := range tc.names {
				named = named || strings.Contains(text, name)
			}
			if !named {
				t.Errorf("the error names none of %q", tc.names)
			}
			c.Whole(t, wholeAgain)
			c.WaitProxies(t)
			for _, mode := range []string{udpifc, tcp, proxy} {
				conn := c.Connect(t, db, mode)
				if got := testkit.Value(t, conn, "select count(*), count(distinct id) from wide"); got != "90000|90000" {
					t.Errorf("afterwards, %s: %s rows", mode, got)
				}
			}
			// The session itself lives on unless its own coordinator died.
			if tc.dbid != coordinatorDbid {
				if got := testkit.Value(t, conn, "select count(*) from wide"); got != "90000" {
					t.Errorf("the same session: %s rows", got)
				}
			}
		})
	}
}

// commitTable makes a table and returns an id for each segment.
func commitTable(t *testing.T, c *testkit.Cluster, conn *pgx.Conn) []int {
	t.Helper()
	testkit.Exec(t, conn, "create table commits (id int, tx int) distributed by (id)")
	return onEachSegment(t, conn, c.Segments)
}

// onEachSegment returns, for each segment, an int whose rows it keeps.
func onEachSegment(t *testing.T, conn *pgx.Conn, segments int) []int {
	t.Helper()
	testkit.Exec(t, conn, "create temp table probe (id int) distributed by (id); insert into probe select generate_series(1, 100)")
	ids := make([]int, segments)
	for i, row := range testkit.Query(t, conn, "select min(id) from probe group by gp_segment_id order by gp_segment_id") {
		fmt.Sscan(row, &ids[i])
	}
	testkit.Exec(t, conn, "drop table probe")
	return ids
}

func insertTx(ids []int, tx int) string {
	values := make([]string, len(ids))
	for i, id := range ids {
		values[i] = fmt.Sprintf("(%d, %d)", id, tx)
	}
	return "insert into commits values " + strings.Join(values, ", ")
}

// whole says whether transaction tx is on all segments or on none.
func wholeTx(t *testing.T, conn *pgx.Conn, tx, segments int) (committed bool) {
	t.Helper()
	switch n := testkit.Value(t, conn, fmt.Sprintf("select count(*) from commits where tx = %d", tx)); n {
	case "0":
		return false
	case fmt.Sprint(segments):
		return true
	default:
		t.Errorf("transaction %d is half committed: %s of %d rows", tx, n, segments)
		return true
	}
}

// noPrepared waits until no segment holds a prepared transaction.
func noPrepared(t *testing.T, c *testkit.Cluster, db string) {
	t.Helper()
	for dbid := uint16(firstSegment); dbid < firstSegment+uint16(c.Segments); dbid++ {
		testkit.Eventually(t, wholeAgain, func() error {
			seg := c.Utility(t, dbid, db)
			defer testkit.Close(seg)
			if rows := testkit.Query(t, seg, "select gid from pg_prepared_xacts"); len(rows) > 0 {
				return fmt.Errorf("dbid %d still holds prepared transactions %v", dbid, rows)
			}
			return nil
		})
	}
}

// holdCommits makes every commit on the coordinator wait, after its record is
// written: its standby gets nothing, and a commit waits for the standby. All
// segments have prepared then, none has been told to commit.
func holdCommits(t *testing.T, c *testkit.Cluster) (release func()) {
	t.Helper()
	coord := c.Utility(t, coordinatorDbid, "template1")
	defer testkit.Close(coord)
	var pid int
	testkit.Eventually(t, wholeAgain, func() error {
		rows := testkit.Query(t, coord, "select pid from pg_stat_replication where state = 'streaming' and sync_state in ('sync', 'quorum')")
		if len(rows) != 1 {
			return fmt.Errorf("synchronous standbys: %v", rows)
		}
		fmt.Sscan(rows[0], &pid)
		return nil
	})
	return testkit.Freeze(t, pid) // the sender at the coordinator
}

// prepared waits until every segment holds a prepared transaction.
func prepared(t *testing.T, c *testkit.Cluster, db string) {
	t.Helper()
	for dbid := uint16(firstSegment); dbid < firstSegment+uint16(c.Segments); dbid++ {
		seg := c.Utility(t, dbid, db)
		testkit.Eventually(t, 10*time.Second, func() error {
			if n := testkit.Value(t, seg, "select count(*) from pg_prepared_xacts"); n != "1" {
				return fmt.Errorf("dbid %d holds %s prepared transactions", dbid, n)
			}
			return nil
		})
		testkit.Close(seg)
	}
}

// TestKillBetweenPhases stops a commit when every segment has prepared, kills
// a process, and lets the commit go on. Then the transaction is on all
// segments or on none, on all if the client was told so, and nothing stays
// prepared.
func TestKillBetweenPhases(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	ids := commitTable(t, c, conn)
	testkit.Close(conn)
	for tx, tc := range []struct {
		dbid    uint16
		process testkit.Process
	}{
		{3, testkit.Postgres},
		{3, testkit.InstanceProcess},
		{3, testkit.Proxy},
		{coordinatorDbid, testkit.InstanceProcess},
		{coordinatorDbid, testkit.Postgres},
	} {
		t.Run(fmt.Sprintf("%s of dbid %d", tc.process, tc.dbid), func(t *testing.T) {
			conn := c.Connect(t, db, proxy)
			testkit.Exec(t, conn, "begin; "+insertTx(ids, tx))
			release := holdCommits(t, c)
			result := make(chan error, 1)
			go func() { result <- testkit.TryExec(conn, "commit") }()
			prepared(t, c, db)
			c.Kill(t, tc.dbid, tc.process)
			time.Sleep(100 * time.Millisecond)
			release()
			var err error
			select {
			case err = <-result:
			case <-time.After(wholeAgain):
				t.Fatal("the commit hangs")
			}
			t.Logf("the client saw: %v", err)
			c.Whole(t, wholeAgain)
			noPrepared(t, c, db)
			after := c.Connect(t, db)
			committed := wholeTx(t, after, tx, len(ids))
			if err == nil && !committed {
				t.Error("a transaction whose commit was confirmed is lost")
			}
			// The coordinator wrote its decision before the kill.
			if tc.dbid != coordinatorDbid && !committed {
				t.Error("the decision was to commit, the transaction is gone")
			}
			if tc.dbid != coordinatorDbid {
				wholeTx(t, conn, tx, len(ids)) // the session itself lives on
			}
		})
	}
	c.WaitProxies(t)
}

// TestKillBeforePrepare freezes one segment's backend, so that its PREPARE
// does not end, and kills that segment's server. When the backend dies too the
// transaction is nowhere. When it lives on it prepares after the death of its
// server, and says so: the transaction is everywhere or nowhere then.
func TestKillBeforePrepare(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	ids := commitTable(t, c, conn)
	testkit.Close(conn)
	for tx, dies := range []bool{true, false} {
		t.Run(fmt.Sprintf("backend dies %v", dies), func(t *testing.T) {
			conn := c.Connect(t, db)
			testkit.Exec(t, conn, "begin; "+insertTx(ids, tx))
			seg := c.Utility(t, 3, db)
			var thaw []func()
			for _, row := range testkit.Query(t, seg, "select pid from pg_stat_activity where state = 'idle in transaction' and datname = current_database()") {
				pid, err := strconv.Atoi(row)
				if err != nil {
					t.Fatal(err)
				}
				f := testkit.Freeze(t, pid)
				if dies {
					f = func() { _ = syscall.Kill(pid, syscall.SIGKILL) }
				}
				thaw = append(thaw, f)
			}
			testkit.Close(seg)
			if len(thaw) != 1 {
				t.Fatalf("%d backends of segment 1 are in a transaction", len(thaw))
			}
			result := make(chan error, 1)
			go func() { result <- testkit.TryExec(conn, "commit") }()
			time.Sleep(200 * time.Millisecond)
			c.Kill(t, 3, testkit.Postgres)
			thaw[0]()
			var err error
			select {
			case err = <-result:
				t.Logf("the client saw: %v", err)
			case <-time.After(wholeAgain):
				t.Fatal("the commit hangs")
			}
			c.Whole(t, wholeAgain)
			noPrepared(t, c, db)
			committed := wholeTx(t, c.Connect(t, db), tx, len(ids))
			switch {
			case err == nil && !committed:
				t.Error("a transaction whose commit was confirmed is lost")
			case err == nil && dies:
				t.Error("the commit was confirmed although a segment could not prepare")
			case err != nil && committed && testkit.SQLState(err) != "08007": // transaction resolution unknown
				t.Error("a transaction that failed to commit is there")
			case err != nil && !strings.Contains(testkit.ErrorText(err), "seg1"):
				t.Error("the error does not name the segment")
			}
		})
	}
}

// inBlock runs a statement by the extended protocol in a transaction block.
func inBlock(conn *pgx.Conn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), wholeAgain)
	defer cancel()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
}

// TestKillUnderLoad commits from several sessions while processes are killed
// at any moment, and then looks at every transaction.
//
// TRUNKLINE_KILLS sets how many processes are killed.
func TestKillUnderLoad(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	ids := commitTable(t, c, conn)
	testkit.Close(conn)
	const writers = 4
	ctx, cancel := context.WithCancel(context.Background())
	confirmed := make(chan []int, writers)
	for w := range writers {
		go func() {
			var ok []int
			var conn *pgx.Conn
			for tx := w; ctx.Err() == nil; tx += writers {
				if conn == nil || conn.IsClosed() {
					var err error
					if conn, err = c.TryConnect(db, proxy); err != nil {
						conn = nil
						time.Sleep(50 * time.Millisecond)
						continue
					}
				}
				write := func() error { return testkit.TryExec(conn, insertTx(ids, tx)) }
				if w%2 == 1 {
					write = func() error { return inBlock(conn, insertTx(ids, tx)) }
				}
				if err := write(); err == nil {
					ok = append(ok, tx)
				} else if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a commit hung: %v", err)
				}
			}
			if conn != nil {
				testkit.Close(conn)
			}
			confirmed <- ok
		}()
	}
	type victim struct {
		dbid    uint16
		process testkit.Process
	}
	victims := []victim{{2, testkit.Postgres}, {3, testkit.InstanceProcess}, {4, testkit.Proxy}, {2, testkit.Postgres},
		{3, testkit.InstanceProcess}, {coordinatorDbid, testkit.Postgres}, {coordinatorDbid, testkit.InstanceProcess}}
	if s := os.Getenv("TRUNKLINE_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		victims = nil
		for range n {
			victims = append(victims, victim{uint16(1 + rand.IntN(c.Segments+1)), testkit.Process(rand.IntN(3))})
		}
	}
	for _, v := range victims {
		time.Sleep(time.Duration(300+rand.IntN(700)) * time.Millisecond)
		c.Kill(t, v.dbid, v.process)
		c.Whole(t, wholeAgain)
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	var all []int
	for range writers {
		select {
		case ok := <-confirmed:
			all = append(all, ok...)
		case <-time.After(2 * wholeAgain):
			t.Fatal("a writer hangs")
		}
	}
	noPrepared(t, c, db)
	conn = c.Connect(t, db)
	if half := testkit.Query(t, conn, fmt.Sprintf("select tx, count(*) from commits group by tx having count(*) <> %d", len(ids))); len(half) > 0 {
		t.Errorf("half committed: %v", half)
	}
	there := map[string]bool{}
	for _, tx := range testkit.Query(t, conn, "select distinct tx from commits") {
		there[tx] = true
	}
	lost := 0
	for _, tx := range all {
		if !there[fmt.Sprint(tx)] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d confirmed transactions are lost", lost, len(all))
	}
	if len(all) < 20 {
		t.Errorf("only %d transactions were confirmed in all that time", len(all))
	}
	t.Logf("%d confirmed, %d there", len(all), len(there))
	c.WaitProxies(t)
}
