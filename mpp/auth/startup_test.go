package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "[]",
		"  \t\n ":                              "[]",
		"-c gp_interconnect_type=proxy":        "[{gp_interconnect_type proxy}]",
		"-cgp_role=utility":                    "[{gp_role utility}]",
		"--search-path=a,b -c a=1 --work_mem=": "[{search_path a,b} {a 1} {work_mem }]",
		`-c a=x\ y\\z --b=\ `:                  `[{a x y\z} {b  }]`,
		`-c a=b\`:                              "[{a b}]",
		"-c a=b=c":                             "[{a b=c}]",
		"-c a-b.c-d=e-f":                       "[{a_b.c_d e-f}]",
		"-c a=1 --":                            "[{a 1}]",
		"-c":                                   "invalid command-line argument for server process: -c",
		"-c a":                                 "-c a requires a value",
		"--a":                                  "--a requires a value",
		"a=b":                                  "invalid command-line argument for server process: a=b",
		"-B 3":                                 "invalid command-line argument for server process: -B",
		"-- x":                                 "invalid command-line argument for server process: x",
	} {
		opts, err := ParseOptions(in)
		got := fmt.Sprint(opts)
		if err != nil {
			var r *Rejection
			if !errors.As(err, &r) || r.Code != "42601" {
				t.Errorf("%q: %v", in, err)
				continue
			}
			got = r.Message
		}
		if got != want {
			t.Errorf("%q: %s; want %s", in, got, want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add(`-c a=b --c-d=e\ f -cx=y`)
	f.Fuzz(func(t *testing.T, s string) {
		opts, err := ParseOptions(s)
		if err != nil {
			return
		}
		// Written out with escapes, they read the same again.
		var b strings.Builder
		for _, o := range opts {
			b.WriteString("-c ")
			for _, c := range []byte(o.Name + "=" + o.Value) {
				if isSpace(c) || c == '\\' {
					b.WriteByte('\\')
				}
				b.WriteByte(c)
			}
			b.WriteByte(' ')
		}
		again, err := ParseOptions(b.String())
		if err != nil || !slices.Equal(opts, again) {
			t.Fatalf("%q gave %v, then %v, %v", s, opts, again, err)
		}
	})
}

// startupBody makes the body of a startup message.
func startupBody(version uint32, pairs ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	for _, s := range pairs {
		b = append(append(b, s...), 0)
	}
	return append(b, 0)
}

func packet(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func TestParseStartup(t *testing.T) {
	s, err := parseStartup(startupBody(3<<16|9, "user", "u", "options", "-c a=1", "DateStyle", "ISO",
		"_pq_.x", "1", "application_name", "n", "replication", "off", "_pq_.y", ""))
	if err != nil {
		t.Fatal(err)
	}
	if s.user != "u" || s.database != "u" || s.minor != 9 || s.replication != NoReplication ||
		fmt.Sprint(s.options, s.settings, s.unrecognized) != "[{a 1}] [{DateStyle ISO} {application_name n}] [_pq_.x _pq_.y]" {
		t.Errorf("%+v", s)
	}
	if s.params["options"] != "-c a=1" || s.params["_pq_.x"] != "1" {
		t.Errorf("%v", s.params)
	}
	long := strings.Repeat("x", 100)
	s, err = parseStartup(startupBody(3<<16, "user", long, "database", long, "replication", "database"))
	if err != nil || len(s.user) != 63 || len(s.database) != 63 || s.replication != LogicalReplication {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = parseStartup(startupBody(3<<16, "user", "u", "options", "-c x")); err != nil || s.optionsErr == nil {
		t.Errorf("%+v, %v", s, err)
	}
	for want, body := range map[string][]byte{
		"08P01 invalid startup packet layout":                                 startupBody(3<<16, "user"),
		"08P01 invalid startup packet layout: expected terminator":            append(startupBody(3<<16, "user", "u"), 'x'),
		"08P01 invalid startup packet layout: expected terminator as last":    {0, 3, 0, 0},
		"0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.0": startupBody(2 << 16),
		"0A000 unsupported frontend protocol 1234.5679":                       startupBody(sslRequestCode),
		"28000 no PostgreSQL user name specified in startup packet":           startupBody(3<<16, "database", "d"),
		`22023 invalid value for parameter "replication": "maybe"`:            startupBody(3<<16, "user", "u", "replication", "maybe"),
	} {
		_, err := parseStartup(body)
		var r *Rejection
		if !errors.As(err, &r) || !strings.HasPrefix(r.Code+" "+r.Message, want) {
			t.Errorf("%q: %v; want %s", body, err, want)
		}
	}
}

// scripted is a connection on which the client has said everything at once.
type scripted struct {
	io.Reader
	out    bytes.Buffer
	addr   net.Addr
	closed bool
}

func (c *scripted) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *scripted) Close() error                     { c.closed = true; return nil }
func (c *scripted) LocalAddr() net.Addr              { return c.addr }
func (c *scripted) RemoteAddr() net.Addr             { return c.addr }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

func FuzzAccept(f *testing.F) {
	start := packet(startupBody(3<<16, "user", "alice", "database", "d"))
	f.Add("trust", start)
	f.Add("scram-sha-256", append(start, "p\x00\x00\x00\x2bSCRAM-SHA-256\x00\x00\x00\x00\x15n,,n=,r=abcdefghijklmnop\x00\x00\x00\x08x"...))
	f.Add("password", append(start, "p\x00\x00\x00\x09alpha\x00"...))
	f.Add("md5", append(packet(startupBody(sslRequestCode)[:4]), append(packet(startupBody(gssRequestCode)[:4]), start...)...))
	f.Add("md5", packet(append(startupBody(cancelRequestCode)[:4], 0, 0, 0, 1, 0, 0, 0, 2)))
	f.Add("reject", packet(startupBody(3<<16|2, "user", "alice", "_pq_.z", "1")))
	roles := testRoles(f)
	f.Fuzz(func(t *testing.T, method string, said []byte) {
		hba, err := ParseHBA("f", "host all all all "+method)
		if err != nil || strings.Contains(method, "\n") {
			return
		}
		conn := &scripted{Reader: bytes.NewReader(said), addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}}
		c, err := New(roles.config(hba)).Accept(t.Context(), conn)
		if (c == nil) == (err == nil) || (c == nil) != conn.closed {
			t.Fatalf("client %v, error %v, closed %v", c, err, conn.closed)
		}
		if c != nil && (method != "trust" && !strings.HasPrefix(method, "password") || c.User == "") {
			// Nobody proves anything by chance under the other methods.
			if hba.rules[0].Method != "trust" && hba.rules[0].Method != "password" {
				t.Fatalf("%s let %q in", method, c.User)
			}
		}
		var r *Rejection
		if errors.As(err, &r) && !bytes.Contains(conn.out.Bytes(), []byte("FATAL\x00")) {
			t.Fatalf("rejected without a word: %v", err)
		}
	})
}
