package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/instance"
)

// PlainPostgres starts one PostgreSQL server that knows nothing of Trunkline,
// for comparison, and returns a session on it. It ends with the test. The
// collation is that of the cluster's databases.
func (c *Cluster) PlainPostgres(t testing.TB) *pgx.Conn {
	t.Helper()
	bin, err := instance.FindPostgres()
	if err != nil {
		t.Fatal(err)
	}
	// Its own directory, not the test's temporary one: the server's user must
	// be able to enter it, and the socket's path is short.
	dir, err := os.MkdirTemp(c.home.dir, "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	conn := c.Connect(t, "template1")
	collate := Value(t, conn, "select datcollate from pg_database where datname = 'template1'")
	Close(conn)

	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "gpadmin", "-A", "trust", "-E", "UTF8", "--locale="+collate, "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "jit=off")
	server.Dir, server.SysProcAttr = dir, attr
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = server.Wait()
	})
	var plain *pgx.Conn
	Eventually(t, 20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		plain, err = pgx.Connect(ctx, fmt.Sprintf("host=%s user=gpadmin dbname=postgres", dir))
		return err
	})
	t.Cleanup(func() { Close(plain) })
	return plain
}
