package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

func TestLineEnd(t *testing.T) {
	for _, tc := range []struct {
		in   string
		from int
		want int
	}{
		{"", 0, -1}, {"a", 0, -1}, {"\n", 0, 0}, {"a\nb\n", 0, 1}, {"a\nb\n", 2, 3},
		{"a\\\nb\n", 0, 4}, {"a\\\\\nb\n", 0, 3}, {"a\\\\\\\nb\n", 0, 6}, {"\\\n", 0, -1},
		{"\\\n", 1, -1}, {"\\\\\n", 2, 2}, // the backslashes came earlier
	} {
		if got := lineEnd([]byte(tc.in), tc.from); got != tc.want {
			t.Errorf("lineEnd(%q, %d) = %d, expected %d", tc.in, tc.from, got, tc.want)
		}
	}
}

func TestFieldEnd(t *testing.T) {
	for _, tc := range []struct {
		in    string
		delim byte
		want  int
	}{
		{"", '\t', 0}, {"abc", '\t', 3}, {"a\tb", '\t', 1}, {"\tb", '\t', 0}, {"a\\\tb\tc", '\t', 4}, {"a\\\\\tb", '\t', 3},
		{"a|b", '|', 1}, {"a\\|b|", '|', 4}, {"a\\", '\t', 2},
	} {
		if got := fieldEnd([]byte(tc.in), tc.delim); got != tc.want {
			t.Errorf("fieldEnd(%q) = %d, expected %d", tc.in, got, tc.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "abc": "abc", `a\tb`: "a\tb", `\b\f\n\r\t\v`: "\b\f\n\r\t\v", `\\`: `\`, `\q`: "q", `\x41`: "A", `\x4g`: "\x04g",
		`\xg`: "xg", `\x`: "x", `\101`: "A", `\1012`: "A2", `\18`: "\x018", `\377`: "\xff", `\400`: "\x00", `a\`: `a\`, "a\\\tb": "a\tb", `\xAf`: "\xaf",
	} {
		if got := string(unescape(nil, []byte(in))); got != want {
			t.Errorf("unescape(%q) = %q, expected %q", in, got, want)
		}
	}
}

// FuzzUnescape holds unescape to the inverse of what COPY TO writes, and to
// never growing a field.
func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "a\tb\\c\nd\r", "\\N", "\x00\xff", "\\x41"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		if got := unescape(nil, v); len(got) > len(v) {
			t.Fatalf("unescape(%q) = %q is longer", v, got)
		}
		row := appendRowBody(nil, [][]byte{v, nil, v})
		text := appendCopyText(nil, row[2:], 3)
		if end := lineEnd(text, 0); end != len(text)-1 {
			t.Fatalf("%q of %q is not one line: it ends at %d", text, v, end)
		}
		rest := text[:len(text)-1]
		var fields [][]byte
		for {
			i := fieldEnd(rest, '\t')
			fields = append(fields, rest[:i])
			if i == len(rest) {
				break
			}
			rest = rest[i+1:]
		}
		if len(fields) != 3 || string(fields[1]) != `\N` {
			t.Fatalf("%q has fields %q", text, fields)
		}
		for _, at := range []int{0, 2} {
			if got := unescape(nil, fields[at]); !bytes.Equal(got, v) {
				t.Fatalf("%q comes back as %q", v, got)
			}
		}
	})
}

// simpleLines cuts a stream as PostgreSQL reads it: character by character.
func simpleLines(data string) (lines []string) {
	var line strings.Builder
	escaped := false
	for i := range len(data) {
		c := data[i]
		line.WriteByte(c)
		if c == '\n' && !escaped {
			lines = append(lines, line.String())
			line.Reset()
		}
		escaped = c == '\\' && !escaped
	}
	if line.Len() > 0 {
		lines = append(lines, line.String()+"\n")
	}
	return lines
}

// simpleKey is a line's first field, "" and false when it is null.
func simpleKey(line string) (string, bool) {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	var out strings.Builder
	escaped := false
	for i := range len(line) {
		c := line[i]
		if escaped {
			escaped = false
			out.WriteByte(c)
			continue
		}
		if c == '\t' {
			line = line[:i]
			break
		}
		if c == '\\' {
			escaped = true
			continue
		}
		out.WriteByte(c)
	}
	return out.String(), line != `\N`
}

// TestLinePlacer cuts random streams at random points and compares where the
// lines go with what a simple reading of the same stream says.
func TestLinePlacer(t *testing.T) {
	const segments = 3
	r := &relation{Relation: plan.Relation{Policy: &plan.Policy{Kind: plan.Hashed, Keys: []int{0}}},
		columns: []column{{Name: "k", oid: 25, base: 25}, {Name: "v", oid: 25, base: 25}}}
	hasher, err := cdbhash.NewHasher([]uint32{25})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "bc", "\t", "\n", "\\\\", "\\\t", "\\\n", "\\N", "d\n", "x\ty\n", "é"})
		data := strings.Join(rapid.SliceOfN(piece, 0, 60).Draw(t, "data"), "")
		want := make([]string, segments)
		for _, line := range simpleLines(data) {
			var key []byte
			if k, ok := simpleKey(line); ok {
				key = []byte(k)
			}
			seg, err := hasher.Segment([][]byte{key}, segments)
			if err != nil {
				t.Fatal(err)
			}
			want[seg] += line
		}
		got := make([]string, segments)
		p := &linePlacer{opt: directOptions{delimiter: '\t', null: `\N`, fields: []int{0}, columns: 2}, r: r, n: segments,
			put: func(seg int, line []byte) error { got[seg] += string(line); return nil }}
		if err := p.open(); err != nil {
			t.Fatal(err)
		}
		for rest := data; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			if err := p.write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q:\n got %q\nwant %q", data, got, want)
		}
	})
}

func TestLinePlacerEnds(t *testing.T) {
	random := &relation{Relation: plan.Relation{Policy: &plan.Policy{Kind: plan.Random}}}
	for in, want := range map[string]string{
		"1\n2\n\\.\n3\n": "1\n2\n",
		"1\n2":           "1\n2\n",
		"1\r\n2":         "1\r\n2\r\n",
		"1\n\\.":         "1\n",
		"\\.\n1\n":       "",
		"1\r\n\\.\r\n2":  "1\r\n",
		"":               "",
	} {
		got := ""
		p := &linePlacer{r: random, n: 1, put: func(_ int, line []byte) error { got += string(line); return nil }}
		if err := p.open(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.write([]byte(in)), p.end()); err != nil || got != want {
			t.Errorf("%q is sent as %q, %v; expected %q", in, got, err, want)
		}
	}
}

// TestLinePlacerWhere finds the client's line from a segment's.
func TestLinePlacerWhere(t *testing.T) {
	r := &relation{Relation: plan.Relation{Policy: &plan.Policy{Kind: plan.Random}}}
	p := &linePlacer{r: r, n: 2, put: func(int, []byte) error { return nil }}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	if err := p.write([]byte(strings.Repeat("x\n", 10))); err != nil {
		t.Fatal(err)
	}
	for seg, want := range []string{"COPY a b, line 6, column c: \"x\"", "COPY a b, line 5, column c: \"x\""} {
		err := error(&dispatch.Error{Seg: seg, PgError: &pgconn.PgError{Code: "22P02", Where: "COPY a b, line 3, column c: \"x\""}})
		if got := pgError(p.where(err)).Where; got != want {
			t.Errorf("segment %d: %q, expected %q", seg, got, want)
		}
	}
	lost := error(&dispatch.Error{Seg: 0, PgError: &pgconn.PgError{Where: "COPY t, line 99"}})
	if got := pgError(p.where(lost)).Where; got != "" {
		t.Errorf("a line that was never sent: %q", got)
	}
	plain := errors.New("x")
	if p.where(plain) != plain {
		t.Error("an error of nobody's was changed")
	}
}

// TestLinePlacerAsks has PostgreSQL read what only it can read.
func TestLinePlacerAsks(t *testing.T) {
	r := &relation{Relation: plan.Relation{Name: "t", Policy: &plan.Policy{Kind: plan.Hashed, Keys: []int{0}}}, columns: []column{{Name: "k", oid: 2950, base: 2950}}}
	where := map[string]int{}
	refused := &pgconn.PgError{Code: "22P02", Message: "invalid input syntax for type uuid"}
	p := &linePlacer{opt: directOptions{delimiter: '\t', null: `\N`, fields: []int{0}}, r: r, n: 16,
		put: func(seg int, line []byte) error { where[string(line)] = seg; return nil },
		ask: func(oid uint32, text []byte) ([]byte, error) {
			if oid != 2950 || text[0] != '{' {
				return nil, refused
			}
			v, _ := cdbhash.FromText(oid, bytes.Trim(text, "{}"), nil)
			return v, nil
		}}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	const id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	if err := p.write([]byte(id + "\n{" + id + "}\n")); err != nil {
		t.Fatal(err)
	}
	if a, b := where[id+"\n"], where["{"+id+"}\n"]; a != b {
		t.Errorf("two spellings of one value are on segments %d and %d", a, b)
	}
	err := p.write([]byte("nonsense\n"))
	if pe := pgError(err); pe.Code != "22P02" || pe.Where != "COPY t, line 3" || refused.Where != "" {
		t.Errorf("nonsense: %v, %q", err, pe.Where)
	}
}

func TestLineLog(t *testing.T) {
	var l lineLog
	const n = logLength + 10
	for i := 1; i <= n; i++ {
		l.add(i * 3)
	}
	for i, ok := range map[int]bool{0: false, 1: false, 10: false, 11: true, 12: true, n: true, n + 1: false} {
		line, found := l.at(i)
		if found != ok || ok && line != i*3 {
			t.Errorf("at(%d) = %d, %v", i, line, found)
		}
	}
	if len(l.last) != logLength {
		t.Errorf("the log holds %d lines, its limit is %d", len(l.last), logLength)
	}
}
