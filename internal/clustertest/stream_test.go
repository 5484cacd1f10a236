package clustertest

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// TestStreams has clients who read a result bit by bit see its first rows while a
// segment has sent none: its server is frozen.
func TestStreams(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	setup := c.Connect(t, db)
	const rows = 120_000
	testkit.Exec(t, setup, fmt.Sprintf("create table done (i int) distributed by (i); create table wide (i int, t text) distributed by (i); insert into wide select g, repeat('x', 300) from generate_series(1, %d) g; analyze wide", rows))
	seg1 := backendOf(t, c, 3, db)
	for _, typ := range interconnectTypes {
		for _, query := range []string{"select i, t from wide", "select i, t from wide where random() < 2"} {
			conn := c.Connect(t, db, "gp_interconnect_type="+typ, "application_name=streams_"+typ, "statement_timeout=20s")
			// freeze freezes the session's servers on seg1.
			freeze := func() (thaw func()) {
				t.Helper()
				var thaws []func()
				for _, pid := range testkit.Query(t, seg1, "select pid from pg_stat_activity where backend_type = 'client backend' and application_name = 'streams_"+typ+"'") {
					n, err := strconv.Atoi(pid)
					if err != nil {
						t.Fatal(err)
					}
					thaws = append(thaws, testkit.Freeze(t, n))
				}
				return func() {
					for _, thaw := range thaws {
						thaw()
					}
				}
			}
			t.Run(typ+"/cursor: "+query, func(t *testing.T) {
				testkit.Exec(t, conn, "begin; declare c cursor for "+query)
				thaw := freeze()
				first := testkit.Query(t, conn, "fetch 3 c")
				thaw()
				if len(first) != 3 {
					t.Errorf("first rows: %q", first)
				}
				if got := testkit.Value(t, conn, "select count(*) from wide"); got != fmt.Sprint(rows) {
					t.Errorf("beside the cursor: %s", got)
				}
				tag, err := conn.Exec(t.Context(), "move all c")
				if err != nil || tag.RowsAffected() != rows-3 {
					t.Errorf("the other rows: %s, %v", tag, err)
				}
				if back := testkit.Query(t, conn, "fetch absolute 3 c"); len(back) != 1 || back[0] != first[2] {
					t.Errorf("the third row again: %q, was %q", back, first)
				}
				// What nobody reads any more is not in the way of others.
				for range 3 {
					testkit.Exec(t, conn, "close c; declare c cursor for "+query)
					if got := testkit.Query(t, conn, "fetch 3 c"); len(got) != 3 {
						t.Errorf("after CLOSE: %q", got)
					}
				}
				testkit.Exec(t, conn, "close all; declare c cursor with hold for "+query+"; declare d cursor for "+query+"; fetch 2 c; fetch 2 d; insert into done values (1); commit")
				if got := testkit.Query(t, conn, "fetch 5 c"); len(got) != 5 {
					t.Errorf("after COMMIT: %q", got)
				}
				if err := testkit.TryExec(conn, "fetch d"); testkit.SQLState(err) != "34000" {
					t.Errorf("a cursor that has ended with its block: %v", err)
				}
				testkit.Exec(t, conn, "close c")
			})
			t.Run(typ+"/copy: "+query, func(t *testing.T) {
				streamed := false
				for range 10 { // seg1 may have sent all before it is frozen
					w := &lineCounter{begun: make(chan struct{}), goOn: make(chan struct{})}
					done := make(chan error, 1)
					go func() {
						_, err := conn.PgConn().CopyTo(t.Context(), w, "copy ("+query+") to stdout")
						done <- err
					}()
					select {
					case <-w.begun:
					case err := <-done:
						t.Fatalf("no line has come: %v", err)
					}
					thaw := freeze()
					close(w.goOn)
					var err error
					select {
					case err = <-done:
						thaw()
					case <-time.After(300 * time.Millisecond):
						streamed = true
						thaw()
						err = <-done
					}
					if err != nil || w.lines != rows {
						t.Fatalf("%d lines, %v", w.lines, err)
					}
					if streamed {
						return
					}
				}
				t.Error("lines come only when the last is there")
			})
			testkit.Close(conn)
		}
	}
}

// lineCounter counts lines, but closes begun before it takes the first, and waits for
// goOn.
type lineCounter struct {
	begun, goOn chan struct{}
	lines       int
}

func (w *lineCounter) Write(b []byte) (int, error) {
	if w.lines == 0 {
		close(w.begun)
		<-w.goOn
	}
	w.lines += bytes.Count(b, []byte("\n"))
	return len(b), nil
}
