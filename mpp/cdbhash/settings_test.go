package cdbhash

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestSettingsRead holds Settings.Reads to what a server writes: FromText reads
// each value of the types it allows, whatever else is set, and finds the
// server's own hash for it.
func TestSettingsRead(t *testing.T) {
	conn := pgtest.Start(t).Connect(t)
	pgtest.Query(t, conn, "SELECT setseed(0.7)")
	// Expressions over i and random() for values all over each type's range,
	// and texts of those at its ends.
	types := []struct {
		name    string
		random  string
		special string // parted by bars
	}{
		{"smallint", "((random()-0.5)*65534)::int2", "-32768|32767"},
		{"integer", "((random()-0.5)*power(2,1+i%31))::int4", "-2147483648|2147483647"},
		{"bigint", "((random()-0.5)*power(2,1+i%63))::int8", "-9223372036854775808|9223372036854775807"},
		{"text", "left(md5(random()::text),i%33)||chr(1+i)", "| a |\\|é☃😀\u0085|NULL"},
		{"character varying", "left(md5(random()::text),i%33)||chr(1+i)", "| a |\\x00"},
		{"character", "rpad(left(md5(random()::text),i%33),40)::bpchar", "|  | a |\t"},
		{"boolean", "random()<0.5", "t|f"},
		{"oid", "(random()*4294967295)::int8::oid", "0|4294967295"},
		{"uuid", "gen_random_uuid()", "00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff"},
		{"bytea", "decode(left(md5(i::text)||md5(random()::text),2*(i%32)),'hex')||decode(lpad(to_hex(i%256),2,'0'),'hex')", `|\x5c|\x5c5c7800|\x5c3030305c|\x27`},
		{"numeric", "((random()-0.5)*power(10,i%20))::numeric * power(10::numeric,(i%37)-18)",
			"0|-0.000|NaN|Infinity|-Infinity|1.0|1.00|1e131071|1e-16383|-99999999999999999999.99999999999999999990"},
		{"real", "((random()-0.5)*power(10,(i%70)-37))::float4", "0|-0|NaN|Infinity|-Infinity|1e-45|1.17549435e-38|3.4028235e38|0.1|16777217|1e15|1e-5"},
		{"double precision", "(random()-0.5)*power(10,(i%600)-300)", "0|-0|NaN|Infinity|-Infinity|5e-324|2.2250738585072014e-308|1.7976931348623157e308|0.1|9007199254740993|1e15|1e-5"},
		{"date", "'4714-11-24 BC'::date + (random()*power(2147483493,0.3+(i%70)/100.0))::int", "infinity|-infinity|5874897-12-31|4714-11-24 BC|0001-01-01|0001-12-31 BC|9999-12-31|10000-01-01|0005-02-29 BC|2000-02-29|1900-02-28"},
		{"time without time zone", "'00:00'::time + random()*interval '24h'", "24:00:00|00:00|23:59:59.999999|12:00:00.5"},
		{"timestamp without time zone", "'4714-11-24 BC'::timestamp + random()*interval '298990y'",
			"infinity|-infinity|4714-11-24 00:00:00 BC|294276-12-31 23:59:59.999999|0001-12-31 23:59:59.9 BC|0001-01-01|9999-12-31 23:59:59.999999|10000-01-01|1900-02-28 23:59:59.000001"},
		{"timestamp with time zone", "'4714-11-24 00:00:00+00 BC'::timestamptz + random()*case when i%2=0 then interval '298990y' else interval '7000y' end",
			"infinity|-infinity|4714-11-24 00:00:00+00 BC|294276-12-31 23:59:59.999999+00|0001-12-31 23:59:59.9+00 BC|0001-01-01 00:00+00|1880-01-01 00:00+00|1844-12-31 12:00+00|1972-01-01 00:44:29+00|2021-03-28 01:00+00|9999-12-31 23:59:59.9+00"},
		{"inet", "CASE WHEN i%2=0 THEN set_masklen('10.0.0.0'::inet + (random()*16777215)::int8, i%33) ELSE set_masklen('2001:db8::'::inet + (random()*1e17)::int8, i%129) END",
			"::|::1|::1/0|::ffff:1.2.3.4|::1.2.3.4|::ffff:0:1.2.3.4/100|1:0:0:2::3|0.0.0.0/0|255.255.255.255|fe80::1:0:0:0/64|1:2:3:4:5:6:7:8"},
		{"cidr", "CASE WHEN i%2=0 THEN network(set_masklen('10.0.0.0'::inet + (random()*16777215)::int8, i%33)) ELSE network(set_masklen('2001:db8::'::inet + (random()*1e17)::int8, i%129)) END",
			"10/8|::/0|::ffff:1.2.3.4|::1.2.3.4/128|0.0.0.0/0|10.1.2.3"},
		{"macaddr", "left(md5(random()::text),12)::macaddr", "00:00:00:00:00:00|ff:ff:ff:ff:ff:ff"},
	}
	// The same rows under all settings.
	oids := map[string]uint32{}
	for i, ty := range types {
		sql := fmt.Sprintf("CREATE TEMP TABLE v%d AS ", i)
		for _, s := range strings.Split(ty.special, "|") {
			sql += fmt.Sprintf("SELECT %s::%s AS v UNION ALL ", quote(s), bare(ty.name))
		}
		pgtest.Query(t, conn, sql+fmt.Sprintf("SELECT v FROM generate_series(1,700) i, LATERAL (SELECT %s OFFSET 0*i) r(v)", ty.random))
		n, _ := strconv.ParseUint(string(pgtest.Query(t, conn, "SELECT "+quote(bare(ty.name))+"::regtype::oid")[0][0]), 10, 32)
		oids[ty.name] = uint32(n)
	}
	read := map[string]int{}
	check := func(set Settings, what string, only string) {
		t.Helper()
		for i, ty := range types {
			if only != "" && ty.name != only {
				continue
			}
			oid := oids[ty.name]
			if !set.Reads(oid) {
				continue
			}
			h, err := NewHasher([]uint32{oid})
			if err != nil {
				t.Fatal(err)
			}
			rows := pgtest.Query(t, conn, fmt.Sprintf("SELECT v, hash_array(ARRAY[v]) - 31::int8 FROM v%d", i))
			for _, r := range rows {
				bin, ok := FromText(oid, r[0], nil)
				if !ok {
					t.Fatalf("%s: %s %q cannot be read", what, ty.name, r[0])
				}
				want, _ := strconv.ParseInt(string(r[1]), 10, 64)
				if got, err := h.Hash([][]byte{bin}); err != nil || got != uint32(want) {
					t.Fatalf("%s: %s %q: hash %d, %v; PostgreSQL has %d", what, ty.name, r[0], got, err, uint32(want))
				}
			}
			read[ty.name] += len(rows)
		}
	}
	set := func(name, value string) {
		pgtest.Query(t, conn, "SELECT set_config("+quote(name)+", "+quote(value)+", false)")
	}
	for _, style := range []string{"ISO, MDY", "ISO, DMY", "ISO, YMD", "SQL, DMY", "German", "Postgres, MDY"} {
		for digits := -15; digits <= 3; digits += 3 {
			for _, bytea := range []string{"hex", "escape"} {
				set("DateStyle", style)
				set("extra_float_digits", strconv.Itoa(digits))
				set("bytea_output", bytea)
				shown := string(pgtest.Query(t, conn, "SHOW datestyle")[0][0])
				check(Settings{DateStyle: shown, TimeZone: "UTC", ExtraFloatDigits: digits}, fmt.Sprint(style, digits, bytea), "")
			}
		}
	}
	tried := map[uint32]bool{}
	for _, oid := range oids {
		tried[oid] = true
	}
	for oid := range scalarTypes {
		if (Settings{DateStyle: "ISO, MDY", TimeZone: "UTC", ExtraFloatDigits: 1}).Reads(oid) && !tried[oid] {
			t.Errorf("type %s was not tried", typeName(oid))
		}
	}
	for i, ty := range types {
		if read[ty.name] == 0 {
			t.Errorf("no settings at all read type %s", ty.name)
		}
		if n := pgtest.Query(t, conn, fmt.Sprintf("SELECT count(DISTINCT v) FROM v%d", i))[0][0]; len(n) < 3 && ty.name != "boolean" {
			t.Errorf("only %s different values of type %s", n, ty.name)
		}
	}

	// Every time zone there is, and some that are made up.
	set("DateStyle", "ISO")
	zones := []string{"<+02>-02", "<-05:30>+5:30", "GMT+5", "Etc/GMT-14", "XYZ-14:59", "FOO+14:59", "<+20>-20", "A/B-99", "XXX-15", "EST5EDT,M3.2.0,M11.1.0", "INTERVAL '-07:15'"}
	for _, r := range pgtest.Query(t, conn, "SELECT name FROM pg_timezone_names WHERE name !~ '^posix'") {
		zones = append(zones, string(r[0]))
	}
	taken := 0
	for _, z := range zones {
		pgtest.Query(t, conn, "SET TIME ZONE "+map[bool]string{true: z, false: quote(z)}[strings.HasPrefix(z, "INTERVAL")])
		shown := string(pgtest.Query(t, conn, "SHOW timezone")[0][0])
		s := Settings{DateStyle: "ISO, MDY", TimeZone: shown}
		if s.Reads(oidTimestampTZ) {
			taken++
		}
		check(s, "time zone "+shown, "timestamp with time zone")
	}
	if taken*10 < len(zones)*9 {
		t.Errorf("only %d of %d time zones are understood", taken, len(zones))
	}
	t.Logf("%d of %d time zones; values read: %v", taken, len(zones), read)
}

// bare is how a type is written without a length: character alone has one.
func bare(typ string) string {
	if typ == "character" {
		return "bpchar"
	}
	return typ
}

// TestSettingsRefuse: what is read under some settings only is refused when
// they are not known.
func TestSettingsRefuse(t *testing.T) {
	for oid, name := range map[uint32]string{oidDate: "date", oidTimestamp: "timestamp", oidTimestampTZ: "timestamptz", oidFloat4: "real", oidFloat8: "float8",
		1186: "interval", 1266: "timetz", oidChar: `"char"`, 3802: "jsonb", 0: "no type"} {
		if (Settings{}).Reads(oid) {
			t.Errorf("%s is read whatever is set", name)
		}
	}
	all := Settings{DateStyle: "ISO, MDY", TimeZone: "UTC", ExtraFloatDigits: 1}
	for oid := range types {
		if all.Reads(oid) && Family(oid) == 0 {
			t.Errorf("type %d has no hash family", oid)
		}
	}
	for _, zone := range []string{"", "<+20>-20", "A/B-99", "XXX-15", "X-14:60", "EST5EDT"} {
		if (Settings{DateStyle: "ISO, MDY", TimeZone: zone}).Reads(oidTimestampTZ) {
			t.Errorf("time zone %q is understood", zone)
		}
	}
}
