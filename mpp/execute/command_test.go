package execute

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/motion"
)

func TestCommandRoundTrip(t *testing.T) {
	want := &Command{
		Op: OpOpen, Begin: "BEGIN READ ONLY", Command: 7,
		Slices: []Slice{
			{Index: 1, SQL: "SELECT '<é>' WHERE $1 IS NULL", Params: []Param{{OID: 23, Format: 1, Value: []byte{0, 255}}, {OID: 25}, {Value: []byte{}}}, ResultFormats: []int16{1}},
			{Index: 2, SQL: "COPY t TO STDOUT", Copy: true},
		},
		Run: &Run{Slice: 2, RecvSlice: 0, Receivers: []motion.Peer{{Content: -1, Dbid: 1, Pid: 4242, Addr: "127.0.0.1:99"}}},
	}
	q, err := want.Query()
	if err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(q, Marker)
	if !ok || strings.ContainsRune(text, 0) {
		t.Fatalf("query %q", q)
	}
	got, err := ParseCommand([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.Slices[0].Params[1].Value != nil || got.Slices[0].Params[2].Value == nil {
		t.Error("NULL and the empty value are mixed up")
	}
}

func TestCommandErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                "its number",
		`-1 {}`:           "its number",
		`1`:               "unexpected end",
		`1 {"op":"x"}`:    "unknown operation",
		`1 {"op":"open"}`: "no slices",
		`1 {"op":"open","slices":[{"index":1,"sql":"a"},{"index":1,"sql":"b"}]}`:                          "slice 1 is there twice",
		`1 {"op":"open","slices":[{"index":1,"sql":"a\u0000b"}]}`:                                         "zero byte",
		`1 {"op":"open","slices":[{"index":1,"sql":"a"}],"run":{"slice":2,"receivers":[{}]}}`:             "slice 2 is to run",
		`1 {"op":"open","slices":[{"index":1,"sql":"a"}],"run":{"slice":1}}`:                              "no receivers",
		`1 {"op":"open","slices":[{"index":1,"sql":"a"}],"short":true}`:                                   "one slice that is run",
		`1 {"op":"open","slices":[{"index":1,"sql":"a"}],"run":{"slice":1,"receivers":[{}]},"idle":true}`: "slices that are not run",
		`1 {"op":"open","slices":[{"index":1,"sql":"a","writes":true,"count":true}]}`:                     "it writes and has rows to send",
		`1 {"op":"open","slices":[{"index":1,"sql":"a","writes":true,"data":"t"}]}`:                       "its data is not one of its inputs",
		`1 {"op":"run"}`:                   "no slice to run",
		`1 {"op":"close","begin":"BEGIN"}`: "not opened",
	} {
		if _, err := ParseCommand([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestCommandAgain: a command that comes again is the same, but for its number.
func TestCommandAgain(t *testing.T) {
	var p parser
	read := Slice{Index: 1, SQL: "SELECT 1", Read: &Read{Owner: "o", Table: "t"}}
	for i, c := range []Command{
		{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT 1"}}},
		{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT 1"}}},
		{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT 2"}}},
		{Op: OpClose},
		{Op: OpOpen, Slices: []Slice{read}},
		{Op: OpOpen, Slices: []Slice{read}},
		{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: strings.Repeat("x", longestKept)}}},
		{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT 1"}}},
	} {
		c.Command = uint32(i + 1)
		q, err := c.Query()
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.parse([]byte(q[len(Marker):]))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&c, got); d != "" {
			t.Errorf("command %d: %s", i+1, d)
		}
		// As newPass does: the next one must not see it.
		for k := range got.Slices {
			if s := &got.Slices[k]; s.Read != nil {
				s.Params = append(s.Params, Param{OID: 25})
			}
		}
	}
}

func TestReadOnly(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1": true, " (select 1)": true, "SELECT*FROM t": true, "values (1)": true, "TABLE t": true,
		"COPY t TO STDOUT": true, "COPY (DELETE FROM t RETURNING *) TO STDOUT": false,
		"WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x": false, "INSERT INTO t VALUES (1)": false, "": false, "SELECTED": false,
	} {
		if readOnly(sql) != want {
			t.Errorf("readOnly(%q) is not %v", sql, want)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte(`7 {"op":"open","begin":"BEGIN","slices":[{"index":1,"sql":"SELECT 1","params":[{"oid":23,"value":"AA=="}]}],"run":{"slice":1,"receivers":[{"Content":-1}]}}`))
	f.Add([]byte(`1 {"op":"close"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCommand(b)
		if err != nil {
			return
		}
		q, err := c.Query()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseCommand([]byte(q[len(Marker):]))
		if err != nil {
			t.Fatalf("%q: %v", q, err)
		}
		if q2, _ := again.Query(); q2 != q {
			t.Fatalf("%q became %q", q, q2)
		}
	})
}

// FuzzReader cuts a stream into messages, however the bytes arrive.
func FuzzReader(f *testing.F) {
	f.Add([]byte("Z\x00\x00\x00\x05IN\x00\x00\x00\x04"), uint8(3))
	f.Add([]byte("D\xff\xff\xff\xff"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		r := &reader{r: &stepReader{b: b, n: int(step)%7 + 1}, buf: make([]byte, 8)}
		rest := b
		for {
			m, err := r.next()
			if err != nil {
				if n, merr := messageLen(rest); merr == nil && n > 0 && n <= len(rest) {
					t.Fatalf("a whole message was not returned: %v", err)
				}
				return
			}
			if len(m) < 5 || !bytes.HasPrefix(rest, m) || int(binary.BigEndian.Uint32(m[1:]))+1 != len(m) {
				t.Fatalf("message %q of %q", m, rest)
			}
			rest = rest[len(m):]
		}
	})
}

type stepReader struct {
	b []byte
	n int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(r.n, len(p))], r.b)
	r.b = r.b[n:]
	return n, nil
}

func TestReaderShrinks(t *testing.T) {
	big, _ := (&pgproto3.CopyData{Data: make([]byte, 1<<20)}).Encode(nil)
	small, _ := (&pgproto3.Sync{}).Encode(nil)
	r := newReader(iotest.OneByteReader(bytes.NewReader(small)))
	r.r = io.MultiReader(bytes.NewReader(big), r.r)
	if m, err := r.next(); err != nil || len(m) != len(big) {
		t.Fatal(len(m), err)
	}
	if m, err := r.next(); err != nil || !bytes.Equal(m, small) {
		t.Fatal(m, err)
	}
	if len(r.buf) > 4*readBuffer {
		t.Errorf("the buffer still has %d bytes", len(r.buf))
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadStartup(f *testing.F) {
	startup, _ := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "x"}}).Encode(nil)
	ssl, _ := (&pgproto3.SSLRequest{}).Encode(nil)
	cancel, _ := (&pgproto3.CancelRequest{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}}).Encode(nil)
	f.Add(startup)
	f.Add(append(ssl, startup...))
	f.Add(cancel)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readStartup(&fakeConn{r: bytes.NewReader(b)})
		if (m == nil) == (err == nil) && err == nil {
			t.Fatal("neither message nor error")
		}
	})
}

type fakeConn struct {
	net.Conn
	r io.Reader
}

func (c *fakeConn) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *fakeConn) Write(b []byte) (int, error) { return len(b), nil }
func (c *fakeConn) SetDeadline(time.Time) error { return nil }

func TestErrorField(t *testing.T) {
	body := []byte("SERROR\x00VERROR\x00C42601\x00Msyntax VFATAL\x00\x00")
	if v := errorField(body, 'V'); v != "ERROR" {
		t.Errorf("V is %q", v)
	}
	if v := errorField(body, 'M'); v != "syntax VFATAL" {
		t.Errorf("M is %q", v)
	}
	if v := errorField([]byte("C42"), 'C'); v != "" {
		t.Errorf("cut field is %q", v)
	}
}
