package guc

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Setting is one assignment of a configuration file.
type Setting struct {
	Name  string // lower case
	Value string // without quotes and escapes
	Raw   string // as written, with its quotes
	Line  int    // 1 is the file's first; 0 if File is no file
	File  string // its path, where several files were read; else empty
}

// Place is where the setting stands: "line 3" or "/data/x.conf, line 3".
func (s Setting) Place() string {
	switch {
	case s.File == "":
		return fmt.Sprintf("line %d", s.Line)
	case s.Line == 0:
		return s.File
	}
	return fmt.Sprintf("%s, line %d", s.File, s.Line)
}

// Conf is what a configuration file sets, in its order.
type Conf struct {
	Settings []Setting
}

// SyntaxError says which line of a configuration file PostgreSQL would not
// read.
type SyntaxError struct {
	Line   int
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// ReadConf reads a configuration file. Lines that cannot be understood are
// left out and reported: the error then joins a *SyntaxError for each, and the
// Conf beside it holds the rest. (PostgreSQL does not start with such a file,
// and keeps its old values when it is reloaded.) Include directives are such
// lines too.
func ReadConf(path string) (*Conf, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseConf(b)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return c, err
}

// ParseConf is ReadConf for a file's bytes.
func ParseConf(b []byte) (*Conf, error) {
	c := &Conf{}
	var errs []error
	for n, line := range strings.Split(string(b), "\n") {
		name, raw, reason := scanLine(line)
		if reason == "" && (name == "include" || name == "include_if_exists" || name == "include_dir") {
			reason = name + " is not supported; put the settings into this file"
		}
		if reason != "" {
			errs = append(errs, &SyntaxError{n + 1, reason})
			continue
		}
		if name != "" {
			c.Settings = append(c.Settings, Setting{Name: name, Value: unquote(raw), Raw: raw, Line: n + 1})
		}
	}
	return c, errors.Join(errs...)
}

// Lookup returns the setting that is in force: the last one of the name.
func (c *Conf) Lookup(name string) (Setting, bool) {
	for i := len(c.Settings) - 1; i >= 0; i-- {
		if strings.EqualFold(c.Settings[i].Name, name) {
			return c.Settings[i], true
		}
	}
	return Setting{}, false
}

// Get returns the value that is in force.
func (c *Conf) Get(name string) (string, bool) {
	s, ok := c.Lookup(name)
	return s.Value, ok
}

// Split parts a file into PostgreSQL's settings, in order and with repetitions,
// and the canonical value of every parameter of the table: the file's, or the
// default where the file has none or one that Parse refuses. Those refusals are
// returned, with their lines.
func Split(c *Conf) (pg []Setting, gp map[string]string, errs []error) {
	gp = make(map[string]string, len(sorted))
	for _, p := range sorted {
		gp[p.Name] = p.Default
	}
	for _, s := range c.Settings {
		p, ok := Lookup(s.Name)
		if !ok {
			pg = append(pg, s)
			continue
		}
		if last, _ := c.Lookup(s.Name); last != s {
			continue
		}
		v, err := p.Parse(s.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Place(), err))
			continue
		}
		gp[p.Name] = v
	}
	return pg, gp, errs
}

// Quote makes a value a quoted string of a configuration file.
func Quote(value string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`, "\n", `\n`).Replace(value) + "'"
}

// IsToken says whether a value can stand in a configuration file as it is:
// quoted, a number with or without unit, or a plain word.
func IsToken(raw string) bool {
	n, ok := scanValue(raw)
	return ok && n == len(raw)
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func skipBlanks(s string) string { return strings.TrimLeft(s, " \t\r") }

// scanLine cuts a line into name and value. Both are empty for a line that
// sets nothing. With a reason the line is wrong, and name is still what it
// seems to set.
func scanLine(line string) (name, raw, reason string) {
	s := skipBlanks(line)
	if s == "" || s[0] == '#' {
		return "", "", ""
	}
	n := nameLen(s)
	if n == 0 {
		return "", "", fmt.Sprintf("syntax error near %q", s)
	}
	name, s = strings.ToLower(s[:n]), s[n:]
	if s != "" && strings.IndexByte("-._:/", s[0]) >= 0 {
		return name, "", fmt.Sprintf("syntax error near %q", s)
	}
	s = skipBlanks(s)
	if strings.HasPrefix(s, "=") {
		s = skipBlanks(s[1:])
	}
	v, ok := scanValue(s)
	if !ok {
		return name, "", fmt.Sprintf("syntax error near %q", s)
	}
	if rest := skipBlanks(s[v:]); rest != "" && rest[0] != '#' {
		return name, "", fmt.Sprintf("syntax error near %q", rest)
	}
	return name, s[:v], ""
}

// nameLen is the length of the parameter name at the start of s, which may be
// of two words joined by a dot; 0 when there is none.
func nameLen(s string) int {
	word := func(i int) int {
		if i >= len(s) || !isLetter(s[i]) {
			return 0
		}
		j := i
		for ; j < len(s) && (isLetter(s[j]) || isDigit(s[j])); j++ {
		}
		return j - i
	}
	n := word(0)
	if n > 0 && n < len(s) && s[n] == '.' {
		if m := word(n + 1); m > 0 {
			return n + 1 + m
		}
	}
	return n
}

// scanValue is the length of the value token at the start of s.
func scanValue(s string) (n int, ok bool) {
	if s == "" {
		return 0, false
	}
	if s[0] == '\'' {
		return scanQuoted(s)
	}
	if isLetter(s[0]) {
		for n = 1; n < len(s) && (isLetter(s[n]) || isDigit(s[n]) || strings.IndexByte("-._:/", s[n]) >= 0); n++ {
		}
		// Two words joined by a dot are a name, never a value: "a.b" must be
		// quoted.
		qualified := nameLen(s) == n && strings.IndexByte(s[:n], '.') >= 0
		return n, !qualified
	}
	n = max(integerLen(s), realLen(s))
	return n, n > 0
}

// integerLen is the length of the integer, with its unit, at the start of s.
func integerLen(s string) int {
	i := signLen(s)
	start := i
	if strings.HasPrefix(s[i:], "0x") && len(s) > i+2 && isHex(s[i+2]) {
		for i += 2; i < len(s) && isHex(s[i]); i++ {
		}
	} else {
		for ; i < len(s) && isDigit(s[i]); i++ {
		}
	}
	if i == start {
		return 0
	}
	for ; i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z'); i++ {
	}
	return i
}

// realLen is the length of the number with a point at the start of s. Such a
// number has no unit: "1.5h" must be quoted.
func realLen(s string) int {
	i := signLen(s)
	for ; i < len(s) && isDigit(s[i]); i++ {
	}
	if i >= len(s) || s[i] != '.' {
		return 0
	}
	for i++; i < len(s) && isDigit(s[i]); i++ {
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		j := i + 1
		j += signLen(s[j:])
		if j < len(s) && isDigit(s[j]) {
			for i = j; i < len(s) && isDigit(s[i]); i++ {
			}
		}
	}
	return i
}

func signLen(s string) int {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return 1
	}
	return 0
}

func scanQuoted(s string) (int, bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\n':
			return 0, false
		case '\\':
			if i++; i < len(s) && s[i] == '\n' {
				return 0, false
			}
		case '\'':
			if i+1 < len(s) && s[i+1] == '\'' {
				i++
				continue
			}
			return i + 1, true
		}
	}
	return 0, false
}

// unquote is the value of a token.
func unquote(raw string) string {
	if !strings.HasPrefix(raw, "'") {
		return raw
	}
	s := raw[1 : len(raw)-1]
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			i++ // the second of a pair
			b.WriteByte('\'')
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] >= '0' && s[i] <= '7' {
				v := 0
				end := min(i+3, len(s))
				for ; i < end && s[i] >= '0' && s[i] <= '7'; i++ {
					v = v*8 + int(s[i]-'0')
				}
				i--
				b.WriteByte(byte(v))
			} else if k := strings.IndexByte("bfnrt", s[i]); k >= 0 {
				b.WriteByte("\b\f\n\r\t"[k])
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
