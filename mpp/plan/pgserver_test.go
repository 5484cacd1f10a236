package plan

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	_ "github.com/trunkline-db/trunkline/internal/pgenv"
	"github.com/trunkline-db/trunkline/internal/randomsql"
)

// One PostgreSQL server for the tests of a run. Its databases play the parts:
// plain (every row in one place, what an answer is compared with), coord (the
// coordinator: the same tables, empty) and seg0 … (a share of the rows each).

const testSegments = 3

const binDir = "/usr/lib/postgresql/15/bin"

var server struct {
	once sync.Once
	err  error
	dir  string
	cmd  *exec.Cmd
}

func TestMain(m *testing.M) {
	code := m.Run()
	if server.cmd != nil {
		server.cmd.Process.Signal(syscall.SIGQUIT)
		server.cmd.Wait()
	}
	if server.dir != "" {
		os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// startServer makes sure the server runs, or skips the test where there is no
// PostgreSQL.
func startServer(t testing.TB) {
	if _, err := os.Stat(filepath.Join(binDir, "postgres")); err != nil {
		t.Skip("PostgreSQL 15 is not installed")
	}
	server.once.Do(func() { server.err = launch() })
	if server.err != nil {
		t.Fatal(server.err)
	}
}

func launch() error {
	dir, err := os.MkdirTemp("", "plan")
	if err != nil {
		return err
	}
	server.dir = dir
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(binDir, "initdb"), "-D", data, "-U", "gpadmin", "-A", "trust", "-E", "UTF8",
		"--locale=C.UTF-8", "--no-sync")
	initdb.SysProcAttr = attr
	initdb.Dir = dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	server.cmd = exec.Command(filepath.Join(binDir, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=",
		"-c", "allow_system_table_mods=on", "-c", "fsync=off", "-c", "autovacuum=off", "-c", "max_parallel_workers_per_gather=0",
		"-c", "shared_buffers=16MB")
	server.cmd.SysProcAttr = attr
	server.cmd.Dir = dir
	server.cmd.Stderr = log
	if err := server.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, dsn("postgres"))
		if err == nil {
			defer c.Close(ctx)
			for _, db := range allDatabases() {
				if _, err := c.Exec(ctx, "CREATE DATABASE "+db); err != nil {
					return err
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			out, _ := os.ReadFile(filepath.Join(dir, "log"))
			return fmt.Errorf("the server does not start: %w\n%s", err, out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func dsn(db string) string {
	return fmt.Sprintf("host=%s dbname=%s user=gpadmin", server.dir, db)
}

func allDatabases() []string {
	dbs := []string{"plain", "coord"}
	for i := range testSegments {
		dbs = append(dbs, "seg"+strconv.Itoa(i))
	}
	return dbs
}

// world is a set of databases and the tables in them.
type world struct {
	resets int
	t      testing.TB
	conns  map[string]*pgx.Conn
	tables map[string]*testTable
	cat    *pgCatalog
	slow   int // queries that took too long
}

// testTable is a distributed table.
type testTable struct {
	name   string // as in SQL, without schema
	policy Policy
	keys   []string
	size   float64 // Relation.Rows
	// distinct are those of columns.
	distinct map[string]float64
}

// newWorld empties the databases and makes the functions that are everywhere.
func newWorld(t testing.TB) *world {
	startServer(t)
	w := &world{t: t, conns: map[string]*pgx.Conn{}, tables: map[string]*testTable{}}
	for _, db := range allDatabases() {
		cfg, err := pgx.ParseConfig(dsn(db))
		if err != nil {
			t.Fatal(err)
		}
		cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		c, err := pgx.ConnectConfig(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		w.conns[db] = c
	}
	w.cat = &pgCatalog{w: w}
	w.reset()
	return w
}

// vacuumAfter is how many worlds the catalogs take: autovacuum is off, and what is
// dropped makes them longer, and PostgreSQL slower, each time.
const vacuumAfter = 20

// reset drops everything the tests made.
func (w *world) reset() {
	if w.resets++; w.resets%vacuumAfter == 0 {
		for _, db := range allDatabases() {
			w.exec(db, "VACUUM")
		}
	}
	w.tables = map[string]*testTable{}
	w.cat.forget()
	for i, db := range allDatabases() {
		w.exec(db, `SET client_min_messages = error; DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS other CASCADE;
			CREATE SCHEMA public; CREATE SCHEMA other`)
		w.exec(db, fmt.Sprintf(`CREATE OR REPLACE FUNCTION pg_catalog.gp_execution_segment() RETURNS int STABLE LANGUAGE sql AS 'SELECT %d'`, i-2))
	}
	for _, db := range allDatabases() {
		if db != "plain" {
			w.makeMotions(db)
		}
	}
}

func (w *world) exec(db, sql string) {
	w.t.Helper()
	if _, err := w.conns[db].Exec(context.Background(), sql); err != nil {
		w.t.Fatalf("%s: %v\n%s", db, err, sql)
	}
}

// everywhere runs a definition in all databases.
func (w *world) everywhere(sql string) {
	w.t.Helper()
	for _, db := range allDatabases() {
		w.exec(db, sql)
	}
	w.cat.forget()
}

// create makes a table by a CREATE TABLE with a DISTRIBUTED clause.
func (w *world) create(sql string) { w.createOn(sql, testSegments) }

// createOn makes a table that lies on the first segments only.
func (w *world) createOn(sql string, segments int) {
	w.t.Helper()
	st, err := Parse(sql)
	if err != nil {
		w.t.Fatalf("%v\n%s", err, sql)
	}
	w.everywhere(st.SQL)
	if st.Distribution == nil {
		return
	}
	rv := st.Node.GetCreateStmt().Relation
	tab := &testTable{name: rv.Relname, policy: Policy{Kind: st.Distribution.Kind, NumSegments: segments}}
	if rv.Schemaname != "" {
		tab.name = rv.Schemaname + "." + rv.Relname
	}
	for _, k := range st.Distribution.Keys {
		tab.keys = append(tab.keys, k.Column)
	}
	w.tables[tab.name] = tab
}

// load puts the rows of an INSERT … SELECT or VALUES into the plain database
// and shares them out to the segments.
func (w *world) load(table, rows string) {
	w.t.Helper()
	tab := w.tables[table]
	if tab == nil {
		w.exec("plain", "INSERT INTO "+table+" "+rows)
		w.exec("coord", "INSERT INTO "+table+" "+rows)
		return
	}
	w.exec("plain", "CREATE TEMP TABLE fresh AS SELECT * FROM "+table+" LIMIT 0; INSERT INTO fresh "+rows+"; INSERT INTO "+table+" SELECT * FROM fresh")
	w.place(table)
}

// place shares the rows of the temporary table fresh out to the segments, and
// drops it.
func (w *world) place(table string) {
	w.t.Helper()
	tab := w.tables[table]
	ctx := context.Background()
	n := tab.policy.NumSegments
	var oids []uint32
	var rows [][]string
	if tab.policy.Kind == Hashed {
		var keys []string
		for _, k := range tab.keys {
			for _, c := range w.relation(table).Columns {
				if c.Name == k {
					oids, keys = append(oids, c.TypeOID), append(keys, quote(k)+"::text")
				}
			}
		}
		r := w.ask("plain", "SELECT "+strings.Join(keys, ", ")+" FROM fresh ORDER BY ctid")
		if r.err != nil {
			w.t.Fatal(r.err)
		}
		rows = r.rows
	}
	var all strings.Builder
	sql := fmt.Sprintf("COPY (SELECT %s FROM fresh ORDER BY ctid) TO STDOUT", w.columnList(table))
	if _, err := w.conns["plain"].PgConn().CopyTo(ctx, &all, sql); err != nil {
		w.t.Fatalf("%v\n%s", err, sql)
	}
	share := make([]strings.Builder, n)
	i := 0
	for line := range strings.Lines(all.String()) {
		seg := i % n
		if tab.policy.Kind == Hashed {
			if k, ok := hashRow(oids, rows[i], n); ok {
				seg = k
			}
		}
		for k := range share {
			if k == seg || tab.policy.Kind == Replicated {
				share[k].WriteString(line)
			}
		}
		i++
	}
	for k := range share {
		if _, err := w.conns[segmentDB(k)].PgConn().CopyFrom(ctx, strings.NewReader(share[k].String()), "COPY "+table+" FROM STDIN"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.exec("plain", "DROP TABLE fresh")
}

// relation is a table as the catalog has it.
func (w *world) relation(table string) *Relation {
	w.t.Helper()
	rel, err := w.cat.Relation("", table)
	if s, n, ok := strings.Cut(table, "."); ok {
		rel, err = w.cat.Relation(s, n)
	}
	if err != nil || rel == nil {
		w.t.Fatalf("table %s: %v", table, err)
	}
	return rel
}

func (w *world) columnList(table string) string {
	var cols []string
	for _, c := range w.relation(table).Columns {
		cols = append(cols, quote(c.Name))
	}
	return strings.Join(cols, ", ")
}

// eval is Options.Eval. A test must not print the time.
func (w *world) eval(sql string) (string, error) {
	r := w.ask("coord", sql)
	if r.err != nil {
		return "", r.err
	}
	return r.rows[0][0], nil
}

// result is the answer to a query: rows of text fields.
type result struct {
	cols []string // name and type OID
	rows [][]string
	err  error
}

func (r result) shared() randomsql.Answer {
	return randomsql.Answer{Cols: r.cols, Rows: r.rows, Err: r.err}
}

// ask runs a query in one database. A NULL shows as null.
func (w *world) ask(db, sql string) result { return w.askWith(db, sql, nil) }

// askWith is ask with the values of parameters and their types.
func (w *world) askWith(db, sql string, params [][2]string) result {
	a := randomsql.Ask(context.Background(), w.conns[db].PgConn(), sql, params)
	return result{a.Cols, a.Rows, a.Err}
}

// run executes a plan as the cluster would.
func (w *world) run(sql string, q *Query) result { return w.runWith(sql, q, nil) }

// runWith is run with the values of the statement's parameters.
func (w *world) runWith(sql string, q *Query, params [][2]string) result {
	if q.Kind == Local {
		if q.Top != "" {
			sql = q.Top
		}
		return w.askWith("coord", sql, params)
	}
	describe := q.Describe
	if describe == "" {
		describe = sql
	}
	defer w.forgetMotions(q)
	if err := w.inputs(q, params); err != nil {
		return result{err: err}
	}
	if q.Kind == Gather {
		cols, err := w.cat.Describe(describe, nil)
		if err != nil {
			return result{err: err}
		}
		out := result{}
		for _, c := range cols {
			out.cols = append(out.cols, fmt.Sprintf("%s:%d", c.Name, randomsql.CommonType(c.TypeOID)))
		}
		rows, err := w.gather(&q.Slices[0], params)
		out.rows, out.err = rows, err
		return out
	}
	for i := range q.Slices {
		s := &q.Slices[i]
		if s.Motion != GatherMotion {
			continue
		}
		rows, err := w.gather(s, params)
		if err == nil {
			err = w.deliver("coord", s, rows)
		}
		if err != nil {
			return result{err: err}
		}
	}
	return w.askWith("coord", q.Top, params)
}

func (w *world) gather(s *Slice, params [][2]string) ([][]string, error) {
	var rows [][]string
	var given [][2]string
	for _, n := range s.Params {
		given = append(given, params[n-1])
	}
	if s.Merge != nil {
		return w.merged(s, given)
	}
	for _, i := range orAll(s.Segments) {
		r := w.askWith(segmentDB(i), s.SQL, given)
		if r.err != nil {
			return nil, fmt.Errorf("slice %s: %w", s.SQL, r.err)
		}
		if s.Columns != nil && len(r.cols) != len(s.Columns) {
			return nil, fmt.Errorf("slice %s has %d columns, not %d", s.SQL, len(r.cols), len(s.Columns))
		}
		rows = append(rows, r.rows...)
	}
	return rows, nil
}
