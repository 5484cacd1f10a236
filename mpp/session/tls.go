package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/catalog"
)

// encryptionLimit bounds how long a reload, or a client, waits for the
// parameters of encryption.
const encryptionLimit = 3 * time.Second

// encryption is what the connections of clients are encrypted with. The server
// itself has none of them, for its PostgreSQL is reached over a unix socket
// only; but that knows the parameters, whichever way they were set.
type encryption struct {
	cfg   atomic.Pointer[tls.Config]
	known atomic.Bool   // cfg is what the parameters said when they were last read
	reads atomic.Uint64 // attempts to read them that have ended
	mu    sync.Mutex    // held while they are read
}

// config returns what to encrypt a new connection with, nil when encryption is
// off.
func (e *encryption) config(s *Server) *tls.Config {
	if !e.known.Load() {
		n := e.reads.Load()
		e.mu.Lock()
		defer e.mu.Unlock()
		// What came of somebody else's attempt counts for all who have waited
		// for it: a server that does not answer would let each client wait for
		// those before it.
		if !e.known.Load() && e.reads.Load() == n {
			if err := e.read(s); err != nil {
				s.cfg.Log.Error("SSL configuration was not loaded", "error", err)
			}
		}
	}
	return e.cfg.Load()
}

// reload reads parameters and files again. As in PostgreSQL, what cannot be used
// leaves in force what was.
func (e *encryption) reload(s *Server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.read(s); err != nil {
		s.cfg.Log.Error("SSL configuration was not reloaded", "error", err)
	}
}

// LoadTLS reads what connections are to be encrypted with, for at most
// 3 seconds; it is called before Serve. The error says why there is nothing
// to encrypt with though ssl is on: as in PostgreSQL, the instance must not start
// then. That PostgreSQL does not tell its parameters is no error: the first client
// has them read again.
func (s *Server) LoadTLS() error {
	s.tls.mu.Lock()
	defer s.tls.mu.Unlock()
	if err := s.tls.read(s); err != nil {
		return fmt.Errorf("ssl is on, but connections cannot be encrypted: %w", err)
	}
	return nil
}

// read has mu. The error is one of the parameters' values or of the files.
func (e *encryption) read(s *Server) error {
	defer e.reads.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), encryptionLimit)
	defer cancel()
	names := make([]string, len(auth.TLSParameters))
	for i, n := range auth.TLSParameters {
		names[i] = catalog.Literal(n)
	}
	res, err := s.ask(ctx, fmt.Sprintf("SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN (%s)", strings.Join(names, ", ")))
	if err != nil { // the next client tries again
		e.known.Store(false)
		s.cfg.Log.Error("the parameters of SSL could not be read", "error", err)
		return nil
	}
	defer e.known.Store(true) // when cfg is there
	param := map[string]string{}
	for _, row := range res.rows {
		param[string(row[0])] = string(row[1])
	}
	cfg, err := auth.LoadTLS(string(s.cfg.Dir), param)
	if err == nil {
		e.cfg.Store(cfg)
	}
	return err
}
