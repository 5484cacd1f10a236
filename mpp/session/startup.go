package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// gucPrefix is what PostgreSQL knows Greenplum's parameters under.
const gucPrefix = "trunkline."

// startSettings is what a client's startup message asks to set.
type startSettings struct {
	utility bool
	local   map[string]string // for PostgreSQL, Greenplum's names prefixed
	given   map[string]string // Greenplum's, canonical values
}

// splitSettings takes Greenplum's parameters out of PGOPTIONS and the startup
// parameters, and checks them as their context demands.
func splitSettings(c *auth.Client) (*startSettings, error) {
	st := &startSettings{local: map[string]string{}, given: map[string]string{}}
	set := func(name, value string) error {
		p, ok := guc.Lookup(name)
		if !ok {
			st.local[name] = value
			return nil
		}
		canonical, err := p.Parse(value)
		if err != nil {
			return err
		}
		if p.Context < guc.Backend {
			return guc.ErrCannotSet(p.Name, p.Context)
		}
		if (p.Name == "gp_role" || p.Name == "gp_session_role") && canonical == "utility" {
			st.utility = true
		}
		st.given[p.Name] = canonical
		st.local[gucPrefix+p.Name] = canonical
		return nil
	}
	for _, o := range c.Settings {
		if err := set(o.Name, o.Value); err != nil {
			return nil, err
		}
	}
	if c.Replication != auth.NoReplication {
		return nil, sqlError("0A000", "replication connections are made through the instance's unix socket, not through its port")
	}
	return st, nil
}

func (s *Server) newAuthenticator() *auth.Authenticator {
	return auth.New(auth.Config{
		HBA:      s.hba,
		Verifier: s.verifier,
		MemberOf: s.memberOf,
		TLS:      func() *tls.Config { return s.tls.config(s) },
		UserMaps: s.maps,
		Cancel:   func(pid, secret uint32) { go s.cancel(pid, secret) },
	})
}

// hba returns the rules of pg_hba.conf. A file that cannot be read keeps the
// rules of before in force, as PostgreSQL does on reload.
func (s *Server) hba() (*auth.HBA, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hbaRules != nil && !s.hbaStale {
		return s.hbaRules, nil
	}
	h, err := auth.LoadHBA(s.cfg.Dir.HBA())
	if err != nil {
		if s.hbaRules != nil {
			s.cfg.Log.Error("pg_hba.conf was not reloaded", "error", err)
			s.hbaStale = false
			return s.hbaRules, nil
		}
		return nil, err
	}
	s.hbaRules, s.hbaStale = h, false
	return h, nil
}

// maps returns the maps of pg_ident.conf, by the same rule.
func (s *Server) maps() (*auth.UserMaps, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.userMaps != nil && !s.mapsStale {
		return s.userMaps, nil
	}
	m, err := auth.LoadUserMaps(s.cfg.Dir.UserMaps())
	if err != nil {
		if s.userMaps != nil {
			s.cfg.Log.Error("pg_ident.conf was not reloaded", "error", err)
			s.mapsStale = false
			return s.userMaps, nil
		}
		return nil, err
	}
	s.userMaps, s.mapsStale = m, false
	return m, nil
}

// ask runs one query on the local server as superuser, until ctx ends.
func (s *Server) ask(ctx context.Context, sql string) (*result, error) {
	l, err := dialLink(ctx, s.pgSocket(), catalog.Superuser, "postgres", nil)
	if err != nil {
		return nil, err
	}
	defer l.close()
	defer context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })()
	return l.query(sql)
}

func (s *Server) verifier(ctx context.Context, user string) (password string, exists, canLogin bool, err error) {
	res, err := s.ask(ctx, "SELECT CASE WHEN rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now() THEN rolpassword END, rolcanlogin FROM pg_catalog.pg_authid WHERE rolname = "+catalog.Literal(user))
	if err != nil || len(res.rows) == 0 {
		return "", false, false, err
	}
	return string(res.rows[0][0]), true, string(res.rows[0][1]) == "t", nil
}

// memberOf follows memberships itself: to pg_has_role a superuser is a member of
// every role, and a rule for +role would be one for him.
func (s *Server) memberOf(ctx context.Context, user, role string) (bool, error) {
	res, err := s.ask(ctx, fmt.Sprintf(`WITH RECURSIVE m (oid) AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %s
			UNION SELECT a.roleid FROM pg_catalog.pg_auth_members a JOIN m ON a.member = m.oid)
		SELECT EXISTS (SELECT FROM m JOIN pg_catalog.pg_roles r ON r.oid = m.oid WHERE r.rolname = %s)`,
		catalog.Literal(user), catalog.Literal(role)))
	if err != nil {
		return false, err
	}
	return string(res.value()) == "t", nil
}

// relay is a utility-mode connection: the instance's own PostgreSQL, and
// nothing of the cluster.
type relay struct{ link *link }

func (s *Server) relay(ctx context.Context, c *auth.Client, st *startSettings) {
	l, err := dialLink(ctx, s.pgSocket(), c.User, c.Database, st.local)
	if err != nil {
		sendFatal(c, err)
		return
	}
	defer l.conn.Close()
	s.mu.Lock()
	s.relays[l.pid] = &relay{link: l}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.relays, l.pid)
		s.mu.Unlock()
	}()
	greet(c.Backend, l, l.params[encodingParameter])
	if c.Backend.Flush() != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(l.conn, c.Conn)
		closeWrite(l.conn)
	}()
	_, _ = io.Copy(c.Conn, l.conn)
	c.Conn.Close()
	<-done
}

func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
	}
}

// greet tells a client what it needs before its first query. enc is its
// client_encoding.
func greet(be *pgproto3.Backend, l *link, enc string) {
	for name, value := range l.params {
		if name == encodingParameter {
			value = enc
		}
		be.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	be.Send(&pgproto3.BackendKeyData{ProcessID: l.pid, SecretKey: l.secret})
	be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
}
