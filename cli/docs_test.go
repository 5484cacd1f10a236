package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/proxy"
)

func readText(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{".."}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section returns a chapter of a page.
func section(t *testing.T, page, title string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n## "+title+"\n")
	if !ok {
		t.Fatalf("no chapter %q", title)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// The operator's page knows every parameter with its default.
func TestDocumentedParameters(t *testing.T) {
	text := section(t, readText(t, "docs", "greenplum.md"), "Parameters")
	for _, p := range guc.AllProxy() {
		value := p.Show(p.Default)
		if value == "" {
			value = "empty"
		}
		if want := "| `" + p.Name + "` | " + value + " |"; !strings.Contains(text, want) {
			t.Errorf("docs/greenplum.md lacks %s", want)
		}
	}
}

// The status's fields are those of the page, which are promised to stay.
func TestDocumentedStatus(t *testing.T) {
	text := section(t, readText(t, "docs", "greenplum.md"), "Status")
	var names []string
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		if ty.Kind() == reflect.Slice {
			ty = ty.Elem()
		}
		if ty.Kind() != reflect.Struct || ty.PkgPath() == "time" {
			return
		}
		for i := range ty.NumField() {
			name, _, _ := strings.Cut(ty.Field(i).Tag.Get("json"), ",")
			names = append(names, name)
			walk(ty.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[proxy.Status]())
	for _, n := range names {
		if !strings.Contains(text, "`"+n+"`") {
			t.Errorf("docs/greenplum.md lacks the field %s", n)
		}
	}
	// What is promised today; a field may come, none may go.
	for _, n := range []string{"dbid", "content", "pid", "socket", "socket_error", "server", "server_error", "dialect", "config_error",
		"problem", "listener", "address", "bound", "error", "peers", "role", "state", "since", "trunkline", "connections", "bytes_in",
		"bytes_out", "cause", "backends", "early", "refused", "rejected", "rejections", "strangers", "misrouted", "limits", "grace",
		"hello_timeout", "dial_timeout", "peer_timeout", "min_backoff", "max_backoff", "mirror_backoff", "check_source"} {
		if !slices.Contains(names, n) {
			t.Errorf("the status has lost the field %s", n)
		}
	}
	if b, err := json.Marshal(proxy.Status{}); err != nil || !json.Valid(b) {
		t.Errorf("%s, %v", b, err)
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// varies is what stands for a number, name or time in a quoted message.
var varies = regexp.MustCompile(`…|gp_dbid|\b[0-9][0-9.]*s?\b|\bsdw[0-9], [0-9.]+|\bsdw[0-9]\b|seg-?[0-9] \(dbid [0-9]\)|plain32|magic36|trunkline\.proxy_[a-z]+(_[a-z]+)*|gp_interconnect_proxy_addresses`)

// The page quotes what the program says: the constant parts of each message are
// in the source.
func TestDocumentedMessages(t *testing.T) {
	text := section(t, readText(t, "docs", "greenplum.md"), "When something is wrong")
	var source strings.Builder
	for _, pattern := range []string{"../proxy/*.go", "../datadir/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				source.WriteString(readText(t, strings.TrimPrefix(f, "../")))
			}
		}
	}
	// The kernel's words.
	source.WriteString("address already in use connection refused cannot assign requested address")
	n := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) < 2 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			n++
			for _, part := range varies.Split(m[1], -1) {
				for _, words := range strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune(":;(),", r) }) {
					if words = strings.TrimSpace(words); len(words) > 3 && !strings.Contains(source.String(), words) {
						t.Errorf("docs/greenplum.md quotes %q; the program does not say %q", m[1], words)
					}
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d messages found", n)
	}
}

// The systemd unit: what must be in it, and systemd's own opinion of it.
func TestSystemdUnit(t *testing.T) {
	const name = "trunkline-proxy@.service"
	unit := readText(t, "deploy", name)
	for _, want := range []string{
		"User=gpadmin", "Restart=always", "StartLimitIntervalSec=0", "PrivateTmp=no", "LimitNOFILE=", "ExecReload=/bin/kill -HUP $MAINPID",
		"ExecStart=/usr/local/bin/trunkline proxy -D %f $TRUNKLINE_OPTIONS", "ReadWritePaths=/tmp -%f", "WantedBy=multi-user.target", "NoNewPrivileges=yes",
	} {
		if !slices.Contains(strings.Split(unit, "\n"), want) && !(strings.HasSuffix(want, "=") && strings.Contains(unit, "\n"+want)) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	// The program and the user need not be on this machine.
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit = strings.NewReplacer("/usr/local/bin/trunkline", exe, "=gpadmin", "=root").Replace(unit)
	dir := t.TempDir()
	for _, n := range []string{name, "trunkline-proxy@data-primary-gpseg0.service"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, "trunkline-proxy@data-primary-gpseg0.service")).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
