package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/execute"
	"github.com/trunkline-db/trunkline/mpp/execute/executetest"
)

const nsegs = 3

// shared is the cluster of all tests: servers are slow to make.
var shared struct {
	segs  [nsegs]*executetest.Postgres
	coord *executetest.Postgres
}

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if !executetest.Available() {
		fmt.Println("PostgreSQL 15 is not installed; nothing is tested")
		return 0
	}
	base, err := os.MkdirTemp("", "tld")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(base)
	template, err := executetest.Template(base)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	start := func(name string, port int, lines ...string) *executetest.Postgres {
		if err != nil {
			return nil
		}
		var p *executetest.Postgres
		p, err = executetest.Start(template, filepath.Join(base, name), port, lines...)
		return p
	}
	shared.coord = start("c", 15432)
	for i := range shared.segs {
		shared.segs[i] = start(fmt.Sprintf("s%d", i), 15433+i, "max_connections = 120") // some for readers
	}
	if err == nil {
		err = addFunctions(shared.coord)
	}
	for _, p := range shared.segs {
		if err == nil {
			err = addFunctions(p)
		}
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Println(err)
	}
	for _, p := range append(shared.segs[:], shared.coord) {
		if p != nil {
			_ = p.Signal(syscall.SIGQUIT)
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return code
}

// addFunctions makes those of EraSQL and ExecTogether as mpp/catalog does.
func addFunctions(p *executetest.Postgres) error {
	conn, err := p.Connect(context.Background(), "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = query(context.Background(), conn, `SET allow_system_table_mods = on;
		CREATE FUNCTION pg_catalog.gp_server_era() RETURNS bigint LANGUAGE sql AS $$
		SELECT (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity WHERE backend_type = 'checkpointer' $$;
		CREATE FUNCTION pg_catalog.gp_snapshot_taken() RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN RAISE INFO 'taken' USING ERRCODE = 'TL001'; RETURN true; END $$`)
	return err
}

// cluster is one test's dispatcher and executors over the shared servers.
type cluster struct {
	*Dispatcher
	t      *testing.T
	fabric *executetest.Fabric
	self   motion.Peer
	qes    [nsegs]func() // stops the executor server
	sid    atomic.Int32
	cmd    atomic.Uint32
}

func newCluster(t *testing.T, p Params) *cluster {
	t.Helper()
	c := &cluster{t: t, fabric: &executetest.Fabric{Depth: 100}, self: motion.Peer{Content: -1, Dbid: 1, Pid: 1}}
	for i := range c.qes {
		c.startQE(i)
	}
	segs := make([]Segment, nsegs)
	for i := range segs {
		segs[i] = Segment{Content: int16(i), Dbid: uint16(i + 2), Dir: shared.segs[i].Dir, Address: fmt.Sprintf("127.0.0.1:%d", shared.segs[i].Port)}
	}
	c.Dispatcher = New(Config{Segments: func() []Segment { return segs }, Coordinator: shared.coord.Dir, Params: p})
	t.Cleanup(func() {
		for i := range c.qes {
			c.qes[i]()
		}
	})
	return c
}

// startQE runs the executor server of a segment until qes[i] is called.
func (c *cluster) startQE(i int) {
	d := shared.segs[i].Dir
	l, err := executetest.Listen(d)
	if err != nil {
		c.t.Fatal(err)
	}
	s := execute.NewServer(execute.Config{Dir: d, Content: int16(i), Dbid: uint16(i + 2),
		NewInterconnect: func(string, map[string]string) (motion.Interconnect, error) { return c.fabric.New(), nil }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			c.t.Error(err)
		}
	}()
	c.qes[i] = func() {
		cancel()
		<-done
	}
}

func (c *cluster) gang() *Gang {
	g := c.NewGang(GangConfig{SessionID: c.sid.Add(1), User: executetest.Superuser, Database: "postgres", InterconnectType: "memory"})
	c.t.Cleanup(g.Close)
	return g
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// exec fails the test on an error.
func exec(t *testing.T, g *Gang, segs []int, sql string) []Result {
	t.Helper()
	res, err := g.Exec(testContext(t), segs, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return res
}

// table makes an empty table of one int column on all segments.
func (c *cluster) table(name string) {
	c.t.Helper()
	g := c.gang()
	exec(c.t, g, nil, "DROP TABLE IF EXISTS "+name+"; CREATE TABLE "+name+" (a int)")
	g.Close()
}

// counts returns the number of rows of a table on each segment.
func (c *cluster) counts(name string) []string {
	c.t.Helper()
	g := c.gang()
	defer g.Close()
	var n []string
	for _, r := range exec(c.t, g, nil, "SELECT count(*) FROM "+name) {
		n = append(n, string(r.Rows[0][0]))
	}
	return n
}

// command returns a new command id.
func (c *cluster) command() uint32 {
	return c.cmd.Add(1)
}

// query gathers one slice the way a session does.
func (c *cluster) query(ctx context.Context, g *Gang, s Slice, limit int) (rows int, err error) {
	command := c.command()
	r, err := g.Open(ctx, command, []Slice{s}, &Run{Slice: s.Index, Receivers: []motion.Peer{c.self}})
	if err != nil {
		return 0, err
	}
	rows, rerr := c.receive(g, r, s.Index, limit)
	if err := r.Finish(ctx); err != nil {
		return rows, err
	}
	return rows, rerr
}

func (c *cluster) receive(g *Gang, r *Running, slice int16, limit int) (rows int, err error) {
	recv, err := c.fabric.New().Receive(r.Context(), motion.ID{Session: g.cfg.SessionID, Command: r.command, SendSlice: slice}, c.self, r.Senders(slice))
	if err != nil {
		return 0, err
	}
	for limit < 0 || rows < limit {
		if _, _, err = recv.Receive(r.Context()); err != nil {
			break
		}
		rows++
	}
	if err != nil && err != io.EOF {
		recv.Abort()
		return rows, err
	}
	if err == nil {
		recv.Stop()
	}
	return rows, recv.Close(context.Background())
}

// values returns the one column of the rows of a slice on all segments, taken
// from an open Running as a session does it.
func (c *cluster) values(g *Gang, sql string) []string {
	var r *Running
	for {
		var err error
		r, err = g.Open(testContext(c.t), c.command(), []Slice{{Index: 1, SQL: sql}}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
		if errors.Is(err, ErrTorn) {
			continue
		}
		if err != nil {
			c.t.Error(err)
			return []string{""}
		}
		break
	}
	var vals []string
	recv, _ := c.fabric.New().Receive(r.Context(), motion.ID{Session: g.cfg.SessionID, Command: r.command, SendSlice: 1}, c.self, r.Senders(1))
	for {
		b, _, err := recv.Receive(r.Context())
		if err != nil {
			break
		}
		vals = append(vals, string(b[6:]))
	}
	_ = recv.Close(context.Background())
	if err := r.Finish(testContext(c.t)); err != nil {
		c.t.Error(err)
	}
	return vals
}

// coordTxn is a coordinator's part over the shared server.
type coordTxn struct {
	conn   *pgconn.PgConn
	wrote  bool
	commit func(context.Context) error // nil: COMMIT
}

func newCoordTxn(t *testing.T) *coordTxn {
	t.Helper()
	conn, err := shared.coord.Connect(testContext(t), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := query(testContext(t), conn, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	return &coordTxn{conn: conn}
}

func (x *coordTxn) Wrote() bool { return x.wrote }

func (x *coordTxn) Xid(ctx context.Context) (string, error) {
	rows, err := query(ctx, x.conn, XidSQL)
	if err != nil {
		return "", err
	}
	return string(rows[0][0]), nil
}

func (x *coordTxn) Era(ctx context.Context) (string, error) {
	rows, err := query(ctx, x.conn, EraSQL)
	if err != nil {
		return "", err
	}
	return string(rows[0][0]), nil
}

// gid is the name of the transaction's parts on segments.
func (x *coordTxn) gid(t *testing.T) string {
	t.Helper()
	xid, err := x.Xid(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	era, err := x.Era(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return "trunkline_" + xid + "_77_" + era
}

func (x *coordTxn) Commit(ctx context.Context) error {
	if x.commit != nil {
		return x.commit(ctx)
	}
	return x.plainCommit(ctx)
}

func (x *coordTxn) plainCommit(ctx context.Context) error {
	_, err := query(ctx, x.conn, "COMMIT")
	return err
}
