package randomsql

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestDifference(t *testing.T) {
	rows := func(fields ...string) Answer {
		a := Answer{Cols: []string{"o1:25"}}
		for _, f := range fields {
			a.Rows = append(a.Rows, []string{f})
		}
		return a
	}
	fails := func(code string) Answer { return Answer{Err: &pgconn.PgError{Code: code}} }
	for _, test := range []struct {
		name         string
		got, want    Answer
		ordered, any bool
		same         bool
	}{
		{"the same", rows("a", "b"), rows("a", "b"), true, false, true},
		{"another order", rows("b", "a"), rows("a", "b"), false, false, true},
		{"another order than the query's", rows("b", "a"), rows("a", "b"), true, false, false},
		{"another row", rows("a", "c"), rows("a", "b"), false, false, false},
		{"any rows", rows("a", "c"), rows("a", "b"), false, true, true},
		{"too few of any rows", rows("a"), rows("a", "b"), false, true, false},
		{"a row twice", rows("a", "a", "b"), rows("a", "b", "b"), false, false, false},
		{"NULL for an empty text", rows(Null), rows(""), false, false, false},
		{"blanks at the end", rows("a  "), rows("a"), false, false, true},
		{"zeros at the end", rows("1.50", "2.0", "-0"), rows("1.5", "2", "0"), true, false, true},
		{"zeros of a whole number", rows("20"), rows("2"), false, false, false},
		{"other columns", rows("a"), Answer{Cols: []string{"o1:1043"}, Rows: [][]string{{"a"}}}, false, false, false},
		{"an error", fails("22003"), rows("a"), false, false, false},
		{"no error", rows("a"), fails("22003"), false, false, false},
		{"the same error", fails("22003"), fails("22003"), false, false, true},
		{"another error", fails("22012"), fails("22003"), false, false, false},
		{"an error that is not a server's", Answer{Err: errors.New("closed")}, fails("22003"), false, false, false},
	} {
		if diff := Difference(test.got.Trimmed(), test.want.Trimmed(), test.ordered, test.any); (diff == "") != test.same {
			t.Errorf("%s: %q", test.name, diff)
		}
	}
}
