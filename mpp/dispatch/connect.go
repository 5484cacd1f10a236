package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/motion"
)

// pgConfig is a connection configuration that takes nothing from the
// environment.
func pgConfig(user, database string, params map[string]string, dial func(ctx context.Context) (net.Conn, error)) (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig("host=/ port=1 user=x dbname=x password=x sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	cfg.User, cfg.Database, cfg.Password = user, database, ""
	cfg.RuntimeParams = params
	cfg.Fallbacks, cfg.TLSConfig, cfg.ValidateConnect = nil, nil, nil
	cfg.ConnectTimeout = 0 // the caller's context
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	return cfg, nil
}

func dialUnix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return local.DialQuiet(ctx, path) }
}

// transient says whether a failed connect is worth another try: the segment
// is starting, stopping or has just gone.
func transient(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return strings.HasPrefix(pe.Code, "57P0")
	}
	return true
}

// connectRetry connects, waiting for a server that is restarting as long as
// limit says.
func connectRetry(ctx context.Context, cfg *pgconn.Config, limit time.Duration) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, context.DeadlineExceeded)
	defer cancel()
	pause := 20 * time.Millisecond
	for {
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err == nil || !transient(err) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// connect makes the member's connection, waits for the segment's in-doubt
// transactions unless resolving is set, and applies the session's settings.
func (m *member) connect(ctx context.Context, resolving bool) error {
	g := m.g
	params := map[string]string{
		"gp_session_id":        strconv.Itoa(int(g.cfg.SessionID)),
		"gp_interconnect_type": g.cfg.InterconnectType,
	}
	if host, _, err := net.SplitHostPort(m.seg.Address); err == nil {
		params["gp_interconnect_address"] = host
	}
	maps.Copy(params, g.cfg.Startup)
	cfg, err := pgConfig(g.cfg.User, g.cfg.Database, params, dialUnix(m.seg.Dir.QESocket()))
	if err != nil {
		return err
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		switch {
		case n.Code == codeSnapshotTaken && m.onSnapshot != nil:
			m.onSnapshot()
		case g.cfg.OnNotice != nil:
			g.cfg.OnNotice(int(m.seg.Content), n)
		}
	}
	onError := cfg.OnPgError
	cfg.OnPgError = func(c *pgconn.PgConn, e *pgconn.PgError) bool {
		if m.onError != nil {
			m.onError()
		}
		return onError(c, e)
	}
	conn, err := connectRetry(ctx, cfg, g.d.p.ConnectTimeout)
	if err != nil {
		return m.connectError(ctx, err)
	}
	m.conn, m.pid, m.tuned, m.told = conn, conn.PID(), told(params), ""
	if m.reader == 0 {
		g.setBackend(m, m.pid)
	}
	m.peer = motion.Peer{Content: m.seg.Content, Dbid: m.seg.Dbid, Addr: conn.ParameterStatus("gp_qe_addr")}
	if n, err := strconv.ParseInt(conn.ParameterStatus("gp_qe_pid"), 10, 32); err == nil {
		m.peer.Pid = int32(n)
	}
	if resolving {
		return nil
	}
	if err := g.d.waitRecovered(ctx, m.seg); err != nil {
		m.drop()
		return err
	}
	if err := m.applySettings(ctx); err != nil {
		m.drop()
		return err
	}
	return nil
}

func (m *member) connectError(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return canceled(ctx)
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		c := *pe
		c.Message = fmt.Sprintf("failed to acquire resources on one or more segments: %s (seg%d %s)", c.Message, m.seg.Content, m.seg.Address)
		c.Severity, c.SeverityUnlocalized = "ERROR", "ERROR"
		return &Error{PgError: &c, Seg: int(m.seg.Content), Lost: true}
	}
	e := newError(codeConnectionFailure, fmt.Sprintf("failed to acquire resources on one or more segments: could not connect to seg%d %s", m.seg.Content, m.seg.Address), err)
	e.Detail = err.Error()
	e.Hint = "The segment may be restarting: try again, and see the instance's log if it does not come back."
	e.Seg, e.Lost = int(m.seg.Content), true
	return e
}

// applySettings sets the session's parameters on a new connection.
func (m *member) applySettings(ctx context.Context) error {
	var set map[string]string
	if m.g.cfg.Settings != nil {
		var err error
		if set, err = m.g.cfg.Settings(ctx); err != nil {
			return err
		}
	}
	if m.reader != 0 {
		m.has, set = set, m.g.d.readerSettings(set)
	}
	ctx, cancel := context.WithTimeout(ctx, m.g.d.p.ConnectTimeout)
	defer cancel()
	return m.set(ctx, set)
}

// set applies parameters in one round trip. The role comes last, since it may
// not be allowed to set the others.
func (m *member) set(ctx context.Context, settings map[string]string) error {
	settings, err := m.tune(ctx, settings)
	if len(settings) == 0 || err != nil {
		return err
	}
	order := func(k string) int {
		switch strings.ToLower(k) {
		case "session_authorization":
			return 1
		case "role":
			return 2
		}
		return 0
	}
	keys := slices.SortedFunc(maps.Keys(settings), func(a, b string) int {
		if d := order(a) - order(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var sql strings.Builder
	var values [][]byte
	oids := make([]uint32, 2*len(keys))
	for i, k := range keys {
		if i == 0 {
			sql.WriteString("SELECT ")
		} else {
			sql.WriteByte(',')
		}
		fmt.Fprintf(&sql, "pg_catalog.set_config($%d,$%d,false)", 2*i+1, 2*i+2)
		values = append(values, []byte(k), []byte(settings[k]))
		oids[2*i], oids[2*i+1] = 25, 25
	}
	if _, err := m.conn.ExecParams(ctx, sql.String(), values, oids, nil, nil).Close(); err != nil {
		return m.fail(err, 0, "")
	}
	return nil
}

// alive looks, without waiting, whether an idle connection is still there:
// nothing to read, or only what may come at any time.
func (m *member) alive() bool {
	if m.conn == nil || m.conn.IsClosed() {
		return false
	}
	var b [1]byte
	switch n, err := m.peek(b[:]); {
	case errors.Is(err, unix.EAGAIN):
		return true
	case err == nil && n == 1:
		return b[0] != 'E' // an error out of turn is the server's farewell
	}
	return false
}

// peek looks at what has come on the idle connection, without taking it.
func (m *member) peek(b []byte) (n int, err error) {
	s, ok := m.conn.Conn().(*local.Socket)
	if !ok {
		return 0, unix.EAGAIN
	}
	return s.Peek(b)
}

// gone gives up a connection that is not alive in the middle of a transaction
// and says why, in the server's own last words if it had any.
func (m *member) gone() *Error {
	err := io.EOF
	if m.conn != nil && !m.conn.IsClosed() {
		if pe := m.farewell(); pe != nil {
			err = pe
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = m.conn.Close(ctx)
	}
	return m.fail(err, 0, "")
}

// farewell is an error that has come out of turn, nil for none.
func (m *member) farewell() error {
	const header = 5
	b := make([]byte, 8<<10) // such a message has no text of a user's
	n, err := m.peek(b)
	if err != nil || n < header || b[0] != 'E' {
		return nil
	}
	end := 1 + int64(binary.BigEndian.Uint32(b[1:header]))
	var msg pgproto3.ErrorResponse
	if end > int64(n) || end < header || msg.Decode(b[header:end]) != nil {
		return nil
	}
	return pgconn.ErrorResponseToPgError(&msg)
}

// drop forgets the connection. Its transaction, if any, is rolled back by the
// segment.
func (m *member) drop() {
	if m.conn != nil {
		if !m.conn.IsClosed() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = m.conn.Close(ctx)
			cancel()
		}
		m.conn = nil
		m.g.setBackend(m, 0)
		if m.reader != 0 {
			m.g.d.mu.Lock()
			delete(m.g.d.readers, m)
			m.g.d.mu.Unlock()
		}
	}
	if m.begun {
		m.lost, m.begun = m.reader == 0, false
	}
}
