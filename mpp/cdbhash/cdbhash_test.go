package cdbhash

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func mustHasher(t testing.TB, oids ...uint32) *Hasher {
	t.Helper()
	h, err := NewHasher(oids)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func bin(t testing.TB, oid uint32, text string) []byte {
	t.Helper()
	b, ok := FromText(oid, []byte(text), nil)
	if !ok {
		t.Fatalf("FromText(%d, %q) is not certain", oid, text)
	}
	if b == nil {
		b = []byte{}
	}
	return b
}

func TestGoldenHashes(t *testing.T) {
	for _, c := range []struct {
		oid  uint32
		text string
		want uint32
	}{
		{oidInt4, "1", 2389907270},
		{oidInt4, "0", 4022255791},
		{oidInt4, "-1", 385747274},
		{oidInt2, "-1", 385747274},
		{oidInt8, "-1", 385747274},
		{oidText, "a", 1075015857},
		{oidText, "", 2817148525},
		{oidText, "abc", 3509578647},
		{oidVarchar, "abc", 3509578647},
		{oidBPChar, "abc   ", 3509578647},
		{oidText, "hello world", 1021725223},
		{oidInt8, "1099511627776", 1851357687},
		{oidNumeric, "12.5", 2677259351},
		{oidFloat8, "1.5", 630860146},
		{oidFloat4, "1.5", 630860146},
		{oidUUID, "00000000-0000-0000-0000-000000000001", 3248579833},
		{oidTimestamp, "2020-01-01", 3719473162},
		{oidTimestampTZ, "2020-01-01 00:00:00+00", 3719473162},
		{oidDate, "2020-01-01", 462473164},
	} {
		got, err := mustHasher(t, c.oid).Hash([][]byte{bin(t, c.oid, c.text)})
		if err != nil || got != c.want {
			t.Errorf("hash of %s %q = %d, %v; want %d", typeName(c.oid), c.text, got, err, c.want)
		}
	}
}

func TestGoldenSegments(t *testing.T) {
	h := mustHasher(t, oidInt4)
	for n, want := range map[int]string{
		1: "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
		2: "1 1 0 0 0 1 0 0 0 0 0 1 1 0 1 1 0 1 0 0 1",
		3: "1 1 0 0 0 2 2 0 0 2 2 2 1 2 2 1 0 2 0 0 1",
		4: "1 1 3 0 0 2 2 0 0 3 2 2 1 2 2 1 3 3 0 0 1",
		8: "1 4 3 7 0 2 6 5 0 7 2 2 5 4 6 1 6 7 6 4 6",
	} {
		var got []string
		for i := range 21 {
			s, err := h.Segment([][]byte{be.AppendUint32(nil, uint32(i))}, n)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(rune('0'+s)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d segments:\n got %s\nwant %s", n, strings.Join(got, " "), want)
		}
	}

	i4 := func(s string) []byte { return bin(t, oidInt4, s) }
	tx := func(s string) []byte { return bin(t, oidText, s) }
	for _, c := range []struct {
		types  []uint32
		values [][]byte
		want   int
	}{
		{[]uint32{oidInt4}, [][]byte{nil}, 0},
		{[]uint32{oidText}, [][]byte{tx("a")}, 2},
		{[]uint32{oidText}, [][]byte{tx("b")}, 1},
		{[]uint32{oidText}, [][]byte{tx("c")}, 2},
		{[]uint32{oidText}, [][]byte{tx("abc")}, 0},
		{[]uint32{oidText}, [][]byte{tx("hello world")}, 0},
		{[]uint32{oidText}, [][]byte{tx("")}, 2},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("1"), i4("1")}, 1},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("2"), i4("2")}, 0},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("3"), i4("3")}, 0},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("4"), i4("4")}, 0},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("5"), i4("5")}, 0},
		{[]uint32{oidInt4, oidText}, [][]byte{i4("1"), tx("a")}, 2},
		{[]uint32{oidInt4, oidInt4}, [][]byte{i4("1"), nil}, 1},
		{[]uint32{oidInt4, oidInt4}, [][]byte{nil, i4("1")}, 1},
		{[]uint32{oidInt8}, [][]byte{bin(t, oidInt8, "-2")}, 1},
		{[]uint32{oidInt8}, [][]byte{bin(t, oidInt8, "-1")}, 2},
		{[]uint32{oidInt8}, [][]byte{bin(t, oidInt8, "0")}, 1},
		{[]uint32{oidInt8}, [][]byte{bin(t, oidInt8, "1")}, 1},
		{[]uint32{oidInt8}, [][]byte{bin(t, oidInt8, "1099511627776")}, 0},
	} {
		got, err := mustHasher(t, c.types...).Segment(c.values, 3)
		if err != nil || got != c.want {
			t.Errorf("segment of %q by %v = %d, %v; want %d", c.values, c.types, got, err, c.want)
		}
	}
}

// TestMillion holds the counts the walkthrough shows for ids 1..1000000 on
// three segments.
func TestMillion(t *testing.T) {
	h := mustHasher(t, oidInt4)
	var counts [3]int
	var key [4]byte
	row := [][]byte{key[:]}
	for id := uint32(1); id <= 1000000; id++ {
		be.PutUint32(key[:], id)
		s, err := h.Segment(row, 3)
		if err != nil {
			t.Fatal(err)
		}
		counts[s]++
	}
	if want := [3]int{333167, 332791, 334042}; counts != want {
		t.Errorf("rows per segment %v, want %v", counts, want)
	}
}

func TestUnhashable(t *testing.T) {
	for oid, want := range map[uint32]string{
		600:    `data type point has no default operator class for access method "hash"`,
		114:    `data type json has no default operator class for access method "hash"`,
		791:    `data type money[] has no default operator class for access method "hash"`,
		424242: `data type with oid 424242 has no default operator class for access method "hash"`,
	} {
		_, err := NewHasher([]uint32{oidInt4, oid})
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "42704" || pe.Message != want {
			t.Errorf("type %d: %v", oid, err)
		}
		if Hashable(oid) || Family(oid) != 0 {
			t.Errorf("type %d is said to be hashable", oid)
		}
	}
}

func TestBadValues(t *testing.T) {
	code := func(err error) string {
		var pe *pgconn.PgError
		errors.As(err, &pe)
		if pe == nil {
			return ""
		}
		return pe.Code
	}
	h := mustHasher(t, oidInt4)
	if _, err := h.Hash([][]byte{{1, 2}}); code(err) != "22P03" {
		t.Errorf("short integer: %v", err)
	}
	if _, err := h.Hash(nil); code(err) != "XX000" {
		t.Errorf("no value: %v", err)
	}
	if _, err := h.Segment([][]byte{nil}, 0); code(err) != "XX000" {
		t.Errorf("no segment: %v", err)
	}
	for oid, text := range map[uint32]string{
		oidNumeric: "0002000000000000" + "0001",
		1560:       "00000009ff",
		oidInet:    "02200004c0a801",
		1007:       "0000000100000000000000170000000200000001" + "00000004" + "00000001",
		1009:       "0000000100000000000000170000000100000001" + "00000004" + "00000001",
		3904:       "02" + "0000000400000001",
		3802:       "01" + "7b7d7b7d",
	} {
		v, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mustHasher(t, oid).Hash([][]byte{v}); code(err) != "22P03" {
			t.Errorf("%s %s: %v", typeName(oid), text, err)
		}
	}
}

func TestFromTextTypmod(t *testing.T) {
	for _, c := range []struct {
		oid  uint32
		mod  int32
		text string
		ok   bool
	}{
		{oidVarchar, 4 + 3, "abc", true},
		{oidVarchar, 4 + 3, "☃☃☃", true},
		{oidVarchar, 4 + 3, "abc ", false},
		{oidNumeric, 10<<16 | 2 + 4, "1.25", true},
		{oidNumeric, 10<<16 | 2 + 4, "1.255", false},
		{oidNumeric, 10<<16 + 4, "7", true},
		{oidNumeric, 10<<16 | 0x7fe + 4, "7", false}, // scale -2
		{oidNumeric, 10<<16 | 2 + 4, "NaN", true},
		{oidNumeric, 10<<16 | 2 + 4, "Infinity", false},
		{oidTime, 0, "12:00:00", true},
		{oidTime, 0, "12:00:00.5", false},
		{oidTimestamp, 3, "2020-01-01 00:00:00.123", true},
		{oidTimestamp, 3, "2020-01-01 00:00:00.1235", false},
	} {
		if _, ok := FromTextMod(c.oid, c.mod, []byte(c.text), nil); ok != c.ok {
			t.Errorf("%s with modifier %#x, %q: certain = %v", typeName(c.oid), c.mod, c.text, ok)
		}
	}
}

func TestFromTextUncertain(t *testing.T) {
	for oid, texts := range map[uint32][]string{
		oidInt2:        {"", "32768", "-32769", "1.0", "0x10", "1_0", "--1", "99999999999999999999"},
		oidInt8:        {"9223372036854775808", "-9223372036854775809", "18446744073709551617"},
		oidOID:         {"-1", "4294967296", ""},
		oidBool:        {"", "o", "truely", "2"},
		oidText:        {"a\x00b", "\xff"},
		oidDate:        {"", "2020-1-1", "2020-02-30", "01/02/2020", "now", "2020-01-01BC", "0000-01-01", "1900-02-29", "20200101", "012020-01-01", "5874898-01-01", "4714-11-23 BC", "10000-01-01 BC", "Infinity", "2020-01-01 AD"},
		oidTime:        {"24:01", "24:00:00.1", "25:00", "12:60", "now", "12", "12:00:00.1234567", "12:00:60", "12:00:00."},
		oidTimestamp:   {"2020-01-01 00:00:00+00", "2020-01-01  00:00", "today", "294277-01-01 00:00:00", "4714-11-23 23:59:59 BC", "2020-01-01 BC 00:00"},
		oidTimestampTZ: {"2020-01-01", "2020-01-01 00:00", "2020-01-01 00:00 UTC", "2020-01-01 00:00+16", "2020-01-01 00:00+0530", "2020-01-01 00:00+05:30:", "294276-12-31 23:59:59-00:00:01"},
		oidFloat8:      {"", "1e400", "1e-400", "0x1p3", "inf", "nan", "1_0"},
		oidFloat4:      {"1e39", "1e-50"},
		oidNumeric:     {"", ".", "1e", "nan", "inf", "1e999999", "1 2"},
		oidUUID:        {"", "{00000000-0000-0000-0000-000000000001}", "00000000-0000-0000-0000-00000000000g"},
		oidBytea:       {`\x0`, `a\b`, `\x 00`, `\400`, `\18`, `a\`},
		oidInet:        {"10/8", "10.0.0.1/33", "10.0.0.01", "fe80::1%eth0"},
		oidCIDR:        {"10.0.0.1/8"},
		oidMacaddr:     {"08002b010203", "08:00:2b:01:02:0g"},
		oidChar:        {"ab", "é"},
		3802:           {"{}"},
	} {
		for _, s := range texts {
			if b, ok := FromText(oid, []byte(s), nil); ok || b != nil {
				t.Errorf("%s %q is said to be certain: %x", typeName(oid), s, b)
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	h := mustHasher(t, oidInt4, oidText, oidNumeric, oidFloat8, oidInet, 1186)
	row := [][]byte{
		bin(t, oidInt4, "7"), bin(t, oidText, "some text that is longer than a block"),
		bin(t, oidNumeric, "123456789.123456789"), bin(t, oidFloat8, "1.5"),
		bin(t, oidInet, "10.0.0.1"), make([]byte, 16),
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := h.Segment(row, 3); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkSegment(b *testing.B) {
	h := mustHasher(b, oidInt4)
	row := [][]byte{{0, 0, 0, 7}}
	for b.Loop() {
		h.Segment(row, 3)
	}
}

func FuzzHash(f *testing.F) {
	f.Add(uint32(oidInt4), []byte{0, 0, 0, 1})
	f.Add(uint32(oidNumeric), bin(f, oidNumeric, "12.5"))
	f.Add(uint32(1007), []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01"))
	f.Add(uint32(3904), []byte("\x02\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02"))
	f.Add(uint32(3802), []byte("\x01{\"a\": [1, null]}"))
	f.Fuzz(func(t *testing.T, oid uint32, v []byte) {
		h, err := NewHasher([]uint32{oid})
		if err != nil {
			return
		}
		if s, err := h.Segment([][]byte{v}, 5); err == nil && (s < 0 || s > 4) {
			t.Fatalf("segment %d of 5", s)
		}
	})
}

func FuzzFromText(f *testing.F) {
	f.Add(uint32(oidInt4), int32(-1), []byte("12"))
	f.Add(uint32(oidNumeric), int32(655366), []byte("-12.5e3"))
	f.Add(uint32(oidTimestampTZ), int32(3), []byte("2020-02-29 01:02:03.456+05:30"))
	f.Add(uint32(oidInet), int32(-1), []byte("::1/64"))
	f.Fuzz(func(t *testing.T, oid uint32, mod int32, text []byte) {
		b, ok := FromTextMod(oid, mod, text, nil)
		if !ok {
			return
		}
		if b == nil {
			b = []byte{}
		}
		if _, err := mustHasher(t, oid).Hash([][]byte{b}); err != nil {
			t.Fatalf("%q gives %x: %v", text, b, err)
		}
	})
}
