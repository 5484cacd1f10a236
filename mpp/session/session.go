package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
)

// Session is one client of the coordinator.
type Session struct {
	srv    *Server
	ctx    context.Context
	id     int32
	client *auth.Client
	out    out
	link   *link
	gang   *dispatch.Gang
	log    func(msg string, args ...any)

	icType string
	// motionParams are the parameters of motions as the QD's end has them.
	// The map is replaced, not changed.
	motionParams map[string]string
	ic           motion.Interconnect // made when first needed
	command      uint32              // of the last dispatched command

	terminated atomic.Bool   // by pg_terminate_backend()
	done       chan struct{} // closed when the session is over
	cache      cache

	txn   txn
	prep  map[string]*prepared // by the client's names; PREPARE's too
	portl map[string]*portal

	// pending is the CommandComplete that is held back until it is known
	// whether the implicit transaction can be committed.
	pending       *pgproto3.CommandComplete
	inBatch       bool                     // a message of the extended protocol is being handled
	ahead         pgproto3.FrontendMessage // that has come and was only looked at; see lastOfBatch
	aheadErr      error                    // in place of it
	skipToSync    bool                     // an extended-protocol error: ignore up to Sync
	unnamedLost   bool                     // the link's unnamed statement is not the client's any more
	rowsConnected bool                     // the link's row source connection is open
	path          uint64                   // counts what may have changed the meaning of names
	settingsDirty bool                     // parameters may differ from the gang's
	reloads       uint64                   // of the server, when they were last read
	settingsLost  bool                     // applied is not what the gang's connections have
	waits         map[string]time.Duration // lockTimeout and statementTimeout, 0 for none
	applied       map[string]string        // what the gang's connections were given; nil: there is none yet
	given         map[string]string        // the same and what they were given before, maybe in a transaction that was rolled back
	typeNames     map[uint32]string
	encoding      clientEncoding
	awaited       *definer // whose end it has waited for last
	unsteady      int      // counts what makes a plan good for one run only
	era           string   // of the link's server; see dispatch.EraSQL
	rng           uint32
	idle          idleTimeouts

	cancelling sync.Mutex // held by who cancels what runs

	mu        sync.Mutex         // guards what other goroutines touch:
	cancelRun context.CancelFunc // ends the statement that runs now
	notices   []*pgconn.Notice   // segments' that wait for the end of the statement
	hushed    bool               // segments' notices are of no interest
	analysis  *analysis          // of EXPLAIN ANALYZE, while it runs
}

// newSession connects the session to its PostgreSQL and greets the client.
func (s *Server) newSession(ctx context.Context, c *auth.Client, st *startSettings) (*Session, error) {
	id := s.nextID.Add(1)
	l, err := dialLink(ctx, s.pgSocket(), c.User, c.Database, st.local)
	if err != nil {
		return nil, err
	}
	sess := &Session{srv: s, ctx: ctx, id: id, client: c, out: out{be: c.Backend}, link: l,
		prep: map[string]*prepared{}, portl: map[string]*portal{}, done: make(chan struct{})}
	sess.log = s.cfg.Log.With("session", id).Debug
	if err := sess.startEncoding(); err != nil {
		l.close()
		return nil, err
	}
	// Parameters that are fixed at connection start keep the value they have
	// now, whatever a later reload brings; the motions' are read with them.
	res, err := l.query(motionSettings(nil))
	if err != nil {
		l.close()
		return nil, err
	}
	sess.motionParams = map[string]string{}
	for _, row := range res.rows {
		sess.motionParams[strings.TrimPrefix(string(row[0]), gucPrefix)] = string(row[1])
	}
	if err := sess.sensible(sess.motionParams); err != nil {
		l.close()
		return nil, err
	}
	sess.icType = sess.motionParams[guc.InterconnectType]
	sess.gang = s.dispatch.NewGang(dispatch.GangConfig{SessionID: id, User: c.User, Database: c.Database,
		InterconnectType: sess.icType, CoordinatorPID: l.pid, Startup: passedOn(sess.motionParams),
		Settings: sess.gangSettings, OnNotice: sess.segmentNotice})
	l.onNotice = sess.fromLink
	l.onBegin = func() { sess.txn.implicit = true }
	s.mu.Lock()
	s.sessions[l.pid] = sess
	s.mu.Unlock()
	greet(c.Backend, l, sess.encoding.name)
	sess.out.flush()
	return sess, nil
}

// serve runs the session until the client leaves or the link breaks.
func (s *Session) serve() {
	defer close(s.done)
	defer s.close()
	idle := true // the client was told ReadyForQuery
	for s.out.err == nil {
		receive := s.receive
		if idle {
			s.restoreIdle()
			receive = s.receiveIdle
		}
		m, err := receive()
		if err != nil || s.link.broken != nil {
			s.refuseNonsense(err)
			return
		}
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
			idle = true
		default:
			idle = false
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			s.flushPending()
			s.skipToSync = false
			s.simpleQuery(m)
		case *pgproto3.FunctionCall:
			s.flushPending()
			s.skipToSync = false
			s.functionCall(m)
		case *pgproto3.Terminate:
			return
		case *pgproto3.CopyData, *pgproto3.CopyDone, *pgproto3.CopyFail:
			// What is left of a COPY that failed.
		default:
			s.extended(m)
		}
		if s.link.broken != nil {
			sendFatal(s.client, s.link.broken)
			return
		}
	}
}

// goodbyeLimit is how long a session may take to end its statement when the
// server stops.
const goodbyeLimit = 3 * time.Second

// shutdown ends the session from outside: its statement, then itself.
func (s *Session) shutdown(conn net.Conn) {
	s.cancelStatement()
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // it finds out when it next waits
	t := time.NewTimer(goodbyeLimit)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
		s.link.conn.Close()
		conn.Close()
	}
}

func errShutdown() error {
	return sqlError("57P01", "terminating connection due to administrator command")
}

// refuseNonsense tells a client that is still there why it could not be
// understood.
func (s *Session) refuseNonsense(err error) {
	if s.ctx.Err() != nil {
		sendFatal(s.client, errShutdown())
		return
	}
	var ne net.Error
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &ne) {
		return
	}
	sendFatal(s.client, sqlError("08P01", "invalid message from the client: %v", err))
}

func (s *Session) close() {
	s.srv.mu.Lock()
	delete(s.srv.sessions, s.link.pid)
	s.srv.mu.Unlock()
	s.cancelStatement()
	for _, p := range s.portl {
		s.closePortal(p)
	}
	s.endSources()
	s.link.close()
	s.gang.Close()
	s.endDefining()
	s.leaveLine()
	if s.ic != nil {
		s.ic.Close()
	}
}

// cancelStatement ends what runs now, if something does, and nothing that comes
// after it. Any goroutine may call it.
func (s *Session) cancelStatement() {
	s.cancelling.Lock()
	defer s.cancelling.Unlock()
	s.mu.Lock()
	cancel := s.cancelRun
	s.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	s.gang.Cancel()
	_ = s.link.cancel(context.Background())
}

// statementContext is the context of a statement, which a cancel request
// ends. The returned function must be called when the statement is over.
func (s *Session) statementContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.mu.Lock()
	s.cancelRun = cancel
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		s.cancelRun = nil
		s.mu.Unlock()
		cancel()
		s.cancelling.Lock() // one that is on its way to a server must not hit the next
		defer s.cancelling.Unlock()
	}
}

// local runs SQL on the coordinator's PostgreSQL for the session itself. It
// costs the client its unnamed statement, which extended() makes good.
func (s *Session) local(sql string) (*result, error) {
	defer s.link.mute()()
	return s.evaluate(sql)
}

// evaluate is local for SQL with expressions of the client's in it, whose
// notices the client gets.
func (s *Session) evaluate(sql string) (*result, error) {
	s.unnamedLost = true
	return s.link.query(sql)
}

// self is the QD's end of a motion.
func (s *Session) self() motion.Peer {
	p := motion.Peer{Content: s.srv.cfg.Content, Dbid: s.srv.cfg.Dbid, Pid: int32(s.link.pid)}
	if s.ic != nil {
		p.Addr = s.ic.Addr()
	}
	return p
}

func (s *Session) selfPeers() []motion.Peer { return []motion.Peer{s.self()} }

func (s *Session) numSegments() int { return len(s.srv.segments()) }

func (s *Session) notice(severity, code, message, hint string) {
	s.out.send(&pgproto3.NoticeResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message, Hint: hint})
}

// complete notes what the statement is to be reported as.
func (s *Session) complete(tag string) {
	s.flushPending()
	s.passNotices()
	s.pending = &pgproto3.CommandComplete{CommandTag: []byte(tag)}
}

func (s *Session) flushPending() {
	if s.pending != nil {
		s.out.send(s.pending)
		s.pending = nil
	}
}

// poison puts the link's transaction block in the failed state after a part
// of the transaction elsewhere has failed.
func (s *Session) poison() {
	if s.link.status == 'T' {
		if _, err := s.local("SELECT pg_catalog.gp_fail()"); err == nil {
			s.link.fail(errors.New("the transaction could not be marked as failed"))
		}
	}
}

// internal is an error nobody should see.
func internal(format string, args ...any) error {
	return sqlError("XX000", "%s", fmt.Sprintf(format, args...))
}
