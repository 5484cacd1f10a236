package clustertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// mergeTable has a column of each type that is merged by, most with NULLs, and
// one that is not. Some rows are longer than a packet.
const mergeTable = `create table m (i int, b bool, s smallint, l bigint, o oid, f float8, r real, n numeric, d date, z timestamptz, p timestamp, h time, u uuid,
		y bytea, t text, c text collate "C", v varchar(9), k char(5), j jsonb) distributed by (i);
	insert into m select i, case when i % 3 > 0 then i % 2 = 0 end, i * 7 % 101, case when i % 11 > 0 then i * 7919::bigint % 1009 - 500 end, i % 13,
		case i % 17 when 0 then null when 1 then 'NaN' when 2 then '-0' when 3 then 'inf' when 4 then 0 else sin(i) end, i % 10 / 7.0,
		case i % 19 when 0 then null when 1 then 'NaN' when 2 then -1e30 when 3 then 0.10 when 4 then 0.1 else (i * 7919 % 211 - 100) / 8.0 end,
		case i % 23 when 0 then null when 1 then 'infinity' when 2 then '-infinity' when 3 then '0044-03-15 BC' else date '2020-01-01' + i * 31 % 400 - 200 end,
		timestamptz '2021-03-27 12:00+0' + i % 97 * interval '17 minutes', timestamp '1999-12-31' + i % 89 * interval '0.25 s', time '00:00' + i % 71 * interval '20 minutes',
		md5((i % 300)::text)::uuid, decode(lpad(to_hex(i % 256), 2, '0'), 'hex') || '\x00'::bytea, case when i % 5 > 0 then chr(33 + i * 37 % 900) || 'é' end,
		case when i % 29 > 0 then chr(97 - i % 2 * 32 + i % 26) end, 'v' || i % 37, left('abcde', i % 6), '{}'
	from generate_series(1, 3000) i;
	insert into m (i, t) select i, repeat(chr(64 + i), 70000) from generate_series(3001, 3012) i;
	analyze m`

// TestMerge compares rows that the session merges with those that the
// coordinator's PostgreSQL sorts, which has to where operators are named.
func TestMerge(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	testkit.Exec(t, c.Connect(t, db), mergeTable)
	orders := []struct{ keys, using string }{
		{"i", "i using <"},
		{"i desc", "i using >"},
		{"b desc nulls last, s, i", "b using > nulls last, s using <, i"},
		{"l nulls first, o desc, i", "l using < nulls first, o using >, i"},
		{"f, i desc", "f using <, i desc"},
		{"f desc, r, i", "f using >, r using <, i"},
		{"n desc nulls last, i", "n using > nulls last, i"},
		{"n, i", "n using <, i"},
		{"d, z desc, i", "d using <, z using >, i"},
		{"p desc, h, i", "p using >, h using <, i"},
		{"u, i", "u using <, i"},
		{"y desc, i", "y using >, i"},
		{"t, i", "t using <, i"},
		{`t collate "POSIX" desc, i`, `t collate "POSIX" using >, i`},
		{"c, v desc, k, i", "c using <, v using >, k using <, i"},
		{"gp_segment_id desc, i", "gp_segment_id using >, i"},
		{"i % 7, length(v), -i", "i % 7 using <, length(v) using <, -i"},
	}
	modes(t, func(t *testing.T, option string) {
		conn := c.Connect(t, db, option, "TimeZone=Europe/Berlin")
		for n, o := range orders {
			for _, shape := range []string{
				"select * from m order by %s",
				"select i from m order by %s limit 10 offset 20",
				"select n, z, f, i from m where i < 2000 order by %s fetch first 1500 rows only",
				"select m.*, w.t from m join m w using (i) order by %s offset 2990",
			} {
				if strings.Contains(shape, "join") {
					if n != 4 {
						continue
					}
					o.keys, o.using = strings.ReplaceAll(o.keys, "f", "m.f"), strings.ReplaceAll(o.using, "f", "m.f")
				}
				merged, sorted := fmt.Sprintf(shape, o.keys), fmt.Sprintf(shape, o.using)
				has(t, strings.Join(testkit.Query(t, conn, "explain (costs off) "+merged), "\n"), `(^|-> +)Gather Motion 3:1 .*\n +Merge Key: `)
				got, want := testkit.Query(t, conn, merged), testkit.Query(t, conn, sorted)
				same(t, merged, got, want)
			}
		}
		for _, style := range []string{"German", "SQL, DMY", "Postgres"} {
			testkit.Exec(t, conn, "set datestyle = '"+style+"'; set extra_float_digits = 0; set bytea_output = escape")
			const cols = "select d, z, f, y from m order by "
			same(t, style, testkit.Query(t, conn, cols+"d desc, z, f, y, i"), testkit.Query(t, conn, cols+"d using >, z, f, y, i"))
		}
		testkit.Exec(t, conn, "reset all")

		// What is not merged.
		for _, keys := range []string{"j, i", `t collate "ucs_basic" using <, i`, "i using <"} {
			if text := strings.Join(testkit.Query(t, conn, "explain select i from m order by "+keys), "\n"); strings.Contains(text, "Merge Key") {
				t.Errorf("order by %s:\n%s", keys, text)
			}
		}

		// The client's formats, one for all and one for each.
		const query = "select i, f, n, d, t from m where i > $1 order by d desc nulls last, n, f, i desc limit $2 offset $1"
		want := testkit.Query(t, conn, strings.NewReplacer("$1", "100", "$2", "400").Replace(query))
		for _, formats := range []pgx.QueryResultFormats{{0}, {1}, {1, 0, 1, 0, 1}, {0, 1, 0, 1, 0}} {
			rows, err := conn.Query(t.Context(), query, formats, 100, 400)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for rows.Next() {
				if len(rows.RawValues()) != 5 {
					t.Fatalf("%d columns", len(rows.RawValues()))
				}
				values, err := rows.Values()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(values[0]))
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			ids := make([]string, len(want))
			for i, line := range want {
				ids[i], _, _ = strings.Cut(line, "|")
			}
			same(t, fmt.Sprint("formats ", formats), got, ids)
		}

		// Where the rows are read by something else.
		testkit.Exec(t, conn, "begin; declare cur scroll cursor for select i, n from m order by n desc, i limit 6 offset 1")
		const sorted = "select i, n from m order by n using >, i limit 6 offset 1"
		all := testkit.Query(t, conn, sorted)
		same(t, "fetch", slices.Concat(testkit.Query(t, conn, "fetch 2 from cur"), testkit.Query(t, conn, "fetch all from cur")), all)
		same(t, "fetch backward", testkit.Query(t, conn, "fetch backward 1 from cur"), all[5:])
		testkit.Exec(t, conn, "rollback")
		testkit.Exec(t, conn, "create temp table few as select i, n from m order by n desc, i limit 6 offset 1 distributed randomly")
		same(t, "create table as", testkit.Query(t, conn, "select * from few order by n desc, i"), all)
		testkit.Exec(t, conn, "create view first as select i, n from m order by n desc, i limit 6 offset 1")
		same(t, "view", testkit.Query(t, conn, "select * from first order by n desc, i"), all)
		same(t, "view's count", testkit.Query(t, conn, "select count(*) from first"), []string{"6"})
		testkit.Exec(t, conn, "create role merge_reader; grant select on first to merge_reader; set role merge_reader")
		same(t, "another's view", testkit.Query(t, conn, "select * from first order by n desc, i"), all)
		testkit.Exec(t, conn, "reset role; drop view first; drop role merge_reader")
		same(t, "sub-select", testkit.Query(t, conn, "select * from (select i, n from m order by n desc, i limit 6 offset 1) s"), all)

		testkit.Exec(t, conn, "prepare top(int) as select i from m order by i limit $1")
		has(t, strings.Join(testkit.Query(t, conn, "explain execute top(5)"), "\n"), `^Limit .*\n  ->  Gather Motion .*\n        Merge Key: i\n        ->  Limit `)
		same(t, "execute", testkit.Query(t, conn, "execute top(2)"), []string{"1", "2"})
		has(t, strings.Join(testkit.Query(t, conn, "explain analyze select t from m order by n desc, i limit 5 offset 3"), "\n"),
			`^Limit  \(cost=\S+ rows=5 width=\d+\) \(actual time=\S+ rows=5 loops=1\)\n`+
				`  ->  Gather Motion 3:1  \(slice1; segments: 3\)  \(cost=\S+ rows=24 width=\d+\) \(actual time=\S+ rows=8 loops=1\)\n`+
				`        Merge Key: n, i\n        ->  Limit  \(`, `Rows out: 8 avg x 3 workers`)
	})
}

// same compares rows.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: %d rows, expected %d; row %d is %.200s, expected %.200s", what, len(got), len(want), i, got[i], want[i])
		}
	}
	t.Fatalf("%s: %d rows, expected %d", what, len(got), len(want))
}

// TestMergeOneByOne reads the segments one after the other, as the order of
// their rows demands, while the others' windows are full; and ends such
// statements in every way.
func TestMergeOneByOne(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	const rows = 90000 // of 300 bytes: far more than what is under way at a time
	testkit.Exec(t, c.Connect(t, db), fmt.Sprintf(`create table big (i int, pad text) distributed by (i);
		insert into big select i, repeat(chr(97 + i %% 26), 300) from generate_series(1, %d) i; analyze big`, rows))
	modes(t, func(t *testing.T, option string) {
		conn := c.Connect(t, db, option)
		read := func(sql string, stop int) (n int, err error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			res, err := conn.Query(ctx, sql)
			if err != nil {
				return 0, err
			}
			defer res.Close()
			last := [2]int32{-1, -1}
			for res.Next() {
				var at [2]int32
				if err := res.Scan(&at[0], &at[1], nil); err != nil {
					return n, err
				}
				if slices.Compare(last[:], at[:]) >= 0 {
					return n, fmt.Errorf("row %d: %v comes after %v", n, at, last)
				}
				if last, n = at, n+1; n == stop {
					cancel()
				}
			}
			return n, res.Err()
		}
		const query = "select gp_segment_id, i, pad from big order by gp_segment_id, i"
		if n, err := read(query, -1); n != rows || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
		if n, err := read(query+" offset 65000", -1); n != rows-65000 || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
		// The other segments still have all of theirs to send.
		for range 3 {
			if n, err := read(query+" limit 20000", -1); n != 20000 || err != nil {
				t.Fatalf("%d rows, %v", n, err)
			}
		}
		// A segment that fails while another is read.
		if err := testkit.TryExec(conn, "select gp_segment_id, 1 / (i - 45000), pad from big order by gp_segment_id, i"); testkit.SQLState(err) != "22012" {
			t.Fatalf("%v", err)
		}
		if got := testkit.Value(t, conn, "select count(*) from big"); got != fmt.Sprint(rows) {
			t.Fatalf("%s rows", got)
		}
		if n, err := read(query, 30000); err == nil || n < 30000 || n == rows {
			t.Fatalf("cancelled: %d rows, %v", n, err)
		}
		conn = c.Connect(t, db, option)
		testkit.Exec(t, conn, "begin; declare cur cursor for "+query)
		if got := len(testkit.Query(t, conn, "fetch 10000 from cur")); got != 10000 {
			t.Errorf("%d rows", got)
		}
		if got := testkit.Value(t, conn, "select count(*) from big"); got != fmt.Sprint(rows) {
			t.Errorf("%s rows beside the cursor", got)
		}
		if got := len(testkit.Query(t, conn, "fetch all from cur")); got != rows-10000 {
			t.Errorf("%d rows", got)
		}
		testkit.Exec(t, conn, "commit")
	})
}
