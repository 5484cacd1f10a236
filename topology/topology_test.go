package topology

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var cluster = []Instance{
	{1, -1, 'p', 'p', 'n', 'u', 15432, "mdw", "127.0.0.1", "/d/coordinator/gpseg-1"},
	{2, 0, 'p', 'p', 'n', 'u', 15433, "sdw1", "127.0.0.1", "/d/primary/gpseg0"},
	{3, 1, 'p', 'p', 'n', 'u', 15434, "sdw2", "127.0.0.1", "/d/primary/gpseg1"},
	{4, -1, 'm', 'm', 's', 'u', 15435, "smdw", "127.0.0.1", "/d/standby/gpseg-1"},
}

func TestFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gp_segment_configuration")
	shuffled := slices.Clone(cluster)
	slices.Reverse(shuffled)
	if err := WriteFile(path, shuffled); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	if want := "1|-1|p|p|n|u|15432|mdw|127.0.0.1|/d/coordinator/gpseg-1"; first != want {
		t.Errorf("first line %q, want %q", first, want)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(cluster, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"a|b", "a\nb", " a", ""} {
		i := cluster[0]
		i.Datadir = bad
		if err := WriteFile(path, []Instance{i}); err == nil {
			t.Errorf("datadir %q was written", bad)
		}
	}
	if again, err := ReadFile(path); err != nil || !slices.Equal(again, cluster) {
		t.Errorf("a refused write changed the file: %v %v", again, err)
	}
}

func TestReadFileErrors(t *testing.T) {
	const good = "2|0|p|p|n|u|15433|h|a|/d"
	for line, want := range map[string]string{
		"2|0|p|p":                      "line 1: 4 fields",
		"0|0|p|p|n|u|15433|h|a|/d":     `dbid "0" is not a number from 1 to 32767`,
		"2|x|p|p|n|u|15433|h|a|/d":     `content "x"`,
		"2|0|q|p|n|u|15433|h|a|/d":     `role "q" is neither 'p' nor 'm'`,
		"2|0|p|p|n|u|99999|h|a|/d":     `port "99999"`,
		"2|0|p|p|n|u|15433||a|/d":      `hostname ""`,
		good + "\n" + good:             "line 2: dbid 2 is already on line 1",
		good + "\n\n" + "3" + good[1:]: "line 2: 1 fields",
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func TestParseAddresses(t *testing.T) {
	l, err := ParseAddresses(" 1:-1:192.168.180.50:35432, 2:0:sdw1.example:35000,3:1:[fe80::1%eth0]:35001")
	if err != nil {
		t.Fatal(err)
	}
	want := AddressList{
		{1, -1, "192.168.180.50", 35432}, {2, 0, "sdw1.example", 35000}, {3, 1, "fe80::1%eth0", 35001},
	}
	if d := cmp.Diff(want, l); d != "" {
		t.Error(d)
	}
	if s := l.String(); s != "1:-1:192.168.180.50:35432,2:0:sdw1.example:35000,3:1:[fe80::1%eth0]:35001" {
		t.Errorf("String: %s", s)
	}
	if a := l[2].Addr(); a != "[fe80::1%eth0]:35001" {
		t.Errorf("Addr: %s", a)
	}
	if l, err := ParseAddresses(" "); err != nil || len(l) != 0 {
		t.Errorf("blank text: %v %v", l, err)
	}
}

func TestParseAddressesErrors(t *testing.T) {
	const ok = "1:-1:h:35432,"
	for text, want := range map[string]AddressError{
		ok + "2:0:h":                  {"2:0:h", 2, "3 of 4 fields, want dbid:content:host:port"},
		ok + "2":                      {"2", 2, "1 of 4 fields, want dbid:content:host:port"},
		ok:                            {"", 2, "the entry is empty; write dbid:content:host:port, separated by single commas"},
		ok + "x:0:h:1":                {"x:0:h:1", 2, `dbid "x" is not a number from 1 to 32767`},
		ok + "0:0:h:1":                {"0:0:h:1", 2, `dbid "0" is not a number from 1 to 32767`},
		ok + "2:-2:h:1":               {"2:-2:h:1", 2, `content "-2" is not a number from -1 to 32767`},
		ok + "2:0::1":                 {"2:0::1", 2, "the host is empty"},
		ok + "2:0:a b:1":              {"2:0:a b:1", 2, `host "a b" holds a blank or another character no host name has`},
		ok + "2:0:h:http":             {"2:0:h:http", 2, `port "http" is not a number`},
		ok + "2:0:h:0":                {"2:0:h:0", 2, "port 0 is outside 1 .. 65535"},
		ok + "2:0:h:65536":            {"2:0:h:65536", 2, "port 65536 is outside 1 .. 65535"},
		ok + "1:0:h:1":                {"1:0:h:1", 2, "dbid 1 is already in entry 1"},
		ok + "2:0:H:35432":            {"2:0:H:35432", 2, "H:35432 is already the address in entry 1"},
		ok + "2:0:fe80::1:5":          {"2:0:fe80::1:5", 2, "more than 4 fields, want dbid:content:host:port; an IPv6 address goes in brackets, as [::1]"},
		ok + "2:0:[::1:5":             {"2:0:[::1:5", 2, `the bracket "[" of an IPv6 address is not closed`},
		ok + "2:0:[::1]5":             {"2:0:[::1]5", 2, "3 of 4 fields, want dbid:content:host:port"},
		ok + "2:0:[1.2.3.4]:5":        {"2:0:[1.2.3.4]:5", 2, `host "[1.2.3.4]" is not an IPv6 address in brackets`},
		strings.Repeat("1", 16385):    {"", 0, "the list has 16385 bytes, the most is 16384"},
		"'1:-1:h:35432,2:0:h:35000'":  {"'1:-1:h:35432", 1, `dbid "'1" is not a number from 1 to 32767`},
		"1:-1:h:35432;2:0:h:35000":    {"1:-1:h:35432;2:0:h:35000", 1, "more than 4 fields, want dbid:content:host:port; an IPv6 address goes in brackets, as [::1]"},
		"1:-1:h:35432 2:0:h:35000":    {"1:-1:h:35432 2:0:h:35000", 1, "more than 4 fields, want dbid:content:host:port; an IPv6 address goes in brackets, as [::1]"},
		"99999999999999999999:0:h:35": {"99999999999999999999:0:h:35", 1, `dbid "99999999999999999999" is not a number from 1 to 32767`},
	} {
		_, err := ParseAddresses(text)
		var got *AddressError
		if !errors.As(err, &got) || *got != want {
			t.Errorf("%.40q: %v\nwant %v", text, err, &want)
		}
	}
}

func TestDeriveAndValidate(t *testing.T) {
	l, err := Derive(cluster, -1000)
	if err != nil {
		t.Fatal(err)
	}
	const want = "1:-1:127.0.0.1:14432,2:0:127.0.0.1:14433,3:1:127.0.0.1:14434,4:-1:127.0.0.1:14435"
	if l.String() != want {
		t.Errorf("got %s", l)
	}
	if err := Validate(l, cluster); err != nil {
		t.Error(err)
	}
	if _, err := Derive(cluster, 60000); err == nil || !strings.Contains(err.Error(), "port 15432 plus delta 60000 is outside 1 .. 65535") {
		t.Errorf("delta 60000: %v", err)
	}
	bad := AddressList{
		{1, -1, "127.0.0.1", 14432}, {2, 1, "127.0.0.1", 14433}, {2, 0, "127.0.0.1", 14432},
		{9, 9, "127.0.0.1", 15433},
	}
	lines := strings.Split(Validate(bad, cluster).Error(), "\n")
	wantLines := []string{
		`entry 3, "2:0:127.0.0.1:14432": dbid 2 is already in entry 2`,
		`entry 3, "2:0:127.0.0.1:14432": 127.0.0.1:14432 is already the address in entry 1`,
		`entry 2, "2:1:127.0.0.1:14433": dbid 2 has content 0, not 1`,
		`entry 4, "9:9:127.0.0.1:15433": no instance has dbid 9`,
		`entry 4, "9:9:127.0.0.1:15433": 127.0.0.1:15433 is where the instance with dbid 2 itself listens`,
		`the segment with dbid 3 (content 1) on 127.0.0.1 is missing from the list`,
		`the standby with dbid 4 (content -1) on 127.0.0.1 is missing from the list`,
	}
	if d := cmp.Diff(wantLines, lines); d != "" {
		t.Error(d)
	}
	var missing *MissingError
	if !errors.As(Validate(l[:3], cluster), &missing) || missing.Instance != cluster[3] {
		t.Errorf("missing: %v", missing)
	}
}

func TestDiff(t *testing.T) {
	a, b, c := Entry{1, -1, "h", 1}, Entry{2, 0, "h", 2}, Entry{3, 1, "h", 3}
	b2 := Entry{2, 0, "h", 22}
	d := Diff(AddressList{a, b}, AddressList{c, b2, a})
	if want := (Difference{Added: AddressList{c}, Changed: []EntryChange{{b, b2}}}); !cmp.Equal(d, want) {
		t.Error(cmp.Diff(want, d))
	}
	d = Diff(AddressList{a, b}, AddressList{b})
	if want := (Difference{Removed: AddressList{a}}); !cmp.Equal(d, want) {
		t.Error(cmp.Diff(want, d))
	}
	if d := Diff(AddressList{a, b, c}, AddressList{c, a, b}); !d.Empty() {
		t.Errorf("another order: %+v", d)
	}
}

// Applying a difference to the old list gives the new one, as a set.
func TestDiffProperty(t *testing.T) {
	entry := rapid.Custom(func(t *rapid.T) Entry {
		return Entry{uint16(rapid.IntRange(1, 9).Draw(t, "dbid")), 0, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "host"), rapid.IntRange(1, 3).Draw(t, "port")}
	})
	list := rapid.SliceOfNDistinct(entry, 0, 9, func(e Entry) uint16 { return e.Dbid })
	rapid.Check(t, func(t *rapid.T) {
		old, next := AddressList(list.Draw(t, "old")), AddressList(list.Draw(t, "new"))
		d := Diff(old, next)
		m := byDbid(old)
		for _, e := range d.Removed {
			delete(m, e.Dbid)
		}
		for _, c := range d.Changed {
			if m[c.Old.Dbid] != c.Old || c.Old == c.New {
				t.Fatalf("bad change %+v", c)
			}
			m[c.New.Dbid] = c.New
		}
		for _, e := range d.Added {
			if _, ok := m[e.Dbid]; ok {
				t.Fatalf("%v was added, but is there", e)
			}
			m[e.Dbid] = e
		}
		if diff := cmp.Diff(byDbid(next), m); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzParseAddresses(f *testing.F) {
	for _, s := range []string{"", "1:-1:h:35432,2:0:h:35000", "1:-1:[::1]:1", "1:0:[fe80::1%a]:2", "1:2:3", ",", "1:1:[:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseAddresses(s)
		if err != nil {
			var e *AddressError
			if !errors.As(err, &e) || e.Reason == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		back, err := ParseAddresses(l.String())
		if err != nil || !slices.Equal(l, back) {
			t.Fatalf("%q -> %q -> %v %v", s, l, back, err)
		}
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("1|-1|p|p|n|u|15432|mdw|127.0.0.1|/d/coordinator/gpseg-1\n"))
	f.Add([]byte(""))
	f.Add([]byte("||||||||||\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseFile(b)
		if err != nil || len(list) == 0 {
			return
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := WriteFile(path, list); err != nil {
			t.Fatal(err)
		}
		back, err := ReadFile(path)
		if err != nil || len(back) != len(list) {
			t.Fatalf("%v %v", back, err)
		}
	})
}
