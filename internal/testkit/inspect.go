package testkit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
)

// Status asks an instance for its state; the test fails when it does not say.
func (c *Cluster) Status(t testing.TB, dbid uint16) instance.Status {
	t.Helper()
	st, err := instance.ReadStatus(context.Background(), datadir.Dir(c.Instance(t, dbid).Datadir))
	if err != nil {
		t.Fatalf("status of dbid %d: %v", dbid, err)
	}
	return st
}

// A Process is a kind of process of an instance.
type Process int

// The processes of an instance.
const (
	InstanceProcess Process = iota
	Postgres
	Proxy
)

func (p Process) String() string { return [...]string{"instance", "postgres", "proxy"}[p] }

// Pid returns the process id of one process of an instance.
func (c *Cluster) Pid(t testing.TB, dbid uint16, p Process) int {
	t.Helper()
	st := c.Status(t, dbid)
	pid := [...]int{st.Pid, st.Postgres.Pid, st.Proxy.Pid}[p]
	if pid <= 0 {
		t.Fatalf("dbid %d runs no %s: %+v", dbid, p, st)
	}
	return pid
}

// Kill sends SIGKILL to one process of an instance.
func (c *Cluster) Kill(t testing.TB, dbid uint16, p Process) {
	t.Helper()
	pid := c.Pid(t, dbid, p)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill -9 %d (%s of dbid %d): %v", pid, p, dbid, err)
	}
	t.Logf("killed the %s of dbid %d (pid %d)", p, dbid, pid)
}

// Freeze stops a process (SIGSTOP) and returns what lets it go on, which is
// done at the end of the test at the latest.
func Freeze(t testing.TB, pid int) (thaw func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("kill -STOP %d: %v", pid, err)
	}
	thaw = func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(thaw)
	return thaw
}

// TCP tells of the established TCP connections between different instances.
type TCP struct {
	Executors int               // between instance processes (QDs and QEs)
	Proxies   int               // between proxies
	Pairs     map[[2]uint16]int // proxies' connections by dbid pair, smaller first
}

func (n TCP) String() string {
	return fmt.Sprintf("%d between executors, %d between proxies %v", n.Executors, n.Proxies, n.Pairs)
}

type owner struct {
	dbid  uint16
	proxy bool
}

// Watch returns a function that counts the TCP connections between the
// cluster's present processes by ss. It is cheap enough to be called while a
// query runs.
func (c *Cluster) Watch(t testing.TB) func() TCP {
	t.Helper()
	owners := map[int]owner{}
	for _, i := range c.Instances(t) {
		st := c.Status(t, i.Dbid)
		owners[st.Pid] = owner{i.Dbid, false}
		if st.Proxy.Pid > 0 {
			owners[st.Proxy.Pid] = owner{i.Dbid, true}
		}
	}
	return func() TCP { return count(t, owners) }
}

var ssPid = regexp.MustCompile(`pid=(\d+)`)

func count(t testing.TB, owners map[int]owner) TCP {
	out, err := exec.Command("ss", "-Htnp", "state", "established").CombinedOutput()
	if err != nil {
		t.Errorf("ss: %v\n%s", err, out)
		return TCP{}
	}
	ends := map[[2]string]owner{}
	for line := range strings.Lines(string(out)) {
		// Recv-Q Send-Q Local Peer users:(("trunkline",pid=1,fd=7))
		f := strings.Fields(line)
		m := ssPid.FindStringSubmatch(line)
		if len(f) < 5 || m == nil {
			continue
		}
		pid, _ := strconv.Atoi(m[1])
		if o, ok := owners[pid]; ok {
			ends[[2]string{f[2], f[3]}] = o
		}
	}
	n := TCP{Pairs: map[[2]uint16]int{}}
	for addr, a := range ends {
		b, ok := ends[[2]string{addr[1], addr[0]}]
		if !ok || a.dbid >= b.dbid { // each connection is seen from both ends
			continue
		}
		if a.proxy && b.proxy {
			n.Proxies++
			n.Pairs[[2]uint16{a.dbid, b.dbid}]++
		} else {
			n.Executors++
		}
	}
	return n
}

// Eventually calls f until it returns nil, and fails the test with its last
// error when that takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Whole waits until every instance and each of its children is ready and
// queries on all segments are answered.
func (c *Cluster) Whole(t testing.TB, limit time.Duration) {
	t.Helper()
	list := c.Instances(t)
	Eventually(t, limit, func() error {
		for _, i := range list {
			st, err := instance.ReadStatus(context.Background(), datadir.Dir(i.Datadir))
			if err != nil {
				return fmt.Errorf("dbid %d: %w", i.Dbid, err)
			}
			if st.State != instance.Ready || st.Postgres.State != instance.Ready ||
				(!st.Standby && st.Proxy.State != instance.Ready) {
				return fmt.Errorf("dbid %d is not ready: %+v", i.Dbid, st)
			}
		}
		conn, err := c.TryConnect("postgres")
		if err != nil {
			return err
		}
		defer Close(conn)
		rows, err := TryQuery(conn, "select count(*) from gp_dist_random('gp_id')")
		if err == nil && (len(rows) != 1 || rows[0] != strconv.Itoa(c.Segments)) {
			err = fmt.Errorf("segments that answer: %v", rows)
		}
		return err
	})
}

// Abort ends the programs of all instances with SIGABRT, at which they write down
// what each of their goroutines is doing, and logs that: for tests that found
// something stuck. The cluster is down afterwards.
func (c *Cluster) Abort(t testing.TB) {
	t.Helper()
	type programs struct{ instance, proxy int }
	written := map[string]int64{} // what was in each log before
	pids := map[uint16]programs{}
	for _, i := range c.Instances(t) {
		st, err := instance.ReadStatus(context.Background(), datadir.Dir(i.Datadir))
		if err != nil {
			t.Logf("dbid %d does not say which programs it has: %v", i.Dbid, err)
			continue
		}
		pids[i.Dbid] = programs{st.Pid, st.Proxy.Pid}
		for _, name := range abortLogs {
			if fi, err := os.Stat(filepath.Join(i.Datadir, "log", name)); err == nil {
				written[filepath.Join(i.Datadir, "log", name)] = fi.Size()
			}
		}
	}
	for _, p := range pids {
		for _, pid := range []int{p.instance, p.proxy} {
			if pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGABRT)
			}
		}
	}
	time.Sleep(time.Second) // they write
	for _, i := range c.Instances(t) {
		for _, name := range abortLogs {
			file := filepath.Join(i.Datadir, "log", name)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Logf("%v", err)
				continue
			}
			_, stacks, _ := bytes.Cut(b[min(written[file], int64(len(b))):], []byte("SIGABRT: abort\n"))
			t.Logf("the goroutines in %s of dbid %d:\n%s", name, i.Dbid, stacks)
		}
	}
}

var abortLogs = []string{"instance.log", "proxy.log"}
