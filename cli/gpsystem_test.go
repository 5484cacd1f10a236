package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// fakeSystem is a cluster without processes.
type fakeSystem struct {
	instances []topology.Instance
	up        map[uint16]bool
	sessions  int
	stuck     map[uint16]bool // do not stop
	broken    map[uint16]bool // do not start, do not reload
	did       []string
}

func (f *fakeSystem) Instances() []topology.Instance { return f.instances }
func (f *fakeSystem) Coordinator() topology.Instance { return f.instances[0] }

func (f *fakeSystem) Start(_ context.Context, o cluster.StartOptions) error {
	f.did = append(f.did, fmt.Sprintf("start m=%v y=%v t=%v", o.CoordinatorOnly, o.NoStandby, o.Timeout))
	var fails cluster.StartError
	for _, i := range f.instances {
		switch {
		case o.CoordinatorOnly && !i.IsCoordinator(), o.NoStandby && i.IsStandby(), i.Status == 'd':
		case f.broken[i.Dbid]:
			fails.Failed = append(fails.Failed, i)
			fails.Reasons = append(fails.Reasons, errors.New("disk on fire"))
		default:
			f.up[i.Dbid] = true
		}
	}
	if len(fails.Failed) > 0 {
		return &fails
	}
	return nil
}

func (f *fakeSystem) Stop(_ context.Context, o cluster.StopOptions) error {
	f.did = append(f.did, fmt.Sprintf("stop %s m=%v y=%v t=%v", o.Mode, o.CoordinatorOnly, o.KeepStandby, o.Timeout))
	if o.Mode == cluster.Smart && f.sessions > 0 {
		f.sessions--
		return &cluster.SessionsError{Sessions: f.sessions + 1}
	}
	for _, i := range f.instances {
		if o.CoordinatorOnly && !i.IsCoordinator() || o.KeepStandby && i.IsStandby() {
			continue
		}
		if f.stuck[i.Dbid] {
			return fmt.Errorf("dbid %d does not end", i.Dbid)
		}
		delete(f.up, i.Dbid)
	}
	return nil
}

func (f *fakeSystem) Reload(context.Context) []cluster.ReloadFailure {
	f.did = append(f.did, "reload")
	var failed []cluster.ReloadFailure
	for _, i := range f.instances {
		if f.broken[i.Dbid] {
			failed = append(failed, cluster.ReloadFailure{Instance: i, Err: errors.New("no such process")})
		}
	}
	return failed
}

func (f *fakeSystem) Status(context.Context) ([]cluster.InstanceStatus, error) {
	var list []cluster.InstanceStatus
	for _, i := range f.instances {
		s := cluster.InstanceStatus{Instance: i, Running: f.up[i.Dbid]}
		if s.Running {
			s.Pid = 4000 + int(i.Dbid)
			s.Live = instance.Status{State: instance.Ready, Postgres: instance.ChildStatus{State: instance.Ready}}
		}
		list = append(list, s)
	}
	return list, nil
}

// newSystem makes a coordinator, two primaries and a standby that run; their
// postmaster.pid holds the pid of this process.
func newSystem(t *testing.T) *fakeSystem {
	t.Helper()
	fake := newFake(t)
	f := &fakeSystem{instances: fake.instances, up: map[uint16]bool{}, stuck: map[uint16]bool{}, broken: map[uint16]bool{}}
	for k := range f.instances {
		i := &f.instances[k]
		i.PreferredRole, i.Mode, i.Status = i.Role, 'n', 'u'
		f.up[i.Dbid] = true
		pid := fmt.Sprintf("%d\n%s\n0\n%d\n", os.Getpid(), i.Datadir, i.Port)
		if err := os.WriteFile(filepath.Join(i.Datadir, "postmaster.pid"), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(i.Datadir, "trunkline"), 0o700); err != nil {
			t.Fatal(err)
		}
		lock := filepath.Join(i.Datadir, "trunkline", fmt.Sprintf(".s.PGSQL.%d.lock", i.Port))
		if err := os.WriteFile(lock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wasOpen, wasPoll, wasSQL := openCluster, smartPoll, coordinatorSQL
	openCluster = func(dir string) (system, error) {
		if dir != os.Getenv("COORDINATOR_DATA_DIRECTORY") {
			return nil, fmt.Errorf("%s: %w", dir, cluster.ErrNotCluster)
		}
		return f, nil
	}
	smartPoll = time.Millisecond
	coordinatorSQL = func(_ context.Context, _ topology.Instance, sql string) ([][]string, error) {
		if strings.Contains(sql, "pg_stat_replication") {
			return [][]string{{"streaming", "sync", "0/3000060", "0/3000060", "0/3000060"}}, nil
		}
		return [][]string{{"15.9"}}, nil
	}
	t.Cleanup(func() { openCluster, smartPoll, coordinatorSQL = wasOpen, wasPoll, wasSQL })
	return f
}

// The width of a column of paths depends on the temporary directory's name.
var besidePath = regexp.MustCompile(`(/data/\S*|Datadir) {3,}| {3,}(<<<<<<<<)`)

// golden compares what a tool printed with testdata/name. UPDATE_GOLDEN=1
// writes it instead.
func golden(t *testing.T, name, out string) {
	t.Helper()
	out = strings.ReplaceAll(out, os.Getenv("COORDINATOR_DATA_DIRECTORY"), "/data")
	out = regexp.MustCompile(fmt.Sprintf(`\b%d\b`, os.Getpid())).ReplaceAllString(out, "PID")
	out = besidePath.ReplaceAllString(out, "$1   $2")
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out); d != "" {
		t.Error(name, d)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	g := &gpTool{name: "gpx", host: "h", user: "u", out: &out, now: time.Now}
	var b table
	b.separate()
	b.info("a", "= 1")
	b.infoOrWarn(true, "longer", "= 22")
	b.info("Host", "Datadir", "Port")
	b.print(g)
	want := `gpx-[INFO]:-----------------------------------------------------
gpx-[INFO]:-   a        = 1
gpx-[WARNING]:-longer   = 22      <<<<<<<<
gpx-[INFO]:-   Host     Datadir   Port
`
	if d := cmp.Diff(want, logPrefix.ReplaceAllString(out.String(), "$1$2-")); d != "" {
		t.Error(d)
	}
}

func TestGPStop(t *testing.T) {
	for _, c := range []struct {
		name, args string
		code       int
		prepare    func(*fakeSystem)
		did        string
	}{
		{"fast", "-a -M fast", 0, nil, "stop fast m=true y=false t=2m0s;stop fast m=false y=false t=2m0s"},
		{"smart", "-a", 0, func(f *fakeSystem) { f.sessions = 2 },
			"stop smart m=true y=false t=2m0s;stop smart m=true y=false t=2m0s;stop smart m=true y=false t=2m0s;stop fast m=false y=false t=2m0s"},
		{"immediate", "-ai -t 300", 0, nil, "stop immediate m=true y=false t=5m0s;stop immediate m=false y=false t=5m0s"},
		{"keep_standby", "-a -f -y", 0, nil, "stop fast m=true y=false t=2m0s;stop fast m=false y=true t=2m0s"},
		{"coordinator", "-a -m -M fast", 0, nil, "stop fast m=true y=false t=2m0s"},
		{"restart", "-a -r -M fast", 0, nil, "stop fast m=true y=false t=2m0s;stop fast m=false y=false t=2m0s;start m=false y=false t=0s"},
		{"reload", "-u", 0, nil, "reload"},
		{"reload_failed", "-u", 1, func(f *fakeSystem) { f.broken[3] = true }, "reload"},
		{"stuck", "-a -M fast", 2, func(f *fakeSystem) { f.stuck[3] = true }, "stop fast m=true y=false t=2m0s;stop fast m=false y=false t=2m0s"},
		{"not_running", "-a", 2, func(f *fakeSystem) { clear(f.up) }, ""},
		{"segments_only", "-a -M fast", 0, func(f *fakeSystem) { delete(f.up, 1) }, "stop fast m=false y=false t=2m0s"},
		{"refused", "", 4, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newSystem(t)
			if c.prepare != nil {
				c.prepare(f)
			}
			code, out := tool(t, append([]string{"gpstop"}, strings.Fields(c.args)...)...)
			if did := strings.Join(f.did, ";"); code != c.code || did != c.did {
				t.Errorf("exit %d, did %s\n%s", code, did, out)
			}
			golden(t, "gpstop_"+c.name+".txt", out)
		})
	}
}

func TestGPStart(t *testing.T) {
	for _, c := range []struct {
		name, args string
		code       int
		prepare    func(*fakeSystem)
		did        string
	}{
		{"all", "-a", 0, nil, "start m=false y=false t=10m0s"},
		{"no_standby", "-a -y -t 5", 0, nil, "start m=false y=true t=5s"},
		{"coordinator", "-a -m", 0, nil, "start m=true y=false t=10m0s"},
		{"failed", "-a", 2, func(f *fakeSystem) { f.broken[2] = true }, "start m=false y=false t=10m0s"},
		{"coordinator_failed", "-a", 1, func(f *fakeSystem) { f.broken[1] = true }, "start m=false y=false t=10m0s"},
		{"marked_down", "-a", 0, func(f *fakeSystem) { f.instances[2].Status = 'd' }, "start m=false y=false t=10m0s"},
		{"running", "-a", 2, func(f *fakeSystem) { f.up[1] = true }, ""},
		{"refused", "", 4, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newSystem(t)
			clear(f.up)
			if c.prepare != nil {
				c.prepare(f)
			}
			if err := os.Remove(filepath.Join(f.instances[0].Datadir, "postmaster.pid")); err != nil {
				t.Fatal(err)
			}
			code, out := tool(t, append([]string{"gpstart"}, strings.Fields(c.args)...)...)
			if did := strings.Join(f.did, ";"); code != c.code || did != c.did {
				t.Errorf("exit %d, did %s\n%s", code, did, out)
			}
			golden(t, "gpstart_"+c.name+".txt", out)
		})
	}
}

func TestGPState(t *testing.T) {
	mirrored := func(f *fakeSystem) {
		for _, content := range []int16{0, 1} {
			i := f.instances[content+1]
			i.Dbid, i.Role, i.PreferredRole, i.Port = uint16(5+content), 'm', 'm', 16000+int(content)
			f.instances = append(f.instances, i)
		}
		f.instances[1].Mode, f.instances[4].Mode, f.up[5] = 's', 's', true
		f.instances[5].Status = 'd'
	}
	down := func(f *fakeSystem) {
		delete(f.up, 3)
		_ = os.Remove(filepath.Join(f.instances[2].Datadir, "postmaster.pid"))
	}
	for _, c := range []struct {
		name, args string
		code       int
		prepare    func(*fakeSystem)
	}{
		{"default", "", 0, nil},
		{"brief_down", "-b", 0, down},
		{"brief_mirrored", "-b", 0, mirrored},
		{"detail", "-s", 0, nil},
		{"detail_down", "-s", 1, down},
		{"detail_mirrored", "-s", 1, mirrored},
		{"mirrors", "-m", 0, nil},
		{"mirrors_mirrored", "-m", 1, mirrored},
		{"map", "-c", 0, nil},
		{"map_mirrored", "-c", 0, mirrored},
		{"problems", "-e", 1, nil},
		{"problems_mirrored", "-e", 1, mirrored},
		{"standby", "-f", 0, nil},
		{"no_standby", "-f", 0, func(f *fakeSystem) { f.instances = f.instances[:3] }},
		{"ports", "-p", 0, nil},
		{"quick", "-Q", 0, nil},
		{"versions", "-i", 0, nil},
		{"too_many", "-s -b", 2, nil},
		{"not_running", "", 2, func(f *fakeSystem) { clear(f.up) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newSystem(t)
			if c.prepare != nil {
				c.prepare(f)
			}
			code, out := tool(t, append([]string{"gpstate"}, strings.Fields(c.args)...)...)
			if code != c.code {
				t.Errorf("exit %d\n%s", code, out)
			}
			golden(t, "gpstate_"+c.name+".txt", out)
		})
	}
}

func TestSystemArguments(t *testing.T) {
	newSystem(t)
	for args, want := range map[string]string{
		"gpstop -M quick":       "gpstop: error: option -M: invalid choice: 'quick' (choose from 'fast', 'immediate', 'smart')",
		"gpstop -B 0":           "gpstop: error: Invalid value for parallel degree: 0",
		"gpstop -t 5":           "gpstop: error: Invalid timeout value.  Must be greater than 120 seconds.",
		"gpstop -f -M fast":     "gpstop: error: Can not mix --mode options with older deprecated '-f,-i,-s'",
		"gpstart -t 0":          "gpstart: error: Invalid timeout value: 0",
		"gpstate -B 65":         "gpstate: error: Invalid parallelDegree provided with -B argument: 65",
		"gpstop -d /nowhere -a": "gpstop error: /nowhere: not the directory of a cluster",
	} {
		words := strings.Fields(args)
		code, out := tool(t, words...)
		if code != 2 || !strings.Contains(out, "-[ERROR]:-"+want+"\n") {
			t.Errorf("%s: %d\n%s", args, code, out)
		}
	}
	t.Setenv("COORDINATOR_DATA_DIRECTORY", "")
	t.Setenv("MASTER_DATA_DIRECTORY", "")
	if code, out := tool(t, "gpstate"); code != 2 || !strings.HasSuffix(out, "gpstate-[ERROR]:-gpstate error: Environment Variable COORDINATOR_DATA_DIRECTORY not set!\n") {
		t.Errorf("%d\n%s", code, out)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]error{"y\n": nil, "YES\n": nil, "n\n": errRefused, "": errRefused, "maybe\n": errRefused} {
		g := &gpTool{in: strings.NewReader(answer), out: &bytes.Buffer{}}
		if err := g.confirm(t.Context(), "Continue"); err != want {
			t.Errorf("%q: %v", answer, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g := &gpTool{in: r, out: &bytes.Buffer{}}
	if err := g.confirm(ctx, "Continue"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestLogFile(t *testing.T) {
	newSystem(t)
	dir := filepath.Join(t.TempDir(), "log")
	if code, out := tool(t, "gpstate", "-q", "-p", "-l", dir); code != 0 || out != "" {
		t.Errorf("%d %q", code, out)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "gpstate_????????.log"))
	if len(files) != 1 {
		t.Fatalf("log files: %v", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^\d{8}:\d\d:\d\d:\d\d:\d{6,} gpstate:[^:]+:[^:]+-\[INFO\]:-Starting gpstate with args: -q -p -l `)
	if !line.Match(b) {
		t.Errorf("%s", b)
	}
	if code, _ := tool(t, "gpstate", "-p", "-l", "/proc/no/such"); code != 0 {
		t.Error("without a log file nothing works")
	}
}
