package session

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
	"github.com/trunkline-db/trunkline/topology"
)

// Role says what an instance's port is for.
type Role int

const (
	Coordinator Role = iota // sessions of clients: the QD
	Segment                 // utility-mode connections only
	Standby                 // none until it is activated
)

// Config makes a Server.
type Config struct {
	Dir     datadir.Dir
	Dbid    uint16
	Content int16
	Port    int
	Address string // host part of the instance's port; motions listen there
	Role    Role
	// Listener accepts the clients. The server closes it.
	Listener net.Listener
	// Instances returns the cluster's configuration. Called often; must be cheap.
	Instances func() []topology.Instance
	// NewInterconnect makes the QD's access to motions of a type.
	NewInterconnect func(typ string, params map[string]string) (motion.Interconnect, error)
	Log             *slog.Logger
}

// Server serves the port of one instance.
type Server struct {
	cfg       Config
	auth      *auth.Authenticator
	dispatch  *dispatch.Dispatcher // coordinator only
	rows      *rowsource.Server    // coordinator only, while it serves
	queues    *rowsource.Memory    // of sources that are read in portions
	encodings encodings            // coordinator only
	tls       encryption

	nextID      atomic.Int32
	estimates   estimates
	catalogTick atomic.Uint64 // counts DDL; sessions drop what they know of relations
	definitions definitions   // coordinator only
	reloads     atomic.Uint64 // sessions look at their parameters again
	hidden      hiddenCalls   // coordinator only
	lines       lines         // coordinator only
	byteLocales sync.Map      // names of locales to whether they compare bytes, of those that were asked for

	mu        sync.Mutex
	sessions  map[uint32]*Session // by the pid clients cancel with
	relays    map[uint32]*relay
	draining  bool
	idle      chan struct{} // closed when draining and the last client has left
	clients   int
	hbaRules  *auth.HBA
	hbaStale  bool // reread it for the next client
	userMaps  *auth.UserMaps
	mapsStale bool
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, queues: rowsource.NewMemory(rowsource.InstanceMemory), sessions: map[uint32]*Session{}, relays: map[uint32]*relay{}, idle: make(chan struct{})}
	s.auth = s.newAuthenticator()
	if cfg.Role == Coordinator {
		s.dispatch = dispatch.New(dispatch.Config{Segments: s.segments, Coordinator: cfg.Dir, Log: cfg.Log})
		s.encodings.ask = s.ask
	}
	return s
}

// encodeRows brings the rows of sources into a database's encoding.
func (s *Server) encodeRows(ctx context.Context, name string) (func(pgproto3.BackendMessage) (pgproto3.BackendMessage, error), error) {
	_, enc, err := s.encodings.find(ctx, name)
	if err != nil || enc == nil {
		return nil, err
	}
	return (&toClient{enc: enc}).message, nil
}

// segments lists the primaries in the order of their content ids.
func (s *Server) segments() []dispatch.Segment {
	var segs []dispatch.Segment
	for _, in := range s.cfg.Instances() {
		if in.Content >= 0 && in.Role == 'p' {
			segs = append(segs, dispatch.Segment{Content: in.Content, Dbid: in.Dbid, Dir: datadir.Dir(in.Datadir),
				Address: net.JoinHostPort(in.Address, strconv.Itoa(in.Port))})
		}
	}
	return segs
}

// pgSocket is the socket of the instance's own PostgreSQL.
func (s *Server) pgSocket() string {
	return filepath.Join(s.cfg.Dir.SocketDir(), ".s.PGSQL."+strconv.Itoa(s.cfg.Port))
}

// Serve accepts clients until ctx ends; then it ends their sessions and
// returns when all are gone.
func (s *Server) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if s.cfg.Role == Coordinator {
		rows, err := rowsource.Listen(rowsource.Config{
			Path:    filepath.Join(s.cfg.Dir.RowsDir(), ".s.PGSQL."+strconv.Itoa(s.cfg.Port)),
			Failure: func(err error) *pgproto3.ErrorResponse { return errorResponse(pgError(err)) },
			Encode:  s.encodeRows, Order: s.order, Log: s.cfg.Log,
		})
		if err != nil {
			return err
		}
		s.rows = rows
		wg.Go(func() { rows.Serve(ctx) })
		wg.Go(func() { _ = s.dispatch.Recover(ctx) })
	}
	stopAccept := context.AfterFunc(ctx, func() { s.cfg.Listener.Close() })
	defer stopAccept()
	for {
		conn, err := s.cfg.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isTemporary(err) {
				s.cfg.Log.Warn("accept failed", "error", err)
				time.Sleep(50 * time.Millisecond) // out of descriptors: give it a moment
				continue
			}
			return err
		}
		wg.Go(func() { s.serveConn(ctx, conn) })
	}
}

// Reload is called after the configuration files were read again.
func (s *Server) Reload() {
	s.mu.Lock()
	s.hbaStale, s.mapsStale = true, true
	s.mu.Unlock()
	s.tls.reload(s)
	s.catalogTick.Add(1)
	s.reloads.Add(1)
}

// Sessions counts the clients that are connected.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients
}

// Drain refuses new clients and waits for those that are connected to leave.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		if s.clients == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.clients++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	if s.draining && s.clients == 0 {
		close(s.idle)
	}
}

// serveConn serves one client from its first byte to its last.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	conn = local.Quiet(conn)
	defer conn.Close()
	client, err := s.auth.Accept(ctx, conn)
	if err != nil {
		if !errors.Is(err, auth.ErrCancelRequest) {
			s.cfg.Log.Info("connection refused", "from", conn.RemoteAddr().String(), "error", err)
		}
		return
	}
	// An encrypted connection says that it ends, lest the client think that it
	// was cut.
	defer client.Conn.Close()
	fatal := func(err error) { sendFatal(client, err) }
	if !s.enter() {
		fatal(sqlError("57P03", "the database system is shutting down"))
		return
	}
	defer s.leave()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	settings, err := splitSettings(client)
	if err != nil {
		fatal(err)
		return
	}
	switch {
	case s.cfg.Role == Standby:
		fatal(sqlError("57P03", "the database system is in recovery mode"))
	case settings.utility:
		s.relay(ctx, client, settings)
	case s.cfg.Role == Segment:
		e := sqlError("57P03", "This database instance is running as a primary segment in a Greenplum cluster and does not permit direct connections.")
		e.Hint = "To force a connection anyway (dangerous!), use utility mode."
		fatal(e)
	default:
		sess, err := s.newSession(ctx, client, settings)
		if err != nil {
			fatal(err)
			return
		}
		stop() // the session says goodbye first
		defer context.AfterFunc(ctx, func() { sess.shutdown(conn) })()
		sess.serve()
	}
}

// cancel is what a CancelRequest asks for.
func (s *Server) cancel(pid, secret uint32) {
	s.mu.Lock()
	sess, rel := s.sessions[pid], s.relays[pid]
	s.mu.Unlock()
	match := func(l *link) bool { return len(l.secret) == 4 && binary.BigEndian.Uint32(l.secret) == secret }
	switch {
	case sess != nil && match(sess.link):
		sess.cancelStatement()
	case rel != nil && match(rel.link):
		ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		_ = rel.link.cancel(ctx)
	}
}
