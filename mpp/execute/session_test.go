package execute

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/execute/executetest"
)

var server *executetest.Postgres // of all tests

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if !executetest.Available() {
		fmt.Println("PostgreSQL 15 is not installed; tests with it are skipped")
		return m.Run()
	}
	base, err := os.MkdirTemp("", "tle")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(base)
	template, err := executetest.Template(base)
	if err == nil {
		server, err = executetest.Start(template, filepath.Join(base, "s"), 15432)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	code := m.Run()
	_ = server.Signal(syscall.SIGQUIT)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

// serveQE runs an executor server over the shared PostgreSQL and returns the
// fabric of its motions.
func serveQE(t *testing.T) *executetest.Fabric {
	t.Helper()
	if server == nil {
		t.Skip("no PostgreSQL")
	}
	fabric := &executetest.Fabric{Depth: 10}
	l, err := executetest.Listen(server.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Dir: server.Dir, Content: 0, Dbid: 2,
		NewInterconnect: func(string, map[string]string) (motion.Interconnect, error) { return fabric.New(), nil }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(s.sessions) != 0 {
			t.Errorf("%d sessions are left", len(s.sessions))
		}
	})
	return fabric
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, params map[string]string) *pgconn.PgConn {
	t.Helper()
	conn, err := tryConnect(t, server.Dir, params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func tryConnect(t *testing.T, d datadir.Dir, params map[string]string) (*pgconn.PgConn, error) {
	cfg, err := pgconn.ParseConfig("host=/ user=gpadmin dbname=postgres sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams = params
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.QESocket())
	}
	return pgconn.ConnectConfig(bounded(t), cfg)
}

func simple(t *testing.T, conn *pgconn.PgConn, sql string) [][][]byte {
	t.Helper()
	res, err := conn.Exec(bounded(t), sql).ReadAll()
	if err != nil {
		t.Fatalf("%.60q: %v", sql, err)
	}
	if len(res) == 0 {
		return nil
	}
	return res[len(res)-1].Rows
}

// command runs a slice command.
func command(t *testing.T, conn *pgconn.PgConn, c Command) (tag string, err error) {
	t.Helper()
	q, err := c.Query()
	if err != nil {
		t.Fatal(err)
	}
	mrr := conn.Exec(context.Background(), q)
	for mrr.NextResult() {
		ct, _ := mrr.ResultReader().Close()
		tag = ct.String()
	}
	return tag, mrr.Close()
}

func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// TestRelay runs what must pass through unchanged.
func TestRelay(t *testing.T) {
	serveQE(t)
	conn := connect(t, map[string]string{"application_name": "relay", "options": "-c work_mem=3MB", "gp_session_id": "7", "gp_interconnect_type": "x"})
	if conn.ParameterStatus("gp_qe_pid") == "" {
		t.Error("gp_qe_pid is not announced")
	}
	rows := simple(t, conn, "SELECT current_setting('application_name'), current_setting('work_mem')")
	if got := fmt.Sprintf("%s", rows[0]); got != "[relay 3MB]" {
		t.Errorf("got %s", got)
	}
	long := strings.Repeat("x", 3<<20) // longer than any buffer, both ways
	rows = simple(t, conn, "SELECT '"+long+"'")
	if string(rows[0][0]) != long {
		t.Error("a long value came back changed")
	}
	res := conn.ExecParams(bounded(t), "SELECT $1::text || 'y', generate_series(1, 20)", [][]byte{[]byte(long)}, nil, nil, nil).Read()
	if res.Err != nil || len(res.Rows) != 20 || len(res.Rows[19][0]) != len(long)+1 {
		t.Errorf("%d rows, %v", len(res.Rows), res.Err)
	}
	simple(t, conn, "CREATE TEMP TABLE c (a int, b text)")
	var in bytes.Buffer
	for i := range 200000 {
		fmt.Fprintf(&in, "%d\tvalue %d\n", i, i)
	}
	want := in.String()
	if tag, err := conn.CopyFrom(bounded(t), &in, "COPY c FROM STDIN"); err != nil || tag.RowsAffected() != 200000 {
		t.Fatalf("COPY FROM: %v, %v", tag, err)
	}
	var out bytes.Buffer
	if _, err := conn.CopyTo(bounded(t), &out, "COPY c TO STDOUT"); err != nil || out.String() != want {
		t.Errorf("COPY TO brought %d bytes of %d, %v", out.Len(), len(want), err)
	}
	if _, err := conn.Exec(bounded(t), "SELECT 1/0").ReadAll(); sqlState(err) != "22012" {
		t.Errorf("got %v", err)
	}
	p := conn.StartPipeline(bounded(t))
	for i := range 500 {
		p.SendQueryParams("SELECT $1::int", [][]byte{fmt.Append(nil, i)}, nil, nil, nil)
	}
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		r, err := p.GetResults()
		if err != nil || r == nil {
			t.Fatal(r, err)
		}
		if _, ok := r.(*pgconn.PipelineSync); ok {
			break
		}
		if rr, ok := r.(*pgconn.ResultReader); ok {
			n += len(rr.Read().Rows)
		}
	}
	if err := p.Close(); err != nil || n != 500 {
		t.Errorf("pipeline: %d rows, %v", n, err)
	}
}

func TestRefusals(t *testing.T) {
	serveQE(t)
	if _, err := tryConnect(t, server.Dir, map[string]string{"gp_session_id": "seven"}); sqlState(err) != "08P01" {
		t.Errorf("bad session id: %v", err)
	}
	if _, err := tryConnect(t, server.Dir, map[string]string{"nosuch_parameter": "1"}); sqlState(err) != "42704" {
		t.Errorf("unknown parameter: %v", err)
	}
	// An instance whose PostgreSQL is not there.
	d := datadir.Dir(t.TempDir())
	if err := os.Mkdir(d.Private(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := executetest.Listen(d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = NewServer(Config{Dir: d}).Serve(ctx, l)
	}()
	if _, err := tryConnect(t, d, nil); sqlState(err) != "57P03" {
		t.Errorf("no server: %v", err)
	}
	cancel()
	<-done
}

func TestBadCommands(t *testing.T) {
	serveQE(t)
	conn := connect(t, nil)
	if _, err := conn.Exec(bounded(t), Marker+"{").ReadAll(); sqlState(err) != "08P01" {
		t.Errorf("got %v", err)
	}
	if _, err := command(t, conn, Command{Op: OpRun, Run: &Run{Slice: 1, Receivers: make([]motion.Peer, 1)}}); sqlState(err) != "34000" {
		t.Errorf("run of a closed slice: %v", err)
	}
	open := Command{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT 1"}, {Index: 2, SQL: "SELECT 2"}}}
	if tag, err := command(t, conn, open); err != nil || tag != "OPEN" {
		t.Fatal(tag, err)
	}
	if _, err := command(t, conn, open); sqlState(err) != "55006" {
		t.Errorf("second open: %v", err)
	}
	if tag, err := command(t, conn, Command{Op: OpClose}); err != nil || tag != "CLOSE" {
		t.Error(tag, err)
	}
	if tag, err := command(t, conn, Command{Op: OpClose}); err != nil || tag != "CLOSE" {
		t.Error("closing nothing:", tag, err)
	}
	open.Slices[1].SQL = "SELECT nosuch"
	if _, err := command(t, conn, open); sqlState(err) != "42703" {
		t.Errorf("got %v", err)
	}
	simple(t, conn, "SELECT 1")
	if _, err := conn.Exec(bounded(t), "\x01nonsense and more").ReadAll(); sqlState(err) != "08P01" || !conn.IsClosed() {
		t.Errorf("got %v", err)
	}
}

// backends counts the client backends of the shared server, without the
// asking one.
func backends(t *testing.T) int {
	t.Helper()
	conn, err := server.Connect(bounded(t), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	return len(simple(t, conn, "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"))
}

// TestDispatcherGone closes dispatch connections in the middle of things: the
// segment's work must stop at once.
func TestDispatcherGone(t *testing.T) {
	fabric := serveQE(t)
	self := motion.Peer{Content: -1, Pid: 1}
	for name, sql := range map[string]string{
		"query": "SELECT pg_sleep(60)",
		"slice": (func() string {
			q, _ := (&Command{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT pg_sleep(60)"}}, Run: &Run{Slice: 1, Receivers: []motion.Peer{self}}}).Query()
			return q
		})(),
		"motion": (func() string {
			q, _ := (&Command{Op: OpOpen, Command: 2, Slices: []Slice{{Index: 1, SQL: "SELECT generate_series(1, 1000000)"}}, Run: &Run{Slice: 1, Receivers: []motion.Peer{self}}}).Query()
			return q
		})(),
	} {
		conn := connect(t, nil)
		b, _ := (&pgproto3.Query{String: sql}).Encode(nil)
		if _, err := conn.Conn().Write(b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		for end := time.Now().Add(5 * time.Second); backends(t) != 1; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) { // those of tests before have gone by then
				t.Fatalf("%s: %d backends while it runs", name, backends(t))
			}
		}
		_ = conn.Conn().Close()
		for end := time.Now().Add(5 * time.Second); backends(t) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the backend still runs", name)
			}
		}
	}
	_ = fabric
}

// TestPostgresGone loses the segment's PostgreSQL under a slice.
func TestPostgresGone(t *testing.T) {
	fabric := serveQE(t)
	self := motion.Peer{Content: -1, Pid: 1}
	conn := connect(t, map[string]string{"gp_session_id": "3"})
	var qe motion.Peer
	if _, err := fmt.Sscan(conn.ParameterStatus("gp_qe_pid"), &qe.Pid); err != nil {
		t.Fatal(err)
	}
	recv, err := fabric.New().Receive(bounded(t), motion.ID{Session: 3, SendSlice: 1}, self, []motion.Peer{qe})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		other, err := server.Connect(context.Background(), "postgres")
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close(context.Background())
		_, _ = other.Exec(context.Background(), fmt.Sprintf("SELECT pg_terminate_backend(%d)", conn.PID())).ReadAll()
	})
	_, err = command(t, conn, Command{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT pg_sleep(60)"}}, Run: &Run{Slice: 1, Receivers: []motion.Peer{self}}})
	if sqlState(err) != "57P01" || !conn.IsClosed() {
		t.Errorf("got %v", err)
	}
	if _, _, err := recv.Receive(bounded(t)); err == nil || err == io.EOF {
		t.Errorf("the receiver got %v", err)
	}
}

func TestCancelRequest(t *testing.T) {
	serveQE(t)
	conn := connect(t, nil)
	for _, q := range []string{"SELECT pg_sleep(60)", (func() string {
		q, _ := (&Command{Op: OpOpen, Command: 1, Slices: []Slice{{Index: 1, SQL: "SELECT generate_series(1, 1000000)"}}, Run: &Run{Slice: 1, Receivers: make([]motion.Peer, 1)}}).Query()
		return q
	})()} {
		canceled := make(chan error, 1)
		time.AfterFunc(50*time.Millisecond, func() { canceled <- conn.CancelRequest(bounded(t)) })
		_, err := conn.Exec(bounded(t), q).ReadAll()
		if sqlState(err) != "57014" {
			t.Errorf("got %v", err)
		}
		if err := <-canceled; err != nil {
			t.Error(err)
		}
		simple(t, conn, "SELECT 1")
	}
	_ = conn.CancelRequest(bounded(t)) // of nothing
	simple(t, conn, "SELECT 1")
}
