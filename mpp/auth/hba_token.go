package auth

import (
	"errors"
	"strings"
)

// token is one word of pg_hba.conf.
type token struct {
	text   string
	quoted bool // quoted from its first byte: then it is no keyword
}

// keyword says whether t is the special word w.
func (t token) keyword(w string) bool { return !t.quoted && t.text == w }

// field is a list of words joined by commas.
type field []token

// maxToken bounds one word, in bytes, as in PostgreSQL.
const maxToken = 10240

// logicalLine is a line with the ones it is continued on by backslashes.
type logicalLine struct {
	number int // of its first line, from 1
	text   string
}

func logicalLines(text string) []logicalLine {
	var lines []logicalLine
	var open *logicalLine
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if open == nil {
			lines = append(lines, logicalLine{number: number})
			open = &lines[len(lines)-1]
		}
		line = strings.TrimSuffix(line, "\r")
		body, continued := strings.CutSuffix(line, `\`)
		open.text += body
		if !continued {
			open = nil
		}
	}
	return lines
}

// splitFields parts a line into fields, without its comment.
func splitFields(line string) ([]field, error) {
	var fields []field
	var current field
	for rest := line; ; {
		t, next, comma, found, err := nextToken(rest)
		if err != nil {
			return nil, err
		}
		rest = next
		if found {
			if !t.quoted && len(t.text) > 1 && t.text[0] == '@' {
				return nil, errors.New("file inclusion with @ is not supported: write the names into the line")
			}
			current = append(current, t)
		}
		if comma && found {
			continue
		}
		if len(current) > 0 {
			fields = append(fields, current)
			current = nil
		}
		if !found {
			return fields, nil
		}
	}
}

// nextToken takes the next word off s. comma says that another of the same
// field follows. A doubled quotation mark within quotes stands for itself.
func nextToken(s string) (t token, rest string, comma, found bool, err error) {
	i := 0
	for i < len(s) && (isBlank(s[i]) || s[i] == ',') {
		i++
	}
	var b strings.Builder
	inQuote, wasQuote, sawQuote := false, false, false
	for ; i < len(s) && (!isBlank(s[i]) || inQuote); i++ {
		c := s[i]
		if c == '#' && !inQuote {
			i = len(s)
			break
		}
		if c == ',' && !inQuote {
			i++
			comma = true
			break
		}
		if c != '"' || wasQuote {
			b.WriteByte(c)
		}
		if c == '"' {
			wasQuote = inQuote && !wasQuote
			if b.Len() == 0 {
				t.quoted = true
			}
			inQuote, sawQuote = !inQuote, true
		} else {
			wasQuote = false
		}
		if b.Len() > maxToken {
			return token{}, "", false, false, errors.New("authentication file token too long")
		}
	}
	t.text = b.String()
	return t, s[i:], comma, sawQuote || t.text != "", nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
