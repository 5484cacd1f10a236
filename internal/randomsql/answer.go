package randomsql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Session are the settings under which the statements' answers are compared.
const Session = "SET extra_float_digits = 1; SET jit = off; SET timezone = 'Africa/Monrovia'"

// Null is how NULL shows in an Answer.
const Null = "∅"

// Answer is what became of a statement: rows of text fields, or an error.
type Answer struct {
	Cols []string // name and type OID
	Rows [][]string
	Err  error
}

// Ask runs a statement by the extended protocol. params are as in Query.
func Ask(ctx context.Context, conn *pgconn.PgConn, sql string, params [][2]string) Answer {
	var values [][]byte
	var types []uint32
	for _, p := range params {
		values = append(values, []byte(p[0]))
		types = append(types, ParamOIDs[p[1]])
	}
	var a Answer
	a.add(conn.ExecParams(ctx, sql, values, types, nil, nil))
	return a
}

// AskSimple runs statements without parameters by the simple protocol. The answer
// has the rows of all; an error ends it.
func AskSimple(ctx context.Context, conn *pgconn.PgConn, sql string) Answer {
	var a Answer
	res := conn.Exec(ctx, sql)
	for res.NextResult() {
		a.add(res.ResultReader())
	}
	if err := res.Close(); err != nil {
		a.Err = err
	}
	return a
}

func (a *Answer) add(res *pgconn.ResultReader) {
	for i, f := range res.FieldDescriptions() {
		if i == 0 {
			a.Cols = nil
		}
		a.Cols = append(a.Cols, fmt.Sprintf("%s:%d", f.Name, CommonType(f.DataTypeOID)))
	}
	for res.NextRow() {
		row := make([]string, 0, len(a.Cols))
		for _, v := range res.Values() {
			if v == nil {
				row = append(row, Null)
			} else {
				row = append(row, string(v))
			}
		}
		a.Rows = append(a.Rows, row)
	}
	if _, err := res.Close(); err != nil {
		a.Err = err
	}
}

// CommonType is a type's OID, or 0 for one that is another in each database.
func CommonType(oid uint32) uint32 {
	if oid >= 16384 {
		return 0
	}
	return oid
}

// Trimmed is the answer without what means nothing: the blanks at the end of
// char(n) values, zeros at the end of decimal ones, the sign of zero. Which of
// equal values is shown is not definite.
func (a Answer) Trimmed() Answer {
	rows := make([][]string, len(a.Rows))
	for i, row := range a.Rows {
		rows[i] = make([]string, len(row))
		for k, v := range row {
			v = strings.TrimRight(v, " ")
			if decimal.MatchString(v) {
				v = strings.TrimRight(strings.TrimRight(v, "0"), ".")
			}
			if v == "-0" {
				v = "0"
			}
			rows[i][k] = v
		}
	}
	a.Rows = rows
	return a
}

var decimal = regexp.MustCompile(`^-?[0-9]+\.[0-9]+$`)

// Difference says how an answer differs from the one wanted, "" where it does
// not: both may be the same error. ordered and any are as in Query.
func Difference(got, want Answer, ordered, any bool) string {
	switch {
	case want.Err != nil && got.Err != nil:
		var a, b *pgconn.PgError
		if errors.As(want.Err, &a) && errors.As(got.Err, &b) && a.Code == b.Code {
			return ""
		}
		return fmt.Sprintf("DIFFERENT ERRORS: %s, wanted %s", ErrorText(got.Err), ErrorText(want.Err))
	case got.Err != nil:
		return "FAILS: " + ErrorText(got.Err)
	case want.Err != nil:
		return "SHOULD FAIL: " + ErrorText(want.Err)
	}
	g, w := got.lines(), want.lines()
	if !ordered {
		slices.Sort(g)
		slices.Sort(w)
	}
	switch {
	case !slices.Equal(got.Cols, want.Cols):
		return fmt.Sprintf("WRONG COLUMNS: %v, wanted %v", got.Cols, want.Cols)
	case len(g) != len(w):
		return fmt.Sprintf("WRONG: %d rows, wanted %d: %v, wanted %v", len(g), len(w), g, w)
	case any || slices.Equal(g, w):
		return ""
	}
	return fmt.Sprintf("WRONG: %v, wanted %v", g, w)
}

// lines are the rows, a line each.
func (a Answer) lines() []string {
	out := make([]string, len(a.Rows))
	for i, row := range a.Rows {
		out[i] = strings.Join(row, "|")
	}
	return out
}

// ErrorText is an error in one line, a server's with its SQLSTATE.
func ErrorText(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		s := "ERROR " + pe.Code + ": " + pe.Message
		if pe.Detail != "" {
			s += " DETAIL: " + pe.Detail
		}
		return s
	}
	return "ERROR " + err.Error()
}
