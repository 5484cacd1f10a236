package merge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// body is a row in the form of a DataRow's body.
func body(values [][]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		n := uint32(len(v))
		if v == nil {
			n = 1<<32 - 1
		}
		b = append(binary.BigEndian.AppendUint32(b, n), v...)
	}
	return b
}

// fields are the values of a row.
func fields(row []byte) (out [][]byte) {
	for row = row[2:]; len(row) > 0; {
		n := int32(binary.BigEndian.Uint32(row))
		row = row[4:]
		if n < 0 {
			out = append(out, nil)
			continue
		}
		out, row = append(out, row[:n]), row[n:]
	}
	return out
}

// sender gives rows in memory that it overwrites with the next.
func sender(sent [][][]byte) func(int) ([]byte, error) {
	var buf []byte
	return func(i int) ([]byte, error) {
		for k := range buf {
			buf[k] = 0xAA
		}
		if len(sent[i]) == 0 {
			return nil, io.EOF
		}
		buf = append(buf[:0], sent[i][0]...)
		sent[i] = sent[i][1:]
		return buf, nil
	}
}

// merged are all rows that m returns.
func merged(t *testing.T, m *Merger, sent [][][]byte) (out [][]byte) {
	t.Helper()
	m.Begin(len(sent), sender(sent))
	for {
		row, err := m.Next()
		if err == io.EOF {
			if _, err := m.Next(); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.Clone(row))
	}
}

func texts(values ...string) (rows [][]byte) {
	for _, v := range values {
		rows = append(rows, body([][]byte{[]byte(v)}))
	}
	return rows
}

// TestMergeIsLazy: with a limit no more is received than the rows and what they
// have to be compared with.
func TestMergeIsLazy(t *testing.T) {
	sent := [][][]byte{texts("1", "3", "5"), texts("2", "4", "6"), nil, texts("9")}
	m := New(&Spec{Keys: []Key{{Type: 23}}, Columns: 1, Limit: 2, Offset: 1}, nil)
	var got []string
	for _, row := range merged(t, m, sent) {
		got = append(got, string(fields(row)[0]))
	}
	if strings.Join(got, " ") != "2 3" {
		t.Errorf("%q", got)
	}
	if left := []int{len(sent[0]), len(sent[1]), len(sent[3])}; !slices.Equal(left, []int{1, 1, 0}) {
		t.Errorf("%v rows are left", left)
	}
	if rows := merged(t, New(&Spec{Keys: []Key{{Type: 23}}, Columns: 1, Limit: -1}, nil), make([][][]byte, 3)); rows != nil {
		t.Errorf("%q of nothing", rows)
	}
	if New(nil, nil) != nil {
		t.Error("a merger without a spec")
	}
}

// TestFormats are those that segments are asked for.
func TestFormats(t *testing.T) {
	some := &Spec{Columns: 2, Hidden: 1}
	for _, tc := range []struct {
		spec         *Spec
		client, want []int16
	}{
		{nil, []int16{1}, []int16{1}},
		{&Spec{Columns: 2}, []int16{1, 0}, []int16{1, 0}},
		{some, nil, []int16{0, 0, 1}},
		{some, []int16{0}, []int16{0, 0, 1}},
		{some, []int16{1}, []int16{1, 1, 1}},
		{some, []int16{1, 0}, []int16{1, 0, 1}},
	} {
		if got := tc.spec.Formats(tc.client); !slices.Equal(got, tc.want) {
			t.Errorf("%v of %+v: %v, expected %v", tc.client, tc.spec, got, tc.want)
		}
	}
}

// TestBadRows: rows that are not what they should be end the merge with an
// error, as does a sender's own.
func TestBadRows(t *testing.T) {
	lost := errors.New("lost")
	spec := func(oid uint32, hidden int) *Spec {
		return &Spec{Keys: []Key{{Type: oid}}, Columns: 1 - hidden, Hidden: hidden, Limit: -1}
	}
	for _, tc := range []struct {
		name string
		spec *Spec
		row  []byte
		want string
	}{
		{"no count", spec(23, 0), []byte{0}, "does not have 1 columns"},
		{"another count", spec(23, 0), body([][]byte{nil, nil}), "does not have 1 columns"},
		{"no length", spec(23, 0), []byte{0, 1, 0}, "cut off"},
		{"cut value", spec(23, 0), []byte{0, 1, 0, 0, 0, 2, '1'}, "cut off"},
		{"no number", spec(23, 0), texts("1x")[0], "column 1"},
		{"empty", spec(20, 0), texts("")[0], "column 1"},
		{"too long", spec(20, 0), texts("9223372036854775808")[0], "column 1"},
		{"no oid", spec(26, 0), texts("-1")[0], "column 1"},
		{"no bool", spec(16, 0), texts("yes")[0], "column 1"},
		{"int4 of 2 bytes", spec(23, 1), texts("ab")[0], "column 1"},
		{"float4 of 8", spec(700, 1), texts("12345678")[0], "column 1"},
		{"float8 of 4", spec(701, 1), texts("1234")[0], "column 1"},
		{"numeric too short", spec(1700, 1), texts("1234")[0], "column 1"},
		{"numeric without its digits", spec(1700, 1), texts("\x00\x01\x00\x00\x00\x00\x00\x00")[0], "column 1"},
		{"numeric of an unknown sign", spec(1700, 1), texts("\x00\x00\x00\x00\x12\x34\x00\x00")[0], "sign 0x1234"},
	} {
		m := New(tc.spec, nil)
		m.Begin(1, sender([][][]byte{{tc.row}}))
		if _, err := m.Next(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	m := New(spec(23, 0), nil)
	rows := sender([][][]byte{texts("1", "2"), texts("3")})
	n := 0
	m.Begin(2, func(i int) ([]byte, error) {
		if n++; n > 2 {
			return nil, lost
		}
		return rows(i)
	})
	if row, err := m.Next(); err != nil || string(fields(row)[0]) != "1" {
		t.Errorf("%q, %v", row, err)
	}
	if _, err := m.Next(); err != lost {
		t.Errorf("%v", err)
	}
}

// BenchmarkMerge merges the rows of three senders.
func BenchmarkMerge(b *testing.B) {
	row := body([][]byte{[]byte("1234567"), []byte("some text that is carried along")})
	m := New(&Spec{Keys: []Key{{Type: 23}}, Columns: 2, Limit: -1}, nil)
	n := 0
	m.Begin(3, func(int) ([]byte, error) {
		n++
		row[12] = '0' + byte(n%7)
		return row, nil
	})
	b.SetBytes(int64(len(row)))
	for range b.N {
		if _, err := m.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
