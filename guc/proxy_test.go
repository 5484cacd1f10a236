package guc

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProxyTable(t *testing.T) {
	last := ""
	for _, p := range AllProxy() {
		if p.Name <= last || !strings.HasPrefix(p.Name, "trunkline.proxy_") {
			t.Errorf("%s follows %s", p.Name, last)
		}
		last = p.Name
		if v, err := p.Parse(p.Default); err != nil || v != p.Default {
			t.Errorf("%s: default %q parses to %q, %v", p.Name, p.Default, v, err)
		}
		if _, ok := Lookup(p.Name); ok {
			t.Errorf("%s is in Greenplum's table too", p.Name)
		}
		if p.Context != Sighup || p.Short == "" || !strings.HasSuffix(p.Short, ".") {
			t.Errorf("%+v", p)
		}
	}
	if p, ok := LookupProxy("Trunkline.Proxy_Grace"); !ok || p.Name != ProxyGrace {
		t.Error("names are not taken in any case")
	}
}

func TestProxyValues(t *testing.T) {
	c, err := ParseConf([]byte(`
trunkline.proxy_grace = 5
trunkline.proxy_grace = 250ms
trunkline.proxy_dial_timeout = '1.5 min'
trunkline.proxy_check_source = off
trunkline.proxy_hello_timeout = never
trunkline.proxy_peer_timeout = 0
trunkline.proxy_graze = 1
trunkline.something_else = 1
`))
	if err != nil {
		t.Fatal(err)
	}
	values, errs := ProxyValues(c)
	want := map[string]string{ProxyGrace: "0.25", ProxyDialTimeout: "90", ProxyCheckSource: "off"}
	if !maps.Equal(values, want) {
		t.Errorf("%v, want %v", values, want)
	}
	got := errors.Join(errs...).Error()
	if got != `line 6: invalid value for parameter "trunkline.proxy_hello_timeout": "never"
line 7: 0 s is outside the valid range for parameter "trunkline.proxy_peer_timeout" (1 .. 3600)
line 8: unrecognized configuration parameter "trunkline.proxy_graze"` {
		t.Error(got)
	}
}

// What a server reads: includes where they stand, relative to their file, and
// postgresql.auto.conf last.
func TestReadServerConf(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file("postgresql.conf", "a = 1\nb = 1\ninclude 'sub/more.conf'\nd = 1\ninclude_dir 'conf.d'\ninclude_if_exists 'none.conf'\ninclude_if_exists = 'sub/if.conf'\n")
	file("sub/more.conf", "b = 2\nd = 2\ninclude 'deep.conf'\n")
	file("sub/deep.conf", "deep = 1\n")
	file("sub/if.conf", "there = 1\n")
	file("conf.d/20.conf", "e = 20\n")
	file("conf.d/10.conf", "e = 10\n")
	file("conf.d/30.txt", "e = 30\n")
	file("conf.d/.40.conf", "e = 40\n")
	file("conf.d/50.conf/x", "")
	file("postgresql.auto.conf", "a = 'auto'\n")
	c, err := ReadServerConf(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range c.Settings {
		got[s.Name] = s.Value
	}
	want := map[string]string{"a": "auto", "b": "2", "d": "1", "deep": "1", "e": "20", "there": "1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if s, _ := c.Lookup("deep"); s.Place() != filepath.Join(dir, "sub/deep.conf")+", line 1" {
		t.Errorf("deep is at %s", s.Place())
	}

	for name, c := range map[string]struct{ text, want string }{
		"syntax":          {"ok = 1\n= 2\n", "line 2: syntax error"},
		"missing include": {"\ninclude 'none.conf'\n", "postgresql.conf: line 2: open " + dir + "/none.conf: no such file"},
		"missing folder":  {"include_dir 'none'\n", "postgresql.conf: line 1: open " + dir + "/none: no such file"},
		"loop":            {"include 'postgresql.conf'\n", "more than 10 files include each other"},
		"syntax inside":   {"include 'bad.conf'\n", "bad.conf: line 1: syntax error"},
	} {
		file("bad.conf", "what\n?")
		file("postgresql.conf", c.text)
		if _, err := ReadServerConf(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
