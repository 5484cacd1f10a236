package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/instance"
	_ "github.com/trunkline-db/trunkline/internal/pgenv"
)

// plainPostgres is a PostgreSQL server beside a cluster.
type plainPostgres struct {
	once   sync.Once
	err    error // why there is none
	dir    string
	server *exec.Cmd     // nil: not started
	ended  chan struct{} // closed when it has
	made   atomic.Int32
}

// PlainPostgres returns a session in a database of the test's own on a single
// PostgreSQL server that knows nothing of Trunkline, for comparison. Roles are
// all tests': who makes some drops them. The server is started for the first
// test that asks and ends with the cluster; its collation is that of the
// cluster's databases.
func (c *Cluster) PlainPostgres(t testing.TB) *pgx.Conn {
	t.Helper()
	p := &c.plain
	p.once.Do(func() {
		conn := c.Connect(t, "postgres")
		collate := Value(t, conn, "select datcollate from pg_database where datname = 'template1'")
		Close(conn)
		p.ended = make(chan struct{})
		started := make(chan error)
		go func() {
			// The server is killed when the thread that has started it ends, and
			// threads do: of tests that change their network.
			runtime.LockOSThread()
			err := p.start(c.home.dir, collate)
			started <- err
			if err == nil {
				_ = p.server.Wait()
				close(p.ended)
			}
		}()
		p.err = <-started
	})
	if p.err != nil {
		t.Fatalf("no plain PostgreSQL server: %v", p.err)
	}
	connect := func(db string) *pgx.Conn {
		var conn *pgx.Conn
		Eventually(t, 20*time.Second, func() (err error) { // it may still be starting
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			conn, err = pgx.Connect(ctx, fmt.Sprintf("host=%s user=gpadmin dbname=%s", p.dir, db))
			return err
		})
		return conn
	}
	admin, name := connect("postgres"), fmt.Sprintf("plain%d", p.made.Add(1))
	t.Cleanup(func() { Close(admin) })
	Exec(t, admin, "create database "+name)
	t.Cleanup(func() { Exec(t, admin, "drop database "+name+" with (force)") })
	conn := connect(name)
	t.Cleanup(func() { Close(conn) })
	return conn
}

// start makes the server in a directory below home and starts it. Who comes
// waits until it answers.
func (p *plainPostgres) start(home, collate string) error {
	bin, err := instance.FindPostgres()
	if err != nil {
		return err
	}
	// Not a test's temporary directory: the server's user must be able to enter
	// it, and the socket's path is short.
	if p.dir, err = os.MkdirTemp(home, "pg"); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(p.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "gpadmin", "-A", "trust", "-E", "UTF8", "--locale="+collate, "--no-sync")
	initdb.Dir, initdb.SysProcAttr = p.dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", p.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "jit=off")
	server.Dir, server.SysProcAttr = p.dir, attr
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return err
	}
	p.server = server
	return nil
}

// stop ends the server, if there is one, and removes it.
func (p *plainPostgres) stop() error {
	if p.server != nil {
		_ = p.server.Process.Signal(syscall.SIGQUIT) // it has nothing to keep
		<-p.ended
	}
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}
