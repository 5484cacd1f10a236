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
	t      testing.TB
	conns  map[string]*pgx.Conn
	tables map[string]*testTable
	cat    *pgCatalog
}

// testTable is a distributed table.
type testTable struct {
	name   string // as in SQL, without schema
	policy Policy
	keys   []string
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

// reset drops everything the tests made.
func (w *world) reset() {
	w.tables = map[string]*testTable{}
	w.cat.forget()
	for i, db := range allDatabases() {
		w.exec(db, `SET client_min_messages = error; DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS other CASCADE;
			CREATE SCHEMA public; CREATE SCHEMA other`)
		w.exec(db, fmt.Sprintf(`CREATE OR REPLACE FUNCTION pg_catalog.gp_execution_segment() RETURNS int STABLE LANGUAGE sql AS 'SELECT %d'`, i-2))
	}
	for _, f := range []string{"gp_motion_recv", "gp_motion_recv_3", "gp_motion_recv_5", "gp_motion_recv_6", "gp_motion_recv_7"} {
		w.exec("coord", `CREATE OR REPLACE FUNCTION pg_catalog.`+f+`(text, token text) RETURNS SETOF record VOLATILE PARALLEL RESTRICTED LANGUAGE plpgsql AS
			$$ DECLARE list text; BEGIN
				UPDATE motion_reads SET n = n + 1 WHERE motion_reads.token = $2 AND n = 0 RETURNING spec INTO list;
				IF NOT FOUND THEN RAISE EXCEPTION 'source % is read twice', $2; END IF;
				RETURN QUERY EXECUTE 'SELECT ' || list || ' FROM pg_temp.motion_data WHERE token = $1' USING $2;
			END $$`)
	}
	w.exec("plain", placers())
	w.exec("coord", "CREATE TEMP TABLE IF NOT EXISTS motion_reads (token text, n int, spec text); CREATE TEMP TABLE IF NOT EXISTS motion_data (token text, fields text[])")
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
func (w *world) create(sql string) {
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
	tab := &testTable{name: rv.Relname, policy: Policy{Kind: st.Distribution.Kind, NumSegments: testSegments}}
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
	place := "(row_number() over ())"
	if tab.policy.Kind == Hashed {
		place = placeExpr(tab.keys)
	}
	for i := range testSegments {
		cond := fmt.Sprintf("%s %% %d = %d", place, testSegments, i)
		if tab.policy.Kind == Replicated {
			cond = "true"
		}
		sql := fmt.Sprintf("COPY (SELECT %s FROM (SELECT *, %s AS \"?here\" FROM fresh) x WHERE \"?here\") TO STDOUT", w.columnList(table), cond)
		var buf strings.Builder
		if _, err := w.conns["plain"].PgConn().CopyTo(ctx, &buf, sql); err != nil {
			w.t.Fatalf("%v\n%s", err, sql)
		}
		if _, err := w.conns["seg"+strconv.Itoa(i)].PgConn().CopyFrom(ctx, strings.NewReader(buf.String()), "COPY "+table+" FROM STDIN"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.exec("plain", "DROP TABLE fresh")
}

func (w *world) columnList(table string) string {
	rel, err := w.cat.Relation("", table)
	if s, n, ok := strings.Cut(table, "."); ok {
		rel, err = w.cat.Relation(s, n)
	}
	if err != nil || rel == nil {
		w.t.Fatalf("table %s: %v", table, err)
	}
	var cols []string
	for _, c := range rel.Columns {
		cols = append(cols, quote(c.Name))
	}
	return strings.Join(cols, ", ")
}

// placeExpr is a number by which a row is placed: the same for equal keys, also
// of different types of one family.
func placeExpr(keys []string) string {
	e := "0"
	for _, k := range keys {
		e = fmt.Sprintf("(%s * 31 + coalesce(abs(pg_temp.place(%s)), 0))", e, quote(k))
	}
	return e
}

// hash is Options.Hash for the rows that load placed.
func (w *world) hash(types []Column, values []string, n int) (int, bool) {
	var keys, from []string
	for i, v := range values {
		k := "k" + strconv.Itoa(i)
		keys = append(keys, k)
		from = append(from, fmt.Sprintf("%s::%s AS %s", literal(v), types[i].Type, k))
	}
	r := w.ask("plain", fmt.Sprintf("SELECT %s %% %d FROM (SELECT %s) x", placeExpr(keys), n, strings.Join(from, ", ")))
	if r.err != nil || len(r.rows) != 1 {
		return 0, false
	}
	seg, err := strconv.Atoi(r.rows[0][0])
	return seg, err == nil
}

// eval is Options.Eval. A test must not print the time.
func (w *world) eval(sql string) (string, error) {
	r := w.ask("coord", sql)
	if r.err != nil {
		return "", r.err
	}
	return r.rows[0][0], nil
}

// placers make pg_temp.place.
func placers() string {
	s := ""
	for typ, body := range map[string]string{
		"int2": "hashint2($1)", "int4": "hashint4($1)", "int8": "hashint8($1)", "float4": "hashfloat4($1)", "float8": "hashfloat8($1)",
		"numeric": "hash_numeric($1)", "text": "hashtext($1)", "bpchar": "hashbpchar($1)", "date": "hashint4($1 - date ''2000-01-01'')",
		"bool": "hashint4($1::int)",
	} {
		s += fmt.Sprintf("CREATE OR REPLACE FUNCTION pg_temp.place(%s) RETURNS int8 LANGUAGE sql AS 'SELECT %s %% 1000';", typ, body)
	}
	return s
}

// result is the answer to a query: rows of text fields.
type result struct {
	cols []string // name and type OID
	rows [][]string
	err  error
}

// ask runs a query in one database. NULL shows as ∅.
func (w *world) ask(db, sql string) result {
	res := w.conns[db].PgConn().ExecParams(context.Background(), sql, nil, nil, nil, nil)
	var r result
	for _, f := range res.FieldDescriptions() {
		r.cols = append(r.cols, fmt.Sprintf("%s:%d", f.Name, commonType(f.DataTypeOID)))
	}
	for res.NextRow() {
		row := make([]string, 0, len(r.cols))
		for _, v := range res.Values() {
			if v == nil {
				row = append(row, "∅")
			} else {
				row = append(row, string(v))
			}
		}
		r.rows = append(r.rows, row)
	}
	_, r.err = res.Close()
	return r
}

// commonType is a type's OID, or 0 for one that is another in each database.
func commonType(oid uint32) uint32 {
	if oid >= 16384 {
		return 0
	}
	return oid
}

// run executes a plan as the cluster would.
func (w *world) run(sql string, q *Query) result {
	if q.Kind == Local {
		if q.Top != "" {
			sql = q.Top
		}
		return w.ask("coord", sql)
	}
	describe := q.Describe
	if describe == "" {
		describe = sql
	}
	if q.Kind == Gather {
		cols, err := w.cat.Describe(describe)
		if err != nil {
			return result{err: err}
		}
		out := result{}
		for _, c := range cols {
			out.cols = append(out.cols, fmt.Sprintf("%s:%d", c.Name, commonType(c.TypeOID)))
		}
		rows, err := w.gather(&q.Slices[0])
		out.rows, out.err = rows, err
		return out
	}
	defer w.exec("coord", "DELETE FROM motion_reads; DELETE FROM motion_data")
	var buf strings.Builder
	for i := range q.Slices {
		s := &q.Slices[i]
		rows, err := w.gather(s)
		if err != nil {
			return result{err: err}
		}
		var spec []string
		for i, c := range s.Columns {
			spec = append(spec, fmt.Sprintf("fields[%d]::%s", i+1, c.Type))
		}
		w.exec("coord", "INSERT INTO motion_reads VALUES ("+literal(s.Token)+", 0, "+literal(strings.Join(spec, ", "))+")")
		for _, row := range rows {
			var list []string
			for _, v := range row {
				if v == "∅" {
					list = append(list, "NULL")
				} else {
					list = append(list, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v)+`"`)
				}
			}
			buf.WriteString(copyText([][]string{{s.Token, "{" + strings.Join(list, ",") + "}"}}))
		}
	}
	if buf.Len() > 0 {
		if _, err := w.conns["coord"].PgConn().CopyFrom(context.Background(), strings.NewReader(buf.String()), "COPY motion_data FROM STDIN"); err != nil {
			return result{err: err}
		}
	}
	return w.ask("coord", q.Top)
}

func (w *world) gather(s *Slice) ([][]string, error) {
	segs := s.Segments
	if segs == nil {
		segs = firstSegments(testSegments)
	}
	var rows [][]string
	for _, i := range segs {
		r := w.ask("seg"+strconv.Itoa(i), s.SQL)
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
