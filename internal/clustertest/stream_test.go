package clustertest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// TestStreamedTypes has values of many types go from segment to segment, and to the
// coordinator, in motions of many rows, and clients be told the types as on one
// PostgreSQL.
func TestStreamedTypes(t *testing.T) {
	c := beside(t)
	plain := c.PlainPostgres(t)
	conn := c.Connect(t, c.Database(t))
	for _, conn := range []*pgx.Conn{plain, conn} {
		testkit.Exec(t, conn, `create table v (id int, k int, b bool, by bytea, ch "char", na name, i8 bigint, i2 smallint, t text, c text collate "C", o oid, js json, f4 real, f8 float8, `+
			`mo money, ma macaddr, ne inet, ci cidr, d date, ti time, ts timestamp, tz timestamptz, iv interval, tt timetz, vb varbit, nu numeric, u uuid, jb jsonb, `+
			`bp char(7), vc varchar(9), t3 timestamp(3), i3 interval day to second(3), bi bit(3), n2 numeric(12,3), ar int[], bo box)`)
		testkit.Exec(t, conn, `insert into v select g, 12001 - g, g % 2 = 0, decode(lpad(to_hex(g), 8, '0'), 'hex'), chr(65 + g % 26)::"char", 'n a' || g, g * 1000000000::bigint, g % 30000, `+
			`(array['', ' ', 'null', 'a"b', 'c\d', '{e,f}', E'g\th\n', 'ü €'])[1 + g % 8] || case when g % 3 = 0 then '' else g::text end, 'C' || g, g, json_build_object('k"', 'v\' || g), g / 3.0, g / 7.0, `+
			`g::numeric::money, '08:00:2b:01:02:03'::macaddr, '10.0.0.0'::inet + g, '10.0.0.0/8', date '2000-01-01' + g, time '01:02:03.000004' + g * interval '1 s', timestamp '2000-01-01' + g * interval '1 hour', `+
			`timestamptz '2000-01-01 00:00:00+00' + g * interval '1 hour', g * interval '1 min 1.5 s', '01:02:03+04', g::bit(14)::varbit, g / 9.0, md5(g::text)::uuid, jsonb_build_array(g, null, '"'), `+
			`'b' || g, 'v' || g, timestamp '2000-01-01 00:00:00.123456' + g * interval '1 s', g * interval '1.23456 s', (g % 8)::bit(3), g / 11.0, array[g, null], box(point(g, 1), point(2, 3)) from generate_series(1, 12000) g`)
		testkit.Exec(t, conn, "update v set b = null, t = null, jb = null, ts = null, nu = null, by = '' where id % 17 = 0; analyze v")
	}
	const own = "y.b, y.by, y.ch, y.na, y.i8, y.i2, y.t, y.c, y.o, y.js, y.f4, y.f8, y.mo, y.ma, y.ne, y.ci, y.d, y.ti, y.ts, y.tz, y.iv, y.tt, y.vb, y.nu, y.u, y.jb"
	const modified = "y.bp, y.vc, y.t3, y.i3, y.bi, y.n2"
	// What joins is as wide, or it would be moved instead.
	const wide = ", sum(length(concat_ws('|', x.t, x.c, x.js, x.jb, x.u, x.na, x.ts, x.tz, x.nu, x.mo, x.f4, x.f8, x.iv, x.t3, x.i3, x.n2, x.tt, x.ci, x.ne))) from v x join v y on x.id = y.k"
	sum := func(columns string) string { return "count(*), sum(hashtext(concat_ws('|', " + columns + "))::bigint)" }
	for _, sql := range []string{
		"select " + sum(own) + wide,
		"select " + sum(own+", "+modified) + wide,
		"select " + sum(own+", y.ar, y.bo") + wide,
		"select " + sum(own) + " from v y where random() < 2",
		"select " + sum(own+", "+modified) + " from v y where random() < 2",
		"select count(*), sum(p.id + n.k + gp_portions.id) from v p join v n on p.id = n.k join v gp_portions on gp_portions.id = n.k where random() < 2",
		"select count(*), sum(length(p.t)), sum(length(n.t)) from v p join v n on p.id = n.k",
		"select min(y.c), max(y.t), count(distinct y.t), sum(y.n2) from v x join v y on x.id = y.k where y.t >= 'a'",
	} {
		if want, got := testkit.Value(t, plain, sql), testkit.Value(t, conn, sql); want != got {
			t.Errorf("%s: %s; PostgreSQL: %s", sql, got, want)
		}
	}
	types := func(conn *pgx.Conn) (out []string) {
		t.Helper()
		testkit.Exec(t, conn, "begin; declare c cursor for select "+own+", "+modified+" from v y where random() < 2")
		res, err := conn.PgConn().Exec(t.Context(), "fetch 1 from c").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range res[0].FieldDescriptions {
			out = append(out, fmt.Sprintf("%s %d %d", f.Name, f.DataTypeOID, f.TypeModifier))
		}
		testkit.Exec(t, conn, "rollback")
		return out
	}
	if want, got := types(plain), types(conn); !slices.Equal(want, got) {
		t.Errorf("a cursor has the types %v; PostgreSQL: %v", got, want)
	}
}
