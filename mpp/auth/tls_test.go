package auth

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"

	"github.com/trunkline-db/trunkline/internal/testkit/certs"
	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// sslError is what a client says of a handshake that failed: the words of the
// alert are the libraries', and who closes first is chance.
var sslError = regexp.MustCompile(`(?s)(SSL error|SSL SYSCALL error|server closed the connection|could not (send|receive)).*`)

// TestTLSAgainstPostgreSQL lets psql log in to PostgreSQL and to us over TLS,
// with the same certificates, and holds both answers equal.
func TestTLSAgainstPostgreSQL(t *testing.T) {
	pg := startPostgres(t)
	conn := pg.Connect(t)
	ca := certs.NewAuthority(t, "the authority", elliptic.P256())
	other := certs.NewAuthority(t, "another", elliptic.P384())
	pair := ca.Issue(t, "server", "127.0.0.1")
	bad := ca.Issue(t, "bad")
	files := map[string][]byte{"server.crt": pair.Cert, "server.key": pair.Key, "ca.crt": ca.PEM(), "ca.crl": ca.Revoked(t, bad)}
	ours := t.TempDir()
	param := map[string]string{"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt",
		"ssl_crl_file": "ca.crl", "ssl_min_protocol_version": "TLSv1.2"}
	for name, text := range files {
		certs.Write(t, ours, name, text)
		certs.Write(t, pg.Data, name, text)
	}
	const rules = `local all all trust
hostssl all carol 127.0.0.1/32 cert
hostssl all mapped 127.0.0.1/32 cert map=m
hostssl all named 127.0.0.1/32 cert clientname=DN map=m
hostssl all anyone 127.0.0.1/32 trust clientcert=verify-ca
hostssl all full 127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl all trusted 127.0.0.1/32 trust clientcert=verify-full
hostssl all banned 127.0.0.1/32 reject
hostnossl all alice 127.0.0.1/32 reject
host all alice 127.0.0.1/32 scram-sha-256
hostssl all mona 127.0.0.1/32 md5
`
	const identMaps = `m carol mapped
m /^(.*)ed$ \1
m "CN=carol,O=Tests" named
`
	for name, text := range map[string]string{"pg_hba.conf": rules, "pg_ident.conf": identMaps} {
		if err := os.WriteFile(filepath.Join(pg.Data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range param {
		pgtest.Query(t, conn, "ALTER SYSTEM SET "+name+" = '"+value+"'")
	}
	all := roles{}
	for _, name := range []string{"alice", "carol", "mapped", "mapp", "named", "anyone", "full", "trusted", "banned"} {
		pgtest.Query(t, conn, "CREATE ROLE "+name+" LOGIN PASSWORD 'secret'")
		all[name] = role{scramVerifier(t, "secret"), true}
	}
	pgtest.Query(t, conn, "SET password_encryption = md5")
	pgtest.Query(t, conn, "CREATE ROLE mona LOGIN PASSWORD 'secret'")
	all["mona"] = role{md5Verifier("mona", "secret"), true}
	pgtest.Query(t, conn, `CREATE DATABASE "db 1"`)
	pgtest.Query(t, conn, "SELECT pg_reload_conf()")

	cfg := all.config(mustHBA(t, rules))
	tlsConfig, err := LoadTLS(ours, param)
	if err != nil {
		t.Fatal(err)
	}
	userMaps, err := ParseUserMaps("pg_ident.conf", identMaps)
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLS = func() *tls.Config { return tlsConfig }
	cfg.UserMaps = func() (*UserMaps, error) { return userMaps, nil }
	s := startServer(t, cfg)
	theirs := &server{dir: pg.Dir, port: pg.Port}

	home := t.TempDir()
	root := "PGSSLROOTCERT=" + certs.Write(t, home, "root.crt", ca.PEM())
	wrongRoot := "PGSSLROOTCERT=" + certs.Write(t, home, "wrong.crt", other.PEM())
	with := func(name string, p *certs.Pair) string {
		return "PGSSLCERT=" + certs.Write(t, home, name+".crt", p.Cert) + " PGSSLKEY=" + certs.Write(t, home, name+".key", p.Key)
	}
	carol, strange := with("carol", ca.Issue(t, "carol")), with("strange", other.Issue(t, "carol"))
	gone, full, nameless := with("bad", bad), with("full", ca.Issue(t, "full")), with("nameless", ca.Issue(t, ""))
	const require, disable = "PGSSLMODE=require", "PGSSLMODE=disable"

	// PostgreSQL may not have read its files yet.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := theirs.psqlEnv(t, "127.0.0.1", "alice", "secret", []string{require}, "-c", ";"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("PostgreSQL does not take encrypted connections")
		}
	}
	for _, c := range []struct{ user, password, env string }{
		{"alice", "secret", require},
		{"alice", "wrong", require},
		{"alice", "secret", disable},
		{"alice", "secret", ""},
		{"alice", "secret", "PGSSLMODE=allow"},
		{"alice", "secret", "PGSSLMODE=verify-ca " + root},
		{"alice", "secret", "PGSSLMODE=verify-full " + root},
		{"alice", "secret", "PGSSLMODE=verify-full " + wrongRoot},
		{"alice", "secret", require + " PGCHANNELBINDING=require"},
		{"alice", "wrong", require + " PGCHANNELBINDING=require"},
		{"alice", "secret", require + " PGCHANNELBINDING=disable"},
		{"alice", "secret", require + " " + carol},
		{"alice", "secret", require + " " + strange},
		{"alice", "secret", require + " " + gone},
		{"alice", "secret", require + " PGSSLMAXPROTOCOLVERSION=TLSv1.2 PGCHANNELBINDING=require"},
		{"alice", "secret", require + " PGSSLMINPROTOCOLVERSION=TLSv1.3"},
		{"mona", "secret", require},
		{"mona", "secret", require + " PGCHANNELBINDING=require"},
		{"mona", "secret", disable},
		{"banned", "secret", require},
		{"ghost", "secret", require},
		{"carol", "", require},
		{"carol", "", require + " " + carol},
		{"carol", "", require + " " + carol + " PGCHANNELBINDING=require"},
		{"carol", "", require + " " + full},
		{"carol", "", require + " " + nameless},
		{"carol", "", disable},
		{"mapped", "", require + " " + carol},
		{"mapped", "", require + " " + full},
		{"named", "", require + " " + carol},
		{"named", "", require + " " + full},
		{"anyone", "", require},
		{"anyone", "", require + " " + carol},
		{"anyone", "", require + " " + nameless},
		{"anyone", "", require + " " + gone},
		{"full", "secret", require},
		{"full", "secret", require + " " + carol},
		{"full", "wrong", require + " " + full},
		{"full", "secret", require + " " + full},
		{"trusted", "", require + " " + carol},
	} {
		answer := func(s *server) string {
			out, err := s.psqlEnv(t, "127.0.0.1", c.user, c.password, strings.Fields(c.env), "-c", `\conninfo`)
			out = strings.ReplaceAll(strings.ReplaceAll(out, strconv.Itoa(s.port), "PORT"), "bits: 128", "bits: 256")
			out = strings.ReplaceAll(out, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384") // either side's choice
			out = strings.ReplaceAll(out, "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384")
			if err != nil {
				out = sslError.ReplaceAllString(out, "SSL error")
			}
			return fmt.Sprint(out, " ", err)
		}
		got, want := answer(s), answer(theirs)
		env := strings.ReplaceAll(c.env, home, "")
		if got != want {
			t.Errorf("%s with %q, %s:\nus:         %s\nPostgreSQL: %s", c.user, c.password, env, got, want)
		} else {
			t.Logf("%s, %s: %s", c.user, env, got)
		}
	}
}

// TestChannelBinding lets clients lie about channel binding.
func TestChannelBinding(t *testing.T) {
	ca := certs.NewAuthority(t, "the authority", elliptic.P384())
	pair := ca.Issue(t, "server", "127.0.0.1")
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testRoles(t).config(mustHBA(t, "host all all all scram-sha-256"))
	cfg.TLS = func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	s := startServer(t, cfg)
	for _, c := range []struct{ dsn, want string }{
		{"sslmode=require channel_binding=require", "<nil>"},
		{"sslmode=require channel_binding=prefer", "<nil>"},
		{"sslmode=require channel_binding=disable", "<nil>"},
		{"sslmode=disable", "<nil>"},
	} {
		if got := pgError(s.connect(t, c.dsn+" user=alice password=alice-secret")); got != c.want {
			t.Errorf("%s: %s", c.dsn, got)
		}
	}
	for _, c := range []struct{ mechanism, first, want string }{
		{scramPlus, "n,,n=,r=x", "08P01 malformed SCRAM message"},
		{scramPlus, "y,,n=,r=x", "08P01 malformed SCRAM message"},
		{scramPlus, "p=tls-unique,,n=,r=x", `08P01 unsupported SCRAM channel-binding type "tls-unique"`},
		{scramPlus, "p=tls-server-end-point,,n=,r=x", "<nil>"},
		{scramMechanism, "p=tls-server-end-point,,n=,r=x", "08P01 malformed SCRAM message"},
		{scramMechanism, "y,,n=,r=x", "28000 SCRAM channel binding negotiation error"},
		{scramMechanism, "n,,n=,r=x", "<nil>"},
	} {
		e := exchange{binding: endPoint(cfg.TLS())}
		got := "<nil>"
		if err := e.checkBinding(c.mechanism, c.first); err != nil {
			got = strings.TrimPrefix(pgError(err), "FATAL ")
		}
		if got != c.want {
			t.Errorf("%s, %s: %s, expected %s", c.mechanism, c.first, got, c.want)
		}
	}
	if b := endPoint(nil); b.IsSupported() {
		t.Error("a connection without encryption is bound to something")
	}
	// A proof that is bound to another certificate, as in the middle of two
	// connections.
	mech, err := scram.SHA256.NewClient("", "alice-secret", "")
	if err != nil {
		t.Fatal(err)
	}
	conv := mech.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte("another")})
	if got := s.exchange(t, scramPlus, conv.Step); got != "28000 SCRAM channel binding check failed" {
		t.Errorf("a proof bound to another certificate: %s", got)
	}
}

// exchange logs in as alice over TLS with the messages that step makes, and
// returns the server's error.
func (s *server) exchange(t *testing.T, mechanism string, step func(string) (string, error)) string {
	t.Helper()
	raw, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	answer := make([]byte, 1)
	if _, err := raw.Write(packet(binary.BigEndian.AppendUint32(nil, sslRequestCode))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(raw, answer); err != nil || answer[0] != 'S' {
		t.Fatalf("%q, %v", answer, err)
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	fe := pgproto3.NewFrontend(conn, conn)
	if _, err := conn.Write(packet(startupBody(3<<16, "user", "alice"))); err != nil {
		t.Fatal(err)
	}
	challenge := ""
	for {
		m, err := fe.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return m.Code + " " + m.Message
		case *pgproto3.AuthenticationSASL, *pgproto3.AuthenticationSASLContinue:
			if c, ok := m.(*pgproto3.AuthenticationSASLContinue); ok {
				challenge = string(c.Data)
			}
			answer, err := step(challenge)
			if err != nil {
				t.Fatal(err)
			}
			if challenge == "" {
				fe.Send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(answer)})
			} else {
				fe.Send(&pgproto3.SASLResponse{Data: []byte(answer)})
			}
			if err := fe.Flush(); err != nil {
				t.Fatal(err)
			}
		default:
			return fmt.Sprintf("%T", m)
		}
	}
}

// TestLoadTLS holds what is wrong with parameters and files to be said.
func TestLoadTLS(t *testing.T) {
	ca := certs.NewAuthority(t, "the authority", elliptic.P256())
	pair, other := ca.Issue(t, "server"), ca.Issue(t, "other")
	dir := t.TempDir()
	for name, text := range map[string][]byte{"server.crt": pair.Cert, "server.key": pair.Key, "other.key": other.Key,
		"ca.crt": ca.PEM(), "ca.crl": ca.Revoked(t), "empty": nil, "open.key": pair.Key,
		"locked.key": []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")} {
		certs.Write(t, dir, name, text)
	}
	if err := os.Chmod(filepath.Join(dir, "open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	load := func(change map[string]string) (*tls.Config, error) {
		param := map[string]string{"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ciphers": "HIGH:MEDIUM:+3DES:!aNULL",
			"ssl_ecdh_curve": "prime256v1", "ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "", "ssl_ca_file": "", "ssl_crl_file": "", "ssl_crl_dir": ""}
		maps.Copy(param, change)
		return LoadTLS(dir, param)
	}
	if cfg, err := load(map[string]string{"ssl": "off", "ssl_cert_file": "none"}); cfg != nil || err != nil {
		t.Errorf("ssl off: %v, %v", cfg, err)
	}
	cfg, err := load(nil)
	if err != nil || cfg.MinVersion != tls.VersionTLS12 || cfg.MaxVersion != 0 || cfg.CipherSuites != nil || cfg.ClientCAs != nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	cfg, err = load(map[string]string{"ssl_ciphers": "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-SHA:!aNULL:AES256-SHA", "ssl_ecdh_curve": "secp384r1",
		"ssl_min_protocol_version": "TLSv1", "ssl_max_protocol_version": "TLSv1.3", "ssl_ca_file": filepath.Join(dir, "ca.crt"), "ssl_crl_dir": dir})
	if err != nil || cfg.MinVersion != tls.VersionTLS10 || cfg.MaxVersion != tls.VersionTLS13 || len(cfg.CurvePreferences) != 1 || cfg.ClientCAs == nil ||
		fmt.Sprint(cfg.CipherSuites) != fmt.Sprint([]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_CBC_SHA}) {
		t.Errorf("%+v, %v", cfg, err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct{ name, value, want string }{
		{"ssl_cert_file", "none", `could not load server certificate file "` + in("none") + `": no such file or directory`},
		{"ssl_cert_file", "empty", `could not load server certificate file "` + in("empty")},
		{"ssl_key_file", "none", `could not access private key file "` + in("none") + `": no such file or directory`},
		{"ssl_key_file", ".", `private key file "` + dir + `" is not a regular file`},
		{"ssl_key_file", "open.key", `private key file "` + in("open.key") + `" has group or world access`},
		{"ssl_key_file", "other.key", "private key does not match public key"},
		{"ssl_key_file", "locked.key", "keys with a passphrase are not supported"},
		{"ssl_ca_file", "none", `could not load root certificate file "` + in("none") + `": no such file or directory`},
		{"ssl_ca_file", "empty", `could not load root certificate file "` + in("empty") + `": no certificate found`},
		{"ssl_crl_file", "empty", `could not load SSL certificate revocation list file "` + in("empty") + `": no revocation list found`},
		{"ssl_crl_dir", "none", `could not load SSL certificate revocation list directory "` + in("none")},
		{"ssl_ciphers", "DHE-RSA-AES256-SHA", `none of "DHE-RSA-AES256-SHA" is supported`},
		{"ssl_ecdh_curve", "round", "unrecognized curve name: round"},
		{"ssl_max_protocol_version", "TLSv1.1", "could not set SSL protocol version range"},
	} {
		change := map[string]string{c.name: c.value}
		if strings.HasPrefix(c.name, "ssl_crl") {
			change["ssl_ca_file"] = "ca.crt"
		}
		if _, err := load(change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %s: %v", c.name, c.value, err)
		}
	}
}

// TestRevokedLists: the newest list in force decides, wherever it lies.
func TestRevokedLists(t *testing.T) {
	ca := certs.NewAuthority(t, "the authority", elliptic.P256())
	other := certs.NewAuthority(t, "the authority", elliptic.P256()) // of the same name
	pair := ca.Issue(t, "server")
	const ok = "<nil>"
	before := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	fresh, old := ca.RevokedAt(t, before(time.Minute)), ca.RevokedAt(t, before(time.Hour))
	taken, takenBefore := ca.RevokedAt(t, before(time.Minute), pair), ca.RevokedAt(t, before(time.Hour), pair)
	expired, early := ca.RevokedAt(t, before(3*time.Hour)), ca.RevokedAt(t, before(-time.Hour))
	for _, c := range []struct {
		name         string
		file, inside []byte // the file, and one in the folder
		want         string
	}{
		{"one", fresh, nil, ok},
		{"revoked", taken, nil, "certificate revoked"},
		{"revoked since, by the folder", old, taken, "certificate revoked"},
		{"revoked since, by the file", taken, old, "certificate revoked"},
		{"given back", takenBefore, fresh, ok},
		{"expired", expired, nil, "CRL has expired"},
		{"expired beside another", expired, fresh, ok},
		{"not yet", early, nil, "CRL is not yet valid"},
		{"somebody else's", other.Revoked(t), nil, "unable to get certificate CRL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			lists := filepath.Join(dir, "lists")
			if err := os.Mkdir(lists, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string][]byte{"server.crt": pair.Cert, "server.key": pair.Key, "ca.crt": ca.PEM(), "file.crl": c.file, "lists/one.crl": c.inside} {
				certs.Write(t, dir, name, text)
			}
			cfg, err := LoadTLS(dir, map[string]string{"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt",
				"ssl_crl_file": "file.crl", "ssl_crl_dir": lists})
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			chains, err := cert.Verify(x509.VerifyOptions{Roots: cfg.ClientCAs})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(cfg.VerifyPeerCertificate(nil, chains)); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, expected %s", got, c.want)
			}
		})
	}
}

func TestUserMaps(t *testing.T) {
	m, err := ParseUserMaps("pg_ident.conf", "# map who role\nm os db\nm /^(\\w+)@corp$ \\1\nm \"a b\" c # end\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, from, role string
		want             bool
	}{
		{"m", "os", "db", true}, {"m", "os", "os", false}, {"n", "os", "db", false}, {"m", "bob@corp", "bob", true},
		{"m", "bob@corp", "eve", false}, {"m", "bob@else", "bob", false}, {"m", "a b", "c", true},
	} {
		if got := m.allows(c.name, c.from, c.role); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for text, want := range map[string]string{
		"m os": "line 1 of pg_ident.conf: missing entry at end of line", "\nm a,b c": "line 2 of pg_ident.conf: multiple values in ident field",
		"m /( c": "invalid regular expression", `m /a \1`: "has no subexpressions",
	} {
		if _, err := ParseUserMaps("pg_ident.conf", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestCertName holds roles to the names in certificates, one of which goes on
// behind a null byte.
func TestCertName(t *testing.T) {
	ca := certs.NewAuthority(t, "authority", elliptic.P256())
	maps, err := ParseUserMaps("pg_ident.conf", "m /^carol carol\nm /CN=carol carol\n")
	if err != nil {
		t.Fatal(err)
	}
	a := &Authenticator{cfg: Config{UserMaps: func() (*UserMaps, error) { return maps, nil }}}
	for _, c := range []struct{ name, options, why string }{
		{"carol", "", ""}, {"carol", "map=m", ""}, {"carol", "map=m clientname=DN", ""}, {"caroline", "map=m", ""},
		{"eve", "", "provided user name (carol) and authenticated user name (eve) do not match"},
		{"eve", "map=m", `no match in usermap "m"`},
		{"carol\x00.example", "", "contains a null byte"}, {"carol\x00.example", "map=m", "contains a null byte"},
		{"carol\x00.example", "map=m clientname=DN", "contains a null byte"}, {"", "map=m", "contains no user name"},
	} {
		hba, err := ParseHBA("pg_hba.conf", "hostssl all all all cert "+c.options)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(ca.Issue(t, c.name).Cert)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		why := a.checkCertName(&hba.Rules()[0], &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, "carol")
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%q, %s: %q, expected %q", c.name, c.options, why, c.why)
		}
	}
}
