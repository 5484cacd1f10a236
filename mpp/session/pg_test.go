package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// dialTest connects a link to a server of the test's own.
func dialTest(t *testing.T, s *pgtest.Server) *link {
	t.Helper()
	l, err := dialLink(t.Context(), filepath.Join(s.Dir, fmt.Sprintf(".s.PGSQL.%d", s.Port)), pgtest.Superuser, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	l.onBegin = func() {}
	return l
}

// TestLink holds a link to what it tells of the server it is connected to.
func TestLink(t *testing.T) {
	srv := pgtest.Start(t)
	t.Run("query", func(t *testing.T) {
		l := dialTest(t, srv)
		res, err := l.query("SELECT 1 AS a; SELECT 'x' AS b, NULL AS c")
		if err != nil || string(res.value()) != "x" || res.rows[0][1] != nil || string(res.fields[1].Name) != "c" || res.tag != "SELECT 1" {
			t.Fatalf("%+v, %v", res, err)
		}
		var pe *pgconn.PgError
		if _, err := l.query("SELECT 1/0"); !errors.As(err, &pe) || pe.Code != "22012" {
			t.Errorf("%v", err)
		}
		if _, err := l.query("COPY (SELECT 1) TO STDOUT"); err != nil {
			t.Errorf("COPY TO: %v", err)
		}
		if _, err := l.query("CREATE TEMP TABLE t (a int); COPY t FROM STDIN"); err == nil {
			t.Error("COPY FROM STDIN was not refused")
		}
		for _, step := range []struct {
			sql    string
			status byte
		}{{"BEGIN", 'T'}, {"SELECT nix", 'E'}, {"ROLLBACK", 'I'}} {
			_, _ = l.query(step.sql)
			if l.status != step.status {
				t.Errorf("after %s the status is %c, expected %c", step.sql, l.status, step.status)
			}
		}
		params, fields, err := l.describe("SELECT $1 + 1::bigint, $2 || 'x'", nil)
		if err != nil || fmt.Sprint(params) != "[20 25]" || len(fields) != 2 || fields[0].DataTypeOID != 20 {
			t.Errorf("%v, %v, %v", params, fields, err)
		}
		if _, fields, err = l.describe("CREATE TABLE x (a int)", nil); err != nil || fields != nil {
			t.Errorf("%v, %v", fields, err)
		}
		if _, _, err = l.describe("SELEC", nil); err == nil || l.status != 'I' {
			t.Errorf("%v, %c", err, l.status)
		}
	})
	t.Run("notices", func(t *testing.T) {
		l := dialTest(t, srv)
		var heard []string
		l.onNotice = func(m pgproto3.BackendMessage) {
			switch m := m.(type) {
			case *pgproto3.NoticeResponse:
				heard = append(heard, m.Message)
			case *pgproto3.ParameterStatus:
				heard = append(heard, m.Name+"="+m.Value)
			case *pgproto3.NotificationResponse:
				heard = append(heard, m.Channel+":"+m.Payload)
			}
		}
		const sql = "DO $$ BEGIN RAISE NOTICE 'hello'; END $$; SET application_name = 'me'; LISTEN c; NOTIFY c, 'x'"
		_, _ = l.query(sql)
		if got := strings.Join(heard, ","); got != "hello,c:x,application_name=me" {
			t.Errorf("heard %s", got)
		}
		heard = nil
		unmute := l.mute()
		_, _ = l.query(strings.Replace(sql, "'me'", "'you'", 1))
		unmute()
		if got := strings.Join(heard, ","); got != "c:x,application_name=you" {
			t.Errorf("muted, heard %s", got)
		}
		if l.muted || l.params["application_name"] != "you" {
			t.Errorf("%v, %v", l.muted, l.params)
		}
	})
	t.Run("keepWork", func(t *testing.T) {
		l := dialTest(t, srv)
		begun := 0
		l.onBegin = func() { begun++ }
		if _, err := l.query("CREATE TEMP TABLE w (a int)"); err != nil || begun != 0 {
			t.Fatal(err, begun)
		}
		l.send(&pgproto3.Parse{Query: "INSERT INTO w VALUES (1)"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := l.receive()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := m.(*pgproto3.CommandComplete); ok {
				break
			}
		}
		l.unsynced = true
		res, err := l.query("SELECT count(*) FROM w")
		if err != nil || string(res.value()) != "1" || begun != 1 || l.status != 'T' {
			t.Fatalf("%v, %v, begun %d times, status %c", res, err, begun, l.status)
		}
		_, _ = l.query("ROLLBACK")
		if res, err = l.query("SELECT count(*) FROM w"); err != nil || string(res.value()) != "0" {
			t.Errorf("the work was kept beyond its transaction: %s, %v", res.value(), err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		l := dialTest(t, srv)
		time.AfterFunc(50*time.Millisecond, func() { _ = l.cancel(context.Background()) })
		var pe *pgconn.PgError
		if _, err := l.query("SELECT pg_sleep(20)"); !errors.As(err, &pe) || pe.Code != "57014" {
			t.Errorf("%v", err)
		}
	})
	t.Run("farewell", func(t *testing.T) {
		l := dialTest(t, srv)
		_, err := l.query("SELECT pg_terminate_backend(pg_backend_pid())")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P01" || l.broken == nil {
			t.Errorf("%v, broken %v", err, l.broken)
		}
		if _, again := l.query("SELECT 1"); again != l.broken {
			t.Errorf("a broken link says %v", again)
		}
	})
}

// TestMemberOf: who is in a role, as rules of pg_hba.conf for +role count it.
func TestMemberOf(t *testing.T) {
	srv := pgtest.Start(t)
	if _, err := dialTest(t, srv).query(`CREATE ROLE staff; CREATE ROLE "Team 'A'" IN ROLE staff; CREATE ROLE alice IN ROLE "Team 'A'";
		CREATE ROLE boss SUPERUSER IN ROLE "Team 'A'"; CREATE ROLE others`); err != nil {
		t.Fatal(err)
	}
	dir := datadir.Dir(t.TempDir())
	if err := os.Symlink(srv.Dir, dir.SocketDir()); err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Dir: dir, Port: srv.Port, Role: Segment})
	for _, c := range []struct {
		user, role string
		want       bool
	}{
		{"alice", "alice", true}, {"alice", "Team 'A'", true}, {"alice", "staff", true}, {"alice", "others", false}, {"staff", "alice", false},
		{"boss", "staff", true}, {"boss", "others", false}, {pgtest.Superuser, "staff", false}, {"nobody", "staff", false}, {"alice", "nothing", false},
		{"nobody", "nobody", false},
	} {
		if got, err := s.memberOf(t.Context(), c.user, c.role); err != nil || got != c.want {
			t.Errorf("%s in %s: %v, %v", c.user, c.role, got, err)
		}
	}
}

// TestPutOffIdle: timeouts are off whenever segments work and on whenever the
// client is waited for, whatever has ended in between, as in a query string of
// several statements.
func TestPutOffIdle(t *testing.T) {
	srv := pgtest.Start(t)
	const name, given = "idle_in_transaction_session_timeout", "7s"
	for _, steps := range []string{"off on", "off BEGIN on off on COMMIT off on", "BEGIN off COMMIT BEGIN off on ROLLBACK on off on",
		"BEGIN off SAVEPOINT_a on ROLLBACK_TO_a on off on", "BEGIN SAVEPOINT_a off ROLLBACK_TO_a off on COMMIT on", "BEGIN off COMMIT off BEGIN off on COMMIT on"} {
		s := &Session{link: dialTest(t, srv), gang: &dispatch.Gang{}}
		do := func(sql string) string {
			t.Helper()
			res, err := s.link.query(sql)
			if err != nil {
				t.Fatal(steps, err)
			}
			return string(res.value())
		}
		do("SET " + name + " = '" + given + "'")
		s.idle.note(name, "7000")
		for i, step := range strings.Fields(steps) {
			want := given
			switch step {
			case "off":
				if err := s.putOffIdle(); err != nil {
					t.Fatal(steps, err)
				}
				want = "0"
			case "on":
				s.restoreIdle()
			default:
				do(strings.ReplaceAll(step, "_", " "))
				if strings.HasPrefix(step, "ROLLBACK_TO") {
					s.idle.rolledBack()
				} else if s.link.status == 'I' {
					s.transactionEnded()
				}
				continue
			}
			if got := do("SHOW " + name); got != want {
				t.Errorf("%s: after step %d it is %s", steps, i+1, got)
			}
		}
	}
}
