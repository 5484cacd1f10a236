package auth

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// startPostgres starts a PostgreSQL server on a TCP port too, with roles and
// databases to log in with.
func startPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	port, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	return pgtest.Start(t, "listen_addresses=127.0.0.1", "port="+strconv.Itoa(port))
}

// TestLoginAgainstPostgreSQL lets psql log in to PostgreSQL and to us with
// the same roles and the same pg_hba.conf, and holds both answers equal.
func TestLoginAgainstPostgreSQL(t *testing.T) {
	pg := startPostgres(t)
	conn := pg.Connect(t)
	for _, sql := range []string{
		"CREATE ROLE alice LOGIN PASSWORD 'alice-secret'",
		"CREATE ROLE nologin PASSWORD 'nologin-secret'",
		"CREATE ROLE empty LOGIN",
		"CREATE ROLE expired LOGIN PASSWORD 'expired-secret' VALID UNTIL '2001-01-01'",
		`CREATE ROLE "Ümlaut q""x" LOGIN PASSWORD 'pässwörd ½'`,
		"SET password_encryption = md5",
		"CREATE ROLE mona LOGIN PASSWORD 'mona-secret'",
		"CREATE ROLE staff ROLE alice",
		"CREATE ROLE boss ROLE staff",
		"CREATE DATABASE staff",
		"CREATE DATABASE alice",
		`CREATE DATABASE "db 1"`,
	} {
		pgtest.Query(t, conn, sql)
	}
	const text = `local all gpadmin trust
local "db 1" all md5
local all +boss scram-sha-256
local all all peer
hostssl all all all trust
host sameuser all 127.0.0.1/32 password
host samerole all 127.0.0.1/32 scram-sha-256
host "db 1" "Ümlaut q""x",alice 127.0.0.1/32 scram-sha-256
host "db 1" mona,empty,nologin,expired,ghost 127.0.0.1 255.255.255.0 md5
host postgres alice 127.0.0.1/32 reject
host postgres ghost,nologin 127.0.0.1/32 trust
`
	if err := os.WriteFile(filepath.Join(pg.Data, "pg_hba.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pgtest.Query(t, conn, "SELECT pg_reload_conf()")

	// Several clients may log in at once, but conn is one.
	var mu sync.Mutex
	ask := func(sql string, args ...string) [][][]byte {
		mu.Lock()
		defer mu.Unlock()
		params := make([][]byte, len(args))
		for i, a := range args {
			params[i] = []byte(a)
		}
		res := conn.ExecParams(context.Background(), sql, params, nil, nil, nil).Read()
		if res.Err != nil {
			t.Error(res.Err)
		}
		return res.Rows
	}
	hba := mustHBA(t, text)
	s := startServer(t, Config{
		HBA: func() (*HBA, error) { return hba, nil },
		Verifier: func(_ context.Context, user string) (string, bool, bool, error) {
			rows := ask("SELECT CASE WHEN rolvaliduntil < now() THEN '' ELSE coalesce(rolpassword,'') END, rolcanlogin FROM pg_authid WHERE rolname = $1", user)
			if len(rows) == 0 {
				return "", false, false, nil
			}
			return string(rows[0][0]), true, string(rows[0][1]) == "t", nil
		},
		MemberOf: func(_ context.Context, user, role string) (bool, error) {
			rows := ask(`WITH RECURSIVE m(oid) AS (SELECT oid FROM pg_roles WHERE rolname = $1 UNION
				SELECT roleid FROM pg_auth_members JOIN m ON member = m.oid)
				SELECT 1 FROM m JOIN pg_roles r USING (oid) WHERE rolname = $2`, user, role)
			return len(rows) > 0, nil
		},
	})
	theirs := &server{dir: pg.Dir, port: pg.Port}

	for _, c := range []struct{ db, user, password, options string }{
		{"postgres", "gpadmin", "", ""},
		{"db 1", "alice", "alice-secret", ""},
		{"db 1", "alice", "wrong", ""},
		{"db 1", "alice", "", ""},
		{"db 1", "mona", "mona-secret", ""},
		{"db 1", "mona", "wrong", ""},
		{"db 1", "empty", "x", ""},
		{"db 1", "expired", "expired-secret", ""},
		{"db 1", "nologin", "nologin-secret", ""},
		{"db 1", "nologin", "wrong", ""},
		{"db 1", "ghost", "x", ""},
		{"db 1", `Ümlaut q"x`, "pässwörd 1⁄2", ""},
		{"db 1", `Ümlaut q"x`, "passwörd 1⁄2", ""},
		{"alice", "alice", "alice-secret", ""},
		{"alice", "alice", "wrong", ""},
		{"staff", "alice", "alice-secret", ""},
		{"staff", "alice", "wrong", ""},
		{"staff", "mona", "mona-secret", ""},
		{"postgres", "alice", "alice-secret", ""},
		{"postgres", "mona", "mona-secret", ""},
		{"postgres", "ghost", "x", ""},
		{"postgres", "nologin", "x", ""},
		{"mona", "mona", "x", ""},
		{strings.Repeat("n", 80), "mona", "x", ""},
		{"alice", "alice", "alice-secret", `-c work_mem=65kB --search-path=a,\ b -cDateStyle=ISO --`},
		{"alice", "alice", "alice-secret", "-c work_mem"},
		{"alice", "alice", "alice-secret", "--work-mem"},
		{"alice", "alice", "alice-secret", "stray"},
		{"alice", "alice", "alice-secret", "-- stray"},
	} {
		for _, unix := range []bool{true, false} {
			answer := func(s *server) string {
				host := "127.0.0.1"
				if unix {
					host = s.dir
				}
				// The later of two -d is the one that counts.
				out, err := s.psql(t, host, c.user, c.password, c.options, "-c", ";", "-d", c.db)
				out = strings.ReplaceAll(out, s.dir, "DIR")
				out = strings.ReplaceAll(out, strconv.Itoa(s.port), "PORT")
				out, _, _ = strings.Cut(out, "\nHINT:")
				return fmt.Sprint(out, err)
			}
			got, want := answer(s), answer(theirs)
			if got != want {
				t.Errorf("%+v, unix socket %v:\nus:         %s\nPostgreSQL: %s", c, unix, got, want)
			} else {
				t.Logf("%s to %.10s: %s", c.user, c.db, strings.TrimPrefix(got, "psql: error: connection to server "))
			}
		}
	}
}

// TestHBAAgainstPostgreSQL makes up lines of pg_hba.conf and holds what we
// read in them to what PostgreSQL does (pg_hba_file_rules).
func TestHBAAgainstPostgreSQL(t *testing.T) {
	conn := startPostgres(t).Connect(t)
	file := string(pgtest.Query(t, conn, "SHOW hba_file")[0][0])

	// Each line takes one of the good words for most of its fields.
	parts := []struct{ good, bad []string }{
		{[]string{"local", "host", "host", "hostnossl", "hostgssenc", "hostnogssenc", `"host"`}, []string{"hosts", "local,host", ""}},
		{[]string{"all", `"all"`, "sameuser,samerole", `a,"b c"`, `"q""uote"`, "a, b", "replication", `"x,y"`}, []string{"a ,b", ""}},
		{[]string{"all", "+staff", `"+staff"`, "u1,u2", `u"1 2"3`}, []string{"u1,+u2,", "all#", ""}},
		{[]string{"10.0.0.0/8", "127.0.0.1/32", "::1/128", "fd00::/8", "all", "samehost", "samenet", `"all"`,
			"10.1.2.3 255.255.0.0", "::1 ffff::", "example.org", ".example.org", "10.0.0.300"},
			[]string{"10.0.0.0/33", "10.0.0.1 ffff::", "10.0.0.1", "example.org/8", "a,b", ""}},
		{[]string{"trust", "reject", "md5", "scram-sha-256", "password", "ident"}, []string{"peer", "gss", "sesame", "trust,md5", ""}},
		{[]string{"", "", "", "# comment", "\r"}, []string{"map=m", "clientcert=1", "x=y", "word", `"map=a b"`}},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	const lines = 1500
	b.WriteString("local all all trust\n")
	for range lines {
		local := false
		for i, p := range parts {
			words := p.good
			if rng.IntN(10) == 0 {
				words = p.bad
			}
			w := words[rng.IntN(len(words))]
			if i == 0 {
				local = w == "local"
			}
			if i == 3 && local && rng.IntN(10) > 0 {
				continue
			}
			b.WriteString(w)
			b.WriteString([]string{" ", "\t", "  "}[rng.IntN(3)])
		}
		b.WriteByte('\n')
	}
	text := b.String()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := map[int]string{}
	for _, r := range pgtest.Query(t, conn, `SELECT line_number, type, array_to_string(database,'|'),
		array_to_string(user_name,'|'), address, netmask, auth_method, error FROM pg_hba_file_rules`) {
		n, _ := strconv.Atoi(string(r[0]))
		if strings.HasPrefix(string(r[7]), "hostssl record cannot match because SSL") {
			theirs[n] = "no SSL" // which is a remark, not an error
			continue
		}
		if r[7] != nil {
			theirs[n] = "error"
			continue
		}
		addr := string(r[4])
		if r[5] != nil {
			addr += " " + string(r[5])
		}
		theirs[n] = fmt.Sprintf("%s %s %s %s %s", r[1], r[2], r[3], addr, r[6])
	}
	compared, bad := 0, 0
	for i, line := range strings.Split(text, "\n") {
		ours := ""
		h, err := ParseHBA("f", line)
		switch {
		case err != nil && strings.Contains(err.Error(), "contains no entries"):
		case err != nil:
			ours = "error"
		default:
			ours = describe(&h.rules[0])
		}
		// What the server was built with and set to is not our matter.
		if theirs[i+1] == "no SSL" || strings.Contains(line, "gss ") || strings.Contains(line, "cert") {
			continue
		}
		compared++
		if ours == "error" {
			bad++
		}
		if ours != theirs[i+1] {
			t.Errorf("%q\nus:         %s\nPostgreSQL: %s", line, ours, theirs[i+1])
		}
	}
	t.Logf("%d lines equal, %d of them bad", compared, bad)
}

func describe(r *Rule) string {
	words := func(f field) string {
		var w []string
		for _, t := range f {
			w = append(w, t.text)
		}
		return strings.Join(w, "|")
	}
	addr := ""
	if r.Type != "local" {
		addr = [...]string{addrRange: "", addrAll: "all", addrSameHost: "samehost", addrSameNet: "samenet", addrName: r.addr.name}[r.addr.kind]
		if r.addr.kind == addrRange {
			addr = r.addr.ip.String() + " " + r.addr.mask.String()
		}
	}
	return fmt.Sprintf("%s %s %s %s %s", r.Type, words(r.databases), words(r.users), addr, r.Method)
}
