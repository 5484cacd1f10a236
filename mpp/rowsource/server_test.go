package rowsource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// row is the body of a DataRow.
func row(values ...string) []byte {
	b, _ := (&pgproto3.DataRow{Values: func() (v [][]byte) {
		for _, s := range values {
			v = append(v, []byte(s))
		}
		return append(v, nil)
	}()}).Encode(nil)
	return b[5:]
}

// listen makes a served row source that a PostgreSQL server of another user can
// reach, and returns its folder.
func listen(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	dir := t.TempDir()
	cfg.Path = filepath.Join(dir, ".s.PGSQL.6000")
	cfg.Failure = func(err error) *pgproto3.ErrorResponse {
		e := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: err.Error()}
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			e.Code, e.Message = pe.Code, pe.Message
		}
		return e
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(cfg.Path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the socket's mode is %v, %v", st.Mode(), err)
	}
	open := []string{cfg.Path}
	for d := dir; d != filepath.Dir(d) && d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		open = append(open, d)
	}
	for _, path := range open {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return s, dir
}

func dial(t testing.TB, srv *pgtest.Server) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", srv.Dir, srv.Port, pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func value(conn *pgconn.PgConn, sql string) (string, error) {
	res, err := conn.Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return "", err
	}
	return string(res[len(res)-1].Rows[0][0]), nil
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// TestServer reads row sources through dblink, as PostgreSQL does.
func TestServer(t *testing.T) {
	srv := pgtest.Start(t)
	s, dir := listen(t, Config{})
	source := func(rows int, fail error) Source {
		return Source{Columns: 2, Rows: func(_ context.Context, sink func([]byte) error) error {
			for i := range rows {
				if err := sink(row(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return fail
		}}
	}
	s.Add("some", source(5000, nil))
	s.Add("none", source(0, nil))
	s.Add("bad", source(3, &pgconn.PgError{Code: "22012", Message: "division by zero (seg1)"}))
	s.Add("bare", Source{Columns: 1, Rows: func(_ context.Context, sink func([]byte) error) error {
		return errors.Join(sink([]byte{0, 0}), sink([]byte{0, 0}))
	}})
	for token, style := range map[string]string{"us": "SQL, MDY", "eu": "SQL, DMY", "iso": ""} {
		text := map[string]string{"us": "02/28/2020", "eu": "28/02/2020", "iso": "2020-02-28"}[token]
		s.Add(token, Source{Columns: 2, Styles: func() map[string]string { return map[string]string{"DateStyle": style} },
			Rows: func(_ context.Context, sink func([]byte) error) error { return sink(row(text)) }})
	}
	conn := dial(t, srv)
	connect := "SELECT dblink_connect('m', 'host=" + dir + " port=6000 user=x dbname=x')"
	if _, err := value(conn, "CREATE EXTENSION dblink; "+connect); err != nil {
		t.Fatal(err)
	}
	ask := func(token string) (string, error) {
		return value(conn, "SELECT count(*) || ' ' || count(b) || ' ' || coalesce(sum(a), 0) FROM dblink('m', '"+token+"') AS t(a int, b text)")
	}
	for range 2 {
		if got, err := ask("some"); err != nil || got != "5000 0 12497500" {
			t.Errorf("%s, %v", got, err)
		}
		if got, err := ask("none"); err != nil || got != "0 0 0" {
			t.Errorf("%s, %v", got, err)
		}
		if got, err := value(conn, "SELECT count(*) || ' ' || count(a) FROM dblink('m', 'bare') AS t(a bool)"); err != nil || got != "2 0" {
			t.Errorf("rows without columns: %s, %v", got, err)
		}
		for token, want := range map[string]string{"bad": "22012", "nix": "34000"} {
			if _, err := ask(token); code(err) != want {
				t.Errorf("%s: %v, expected %s", token, err, want)
			}
		}
		for _, token := range []string{"us", "eu", "iso", "us"} {
			got, err := value(conn, "SELECT to_char(a, 'YYYYMMDD') FROM dblink('m', '"+token+"') AS t(a date, b text)")
			if err != nil || got != "20200228" {
				t.Errorf("%s: %s, %v", token, got, err)
			}
		}
	}
	s.Remove("some")
	if _, err := ask("some"); code(err) != "34000" {
		t.Errorf("a source that was removed: %v", err)
	}
	// A database in another encoding.
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").ReadAll(); err != nil {
		t.Fatal(err)
	}
	latin, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s dbname=latin sslmode=disable", srv.Dir, srv.Port, pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer latin.Close(context.Background())
	_, _ = value(latin, "CREATE EXTENSION dblink; "+connect)
	if _, err := value(latin, "SELECT a FROM dblink('m', 'iso') AS t(a text, b text)"); err == nil {
		t.Error("a LATIN1 database read rows in UTF-8")
	}
}
