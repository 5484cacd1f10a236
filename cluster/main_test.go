package cluster

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/freeport"
)

// The test binary is copied into the clusters it makes, where it is called
// trunkline: it is its own stand-in for the program.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "trunkline" {
		standIn(os.Args[1:])
	}
	if dir := os.Getenv(createVar); dir != "" {
		createHere(dir)
	}
	// Built with the race detector, a stand-in would take a second to exit.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

func standIn(args []string) {
	if len(args) != 3 || args[1] != "-D" {
		fmt.Fprintln(os.Stderr, "unexpected arguments", args)
		os.Exit(2)
	}
	dir := datadir.Dir(args[2])
	switch args[0] {
	case "proxy":
		sigs := make(chan os.Signal, 8)
		signal.Notify(sigs, syscall.SIGHUP, syscall.SIGTERM)
		fmt.Println("proxy is up")
		for sig := range sigs {
			if sig == syscall.SIGTERM {
				os.Exit(0)
			}
			fmt.Println("proxy was reloaded")
		}
	case "instance":
		n := instance.NewNotifier()
		err := instance.Run(context.Background(), dir, instance.Options{
			Servers: func(i instance.Info) ([]instance.Server, error) {
				if _, err := os.Stat(filepath.Join(string(dir), "refuse")); err == nil {
					return nil, fmt.Errorf("this server refuses")
				}
				return []instance.Server{&greeter{info: i}}, nil
			},
			Ready: n.Ready, OnlyIfWanted: instance.StartedAgain(),
		})
		if err != nil {
			n.Failed(err)
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// greeter is a server that tells each client which instance it is, and then
// holds the connection until the client leaves.
type greeter struct {
	info     instance.Info
	sessions atomic.Int64
	reloads  atomic.Int64
}

func (g *greeter) Sessions() int { return int(g.sessions.Load()) }
func (g *greeter) Reload()       { g.reloads.Add(1) }

func (g *greeter) Drain(ctx context.Context) error {
	_ = g.info.Listener.Close()
	for g.sessions.Load() > 0 && pause(ctx, pollEvery) {
	}
	return ctx.Err()
}

func (g *greeter) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = g.info.Listener.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := g.info.Listener.Accept()
		if err != nil {
			<-ctx.Done() // drained
			return nil
		}
		wg.Go(func() {
			g.sessions.Add(1)
			defer g.sessions.Add(-1)
			end := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer end()
			defer c.Close()
			fmt.Fprintf(c, "content %d reloads %d\n", g.info.Content, g.reloads.Load())
			_, _ = c.Read(make([]byte, 1))
		})
	}
}

// needPostgres skips tests that cannot run on this machine.
func needPostgres(t *testing.T) {
	t.Helper()
	if _, err := instance.FindPostgres(); err != nil {
		t.Skip("no PostgreSQL to make clusters of:", err)
	}
	if _, err := accountFor(); err != nil {
		t.Skip("no user to run PostgreSQL as:", err)
	}
}

// tempDir is a directory that every user may enter, with a short path.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freePorts returns the first of n adjacent free ports.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	first, err := freeport.Adjacent(n)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// processes lists those that have a path in their command line or as their
// working directory.
func processes(path string) []string {
	var found []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if p == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if strings.Contains(string(cmd), path) || strings.Contains(cwd, path) {
			found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	return found
}

// nothingLeft fails the test when something of a cluster in dir is still
// there.
func nothingLeft(t *testing.T, dir string, port, n int) {
	t.Helper()
	if _, err := os.Lstat(dir); err == nil {
		entries, _ := os.ReadDir(dir)
		t.Errorf("%s is left, with %v", dir, entries)
	}
	if p := processes(dir); len(p) > 0 {
		t.Errorf("processes are left: %q", p)
	}
	for k := range n {
		socks, _ := filepath.Glob(fmt.Sprintf("/tmp/.s.PGSQL*.%d*", port+k))
		if len(socks) > 0 {
			t.Errorf("sockets are left: %q", socks)
		}
	}
}

// eventually waits until ok returns nil: two minutes at most, for some wait for a
// whole cluster to be made, beside whatever else the machine does.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dumpLogs shows the instances' logs when the test has failed.
func dumpLogs(t *testing.T, c *Cluster) {
	if !t.Failed() {
		return
	}
	for _, i := range c.Instances() {
		for _, name := range []string{"instance.log", "postgres.log"} {
			b, _ := os.ReadFile(filepath.Join(data(i).LogDir(), name))
			t.Logf("%s of dbid %d:\n%s", name, i.Dbid, b[max(0, len(b)-3000):])
		}
	}
}
