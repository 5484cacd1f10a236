package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

const closedEarly = "interconnect error: connection closed prematurely"

func TestBetterError(t *testing.T) {
	cancelled := context.Canceled
	bare := &motion.Error{Code: motion.CodeInterconnect, Message: closedEarly}
	named := &motion.Error{Code: motion.CodeInterconnect, Message: closedEarly, Detail: "seg1 is gone"}
	consequence := &pgconn.PgError{Code: motion.CodeInterconnect, Message: closedEarly + " (seg0 slice1 127.0.0.1:1 pid=2)", Detail: "from the coordinator"}
	writing := &pgconn.PgError{Code: motion.CodeInterconnect, Message: "interconnect error writing an outgoing packet: broken pipe", Detail: "for the coordinator"}
	caused := &pgconn.PgError{Code: motion.CodeInterconnect, Message: closedEarly + ": the proxy of seg1 is gone"}
	aborted := &pgconn.PgError{Code: "25P02", Message: "current transaction is aborted"}
	own := &pgconn.PgError{Code: "22012", Message: "division by zero"}
	for _, tc := range []struct{ a, b, want error }{
		{nil, nil, nil}, {nil, cancelled, cancelled}, {cancelled, nil, cancelled}, {cancelled, bare, bare}, {bare, named, named},
		{named, bare, named}, {named, own, own}, {own, named, own}, {own, cancelled, own}, {cancelled, own, own},
		{named, consequence, named}, {named, writing, named}, {named, caused, caused}, {caused, consequence, caused}, {caused, own, own},
		{aborted, bare, bare}, {caused, aborted, caused},
	} {
		if got := betterError(tc.a, tc.b); got != tc.want {
			t.Errorf("betterError(%v, %v) = %v, expected %v", tc.a, tc.b, got, tc.want)
		}
	}
}

// TestAwait: executors have a moment to say why a motion broke off, and no
// time is lost where the reason is known.
func TestAwait(t *testing.T) {
	bare := &motion.Error{Code: motion.CodeInterconnect, Message: closedEarly, Detail: "from seg1"}
	for _, tc := range []struct {
		err          error
		report, want time.Duration
	}{
		{bare, 100 * time.Millisecond, 100 * time.Millisecond},
		{bare, time.Hour, reportLimit},
		{&motion.Error{Code: motion.CodeInterconnect, Message: closedEarly + ": the proxy of seg1 is gone"}, time.Hour, 0},
		{&motion.Error{Code: "57014"}, time.Hour, 0},
		{io.ErrUnexpectedEOF, time.Hour, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tc.report)
			defer cancel()
			start := time.Now()
			await(ctx, tc.err)
			if d := time.Since(start); d != tc.want {
				t.Errorf("%v: %v, want %v", tc.err, d, tc.want)
			}
		})
	}
}

func TestPgError(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code string
	}{
		{&pgconn.PgError{Code: "12345"}, "12345"},
		{fmt.Errorf("around: %w", &pgconn.PgError{Code: "12345"}), "12345"},
		{&motion.Error{Code: "58M01"}, "58M01"},
		{guc.ErrCannotSet("x", guc.Backend), "55P02"},
		{&plan.Error{Code: "0A000", Position: 3}, "0A000"},
		{context.Canceled, "57014"},
		{errors.New("other"), "XX000"},
	} {
		if got := pgError(tc.err); got.Code != tc.code {
			t.Errorf("pgError(%v) has SQLSTATE %s, expected %s", tc.err, got.Code, tc.code)
		}
	}
}

func TestShiftPosition(t *testing.T) {
	err := &pgconn.PgError{Code: "42601", Position: 3}
	if got := pgError(shiftPosition(err, 10)); got.Position != 13 || err.Position != 3 {
		t.Errorf("position %d, and the error itself now says %d", got.Position, err.Position)
	}
	if got := shiftPosition(err, 0); got != error(err) {
		t.Error("nothing to shift, another error")
	}
	if got := pgError(shiftPosition(errors.New("x"), 5)); got.Position != 0 {
		t.Errorf("an error without position got %d", got.Position)
	}
}

func TestSplitSettings(t *testing.T) {
	client := func(options ...string) *auth.Client {
		c := &auth.Client{}
		for i := 0; i < len(options); i += 2 {
			c.Settings = append(c.Settings, auth.Option{Name: options[i], Value: options[i+1]})
		}
		return c
	}
	st, err := splitSettings(client("work_mem", "5MB", "GP_Interconnect_Type", "PROXY", "application_name", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"work_mem": "5MB", "application_name": "x", gucPrefix + "gp_interconnect_type": "proxy"}, st.local); diff != "" {
		t.Error(diff)
	}
	if st.utility {
		t.Error("not asked for utility mode")
	}
	for _, name := range []string{"gp_role", "gp_session_role"} {
		if st, err = splitSettings(client(name, "utility")); err != nil || !st.utility {
			t.Errorf("%s=utility: %+v, %v", name, st, err)
		}
	}
	for _, tc := range []struct{ name, value, code string }{
		{"gp_interconnect_type", "nix", "22023"},
		{"gp_interconnect_proxy_addresses", "1:-1:a:1", "55P02"},
	} {
		if _, err := splitSettings(client(tc.name, tc.value)); err == nil || pgError(err).Code != tc.code {
			t.Errorf("%s=%s: %v, expected %s", tc.name, tc.value, err, tc.code)
		}
	}
}

func TestSettingsDiff(t *testing.T) {
	type m = map[string]string
	for _, tc := range []struct {
		name        string
		before, now m
		lost        bool
		reset       string
		set         m
	}{
		{"nothing", m{}, m{}, false, "", m{}},
		{"same", m{"a": "1"}, m{"a": "1"}, false, "", m{}},
		{"new", m{}, m{"a": "1"}, false, "", m{"a": "1"}},
		{"other", m{"a": "1", "b": "2"}, m{"a": "2", "b": "2"}, false, "", m{"a": "2"}},
		{"gone", m{"a": "1", "b": "2"}, m{}, false, `RESET "a";RESET "b";`, m{}},
		{"role", m{}, m{"role": "joe"}, false, "", m{"role": "joe"}},
		{"role gone", m{"role": "joe", "a": "1"}, m{}, false, `RESET role;RESET "a";`, m{}},
		{"role the same", m{"role": "joe"}, m{"role": "joe", "a": "1"}, false, "", m{"a": "1"}},
		{"other role", m{"role": "joe"}, m{"role": "ann"}, false, "RESET role;", m{"role": "ann"}},
		{"lost", m{"role": "joe", "a": "1", "b": "1"}, m{"role": "joe", "a": "1"}, true,
			`RESET role;RESET session_authorization;RESET "b";`, m{"role": "joe", "a": "1"}},
		{"user", m{}, m{"session_authorization": "joe", "role": "ann"}, false, "", m{"session_authorization": "joe", "role": "ann"}},
	} {
		reset, set := settingsDiff(tc.before, tc.now, tc.lost)
		if reset != tc.reset {
			t.Errorf("%s: reset %q, expected %q", tc.name, reset, tc.reset)
		}
		if diff := cmp.Diff(tc.set, set); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func parsed(t *testing.T, sql string) *pg.Node {
	t.Helper()
	n, err := parseOne(sql)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func deparsed(t *testing.T, n *pg.Node) string {
	t.Helper()
	sql, err := plan.Deparse(n)
	if err != nil {
		t.Fatal(err)
	}
	return sql
}

func TestReplaceParams(t *testing.T) {
	value := func(sql string) *pg.Node {
		return parsed(t, "SELECT "+sql).GetSelectStmt().TargetList[0].GetResTarget().Val
	}
	n := parsed(t, "SELECT $1, $2 + (SELECT $1 FROM t WHERE a = $3) FROM (VALUES ($2)) v WHERE b IN ($1, $2)")
	replaceParams(n, []*pg.Node{value("'x'"), value("2")})
	want := deparsed(t, parsed(t, "SELECT 'x', 2 + (SELECT 'x' FROM t WHERE a = $3) FROM (VALUES (2)) v WHERE b IN ('x', 2)"))
	if got := deparsed(t, n); got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
}

func TestAssumeUser(t *testing.T) {
	n := parsed(t, "SELECT current_user, current_date FROM t WHERE owner = (SELECT session_user) OR x = user OR y = current_role")
	assumeUser(n)
	const u = "'user'::pg_catalog.name"
	want := deparsed(t, parsed(t, "SELECT "+u+", current_date FROM t WHERE owner = (SELECT "+u+") OR x = "+u+" OR y = "+u))
	if got := deparsed(t, n); got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
}

func TestSettingValue(t *testing.T) {
	for sql, want := range map[string]string{
		"SET a = 1": "1", "SET a = 1.5": "1.5", "SET a = 'x y'": "x y", "SET a TO b, 'c'": "b, c", "SET a = on": "on", "SET a = -1": "-1",
		"SET a = true": "true",
	} {
		if got := settingValue(parsed(t, sql).GetVariableSetStmt().Args); got != want {
			t.Errorf("%s: %q, expected %q", sql, got, want)
		}
	}
}

func TestExplainPrefix(t *testing.T) {
	for sql, want := range map[string]struct {
		prefix  string
		analyze bool
	}{
		"EXPLAIN SELECT 1":                               {"EXPLAIN ", false},
		"EXPLAIN ANALYZE SELECT 1":                       {"EXPLAIN (analyze) ", true},
		"EXPLAIN (ANALYZE off) SELECT 1":                 {"EXPLAIN (analyze off) ", false},
		"EXPLAIN (analyze, costs off, verbose) SELECT 1": {"EXPLAIN (analyze, costs off, verbose) ", true},
	} {
		prefix, analyze, err := explainPrefix(parsed(t, sql).GetExplainStmt())
		if err != nil || prefix != want.prefix || analyze != want.analyze {
			t.Errorf("%s: %q, %v, %v", sql, prefix, analyze, err)
		}
	}
}

func TestCopyOption(t *testing.T) {
	st := parsed(t, "COPY t FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', FREEZE off)").GetCopyStmt()
	for name, want := range map[string]string{"format": "csv", "header": "true", "delimiter": ";", "freeze": "off"} {
		if got, ok := copyOption(st, name); !ok || got != want {
			t.Errorf("%s: %q, %v; expected %q", name, got, ok, want)
		}
	}
	if _, ok := copyOption(st, "null"); ok {
		t.Error("null is not there")
	}
}

// TestMessageReader reads messages in any cut without reading beyond the one
// that is read.
func TestMessageReader(t *testing.T) {
	var stream []byte
	var want []string
	for i := range 50 {
		m := &pgproto3.DataRow{Values: [][]byte{bytes.Repeat([]byte{'x'}, i*i*40)}}
		want = append(want, string(m.Values[0]))
		stream, _ = m.Encode(stream)
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r },
		"halves": iotest.HalfReader, "bytes": iotest.OneByteReader} {
		r := newMessageReader(wrap(bytes.NewReader(stream)))
		fe := pgproto3.NewFrontend(r, io.Discard)
		for i := range want {
			if err := r.wait(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m, err := fe.Receive()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := string(m.(*pgproto3.DataRow).Values[0]); got != want[i] {
				t.Fatalf("%s: message %d has %d bytes, expected %d", name, i, len(got), len(want[i]))
			}
			if r.left != 0 {
				t.Fatalf("%s: %d bytes of a message are left", name, r.left)
			}
		}
		if err := r.wait(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	if err := newMessageReader(bytes.NewReader([]byte{'D', 0, 0, 0, 3})).wait(); err == nil {
		t.Error("a length of 3 was accepted")
	}
}

// FuzzMessageReader reads nonsense: whatever it says it waits for no more than
// is there, and never reads across a message's end.
func FuzzMessageReader(f *testing.F) {
	f.Add([]byte{'D', 0, 0, 0, 6, 0, 0, 'Z', 0, 0, 0, 5, 'I'})
	f.Add([]byte{'D', 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newMessageReader(bytes.NewReader(data))
		buf := make([]byte, 7)
		var got []byte
		for {
			before := r.left
			n, err := r.Read(buf)
			if before > 0 && n > before {
				t.Fatalf("read %d bytes of a message that had %d left", n, before)
			}
			got = append(got, buf[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.HasPrefix(data, got) {
			t.Fatalf("%q is not the beginning of %q", got, data)
		}
	})
}

func TestAppendRowBody(t *testing.T) {
	body := appendRowBody(nil, [][]byte{[]byte("ab"), nil, {}})
	if n := binary.BigEndian.Uint16(body); n != 3 {
		t.Fatalf("%d columns", n)
	}
	msg, err := rowBody(body).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &pgproto3.DataRow{}
	if err := m.Decode(msg[5:]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]byte{[]byte("ab"), nil, {}}, m.Values); diff != "" {
		t.Error(diff)
	}
	v, rest := field(body[2:])
	if string(v) != "ab" {
		t.Errorf("first field %q", v)
	}
	if v, rest = field(rest); v != nil {
		t.Errorf("null is %q", v)
	}
	if v, rest = field(rest); v == nil || len(v) != 0 || len(rest) != 0 {
		t.Errorf("the empty field is %q, %d bytes follow", v, len(rest))
	}
}

func TestKnownLimits(t *testing.T) {
	params := []dispatch.Param{
		{Value: []byte("7")}, {Value: []byte{0, 0, 0, 0, 0, 0, 1, 0}, Format: 1}, {Value: []byte{0, 0, 0, 9}, Format: 1}, {},
		{Value: []byte("-1")}, {Value: []byte("2147483648")}, {Value: []byte("7")}, {Value: []byte{0, 0, 0, 1, 0, 0, 0, 0}, Format: 1}, {Value: []byte{9}, Format: 1},
	}
	types := []uint32{20, 20, 23, 20, 20, 20, 1700, 20, 20}
	const q = "SELECT i FROM t WHERE i > $1 ORDER BY i"
	for _, tc := range [][2]string{
		{" LIMIT $1", " LIMIT 7"},
		{" LIMIT $2 OFFSET $3", " LIMIT 256 OFFSET 9"},
		{" LIMIT $1::bigint OFFSET $4", " LIMIT 7::bigint OFFSET $4"}, // NULL
		{" LIMIT $5 OFFSET $6", " LIMIT $5 OFFSET $6"},                // out of range
		{" LIMIT $7 OFFSET $8", " LIMIT $7 OFFSET $8"},                // of another type, out of range
		{" LIMIT $9 OFFSET $10", " LIMIT $9 OFFSET $10"},              // not in the form of the type, missing
		{" LIMIT $1 + 1 OFFSET 3", " LIMIT $1 + 1 OFFSET 3"},
		{" LIMIT ALL", " LIMIT ALL"},
		{"", ""},
	} {
		n, err := parseOne(q + tc[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := plan.Deparse(knownLimits(n, params, types))
		if err != nil || got != q+tc[1] {
			t.Errorf("%s: %s, %v", tc[0], got, err)
		}
		if before, err := plan.Deparse(n); err != nil || before != q+tc[0] {
			t.Errorf("%s has become %s, %v", tc[0], before, err)
		}
	}
}

// TestDispatched: executors hear what catalog a slice was made for, or they would
// parse it each time.
func TestDispatched(t *testing.T) {
	var s Session
	s.cache.reset(6)
	for _, d := range s.dispatched([]plan.Slice{{SQL: "SELECT 1"}, {SQL: "SELECT 2"}}, nil) {
		if d.Prepared != 7 {
			t.Errorf("%s: version %d of the catalog", d.SQL, d.Prepared)
		}
	}
}
