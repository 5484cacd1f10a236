// Package pgtest starts a private PostgreSQL server for a test, to compare
// with or to work on. Only tests may import it.
package pgtest

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

	"github.com/jackc/pgx/v5/pgconn"

	_ "github.com/trunkline-db/trunkline/internal/pgenv"
)

// Bin is where PostgreSQL 15's programs are.
const Bin = "/usr/lib/postgresql/15/bin"

// Superuser is the name of the servers' first role.
const Superuser = "gpadmin"

// Server is a running server. It ends with the test that started it.
type Server struct {
	Dir  string // holds the unix socket
	Port int    // names the socket; also the TCP port, if it listens there
	Data string // data directory
}

// Start makes and starts a server with these settings (name=value). Without
// listen_addresses among them it has only its unix socket. It skips the test
// in short mode and where PostgreSQL is missing.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a PostgreSQL server; -short")
	}
	if _, err := os.Stat(filepath.Join(Bin, "initdb")); err != nil {
		t.Skipf("PostgreSQL 15 is not installed: %v", err)
	}
	// Not the test's own directory: the server's user must be able to enter
	// it and the socket's path be short.
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("PostgreSQL does not run as root and there is no user postgres: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	s := &Server{Dir: dir, Port: 5432, Data: filepath.Join(dir, "data")}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(Bin, name), args...)
		c.Dir, c.SysProcAttr = dir, attr
		return c
	}
	if out, err := command("initdb", "-D", s.Data, "-U", Superuser, "-A", "trust",
		"--no-sync", "-E", "UTF8", "--locale=C").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	args := []string{"-D", s.Data, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + dir, "-c", "fsync=off"}
	for _, v := range settings {
		args = append(args, "-c", v)
		fmt.Sscanf(v, "port=%d", &s.Port)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	srv := command("postgres", args...)
	srv.Stdout, srv.Stderr = log, log
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		srv.Process.Signal(syscall.SIGQUIT)
		srv.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := s.dial(ctx)
		if err == nil {
			conn.Close(ctx)
			return s
		}
		if ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("PostgreSQL does not answer: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Server) dial(ctx context.Context) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", s.Dir, s.Port, Superuser))
}

// Connect opens a superuser connection, closed at the end of the test.
func (s *Server) Connect(t testing.TB) *pgconn.PgConn {
	t.Helper()
	conn, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Query runs SQL and returns the rows of the last statement as text.
func Query(t testing.TB, conn *pgconn.PgConn, sql string) [][][]byte {
	t.Helper()
	res, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s\n%v", sql, err)
	}
	return res[len(res)-1].Rows
}
