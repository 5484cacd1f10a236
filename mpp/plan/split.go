package plan

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Piece is one statement of a query string.
type Piece struct {
	Text string // without the semicolon, white space around and leading comments kept out
	// Offset is the number of characters before Text in the query string:
	// add it to an error's Position.
	Offset int
}

// Split cuts a query string at its top-level semicolons, as PostgreSQL's own
// scanner sees them: string constants, dollar quotes, comments, parentheses
// and BEGIN ATOMIC bodies stay whole. Empty statements are left out, so the
// result may be empty. Greenplum's own clauses are of no consequence here. An
// error is a *Error with SQLSTATE 42601: a quote or comment that does not end.
func Split(sql string) ([]Piece, error) {
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, errorf(codeSyntax, "null character not permitted")
	}
	if p, ok := splitSimple(sql); ok {
		return p, nil
	}
	toks, err := scan(sql)
	if err != nil {
		return nil, err
	}
	var (
		pieces       []Piece
		first, last  = -1, -1 // bytes of the current statement
		depth        int      // of parentheses
		words        int      // tokens of the statement so far
		create       bool     // starts with CREATE
		routine      bool     // CREATE … FUNCTION or PROCEDURE
		atomic       int      // nesting of BEGIN ATOMIC and CASE
		prev         pg.Token
		bytes, chars int
	)
	flush := func() {
		if first >= 0 {
			chars += len([]rune(sql[bytes:first]))
			bytes = first
			pieces = append(pieces, Piece{Text: sql[first:last], Offset: chars})
		}
		first, depth, words, create, routine, atomic = -1, 0, 0, false, false, 0
		prev = 0
	}
	for _, t := range toks {
		switch t.Token {
		case pg.Token_SQL_COMMENT, pg.Token_C_COMMENT:
			continue
		case pg.Token_ASCII_59:
			if depth == 0 && atomic == 0 {
				flush()
				continue
			}
		case pg.Token_ASCII_40:
			depth++
		case pg.Token_ASCII_41:
			depth = max(0, depth-1)
		case pg.Token_CREATE:
			create = create || words == 0
		case pg.Token_FUNCTION, pg.Token_PROCEDURE:
			// CREATE [OR REPLACE] FUNCTION
			routine = routine || create && (words == 1 || words == 3)
		case pg.Token_ATOMIC:
			if routine && atomic == 0 && prev == pg.Token_BEGIN_P {
				atomic = 1
			}
		case pg.Token_CASE:
			if atomic > 0 {
				atomic++
			}
		case pg.Token_END_P:
			if atomic > 0 {
				atomic--
			}
		}
		if first < 0 {
			first = int(t.Start)
		}
		last = int(t.End)
		words++
		prev = t.Token
	}
	flush()
	return pieces, nil
}

// scan returns the tokens of sql, comments among them.
func scan(sql string) ([]*pg.ScanToken, error) {
	res, err := pg.Scan(sql)
	if err != nil {
		return nil, syntaxError(err)
	}
	return res.Tokens, nil
}

// splitSimple answers for the common string that is plainly one statement.
func splitSimple(sql string) ([]Piece, bool) {
	text := strings.Trim(sql, " \t\n\r\f\v")
	if strings.Contains(text, "--") || strings.Contains(text, "/*") {
		return nil, false
	}
	if n := strings.Count(text, ";"); n == 1 && strings.HasSuffix(text, ";") && !strings.ContainsAny(text, "'\"$") {
		text = strings.TrimRight(text[:len(text)-1], " \t\n\r\f\v")
	} else if n > 0 {
		return nil, false
	}
	if text == "" {
		return nil, true
	}
	return []Piece{{Text: text, Offset: len(sql) - len(strings.TrimLeft(sql, " \t\n\r\f\v"))}}, true
}
