package session

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
)

// fakeEncoding is LATIN1 without 0x81, made by hand.
func fakeEncoding() *encoding {
	e := &encoding{name: "LATIN1", layout: singleByte, to: make([]uint32, 1<<16), from: make([]uint16, 1<<16)}
	for c := 0x80; c <= 0xff; c++ {
		if c != 0x81 {
			e.to[c], e.from[c] = uint32(c), uint16(c)
		}
	}
	return e
}

// fakeLayout is an encoding of some layout in which every second code of two
// bytes is the character of that number.
func fakeLayout(name string) *encoding {
	e := &encoding{name: name, layout: layouts[name], to: make([]uint32, 1<<16), from: make([]uint16, 1<<16), long: map[uint32]uint16{}}
	for code := 0x8000; code < 1<<16; code += 2 {
		c := []byte{byte(code >> 8), byte(code)}
		if utf8.ValidRune(rune(code)) && e.layout.length(c) == 2 && e.layout.valid(c) {
			e.to[code], e.from[code] = uint32(code), uint16(code)
		}
	}
	return e
}

func TestEncoding(t *testing.T) {
	e := fakeEncoding()
	for _, c := range []struct{ text, want string }{
		{"", ""}, {"plain text of more than eight bytes", "plain text of more than eight bytes"},
		{"é", "\xe9"}, {"12345678é12345678éé", "12345678\xe912345678\xe9\xe9"},
	} {
		got, err := e.encode([]byte("x"), []byte(c.text))
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%q became %q, %v", c.text, got, err)
		}
		back, err := e.decode([]byte("x"), got[1:])
		if err != nil || string(back) != "x"+c.text {
			t.Errorf("%q became %q, %v", got, back, err)
		}
	}
	for _, c := range []struct{ text, code, message string }{
		{"ab€", "22P05", `character with byte sequence 0xe2 0x82 0xac in encoding "UTF8" has no equivalent in encoding "LATIN1"`},
		{"\u0081", "22P05", `character with byte sequence 0xc2 0x81 in encoding "UTF8" has no equivalent in encoding "LATIN1"`},
		{"\U0001f600", "22P05", `character with byte sequence 0xf0 0x9f 0x98 0x80 in encoding "UTF8" has no equivalent in encoding "LATIN1"`},
		{"a\xe9bcd", "22021", `invalid byte sequence for encoding "UTF8": 0xe9 0x62 0x63`},
	} {
		_, err := e.encode(nil, []byte(c.text))
		if pe := pgError(err); pe.Code != c.code || pe.Message != c.message {
			t.Errorf("%q: %v", c.text, err)
		}
	}
	if _, err := e.decode(nil, []byte("a\x81")); pgError(err).Message != `character with byte sequence 0x81 in encoding "LATIN1" has no equivalent in encoding "UTF8"` {
		t.Errorf("%v", err)
	}
	if got := e.encodeLossy("a€é"); got != "a?\xe9" {
		t.Errorf("lossy: %q", got)
	}
	if err := checkUTF8("aé€" + string(utf8.RuneError)); err != nil {
		t.Error(err)
	}
	if err := checkUTF8("a\xc3"); err == nil || pgError(err).Message != `invalid byte sequence for encoding "UTF8": 0xc3` {
		t.Errorf("%v", err)
	}
}

// TestOutInEncoding follows messages to a client in LATIN1.
func TestOutInEncoding(t *testing.T) {
	var wire bytes.Buffer
	o := &out{be: pgproto3.NewBackend(strings.NewReader(""), &wire)}
	o.enc = fakeEncoding()
	sent := func(m pgproto3.BackendMessage) string {
		wire.Reset()
		o.send(m)
		o.flush()
		if wire.Len() == 0 {
			return ""
		}
		return wire.String()[5:]
	}
	for _, c := range []struct {
		m    pgproto3.BackendMessage
		want string
	}{
		{&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("é")}}}, "\x00\x01\xe9\x00"},
		{&pgproto3.DataRow{Values: [][]byte{[]byte("é"), nil, []byte("")}}, "\x00\x03\x00\x00\x00\x01\xe9\xff\xff\xff\xff\x00\x00\x00\x00"},
		{rowBody("\x00\x03\x00\x00\x00\x02\xc3\xa9\xff\xff\xff\xff\x00\x00\x00\x00"), "\x00\x03\x00\x00\x00\x01\xe9\xff\xff\xff\xff\x00\x00\x00\x00"},
		{&pgproto3.ErrorResponse{Message: "é"}, "M\xe9\x00\x00"},
		{&pgproto3.ErrorResponse{Severity: "FATAL", Message: "€"}, "SFATAL\x00C22P05\x00Mcharacter with"},
		{&pgproto3.NoticeResponse{Message: "é€"}, "M\xe9?\x00\x00"},
		{&pgproto3.NotificationResponse{Channel: "ä", Payload: "ö"}, "\x00\x00\x00\x00\xe4\x00\xf6\x00"},
		{copyBody("\xc3\xa9"), "\xc3\xa9"}, // COPY says its encoding itself
	} {
		if got := sent(c.m); !strings.HasPrefix(got, c.want) || c.want == "" {
			t.Errorf("%#v was sent as %q", c.m, got)
		}
	}
	// A row that cannot be sent fails the statement, not the session.
	if got := sent(&pgproto3.DataRow{Values: [][]byte{[]byte("€")}}) + sent(rowBody("\x00\x01\x00\x00\x00\x01a")); got != "" {
		t.Errorf("sent %q", got)
	}
	if err := o.refusal(); err == nil || pgError(err).Code != "22P05" || o.refusal() != nil || o.err != nil {
		t.Errorf("%v, then %v", err, o.err)
	}
	if got := sent(rowBody("\x00\x01\x00\x00\x00\x01a")); got == "" {
		t.Error("nothing is sent after the refusal was taken")
	}
	// Binary columns: only text is converted; without knowing, nothing is sent.
	sent(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a")}, {Name: []byte("b"), DataTypeOID: 25, Format: 1}, {Name: []byte("c"), DataTypeOID: 17, Format: 1}}})
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("é"), []byte("é"), []byte("é")}}
	if got := sent(row); got != "" || pgError(o.refusal()).Code != "0A000" {
		t.Errorf("sent %q", got)
	}
	o.forms = binaryForms{25: formText}
	if got := sent(row); got != "\x00\x03\x00\x00\x00\x01\xe9\x00\x00\x00\x01\xe9\x00\x00\x00\x02\xc3\xa9" {
		t.Errorf("sent %q", got)
	}
}

// TestUTF8RowsAreNotCopied holds the row path of UTF-8 clients to its price.
func TestUTF8RowsAreNotCopied(t *testing.T) {
	o := &out{be: pgproto3.NewBackend(strings.NewReader(""), &bytes.Buffer{})}
	row := rowBody("\x00\x01\x00\x00\x00\x02\xc3\xa9")
	var boxed pgproto3.BackendMessage = row
	o.send(boxed)
	o.flush()
	least := 100.0
	for range 5 { // others' allocations count, too
		least = min(least, testing.AllocsPerRun(100, func() { o.send(boxed); o.flush() }))
	}
	if least > 1 {
		t.Errorf("%v allocations for a row", least)
	}
}

func FuzzEncoding(f *testing.F) {
	var all []*encoding
	all = append(all, fakeEncoding())
	for name := range layouts {
		all = append(all, fakeLayout(name))
	}
	f.Add([]byte("abc\xe9\x8e\xa1\xa1\x8f\xa1\xa1\x81\x30\x81\x30\x90\x30\x81\x30\xff"))
	f.Add([]byte("日本語 déjà \U0001f600"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, e := range all {
			if text, err := e.decode(nil, in); err == nil {
				if !utf8.Valid(text) {
					t.Fatalf("%s: %x became %x, which is not UTF-8", e.name, in, text)
				}
				if back, err := e.encode(nil, text); err != nil || !bytes.Equal(back, in) {
					t.Fatalf("%s: %x became %q and came back as %x, %v", e.name, in, text, back, err)
				}
			}
			if code, err := e.encode(nil, in); err == nil {
				if back, err := e.decode(nil, code); err != nil || !bytes.Equal(back, in) {
					t.Fatalf("%s: %q became %x and came back as %q, %v", e.name, in, code, back, err)
				}
			}
			_ = e.encodeLossy(string(in))
		}
	})
}

func FuzzBinaryText(f *testing.F) {
	forms := binaryForms{25: formText, 3802: formVersioned, 1009: formArray, 2249: formRecord, 3614: formUnknown}
	f.Add(uint32(1009), []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x19\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\xc3\xa9"))
	f.Add(uint32(2249), []byte("\x00\x00\x00\x01\x00\x00\x08\xc9\x00\x00\x00\x04\x00\x00\x00\x00"))
	f.Add(uint32(2249), bytes.Repeat([]byte("\x00\x00\x00\x01\x00\x00\x08\xc9\x00\x00\x00\x7f"), 9))
	latin1 := fakeEncoding()
	f.Fuzz(func(t *testing.T, oid uint32, in []byte) {
		same := func(dst, src []byte) ([]byte, error) { return append(dst, src...), nil }
		b := binaryText{forms: forms, enc: "LATIN1", text: same}
		out, err := b.convert([]byte("x"), oid, in)
		if err == nil && string(out) != "x"+string(in) {
			t.Fatalf("%x became %x", in, out)
		}
		b.text = latin1.encode
		_, _ = b.convert(nil, oid, in)
	})
}
