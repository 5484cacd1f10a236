package testkit

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// commandTimeout bounds one command line or one query of a test.
const commandTimeout = 90 * time.Second

// Shell runs a command line by bash in the environment that env.sh makes, plus
// env ("NAME=value"), and returns its output and error output as they came.
func (c *Cluster) Shell(line string, env ...string) (string, error) {
	return c.ShellInput("", line, env...)
}

// ShellInput is Shell with text for the command's standard input.
func (c *Cluster) ShellInput(input, line string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "-c", line)
	cmd.Env = append(append([]string(nil), c.env...), env...)
	cmd.Dir = c.home.dir
	cmd.Stdin = strings.NewReader(input)
	// The whole process group goes when time is up, not bash alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %v: %w", commandTimeout, err)
	}
	return string(out), err
}

// MustShell is Shell that fails the test when the command does.
func (c *Cluster) MustShell(t testing.TB, line string, env ...string) string {
	t.Helper()
	out, err := c.Shell(line, env...)
	if err != nil {
		t.Fatalf("$ %s\n%s\n%v", line, out, err)
	}
	return out
}

// Path returns a path in the directory that holds the cluster; the commands of Shell run there.
func (c *Cluster) Path(name string) string { return filepath.Join(c.home.dir, name) }

// Connect opens a session on the coordinator. Options are session parameters,
// "gp_interconnect_type=proxy". It is closed with the test.
func (c *Cluster) Connect(t testing.TB, db string, options ...string) *pgx.Conn {
	t.Helper()
	conn, err := c.TryConnect(db, options...)
	if err != nil {
		t.Fatalf("connect to %s: %v", db, err)
	}
	t.Cleanup(func() { Close(conn) })
	return conn
}

// TryConnect is Connect for callers that expect it may fail. The caller calls
// Close.
func (c *Cluster) TryConnect(db string, options ...string) (*pgx.Conn, error) {
	return c.dial(c.Port, db, options...)
}

// Utility opens a utility-mode session on one instance's own PostgreSQL.
func (c *Cluster) Utility(t testing.TB, dbid uint16, db string) *pgx.Conn {
	t.Helper()
	conn, err := c.dial(c.Instance(t, dbid).Port, db, "gp_role=utility")
	if err != nil {
		t.Fatalf("utility connection to dbid %d: %v", dbid, err)
	}
	t.Cleanup(func() { Close(conn) })
	return conn
}

func (c *Cluster) dial(port int, db string, options ...string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=gpadmin dbname=%s sslmode=disable connect_timeout=10", port, db))
	if err != nil {
		return nil, err
	}
	var opts []string
	for _, o := range options {
		opts = append(opts, "-c "+o)
	}
	if opts != nil {
		cfg.RuntimeParams["options"] = strings.Join(opts, " ")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, cfg)
}

// ConnectAs opens a session like conn's for another role. It is closed with the
// test.
func ConnectAs(t testing.TB, conn *pgx.Conn, role string) *pgx.Conn {
	t.Helper()
	cfg := conn.Config().Copy()
	cfg.User = role
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	other, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatalf("connect as %s: %v", role, err)
	}
	t.Cleanup(func() { Close(other) })
	return other
}

// Close closes a session without waiting for a server that does not answer.
func Close(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

var databases atomic.Int32

// Database makes a database of the test's own and returns its name. Tests may call
// it at the same time, when none of them has a session in template1.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	conn := c.Connect(t, "postgres") // nobody may be in the template
	// Copying files costs a quarter of what it does to log each block, where
	// servers do not wait for the disk.
	Exec(t, conn, "create database "+name+" strategy file_copy")
	Close(conn)
	t.Cleanup(func() {
		conn, err := c.TryConnect("postgres")
		if err != nil {
			t.Errorf("drop database %s: %v", name, err)
			return
		}
		defer Close(conn)
		if err := TryExec(conn, "drop database if exists "+name+" with (force)"); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return name
}

// Exec runs statements by the simple protocol and fails the test on an error.
func Exec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if err := TryExec(conn, sql); err != nil {
		t.Fatalf("%s: %v", abbreviate(sql), err)
	}
}

// TryExec runs statements by the simple protocol.
func TryExec(conn *pgx.Conn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Query returns the rows of one query as text, NULL as \N, fields joined by |.
func Query(t testing.TB, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, err := TryQuery(conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", abbreviate(sql), err)
	}
	return rows
}

// TryQuery is Query for callers that expect it may fail.
func TryQuery(conn *pgx.Conn, sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, res := range results {
		for _, row := range res.Rows {
			fields := make([]string, len(row))
			for i, f := range row {
				if fields[i] = string(f); f == nil {
					fields[i] = `\N`
				}
			}
			lines = append(lines, strings.Join(fields, "|"))
		}
	}
	return lines, nil
}

// Value returns the single field of a query's single row.
func Value(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	rows := Query(t, conn, sql)
	if len(rows) != 1 {
		t.Fatalf("%s: %d rows, expected 1", abbreviate(sql), len(rows))
	}
	return rows[0]
}

// SQLState returns the SQLSTATE of a server's error, "" for any other.
func SQLState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// ErrorText returns everything a server's error says: message, detail and hint.
func ErrorText(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return strings.Join([]string{pe.Code, pe.Message, pe.Detail, pe.Hint}, "\n")
	}
	return err.Error()
}

func abbreviate(sql string) string {
	if len(sql) > 300 {
		return sql[:300] + "…"
	}
	return sql
}
