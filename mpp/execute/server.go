package execute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

const (
	// startupTimeout bounds the time from accept to the startup message, so
	// that a silent client does not hold a session for ever.
	startupTimeout = 10 * time.Second
	// cancelTimeout bounds a cancel request to the local PostgreSQL.
	cancelTimeout = 5 * time.Second
)

// lastPid numbers the executors of the process, two for each; see
// motion.Peer.Pid and SendingEnd.
var lastPid atomic.Int32

// SendingEnd is an executor as the sender of a motion between segments. It may
// be a receiver of the same motion, and the two ends of its rows to itself must
// have two names, as they have in Greenplum, where they are two processes.
func SendingEnd(p motion.Peer) motion.Peer {
	p.Pid++
	return p
}

// Config says which instance a Server executes for.
type Config struct {
	// Dir is the instance's data directory; its PostgreSQL is reached through
	// the unix socket there.
	Dir     datadir.Dir
	Content int16
	Dbid    uint16
	// Port is the instance's: its PostgreSQL looks for the row source of
	// motions between segments under that number in Dir.RowsDir. 0: there is
	// none, and no slice can have inputs.
	Port int
	// Address is where the built-in interconnects udpifc and tcp listen; see
	// Interconnects.
	Address string
	// Cause is for the built-in interconnect proxy; see Interconnects.
	Cause func(ctx context.Context, dbid uint16, lost bool) string
	// NewInterconnect makes the interconnect of one QE; typ and params are
	// the session's gp_interconnect_type and all gp_… startup parameters. Nil
	// means the types built in. An error is reported when the session first
	// uses a motion, not when it connects.
	NewInterconnect func(typ string, params map[string]string) (motion.Interconnect, error)
	// Own returns the instance's values of the parameters in guc.Motions that
	// no dispatcher passes on (NoSync), as they are in force now. It is called
	// by NewServer and Reload. Nil, or an absent value, means the default.
	Own func() map[string]string
	// Log may be nil.
	Log *slog.Logger
}

// Server accepts dispatch connections. Its methods may be called concurrently.
type Server struct {
	cfg    Config
	log    *slog.Logger
	rows   *rowsource.Server                 // nil: none
	queues *rowsource.Memory                 // of what motions have brought
	own    atomic.Pointer[map[string]string] // never nil; the map is not changed

	mu       sync.Mutex
	sessions map[string]*session // by the local PostgreSQL's key data
}

// NewServer returns a server for one instance. It opens nothing yet.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Log, sessions: make(map[string]*session), queues: rowsource.NewMemory(rowsource.InstanceMemory)}
	if s.cfg.NewInterconnect == nil {
		s.cfg.NewInterconnect = Interconnects{Dir: cfg.Dir, Content: cfg.Content, Address: cfg.Address, Cause: cfg.Cause, Log: cfg.Log, Loops: new(proxied.Loops)}.New
	}
	s.readOwn()
	return s
}

// Serve accepts connections on l until ctx ends, then closes l and every
// session, waits for them and returns nil. It returns early only when l fails.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Passes of a process that was killed.
	_ = os.RemoveAll(s.cfg.Dir.ReadsDir())
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	if s.cfg.Port != 0 {
		rows, err := rowsource.Listen(rowsource.Config{
			Path:    filepath.Join(s.cfg.Dir.RowsDir(), fmt.Sprintf(".s.PGSQL.%d", s.cfg.Port)),
			Failure: errorResponse, Log: s.log,
		})
		if err != nil {
			return fmt.Errorf("row source: %w", err)
		}
		s.rows = rows
		wg.Go(func() { rows.Serve(ctx) })
	}
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED) {
				s.log.Warn("cannot accept a dispatch connection", "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			return fmt.Errorf("dispatch socket %s: %w", l.Addr(), err)
		}
		wg.Go(func() {
			defer c.Close()
			unwatch := context.AfterFunc(ctx, func() { c.Close() })
			defer unwatch()
			if err := checkPeer(c); err != nil {
				s.log.Warn("dispatch connection refused", "err", err)
				return
			}
			s.serve(ctx, local.Quiet(c))
		})
	}
}

// checkPeer refuses other OS users on a unix socket. Other kinds of
// connection, which only tests make, are not checked.
func checkPeer(c net.Conn) error {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("uid %d may not dispatch to an instance of uid %d", cred.Uid, os.Geteuid())
	}
	return nil
}

func (s *Server) register(key string, q *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[key] = q
	q.tuneOwn() // a Reload since it was made has not seen it
}

func (s *Server) unregister(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, key)
}

func (s *Server) byKey(key string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[key]
}

// dialPG connects to the local PostgreSQL server.
func (s *Server) dialPG(ctx context.Context) (net.Conn, error) {
	pm, err := s.cfg.Dir.Postmaster()
	if err != nil {
		return nil, err
	}
	return local.DialQuiet(ctx, fmt.Sprintf("%s/.s.PGSQL.%d", s.cfg.Dir.SocketDir(), pm.Port))
}
