// Package rowsource gives a PostgreSQL server rows that a motion has brought.
//
// The server reads them with pg_catalog.gp_motion_recv(), which is dblink: a
// Server speaks just enough of PostgreSQL's protocol for that, on a unix
// socket. A query is a token, known to those alone who wrote it into a
// statement; its answer is the rows of the Source of that token. A Spool keeps
// rows that nobody can read yet.
package rowsource

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Source is the rows of one token.
type Source struct {
	// Columns is how many columns the rows have, at least 1. Rows without any are
	// read as rows of one, which is NULL: whoever reads has to name one.
	Columns int
	// Styles are parameters as they were when the rows' values were printed,
	// such as DateStyle: the reader takes the values accordingly. Nil means
	// PostgreSQL's defaults. It is called before Rows.
	Styles func() map[string]string
	// Rows gives every row, the body of a DataRow message with values in text
	// form, to sink, which does not keep it, and returns sink's error when
	// there is one. Each reading connection calls it at most once at a time.
	// ctx ends with the Server.
	Rows func(ctx context.Context, sink func(row []byte) error) error
	// Queue has the rows in place of Rows. They can be asked for in portions then,
	// as they come, while a query for the token waits for the last of them: "token N
	// next" waits for portion N+1 and answers with its name, "token N+1", or nothing
	// at the end, and the name is the query for its rows; portion 0 is empty. What
	// has been read can be read again. With Rows as well, which a query for the token
	// alone is answered by, Fill has them put into the queue: it is called before
	// each portion and does not wait.
	Queue *Queue
	Fill  func(ctx context.Context)
}

// Config says how a Server works.
type Config struct {
	// Path is where the socket is. Its folder is made if it is missing.
	Path string
	// Failure is an error as the reader sees it.
	Failure func(error) *pgproto3.ErrorResponse
	// Encode returns what brings messages into an encoding other than UTF-8,
	// a nil function for one that needs nothing done. It is called for each
	// connection; its function may say nil for what cannot be sent. Nil
	// refuses all other encodings.
	Encode func(ctx context.Context, name string) (func(pgproto3.BackendMessage) (pgproto3.BackendMessage, error), error)
	// Order answers the queries of connections to the database OrderDatabase,
	// which only functions of the superuser's make: they are no tokens, but
	// ask something of the session server. Nil refuses them.
	Order func(text string) (answer string, err error)
	// Log may be nil.
	Log *slog.Logger
}

// OrderDatabase is the database that a connection for orders names.
const OrderDatabase = "orders"

// Server is the row source of one PostgreSQL server. Its methods may be called
// concurrently.
type Server struct {
	cfg Config
	ln  net.Listener

	mu      sync.Mutex
	sources map[string]Source
}

// Row is a DataRow message whose body is in wire form already, as motions
// carry it.
type Row []byte

// Backend implements pgproto3.BackendMessage.
func (Row) Backend() {}

// Decode is not possible: a Row is only sent.
func (Row) Decode([]byte) error { return errors.New("rowsource: a Row is write-only") }

// Encode appends the message to dst.
func (r Row) Encode(dst []byte) ([]byte, error) {
	n := uint32(len(r) + 4)
	dst = append(dst, 'D', byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(dst, r...), nil
}

// oneNull is the body of a row of one column.
var oneNull = []byte{0, 1, 0xff, 0xff, 0xff, 0xff}

// NewToken returns a name nobody can guess.
func NewToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Listen makes the socket, in place of one left from an earlier life, for the
// owner of its folder alone, and a Server that Serve must be called of.
func Listen(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Dir(cfg.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(cfg.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", cfg.Path)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(cfg.Path, 0o700)
	if err == nil && os.Geteuid() == 0 {
		err = giveTo(cfg.Path, dir)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &Server{cfg: cfg, ln: ln, sources: map[string]Source{}}, nil
}

// giveTo makes path belong to the owner of dir: PostgreSQL does not run as root.
func giveTo(path, dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return os.Lchown(path, int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// Add makes a source available under its token until Remove.
func (s *Server) Add(token string, src Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources[token] = src
}

// Remove forgets a token. Who is reading it goes on.
func (s *Server) Remove(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, token)
}

// Tokens is how many sources there are.
func (s *Server) Tokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sources)
}

// Serve answers PostgreSQL's backends until ctx ends; then it closes the
// socket and their connections and returns when nobody is served any more.
func (s *Server) Serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { s.ln.Close() })
	defer stop()
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.cfg.Log.Warn("row source: accept failed", "error", err)
			select { // out of descriptors: give it a moment
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		wg.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			c := &reader{s: s, conn: conn, be: pgproto3.NewBackend(conn, conn), said: map[string]string{}}
			c.serve(ctx)
		})
	}
}

// startupLimit bounds how long a backend may take to introduce itself.
const startupLimit = 10 * time.Second

// flushBytes is how much is gathered before it is written: large enough to make
// system calls rare, small enough to stay in the cache.
const flushBytes = 64 << 10

// reader is the connection of one backend.
type reader struct {
	s        *Server
	conn     net.Conn
	be       *pgproto3.Backend
	encode   func(pgproto3.BackendMessage) (pgproto3.BackendMessage, error) // nil: all is UTF-8
	said     map[string]string                                              // parameters as they were reported last
	refused  error                                                          // why the encoding that was asked for cannot be had; dblink goes on without it
	orders   bool                                                           // it brings orders in place of tokens
	buffered int
	rows     []byte // messages behind what is buffered
	columns  columns
	err      error // why nothing can be sent, or the row that could not be encoded
}

func (c *reader) serve(ctx context.Context) {
	_ = c.conn.SetDeadline(time.Now().Add(startupLimit))
	for {
		m, err := c.be.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if start, ok := m.(*pgproto3.StartupMessage); ok {
			c.orders = start.Parameters["database"] == OrderDatabase
			break
		}
		if _, err := c.conn.Write([]byte{'N'}); err != nil {
			return
		}
	}
	_ = c.conn.SetDeadline(time.Time{})
	c.be.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{{"server_version", "15.0"}, {"client_encoding", "UTF8"}, {"standard_conforming_strings", "on"},
		{"integer_datetimes", "on"}} {
		c.be.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	c.styles(nil)
	c.be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if c.be.Flush() != nil {
		return
	}
	for {
		m, err := c.be.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			c.answer(ctx, strings.TrimSpace(m.String))
			c.be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if c.be.Flush() != nil {
				return
			}
		case *pgproto3.Terminate:
			return
		}
	}
}

// standard are the parameters that Styles can change.
var standard = map[string]string{"DateStyle": "ISO, MDY", "IntervalStyle": "postgres"}

// styles reports the parameters that have changed since they were reported.
func (c *reader) styles(now map[string]string) {
	for name, value := range standard {
		if v := now[name]; v != "" {
			value = v
		}
		if c.said[name] != value {
			c.said[name] = value
			c.be.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
		}
	}
}

// answer serves one token, or one of the settings dblink makes. They are
// accepted and change nothing, for values travel as the segments printed them;
// but for the encoding, which is the database's.
func (c *reader) answer(ctx context.Context, query string) {
	c.err, c.buffered = nil, 0
	if strings.HasPrefix(strings.ToUpper(query), "SET ") {
		if name, ok := strings.CutPrefix(query, "set client_encoding to "); ok {
			if c.refused = c.setEncoding(ctx, strings.Trim(name, "'")); c.refused != nil {
				c.send(c.s.cfg.Failure(c.refused))
				return
			}
		}
		c.send(&pgproto3.CommandComplete{CommandTag: []byte("SET")})
		return
	}
	if c.refused != nil {
		c.send(c.s.cfg.Failure(c.refused))
		return
	}
	if c.orders {
		c.obey(query)
		return
	}
	token, part := query, ""
	c.s.mu.Lock()
	src, ok := c.s.sources[token]
	if !ok {
		token, part, _ = strings.Cut(query, " ")
		if src, ok = c.s.sources[token]; src.Queue == nil {
			ok = false
		}
	}
	c.s.mu.Unlock()
	if !ok {
		c.send(c.s.cfg.Failure(&pgconn.PgError{Severity: "ERROR", Code: "34000", Message: "no such row source"}))
		return
	}
	read, columns := src.Rows, src.Columns
	if read == nil {
		read = src.Queue.Read
	}
	if part != "" {
		var name bool
		var err error
		if read, name, err = c.portion(src.Queue, token, part); err != nil {
			c.send(c.s.cfg.Failure(err))
			return
		}
		if name {
			columns = 1
		}
		if src.Fill != nil {
			src.Fill(ctx)
		}
	}
	var styles map[string]string
	if src.Styles != nil {
		styles = src.Styles()
	}
	c.styles(styles)
	described := false
	describe := func(columns int) {
		if !described {
			described = true
			c.send(describeText(columns))
		}
	}
	err := read(ctx, func(row []byte) error {
		columns := int(row[0])<<8 | int(row[1])
		if columns == 0 {
			columns, row = 1, oneNull
		}
		describe(columns)
		if c.encode == nil {
			c.row(row)
		} else {
			c.send(Row(row))
		}
		return c.err
	})
	c.flushRows()
	if err != nil {
		c.send(c.s.cfg.Failure(err))
		return
	}
	describe(columns)
	c.send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
}

const (
	// nextPortion ends a query for the name of a portion.
	nextPortion = " next"
	// inColumns ends a query for the rows of a portion in one row of arrays.
	inColumns = " columns"
)

// portion is what answers a query for a portion of a queue: "N" is for the rows of
// portion N, none for 0, "N columns" for one row that has an array of the values of each
// column, and "N next" for the name of the portion that follows, which is there when its
// name is, or for nothing at the end.
func (c *reader) portion(q *Queue, token, query string) (read func(context.Context, func([]byte) error) error, name bool, err error) {
	number, next := strings.CutSuffix(query, nextPortion)
	number, arrays := strings.CutSuffix(number, inColumns)
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 0 || next && arrays:
		return nil, false, &pgconn.PgError{Severity: "ERROR", Code: "34000", Message: "no such portion of a row source"}
	case next:
		return func(ctx context.Context, sink func([]byte) error) error {
			more, err := q.More(ctx, n+1)
			if err != nil || !more {
				return err
			}
			return sink(appendText([]byte{0, 1}, fmt.Sprintf("%s %d", token, n+1)))
		}, true, nil
	case n == 0:
		return func(context.Context, func([]byte) error) error { return nil }, false, nil
	case arrays:
		return func(_ context.Context, sink func([]byte) error) error {
			c.columns.reset()
			err := q.Portion(n, c.columns.add)
			if row := c.columns.arrays(); err == nil && row != nil {
				err = sink(row)
			}
			return err
		}, false, nil
	}
	return func(_ context.Context, sink func([]byte) error) error { return q.Portion(n, sink) }, false, nil
}

// appendText appends a value in a DataRow's form.
func appendText(dst []byte, value string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
}

// obey carries out an order.
func (c *reader) obey(order string) {
	err := error(&pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: "orders are not taken here"})
	answer := ""
	if c.s.cfg.Order != nil {
		answer, err = c.s.cfg.Order(order)
	}
	if err != nil {
		c.send(c.s.cfg.Failure(err))
		return
	}
	c.send(describeText(1))
	c.send(&pgproto3.DataRow{Values: [][]byte{[]byte(answer)}})
	c.send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

func (c *reader) setEncoding(ctx context.Context, name string) (err error) {
	switch {
	case c.s.cfg.Encode != nil:
		c.encode, err = c.s.cfg.Encode(ctx, name)
	case name != "UTF8" && name != "SQL_ASCII":
		err = &pgconn.PgError{Severity: "ERROR", Code: "0A000", Message: "motions between segments are in UTF-8, the database is in " + name}
	}
	return err
}

// row buffers a row as send does, without an allocation for each.
func (c *reader) row(row []byte) {
	c.rows, _ = Row(row).Encode(c.rows) // it cannot fail
	if len(c.rows) >= flushBytes {
		c.flushRows()
	}
}

// flushRows writes what row has buffered. Nothing else may be sent before it.
func (c *reader) flushRows() {
	if len(c.rows) == 0 {
		return
	}
	err := c.be.Flush()
	if err == nil {
		_, err = c.conn.Write(c.rows)
	}
	if err != nil && c.err == nil {
		c.err = err
	}
	if c.rows = c.rows[:0]; cap(c.rows) > 4*flushBytes {
		c.rows = nil // a huge row has passed
	}
}

// send buffers a message and now and then writes what is buffered. A row that
// cannot be encoded is not sent; what comes after it still is.
func (c *reader) send(m pgproto3.BackendMessage) {
	if c.encode != nil {
		conv, err := c.encode(m)
		if err != nil && c.err == nil {
			c.err = err
		}
		if err != nil || conv == nil {
			return
		}
		m = conv
	}
	c.be.Send(m)
	c.buffered += 32
	if row, ok := m.(Row); ok {
		c.buffered += len(row)
	}
	if c.buffered < flushBytes {
		return
	}
	c.buffered = 0
	if err := c.be.Flush(); err != nil && c.err == nil {
		c.err = err
	}
}

// describeText describes n columns of text; the reader knows the real types.
func describeText(n int) *pgproto3.RowDescription {
	fields := make([]pgproto3.FieldDescription, n)
	for i := range fields {
		fields[i] = pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}
	}
	return &pgproto3.RowDescription{Fields: fields}
}
