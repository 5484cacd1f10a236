// Package executetest helps the tests of the dispatch side: throw-away
// PostgreSQL servers, and an interconnect in memory.
package executetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	_ "github.com/trunkline-db/trunkline/internal/pgenv"
)

// Superuser is the database superuser of the servers.
const Superuser = "gpadmin"

// startLimit bounds the start of a server, crash recovery included.
const startLimit = 30 * time.Second

// binDir is where Debian has PostgreSQL 15.
const binDir = "/usr/lib/postgresql/15/bin"

// Postgres is a PostgreSQL server reachable through its data directory's
// socket only, as an instance runs it.
type Postgres struct {
	Dir  datadir.Dir
	Port int

	mu  sync.Mutex
	cmd *exec.Cmd
}

// Available says whether PostgreSQL is installed where the tests look for it.
func Available() bool {
	_, err := os.Stat(filepath.Join(binDir, "initdb"))
	return err == nil
}

// Template makes an initialised data directory in base from which Start copies.
func Template(base string) (string, error) {
	if err := os.Chmod(base, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(base, "template")
	if err := mkdir(dir); err != nil {
		return "", err
	}
	cmd, err := command("initdb", "-D", dir, "-U", Superuser, "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
	if err != nil {
		return "", err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return dir, nil
}

// Start copies the template to dir and starts a server there. lines are for its
// postgresql.conf, where the last of a name counts.
func Start(template, dir string, port int, lines ...string) (*Postgres, error) {
	cp := exec.Command("cp", "-a", template, dir)
	if out, err := cp.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp: %w\n%s", err, out)
	}
	d := datadir.Dir(dir)
	for _, sub := range []string{d.Private(), d.RowsDir()} {
		if err := mkdir(sub); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(`
listen_addresses = ''
unix_socket_directories = '%s'
port = %d
fsync = off
shared_buffers = 16MB
max_connections = 60
max_prepared_transactions = 100
session_replication_role = replica
log_min_messages = fatal
`, d.SocketDir(), port)
	f, err := os.OpenFile(d.Conf(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(conf + strings.Join(lines, "\n"))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	p := &Postgres{Dir: d, Port: port}
	return p, p.Start()
}

// Start starts the server again and waits until it takes connections.
func (p *Postgres) Start() error {
	deadline := time.Now().Add(startLimit)
	for {
		var out bytes.Buffer
		cmd, err := command("postgres", "-D", string(p.Dir))
		if err != nil {
			return err
		}
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			return err
		}
		died := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(died)
		}()
		if p.wait(died, deadline) {
			p.mu.Lock()
			p.cmd = cmd
			p.mu.Unlock()
			return nil
		}
		_ = cmd.Process.Kill()
		<-died
		// Children of a killed server may hold its shared memory for a moment.
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres did not start:\n%s", out.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *Postgres) wait(died <-chan struct{}, deadline time.Time) bool {
	for time.Now().Before(deadline) {
		select {
		case <-died:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		c, err := p.Connect(ctx, "postgres")
		cancel()
		if err == nil {
			_ = c.Close(context.Background())
			return true
		}
	}
	return false
}

// Connect opens a connection straight to the server.
func (p *Postgres) Connect(ctx context.Context, database string) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", p.Dir.SocketDir(), p.Port, Superuser, database))
}

// Signal sends sig to the postmaster and waits until it is gone: SIGKILL is a
// crash, SIGQUIT an immediate shutdown.
func (p *Postgres) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd := p.cmd
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil {
		return err
	}
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if errors.Is(cmd.Process.Signal(syscall.Signal(0)), os.ErrProcessDone) {
			return nil
		}
	}
	return errors.New("postgres does not end")
}

// command prepares one of PostgreSQL's programs, which refuse to run as root.
func command(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(binDir, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	uid, gid, err := osUser()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd, nil
}

// osUser is whom the servers run as.
func osUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	uid, gid, err := osUser()
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// Listen makes the dispatch socket of an instance, replacing a stale one.
func Listen(d datadir.Dir) (net.Listener, error) {
	_ = os.Remove(d.QESocket())
	return net.Listen("unix", d.QESocket())
}
