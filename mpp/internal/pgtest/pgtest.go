// Package pgtest starts a private PostgreSQL server for a test, to compare
// with or to work on. Only tests may import it.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
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

// templateDir is a data directory that servers get copies of.
type templateDir struct {
	data string
	// reaper removes it when this end of its standard input is closed: by the
	// kernel, when this process is gone.
	reaper *os.File
}

// template makes an empty data directory, from which each server of the process
// gets a copy: initdb takes a second or two of a processor. It goes with the
// process.
var template = sync.OnceValues(func() (*templateDir, error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	reaper := exec.Command("/bin/sh", "-c", `read -r _; rm -rf "$1"`, "reaper", dir)
	reaper.Stdin, reaper.SysProcAttr = r, &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	err = reaper.Start()
	_ = r.Close()
	if err != nil {
		return nil, fmt.Errorf("start the reaper: %w", err)
	}
	attr, err := own(dir)
	if err != nil {
		return nil, err
	}
	d := &templateDir{data: filepath.Join(dir, "data")}
	d.reaper = w
	initdb := exec.Command(filepath.Join(Bin, "initdb"), "-D", d.data, "-U", Superuser, "-A", "trust",
		"--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return d, nil
})

// own gives a directory to the user that servers run as, and returns what runs a
// program as that user; the program ends with the thread that started it.
func own(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, uid, gid)
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
	attr, err := own(dir)
	if errors.As(err, new(user.UnknownUserError)) {
		t.Skipf("PostgreSQL does not run as root and there is no user postgres: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	empty, err := template()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, Port: 5432, Data: filepath.Join(dir, "data")}
	if out, err := exec.Command("cp", "-a", empty.data, s.Data).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
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
	srv := exec.Command(filepath.Join(Bin, "postgres"), args...)
	srv.Dir, srv.SysProcAttr = dir, attr
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
