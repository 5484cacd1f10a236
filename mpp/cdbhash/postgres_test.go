package cdbhash

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestAgainstPostgreSQL compares each type's hash with that of the server's
// default hash operator class over random and special values, given as the
// server sends them, and FromText with the server's input functions.
func TestAgainstPostgreSQL(t *testing.T) {
	conn := pgtest.Start(t).Connect(t)
	pgtest.Query(t, conn, "SET timezone = 'Asia/Kathmandu'; SELECT setseed(0.42)")

	const (
		i64  = "((random()-0.5)*power(10,1+i%18))::int8"
		i32  = "((random()-0.5)*power(10,1+i%9))::int4"
		str  = "left(md5(i::text)||repeat(md5(random()::text),3),(random()*70)::int)"
		nums = "((random()-0.5)*power(10,i%20))::numeric * power(10::numeric,(i%37)-18)"
	)
	cases := []struct {
		typ, send string
		random    string // expression over i
		special   []string
	}{
		{"int2", "int2send", "((random()-0.5)*65534)::int2", []string{"-32768", "32767", "0"}},
		{"int4", "int4send", i32, []string{"-2147483648", "2147483647", " 12 ", "+3", "-0"}},
		{"int8", "int8send", i64, []string{"-9223372036854775808", "9223372036854775807", "-1"}},
		{"oid", "oidsend", "(random()*4294967295)::int8::oid", []string{"4294967295", "0"}},
		{"xid", "xidsend", "((random()*4294967295)::int8)::text::xid", []string{"3"}},
		{"xid8", "xid8send", "((random()*4294967295000)::int8)::text::xid8", []string{"18446744073709551615"}},
		{"bool", "boolsend", "random()<0.5", []string{"t", "YES", "of", "on", "F ", "tru", "1", "0", "n"}},
		{`"char"`, "charsend", `chr(1+(random()*126)::int)::"char"`, []string{"", "x", "é"}},
		{"float4", "float4send", "((random()-0.5)*power(10,(i%60)-30))::float4", []string{"0", "-0", "NaN", "Infinity", "-inf", "1e-45", "1.17549435e-38"}},
		{"float8", "float8send", "(random()-0.5)*power(10,(i%600)-300)", []string{"0", "-0", "NaN", "Infinity", "1e-320", ".5", "1."}},
		{"numeric", "numeric_send", nums, []string{"0", "-0.000", "NaN", "Infinity", "-Infinity", "1", "10000", "100000000", "12.5", "12.500", "-12.5", "0.0001", "0.00001", "1e100", "1e-100", "123456789012345678901234567890.12345", "1.e3", ".1E-3", "0e-20"}},
		{"text", "textsend", str, []string{"", "a", "hello world", "wörld ☃", "a "}},
		{"varchar", "varcharsend", str, []string{"", "a  "}},
		{"name", "namesend", "(" + str + ")::name", []string{"", "a"}},
		{"bpchar", "bpcharsend", "rpad(" + str + ",80)::bpchar", []string{"", "  ", "a  ", " a"}},
		{"char(9)", "bpcharsend", "left(md5(random()::text),(random()*9)::int)::char(9)", []string{"", "abc", "☃"}},
		{"bytea", "byteasend", "decode(left(md5(i::text)||md5(random()::text),2*(random()*32)::int),'hex')", []string{"", `\x00ff`, `\\`, `a\\b\000\377c`, "plain"}},
		{"uuid", "uuid_send", "gen_random_uuid()", []string{"00000000-0000-0000-0000-000000000001", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"}},
		{"date", "date_send", "'2000-01-01'::date + ((random()-0.5)*1400000)::int", []string{"infinity", "-infinity", "2000-02-29", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31", "4714-11-24 BC", "0001-12-31 BC", "0001-02-29 BC", "0005-02-29 BC", "0101-03-01 BC", "1900-03-01"}},
		{"time", "time_send", "'00:00'::time + random()*interval '24h'", []string{"24:00:00", "24:00", "00:00", "23:59:59.999999", "12:34:56.7"}},
		{"timetz", "timetz_send", "('00:00'::time + random()*interval '24h')::timetz", []string{"00:00+00", "12:00-08:30"}},
		{"timestamp", "timestamp_send", "'2000-01-01'::timestamp + (random()-0.5)*interval '7000y'", []string{"infinity", "-infinity", "2020-01-01", "2020-02-29T01:02", "2020-02-29 24:00", "0001-01-01 00:00:00.000001", "0044-03-15 12:00 BC", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"}},
		{"timestamptz", "timestamptz_send", "'2000-01-01'::timestamptz + (random()-0.5)*interval '7000y'", []string{"2020-01-01 00:00:00Z", "2020-01-01 00:00:00+05:45", "2020-01-01 00:00:00-08", "2020-01-01 00:00:00", "1880-01-01 00:00:00-00:44:30", "0044-03-15 12:00+15:59:59 BC", "4714-11-24 05:45:00+05:45 BC", "4714-11-23 23:00:00-01 BC", "294277-01-01 05:44:59.999999+05:45", "-infinity", "infinity"}},
		{"interval", "interval_send", "(random()-0.5)*interval '9000y 11mon 40d 100:00'", []string{"1 mon", "30 days", "-1 mon", "0", "178000000 years", "-178000000 years"}},
		{"inet", "inet_send", "('10.0.0.0'::inet + (random()*16777215)::int8)", []string{"::1", "192.168.1.7/24", "fe80::1/64", "::ffff:1.2.3.4", "2001:db8::/32", "0.0.0.0/0"}},
		{"cidr", "cidr_send", "network(set_masklen('10.0.0.0'::inet + (random()*16777215)::int8, 8+i%25))", []string{"10.0.0.0/8", "10/8", "2001:db8::/32", "::/0"}},
		{"macaddr", "macaddr_send", "left(md5(random()::text),12)::macaddr", []string{"08:00:2b:01:02:03", "08-00-2b-01-02-03"}},
		{"macaddr8", "macaddr8_send", "left(md5(random()::text),16)::macaddr8", []string{"08:00:2b:01:02:03:04:05"}},
		{"tid", "tidsend", "('('||(random()*4294967295)::int8||','||i%60000||')')::tid", []string{"(0,1)"}},
		{"pg_lsn", "pg_lsn_send", "'0/0'::pg_lsn + (random()*1e15)::int8::numeric", []string{"FFFFFFFF/FFFFFFFF"}},
		{"oidvector", "oidvectorsend", "array_to_string(array_fill((random()*4294967295)::int8::oid, array[i%30]),' ')::oidvector", []string{"", "1 2 3"}},
		{"int4[]", "array_send", "array[" + i32 + ",null," + i32 + "]", []string{"{}", "{{1,2},{3,4}}", "[3:4]={1,NULL}"}},
		{"text[]", "array_send", "array[" + str + ",null," + str + "]", []string{"{}", "{a,b}", "{NULL}"}},
		{"numeric[]", "array_send", "array[" + nums + "]", []string{"{1.0,2.50}"}},
		{"date[]", "array_send", "array['2000-01-01'::date+i]", nil},
		{"int4range[]", "array_send", "array[int4range(i,2*i)]", []string{"{empty}"}},
		{"int4range", "range_send", "int4range(least(i,j),greatest(i,j),'[]') from (select " + i32 + " j) q", []string{"empty", "(,)", "[1,2]", "(,5)", "[1,1)"}},
		{"numrange", "range_send", "numrange(i,i+random()::numeric,'[]')", []string{"[1,2.50)", "(1,2]"}},
		{"tsrange", "range_send", "tsrange('2000-01-01'::timestamp+i*interval '1s', null)", []string{"(,)"}},
		{"daterange", "range_send", "daterange('2000-01-01'::date+i, '2000-01-01'::date+2*i,'[]')", nil},
		{"int8range", "range_send", "int8range(i,i+j,'()') from (select abs(" + i64 + ") j) q", nil},
		{"tstzrange", "range_send", "tstzrange(now(), now()+i*interval '1s')", nil},
		{"jsonb", "jsonb_send", "jsonb_build_object('k'||i, random(), 'list', array[1,i], 'deep', jsonb_build_object('x', null, 'longer', true, 'e', '{}'::jsonb, 's', " + str + "))", []string{`{}`, `[]`, `null`, `"a"`, `1.50`, `true`, `[false]`, `[[]]`, `{"b":1,"a":2,"aa":3,"b":4}`, `"\u00e9\n\\\""`, `[1e3, -0.0, 12345678901234567890.5]`, `{"a":{"b":{}}}`}},
	}
	for _, c := range cases {
		t.Run(c.typ, func(t *testing.T) {
			// The hash of an array of one element is 31 plus the element's hash.
			hash := "hash_array(ARRAY[v]) - 31::int8"
			if c.send == "array_send" {
				hash = "hash_array(v)::int8"
			}
			sql := fmt.Sprintf("SELECT '%s'::regtype::oid, txt, %s(v), %s FROM (", c.typ, c.send, hash)
			for _, s := range c.special {
				sql += fmt.Sprintf("SELECT %s::text AS txt, %[1]s::%[2]s AS v UNION ALL ", quote(s), c.typ)
			}
			// The OFFSET ties the subquery to i, so that each row has its own random().
			sql += fmt.Sprintf("SELECT v::text, v FROM generate_series(1,300) i, LATERAL (SELECT %s OFFSET 0*i) r(v)) x(txt, v)", c.random)
			certain, texts := 0, map[string]bool{}
			rows := pgtest.Query(t, conn, sql)
			for _, r := range rows {
				texts[string(r[1])] = true
				n, _ := strconv.ParseUint(string(r[0]), 10, 32)
				bin, err := hex.DecodeString(string(r[2][2:]))
				if err != nil {
					t.Fatal(err)
				}
				want, _ := strconv.ParseInt(string(r[3]), 10, 64)
				h, err := NewHasher([]uint32{uint32(n)})
				if err != nil {
					t.Fatal(err)
				}
				got, err := h.Hash([][]byte{bin})
				if err != nil || got != uint32(want) {
					t.Fatalf("%s %q (%x): hash %d, %v; PostgreSQL has %d", c.typ, r[1], bin, got, err, uint32(want))
				}
				if b, ok := FromText(uint32(n), r[1], []byte("keep")); ok {
					certain++
					if c.send != "bpcharsend" && string(r[1]) != "NaN" && !bytes.Equal(b[4:], bin) {
						t.Fatalf("%s %q: FromText gives %x, PostgreSQL has %x", c.typ, r[1], b[4:], bin)
					}
					sum, err := h.Hash([][]byte{b[4:]})
					if err != nil || sum != uint32(want) || string(b[:4]) != "keep" {
						t.Fatalf("%s %q: FromText gives %x, PostgreSQL has %x", c.typ, r[1], b, bin)
					}
				} else if string(b) != "keep" {
					t.Fatalf("%s %q: FromText changed dst: %q", c.typ, r[1], b)
				}
			}
			if len(texts) < min(len(rows)/2, 100) && c.typ != "bool" {
				t.Errorf("only %d different values", len(texts))
			}
			t.Logf("%d values equal, %d of them certain from text", len(rows), certain)
		})
	}
}

func quote(s string) string {
	out := "'"
	for _, c := range s {
		if c == '\'' {
			out += "'"
		}
		out += string(c)
	}
	return out + "'"
}

// TestFamiliesAgainstPostgreSQL holds Family to the server's hash operator
// families.
func TestFamiliesAgainstPostgreSQL(t *testing.T) {
	conn := pgtest.Start(t).Connect(t)
	families := map[string]uint32{}
	for _, r := range pgtest.Query(t, conn, `SELECT c.opcintype, f.opfname FROM pg_opclass c
		JOIN pg_am a ON a.oid = c.opcmethod AND a.amname = 'hash'
		JOIN pg_opfamily f ON f.oid = c.opcfamily
		JOIN pg_type t ON t.oid = c.opcintype AND t.typtype <> 'p'
		WHERE c.opcdefault AND t.typname <> 'aclitem'`) {
		n, _ := strconv.ParseUint(string(r[0]), 10, 32)
		name, got := string(r[1]), Family(uint32(n))
		if got == 0 {
			t.Errorf("type %d of family %s is not hashable here", n, name)
		}
		if was, ok := families[name]; ok && was != got {
			t.Errorf("family %s is both %d and %d", name, was, got)
		}
		families[name] = got
	}
	seen := map[uint32]string{}
	for name, f := range families {
		if other, ok := seen[f]; ok {
			t.Errorf("%s and %s are one family, %d", name, other, f)
		}
		seen[f] = name
	}
	// The names and array types of the table are the server's.
	for oid, ty := range types {
		r := pgtest.Query(t, conn, fmt.Sprintf(
			"SELECT format_type(%d, NULL), (SELECT typarray FROM pg_type WHERE oid = %[1]d)", oid))[0]
		if string(r[0]) != ty.name || ty.array != 0 && string(r[1]) != strconv.Itoa(int(ty.array)) {
			t.Errorf("type %d is %s with array %s, not %s with %d", oid, r[0], r[1], ty.name, ty.array)
		}
	}
	for oid, name := range unhashable {
		if got := string(pgtest.Query(t, conn, fmt.Sprintf("SELECT format_type(%d, NULL)", oid))[0][0]); got != name {
			t.Errorf("type %d is %s, not %s", oid, got, name)
		}
	}
}
