package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/internal/local"
)

// link is a session's connection to the PostgreSQL server of its own instance.
// Messages go in and come out as they are; it keeps track of the transaction
// status only. One goroutine uses it at a time.
type link struct {
	conn     net.Conn
	fe       *pgproto3.Frontend
	pid      uint32
	secret   []byte
	params   map[string]string
	status   byte // of the last ReadyForQuery: I, T or E
	socket   string
	onNotice func(pgproto3.BackendMessage)
	broken   error // why the link cannot be used any more
	erred    bool  // a statement has failed; who looks at it clears it
	// unsynced: a portal was executed and no ReadyForQuery has followed, so
	// that the server is in a transaction that status does not show.
	unsynced bool
	onBegin  func() // told when keepWork has made a block of it
	muted    bool   // notices are of no interest to the client
	reader   *messageReader
}

// dialLink connects to the server behind socket with the given startup
// parameters.
func dialLink(ctx context.Context, socket, user, database string, params map[string]string) (*link, error) {
	cfg, err := pgconn.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port = "/", 1
	cfg.User, cfg.Database, cfg.Password = user, database, ""
	cfg.TLSConfig, cfg.Fallbacks = nil, nil
	cfg.RuntimeParams = params
	cfg.ConnectTimeout = 30 * time.Second
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return local.DialQuiet(ctx, socket) }
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"/"}, nil }
	var reader *messageReader
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = newMessageReader(r)
		return pgproto3.NewFrontend(reader, w)
	}
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, err
	}
	return &link{conn: h.Conn, fe: h.Frontend, pid: h.PID, secret: h.SecretKey,
		params: h.ParameterStatuses, status: h.TxStatus, socket: socket, reader: reader}, nil
}

// errLink says that the local server ended the connection.
var errLink = errors.New("server closed the connection unexpectedly")

func (l *link) send(msgs ...pgproto3.FrontendMessage) {
	for _, m := range msgs {
		l.fe.Send(m)
	}
}

func (l *link) flush() error {
	if l.broken != nil {
		return l.broken
	}
	if err := l.fe.Flush(); err != nil {
		l.fail(l.farewell(err))
	}
	return l.broken
}

// farewell is the server's own reason for having closed the connection, if it
// has given one that was not read yet, in place of the error of a write.
func (l *link) farewell(err error) error {
	_ = l.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		m, rerr := l.fe.Receive()
		if rerr != nil {
			return err
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok && e.SeverityUnlocalized != "ERROR" {
			return pgconn.ErrorResponseToPgError(e)
		}
	}
}

// receive returns the next message. Notices, notifications and parameter
// changes are passed to onNotice and not returned.
func (l *link) receive() (pgproto3.BackendMessage, error) {
	for {
		m, err := l.receiveOne()
		if m != nil || err != nil {
			return m, err
		}
	}
}

// receiveOne receives one message; nil when it is of those that are not
// returned.
func (l *link) receiveOne() (pgproto3.BackendMessage, error) {
	if l.broken != nil {
		return nil, l.broken
	}
	m, err := l.fe.Receive()
	if err != nil {
		l.fail(err)
		return nil, l.broken
	}
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		l.status, l.unsynced = m.TxStatus, false
	case *pgproto3.ErrorResponse:
		l.erred = true
		if m.Severity == "FATAL" || m.SeverityUnlocalized == "FATAL" || m.SeverityUnlocalized == "PANIC" {
			l.broken = pgconn.ErrorResponseToPgError(m) // why the server hangs up
			l.conn.Close()
			return nil, l.broken
		}
	case *pgproto3.ParameterStatus:
		l.params[m.Name] = m.Value
		l.notice(m)
		return nil, nil
	case *pgproto3.NoticeResponse:
		if !l.muted {
			l.notice(m)
		}
		return nil, nil
	case *pgproto3.NotificationResponse:
		l.notice(m)
		return nil, nil
	}
	return m, nil
}

// keepWork makes a transaction block of what was executed since the last Sync,
// which the next Query or Sync would commit before its time.
func (l *link) keepWork() error {
	if !l.unsynced || l.status != 'I' {
		return nil
	}
	l.unsynced = false
	l.send(&pgproto3.Query{String: "BEGIN"})
	if err := l.flush(); err != nil {
		return err
	}
	if _, err := l.collect(); err != nil {
		return err
	}
	l.onBegin()
	return nil
}

// mute keeps notices from the client until the returned function is called.
func (l *link) mute() func() {
	before := l.muted
	l.muted = true
	return func() { l.muted = before }
}

func (l *link) notice(m pgproto3.BackendMessage) {
	if l.onNotice != nil {
		l.onNotice(m)
	}
}

// fail gives the link up, for a reason that the client is told: an error of
// PostgreSQL's as it is.
func (l *link) fail(err error) {
	if l.conn.Close(); errors.As(err, new(*pgconn.PgError)) {
		l.broken = err
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errLink
	}
	l.broken = &pgconn.PgError{Severity: "FATAL", Code: "08006",
		Message: "lost the connection to the coordinator's PostgreSQL: " + err.Error()}
}

func (l *link) close() {
	if l.broken == nil {
		l.fe.Send(&pgproto3.Terminate{})
		_ = l.conn.SetDeadline(time.Now().Add(time.Second))
		_ = l.fe.Flush()
	}
	l.conn.Close()
}

// cancel asks the server to cancel what the link runs. It may be called from
// any goroutine.
func (l *link) cancel(ctx context.Context) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", l.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	buf, err := (&pgproto3.CancelRequest{ProcessID: l.pid, SecretKey: l.secret}).Encode(nil)
	if err != nil {
		return err
	}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, _ = c.Read(make([]byte, 1)) // the server closes when it has signalled
	return nil
}

// result is what a statement run for the session's own purposes returned.
type result struct {
	fields []pgproto3.FieldDescription
	rows   [][][]byte
	tag    string
}

// value is the first column of the first row, nil when there is none.
func (r *result) value() []byte {
	if len(r.rows) == 0 || len(r.rows[0]) == 0 {
		return nil
	}
	return r.rows[0][0]
}

// query runs SQL in the simple protocol and returns the last result. An SQL
// error comes back as *pgconn.PgError.
func (l *link) query(sql string) (*result, error) {
	if err := l.keepWork(); err != nil {
		return nil, err
	}
	l.send(&pgproto3.Query{String: sql})
	if err := l.flush(); err != nil {
		return nil, err
	}
	return l.collect()
}

// collect reads up to ReadyForQuery.
func (l *link) collect() (*result, error) {
	res := &result{}
	var failed error
	for {
		m, err := l.receive()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			res.fields = cloneFields(m.Fields)
			res.rows = nil
		case *pgproto3.DataRow:
			row := make([][]byte, len(m.Values))
			for i, v := range m.Values {
				if v != nil {
					row[i] = append([]byte{}, v...)
				}
			}
			res.rows = append(res.rows, row)
		case *pgproto3.CommandComplete:
			res.tag = string(m.CommandTag)
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyInResponse:
			l.send(&pgproto3.CopyFail{Message: "COPY is not possible here"})
			if err := l.flush(); err != nil {
				return nil, err
			}
		case *pgproto3.ReadyForQuery:
			if failed != nil {
				return nil, failed
			}
			return res, nil
		}
	}
}

// describe parses sql as the unnamed statement and returns its parameter types
// and result fields; nil fields when it returns no rows.
func (l *link) describe(sql string, paramTypes []uint32) ([]uint32, []pgproto3.FieldDescription, error) {
	if err := l.keepWork(); err != nil {
		return nil, nil, err
	}
	defer l.mute()()
	l.send(&pgproto3.Parse{Query: sql, ParameterOIDs: paramTypes},
		&pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Sync{})
	if err := l.flush(); err != nil {
		return nil, nil, err
	}
	var (
		params []uint32
		fields []pgproto3.FieldDescription
		failed error
	)
	for {
		m, err := l.receive()
		if err != nil {
			return nil, nil, err
		}
		switch m := m.(type) {
		case *pgproto3.ParameterDescription:
			params = append([]uint32(nil), m.ParameterOIDs...)
		case *pgproto3.RowDescription:
			fields = cloneFields(m.Fields)
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return params, fields, failed
		}
	}
}

func cloneFields(in []pgproto3.FieldDescription) []pgproto3.FieldDescription {
	out := make([]pgproto3.FieldDescription, len(in))
	for i, f := range in {
		out[i] = f
		out[i].Name = append([]byte(nil), f.Name...)
	}
	return out
}

// sqlError makes an error with a SQLSTATE.
func sqlError(code, format string, args ...any) *pgconn.PgError {
	return &pgconn.PgError{Severity: "ERROR", Code: code, Message: fmt.Sprintf(format, args...)}
}
