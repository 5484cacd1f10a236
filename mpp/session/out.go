package session

import (
	"context"
	"errors"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/auth"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// rowBody is a DataRow whose body is in wire form already, as motions carry it.
type rowBody = rowsource.Row

// copyBody is a CopyData whose payload goes out as it is.
type copyBody []byte

func (copyBody) Backend()                {}
func (copyBody) Decode(src []byte) error { return errors.New("copyBody is write-only") }

// Encode appends the message to dst.
func (c copyBody) Encode(dst []byte) ([]byte, error) {
	n := uint32(len(c) + 4)
	dst = append(dst, 'd', byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(dst, c...), nil
}

// flushBytes is how much is gathered before it is written to the client: large
// enough to make system calls rare, small enough to stay in the cache.
const flushBytes = 64 << 10

// out is the way to the client. Only the session's goroutine uses it.
type out struct {
	be       *pgproto3.Backend
	buffered int
	err      error // why nothing can be sent; a *pgconn.PgError: see refusal
	// counted, when it is not nil, counts rows, which are then not sent.
	counted *int64
	toClient
}

func (o *out) send(m pgproto3.BackendMessage) {
	if o.counted != nil {
		switch m.(type) {
		case rowBody, *pgproto3.DataRow:
			*o.counted++
			return
		case *pgproto3.RowDescription:
			return
		}
	}
	if o.enc != nil {
		if m = o.inEncoding(m); m == nil {
			return
		}
	}
	o.be.Send(m)
	o.buffered += 32
	switch m := m.(type) {
	case rowBody:
		o.buffered += len(m)
	case copyBody:
		o.buffered += len(m)
	case *pgproto3.DataRow:
		for _, v := range m.Values {
			o.buffered += len(v)
		}
	case *pgproto3.CopyData:
		o.buffered += len(m.Data)
	}
	if o.buffered >= flushBytes {
		o.flush()
	}
}

func (o *out) flush() {
	o.buffered = 0
	if err := o.be.Flush(); err != nil && o.err == nil {
		o.err = err
	}
}

// inEncoding is m in the client's encoding; nil when it is not sent.
func (o *out) inEncoding(m pgproto3.BackendMessage) pgproto3.BackendMessage {
	var refused *pgconn.PgError
	if errors.As(o.err, &refused) {
		switch m.(type) {
		case rowBody, *pgproto3.DataRow, *pgproto3.RowDescription:
			return nil
		}
	}
	conv, err := o.message(m)
	if err != nil {
		if o.err == nil {
			o.err = err
		}
		return nil
	}
	return conv
}

// refusal returns the error of the first row that could not be brought into the
// client's encoding, once: rows after it were not sent. The statement has
// failed, the session goes on.
func (o *out) refusal() error {
	var refused *pgconn.PgError
	if !errors.As(o.err, &refused) {
		return nil
	}
	o.err = nil
	return refused
}

// pgError turns any error into the one a client sees.
func pgError(err error) *pgconn.PgError {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe
	}
	var me *motion.Error
	if errors.As(err, &me) {
		return &pgconn.PgError{Severity: "ERROR", Code: me.Code, Message: me.Message, Detail: me.Detail, Hint: me.Hint}
	}
	var ge *guc.Error
	if errors.As(err, &ge) {
		return &pgconn.PgError{Severity: "ERROR", Code: ge.Code, Message: ge.Message, Hint: ge.Hint}
	}
	var le *plan.Error
	if errors.As(err, &le) {
		return &pgconn.PgError{Severity: "ERROR", Code: le.Code, Message: le.Message, Detail: le.Detail, Hint: le.Hint, Position: int32(le.Position)}
	}
	if errors.Is(err, context.Canceled) {
		return sqlError("57014", "canceling statement due to user request")
	}
	return sqlError("XX000", "%s", err.Error())
}

func errorResponse(pe *pgconn.PgError) *pgproto3.ErrorResponse {
	sev := pe.Severity
	if sev == "" {
		sev = "ERROR"
	}
	return &pgproto3.ErrorResponse{
		Severity: sev, SeverityUnlocalized: sev, Code: pe.Code, Message: pe.Message, Detail: pe.Detail, Hint: pe.Hint,
		Position: pe.Position, InternalPosition: pe.InternalPosition, InternalQuery: pe.InternalQuery, Where: pe.Where,
		SchemaName: pe.SchemaName, TableName: pe.TableName, ColumnName: pe.ColumnName,
		DataTypeName: pe.DataTypeName, ConstraintName: pe.ConstraintName,
		File: pe.File, Line: pe.Line, Routine: pe.Routine,
	}
}

func sendFatal(c *auth.Client, err error) {
	pe := *pgError(err)
	pe.Severity = "FATAL"
	c.Backend.Send(errorResponse(&pe))
	_ = c.Backend.Flush()
}

// isTemporary says whether accepting may work again later.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
