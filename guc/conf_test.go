package guc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const sample = `# comment
listen_addresses = '*'		# what IP address(es) to listen on;
Port 15432
#gp_interconnect_type = udpifc
  gp_interconnect_type=tcp
search_path = '"$user", public'
log_line_prefix = 'it''s \'\\%m\' \101'
shared_buffers = 128MB
my.custom = a-b/c
gp_Interconnect_Type  'proxy'   # last wins
gp_interconnect_queue_depth = 9999`

func TestParseConf(t *testing.T) {
	c, err := ParseConf([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{"listen_addresses", "*", "'*'", 2, ""},
		{"port", "15432", "15432", 3, ""},
		{"gp_interconnect_type", "tcp", "tcp", 5, ""},
		{"search_path", `"$user", public`, `'"$user", public'`, 6, ""},
		{"log_line_prefix", `it's '\%m' A`, `'it''s \'\\%m\' \101'`, 7, ""},
		{"shared_buffers", "128MB", "128MB", 8, ""},
		{"my.custom", "a-b/c", "a-b/c", 9, ""},
		{"gp_interconnect_type", "proxy", "'proxy'", 10, ""},
		{"gp_interconnect_queue_depth", "9999", "9999", 11, ""},
	}
	if d := cmp.Diff(want, c.Settings); d != "" {
		t.Error(d)
	}
	pg, gp, errs := Split(c)
	if len(pg) != 6 || pg[0].Name != "listen_addresses" {
		t.Errorf("pg: %+v", pg)
	}
	if gp[InterconnectType] != "proxy" || gp["gp_interconnect_queue_depth"] != "4" || gp[SetupTimeout] != "7200" || len(gp) != len(All()) {
		t.Errorf("gp: %v", gp)
	}
	if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "line 11: 9999 is outside the valid range") {
		t.Errorf("errs: %v", errs)
	}
}

func TestParseConfErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a = 'open":         `line 1: syntax error near "'open"`,
		"a":                 `line 1: syntax error near ""`,
		"a = b c":           `line 1: syntax error near "c"`,
		"a = 127.0.0.1":     `line 1: syntax error near ".0.1"`,
		"a = 1.5h":          `line 1: syntax error near "h"`,
		"a = 1e3":           `line 1: syntax error near "3"`,
		"a = my.host":       `line 1: syntax error near "my.host"`,
		"a-b = 5":           `line 1: syntax error near "-b = 5"`,
		"= 5":               `line 1: syntax error near "= 5"`,
		"a = 1:-1:h:35432":  `line 1: syntax error near ":-1:h:35432"`,
		"include 'x'":       "line 1: include is not supported; put the settings into this file",
		"a=1\n!\ninclude=x": "line 2: syntax error near \"!\"\nline 3: include is not supported; put the settings into this file",
	} {
		c, err := ParseConf([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		var e *SyntaxError
		if !errors.As(err, &e) {
			t.Errorf("%q: %T", text, err)
		}
		if strings.HasPrefix(text, "a=1") && len(c.Settings) != 1 {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func TestIsToken(t *testing.T) {
	for _, s := range []string{"'a b'", "''", "on", "5", "-1", "128MB", "1.5", "1.5e3", "0x1F", "a-b/c", "my.host.name"} {
		if !IsToken(s) {
			t.Errorf("%s is none", s)
		}
	}
	for _, s := range []string{"", "'a", "a b", "1.5h", "1e3", "my.host", "127.0.0.1", "1:2", "a=b", "a#", "'a'b", "x\n"} {
		if IsToken(s) {
			t.Errorf("%s is one", s)
		}
	}
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postgresql.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSetAndRemove(t *testing.T) {
	path := write(t, sample)
	if err := Set(path, "gp_interconnect_type", "tcp"); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("  gp_inter", "#  gp_inter", "gp_Inter", "#gp_Inter").Replace(sample) + "\ngp_interconnect_type=tcp\n"
	if d := cmp.Diff(want, read(t, path)); d != "" {
		t.Error(d)
	}
	if err := Remove(path, "GP_INTERCONNECT_TYPE"); err != nil {
		t.Fatal(err)
	}
	want = strings.Replace(want, "\ngp_interconnect_type=tcp\n", "\n#gp_interconnect_type=tcp\n", 1)
	if d := cmp.Diff(want, read(t, path)); d != "" {
		t.Error(d)
	}
	if err := Set(path, "a", "1:-1:h:35432"); err == nil {
		t.Error("a value PostgreSQL cannot read was written")
	}
	for _, name := range []string{"", "a b", "1a", "a=", "a\n"} {
		if err := Set(path, name, "1"); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
	if err := Set(filepath.Join(t.TempDir(), "none"), "a", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	// A line that PostgreSQL cannot read, which a broken tool left, is mended.
	path = write(t, "a=1:2\n")
	if err := Set(path, "a", "2"); err != nil || read(t, path) != "#a=1:2\na=2\n" {
		t.Errorf("%v %q", err, read(t, path))
	}
}

func TestSetAtTheSameTime(t *testing.T) {
	path := write(t, "")
	var wg sync.WaitGroup
	for _, name := range strings.Split("abcdefgh", "") {
		wg.Go(func() {
			if err := Set(path, name, "1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := read(t, path); strings.Count(got, "=1\n") != 8 {
		t.Errorf("edits are lost:\n%s", got)
	}
}

// Every value comes back from the file as it was quoted.
func TestQuoteProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := strings.ReplaceAll(rapid.String().Draw(t, "value"), "\x00", "")
		if !IsToken(Quote(v)) {
			t.Fatalf("%q is no token", Quote(v))
		}
		c, err := ParseConf([]byte("a = " + Quote(v)))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := c.Get("A"); got != v {
			t.Fatalf("%q became %q", v, got)
		}
	})
}

func FuzzParseConf(f *testing.F) {
	f.Add(sample)
	f.Add("a = 'b\\")
	f.Add("a = '\\777\\1'")
	f.Fuzz(func(t *testing.T, text string) {
		c, _ := ParseConf([]byte(text))
		for _, s := range c.Settings {
			if !IsToken(s.Raw) || nameLen(s.Name) != len(s.Name) {
				t.Fatalf("%+v", s)
			}
		}
		if len(c.Settings) == 0 {
			return
		}
		// Commenting one name out leaves the others alone.
		name := c.Settings[0].Name
		after, _ := ParseConf(commentOut([]byte(text), name))
		var want []Setting
		for _, s := range c.Settings {
			if s.Name != name {
				want = append(want, s)
			}
		}
		if d := cmp.Diff(want, after.Settings); d != "" {
			t.Fatal(d)
		}
	})
}
