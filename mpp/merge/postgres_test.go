package merge

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestOrderIsPostgres has PostgreSQL sort random and special values of each
// type, and compares each two of them in every form that is compared here.
func TestOrderIsPostgres(t *testing.T) {
	conn := pgtest.Start(t).Connect(t)
	pgtest.Query(t, conn, "SET timezone = 'Asia/Kathmandu'; SELECT setseed(0.42)")
	utf8 := pgtest.Query(t, conn, "SELECT quote_ident(collname) FROM pg_collation WHERE collcollate ~* '^c\\.utf-?8$' AND collprovider = 'c' LIMIT 1")
	const (
		str = `left(translate(md5(i::text) || md5(random()::text), '0123456789ab', 'aAbB_ -.é水~' || chr(128512)), (random() * 5)::int)`
		num = "((random() - 0.5) * power(10, i % 20))::numeric * power(10::numeric, (i % 37) - 18)"
	)
	words := []string{"", " ", "a", "a ", "a  ", "a\t", "A", "é", "e\u0301", "\x01", "水", "\U0010FFFF", "\uFFFF", "\uE000", "ab", "aB", "a b", "z"}
	type test struct {
		typ     string
		random  string // expression over i
		special []string
	}
	tests := []test{
		{"bool", "random() < 0.5", []string{"t", "f"}},
		{"bytea", "decode(left(md5(random()::text), 2 * (random() * 3)::int), 'hex')", []string{"", `\x00`, `\x0000`, `\xff`, `\x00ff`}},
		{"int2", "((random() - 0.5) * 65534)::int2", []string{"-32768", "32767", "0", "-1", "1"}},
		{"int4", "((random() - 0.5) * power(10, 1 + i % 9))::int4", []string{"-2147483648", "2147483647", "0", "-1"}},
		{"int8", "((random() - 0.5) * power(10, 1 + i % 18))::int8", []string{"-9223372036854775808", "9223372036854775807", "-9223372036854775807", "999999999999999999", "1000000000000000000", "0", "-1"}},
		{"oid", "(random() * 4294967295)::int8::oid", []string{"4294967295", "2147483648", "2147483647", "0"}},
		{"float4", "((random() - 0.5) * power(10, (i % 60) - 30))::float4", []string{"0", "-0", "NaN", "Infinity", "-inf", "1e-45", "-1e-45", "1.17549435e-38", "3.4028235e38"}},
		{"float8", "(random() - 0.5) * power(10, (i % 600) - 300)", []string{"0", "-0", "NaN", "Infinity", "-inf", "5e-324", "-5e-324", "1", "1.0000000000000002", "1.7976931348623157e308"}},
		{"numeric", num, []string{"0", "-0.000", "0.00", "NaN", "Infinity", "-Infinity", "1", "1.0", "1.00000", "-1", "9999", "10000", "10001", "100000000", "99999999",
			"12.5", "12.500", "-12.5", "0.0001", "0.00001", "-0.00001", "0.00010001", "1e100", "-1e100", "1e-100", "1e10000", "1e-5000", "10000.0001", "10000.00010"}},
		{"numeric(10,2)", "(random() - 0.5) * power(10, i % 7)", []string{"0", "-0.01", "99999999.99", "NaN"}},
		{"uuid", "gen_random_uuid()", []string{"00000000-0000-0000-0000-000000000001", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
		{"date", "'2000-01-01'::date + ((random() - 0.5) * 1400000)::int", []string{"infinity", "-infinity", "2000-01-01", "1999-12-31", "0001-01-01", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31"}},
		{"time", "'00:00'::time + random() * interval '24h'", []string{"24:00:00", "00:00", "23:59:59.999999"}},
		{"timestamp", "'2000-01-01'::timestamp + (random() - 0.5) * interval '7000y'", []string{"infinity", "-infinity", "2000-01-01", "1999-12-31 23:59:59.999999", "0044-03-15 12:00 BC", "4713-01-01 00:00 BC", "294276-12-31 23:59:59.999999"}},
		{"timestamptz", "'2000-01-01'::timestamptz + (random() - 0.5) * interval '7000y'", []string{"infinity", "-infinity", "2020-01-01 00:00:00Z", "2020-01-01 05:45:00+05:45", "2020-01-01 00:00:00-08", "0044-03-15 12:00+0 BC"}},
		{`name`, "left(" + str + ", 9)::name", words},
	}
	for _, coll := range append([]string{`"C"`, `"POSIX"`}, first(utf8)...) {
		for _, typ := range []string{"text", "varchar(20)", "char(6)", "bpchar"} {
			tests = append(tests, test{typ + " COLLATE " + coll, str, words})
		}
	}
	seen := map[uint32]bool{}
	for _, tc := range tests {
		t.Run(tc.typ, func(t *testing.T) {
			typ, coll, _ := strings.Cut(tc.typ, " COLLATE")
			if coll != "" {
				coll = " COLLATE" + coll
			}
			var list []string
			for _, v := range tc.special {
				list = append(list, "('"+strings.ReplaceAll(v, "'", "''")+"'::"+typ+")")
			}
			sql := fmt.Sprintf("SELECT v, dense_rank() OVER (ORDER BY v%s) FROM (SELECT (%s)::%s AS v FROM generate_series(1, 150) i UNION ALL VALUES %s) s ORDER BY 2",
				coll, tc.random, typ, strings.Join(list, ", "))
			pgtest.Query(t, conn, "DROP TABLE IF EXISTS sorted; CREATE TEMP TABLE sorted AS "+sql)
			read := func(f int16) (oid uint32, rows [][][]byte) {
				res := conn.ExecParams(t.Context(), "SELECT v, dense_rank::text FROM sorted ORDER BY dense_rank", nil, nil, nil, []int16{f, 0}).Read()
				if res.Err != nil {
					t.Fatal(res.Err)
				}
				return res.FieldDescriptions[0].DataTypeOID, res.Rows
			}
			oid, binary := read(1)
			_, text := read(0)
			seen[oid] = true
			if !Comparable(oid) || Collates(oid) != (coll != "" || typ == "name") {
				t.Fatalf("type %d: comparable %v, collates %v", oid, Comparable(oid), Collates(oid))
			}
			compare := func(form string, rows [][][]byte, read func([]byte) (value, error)) {
				m := &Merger{keys: []key{{kind: types[oid].kind}}}
				values := make([][]value, 0, len(rows))
				for _, row := range rows {
					v, err := read(row[0])
					if err != nil {
						t.Fatalf("%s form: %q: %v", form, row[0], err)
					}
					values = append(values, []value{v})
				}
				for i := range rows {
					for k := range rows {
						a, _ := strconv.Atoi(string(rows[i][1]))
						b, _ := strconv.Atoi(string(rows[k][1]))
						if got, want := m.compare(values[i], values[k]), cmp.Compare(a, b); got != want {
							t.Fatalf("%s form: %q and %q compare as %d, PostgreSQL says %d", form, text[i][0], text[k][0], got, want)
						}
					}
				}
			}
			compare("binary", binary, types[oid].binary)
			if !NeedsBinary(oid) {
				compare("text", text, types[oid].text)
			}
		})
	}
	for oid := range types {
		if !seen[oid] {
			t.Errorf("type %d is not tested", oid)
		}
	}
}

func first(rows [][][]byte) (out []string) {
	for _, r := range rows {
		out = append(out, string(r[0]))
	}
	return out
}

// TestMergeIsSort merges rows that PostgreSQL has sorted in shares and compares
// with what it makes of all of them.
func TestMergeIsSort(t *testing.T) {
	conn := pgtest.Start(t).Connect(t)
	pgtest.Query(t, conn, `SELECT setseed(0.7); CREATE TABLE t AS SELECT i AS id, CASE WHEN random() < 0.8 THEN (random() * 6)::int END AS a,
		CASE WHEN random() < 0.7 THEN left(md5(random()::text), 1) END AS b, CASE WHEN random() < 0.9 THEN (random() * 4)::int / 2.0 END AS n FROM generate_series(1, 400) i`)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		spec := &Spec{Columns: 3, Hidden: 1, Limit: -1}
		columns := []struct {
			name   string
			column int
			oid    uint32
		}{{"a", 1, 23}, {"b", 2, 25}, {"n", 3, 1700}}
		rnd.Shuffle(len(columns), func(i, k int) { columns[i], columns[k] = columns[k], columns[i] })
		var keys []string
		for _, c := range columns[:1+rnd.IntN(3)] {
			k := Key{Column: c.column, Type: c.oid, Desc: rnd.IntN(2) == 0, NullsFirst: rnd.IntN(2) == 0}
			spec.Keys = append(spec.Keys, k)
			keys = append(keys, c.name+map[bool]string{true: " DESC"}[k.Desc]+map[bool]string{true: " NULLS FIRST", false: " NULLS LAST"}[k.NullsFirst])
		}
		order := " ORDER BY " + strings.Join(keys, ", ")
		limit := ""
		if rnd.IntN(3) > 0 {
			spec.Limit, spec.Ties = int64(rnd.IntN(60)), rnd.IntN(2) == 0
			limit = fmt.Sprintf(" FETCH FIRST %d ROWS %s", spec.Limit, map[bool]string{true: "WITH TIES", false: "ONLY"}[spec.Ties])
		}
		if rnd.IntN(2) == 0 {
			spec.Offset = int64(rnd.IntN(500))
		}
		formats := [][]int16{nil, {0}, {1}, {1, 0, 1}, {0, 1, 0}}[rnd.IntN(5)]
		shares := 1 + rnd.IntN(8)
		sent := make([][][]byte, shares)
		for i := range shares {
			res := conn.ExecParams(t.Context(), fmt.Sprintf("SELECT id, a, b, n FROM t WHERE id * 7 %% %d = %d%s", shares, i, order), nil, nil, nil, spec.Formats(formats)).Read()
			if res.Err != nil {
				t.Fatal(res.Err)
			}
			for _, row := range res.Rows {
				sent[i] = append(sent[i], body(row))
			}
		}
		var got []string
		for _, row := range merged(t, New(spec, formats), sent) {
			got = append(got, string(row))
		}
		// Of rows with equal keys any may come first: their keys are compared, and
		// that no row has come twice.
		all := conn.ExecParams(t.Context(), fmt.Sprintf("SELECT id, a, b FROM t%s OFFSET %d%s", order, spec.Offset, limit), nil, nil, nil, formats).Read()
		if all.Err != nil {
			t.Fatal(all.Err)
		}
		keysOf := pgtest.Query(t, conn, fmt.Sprintf("SELECT ROW(%s)::text FROM t%s OFFSET %d%s", strings.Join(names(keys), ", "), order, spec.Offset, limit))
		byID := map[string]string{}
		for _, row := range pgtest.Query(t, conn, fmt.Sprintf("SELECT id, ROW(%s)::text FROM t", strings.Join(names(keys), ", "))) {
			byID[string(row[0])] = string(row[1])
		}
		whole := map[string]bool{}
		res := conn.ExecParams(t.Context(), "SELECT id, a, b FROM t", nil, nil, nil, formats).Read()
		for _, row := range res.Rows {
			whole[string(body(row))] = true
		}
		if len(got) != len(all.Rows) {
			t.Fatalf("%+v: %d rows, expected %d", spec, len(got), len(all.Rows))
		}
		seen := map[string]bool{}
		for i, row := range got {
			if !whole[row] || seen[row] {
				t.Fatalf("%+v: row %d is %q", spec, i, row)
			}
			seen[row] = true
			id := fields([]byte(row))[0]
			if format(formats, 0) == 1 {
				id = []byte(strconv.Itoa(int(id[2])<<8 | int(id[3])))
			}
			if byID[string(id)] != string(keysOf[i][0]) {
				t.Fatalf("%+v: row %d has the keys %s, expected %s", spec, i, byID[string(id)], keysOf[i][0])
			}
		}
	}
}

func names(keys []string) (out []string) {
	for _, k := range keys {
		name, _, _ := strings.Cut(k, " ")
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
