package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/topology"
)

// Options say what kind of cluster is wanted.
type Options struct {
	Segments int  // primaries; 0 means 3
	Standby  bool // with a standby coordinator
}

// Cluster is a running cluster of a test process.
type Cluster struct {
	Dir  string // what `trunkline cluster create` was given
	Port int    // the coordinator's
	Options

	home  *homeDir
	env   []string
	plain plainPostgres
}

var clusters atomic.Int32

// createTimeout bounds making or destroying a cluster.
const createTimeout = 3 * time.Minute

// Create makes a cluster and starts it. The caller calls Destroy; when the
// process dies without having done so the cluster is removed all the same.
func Create(opt Options) (*Cluster, error) {
	if opt.Segments == 0 {
		opt.Segments = 3
	}
	h, err := home()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: filepath.Join(h.dir, strconv.Itoa(int(clusters.Add(1)))), Options: opt, home: h}
	if c.Port, err = freeport.Adjacent(opt.Segments+2, ProxyDelta); err != nil {
		return nil, err
	}
	args := []string{"cluster", "create", c.Dir, "--segments", strconv.Itoa(opt.Segments), "--port", strconv.Itoa(c.Port)}
	if opt.Standby {
		args = append(args, "--standby")
	}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, h.bin, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("trunkline %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	if c.env, err = readEnv(filepath.Join(c.Dir, "env.sh")); err != nil {
		_ = c.Destroy()
		return nil, err
	}
	return c, nil
}

// New is Create for one test, which it fails when it cannot; the cluster goes
// with the test.
func New(t testing.TB, opt Options) *Cluster {
	t.Helper()
	c, err := Create(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DumpLogs(t)
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Destroy stops the cluster, and the server beside it, and removes every file of
// them.
func (c *Cluster) Destroy() error {
	plainErr := c.plain.stop()
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, c.home.bin, "cluster", "destroy", c.Dir).CombinedOutput(); err != nil {
		return errors.Join(plainErr, fmt.Errorf("trunkline cluster destroy: %w\n%s", err, out))
	}
	return plainErr
}

// homeDir is the directory of everything this process makes.
type homeDir struct {
	dir string
	bin string // the built binary
	// reaper ends, and removes everything, when this end of its standard
	// input is closed: by the kernel, when this process is gone.
	reaper io.WriteCloser
}

// home makes the directory and builds the binary, once a process.
var home = sync.OnceValues(func() (*homeDir, error) {
	// The path is short, for unix sockets lie below it, and open to the system
	// user that runs the servers when the tests run as root.
	dir, err := os.MkdirTemp("/tmp", "tl")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	h := &homeDir{dir: dir, bin: filepath.Join(dir, "trunkline")}
	if h.reaper, err = startReaper(h); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", h.bin, "github.com/trunkline-db/trunkline/cmd/trunkline")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return h, nil
})

// Binary returns the path of the program as this process has built it. It goes
// with the process.
func Binary() (string, error) {
	h, err := home()
	if err != nil {
		return "", err
	}
	return h.bin, nil
}

func startReaper(h *homeDir) (io.WriteCloser, error) {
	const script = `
		read -r _ # until end of file
		for c in "$1"/*/gp_segment_configuration; do
			[ ! -e "$c" ] || "$2" cluster destroy "${c%/*}"
		done
		rm -rf "$1"`
	cmd := exec.Command("/bin/sh", "-c", script, "reaper", h.dir, h.bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	return stdin, nil
}

// readEnv returns this process's environment as sourcing file changes it.
func readEnv(file string) ([]string, error) {
	cmd := exec.Command("/bin/bash", "-c", `set -e; . "$1"; env -0`, "readenv", file)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PSQLRC=/dev/null", "PSQL_PAGER=cat")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", file, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), nil
}

// Instances reads the cluster's gp_segment_configuration.
func (c *Cluster) Instances(t testing.TB) []topology.Instance {
	t.Helper()
	list, err := topology.ReadFile(filepath.Join(c.Dir, instance.ConfigurationFile))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Instance returns the row of one instance.
func (c *Cluster) Instance(t testing.TB, dbid uint16) topology.Instance {
	t.Helper()
	for _, i := range c.Instances(t) {
		if i.Dbid == dbid {
			return i
		}
	}
	t.Fatalf("no instance has dbid %d", dbid)
	return topology.Instance{}
}

// DumpLogs writes the ends of the instances' logs to the test's log if the
// test has failed.
func (c *Cluster) DumpLogs(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, i := range c.Instances(t) {
		for _, name := range []string{"instance.log", "proxy.log", "postgres.log"} {
			b, err := os.ReadFile(filepath.Join(i.Datadir, "log", name))
			if err != nil {
				continue
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			if len(lines) > 25 {
				lines = lines[len(lines)-25:]
			}
			t.Logf("end of %s of dbid %d:\n%s", name, i.Dbid, strings.Join(lines, "\n"))
		}
	}
}
