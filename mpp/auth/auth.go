package auth

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Default time limits.
const (
	// DefaultStartupTimeout is how long a client may take from connecting to
	// its startup message: it has nothing to wait for.
	DefaultStartupTimeout = 10 * time.Second
	// DefaultAuthTimeout is PostgreSQL's authentication_timeout: some clients
	// keep the connection open while a person types the password.
	DefaultAuthTimeout = 60 * time.Second
)

// Config is what an Authenticator asks and tells the rest of the server. Its
// functions may be called by many goroutines at once and must heed ctx.
type Config struct {
	// HBA gives the rules in force. It is asked once for each connection.
	HBA func() (*HBA, error)

	// Verifier looks a role up in pg_authid. rolpassword is the stored
	// verifier, "" if there is none or its rolvaliduntil has passed. An error
	// that is a *pgconn.PgError is passed on to the client as FATAL.
	Verifier func(ctx context.Context, user string) (rolpassword string, exists, canLogin bool, err error)

	// MemberOf says whether user is role itself or a member of it, directly
	// or indirectly; being superuser does not count. It is asked for +role
	// and samerole. Roles that do not exist are members of nothing.
	MemberOf func(ctx context.Context, user, role string) (bool, error)

	// Cancel carries out a cancel request, if pid and secret are right. It
	// must not block. May be nil.
	Cancel func(pid, secret uint32)

	// TLS gives the configuration to encrypt TCP connections with. If it is
	// nil or answers nil, clients that ask are told there is no encryption.
	TLS func() *tls.Config

	// UserMaps gives the maps of pg_ident.conf. It is asked for each connection
	// under a rule with the option map. May be nil: then nobody is in a map.
	UserMaps func() (*UserMaps, error)

	// MockNonce makes up the salts of roles that do not exist, so that they
	// are as stable as real ones. Empty means random, new with each
	// Authenticator; keep one per cluster to hide restarts too.
	MockNonce []byte

	// StartupTimeout and AuthTimeout bound the wait for the startup message
	// and for the rest of the login; 0 means the defaults.
	StartupTimeout, AuthTimeout time.Duration
}

// Authenticator accepts client connections. It does not change after New and
// may be used by any number of goroutines.
type Authenticator struct {
	cfg Config
}

// New makes an Authenticator. HBA, Verifier and MemberOf must be given.
func New(cfg Config) *Authenticator {
	if cfg.HBA == nil || cfg.Verifier == nil || cfg.MemberOf == nil {
		panic("auth: Config.HBA, Verifier and MemberOf must be given")
	}
	if cfg.StartupTimeout == 0 {
		cfg.StartupTimeout = DefaultStartupTimeout
	}
	if cfg.AuthTimeout == 0 {
		cfg.AuthTimeout = DefaultAuthTimeout
	}
	if len(cfg.MockNonce) == 0 {
		cfg.MockNonce = make([]byte, 32)
		rand.Read(cfg.MockNonce)
	}
	return &Authenticator{cfg: cfg}
}

// Client is a connection whose user is known. It has been sent
// AuthenticationOk and nothing after it.
type Client struct {
	// Conn is the connection, encrypted if that was agreed on, without
	// deadlines. Nothing has been read past the login, so that it can be
	// relayed as it is as long as Backend has not been used.
	Conn net.Conn
	// Backend reads and writes Conn. It bounds the messages it reads only if
	// SetMaxBodyLen is called.
	Backend *pgproto3.Backend

	User     string // role name
	Database string // as asked for, or the user name
	// Addr is the client's IP address, or "[local]" on a unix socket; Port is
	// its port, 0 on a unix socket.
	Addr string
	Port int
	// Params are the startup message's parameters as they came.
	Params map[string]string
	// Options are the settings in the parameter "options", in order.
	Options []Option
	// Settings are all settings asked for, in the order in which PostgreSQL
	// applies them: Options, then the startup parameters that are settings.
	Settings []Option
	// Replication says whether this is to be a replication connection.
	Replication Replication
	// Method is the method of pg_hba.conf that was used and HBALine the
	// number of the line that said so.
	Method  string
	HBALine int
	// TLS is the state of the encryption, nil without.
	TLS *tls.ConnectionState
}

// Accept leads a new connection through to AuthenticationOk. It takes conn
// over: whenever it returns an error, the connection has been closed, after
// the client was told why if it was there to listen. It returns in bounded
// time, sooner if ctx ends. Errors are ErrCancelRequest (not a fault),
// ErrClientGone (wrapped), *Rejection, or the cause of ctx.
//
// Connections count as local if their remote address is a *net.UnixAddr.
func (a *Authenticator) Accept(ctx context.Context, conn net.Conn) (*Client, error) {
	c, last, err := a.accept(ctx, conn)
	if err == nil {
		return c, nil
	}
	defer conn.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, ErrCancelRequest) {
		return nil, err
	}
	var r *Rejection
	if errors.As(err, &r) {
		// The client gets a moment to take its error, not more.
		last.SetDeadline(time.Now().Add(time.Second))
		send(last, r.response())
		if last != conn {
			last.Close()
		}
		return nil, r
	}
	return nil, fmt.Errorf("%w: %w", ErrClientGone, err)
}

// accept does the work of Accept and also returns the connection as it last
// was, which is the encrypted one once there is encryption.
func (a *Authenticator) accept(ctx context.Context, raw net.Conn) (*Client, net.Conn, error) {
	// After a SetDeadline below comes a look at ctx, so that none of them can
	// undo this one.
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	limit := func(d time.Duration) error {
		raw.SetDeadline(time.Now().Add(d))
		return ctx.Err()
	}
	if err := limit(a.cfg.StartupTimeout); err != nil {
		return nil, raw, err
	}
	conn, s, err := a.readStartup(ctx, raw)
	if err != nil {
		return nil, conn, err
	}
	if err := limit(a.cfg.AuthTimeout); err != nil {
		return nil, conn, err
	}
	authCtx, cancel := context.WithTimeout(ctx, a.cfg.AuthTimeout)
	defer cancel()
	c := &Client{
		Conn: conn, User: s.user, Database: s.database, Params: s.params,
		Options: s.options, Replication: s.replication,
	}
	c.Settings = append(append(c.Settings, s.options...), s.settings...)
	if t, ok := conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.TLS = &state
	}
	if err := a.login(authCtx, c, s); err != nil {
		if ctx.Err() == nil && (authCtx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
			err = fatal(codeQueryCanceled, "canceling authentication due to timeout")
		}
		return nil, conn, err
	}
	if !stop() {
		return nil, conn, ctx.Err()
	}
	raw.SetDeadline(time.Time{})
	c.Backend = pgproto3.NewBackend(conn, conn)
	return c, conn, nil
}

// login finds the rule for a client, has it prove who it is and sends
// AuthenticationOk.
func (a *Authenticator) login(ctx context.Context, c *Client, s *startup) error {
	req := request{
		user: c.User, database: c.Database, replication: c.Replication,
		ssl: c.TLS != nil, memberOf: a.cfg.MemberOf,
	}
	switch addr := c.Conn.RemoteAddr().(type) {
	case *net.UnixAddr:
		req.local = true
		c.Addr = "[local]"
	case *net.TCPAddr:
		ap := addr.AddrPort()
		req.addr = ap.Addr().Unmap().WithZone("")
		c.Addr, c.Port = req.addr.String(), int(ap.Port())
	default:
		return fatal(codeFeatureNotSupported, "connections over %s are not supported", addr.Network())
	}
	hba, err := a.cfg.HBA()
	if err != nil {
		return fatal(codeConfigFile, "could not load pg_hba.conf").withLog("%v", err)
	}
	rule, err := hba.match(ctx, &req)
	if err != nil {
		return lookupFailed(err, "could not look up the memberships of role \"%s\"", c.User)
	}
	if rule == nil {
		return req.refusal("no pg_hba.conf entry for", c.Addr)
	}
	c.Method, c.HBALine = rule.Method, rule.Number
	if err := checkHasCert(rule, s.tls, c.TLS); err != nil {
		return err
	}
	if rule.Method == "reject" {
		return req.refusal("pg_hba.conf rejects", c.Addr)
	}
	if why := rule.unsupported(); why != "" {
		return fatal(codeFeatureNotSupported, "%s, which line %d of pg_hba.conf asks for, is not supported",
			why, rule.Number).hint("Use trust, reject, scram-sha-256, md5, password or cert, or peer on unix sockets.")
	}
	password, exists, canLogin, err := a.cfg.Verifier(ctx, c.User)
	if err != nil {
		return lookupFailed(err, "could not look up role \"%s\"", c.User)
	}
	e := exchange{conn: c.Conn, user: c.User, secret: password, nonce: a.cfg.MockNonce, binding: endPoint(s.tls)}
	switch {
	case !exists:
		e.secret, e.noSecret = "", fmt.Sprintf("role %q does not exist", c.User)
	case password == "":
		e.noSecret = fmt.Sprintf("role %q has no password assigned, or it has expired", c.User)
	}
	ok := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	switch rule.Method {
	case "trust", "cert":
	case "peer":
		err = a.checkPeer(rule, c.Conn, c.User)
	case "password":
		err = e.cleartext()
	default: // md5 or scram-sha-256
		if rule.Method == "md5" && isMD5(e.secret) {
			err = e.md5()
			break
		}
		var final pgproto3.BackendMessage
		final, err = e.scram()
		ok = append([]pgproto3.BackendMessage{final}, ok...)
	}
	if _, named := rule.needsCert(); named && err == nil {
		if why := a.checkCertName(rule, c.TLS, c.User); why != "" {
			err = certRefusal(rule, c.User).withLog("%s", why)
		}
	}
	var r *Rejection
	if errors.As(err, &r) && r.Log == "" {
		r.withLog("connection matched line %d of pg_hba.conf: %s", rule.Number, rule.Text)
	}
	if err != nil {
		return err
	}
	if !exists {
		return fatal(codeInvalidAuthorization, `role "%s" does not exist`, c.User)
	}
	if !canLogin {
		return fatal(codeInvalidAuthorization, `role "%s" is not permitted to log in`, c.User)
	}
	if s.optionsErr != nil {
		return s.optionsErr // only those who may log in hear of it
	}
	return send(c.Conn, ok...)
}

// lookupFailed passes on what PostgreSQL said, such as that it is starting
// up, and says only that there was a failure otherwise.
func lookupFailed(err error, format string, args ...any) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		r := fatal(pe.Code, "%s", pe.Message)
		r.Detail, r.Hint = pe.Detail, pe.Hint
		return r
	}
	return fatal(codeSystemError, format, args...).withLog("%v", err)
}
