package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// fast makes throw-away servers quicker. A killed process loses nothing by it.
var fast = []string{"fsync=off", "shared_buffers=32MB"}

// query runs SQL on the instance's PostgreSQL server, through its unix socket,
// and returns the fields of the last row, joined by blanks.
func query(ctx context.Context, i topology.Instance, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host='%s' port=%d user=gpadmin dbname=postgres sslmode=disable",
		data(i).SocketDir(), i.Port))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	var out []string
	if last := results[len(results)-1]; len(last.Rows) > 0 {
		for _, f := range last.Rows[len(last.Rows)-1] {
			out = append(out, string(f))
		}
	}
	return strings.Join(out, " "), nil
}

func mustQuery(t *testing.T, i topology.Instance, sql, want string) {
	t.Helper()
	got, err := query(t.Context(), i, sql)
	if err != nil || got != want {
		t.Errorf("%v: %s = %q, %v, want %q", i, sql, got, err, want)
	}
}

// greeting is the first line that the instance's port says.
func greeting(i topology.Instance) (string, net.Conn, error) {
	c, err := net.Dial("tcp", net.JoinHostPort(i.Address, strconv.Itoa(i.Port)))
	if err != nil {
		return "", nil, err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		_ = c.Close()
		return "", nil, err
	}
	return line, c, nil
}

func (c *Cluster) status(t *testing.T, dbid uint16) InstanceStatus {
	t.Helper()
	list, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := slices.IndexFunc(list, func(s InstanceStatus) bool { return s.Dbid == dbid })
	return list[k]
}

func allReady(ctx context.Context, c *Cluster) error {
	list, err := c.Status(ctx)
	for _, s := range list {
		if s.State() != "ready" || s.Live.Postgres.State != instance.Ready ||
			(!s.IsStandby() && s.Live.Proxy.State != instance.Ready) {
			return fmt.Errorf("%v is %s: %+v", s.Instance, s.State(), s.Live)
		}
	}
	return err
}

// TestCluster takes one cluster through its life.
func TestCluster(t *testing.T) {
	needPostgres(t)
	dir := filepath.Join(tempDir(t), "sub", "mpp")
	port := freePorts(t, 4)
	var mu sync.Mutex
	bootstrapped := map[uint16]string{}
	var progress []string
	c, err := Create(t.Context(), Options{
		Dir: dir, Segments: 2, Standby: true, Port: port, Conf: fast,
		Progress: func(s string) { progress = append(progress, s) },
		Bootstrap: func(ctx context.Context, i topology.Instance, socketDir string) error {
			mu.Lock()
			bootstrapped[i.Dbid] = socketDir
			mu.Unlock()
			_, err := query(ctx, i, "CREATE TABLE made AS SELECT current_setting('trunkline.gp_contentid') AS content")
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dumpLogs(t, c)
		if err := c.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir, port, 4)
		if _, err := Open(dir); !errors.Is(err, ErrNotCluster) {
			t.Errorf("Open after Destroy: %v", err)
		}
	})
	if len(progress) != 8 {
		t.Errorf("progress: %q, want a line for each instance made and started", progress)
	}
	if len(bootstrapped) != 3 || bootstrapped[4] != "" {
		t.Errorf("bootstrapped: %v, want coordinator and primaries", bootstrapped)
	}
	for _, step := range []struct {
		name string
		f    func(*testing.T, *Cluster)
	}{
		{"made", testMade}, {"env", testEnv}, {"reload", testReload},
		{"proxy dies", testProxyDies}, {"server dies", testServerDies}, {"instance dies", testInstanceDies},
		{"neighbours die", testNeighboursDie}, {"standby goes", testStandbyGoes},
		{"all die", testAllDie}, {"smart stop", testSmartStop}, {"stop and start", testStopStart},
		{"start fails", testStartFails},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.f(t, c) }) {
			return // the next ones want a whole cluster
		}
	}
}

func testMade(t *testing.T, c *Cluster) {
	want := []struct {
		content    int16
		role, mode byte
		dir        string
	}{{-1, 'p', 'n', "coordinator/gpseg-1"}, {0, 'p', 'n', "primary/gpseg0"}, {1, 'p', 'n', "primary/gpseg1"}, {-1, 'm', 's', "standby/gpseg-1"}}
	base := c.Coordinator().Port
	for k, i := range c.Instances() {
		w := want[k]
		if i.Dbid != uint16(k+1) || i.Content != w.content || i.Role != w.role || i.PreferredRole != w.role || i.Mode != w.mode ||
			i.Status != 'u' || i.Port != base+k || i.Address != "127.0.0.1" || i.Datadir != filepath.Join(c.Dir(), w.dir) {
			t.Errorf("row %d: %+v", k, i)
		}
		if dbid, err := data(i).Dbid(); dbid != i.Dbid || err != nil {
			t.Errorf("gp_dbid of %v: %d, %v", i, dbid, err)
		}
		if content, err := data(i).Content(); content != i.Content || err != nil {
			t.Errorf("gp_contentid of %v: %d, %v", i, content, err)
		}
		pm, err := data(i).Postmaster()
		if err != nil || pm.Port != i.Port {
			t.Errorf("postmaster.pid of %v: %+v, %v", i, pm, err)
		}
		line, conn, err := greeting(i)
		if err != nil || !strings.HasPrefix(line, fmt.Sprintf("content %d ", i.Content)) {
			t.Errorf("port of %v says %q, %v", i, line, err)
		} else {
			_ = conn.Close()
		}
		mustQuery(t, i, "SELECT content FROM made", fmt.Sprint(i.Content))
		mustQuery(t, i, "SELECT pg_is_in_recovery()", map[bool]string{true: "t", false: "f"}[i.IsStandby()])
		mustQuery(t, i, "SHOW server_encoding", "UTF8")
		replica := map[bool]string{true: "replica", false: "origin"}[i.Content >= 0]
		mustQuery(t, i, "SHOW session_replication_role", replica)
		if p := c.status(t, i.Dbid).Live.Proxy; (p.Pid == 0) != i.IsStandby() {
			t.Errorf("proxy of %v: %+v", i, p)
		}
	}
	// The servers themselves listen on no port.
	mustQuery(t, c.Coordinator(), "SHOW listen_addresses", "")
	eventually(t, "standby in sync", func() error {
		got, err := query(t.Context(), c.Coordinator(), "SELECT application_name, sync_state FROM pg_stat_replication")
		if got != "gp_walreceiver sync" {
			return fmt.Errorf("pg_stat_replication: %q, %v", got, err)
		}
		return nil
	})
	if os.Geteuid() == 0 {
		for _, p := range processes(c.Dir()) {
			var pid, uid int
			_, _ = fmt.Sscan(p, &pid)
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
				_, rest, _ := strings.Cut(string(b), "\nUid:")
				if _, _ = fmt.Sscan(rest, &uid); uid == 0 {
					t.Errorf("runs as root: %s", p)
				}
			}
		}
	}
	for _, dir := range []string{c.Dir(), c.Coordinator().Datadir, filepath.Join(c.Dir(), "primary/gpseg1/log")} {
		if o, err := Open(dir); err != nil || o.Dir() != c.Dir() {
			t.Errorf("Open(%s): %v", dir, err)
		}
	}
}

func testEnv(t *testing.T, c *Cluster) {
	cmd := exec.Command("/bin/sh", "-c", `set -e; . "$0/env.sh"; . "$0/env.sh"; echo "$PATH"; type psql gpconfig gpstop gpstart gpstate; env`, c.Dir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("env.sh: %v\n%s", err, out)
	}
	co := c.Coordinator()
	for _, want := range []string{
		fmt.Sprintf("PGPORT=%d", co.Port), "PGHOST=127.0.0.1", "PGUSER=gpadmin", "COORDINATOR_DATA_DIRECTORY=" + co.Datadir,
		"MASTER_DATA_DIRECTORY=" + co.Datadir, "gpconfig is " + c.Dir() + "/bin/gpconfig", "psql is " + c.Dir() + "/pgsql/psql",
	} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("env.sh does not give %q:\n%s", want, out)
		}
	}
	path, _, _ := strings.Cut(string(out), "\n")
	if strings.Count(path, c.Dir()+"/bin") != 1 {
		t.Errorf("PATH after sourcing twice: %s", path)
	}
	// The server has it too, for functions that call the utilities.
	mustQuery(t, co, `CREATE TEMP TABLE e (v text); COPY e FROM PROGRAM 'echo $PGHOST $PGPORT $PGUSER; which gpconfig';
		SELECT string_agg(v, ' ') FROM e`, fmt.Sprintf("127.0.0.1 %d gpadmin %s/bin/gpconfig", co.Port, c.Dir()))
}

func testReload(t *testing.T, c *Cluster) {
	co := c.Coordinator()
	mustQuery(t, co, "SHOW trunkline.gp_interconnect_type", "udpifc")
	for _, i := range c.Instances() {
		if err := guc.Set(data(i).Conf(), "gp_interconnect_type", "proxy"); err != nil {
			t.Fatal(err)
		}
		if err := guc.Set(data(i).Conf(), "work_mem", "'5MB'"); err != nil {
			t.Fatal(err)
		}
	}
	mustQuery(t, co, "SHOW trunkline.gp_interconnect_type", "udpifc")
	if failed := c.Reload(t.Context()); len(failed) != 0 {
		t.Fatalf("reload failed: %v", failed)
	}
	// At once, without waiting: new sessions see it when Reload is back.
	for _, i := range c.Instances() {
		mustQuery(t, i, "SELECT current_setting('trunkline.gp_interconnect_type'), current_setting('work_mem')", "proxy 5MB")
		line, conn, err := greeting(i)
		if err != nil || !strings.HasSuffix(line, " reloads 1\n") {
			t.Errorf("the server of %v was not told: %q, %v", i, line, err)
		} else {
			_ = conn.Close()
		}
		if i.IsStandby() {
			continue
		}
		eventually(t, "proxy reload", func() error {
			b, err := os.ReadFile(filepath.Join(data(i).LogDir(), "proxy.log"))
			if !strings.Contains(string(b), "proxy was reloaded") {
				return fmt.Errorf("%q, %v", b, err)
			}
			return nil
		})
	}
	// A broken file is refused, and the old values stay.
	good, err := os.ReadFile(data(co).Conf())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data(co).Conf(), append(good, "work_mem = '\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if failed := c.Reload(t.Context()); len(failed) != 0 {
		t.Errorf("reload with a broken file: %v", failed)
	}
	if st := c.status(t, co.Dbid); !strings.Contains(st.Live.LastError, "syntax error") {
		t.Errorf("last error of the coordinator: %q", st.Live.LastError)
	}
	mustQuery(t, co, "SHOW work_mem", "5MB")
	// Nor does it keep a server that dies from coming back.
	pm, _ := data(co).Postmaster()
	_ = syscall.Kill(pm.Pid, syscall.SIGKILL)
	eventually(t, "server with a broken file", func() error { return restarted(c, co.Dbid, pm.Pid) })
	mustQuery(t, co, "SHOW work_mem", "5MB")
	if err := os.WriteFile(data(co).Conf(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if failed := c.Reload(t.Context()); len(failed) != 0 {
		t.Error(failed)
	}
}

// restarted says whether the instance's PostgreSQL server serves with another
// pid than old.
func restarted(c *Cluster, dbid uint16, old int) error {
	list, err := c.Status(context.Background())
	if err != nil {
		return err
	}
	st := list[dbid-1].Live.Postgres
	if st.Pid == old || st.State != instance.Ready {
		return fmt.Errorf("server is %+v", st)
	}
	return nil
}

func testSmartStop(t *testing.T, c *Cluster) {
	_, conn, err := greeting(c.Coordinator())
	if err != nil {
		t.Fatal(err)
	}
	var busy *SessionsError
	if err := c.Stop(t.Context(), StopOptions{Mode: Smart}); !errors.As(err, &busy) || busy.Sessions != 1 {
		t.Errorf("smart stop with a session: %v", err)
	}
	if err := allReady(t.Context(), c); err != nil {
		t.Errorf("after the refused stop: %v", err)
	}
	_ = conn.Close()
	eventually(t, "smart stop", func() error { return c.Stop(t.Context(), StopOptions{Mode: Smart}) })
	if p := processes(c.Dir()); len(p) > 0 {
		t.Errorf("processes after the stop: %q", p)
	}
	if err := c.Start(t.Context(), StartOptions{}); err != nil {
		t.Fatal(err)
	}
}

func testStopStart(t *testing.T, c *Cluster) {
	if err := c.Start(t.Context(), StartOptions{}); err != nil { // runs already
		t.Fatal(err)
	}
	_, conn, err := greeting(c.Coordinator())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Only the coordinator first; nobody starts it again.
	if err := c.Stop(t.Context(), StopOptions{CoordinatorOnly: true}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if a, b := c.status(t, 1).State(), c.status(t, 2).State(); a != "down" || b != "ready" {
		t.Errorf("coordinator %s, primary %s, want down and ready", a, b)
	}
	for _, mode := range []Mode{Fast, Immediate} {
		if err := c.Stop(t.Context(), StopOptions{Mode: mode}); err != nil {
			t.Fatal(err)
		}
		if p := processes(c.Dir()); len(p) > 0 {
			t.Errorf("processes after stop %s: %q", mode, p)
		}
		if err := c.Stop(t.Context(), StopOptions{Mode: mode}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("second stop: %v", err)
		}
		if err := c.Start(t.Context(), StartOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Stop(t.Context(), StopOptions{Mode: "gently"}); err == nil {
		t.Error("an unknown mode was accepted")
	}
}

// A start that fails says why for each instance, and takes back what it had
// started.
func testStartFails(t *testing.T, c *Cluster) {
	if err := c.Stop(t.Context(), StopOptions{}); err != nil {
		t.Fatal(err)
	}
	seg0, seg1 := c.Instances()[1], c.Instances()[2]
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", seg0.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := guc.Set(data(seg1).Conf(), "no_such_parameter", "1"); err != nil {
		t.Fatal(err)
	}
	err = c.Start(t.Context(), StartOptions{})
	var se *StartError
	if !errors.As(err, &se) || len(se.Failed) != 2 {
		t.Fatalf("start: %v, want two failures", err)
	}
	for _, want := range []string{fmt.Sprintf("port %d of 127.0.0.1 is taken", seg0.Port), `unrecognized configuration parameter "no_such_parameter"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if p := processes(c.Dir()); len(p) > 0 {
		t.Errorf("processes after the failed start: %q", p)
	}
	_ = ln.Close()
	if err := guc.Remove(data(seg1).Conf(), "no_such_parameter"); err != nil {
		t.Fatal(err)
	}
	refuse := filepath.Join(seg0.Datadir, "refuse")
	if err := os.WriteFile(refuse, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), StartOptions{}); err == nil || !strings.Contains(err.Error(), "this server refuses") {
		t.Errorf("start with a server that refuses: %v", err)
	}
	_ = os.Remove(refuse)
	if err := c.Start(t.Context(), StartOptions{}); err != nil {
		t.Fatal(err)
	}
	// Its files are removed under it: the processes end.
	dir := seg1.Datadir
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of an instance without files", func() error {
		if p := processes(dir); len(p) > 0 {
			return fmt.Errorf("%q", p)
		}
		return nil
	})
	if err := os.Rename(dir+".moved", dir); err != nil {
		t.Fatal(err)
	}
}
