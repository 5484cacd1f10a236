package clustertest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// wide makes a table whose rows do not fit the buffers on the way to a client
// that does not read: a query of it stays open until its rows are taken.
func wide(t *testing.T, c *testkit.Cluster, db string) {
	t.Helper()
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table wide (id int, pad text) distributed by (id);
		insert into wide select i, repeat('x', 1000) from generate_series(1, 90000) i`)
	testkit.Close(conn)
}

// TestConnections holds 20 sessions, each in the middle of a gather from all
// segments, and counts the TCP connections between instances. In tcp mode
// there is one for each session and segment; in proxy mode one for each two
// instances.
//
// Every slice waits for a lock, which this test holds on each segment. Rows
// that the client leaves unread would not do: the kernel's buffers may take
// 100 MB of them.
func TestConnections(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table s (id int) distributed by (id);
		insert into s select generate_series(1, 300);
		create function wait(i int) returns int immutable language plpgsql as
			$$begin perform pg_advisory_xact_lock_shared(42); return i; end$$`)
	testkit.Close(conn)
	const sessions = 20
	modes(t, func(t *testing.T, mode string) {
		c.WaitProxies(t)
		var locks []*pgx.Conn
		for dbid := uint16(firstSegment); dbid <= lastSegment; dbid++ {
			conn := c.Utility(t, dbid, db)
			testkit.Exec(t, conn, "select pg_advisory_lock(42)")
			locks = append(locks, conn)
		}
		var clients errgroup.Group
		for range sessions {
			conn := c.Connect(t, db, mode)
			clients.Go(func() error {
				rows, err := testkit.TryQuery(conn, "select wait(id) from s")
				if err == nil && len(rows) != 300 {
					err = fmt.Errorf("%d rows, expected 300", len(rows))
				}
				return err
			})
		}
		testkit.Eventually(t, 30*time.Second, func() error {
			for i, conn := range locks {
				n := testkit.Value(t, conn, "select count(*) from pg_locks where locktype = 'advisory' and not granted")
				if n != fmt.Sprint(sessions) {
					return fmt.Errorf("%s of %d sessions wait on segment %d", n, sessions, i)
				}
			}
			return nil
		})
		n := c.Watch(t)()
		t.Logf("%s: %v", mode, n)
		checkMesh(t, c, n)
		want := 0
		if mode == tcp {
			want = sessions * c.Segments
		}
		if n.Executors != want {
			t.Errorf("%d connections between executors, expected %d", n.Executors, want)
		}
		for _, conn := range locks {
			testkit.Close(conn)
		}
		if err := clients.Wait(); err != nil {
			t.Error(err)
		}
	})
	checkMesh(t, c, c.Watch(t)())
}

// TestConnectionsUnderLoad lets 20 sessions run queries in proxy mode and
// samples the connections all the while.
func TestConnectionsUnderLoad(t *testing.T) {
	c := shared(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	testkit.Exec(t, conn, `create table a (id int, x int) distributed by (id);
		create table b (id int, x int) distributed by (x);
		create table r (k int, name text) distributed replicated;
		insert into a select i, i % 7 from generate_series(1, 3000) i;
		insert into b select i, i % 11 from generate_series(1, 3000) i;
		insert into r select i, 'n' || i from generate_series(0, 6) i`)
	queries := map[string]string{
		"select count(*) from a":                                           "3000",
		"select sum(a.id) from a join b on a.id = b.id":                    "4501500",
		"select count(*) from a join r on a.x = r.k":                       "3000",
		"select count(*) from (select x from a union select x from b) u":   "11",
		"select max(n) from (select count(*) n from b group by x) g":       "273",
		"select id from a where id > 10 order by id limit 1":               "11",
		"select count(*) from a where x in (select x from b where id < 4)": "1287",
	}
	c.WaitProxies(t)
	count := c.Watch(t)
	var wg sync.WaitGroup
	for i := range 20 {
		conn := c.Connect(t, db, proxy)
		wg.Go(func() {
			for range 2 {
				for sql, want := range queries {
					got, err := testkit.TryQuery(conn, sql)
					if err != nil || len(got) != 1 || got[0] != want {
						t.Errorf("session %d: %s: %v, %v; expected %s", i, sql, got, err, want)
						return
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	samples := 0
	for running := true; running; samples++ {
		n := count()
		checkMesh(t, c, n)
		if n.Executors != 0 {
			t.Errorf("%d connections between executors in proxy mode", n.Executors)
		}
		select {
		case <-done:
			running = false
		default:
		}
		if t.Failed() {
			<-done
			running = false
		}
	}
	t.Logf("%d samples", samples)
}

// checkMesh fails unless every two running instances have exactly one
// connection between their proxies.
func checkMesh(t *testing.T, c *testkit.Cluster, n testkit.TCP) {
	t.Helper()
	if n.Proxies != c.Mesh() {
		t.Errorf("%d connections between proxies, expected exactly %d: %v", n.Proxies, c.Mesh(), n)
	}
	for pair, k := range n.Pairs {
		if k != 1 {
			t.Errorf("instances %s have %d connections", fmt.Sprint(pair), k)
		}
	}
}
