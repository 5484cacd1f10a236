package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/motion"
)

// SQLSTATEs made or looked at here.
const (
	codeConnectionFailure = "08006"
	codeOutcomeUnknown    = "08007"
	codeInUse             = "55006"
	codeNoSuchObject      = "42704"
	codeInvalidParameter  = "22023"
	codeCannotConnectNow  = "57P03"
	codeCanceled          = "57014"
	codeInFailedTx        = "25P02"
	codeLockNotAvailable  = "55P03"
)

// TimedOut says whether message is of a statement that has reached
// statement_timeout; its SQLSTATE is that of a cancelled one.
func TimedOut(message string) bool {
	return strings.HasPrefix(message, "canceling statement due to statement timeout")
}

// Error is a failure on a segment, or of the dispatcher itself, as SQL sees
// it. The embedded PgError has the segment's SQLSTATE, detail, hint, position
// and so on; its message ends in the segment's name, as Greenplum's do:
// ` (seg1 127.0.0.1:15434 pid=4242)`.
type Error struct {
	*pgconn.PgError
	// Seg is the content id of the segment, -1 when it is not one segment's.
	Seg int
	// Lost says that the connection to the segment is gone.
	Lost bool
	// Err is the cause when it is not an error of PostgreSQL.
	Err error
}

// Unwrap gives errors.As the PgError and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.PgError}
	}
	return []error{e.PgError, e.Err}
}

// newError is a failure of the dispatcher.
func newError(code, message string, cause error) *Error {
	return &Error{
		PgError: &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message},
		Seg:     -1, Err: cause,
	}
}

// ErrTorn says that a statement's snapshots may be older on one segment than on
// another. Outside of a transaction block it can be run again.
var ErrTorn = errors.New("snapshots are torn")

func errTorn() error {
	e := newError("40001", "could not take a snapshot on all segments: other transactions were committed while the statement waited", ErrTorn)
	e.Hint = "Run the transaction again."
	return e
}

// errBusy is returned when a Running or CopyIn of the gang is unfinished.
func errBusy() error {
	return newError(codeInUse, "another statement of this session is still running on the segments", nil)
}

// fail turns what pgconn said into an Error of that member, for a statement of
// slice (0: none), and drops the connection when it is lost. prefix is how
// many characters were put before the caller's SQL.
func (m *member) fail(err error, slice int16, prefix string) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	lost := m.conn == nil || m.conn.IsClosed()
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		c := *pe
		c.Message += " (" + m.describe(slice) + ")"
		if n := int32(utf8.RuneCountInString(prefix)); c.Position > n {
			c.Position -= n
		}
		if c.SeverityUnlocalized == "FATAL" {
			c.Severity, c.SeverityUnlocalized = "ERROR", "ERROR" // ends that connection, not the client's
		}
		e = &Error{PgError: &c, Seg: int(m.seg.Content), Lost: lost}
	} else {
		lost = true
		e = &Error{
			PgError: &pgconn.PgError{
				Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: codeConnectionFailure,
				Message: fmt.Sprintf("Error on receive from %s: server closed the connection unexpectedly", m.describe(slice)),
				Detail:  "This probably means that the segment's server terminated abnormally before or while processing the request.",
			},
			Seg: int(m.seg.Content), Lost: true, Err: err,
		}
	}
	if m.begun && m.why == nil {
		m.why = e
	}
	if lost {
		m.drop()
	}
	return e
}

// describe names the member's executor as Greenplum does.
func (m *member) describe(slice int16) string {
	s := fmt.Sprintf("seg%d", m.seg.Content)
	if slice > 0 {
		s += fmt.Sprintf(" slice%d", slice)
	}
	return fmt.Sprintf("%s %s pid=%d", s, m.seg.Address, m.pid)
}

// rank orders the errors of one statement by how likely they are its cause:
// a cancelled or cut-off segment is most often the victim of another's failure,
// and a failed transaction that of an earlier one. A statement's time runs out on
// every segment by itself.
func rank(err error) int {
	var code, message string
	var pe *pgconn.PgError
	var me *motion.Error
	switch {
	case errors.As(err, &pe):
		code, message = pe.Code, pe.Message
	case errors.As(err, &me):
		code, message = me.Code, me.Message
	}
	switch code {
	case codeCanceled, codeInFailedTx:
		if TimedOut(message) {
			return 4
		}
		return 1
	case motion.CodeInterconnect:
		if motion.Bare(message) {
			return 2
		}
		return 3
	}
	return 4
}

// canceled is what a statement cancelled through ctx, or by Cancel, ends with.
func canceled(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	var pe *pgconn.PgError
	if errors.As(cause, &pe) {
		c := *pe
		return &Error{PgError: &c, Seg: -1, Err: cause}
	}
	return newError(codeCanceled, "canceling statement due to user request", cause)
}
