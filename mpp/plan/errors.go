package plan

import (
	"errors"
	"fmt"

	"github.com/pganalyze/pg_query_go/v6/parser"
)

// Error is an error a client sees as PostgreSQL's ErrorResponse.
type Error struct {
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Position int // 1-based, in characters of the statement's text; 0: none
}

// Error returns the message alone, as PostgreSQL clients show it.
func (e *Error) Error() string { return e.Message }

// The SQLSTATEs used here.
const (
	codeSyntax         = "42601"
	codeUndefinedCol   = "42703"
	codeAmbiguousCol   = "42702"
	codeUndefinedTbl   = "42P01"
	codeUndefinedParam = "42P02"
	codeUnsupported    = "0A000"
)

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// syntaxError turns an error of PostgreSQL's parser or scanner into ours.
func syntaxError(err error) error {
	var pe *parser.Error
	if errors.As(err, &pe) {
		return &Error{Code: codeSyntax, Message: pe.Message, Position: pe.Cursorpos}
	}
	return err
}
