package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// server lets clients log in over TCP and a unix socket and gives them an
// empty answer to every query.
type server struct {
	dir     string
	port    int
	clients chan *Client
	errs    chan error
}

func startServer(t *testing.T, cfg Config) *server {
	t.Helper()
	a := New(cfg)
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, port: tcp.Addr().(*net.TCPAddr).Port,
		clients: make(chan *Client, 100), errs: make(chan error, 100)}
	unix, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(s.port)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, l := range []net.Listener{tcp, unix} {
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					c, err := a.Accept(ctx, conn)
					if err != nil {
						s.errs <- err
						return
					}
					s.clients <- c
					defer c.Conn.Close()
					defer context.AfterFunc(ctx, func() { c.Conn.Close() })()
					serve(c.Backend)
				})
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		tcp.Close()
		unix.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return s
}

func serve(b *pgproto3.Backend) {
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "15.0"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte{0, 0, 0, 9}})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		msg, err := b.Receive()
		if err != nil {
			return
		}
		if _, ok := msg.(*pgproto3.Query); !ok {
			return
		}
		b.Send(&pgproto3.EmptyQueryResponse{})
	}
}

// client is the Client of the login that just succeeded.
func (s *server) client(t *testing.T) *Client {
	t.Helper()
	select {
	case c := <-s.clients:
		return c
	case err := <-s.errs:
		t.Fatalf("login failed: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no login")
	}
	return nil
}

// connect logs in with pgconn and leaves again.
func (s *server) connect(t *testing.T, dsn string) error {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d %s", s.port, dsn))
	if err == nil {
		conn.Close(t.Context())
	}
	return err
}

func pgError(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Severity + " " + pe.Code + " " + pe.Message
	}
	return fmt.Sprint(err)
}

func TestAcceptWithPgconn(t *testing.T) {
	const wrong = `FATAL 28P01 password authentication failed for user `
	cases := []struct {
		method, dsn, want string
	}{
		{"trust", "user=alice database=d", "<nil>"},
		{"trust", "user=ghost database=d", `FATAL 28000 role "ghost" does not exist`},
		{"trust", "user=nologin", `FATAL 28000 role "nologin" is not permitted to log in`},
		{"trust", "user=starting", "FATAL 57P03 the database system is starting up"},
		{"scram-sha-256", "user=alice password=alice-secret", "<nil>"},
		{"scram-sha-256", "user=alice password=wrong", wrong + `"alice"`},
		{"scram-sha-256", "user=ghost password=x", wrong + `"ghost"`},
		{"scram-sha-256", "user=empty password=x", wrong + `"empty"`},
		{"scram-sha-256", "user=mona password=mona-secret", wrong + `"mona"`},
		{"scram-sha-256", "user=nologin password=nologin-secret", `FATAL 28000 role "nologin" is not permitted to log in`},
		{"scram-sha-256", "user=nologin password=wrong", wrong + `"nologin"`},
		{"md5", "user=mona password=mona-secret", "<nil>"},
		{"md5", "user=mona password=wrong", wrong + `"mona"`},
		{"md5", "user=alice password=alice-secret", "<nil>"},
		{"md5", "user=alice password=wrong", wrong + `"alice"`},
		{"md5", "user=ghost password=x", wrong + `"ghost"`},
		{"password", "user=alice password=alice-secret", "<nil>"},
		{"password", "user=mona password=mona-secret", "<nil>"},
		{"password", "user=alice password=wrong", wrong + `"alice"`},
		{"password", "user=mona password=wrong", wrong + `"mona"`},
		{"password", "user=ghost password=x", wrong + `"ghost"`},
		{"password", "user=empty password=x", wrong + `"empty"`},
		{"password", "user=ümlaut password='pässwörd 1⁄2'", "<nil>"}, // SASLprep
		{"reject", "user=alice database=d", `FATAL 28000 pg_hba.conf rejects connection for host "127.0.0.1", user "alice", database "d", no encryption`},
		{"reject", "user=alice replication=1", `FATAL 28000 pg_hba.conf rejects replication connection for host "127.0.0.1", user "alice", no encryption`},
		{"ldap", "user=alice", `FATAL 0A000 authentication method "ldap", which line 1 of pg_hba.conf asks for, is not supported`},
	}
	servers := map[string]*server{}
	for _, c := range cases {
		s := servers[c.method]
		if s == nil {
			text := "host all,replication all 127.0.0.1/32 " + c.method
			s = startServer(t, testRoles(t).config(mustHBA(t, text)))
			servers[c.method] = s
		}
		if got := pgError(s.connect(t, "sslmode=disable "+c.dsn)); got != c.want {
			t.Errorf("%s, %s: %s; want %s", c.method, c.dsn, got, c.want)
		}
	}
	s := startServer(t, testRoles(t).config(mustHBA(t, "local all all trust")))
	want := `FATAL 28000 no pg_hba.conf entry for host "127.0.0.1", user "alice", database "d", no encryption`
	if got := pgError(s.connect(t, "sslmode=disable user=alice database=d")); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	want = `FATAL 28000 no pg_hba.conf entry for replication connection from host "127.0.0.1", user "alice", no encryption`
	if got := pgError(s.connect(t, "sslmode=disable user=alice replication=true")); got != want {
		t.Errorf("%s; want %s", got, want)
	}
	cfg := testRoles(t).config(nil)
	cfg.HBA = func() (*HBA, error) { return LoadHBA(filepath.Join(t.TempDir(), "none")) }
	s = startServer(t, cfg)
	if got := pgError(s.connect(t, "sslmode=disable user=alice")); got != "FATAL F0000 could not load pg_hba.conf" {
		t.Error(got)
	}
	var r *Rejection
	if err := <-s.errs; !errors.As(err, &r) || !strings.Contains(r.Log, "no such file") || !strings.Contains(err.Error(), r.Log) {
		t.Errorf("the log does not say why: %v", err)
	}
}

func TestAcceptWithTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testRoles(t).config(mustHBA(t, "hostssl all all all scram-sha-256\nhostnossl d all all reject"))
	cfg.TLS = func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
	s := startServer(t, cfg)
	if err := s.connect(t, "sslmode=require user=alice password=alice-secret"); err != nil {
		t.Fatal(err)
	}
	if c := s.client(t); c.TLS == nil || c.Method != "scram-sha-256" {
		t.Errorf("%+v", c)
	}
	want := `FATAL 28000 pg_hba.conf rejects connection for host "127.0.0.1", user "alice", database "d", no encryption`
	if got := pgError(s.connect(t, "sslmode=disable user=alice database=d")); got != want {
		t.Error(got)
	}
	want = `FATAL 28P01 password authentication failed for user "alice"`
	if got := pgError(s.connect(t, "sslmode=require user=alice password=x")); got != want {
		t.Error(got)
	}
	// psql asks for TLS first whenever it can.
	out, err := s.psql(t, "127.0.0.1", "alice", "alice-secret", "", "-c", ";")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// psql runs psql against the server and returns what it printed.
func (s *server) psql(t *testing.T, host, user, password, options string, args ...string) (string, error) {
	t.Helper()
	return s.psqlEnv(t, host, user, password, []string{"PGOPTIONS=" + options}, args...)
}

// psqlEnv is psql with more environment.
func (s *server) psqlEnv(t *testing.T, host, user, password string, env []string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		t.Skipf("psql is not installed: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-X", "-w", "-h", host, "-p", strconv.Itoa(s.port),
		"-U", user, "-d", "db 1"}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "PGPASSWORD=" + password}, env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestAcceptWithPsql(t *testing.T) {
	s := startServer(t, testRoles(t).config(mustHBA(t, `local all alice,mona scram-sha-256
host all +staff 127.0.0.1/32 scram-sha-256
host all ümlaut samehost scram-sha-256
host all mona 127.0.0.1 255.255.255.255 md5
local all all peer`)))

	out, err := s.psql(t, "127.0.0.1", "alice", "alice-secret",
		`-c gp_interconnect_type=proxy --search-path=a\ b`, "-c", ";")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := s.client(t)
	if c.User != "alice" || c.Database != "db 1" || c.Addr != "127.0.0.1" || c.Port == 0 || c.HBALine != 2 ||
		fmt.Sprint(c.Options) != "[{gp_interconnect_type proxy} {search_path a b}]" ||
		c.Params["application_name"] != "psql" || !strings.Contains(fmt.Sprint(c.Settings), "{search_path a b} {application_name psql}") {
		t.Errorf("%+v", c)
	}
	if out, err := s.psql(t, s.dir, "alice", "alice-secret", "", "-c", ";"); err != nil {
		t.Errorf("%v: %s", err, out)
	} else if c := s.client(t); c.Addr != "[local]" || c.Port != 0 || c.HBALine != 1 {
		t.Errorf("%+v", c)
	}
	if out, err := s.psql(t, "127.0.0.1", "mona", "mona-secret", "", "-c", ";"); err != nil {
		t.Errorf("%v: %s", err, out)
	} else if c := s.client(t); c.Method != "md5" {
		t.Errorf("%+v", c)
	}
	// libpq, unlike pgconn, prepares passwords as SASLprep says.
	if out, err := s.psql(t, "127.0.0.1", "ümlaut", "pässwörd 1⁄2", "", "-c", ";"); err != nil {
		t.Errorf("%v: %s", err, out)
	} else {
		s.client(t)
	}
	for _, f := range []struct{ host, user, password, options, want string }{
		{"127.0.0.1", "alice", "wrong", "", `FATAL:  password authentication failed for user "alice"`},
		{"127.0.0.1", "alice", "wrong", "-c x", `FATAL:  password authentication failed for user "alice"`},
		{"127.0.0.1", "alice", "", "", "fe_sendauth: no password supplied"},
		{"127.0.0.1", "carol", "x", "", `FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "carol", database "db 1", no encryption`},
		{s.dir, "carol", "x", "", `FATAL:  Peer authentication failed for user "carol"`},
		{s.dir, "alice", "alice-secret", "-X", `FATAL:  invalid command-line argument for server process: -X`},
		{s.dir, "alice", "alice-secret", "-c x", `FATAL:  -c x requires a value`},
	} {
		out, err := s.psql(t, f.host, f.user, f.password, f.options, "-c", ";")
		if err == nil || !strings.Contains(out, f.want) {
			t.Errorf("%+v: %v: %s", f, err, out)
		}
	}
}

func TestCancelAndRepeatedRequests(t *testing.T) {
	type key struct{ pid, secret uint32 }
	got := make(chan key, 1)
	cfg := testRoles(t).config(mustHBA(t, "host all all all trust"))
	cfg.Cancel = func(pid, secret uint32) { got <- key{pid, secret} }
	s := startServer(t, cfg)
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=alice sslmode=disable", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := <-got; k != (key{7, 9}) {
		t.Errorf("cancel of %+v", k)
	}
	if err := <-s.errs; !errors.Is(err, ErrCancelRequest) {
		t.Error(err)
	}

	// Each request for encryption is answered once; the second is taken for a
	// startup message, of a protocol nobody speaks.
	raw, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, code := range []uint32{gssRequestCode, sslRequestCode, sslRequestCode} {
		raw.Write(packet(binary.BigEndian.AppendUint32(nil, code)))
	}
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	out, _ := io.ReadAll(raw)
	if !strings.HasPrefix(string(out), "NNE") || !strings.Contains(string(out), "unsupported frontend protocol 1234.5679") {
		t.Errorf("%q", out)
	}
}

func TestNegotiateProtocol(t *testing.T) {
	s := startServer(t, testRoles(t).config(mustHBA(t, "host all all all trust")))
	raw, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	raw.Write(packet(startupBody(3<<16|7, "user", "alice", "_pq_.magic", "1")))
	f := pgproto3.NewFrontend(raw, raw)
	msg, err := f.Receive()
	n, ok := msg.(*pgproto3.NegotiateProtocolVersion)
	if err != nil || !ok || n.NewestMinorProtocol != 3<<16 || fmt.Sprint(n.UnrecognizedOptions) != "[_pq_.magic]" {
		t.Fatalf("%#v, %v", msg, err)
	}
	if msg, err = f.Receive(); err != nil {
		t.Fatal(err)
	}
	if _, ok := msg.(*pgproto3.AuthenticationOk); !ok {
		t.Fatalf("%#v", msg)
	}
	if err := s.connect(t, "user=alice sslmode=disable max_protocol_version=3.2"); err != nil {
		t.Error(err)
	}
}

// TestMockSalt holds that a role that does not exist has a salt like others:
// the same each time, its own, and different in another cluster.
func TestMockSalt(t *testing.T) {
	a, b := mockVerifier("ghost", []byte("n1")), mockVerifier("ghost", []byte("n1"))
	other, elsewhere := mockVerifier("ghost2", []byte("n1")), mockVerifier("ghost", []byte("n2"))
	if a.Salt != b.Salt || len(a.Salt) != 16 || a.Salt == other.Salt || a.Salt == elsewhere.Salt || a.Iters != 4096 {
		t.Errorf("%v %v %v %v", a, b, other, elsewhere)
	}
}

func TestParseVerifier(t *testing.T) {
	good := scramVerifier(t, "x")
	if v, err := parseVerifier(good); err != nil || v.Iters != 4096 || v.Salt != "0123456789abcdef" {
		t.Errorf("%+v, %v", v, err)
	}
	for _, bad := range []string{"", "x", "SCRAM-SHA-256$4096", "SCRAM-SHA-256$x:AA==$AA==:AA==",
		strings.Replace(good, "4096", "0", 1), strings.Replace(good, ":", "", 1), good[:len(good)-4], good + "=",
		md5Verifier("mona", "x")} {
		if _, err := parseVerifier(bad); err == nil {
			t.Errorf("%q is taken for a verifier", bad)
		}
	}
}

// pipeConn is one end of an in-memory connection that claims to be TCP.
type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: 1} }

// TestTimeouts holds that no client can keep Accept waiting, at any step.
func TestTimeouts(t *testing.T) {
	start := packet(startupBody(3<<16, "user", "alice"))
	for name, c := range map[string]struct {
		said  []byte
		after time.Duration
		want  error
	}{
		"silence":         {nil, DefaultStartupTimeout, ErrClientGone},
		"half a length":   {start[:2], DefaultStartupTimeout, ErrClientGone},
		"half a startup":  {start[:10], DefaultStartupTimeout, ErrClientGone},
		"no password":     {start, DefaultAuthTimeout, nil},
		"half a password": {append(start[:len(start):len(start)], "p\x00\x00\x00\x20SCR"...), DefaultAuthTimeout, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go theirs.Write(c.said)
				go io.Copy(io.Discard, theirs)
				began := time.Now()
				_, err := New(testRoles(t).config(mustHBA(t, "host all all all scram-sha-256"))).Accept(t.Context(), pipeConn{ours})
				if d := time.Since(began); d != c.after {
					t.Errorf("took %v, want %v", d, c.after)
				}
				var r *Rejection
				switch {
				case c.want != nil && !errors.Is(err, c.want):
					t.Error(err)
				case c.want == nil && (!errors.As(err, &r) || r.Code != "57014"):
					t.Error(err)
				}
			})
		})
	}
}

// TestAcceptCancelled holds that ending the context ends a login at once,
// even while the client takes nothing that is written to it.
func TestAcceptCancelled(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			stopping := errors.New("the server is stopping")
			ctx, cancel := context.WithCancelCause(t.Context())
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go func() {
				theirs.Write(packet(startupBody(3<<16, "user", "alice")))
				if !deaf {
					io.Copy(io.Discard, theirs)
				}
			}()
			time.AfterFunc(3*time.Second, func() { cancel(stopping) })
			began := time.Now()
			_, err := New(testRoles(t).config(mustHBA(t, "host all all all md5"))).Accept(ctx, pipeConn{ours})
			if !errors.Is(err, stopping) || time.Since(began) != 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

// TestMessageBounds holds that oversized messages are refused by their
// length, before any memory is taken for them.
func TestMessageBounds(t *testing.T) {
	start := packet(startupBody(3<<16, "user", "alice"))
	for name, c := range map[string]struct {
		method string
		said   []byte
		want   string
	}{
		"startup":  {"trust", []byte{0x7f, 0, 0, 0}, "08P01 invalid length of startup packet"},
		"short":    {"trust", []byte{0, 0, 0, 7}, "08P01 invalid length of startup packet"},
		"scram":    {"scram-sha-256", append(start[:len(start):len(start)], "p\x00\x01\x00\x00"...), "08P01 invalid message length"},
		"password": {"password", append(start[:len(start):len(start)], "p\x00\x10\x00\x00"...), "08P01 invalid message length"},
		"query":    {"password", append(start[:len(start):len(start)], "Q\x00\x00\x00\x04"...), "08P01 expected password response, got message type 81"},
		"no nul":   {"password", append(start[:len(start):len(start)], "p\x00\x00\x00\x05x"...), "08P01 invalid password packet size"},
		"nothing":  {"password", append(start[:len(start):len(start)], "p\x00\x00\x00\x05\x00"...), "28P01 empty password returned by client"},
		"mech":     {"scram-sha-256", append(start[:len(start):len(start)], "p\x00\x00\x00\x0aX\x00\x00\x00\x00\x00"...), "08P01 client selected an invalid SASL authentication mechanism"},
		"garbage":  {"scram-sha-256", append(start[:len(start):len(start)], "p\x00\x00\x00\x17SCRAM-SHA-256\x00\x00\x00\x00\x01x"...), "08P01 malformed SCRAM message"},
	} {
		conn := &scripted{Reader: strings.NewReader(string(c.said)), addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		_, err := New(testRoles(t).config(mustHBA(t, "host all all all "+c.method))).Accept(t.Context(), conn)
		var r *Rejection
		if !errors.As(err, &r) || r.Code+" "+r.Message != c.want || !conn.closed ||
			!strings.Contains(conn.out.String(), r.Message) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
