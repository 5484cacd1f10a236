package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/topology"
)

// fakeCatalog is a system of a coordinator, two primaries and a standby whose
// files are in a temporary directory.
type fakeCatalog struct {
	instances []topology.Instance
	live      map[string][]liveValue
}

func (f *fakeCatalog) Instances(context.Context) ([]topology.Instance, error) {
	return f.instances, nil
}
func (f *fakeCatalog) Close() {}

func (f *fakeCatalog) Settings(context.Context) ([]pgSetting, error) {
	return []pgSetting{
		{name: "fsync", context: "sighup", vartype: "bool"},
		{name: "port", context: "postmaster", vartype: "integer", minVal: "1", maxVal: "65535"},
		{name: "search_path", context: "user", vartype: "string"},
		{name: "max_connections", context: "postmaster", vartype: "integer", minVal: "1", maxVal: "262143"},
		{name: "shared_buffers", context: "postmaster", vartype: "integer", unit: "8kB", minVal: "16", maxVal: "1073741823"},
		{name: "synchronous_commit", context: "user", vartype: "enum", enum: []string{"local", "remote_write", "remote_apply", "on", "off"}},
		{name: "block_size", context: "internal", vartype: "integer", minVal: "8192", maxVal: "8192"},
	}, nil
}

func (f *fakeCatalog) Setting(ctx context.Context, name string) (*pgSetting, error) {
	list, _ := f.Settings(ctx)
	for _, s := range list {
		if s.name == strings.ToLower(name) {
			return &s, nil
		}
	}
	return nil, nil
}

func (f *fakeCatalog) Live(_ context.Context, name string) ([]liveValue, error) {
	if v, ok := f.live[name]; ok {
		return v, nil
	}
	return nil, &pgconn.PgError{Code: "42704", Message: "unrecognized configuration parameter"}
}

const fakeConf = "# the file\nport = 1\ngp_interconnect_type = tcp\n"

func newFake(t *testing.T) *fakeCatalog {
	t.Helper()
	root := t.TempDir()
	t.Setenv("HOME", filepath.Join(root, "home"))
	t.Setenv("COORDINATOR_DATA_DIRECTORY", root)
	f := &fakeCatalog{live: map[string][]liveValue{}}
	for _, i := range []topology.Instance{
		{Dbid: 1, Content: -1, Role: 'p', Port: 15432}, {Dbid: 2, Content: 0, Role: 'p', Port: 15433},
		{Dbid: 3, Content: 1, Role: 'p', Port: 15434}, {Dbid: 4, Content: -1, Role: 'm', Port: 15435},
	} {
		i.Hostname, i.Address, i.Datadir = "sdw", "127.0.0.1", filepath.Join(root, "gpseg"+string('0'+byte(i.Dbid)))
		if err := os.MkdirAll(i.Datadir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(i.Datadir, "postgresql.conf"), []byte(fakeConf), 0o600); err != nil {
			t.Fatal(err)
		}
		f.instances = append(f.instances, i)
	}
	was := openCatalog
	openCatalog = func(context.Context) (catalog, error) { return f, nil }
	t.Cleanup(func() { openCatalog = was })
	return f
}

func (f *fakeCatalog) conf(t *testing.T, dbid int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.instances[dbid-1].Datadir, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var logPrefix = regexp.MustCompile(`(?m)^(> )?\d{8}:\d\d:\d\d:\d\d:\d{6,} (gp\w+):[^:]*:[^:]*?-`)

// tool runs a command line and returns what it printed, log prefixes cut to
// the tool's name.
func tool(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr)
	return code, logPrefix.ReplaceAllString(stdout.String(), "$1$2-") + stderr.String()
}

const fakeAddresses = "1:-1:127.0.0.1:14432,2:0:127.0.0.1:14433,3:1:127.0.0.1:14434,4:-1:127.0.0.1:14435"

func TestGPConfigChange(t *testing.T) {
	for _, c := range []struct{ args, line, done string }{
		{"-c gp_interconnect_type -v proxy", "gp_interconnect_type=proxy", "-c gp_interconnect_type -v proxy"},
		{"-c gp_interconnect_proxy_addresses -v " + fakeAddresses, "gp_interconnect_proxy_addresses='" + fakeAddresses + "'",
			"-c gp_interconnect_proxy_addresses -v " + fakeAddresses},
		{"--skipvalidation -c gp_interconnect_proxy_addresses -v '" + fakeAddresses + "'", "gp_interconnect_proxy_addresses='" + fakeAddresses + "'",
			`--skipvalidation -c gp_interconnect_proxy_addresses -v ''"'"'` + fakeAddresses + `'"'"''`},
		{"--skipvalidation -c gp_interconnect_proxy_addresses -v " + fakeAddresses, "gp_interconnect_proxy_addresses='" + fakeAddresses + "'",
			"--skipvalidation -c gp_interconnect_proxy_addresses -v " + fakeAddresses},
		{"-c gp_interconnect_transmit_timeout -v 30min", "gp_interconnect_transmit_timeout=30min", "-c gp_interconnect_transmit_timeout -v 30min"},
		{"-c search_path -v it's", "search_path='it''s'", `-c search_path -v 'it'"'"'s'`},
		{"-c shared_buffers -v 256MB", "shared_buffers=256MB", "-c shared_buffers -v 256MB"},
		{"-c synchronous_commit -v true", "synchronous_commit=true", "-c synchronous_commit -v true"},
		{"--skipvalidation -c some.thing -v 5", "some.thing=5", "--skipvalidation -c some.thing -v 5"},
	} {
		f := newFake(t)
		code, out := tool(t, append([]string{"/opt/bin/gpconfig"}, strings.Fields(c.args)...)...)
		if want := "gpconfig-[INFO]:-completed successfully with parameters '" + c.done + "'\n"; code != 0 || out != want {
			t.Errorf("%s: %d\n%s\nwant %s", c.args, code, out, want)
		}
		want := fakeConf
		if strings.HasPrefix(c.line, "gp_interconnect_type") {
			want = strings.Replace(want, "gp_", "#gp_", 1)
		}
		for dbid := range 4 {
			if d := cmp.Diff(want+c.line+"\n", f.conf(t, dbid+1)); d != "" {
				t.Errorf("%s: dbid %d: %s", c.args, dbid+1, d)
			}
		}
	}
}

func TestGPConfigWhere(t *testing.T) {
	for args, want := range map[string][4]string{
		"-c fsync -v off -m on":                      {"on", "off", "off", "on"},
		"-c fsync -v off --coordinatorvalue on":      {"on", "off", "off", "on"},
		"-c fsync -v off --masteronly":               {"off", "", "", "off"},
		"-c fsync -v off --coordinatoronly":          {"off", "", "", "off"},
		"-c fsync -P off":                            {"", "off", "off", ""},
		"-c max_connections -v 200 -m 100":           {"100", "200", "200", "100"},
		"-c gp_interconnect_proxy_addresses -v  '' ": {"''", "''", "''", "''"},
	} {
		f := newFake(t)
		fields := strings.Fields(args)
		if last := len(fields) - 1; fields[last] == "''" {
			fields[last] = ""
		}
		if code, out := tool(t, append([]string{"gpconfig"}, fields...)...); code != 0 {
			t.Errorf("%s: %d\n%s", args, code, out)
		}
		for dbid := range 4 {
			line := ""
			if want[dbid] != "" {
				line = fields[1] + "=" + want[dbid] + "\n"
			}
			if d := cmp.Diff(fakeConf+line, f.conf(t, dbid+1)); d != "" {
				t.Errorf("%s: dbid %d: %s", args, dbid+1, d)
			}
		}
	}
}

func TestGPConfigRemove(t *testing.T) {
	f := newFake(t)
	if code, out := tool(t, "gpconfig", "-r", "gp_interconnect_type"); code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
	for dbid := range 4 {
		if got := f.conf(t, dbid+1); got != strings.Replace(fakeConf, "gp_", "#gp_", 1) {
			t.Errorf("dbid %d: %s", dbid+1, got)
		}
	}
}

func TestGPConfigRefusals(t *testing.T) {
	const refused = "new GUC value failed validation: "
	for args, want := range map[string]string{
		"":                                       "No action specified.  See the --help info.",
		"-c fsync -l":                            "Multiple actions specified.  See the --help info.",
		"-c fsync":                               "change requested but value not specified",
		"-r fsync -v on":                         "remove action does not take a value, primary value, mirror value or coordinator value parameter",
		"-c fsync -v on -m off --masteronly":     "when changing a parameter on the coordinator only specify the --value not --mastervalue",
		"-c fsync -v on -P off":                  "cannot use both value option and primaryvalue/mirrorvalue option",
		"-l --file":                              "'--file' option must accompany '--show' option",
		"-s fsync --skipvalidation":              "--skipvalidation can not be combined with --show",
		"-s fsync --file --file-compare":         "'--file' option and '--file-compare' option cannot be used together",
		"-c nonsense -v 1":                       "not a valid GUC: nonsense",
		"-c hidden_one -v 1":                     "GUC Validation Failed: hidden_one cannot be changed under normal conditions. Please refer to gpconfig documentation.",
		"-c port -v 1":                           "The parameter 'port' is not modifiable with this tool",
		"-c block_size -v 1":                     "not a modifiable GUC: 'block_size'",
		"-c gp_dbid -v 1":                        "not a modifiable GUC: 'gp_dbid'",
		"-s nonsense":                            "Failed to retrieve GUC information, guc does not exist: nonsense",
		"-c gp_interconnect_type -v x":           refused + `invalid value for parameter "gp_interconnect_type": "x" (Available values: udpifc, tcp, proxy)`,
		"-c gp_interconnect_queue_depth -v 5000": refused + `5000 is outside the valid range for parameter "gp_interconnect_queue_depth" (1 .. 4096)`,
		"-c fsync -v maybe":                      refused + `parameter "fsync" requires a Boolean value`,
		"-c shared_buffers -v 1":                 refused + `1 8kB is outside the valid range for parameter "shared_buffers" (16 .. 1073741823)`,
		"-c max_connections -v 100 -m 100":       refused + "the value of max_connections must be greater on the segments than on the coordinator",
		"-c gp_interconnect_proxy_addresses -v 1:-1:h:x": refused + `invalid value for parameter "gp_interconnect_proxy_addresses": "1:-1:h:x": entry 1, "1:-1:h:x": port "x" is not a number`,
	} {
		f := newFake(t)
		f.live["hidden_one"] = []liveValue{{-1, "1"}}
		code, out := tool(t, append([]string{"gpconfig"}, strings.Fields(args)...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != 1 || len(lines) != 2 || lines[1] != want || !strings.HasSuffix(lines[0], "]:-"+want) {
			t.Errorf("%s: %d\n%s\nwant %s", args, code, out, want)
		}
		for dbid := range 4 {
			if f.conf(t, dbid+1) != fakeConf {
				t.Errorf("%s: a file was changed", args)
			}
		}
	}
}

func TestGPConfigAddressesAgainstInstances(t *testing.T) {
	f := newFake(t)
	list := strings.Replace(fakeAddresses, "3:1:", "3:0:", 1)
	list = list[:strings.LastIndex(list, ",")]
	code, out := tool(t, "gpconfig", "-c", "gp_interconnect_proxy_addresses", "-v", list)
	for _, want := range []string{"dbid 3 has content 1, not 0", "the standby with dbid 4 (content -1) on 127.0.0.1 is missing from the list"} {
		if code != 1 || strings.Count(out, want) != 2 {
			t.Errorf("%d\n%s\nwant %s", code, out, want)
		}
	}
	if f.conf(t, 1) != fakeConf {
		t.Error("a refused list was written")
	}
	// The walkthrough's own example, of another cluster: written, with a warning.
	code, out = tool(t, "gpconfig", "--skipvalidation", "-c", "gp_interconnect_proxy_addresses", "-v", "'1:-1:192.168.180.50:35432,2:0:192.168.180.54:35000'")
	if code != 0 || !strings.Contains(out, "gpconfig-[WARNING]:-gp_interconnect_proxy_addresses, not validated: the segment with dbid 3") {
		t.Errorf("%d\n%s", code, out)
	}
	if !strings.HasSuffix(f.conf(t, 4), "\ngp_interconnect_proxy_addresses='1:-1:192.168.180.50:35432,2:0:192.168.180.54:35000'\n") {
		t.Error(f.conf(t, 4))
	}
}

func TestGPConfigFailures(t *testing.T) {
	f := newFake(t)
	if err := os.Remove(filepath.Join(f.instances[1].Datadir, "postgresql.conf")); err != nil {
		t.Fatal(err)
	}
	code, out := tool(t, "gpconfig", "-c", "fsync", "-v", "off")
	if code != 1 || !strings.Contains(out, "gpconfig-[ERROR]:-failed updating the postgresql.conf files on host: sdw msg:") ||
		!strings.HasSuffix(out, "gpconfig-[ERROR]:-finished with errors, parameter string '-c fsync -v off'\n") {
		t.Errorf("%d\n%s", code, out)
	}
	if !strings.HasSuffix(f.conf(t, 3), "fsync=off\n") {
		t.Error("the others were not changed")
	}
	openCatalog = func(context.Context) (catalog, error) { return nil, errors.New("connection refused") }
	code, out = tool(t, "gpconfig", "-s", "fsync")
	const down = "Failed to connect to database, exiting without action. This script can only be run when the database is up."
	if code != 1 || out != "gpconfig-[ERROR]:-connection refused\ngpconfig-[ERROR]:-"+down+"\n"+down+"\n" {
		t.Errorf("%d\n%s", code, out)
	}
}

func TestGPConfigShow(t *testing.T) {
	f := newFake(t)
	f.live["gp_interconnect_type"] = []liveValue{{1, "tcp"}, {-1, "proxy"}, {0, "tcp"}}
	f.live["fsync"] = []liveValue{{-1, "on"}, {0, "on"}, {1, "off"}}
	f.live["port"] = []liveValue{{-1, "15432"}, {0, "15433"}, {1, "15434"}}
	f.live["search_path"] = []liveValue{{-1, "a"}, {0, "a"}, {1, "a"}}
	appendConf(t, f, 2, "fsync=true\n")
	for dbid := range 4 {
		appendConf(t, f, dbid+1, "search_path='a'\n")
	}
	for args, want := range map[string]string{
		"-s gp_interconnect_type": `Values on all segments are consistent
GUC              : gp_interconnect_type
Coordinator value: proxy
Segment     value: tcp
`,
		"-s fsync": `WARNING: GUCS ARE OUT OF SYNC: 
[context: -1] [name: fsync] [value: on]
[context: 0] [name: fsync] [value: on]
[context: 1] [name: fsync] [value: off]
`,
		"-s port": `GUC                 : port
Context:    -1 Value: 15432
Context:     0 Value: 15433
Context:     1 Value: 15434
`,
		"-s search_path --file": `Values on all segments are consistent
GUC              : search_path
Coordinator value: 'a'
Segment     value: 'a'
`,
		"-s shared_buffers --file": `Values on all segments are consistent
GUC              : shared_buffers
No value is set on coordinator
No value is set on segments
`,
		"-s fsync -f": `WARNING: GUCS ARE OUT OF SYNC: 
[context: -1] [dbid: 1] [name: fsync] [not set in file]
[context: -1] [dbid: 4] [name: fsync] [not set in file]
[context: 0] [dbid: 2] [name: fsync] [value: true]
[context: 1] [dbid: 3] [name: fsync] [not set in file]
`,
		"-s search_path --file-compare": `Values on all segments are consistent
GUC              : search_path
Coordinator value: a | file: 'a'
Segment     value: a | file: 'a'
`,
		"-s gp_interconnect_type --file-compare": `WARNING: GUCS ARE OUT OF SYNC: 
[context: -1] [dbid: 1] [name: gp_interconnect_type] [value: proxy | file: tcp]
[context: -1] [dbid: 4] [name: gp_interconnect_type] [value: proxy | file: tcp]
[context: 0] [dbid: 2] [name: gp_interconnect_type] [value: tcp | file: tcp]
[context: 1] [dbid: 3] [name: gp_interconnect_type] [value: tcp | file: tcp]
`,
	} {
		code, out := tool(t, append([]string{"gpconfig"}, strings.Fields(args)...)...)
		if d := cmp.Diff(want, out); code != 0 || d != "" {
			t.Errorf("%s: %d %s", args, code, d)
		}
	}
}

func appendConf(t *testing.T, f *fakeCatalog, dbid int, text string) {
	t.Helper()
	path := filepath.Join(f.instances[dbid-1].Datadir, "postgresql.conf")
	if err := os.WriteFile(path, []byte(f.conf(t, dbid)+text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGPConfigList(t *testing.T) {
	newFake(t)
	code, out := tool(t, "gpconfig", "--list")
	for _, want := range []string{
		"[name: fsync] [unit: None] [context: sighup] [vartype: bool] [min_val: None] [max_val: None]\n",
		"[name: gp_interconnect_setup_timeout] [unit: s] [context: user] [vartype: integer] [min_val: 0] [max_val: 7200]\n",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d: %s is missing", code, want)
		}
	}
	for _, not := range []string{"[name: port]", "gp_interconnect_proxy_addresses"} {
		if strings.Contains(out, not) {
			t.Errorf("%s is listed", not)
		}
	}
}

func TestToolArguments(t *testing.T) {
	newFake(t)
	for args, want := range map[string]string{
		"--frob":      "gpconfig-[ERROR]:-gpconfig: error: no such option: --frob\n",
		"-z":          "gpconfig-[ERROR]:-gpconfig: error: no such option: -z\n",
		"-c":          "gpconfig-[ERROR]:-gpconfig: error: -c option requires 1 argument\n",
		"-c fsync on": "gpconfig-[ERROR]:-gpconfig: error: too many arguments: on\n",
	} {
		code, out := tool(t, append([]string{"gpconfig"}, strings.Fields(args)...)...)
		if code != 2 || out != want+"See 'gpconfig --help'.\n" {
			t.Errorf("%s: %d\n%s", args, code, out)
		}
	}
	for _, args := range []string{"-?", "-h", "--help"} {
		if code, out := tool(t, "gpconfig", args); code != 0 || !strings.Contains(out, "--skipvalidation") {
			t.Errorf("%s: %d\n%s", args, code, out)
		}
	}
}
