package plan

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// mayHaveGreenplumClauses is a quick test that lets most statements go to the
// parser without a scan.
func mayHaveGreenplumClauses(sql string) bool {
	s := strings.TrimLeft(sql, " \t\r\n\f\v(")
	// The first word decides, except after a comment.
	if len(s) >= 2 && (s[:2] == "--" || s[:2] == "/*") {
		return true
	}
	for _, w := range [...]string{"create", "alter", "explain"} {
		if len(s) > len(w) && strings.EqualFold(s[:len(w)], w) {
			return true
		}
	}
	return false
}

// storageOptions are Greenplum's table storage options, which PostgreSQL does
// not know. fillfactor is PostgreSQL's and stays.
var storageOptions = map[string]bool{
	"appendonly": true, "appendoptimized": true, "orientation": true, "compresstype": true,
	"compresslevel": true, "blocksize": true, "checksum": true, "bucketnum": true,
}

// stripper takes Greenplum's clauses out of one statement's text.
type stripper struct {
	st   *Statement
	text []byte
	toks []*pg.ScanToken // comments left out
	// begin is the token at which the statement begins that EXPLAIN, if there is
	// one, is of.
	begin int
}

// afterExplain is the token after EXPLAIN and its options, 0 without EXPLAIN.
func (s *stripper) afterExplain() int {
	if s.word(0) != "explain" {
		return 0
	}
	if s.word(1) == "(" {
		end, _ := s.closing(1)
		return end
	}
	i := 1
	for s.word(i) == "analyze" || s.word(i) == "analyse" || s.word(i) == "verbose" {
		i++
	}
	return i
}

// strip blanks Greenplum's clauses in st.SQL and notes them in st.
func (st *Statement) strip() error {
	toks, err := scan(st.SQL)
	if err != nil {
		return err
	}
	s := &stripper{st: st, text: []byte(st.SQL)}
	for _, t := range toks {
		if t.Token != pg.Token_SQL_COMMENT && t.Token != pg.Token_C_COMMENT {
			s.toks = append(s.toks, t)
		}
	}
	s.begin = s.afterExplain()
	switch s.object() {
	case "create table":
		s.tableClauses()
	case "alter table":
		s.alterTableClauses()
	case "create function", "alter function":
		s.functionClauses()
	default:
		return nil
	}
	if sql := string(s.text); sql != st.SQL {
		st.SQL, st.Changed = sql, true
	}
	return nil
}

// object says what the statement makes or alters: "create table" also for
// materialized views, "alter table", "create function", "alter function", or "".
func (s *stripper) object() string {
	switch s.word(s.begin) {
	case "create":
		for i := s.begin + 1; i < len(s.toks) && i < s.begin+6; i++ {
			switch s.word(i) {
			case "or", "replace", "global", "local", "temporary", "temp", "unlogged", "materialized":
			case "table":
				return "create table"
			case "view":
				if s.word(i-1) == "materialized" {
					return "create table"
				}
				return ""
			case "function", "procedure":
				return "create function"
			default:
				return ""
			}
		}
	case "alter":
		switch s.word(s.begin + 1) {
		case "table":
			return "alter table"
		case "materialized":
			return "alter table"
		case "function":
			return "alter function"
		}
	}
	return ""
}

// word is token i's text in lower case, "" past the end and for what is no
// bare word (so a quoted identifier is never a keyword).
func (s *stripper) word(i int) string {
	if i < 0 || i >= len(s.toks) {
		return ""
	}
	t := s.raw(i)
	if c := t[0]; c == '"' || c == '\'' || c == '$' {
		return ""
	}
	return strings.ToLower(t)
}

func (s *stripper) raw(i int) string { return s.st.SQL[s.toks[i].Start:s.toks[i].End] }

func (s *stripper) is(i int, words ...string) bool {
	for k, w := range words {
		if s.word(i+k) != w {
			return false
		}
	}
	return true
}

// blank puts spaces over tokens i up to but not j, and writes with at the start
// of the gap if it fits.
func (s *stripper) blank(i, j int, with string) {
	from, to := s.toks[i].Start, s.toks[j-1].End
	for k := from; k < to; k++ {
		if s.text[k] != '\n' {
			s.text[k] = ' '
		}
	}
	if len(with) <= int(to-from) {
		copy(s.text[from:to], with)
	}
}

// closing is the index after the parenthesis that closes the one at i.
func (s *stripper) closing(i int) (int, bool) {
	depth := 0
	for ; i < len(s.toks); i++ {
		switch s.toks[i].Token {
		case pg.Token_ASCII_40:
			depth++
		case pg.Token_ASCII_41:
			if depth--; depth == 0 {
				return i + 1, true
			}
		}
	}
	return 0, false
}

// tableClauses handles CREATE TABLE, CREATE TABLE AS and CREATE MATERIALIZED
// VIEW.
func (s *stripper) tableClauses() {
	depth := 0
	for i := s.begin + 1; i < len(s.toks); i++ {
		switch {
		case s.toks[i].Token == pg.Token_ASCII_40:
			depth++
		case s.toks[i].Token == pg.Token_ASCII_41:
			depth--
		case depth == 0 && s.is(i, "distributed"):
			if d, end, ok := s.distributed(i); ok && s.st.Distribution == nil {
				s.st.Distribution = d
				s.blank(i, end, "")
				i = end - 1
			}
		case depth == 0 && s.is(i, "with", "("):
			if end, ok := s.closing(i + 1); ok {
				s.withOptions(i, end)
				i = end - 1
			}
		case depth == 1 && s.is(i, "encoding", "(") && storageOptions[s.word(i+2)]:
			// Column ENCODING (compresstype=…).
			if end, ok := s.closing(i + 1); ok {
				s.blank(i, end, "")
				i = end - 1
			}
		}
	}
}

// distributed reads a DISTRIBUTED clause at token i and says where it ends.
func (s *stripper) distributed(i int) (*Distribution, int, bool) {
	switch s.word(i + 1) {
	case "randomly":
		return &Distribution{Kind: Random}, i + 2, true
	case "replicated":
		return &Distribution{Kind: Replicated}, i + 2, true
	case "by":
	default:
		return nil, 0, false
	}
	if s.word(i+2) != "(" {
		return nil, 0, false
	}
	end, ok := s.closing(i + 2)
	if !ok {
		return nil, 0, false
	}
	d := &Distribution{Kind: Hashed}
	for j := i + 3; j < end-1; {
		column, ok := s.identifier(j)
		if !ok {
			return nil, 0, false
		}
		key := DistributionKey{Column: column}
		from := j + 1
		for j++; j < end-1 && s.word(j) != ","; j++ {
			switch s.word(j) {
			case "(", ")":
				return nil, 0, false
			}
		}
		if j > from {
			key.OpClass = s.st.SQL[s.toks[from].Start:s.toks[j-1].End]
		}
		d.Keys = append(d.Keys, key)
		if j < end-1 { // the comma
			if j++; j >= end-1 {
				return nil, 0, false
			}
		}
	}
	return d, end, true
}

// identifier is the name token i stands for.
func (s *stripper) identifier(i int) (string, bool) {
	t := s.raw(i)
	if t[0] == '"' {
		return strings.ReplaceAll(t[1:len(t)-1], `""`, `"`), true
	}
	c := t[0]
	if c == '_' || c >= 0x80 || c|0x20 >= 'a' && c|0x20 <= 'z' {
		return foldIdentifier(t), true
	}
	return "", false
}

// foldIdentifier lowers the ASCII letters of an unquoted identifier and cuts it
// to PostgreSQL's 63 bytes.
func foldIdentifier(t string) string {
	b := []byte(t)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	if len(b) > 63 {
		b = b[:63]
		for len(b) > 0 && b[len(b)-1]&0xC0 == 0x80 {
			b = b[:len(b)-1]
		}
		if len(b) > 0 && b[len(b)-1] >= 0xC0 {
			b = b[:len(b)-1]
		}
	}
	return string(b)
}

// withOptions takes Greenplum's storage options out of WITH ( … ), tokens i up
// to but not end.
func (s *stripper) withOptions(i, end int) {
	type option struct{ from, to int } // to is the token after it
	var all []option
	depth, from := 0, i+2
	for j := i + 2; j < end; j++ {
		switch w := s.word(j); {
		case w == "(":
			depth++
		case w == ")" && depth > 0:
			depth--
		case w == "," && depth == 0, j == end-1:
			if j > from {
				all = append(all, option{from, j})
			}
			from = j + 1
		}
	}
	kept := 0
	for _, o := range all {
		if !storageOptions[s.word(o.from)] {
			kept++
		}
	}
	if kept == len(all) {
		return
	}
	for _, o := range all {
		if storageOptions[s.word(o.from)] {
			if s.st.Storage == nil {
				s.st.Storage = map[string]string{}
			}
			s.st.Storage[s.word(o.from)] = s.optionValue(o.from, o.to)
		}
	}
	if kept == 0 {
		s.blank(i, end, "")
		return
	}
	// Blank the options and one comma each, keeping the list well-formed.
	left := kept
	for n, o := range all {
		gone := storageOptions[s.word(o.from)]
		if !gone {
			left--
		}
		if gone {
			s.blank(o.from, o.to, "")
		}
		if n+1 < len(all) && (gone || left == 0) {
			s.blank(o.to, o.to+1, "")
		}
	}
}

// optionValue is the value of the option at tokens from up to to, unquoted;
// "true" when it has none.
func (s *stripper) optionValue(from, to int) string {
	if to-from < 3 || s.word(from+1) != "=" {
		return "true"
	}
	v := s.st.SQL[s.toks[from+2].Start:s.toks[to-1].End]
	return strings.ToLower(strings.Trim(v, `'"`))
}

// The actions that stand in for Greenplum's in ALTER: each changes nothing and
// is no longer than the clause it stands for.
const (
	noopSetDistributed = "SET WITHOUT OIDS" // accepted since PostgreSQL 12, does nothing
	noopExpandTable    = "RESET (x)"        // resetting what is not set
	noopExecuteOn      = "SUPPORT x"        // never run: the statement's SQL is emptied
)

// alterTableClauses handles ALTER TABLE … SET [WITH (…)] [DISTRIBUTED …] and
// EXPAND TABLE.
func (s *stripper) alterTableClauses() {
	depth := 0
	for i := 2; i < len(s.toks); i++ {
		switch {
		case s.toks[i].Token == pg.Token_ASCII_40:
			depth++
		case s.toks[i].Token == pg.Token_ASCII_41:
			depth--
		case depth != 0:
		case s.is(i, "expand", "table"):
			s.blank(i, i+2, noopExpandTable)
			s.st.ExpandTable = true
			i++
		case s.is(i, "set", "with", "("):
			end, ok := s.closing(i + 2)
			if !ok {
				return
			}
			s.reorganize(i+3, end-1)
			if s.is(end, "distributed") {
				d, e, ok := s.distributed(end)
				if !ok {
					continue
				}
				s.st.Distribution, end = d, e
			}
			s.blank(i, end, noopSetDistributed)
			s.st.SetDistribution = true
			i = end - 1
		case s.is(i, "set", "distributed"):
			if d, end, ok := s.distributed(i + 1); ok {
				s.st.Distribution, s.st.SetDistribution = d, true
				s.blank(i, end, noopSetDistributed)
				i = end - 1
			}
		}
	}
}

// reorganize notes REORGANIZE=… among the options of tokens from up to to.
func (s *stripper) reorganize(from, to int) {
	for i := from; i < to; i++ {
		end := i
		for end < to && s.word(end) != "," {
			end++
		}
		if s.is(i, "reorganize") {
			v := s.optionValue(i, end)
			yes := v == "true" || v == "on" || v == "1" || v == "yes"
			s.st.Reorganize = &yes
		} else if end > i {
			if s.st.Storage == nil {
				s.st.Storage = map[string]string{}
			}
			s.st.Storage[s.word(i)] = s.optionValue(i, end)
		}
		i = end
	}
}

// functionClauses handles EXECUTE ON and the data access words of CREATE and
// ALTER FUNCTION.
func (s *stripper) functionClauses() {
	alter := s.is(0, "alter")
	depth := 0
	for i := 2; i < len(s.toks); i++ {
		switch {
		case s.toks[i].Token == pg.Token_ASCII_40:
			depth++
		case s.toks[i].Token == pg.Token_ASCII_41:
			depth--
		case depth != 0:
		case s.is(i, "begin", "atomic"), s.is(i, "return"):
			// What follows is the body, up to the end.
			return
		case s.is(i, "execute", "on"):
			end, where := i+3, byte(0)
			switch s.word(i + 2) {
			case "any":
				where = 'a'
			case "master", "coordinator":
				where = 'c'
			case "initplan":
				where = 'i'
			case "all":
				if s.is(i+3, "segments") {
					end, where = i+4, 's'
				}
			}
			if where == 0 {
				continue
			}
			s.st.ExecuteOn = where
			with := ""
			if alter {
				with = noopExecuteOn
			}
			s.blank(i, end, with)
			i = end - 1
		case s.is(i, "no", "sql"), s.is(i, "contains", "sql"):
			s.blank(i, i+2, "")
			i++
		case s.is(i, "reads", "sql", "data"), s.is(i, "modifies", "sql", "data"):
			s.blank(i, i+3, "")
			i += 2
		}
	}
}
