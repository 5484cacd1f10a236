package clustertest

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/testkit/certs"
)

// secured is the shared cluster with roles that log in by password, rules for
// them, and certificates; encryption is off. All is put right at the end.
type secured struct {
	*testkit.Cluster
	db   string
	ca   *certs.Authority
	dir  string // of the coordinator, where the server's files lie
	conn *pgx.Conn
	root string // file of the authority's certificate
}

const password = "a pass'word"

// loginRules come before the others. cert is one that names a role.
const loginRules = `hostssl all secure 127.0.0.1/32 scram-sha-256
hostnossl all secure 127.0.0.1/32 reject
host all either,nopass,expired,nologin 127.0.0.1/32 scram-sha-256
host all old 127.0.0.1/32 md5
host all plain 127.0.0.1/32 password
hostssl all carol 127.0.0.1/32 cert
hostssl all mapped 127.0.0.1/32 cert map=people
host all carol,mapped,banned 127.0.0.1/32 reject
`

func secure(t *testing.T) *secured {
	t.Helper()
	c := shared(t)
	s := &secured{Cluster: c, db: c.Database(t), ca: certs.NewAuthority(t, "authority of tests", elliptic.P256())}
	s.dir = c.Instance(t, coordinatorDbid).Datadir
	s.conn = c.Connect(t, s.db)
	testkit.Exec(t, s.conn, `create role secure login password 'a pass''word'; create role either login password 'a pass''word';
		create role nopass login; create role expired login password 'a pass''word' valid until '2001-01-01'; create role nologin password 'a pass''word';
		create role carol login; create role mapped login; create role banned login; create role plain login password 'a pass''word';
		set password_encryption = md5; create role old login password 'a pass''word'; reset password_encryption;
		create table d (id int, pad text) distributed by (id); insert into d select i, repeat('x', 1000) from generate_series(1, 20000) i;
		grant all on d to public; grant create on schema public to secure`)
	hba := s.edit(t, datadir.Dir(s.dir).HBA(), func(old string) string { return loginRules + old })
	maps := s.edit(t, datadir.Dir(s.dir).UserMaps(), func(old string) string { return old + "people /^(.*)@corp$ \\1\npeople carol mapped\n" })
	t.Cleanup(func() {
		hba()
		maps()
		for _, p := range []string{"ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file"} {
			c.MustShell(t, "gpconfig -r "+p)
		}
		c.MustShell(t, "gpstop -u")
		if err := testkit.TryExec(s.conn, "drop owned by secure; drop table d; drop role secure, either, nopass, expired, nologin, carol, mapped, banned, plain, old"); err != nil {
			t.Error(err)
		}
	})
	c.MustShell(t, "gpstop -u")
	return s
}

// edit changes a file in place, and returns what puts it right.
func (s *secured) edit(t *testing.T, path string, f func(string) string) (undo func()) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(f(string(before))), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Error(err)
		}
	}
}

// serverCert gives the server a certificate signed by ca.
func (s *secured) serverCert(t *testing.T, ca *certs.Authority) {
	t.Helper()
	p := ca.Issue(t, "the coordinator", "127.0.0.1", "localhost")
	certs.Write(t, s.dir, "server.crt", p.Cert)
	certs.Write(t, s.dir, "server.key", p.Key)
}

// on turns encryption on, as an operator does: while the cluster runs.
func (s *secured) on(t *testing.T) {
	t.Helper()
	s.serverCert(t, s.ca)
	certs.Write(t, s.dir, "root.crt", s.ca.PEM())
	s.root = s.Path("root.crt")
	if err := os.WriteFile(s.root, s.ca.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "root.crt"} {
		s.MustShell(t, fmt.Sprintf("gpconfig -c %s -v %s", name, filepath.Join(s.dir, file)))
	}
	s.MustShell(t, "gpconfig -c ssl -v on && gpstop -u")
}

// psqlAs runs psql on the cluster's database as a role. More environment is
// separated by blanks.
func (s *secured) psqlAs(t *testing.T, role, pass, env, sql string) string {
	t.Helper()
	all := append([]string{"PGUSER=" + role, "PGPASSWORD=" + pass, "PGHOST=127.0.0.1", "PGDATABASE=" + s.db}, strings.Fields(env)...)
	out, _ := s.ShellInput(sql, "psql -wXAtq -v ON_ERROR_STOP=1", all...)
	return out
}

// dial connects with pgx as a role; options are those of a connection string.
func (s *secured) dial(t *testing.T, role, options string) (*pgx.Conn, error) {
	t.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=%s connect_timeout=10 %s", s.Port, s.db, role, options))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = password
	conn, err := pgx.ConnectConfig(bounded(t), cfg)
	if err == nil {
		t.Cleanup(func() { testkit.Close(conn) })
	}
	return conn, err
}

// TestPasswords logs in without encryption, and tries to.
func TestPasswords(t *testing.T) {
	s := secure(t)
	const count = "select count(*) from d;"
	const wrong = `FATAL:  password authentication failed for user "`
	for _, c := range []struct{ role, pass, env, want string }{
		{"either", password, "", "20000\n"},
		{"either", password, "PGGSSENCMODE=disable PGSSLMODE=disable", "20000\n"},
		{"either", password + " ", "", wrong + `either"`},
		{"either", "", "", "fe_sendauth: no password supplied"},
		{"either", password, "PGSSLMODE=require", "server does not support SSL, but SSL was required"},
		{"either", password, "PGCHANNELBINDING=require PGSSLMODE=disable", "channel binding required, but SSL not in use"},
		{"nopass", password, "", wrong + `nopass"`},
		{"expired", password, "", wrong + `expired"`},
		{"nologin", password, "", `FATAL:  role "nologin" is not permitted to log in`},
		{"old", password, "", "20000\n"},
		{"old", "wrong", "", wrong + `old"`},
		{"plain", password, "", "20000\n"},
		{"plain", "wrong", "", wrong + `plain"`},
		{"banned", password, "", `FATAL:  pg_hba.conf rejects connection for host "127.0.0.1", user "banned", database "` + s.db + `", no encryption`},
		{"secure", password, "", `FATAL:  pg_hba.conf rejects connection for host "127.0.0.1", user "secure", database "` + s.db + `", no encryption`},
	} {
		if got := s.psqlAs(t, c.role, c.pass, c.env, count); !strings.Contains(got, c.want) {
			t.Errorf("%s with %q, %s: %s; expected %s", c.role, c.pass, c.env, got, c.want)
		}
	}
	// A password in the file that libpq looks into, which is no command line.
	pass := s.Path("pgpass")
	line := fmt.Sprintf("127.0.0.1:%d:*:either:%s\n", s.Port, password)
	if err := os.WriteFile(pass, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.psqlAs(t, "either", "", "PGPASSFILE="+pass, count); got != "20000\n" {
		t.Errorf("by a password file: %s", got)
	}
	// What a superuser changes counts for the next login.
	testkit.Exec(t, s.conn, "alter role either password 'other'")
	if got := s.psqlAs(t, "either", password, "", count); !strings.Contains(got, wrong+`either"`) {
		t.Errorf("by the old password: %s", got)
	}
	if got := s.psqlAs(t, "either", "other", "", count); got != "20000\n" {
		t.Errorf("by the new password: %s", got)
	}
	testkit.Exec(t, s.conn, "alter role nopass connection limit 0 password 'other'")
	if got := s.psqlAs(t, "nopass", "other", "", count); !strings.Contains(got, `FATAL:  too many connections for role "nopass"`) {
		t.Errorf("over the limit: %s", got)
	}
	for role, state := range map[string]string{"nologin": "28000", "expired": "28P01", "banned": "28000"} {
		if _, err := s.dial(t, role, "sslmode=disable"); testkit.SQLState(err) != state {
			t.Errorf("%s: %v, expected %s", role, err, state)
		}
	}
}

// TestEncryption turns encryption on and off while the cluster runs, and logs
// in with it.
func TestEncryption(t *testing.T) {
	s := secure(t)
	s.on(t)
	strange := certs.NewAuthority(t, "somebody else", elliptic.P256())
	home := t.TempDir()
	otherRoot := certs.Write(t, home, "other.crt", strange.PEM())
	with := func(name string, p *certs.Pair) string {
		return "PGSSLCERT=" + certs.Write(t, home, name+".crt", p.Cert) + " PGSSLKEY=" + certs.Write(t, home, name+".key", p.Key)
	}
	carol := s.ca.Issue(t, "carol")
	full := "PGSSLMODE=verify-full PGSSLROOTCERT=" + s.root
	const count = "select count(*) from d;"
	const wrong = `FATAL:  password authentication failed for user "`
	for _, c := range []struct{ role, pass, env, want string }{
		{"secure", password, "", "20000\n"}, // libpq prefers encryption
		{"secure", password, "PGSSLMODE=require", "20000\n"},
		{"secure", password, "PGSSLMODE=verify-ca PGSSLROOTCERT=" + s.root, "20000\n"},
		{"secure", password, full, "20000\n"},
		{"secure", password, full + " PGHOST=localhost", "20000\n"},
		{"secure", password, full + " PGCHANNELBINDING=require", "20000\n"},
		{"secure", password, full + " PGSSLMAXPROTOCOLVERSION=TLSv1.2 PGCHANNELBINDING=require", "20000\n"},
		{"secure", password, "PGSSLMODE=verify-full PGSSLROOTCERT=" + otherRoot, "certificate verify failed"},
		{"secure", "wrong", "PGSSLMODE=require", wrong + `secure"`},
		{"secure", "wrong", "PGSSLMODE=require PGCHANNELBINDING=require", wrong + `secure"`},
		{"secure", password, "PGSSLMODE=disable", `FATAL:  pg_hba.conf rejects connection for host "127.0.0.1", user "secure", database "` + s.db + `", no encryption`},
		{"either", password, "PGSSLMODE=disable", "20000\n"},
		{"either", password, "PGSSLMODE=require", "20000\n"},
		{"old", password, "PGSSLMODE=require", "20000\n"},
		{"old", password, "PGSSLMODE=require PGCHANNELBINDING=require", "channel binding required but not supported by server's authentication request"},
		{"banned", password, "PGSSLMODE=require", `FATAL:  pg_hba.conf rejects connection for host "127.0.0.1", user "banned", database "` + s.db + `", SSL encryption`},
		{"carol", "", "PGSSLMODE=require", "FATAL:  connection requires a valid client certificate"},
		{"carol", "", "PGSSLMODE=require " + with("carol", carol), "20000\n"},
		{"carol", "", "PGSSLMODE=require " + with("eve", s.ca.Issue(t, "eve")), `FATAL:  certificate authentication failed for user "carol"`},
		{"carol", "", "PGSSLMODE=disable " + with("carol", carol), "no encryption"},
		{"mapped", "", "PGSSLMODE=require " + with("carol", carol), "20000\n"},
		{"mapped", "", "PGSSLMODE=require " + with("corp", s.ca.Issue(t, "mapped@corp")), "20000\n"},
		{"mapped", "", "PGSSLMODE=require " + with("eve", s.ca.Issue(t, "eve")), `FATAL:  certificate authentication failed for user "mapped"`},
		{"carol", "", "PGSSLMODE=require " + with("false", strange.Issue(t, "carol")), "error"},
		{"secure", password, "PGSSLMODE=require", "20000\n"},
	} {
		if got := s.psqlAs(t, c.role, c.pass, c.env, count); !strings.Contains(got, c.want) {
			t.Errorf("%s with %q, %s: %s; expected %s", c.role, c.pass, c.env, got, c.want)
		}
	}
	if got := s.psqlAs(t, "gpadmin", "", full, "show ssl;\n\\conninfo"); !strings.HasPrefix(got, "on\n") || !strings.Contains(got, "SSL connection (protocol: TLSv1.3") {
		t.Errorf("psql: %s", got)
	}
	// A segment's own port too.
	segment := fmt.Sprintf(" PGPORT=%d PGOPTIONS=-cgp_role=utility", s.Instance(t, firstSegment).Port)
	if got := s.psqlAs(t, "gpadmin", "", full+segment, "\\conninfo"); !strings.Contains(got, "SSL connection (protocol: TLSv1.3") {
		t.Errorf("psql on a segment: %s", got)
	}

	conn, err := s.dial(t, "secure", "sslmode=verify-full channel_binding=require sslrootcert="+s.root)
	if err != nil {
		t.Fatal(err)
	}
	modes(t, func(t *testing.T, mode string) { s.traffic(t, mode) })
	t.Run("node", func(t *testing.T) {
		node(t, s.Cluster, "PGHOST=127.0.0.1", "PGDATABASE="+s.db, "PGUSER=secure", "PGPASSWORD="+password, "PGSSLROOTCERT="+s.root)
	})
	s.cancels(t, conn)

	// Another certificate: for the connections from now on.
	s.serverCert(t, strange)
	s.MustShell(t, "gpstop -u")
	if got := s.psqlAs(t, "secure", password, full, count); !strings.Contains(got, "certificate verify failed") {
		t.Errorf("after a change of certificate: %s", got)
	}
	if got := s.psqlAs(t, "secure", password, "PGSSLMODE=verify-full PGCHANNELBINDING=require PGSSLROOTCERT="+otherRoot, count); got != "20000\n" {
		t.Errorf("after a change of certificate: %s", got)
	}
	if got := testkit.Value(t, conn, "select count(*) from d"); got != "20000" {
		t.Errorf("%s rows", got)
	}
	// One that cannot be read leaves in force what was.
	logs := readLogs(t, s.Cluster)
	certs.Write(t, s.dir, "server.crt", []byte("nonsense"))
	s.MustShell(t, "gpstop -u")
	if got := s.psqlAs(t, "secure", password, "PGSSLMODE=verify-full PGSSLROOTCERT="+otherRoot, count); got != "20000\n" {
		t.Errorf("with a broken certificate: %s", got)
	}
	if lines := logs.take(t, "SSL configuration was not reloaded"); len(lines[coordinatorDbid]) != 1 {
		t.Errorf("the log of the coordinator: %q", lines[coordinatorDbid])
	}
	// A list of certificates that were taken back.
	s.serverCert(t, s.ca)
	certs.Write(t, s.dir, "root.crl", s.ca.Revoked(t, carol))
	s.MustShell(t, "gpconfig -c ssl_crl_file -v "+filepath.Join(s.dir, "root.crl")+" && gpstop -u")
	if got := s.psqlAs(t, "carol", "", full+" "+with("carol", carol), count); strings.Contains(got, "20000") || !strings.Contains(got, "error") {
		t.Errorf("with a certificate that was taken back: %s", got)
	}
	if got := s.psqlAs(t, "carol", "", full+" "+with("again", s.ca.Issue(t, "carol")), count); got != "20000\n" {
		t.Errorf("with a new certificate: %s", got)
	}

	// Off again. Who is connected stays so.
	s.MustShell(t, "gpconfig -c ssl -v off && gpstop -u")
	if got := s.psqlAs(t, "secure", password, "PGSSLMODE=require", count); !strings.Contains(got, "server does not support SSL, but SSL was required") {
		t.Errorf("encryption is off: %s", got)
	}
	if got := testkit.Value(t, conn, "select count(*) from d"); got != "20000" {
		t.Errorf("%s rows", got)
	}
}

// traffic moves more over an encrypted connection than fits one of its records,
// both ways.
func (s *secured) traffic(t *testing.T, mode string) {
	conn, err := s.dial(t, "secure", "sslmode=require options='-c "+mode+"'")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.PgConn().Conn().(*tls.Conn); !ok {
		t.Fatalf("the connection is a %T", conn.PgConn().Conn())
	}
	if rows := testkit.Query(t, conn, "select id, pad from d"); len(rows) != 20000 {
		t.Errorf("%d rows", len(rows))
	}
	ctx := bounded(t)
	i := 0
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"d"}, []string{"id", "pad"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i++; i > 20000 {
			return nil, nil
		}
		return []any{-i, strings.Repeat("y", 500)}, nil
	}))
	if err != nil || n != 20000 {
		t.Errorf("%d rows copied, %v", n, err)
	}
	big := strings.Repeat("z", 10<<20)
	var got string
	if err := conn.QueryRow(ctx, "select $1::text || max(id) from d where id > 0", big).Scan(&got); err != nil || got != big+"20000" {
		t.Errorf("10 MB there and back: %d bytes, %v", len(got), err)
	}
	if tag, err := conn.Exec(ctx, "delete from d where id < 0"); err != nil || tag.RowsAffected() != 20000 {
		t.Errorf("%v, %v", tag, err)
	}
	// A batch whose next message comes when the session has stopped waiting for it.
	batch := conn.PgConn().StartPipeline(ctx)
	batch.SendQueryParams("update d set pad = pad || 'u' where id between 1 and 9", nil, nil, nil, nil)
	if err := batch.Flush(); err != nil {
		t.Fatal(err)
	}
	seg := s.Utility(t, firstSegment, s.db)
	defer testkit.Close(seg)
	testkit.Eventually(t, 20*time.Second, func() error {
		if testkit.Value(t, seg, "select count(*) from pg_locks where relation = 'd'::regclass and mode = 'RowExclusiveLock'") == "0" {
			return errors.New("the statement does not run before the batch ends")
		}
		return nil
	})
	batch.SendQueryParams("update d set pad = rtrim(pad, 'u') where id between 1 and 9", nil, nil, nil, nil)
	if err := batch.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := batch.GetResults()
		if err != nil {
			t.Fatal(err)
		}
		if tag, err := r.(*pgconn.ResultReader).Close(); err != nil || tag.RowsAffected() != 9 {
			t.Errorf("in a batch: %v, %v", tag, err)
		}
	}
	if err := batch.Close(); err != nil {
		t.Error(err)
	}
}

// cancels ends statements by requests with encryption, as pgx makes them, and
// without, as libpq 15 does; and a session from outside.
func (s *secured) cancels(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, sql := range []string{"select pg_sleep(30)", "select count(*), sum(pg_sleep(1)::text::int) from d"} {
		cancelled := make(chan error, 1)
		time.AfterFunc(300*time.Millisecond, func() {
			ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
			defer done()
			cancelled <- conn.PgConn().CancelRequest(ctx)
		})
		start := time.Now()
		if err := testkit.TryExec(conn, sql); testkit.SQLState(err) != "57014" || time.Since(start) > 5*time.Second {
			t.Errorf("%s: after %v: %v", sql, time.Since(start), err)
		}
		if err := <-cancelled; err != nil {
			t.Errorf("the request to cancel %s: %v", sql, err)
		}
	}
	env := []string{"PGUSER=secure", "PGPASSWORD=" + password, "PGHOST=127.0.0.1", "PGSSLMODE=require", "PGDATABASE=" + s.db}
	out, _ := s.Shell(`timeout -s INT 1 psql -wXc "select pg_sleep(30) from d"`, env...)
	wantAll(t, "psql that is interrupted", out, "Cancel request sent", "ERROR:  canceling statement due to user request")

	other, err := s.dial(t, "secure", "sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	testkit.Exec(t, s.conn, fmt.Sprintf("select pg_terminate_backend(%d)", other.PgConn().PID()))
	if _, err := other.WaitForNotification(bounded(t)); testkit.SQLState(err) != "57P01" {
		t.Errorf("a session that was ended: %v", err)
	}
	out = s.psqlAs(t, "secure", password, "PGSSLMODE=require", "select pg_terminate_backend(pg_backend_pid());")
	wantAll(t, "psql that ends itself", out, "FATAL:  terminating connection due to administrator command")
}

// TestEncryptionAtStart: an instance that is to encrypt and cannot does not
// start, whether PostgreSQL says so or only Trunkline.
func TestEncryptionAtStart(t *testing.T) {
	t.Parallel()
	c := testkit.New(t, testkit.Options{Segments: 1})
	dir := datadir.Dir(c.Instance(t, coordinatorDbid).Datadir)
	pair := certs.NewAuthority(t, "authority", elliptic.P256()).Issue(t, "the coordinator", "127.0.0.1")
	certs.Write(t, string(dir), "server.key", pair.Key)
	conf, err := os.ReadFile(dir.Conf())
	if err != nil {
		t.Fatal(err)
	}
	c.MustShell(t, "gpstop -a")
	start := func(more, want string) {
		t.Helper()
		if err := os.WriteFile(dir.Conf(), append(conf, more...), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := c.Shell("gpstart -a")
		wantAll(t, "gpstart with "+more, out, want)
		out, err := c.Shell("psql -wXAtc 'select count(*) from gp_dist_random($$gp_id$$)' -d postgres", "PGSSLMODE=require", "PGHOST=127.0.0.1")
		if want == started != (err == nil && out == "1\n") {
			t.Errorf("with %s a client has %s, %v", more, out, err)
		}
	}
	start("ssl = on\n", `could not load server certificate file "server.crt": No such file or directory`)
	certs.Write(t, string(dir), "server.crt", pair.Cert)
	start("ssl = on\nssl_ecdh_curve = secp224r1\n", "ssl is on, but connections cannot be encrypted: ECDH: unrecognized curve name: secp224r1")
	start("ssl = on\n", started)
}

const started = "Database successfully started"
