package auth

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func mustHBA(t testing.TB, text string) *HBA {
	t.Helper()
	h, err := ParseHBA("pg_hba.conf", text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestParseHBAErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                                      "contains no entries",
		"# only a comment":                      "contains no entries",
		"remote all all trust":                  `invalid connection type "remote"`,
		"local,host all all trust":              "multiple values specified for connection type",
		"local":                                 "end-of-line before database specification",
		"local all":                             "end-of-line before role specification",
		"local all all":                         "end-of-line before authentication method",
		"host all all":                          "end-of-line before IP address specification",
		"host all all 10.0.0.1":                 "end-of-line before netmask specification",
		"host all all 10.0.0.1 trust":           `invalid IP mask "trust"`,
		"host all all 10.0.0.1 ffff:: trust":    "IP address and mask do not match",
		"host all all 10.0.0.0/33 trust":        `invalid CIDR mask in address "10.0.0.0/33"`,
		"host all all 10.0.0.0/ trust":          "invalid CIDR mask",
		"host all all example.org/8 trust":      "specifying both host name and CIDR mask is invalid",
		"host all all all peer":                 "peer authentication is only supported on local sockets",
		"host all all all cert":                 "cert authentication is only supported on hostssl connections",
		"local all all gss":                     "gssapi authentication is not supported on local sockets",
		"local all all sesame":                  `invalid authentication method "sesame"`,
		"local all all trust,md5":               "multiple values specified for authentication type",
		"local all all trust x":                 "authentication option not in name=value format: x",
		"local all all trust map=x":             `"map" is only valid for`,
		"local all all md5 colour=blue":         `unrecognized authentication option name: "colour"`,
		"host all all all md5 clientcert=1":     `clientcert can only be configured for "hostssl" rows`,
		"hostssl all all all md5 clientcert=1":  `invalid value for clientcert: "1"`,
		"local @dbs all trust":                  "file inclusion with @ is not supported",
		"local " + strings.Repeat("x", 20000):   "authentication file token too long",
		"local all all trust\nlocal all all\n#": "line 2 of pg_hba.conf: end-of-line before authentication method",
	} {
		_, err := ParseHBA("pg_hba.conf", line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %s", line, err, want)
		}
	}
	_, err := ParseHBA("f", "x\nlocal all all trust\ny")
	if err == nil || !strings.Contains(err.Error(), "line 1 of f") || !strings.Contains(err.Error(), "line 3 of f") {
		t.Errorf("not all bad lines are told of: %v", err)
	}
}

func TestHBALines(t *testing.T) {
	h := mustHBA(t, "# head\r\n\r\nlocal all \\\r\n  all ident\r\n\n"+
		"host \"a b\",c, d  all 10.0.0.0 255.0.0.0 ldap ldapserver=x,ldapport=1 \"ldapprefix=c n\" # tail\n#local")
	var got []string
	for _, r := range h.Rules() {
		got = append(got, fmt.Sprintln(r.Number, r.Type, r.Method, r.Options, r.databases))
	}
	want := []string{
		"3 local peer [] [{all false}]",
		"6 host ldap [{ldapserver x} {ldapport 1} {ldapprefix c n}] [{a b true} {c false} {d false}]",
	}
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i]), " ")
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestHBATokens(t *testing.T) {
	for line, want := range map[string]string{
		`a b`:                   "a|b",
		`a,b c`:                 "a,b|c",
		`a , b c`:               "a|b|c", // the blank ends the field, the comma is skipped
		`a, b c`:                "a,b|c",
		`"a b",c`:               "'a b',c",
		`"all"`:                 "'all'",
		`a"b c"d`:               "ab cd",
		`"quo""te"`:             `'quo"te'`,
		`""`:                    "''",
		`a #b`:                  "a",
		`a#b`:                   "a",
		`"a#b"`:                 "'a#b'",
		"\ta\t\tb\r":            "a|b",
		`"open quote to the en`: "'open quote to the en'",
		`,a`:                    "a",
	} {
		fields, err := splitFields(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		var got []string
		for _, f := range fields {
			var words []string
			for _, w := range f {
				if w.quoted {
					w.text = "'" + w.text + "'"
				}
				words = append(words, w.text)
			}
			got = append(got, strings.Join(words, ","))
		}
		if g := strings.Join(got, "|"); g != want {
			t.Errorf("%s: %s; want %s", line, g, want)
		}
	}
}

func TestHBAMatch(t *testing.T) {
	h := mustHBA(t, `# TYPE DATABASE USER ADDRESS METHOD
local     replication  all                                 reject
local     sameuser     all                                 peer
local     samerole     all                                 md5
local     "all"        all                                 password
local     d1,d2        +staff,carol                        trust
local     all          "+plus"                             scram-sha-256
host      replication  repl      127.0.0.1/32              trust
hostssl   all          all       10.1.0.0/16               cert
hostnossl all          all       10.1.0.0      255.255.0.0 md5
hostgssenc all         all       all                       gss
host      all          mask      10.2.0.3      255.0.0.255 trust
host      all          all       fd00::/8                  trust
host      self         all       samehost                  trust
host      net          all       samenet                   trust
host      all          all       .example.invalid          trust
host      any          all       all                       reject
host      zero         all       0.0.0.0/0                 trust
`)
	member := func(_ context.Context, user, role string) (bool, error) {
		return user == role || role == "staff" && user == "bob", nil
	}
	for _, c := range []struct {
		addr, db, user string
		ssl            bool
		repl           Replication
		line           int // 0: none
	}{
		{"", "x", "x", false, PhysicalReplication, 2},
		{"", "replication", "bob", false, NoReplication, 0},
		{"", "bob", "bob", false, NoReplication, 3},
		{"", "bob", "bob", false, LogicalReplication, 3},
		{"", "staff", "bob", false, NoReplication, 4},
		{"", "staff", "carol", false, NoReplication, 0},
		{"", "all", "x", false, NoReplication, 5},
		{"", "d1", "bob", false, NoReplication, 6},
		{"", "d2", "staff", false, NoReplication, 6},
		{"", "d2", "carol", false, NoReplication, 6},
		{"", "d2", "dave", false, NoReplication, 0},
		{"", "d3", "+plus", false, NoReplication, 7},
		{"127.0.0.1", "", "repl", false, PhysicalReplication, 8},
		{"127.0.0.1", "repl", "repl", false, NoReplication, 0},
		{"10.1.2.3", "x", "y", true, NoReplication, 9},
		{"10.1.2.3", "x", "y", false, NoReplication, 10},
		{"10.9.9.3", "x", "mask", false, NoReplication, 12},
		{"10.9.9.4", "x", "mask", false, NoReplication, 0},
		{"fd12::1", "x", "y", true, NoReplication, 13},
		{"fe12::1", "x", "y", true, NoReplication, 0},
		{"127.0.0.1", "self", "y", false, NoReplication, 14},
		{"127.0.0.9", "self", "y", false, NoReplication, 0},
		{"127.0.0.9", "net", "y", false, NoReplication, 15},
		{"192.0.2.1", "any", "y", false, NoReplication, 17},
		{"192.0.2.1", "zero", "y", false, NoReplication, 18},
		{"2001:db8::1", "zero", "y", false, NoReplication, 0},
	} {
		req := request{user: c.user, database: c.db, ssl: c.ssl, replication: c.repl, memberOf: member}
		if c.addr == "" {
			req.local = true
		} else {
			req.addr = netip.MustParseAddr(c.addr)
			// No name server is asked in tests.
			req.names = &hostNames{}
		}
		r, err := h.match(t.Context(), &req)
		if err != nil {
			t.Fatal(err)
		}
		line := 0
		if r != nil {
			line = r.Number
		}
		if line != c.line {
			t.Errorf("%+v: line %d", c, line)
		}
	}
}

func TestHBAHostNames(t *testing.T) {
	h := mustHBA(t, "host all all db.example.org trust\nhost all all .Example.com trust")
	for host, want := range map[string]int{
		"DB.example.org": 1, "db.example.org.": 1, "x.db.example.org": 0,
		"a.b.example.com": 2, "example.com": 0, "badexample.com": 0,
	} {
		req := request{addr: netip.MustParseAddr("192.0.2.1"), names: &hostNames{
			reverse: []string{host},
			checked: map[string]bool{strings.TrimSuffix(host, "."): true},
		}}
		r, err := h.match(t.Context(), &req)
		if err != nil || (r == nil) != (want == 0) || r != nil && r.Number != want {
			t.Errorf("%s: %v, %v; want line %d", host, r, err, want)
		}
	}
	// A name that does not lead back does not count.
	req := request{addr: netip.MustParseAddr("192.0.2.1"), names: &hostNames{
		reverse: []string{"db.example.org"}, checked: map[string]bool{"db.example.org": false},
	}}
	if r, _ := h.match(t.Context(), &req); r != nil {
		t.Errorf("a forged name matched line %d", r.Number)
	}
	// localhost is in every hosts file.
	local := request{addr: netip.MustParseAddr("127.0.0.1")}
	if r, _ := mustHBA(t, "host all all localhost trust").match(t.Context(), &local); r == nil {
		t.Log("this machine does not name 127.0.0.1 localhost")
	}
}

func FuzzParseHBA(f *testing.F) {
	f.Add("local all all trust\nhost \"a\",b +c 10.0.0.0/8 md5\nhost all all ::1 ffff:: reject")
	f.Add("hostssl a \"b\"\"c\" .x.y cert map=z # c\\\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHBA("f", text)
		if (h == nil) == (err == nil) {
			t.Fatal("neither rules nor an error, or both")
		}
		if err != nil {
			return
		}
		req := request{user: "u", database: "d", addr: netip.MustParseAddr("127.0.0.1"), names: &hostNames{},
			memberOf: func(context.Context, string, string) (bool, error) { return false, nil }}
		if _, err := h.match(t.Context(), &req); err != nil {
			t.Fatal(err)
		}
	})
}
