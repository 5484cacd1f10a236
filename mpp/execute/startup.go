package execute

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Request codes that come in place of a protocol version.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
	// maxStartup is PostgreSQL's limit of a startup packet.
	maxStartup = 10000
)

// serve handles one accepted connection to its end.
func (s *Server) serve(ctx context.Context, client net.Conn) {
	_ = client.SetDeadline(time.Now().Add(startupTimeout))
	msg, err := readStartup(client)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			s.log.Warn("dispatch connection ended in its startup", "err", err)
		}
		return
	}
	switch msg := msg.(type) {
	case *pgproto3.CancelRequest:
		s.cancel(ctx, msg)
	case *pgproto3.StartupMessage:
		q := &session{srv: s, client: client}
		if err := q.start(ctx, msg); err != nil {
			s.log.Debug("executor could not start", "err", err)
			return
		}
		_ = client.SetDeadline(time.Time{})
		q.run(ctx)
	}
}

// readStartup reads the first message, refusing encryption on the way.
func readStartup(c net.Conn) (pgproto3.FrontendMessage, error) {
	for {
		var h [4]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(h[:])
		if n < 8 || n > maxStartup {
			return nil, fmt.Errorf("startup packet of %d bytes", n)
		}
		body := make([]byte, n-4)
		if _, err := io.ReadFull(c, body); err != nil {
			return nil, err
		}
		switch binary.BigEndian.Uint32(body) {
		case codeSSL, codeGSS:
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case codeCancel:
			m := new(pgproto3.CancelRequest)
			return m, m.Decode(body)
		default:
			m := new(pgproto3.StartupMessage)
			return m, m.Decode(body)
		}
	}
}

// cancel stops what the executor with that key is doing: its motion and its
// PostgreSQL. It returns when PostgreSQL has taken note, so that the client,
// who waits for the connection to close, cannot hit a later command.
func (s *Server) cancel(ctx context.Context, req *pgproto3.CancelRequest) {
	q := s.byKey(sessionKey(req.ProcessID, req.SecretKey))
	if q == nil {
		return
	}
	q.cancelJob(errCanceled)
	q.cancelPG(ctx)
}

func sessionKey(pid uint32, secret []byte) string { return fmt.Sprintf("%d/%x", pid, secret) }

// cancelPG sends PostgreSQL's own cancel request and waits until the
// postmaster has passed it on.
func (q *session) cancelPG(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	c, err := q.srv.dialPG(ctx)
	if err != nil {
		return // no server, nothing runs
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	b, err := q.pgKey.Encode(nil)
	if err != nil {
		return
	}
	if _, err := c.Write(b); err == nil {
		var one [1]byte
		_, _ = c.Read(one[:]) // closed when the signal is sent
	}
}

// start connects to the local PostgreSQL with the client's startup parameters
// and relays its answer, adding what the dispatcher needs to know of the
// executor. On error the client has been told.
func (q *session) start(ctx context.Context, msg *pgproto3.StartupMessage) error {
	own := make(map[string]string)
	for k, v := range msg.Parameters {
		if strings.HasPrefix(k, "gp_") {
			own[k] = v
			delete(msg.Parameters, k)
		}
	}
	if v := own["gp_session_id"]; v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return q.refuse("08P01", fmt.Sprintf("invalid gp_session_id %q", v), err)
		}
		q.sessionID = int32(n)
	}
	dialCtx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	pg, err := q.srv.dialPG(dialCtx)
	if err != nil {
		return q.refuse("57P03", "the database system is not running", err)
	}
	q.pg, q.in = pg, newReader(pg)
	_ = pg.SetDeadline(time.Now().Add(startupTimeout))
	if err := q.authenticate(msg, own); err != nil {
		pg.Close()
		return err
	}
	_ = pg.SetDeadline(time.Time{})
	return nil
}

// authenticate relays PostgreSQL's startup answer up to its ReadyForQuery.
func (q *session) authenticate(msg *pgproto3.StartupMessage, own map[string]string) error {
	b, err := msg.Encode(nil)
	if err != nil {
		return q.refuse("08P01", "invalid startup parameters", err)
	}
	if _, err := q.pg.Write(b); err != nil {
		return q.refuse("57P03", "the database system is not accepting connections", err)
	}
	var out []byte
	for {
		m, err := q.in.next()
		if err != nil {
			return q.refuse("57P03", "the database system ended the connection while starting it", err)
		}
		body := m[5:]
		switch m[0] {
		case 'R':
			if len(body) < 4 || binary.BigEndian.Uint32(body) != 0 {
				return q.refuse("28000", "the segment's PostgreSQL asks for authentication on its private socket; its pg_hba.conf must say trust", nil)
			}
		case 'K':
			if len(body) < 8 {
				return q.refuse("08P01", "invalid key data from PostgreSQL", nil)
			}
			q.pgKey.ProcessID = binary.BigEndian.Uint32(body)
			q.pgKey.SecretKey = append([]byte(nil), body[4:]...)
		case 'E':
			_, _ = q.client.Write(append(out, m...))
			return errors.New("refused by PostgreSQL")
		case 'Z':
			q.txStatus.Store(uint32(body[0]))
			q.pid = lastPid.Add(2) - 1
			q.openInterconnect(own)
			out = appendMessage(out, &pgproto3.ParameterStatus{Name: "gp_qe_pid", Value: strconv.Itoa(int(q.pid))})
			addr := ""
			if q.ic != nil {
				addr = q.ic.Addr()
			}
			out = appendMessage(out, &pgproto3.ParameterStatus{Name: "gp_qe_addr", Value: addr})
			out = append(out, m...)
			if _, err := q.client.Write(out); err != nil {
				q.closeInterconnect()
				return err
			}
			return nil
		}
		out = append(out, m...)
	}
}

// refuse tells the client that the executor cannot start.
func (q *session) refuse(code, message string, cause error) error {
	e := &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
	if cause != nil {
		e.Detail = cause.Error()
	}
	_, _ = q.client.Write(appendMessage(nil, e))
	return errors.Join(errors.New(message), cause)
}

func appendMessage(dst []byte, m pgproto3.BackendMessage) []byte {
	b, err := m.Encode(dst)
	if err != nil { // only over-long messages, which are never made here
		return dst
	}
	return b
}
