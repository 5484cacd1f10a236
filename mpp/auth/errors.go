package auth

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// ErrCancelRequest is returned by Accept when the connection was a cancel
// request, which has been carried out.
var ErrCancelRequest = errors.New("connection was a cancel request")

// ErrClientGone is returned by Accept, wrapped, when the client closed the
// connection or fell silent before it had logged in. It is no cause for
// alarm: port probes do it, and psql does when it must ask for a password.
var ErrClientGone = errors.New("client went away before it had logged in")

// Rejection says why a connection was refused. The client was sent the
// embedded error; Log is what an administrator may know beyond it, "" if
// nothing.
type Rejection struct {
	*pgconn.PgError
	Log string
}

// Error is what the client was told and, in brackets, what it was not.
func (r *Rejection) Error() string {
	if r.Log == "" {
		return r.PgError.Error()
	}
	return r.PgError.Error() + " [" + r.Log + "]"
}

// Unwrap gives the error the client was sent.
func (r *Rejection) Unwrap() error { return r.PgError }

// SQLSTATEs of rejections.
const (
	codeProtocolViolation    = "08P01"
	codeFeatureNotSupported  = "0A000"
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
	codeSyntaxError          = "42601"
	codeQueryCanceled        = "57014"
	codeSystemError          = "58000"
	codeConfigFile           = "F0000"
	codeInvalidParameter     = "22023"
)

// fatal makes a rejection with a formatted message.
func fatal(code, format string, args ...any) *Rejection {
	return &Rejection{PgError: &pgconn.PgError{
		Severity:            "FATAL",
		SeverityUnlocalized: "FATAL",
		Code:                code,
		Message:             fmt.Sprintf(format, args...),
	}}
}

// withLog adds what only the log may say.
func (r *Rejection) withLog(format string, args ...any) *Rejection {
	r.Log = fmt.Sprintf(format, args...)
	return r
}

func (r *Rejection) response() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity:            "FATAL",
		SeverityUnlocalized: "FATAL",
		Code:                r.Code,
		Message:             r.Message,
		Detail:              r.Detail,
		Hint:                r.Hint,
	}
}
