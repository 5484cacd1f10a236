package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// restartBackoff is the wait before a child that died for the nth time in a
// row is started again: none the first time, so that a killed server is back
// at once, and at most limit. A child that lived for settled starts over.
func restartBackoff(n int) time.Duration {
	const limit = 5 * time.Second
	if n <= 1 {
		return 0
	}
	if n > 7 {
		return limit
	}
	return min(100*time.Millisecond<<(n-2), limit)
}

// settled is how long a child must live to count as healthy again.
const settled = 10 * time.Second

// postgres keeps the PostgreSQL server of a data directory running.
type postgres struct {
	dir     datadir.Dir
	port    int
	bindir  string
	env     []string
	cred    *syscall.Credential // nil: as this process
	args    []string
	prepare func() error           // writes the generated configuration; called before each start
	onState func(pid int, s State) // told of every change
	spawn   *spawner
	log     *slog.Logger

	startTimeout time.Duration
	stopTimeout  time.Duration
	immediate    <-chan struct{} // closed: do not wait for a clean end
}

// keep starts the server, and again when it dies, until ctx is done; then it
// stops the server and returns nil. It returns an error when the first start
// fails.
func (p *postgres) keep(ctx context.Context) error {
	for n := 1; ; n++ {
		began := time.Now()
		ready, err := p.once(ctx)
		p.onState(0, Down)
		if ctx.Err() != nil {
			return nil
		}
		if n == 1 && !ready {
			return err
		}
		if time.Since(began) > settled {
			n = 1
		}
		p.log.Error("PostgreSQL server ended; starting it again", "err", err)
		if !sleep(ctx, restartBackoff(n)) {
			return nil
		}
	}
}

// once runs the server one time. ready tells whether it ever accepted
// connections; err why it ended by itself.
func (p *postgres) once(ctx context.Context) (ready bool, err error) {
	p.onState(0, Starting)
	c, err := p.start(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		// Whatever the end was: backends of a dead postmaster must be gone
		// before the next one may use the data directory.
		kctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = killPostgres(kctx, p.dir)
	}()
	p.onState(c.pid, Starting)
	if err := p.waitReady(ctx, c); err != nil {
		p.stop(c)
		return false, err
	}
	p.onState(c.pid, Ready)
	p.log.Info("PostgreSQL server is ready", "pid", c.pid)
	select {
	case <-c.exited:
		return true, fmt.Errorf("PostgreSQL server of %s (pid %d): %s", p.dir, c.pid, c.reason())
	case <-ctx.Done():
		p.onState(c.pid, Stopping)
		p.stop(c)
		return true, nil
	}
}

// start clears what a crash left, writes the configuration and starts the
// server process.
func (p *postgres) start(ctx context.Context) (*child, error) {
	if err := killPostgres(ctx, p.dir); err != nil {
		return nil, err
	}
	removeStale(p.dir)
	if err := p.prepare(); err != nil {
		return nil, err
	}
	out, err := openLog(p.dir, "postgres.log")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(p.bindir, "postgres"), p.args...)
	cmd.Env, cmd.Dir = p.env, string(p.dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Setpgid: true}
	// SIGQUIT: the postmaster takes its backends with it, at once.
	return p.spawn.start(cmd, syscall.SIGQUIT)
}

// serverArgs are the server's arguments. What must hold whatever the user's
// files or ALTER SYSTEM say is here, where it beats every file.
func serverArgs(dir datadir.Dir, port int) []string {
	args := []string{"-D", string(dir)}
	for _, kv := range [][2]string{
		{"config_file", dir.PGConf()},
		{"hba_file", dir.PGHBA()},
		{"listen_addresses", ""},
		{"unix_socket_directories", quoteListItem(dir.SocketDir())},
		{"unix_socket_permissions", "0700"},
		{"port", strconv.Itoa(port)},
	} {
		args = append(args, "-c", kv[0]+"="+kv[1])
	}
	return args
}

// quoteListItem quotes one item of a comma separated list parameter.
func quoteListItem(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// waitReady waits until the server says in its lock file that it accepts
// connections.
func (p *postgres) waitReady(ctx context.Context, c *child) error {
	logPath := filepath.Join(p.dir.LogDir(), "postgres.log")
	var offset int64
	if fi, err := os.Stat(logPath); err == nil {
		offset = fi.Size()
	}
	limit := time.NewTimer(p.startTimeout)
	defer limit.Stop()
	for {
		pm, err := p.dir.Postmaster()
		if err == nil && pm.Pid == c.pid && (pm.Status == "ready" || pm.Status == "standby") {
			return nil
		}
		select {
		case <-c.exited:
			// It may have logged before the offset was taken: show a little more.
			return fmt.Errorf("the PostgreSQL server of %s did not start (%s); it says:\n%s",
				p.dir, c.reason(), lastLines(logTail(logPath, max(0, offset-512), 2048), 8))
		case <-limit.C:
			return fmt.Errorf("the PostgreSQL server of %s is not ready after %v; see %s", p.dir, p.startTimeout, logPath)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the server: fast, or at once when that is wanted or fast takes
// too long.
func (p *postgres) stop(c *child) {
	select {
	case <-p.immediate:
	default:
		c.signal(syscall.SIGINT)
		limit := time.NewTimer(p.stopTimeout)
		defer limit.Stop()
		select {
		case <-c.exited:
			return
		case <-p.immediate:
		case <-limit.C:
			p.log.Warn("PostgreSQL server does not end; stopping it the hard way", "after", p.stopTimeout)
		}
	}
	c.signal(syscall.SIGQUIT)
	select {
	case <-c.exited:
	case <-time.After(6 * time.Second): // the postmaster itself kills its children after 5
		c.signal(syscall.SIGKILL)
		<-c.exited
	}
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// lastLines returns the last n lines of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// errNoWords is what a start that failed without a message is called.
var errNoWords = errors.New("no reason given")

// RunPostgres runs only the PostgreSQL server of the data directory, as its
// owner, without port, proxy or supervision, calls f with the folder of its
// socket, and stops the server again. It is for work on an instance that does
// not run. The server dies with this process.
func RunPostgres(ctx context.Context, dir datadir.Dir, f func(ctx context.Context, socketDir string) error) error {
	lk, err := acquire(dir)
	if err != nil {
		return err
	}
	defer lk.release()
	fa, err := readFacts(dir)
	if err != nil {
		return err
	}
	uid, gid, err := owner(string(dir))
	if err != nil {
		return err
	}
	cred, err := Credential(uid, gid)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	bindir, err := clusterPostgres(fa.clusterDir)
	if err != nil {
		return err
	}
	p := &postgres{
		dir: dir, port: fa.self.Port, bindir: bindir, cred: cred,
		env: serverEnv(fa, bindir), args: serverArgs(dir, fa.self.Port),
		prepare: func() error { return Generate(dir, nil) },
	}
	return p.during(ctx, func(ctx context.Context) error { return f(ctx, dir.SocketDir()) })
}

// during runs the server while f runs, once and without telling anybody. The
// server dies with this process.
func (p *postgres) during(ctx context.Context, f func(ctx context.Context) error) error {
	p.spawn = newSpawner()
	defer p.spawn.close()
	up := make(chan struct{}, 1)
	p.onState = func(_ int, s State) {
		if s == Ready {
			up <- struct{}{}
		}
	}
	p.log, p.startTimeout, p.stopTimeout = slog.New(slog.DiscardHandler), defaultStartTimeout, defaultStopTimeout
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := p.once(pctx)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			err = errNoWords
		}
		return err
	case <-up:
	}
	err := f(pctx)
	cancel()
	if eerr := <-ended; err == nil {
		err = eerr
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}
