package clustertest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/internal/randomsql"
	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/proxy/logical"
)

// randomVar is the environment variable that says how many worlds
// TestRandomQueries makes and how many queries it asks in each, "60x40" for
// example.
const randomVar = "TRUNKLINE_RANDOM"

// randomRun is what the worlds of TestRandomQueries share.
type randomRun struct {
	c     *testkit.Cluster
	db    string
	plain *pgx.Conn
	conns map[string]*pgx.Conn // by interconnect type
	hung  bool                 // a statement did not end; the cluster is down

	asked, refused, slow, blocks, cursors, explained int
	large, beside                                    int // worlds that were taken to be large, and those that readers have worked in
}

// TestRandomQueries fills the random tables of the planner's own test with the same
// rows on the cluster and on one plain PostgreSQL and asks both random queries:
// in each interconnect type, by both protocols, by cursors, in transactions that
// have changed the tables or have one snapshot, and under EXPLAIN ANALYZE. The answers
// must be the same. Afterwards nothing may be left of the sessions.
//
// TRUNKLINE_RANDOM sets how many, 4x25 unless it is set.
func TestRandomQueries(t *testing.T) {
	worlds, queries, early := 4, 25, false
	if s := os.Getenv(randomVar); s != "" {
		early = true
		if _, err := fmt.Sscanf(s, "%dx%d", &worlds, &queries); err != nil || worlds < 1 || queries < 1 {
			t.Fatalf("%s is %q: it must be worlds and queries in each, as 60x40", randomVar, s)
		}
	}
	c := shared(t)
	r := &randomRun{c: c, db: c.Database(t), plain: c.PlainPostgres(t), conns: map[string]*pgx.Conn{}}
	testkit.Exec(t, r.plain, randomsql.Session+"; set statement_timeout = '2s'")

	// What instances keep from the first use of a type on is no leak.
	for _, typ := range interconnectTypes {
		conn := c.Connect(t, r.db, "gp_interconnect_type="+typ)
		testkit.Exec(t, conn, "create table warm as select g as a, g % 7 as b from generate_series(1, 100) g distributed by (a); "+
			"select count(*) from warm x join warm y on x.b = y.b; drop table warm")
		testkit.Close(conn)
	}
	testkit.Eventually(t, calmAgain, func() error { return leftovers(t, c, r.db) })
	var before usage
	testkit.Eventually(t, calmAgain, func() error { // those sessions are going
		last := before
		before = resources(t, c, true)
		return errors.Join(last.less(before), before.less(last))
	})

	defer r.close()
	for name, value := range map[string]string{"rapid.checks": fmt.Sprint(queries), "rapid.nofailfile": "true"} {
		f := flag.Lookup(name)
		old := f.Value.String()
		f.Value.Set(value)
		defer f.Value.Set(old)
	}
	// Which world it is is told by its name: as rapid's seed it repeats it.
	rapidSeed := flag.Lookup("rapid.seed")
	oldSeed := rapidSeed.Value.String()
	defer rapidSeed.Value.Set(oldSeed)
	first, err := strconv.ParseUint(oldSeed, 10, 64)
	if err != nil || first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	for i := range worlds {
		// rapid goes on from here by one for each query.
		n := first + uint64(i)<<20
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := r.world(t, int(n))
			rapidSeed.Value.Set(fmt.Sprint(n))
			rapid.Check(t, func(rt *rapid.T) { r.ask(t, rt, w) })
			if w.large && !r.hung {
				r.countReaders(t)
			}
		})
		if r.hung {
			return
		}
	}
	r.close()
	t.Logf("%d queries, %d of them refused, %d in transactions that have written, %d by cursors, %d explained as well; %d more took too long; slices side by side in %d worlds of %d large ones",
		r.asked, r.refused, r.blocks, r.cursors, r.explained, r.slow, r.beside, r.large)
	if r.slow*20 > r.asked || r.refused*4 > r.asked {
		t.Errorf("of %d queries %d were refused and %d took too long: the generator proves little", r.asked, r.refused, r.slow)
	}
	if r.large > 1 && r.beside == 0 {
		t.Errorf("no slice ran beside others in the %d worlds of large tables", r.large)
	}
	limit := calmAgain
	if early {
		limit += 2 * logical.DefaultLimits.EarlyTimeout // one end, and then the other
	}
	testkit.Eventually(t, limit, func() error {
		// Looking into the servers takes sessions: after the count.
		return errors.Join(before.less(resources(t, c, early)), leftovers(t, c, r.db))
	})
}

// close ends the sessions.
func (r *randomRun) close() {
	for _, conn := range r.conns {
		testkit.Close(conn)
	}
}

// randomWorld is a set of tables.
type randomWorld struct {
	tables []randomsql.Table
	script []string // what has made them on the cluster
	large  bool     // the planner takes them to be
}

func (w *randomWorld) describe() string { return strings.Join(w.script, ";\n") + ";\n" }

// world empties both databases and makes random tables in them.
func (r *randomRun) world(t *testing.T, seed int) *randomWorld {
	for _, typ := range interconnectTypes {
		if conn := r.conns[typ]; conn == nil || conn.IsClosed() {
			conn, err := r.c.TryConnect(r.db, "gp_interconnect_type="+typ)
			if err != nil {
				t.Fatal(err)
			}
			testkit.Exec(t, conn, randomsql.Session+"; set statement_timeout = '30s'")
			r.conns[typ] = conn
		}
	}
	const empty = "set client_min_messages = error; drop schema public cascade; create schema public"
	conn := r.conns["tcp"]
	testkit.Exec(t, conn, empty)
	testkit.Exec(t, r.plain, empty)

	w := &randomWorld{}
	make := func(sql, distributed string) {
		testkit.Exec(t, r.plain, sql)
		testkit.Exec(t, conn, sql+distributed)
		w.script = append(w.script, sql+distributed)
	}
	rapid.Custom(func(rt *rapid.T) bool {
		g := randomsql.New(rt, 0)
		for i := range 2 + g.N(3) {
			tab := g.Table(i)
			for _, part := range tab.All() {
				make(part.Create, strings.TrimRight(" "+part.Distributed, " "))
			}
			for _, part := range tab.All() {
				if part.Rows != "" {
					make("insert into "+part.Name+" "+part.Rows, "")
				}
			}
			if g.One(2) {
				make("analyze "+tab.Name, "")
			}
			w.tables = append(w.tables, tab)
			g.Add(tab)
		}
		if v := g.View("v0"); testkit.TryExec(r.plain, v.Create) == nil {
			testkit.Exec(t, r.plain, "drop view v0")
			make(v.Create, "")
			w.tables = append(w.tables, v)
		}
		w.large = g.One(2)
		return true
	}).Example(seed)
	if w.large {
		r.large++
		w.script = append(w.script, "-- on seg0: "+lookLarge(t, r.c, r.db))
	}
	return w
}

// countReaders looks whether a session has more executors on a segment than one.
func (r *randomRun) countReaders(t *testing.T) {
	seg0 := backendOf(t, r.c, 2, r.db)
	defer testkit.Close(seg0)
	var n int
	if err := seg0.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n > len(interconnectTypes) {
		r.beside++
	}
}

// ask asks one query in both databases and compares.
func (r *randomRun) ask(t *testing.T, rt *rapid.T, w *randomWorld) {
	if r.hung {
		return // nothing that follows could be trusted
	}
	try := drawTry(randomsql.New(rt, 0, w.tables...), w)
	try.randomRun, try.conn = r, r.conns[try.typ].PgConn()
	if try.conn.IsClosed() {
		rt.Fatalf("the session of type %s is closed", try.typ)
	}
	r.asked++
	difference := try.run()
	if r.hung {
		t.Errorf("a statement did not end within %v", randomLimit)
		r.c.Abort(t)
	}
	if difference != "" {
		rt.Fatalf("%s-- %s\n%s\n%s", w.describe(), try, strings.Join(try.done, ";\n"), difference)
	}
}
