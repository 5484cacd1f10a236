package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// rowServer is the row source of the coordinator's PostgreSQL: a socket that
// speaks just enough of PostgreSQL's protocol for dblink. A query is a token;
// its rows are what the token's slice gathers.
type rowServer struct {
	path string
	log  *slog.Logger
	find func(ctx context.Context, encoding string) (string, *encoding, error) // nil: all is UTF-8
	ln   net.Listener

	mu      sync.Mutex
	sources map[string]func(ctx context.Context, sink func(row []byte) error) (columns int, err error)
}

func newRowServer(path string, log *slog.Logger) *rowServer {
	return &rowServer{path: path, log: log,
		sources: map[string]func(context.Context, func([]byte) error) (int, error){}}
}

// newToken returns a name nobody can guess.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// add makes a source available under its token until remove. The function
// returns the number of columns before the first row is sunk; it is called at
// most once at a time by each reading connection.
func (r *rowServer) add(token string, f func(context.Context, func([]byte) error) (int, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources[token] = f
}

func (r *rowServer) remove(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sources, token)
}

func (r *rowServer) listen() error {
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return err
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ln, err := net.Listen("unix", r.path)
	if err != nil {
		return err
	}
	r.ln = ln
	return os.Chmod(r.path, 0o700)
}

// serve answers PostgreSQL's backends until ctx ends.
func (r *rowServer) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { r.ln.Close() })
	defer stop()
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			r.log.Warn("row source: accept failed", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		wg.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			r.serveConn(ctx, conn)
		})
	}
}

// startupLimit bounds how long a backend may take to introduce itself.
const startupLimit = 10 * time.Second

func (r *rowServer) serveConn(ctx context.Context, conn net.Conn) {
	be := pgproto3.NewBackend(conn, conn)
	_ = conn.SetDeadline(time.Now().Add(startupLimit))
	for {
		m, err := be.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.StartupMessage); ok {
			break
		}
		if _, err := conn.Write([]byte{'N'}); err != nil {
			return
		}
	}
	_ = conn.SetDeadline(time.Time{})
	be.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{{"server_version", "15.0"}, {"client_encoding", "UTF8"}, {"standard_conforming_strings", "on"},
		{"integer_datetimes", "on"}, {"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}} {
		be.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	o := &out{be: be}
	o.flush()
	for o.err == nil {
		m, err := be.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			r.answer(ctx, conn, o, strings.TrimSpace(m.String))
			o.send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			o.flush()
		case *pgproto3.Terminate:
			return
		}
	}
}

// answer serves one token, or one of the settings dblink makes. They are
// accepted and change nothing, for values travel as the segments printed them;
// but for the encoding, which is the database's.
func (r *rowServer) answer(ctx context.Context, conn net.Conn, o *out, query string) {
	if strings.HasPrefix(strings.ToUpper(query), "SET ") {
		if name, ok := strings.CutPrefix(query, "set client_encoding to "); ok && r.find != nil {
			_, enc, err := r.find(ctx, strings.Trim(name, "'"))
			if err != nil {
				o.send(errorResponse(pgError(err)))
				return
			}
			o.enc = enc
		}
		o.send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
		return
	}
	r.mu.Lock()
	f := r.sources[query]
	r.mu.Unlock()
	if f == nil {
		o.send(errorResponse(sqlError("34000", "no such row source")))
		return
	}
	described := false
	sink := func(body []byte) error {
		if !described {
			o.send(describeText(int(body[0])<<8 | int(body[1])))
			described = true
		}
		o.send(rowBody(body))
		return o.err
	}
	n, err := f(ctx, sink)
	if err != nil {
		o.send(errorResponse(pgError(err)))
		return
	}
	if !described {
		o.send(describeText(n))
	}
	o.send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
}

// describeText describes n columns of text; the reader knows the real types.
func describeText(n int) *pgproto3.RowDescription {
	fields := make([]pgproto3.FieldDescription, n)
	for i := range fields {
		fields[i] = pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}
	}
	return &pgproto3.RowDescription{Fields: fields}
}
