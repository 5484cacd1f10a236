package session

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestEncodingsArePostgres compares conversions both ways, and their errors,
// with PostgreSQL's own.
func TestEncodingsArePostgres(t *testing.T) {
	srv := pgtest.Start(t)
	l, client := dialTest(t, srv), dialTest(t, srv)
	all := &encodings{ask: func(_ context.Context, sql string) (*result, error) {
		defer func() { _, _ = l.query("DISCARD TEMP") }() // ask's connections are new
		return l.query(sql)
	}}
	res, err := l.query("SELECT DISTINCT pg_encoding_to_char(contoencoding) FROM pg_conversion WHERE conforencoding = pg_char_to_encoding('UTF8') ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, row := range res.rows {
		name := string(row[0])
		t.Run(name, func(t *testing.T) {
			spelled, e, err := all.find(t.Context(), name)
			if name == "EUC_JIS_2004" || name == "SHIFT_JIS_2004" {
				if pe := pgError(err); pe.Code != "0A000" {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || spelled != name || e == nil {
				t.Fatalf("%s, %v", spelled, err)
			}
			if _, err := client.query("SET client_encoding TO " + name); err != nil {
				t.Fatal(err)
			}
			same := func(what string, got *result, err error, want *result, werr error) {
				t.Helper()
				if (err == nil) != (werr == nil) {
					t.Fatalf("%s: got %v, want %v", what, err, werr)
				}
				if err == nil && string(got.value()) != string(want.value()) {
					t.Fatalf("%s: got %s, want %s", what, got.value(), want.value())
				}
				// Any other error is of a statement that has become nonsense.
				if have, should := pgErrorOf(err), pgErrorOf(werr); should.Code[:2] == "22" && (have.Code != should.Code || have.Message != should.Message) {
					t.Fatalf("%s: got %v, want %v", what, err, werr)
				}
			}
			for i := range 250 {
				// Bytes: mostly characters, sometimes nonsense.
				b := make([]byte, 1+rnd.IntN(6))
				for i := range b {
					if b[i] = byte(0x80 + rnd.IntN(0x80)); rnd.IntN(3) == 0 {
						b[i] = byte('0' + rnd.IntN(0x50))
					}
				}
				sql := "SELECT encode(convert_to('" + string(b) + "', 'UTF8'), 'hex')"
				want, werr := client.query(sql)
				var got *result
				text, err := e.decode(nil, []byte(sql))
				if err == nil {
					got, err = l.query(string(text))
				}
				same(fmt.Sprintf("decode %x", b), got, err, want, werr)
				r := rune(0x80 + rnd.IntN(0x600))
				switch i % 4 {
				case 0:
					r = rune(0x80 + rnd.IntN(utf8.MaxRune-0x80))
				case 1, 2:
					r = rune(0x2000 + rnd.IntN(0xb000))
				}
				if !utf8.ValidRune(r) {
					continue
				}
				want, werr = l.query(fmt.Sprintf("SELECT convert_to('a%c', '%s')", r, name))
				code, err := e.encode(nil, []byte("a"+string(r)))
				same(fmt.Sprintf("encode %U", r), &result{rows: [][][]byte{{[]byte(`\x` + hex.EncodeToString(code))}}}, err, want, werr)
			}
		})
	}
	t.Run("names", func(t *testing.T) {
		for name, want := range map[string]string{"latin-1": "LATIN1", "Iso-8859-1": "LATIN1", "windows1252": "WIN1252",
			"ShiftJIS": "SJIS", "unicode": "UTF8", "utf-8": "UTF8", "SQL_ASCII": "SQL_ASCII", "koi8": "KOI8R"} {
			if got, e, err := all.find(t.Context(), name); got != want || err != nil || (e == nil) != (want == "UTF8" || want == "SQL_ASCII") {
				t.Errorf("%s is %s, %v, %v", name, got, e, err)
			}
		}
		for name, code := range map[string]string{"xyz": "22023", "": "22023", "it's": "22023", "MULE_INTERNAL": "0A000", "JOHAB": "", "euc_jis_2004": "0A000"} {
			_, _, err := all.find(t.Context(), name)
			var pe *pgconn.PgError
			if err != nil {
				pe = pgError(err)
			}
			if code == "" && err != nil || code != "" && (pe == nil || pe.Code != code) {
				t.Errorf("%s: %v, expected %q", name, err, code)
			}
		}
	})
}

// pgErrorOf is pgError, with a code for none.
func pgErrorOf(err error) *pgconn.PgError {
	if err == nil {
		return &pgconn.PgError{Code: "00000"}
	}
	return pgError(err)
}

// TestBinaryForms finds the text in binary values by PostgreSQL's catalog, and
// PostgreSQL reads back what was made of them.
func TestBinaryForms(t *testing.T) {
	l := dialTest(t, pgtest.Start(t))
	s := &Session{srv: &Server{}, link: l}
	if _, err := l.query("CREATE TYPE mood AS ENUM ('mäßig'); CREATE DOMAIN word AS text; CREATE TYPE pair AS (a int, b word, c mood); " +
		"CREATE TYPE words AS RANGE (subtype = text)"); err != nil {
		t.Fatal(err)
	}
	if err := s.loadForms(); err != nil {
		t.Fatal(err)
	}
	latin1 := fakeEncoding()
	for _, c := range []struct{ typ, value, want string }{
		{"text", "é", "e9"}, {"varchar", "é", "e9"}, {"bpchar", "é", "e9"}, {"name", "é", "e9"}, {"json", `"é"`, "22e922"},
		{"mood", "mäßig", "6de4df6967"}, {"word", "é", "e9"}, {"xml", "é", "e9"},
		{"jsonb", `"é"`, "0122e922"},
		{"int4", "233", "000000e9"}, {"bytea", `\xc3a9`, "c3a9"}, {"int4[]", "{233}", "same"}, {"int4range", "[1,2)", "same"},
		{"text[]", `{é,NULL,""}`, "000000010000000100000019000000030000000100000001e9ffffffff00000000"},
		{"text[]", "{}", "same"},
		{"pair", "(7,é,mäßig)", ""}, {"pair[]", `{"(7,é,mäßig)","(,,)"}`, ""},
		{"tsvector", "'é'", "0A000"}, {"words", "[é,ö)", "0A000"},
	} {
		res, err := l.query(fmt.Sprintf("SELECT encode(%s(%s::%s), 'hex'), '%[3]s'::regtype::oid::bigint", sendFunction(t, l, c.typ), literal(c.value), c.typ))
		if err != nil {
			t.Fatal(err)
		}
		v, _ := hex.DecodeString(string(res.value()))
		var oid uint32
		_, _ = fmt.Sscan(string(res.rows[0][1]), &oid)
		b := binaryText{forms: s.out.forms, enc: "LATIN1", text: latin1.encode}
		got, err := b.convert(nil, oid, v)
		if c.want == "0A000" {
			if err == nil || pgError(err).Code != c.want {
				t.Errorf("%s: %x, %v", c.typ, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.typ, err)
			continue
		}
		switch c.want {
		case "":
		case "same":
			if string(got) != string(v) {
				t.Errorf("%s: %x became %x", c.typ, v, got)
			}
		default:
			if hex.EncodeToString(got) != c.want {
				t.Errorf("%s: got %x, want %s", c.typ, got, c.want)
			}
		}
		b.text = latin1.decode
		if back, err := b.convert(nil, oid, got); err != nil || string(back) != string(v) {
			t.Errorf("%s: %x came back as %x, %v", c.typ, v, back, err)
		}
	}
}

func sendFunction(t *testing.T, l *link, typ string) string {
	t.Helper()
	res, err := l.query(fmt.Sprintf("SELECT typsend::text FROM pg_type WHERE oid = '%s'::regtype", typ))
	if err != nil {
		t.Fatal(err)
	}
	return string(res.value())
}
