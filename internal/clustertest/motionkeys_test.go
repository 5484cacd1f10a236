package clustertest

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// keyTypes are types that rows can be redistributed by: a column's type in each
// of two tables, and a value that is another for each k, of 0..69.
var keyTypes = []struct{ left, right, value string }{
	{"int", "bigint", "k"},
	{"numeric(10,2)", "numeric", "case k when 20 then 'NaN' else (k || '.50' || repeat('0', k % 5))::numeric end"},
	{"real", "float8", "case k when 20 then 'NaN' when 21 then 'infinity' when 22 then '-0' when 0 then 99 else k::float8 end"},
	{"float8", "float8", "case k when 20 then 1e-300 else k / 3.0::float8 end"},
	{"date", "date", "case k when 20 then 'infinity' when 21 then '0044-03-15 BC' when 22 then '5874897-12-31' else date '2020-01-31' + k end"},
	{"timestamp(3)", "timestamp", "case k when 20 then '-infinity' when 21 then '0044-03-15 01:02:03 BC' when 22 then '294276-12-31' else timestamp '2020-01-31' + k * interval '1.5 sec' end"},
	{"timestamptz", "timestamptz", "case k when 20 then 'infinity' when 21 then '0044-03-15 01:02:03+00 BC' when 22 then '12020-01-01 00:00+00' else timestamptz '1880-01-31 00:00+00' + k * interval '31 days' end"},
	{"time", "time(3)", "case k when 20 then '24:00' else time '10:00' + k * interval '1.5 sec' end"},
	{"bytea", "bytea", `decode('5c00' || lpad(to_hex(k * 3), 2, '0'), 'hex')`},
	{"inet", "inet", "case k when 20 then '::1' when 21 then '::ffff:1.2.3.4/100' else '10.0.0.0'::inet + k end"},
	{"macaddr", "macaddr", "('08:00:2b:01:02:' || lpad(to_hex(k), 2, '0'))::macaddr"},
	{"uuid", "uuid", "('00000000-0000-4000-8000-0000000000' || lpad(k || '', 2, '0'))::uuid"},
}

// TestMotionKeys joins by columns of all types that rows are redistributed by,
// under settings that print their values so that the hash can be told and under
// such that do not. The answer is always the same.
func TestMotionKeys(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	conn := c.Connect(t, db)
	var left, right, values []string
	for i, k := range keyTypes {
		left, right = append(left, fmt.Sprintf("c%d %s", i, k.left)), append(right, fmt.Sprintf("c%d %s", i, k.right))
		values = append(values, k.value)
	}
	for table, cols := range map[string][]string{"l": left, "r": right} {
		testkit.Exec(t, conn, fmt.Sprintf("create table %s (id int, %s) distributed by (id)", table, strings.Join(cols, ", ")))
	}
	// 0..49 and 20..69, four of each: 30 match, 16 pairs of each.
	all := strings.Join(values, ", ")
	testkit.Exec(t, conn, "insert into l select i, "+all+" from (select i, i % 50 k from generate_series(0, 199) i) s;"+
		"insert into r select i, "+all+" from (select i, 20 + i % 50 k from generate_series(0, 199) i) s; analyze l; analyze r;"+
		"create function silently(name text, value text) returns int language plpgsql as $$ begin perform set_config(name, value, false); return 1; end $$")

	dates, zoned, floats := "date timestamp(3)", "timestamptz", "real float8"
	var counts, want []string
	for i := range keyTypes {
		counts = append(counts, fmt.Sprintf("(select count(*) + sum(l.id) + sum(r.id) from l join r on l.c%d = r.c%[1]d)", i))
		want = append(want, "96000")
	}
	all = "select " + strings.Join(counts, ", ")
	check := func(conn *pgx.Conn, what, gathered string) {
		t.Helper()
		shown := strings.Join(testkit.Query(t, conn, "explain "+all), "\n")
		for i, k := range keyTypes {
			moved := regexp.MustCompile(fmt.Sprintf(`Hash Key: (l\.|r\.)?c%d\b`, i)).MatchString(shown)
			if moved == strings.Contains(" "+gathered+" ", " "+k.left+" ") {
				t.Errorf("%s: redistributed by %s: %v", what, k.left, moved)
			}
		}
		if got := testkit.Query(t, conn, all); len(got) != 1 || got[0] != strings.Join(want, "|") {
			t.Errorf("%s: %v", what, got)
		}
		if t.Failed() {
			t.Fatal(shown)
		}
	}
	for _, s := range []struct{ set, gathered string }{
		{"", ""},
		{"set bytea_output = 'escape'", ""},
		{"set datestyle = 'ISO, DMY'", ""},
		{"set timezone = 'Africa/Monrovia'", ""},
		{"set timezone = '<-05:30>+5:30'", ""},
		{"set timezone = 'Europe/Amsterdam'; set extra_float_digits = 3", ""},
		{"set datestyle = 'German'", dates + " " + zoned},
		{"set timezone = 'EST5EDT,M3.2.0,M11.1.0'", zoned},
		{"set extra_float_digits = 0", floats},
		{"begin; set local datestyle = 'SQL'; set local extra_float_digits = -3", dates + " " + zoned + " " + floats},
		{"begin; set datestyle = 'Postgres'; savepoint s; set datestyle = 'ISO'", ""},
		{"select silently('datestyle', 'German')", dates + " " + zoned},
		{"set datestyle = 'SQL'; select count(*) from l; select silently('datestyle', 'ISO')", ""},
	} {
		for _, sql := range strings.Split(s.set, "; ") {
			if sql != "" {
				testkit.Exec(t, conn, sql)
			}
		}
		check(conn, s.set, s.gathered)
		if strings.HasPrefix(s.set, "begin") {
			testkit.Exec(t, conn, "rollback")
			check(conn, s.set+"; rollback", "")
		}
		testkit.Exec(t, conn, "reset all")
	}

	// What a segment's own configuration says does not count, the session's does.
	for dbid, set := range map[uint16]string{firstSegment: "datestyle = 'German'", firstSegment + 1: "extra_float_digits = -10", lastSegment: "timezone = 'FOO+20'"} {
		testkit.Exec(t, c.Utility(t, dbid, db), "alter database "+db+" set "+set)
	}
	check(c.Connect(t, db), "segments of other settings", "")
	testkit.Exec(t, conn, "alter database "+db+" set datestyle = 'SQL, DMY'")
	check(c.Connect(t, db), "alter database", dates+" "+zoned)
}
