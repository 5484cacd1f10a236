package proxybench

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

const asChild = "PROXYBENCH_TEST_CHILD"

// TestMain makes the test binary the program of the runs' children.
func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		if err := childMain(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	settleStep = 20 * time.Millisecond // the figures are of no interest here
	goleak.VerifyTestMain(m)
}

func childMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 4 && args[0] == relayWord:
		return Relay(ctx, args[1], args[2], args[3], func(a string) { fmt.Println(a) })
	case len(args) == 5 && args[0] == probeWord && args[1] == "-D":
		return Probe(ctx, datadir.Dir(args[2]), proxy.DialectMagic36, os.Stdin, os.Stdout)
	case len(args) != 5 || args[0] != proxyWord || args[1] != "-D":
		return fmt.Errorf("no such child: %q", args)
	}
	cfg, err := proxy.ConfigFor(datadir.Dir(args[2]))
	if err != nil {
		return err
	}
	cfg.Dialect = proxy.DialectMagic36
	p, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

func testCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asChild+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// tiny are the options of a run that takes no time.
func tiny(mode string) Options {
	return Options{Mode: mode, Pump: PumpSplice, OtherPump: true, Command: testCommand, Rounds: 2, Time: 30 * time.Millisecond, Streams: 2, Size: 1000, Connections: 20}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(fmt.Sprintf("/tmp/.s.PGSQL.ic_proxy.*.%d", os.Getpid())); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "tlbench*")); len(left) > 0 && os.Getenv("TMPDIR") != "" {
		t.Errorf("left behind: %v", left)
	}
	return r
}

// want checks that each path of the only result has these figures, and that
// what can be printed can.
func want(t *testing.T, r *Report, paths []string, figures ...string) {
	t.Helper()
	if len(r.Results) != 1 {
		t.Fatalf("%d results", len(r.Results))
	}
	var got []string
	for _, p := range r.Results[0].Paths {
		got = append(got, p.Path)
		if p.Path == PathDirect {
			continue
		}
		for _, f := range figures {
			if p.Median[f] <= 0 {
				t.Errorf("%s: %s is %v", p.Path, f, p.Median[f])
			}
			if p.Path == PathProxies && len(paths) > 1 && p.Ratio[f] <= 0 {
				t.Errorf("ratio of %s is %v", f, p.Ratio[f])
			}
		}
	}
	if strings.Join(got, ", ") != strings.Join(paths, ", ") {
		t.Errorf("paths %v, want %v", got, paths)
	}
	var table strings.Builder
	if err := r.Table(&table); err != nil {
		t.Error(err)
	}
	for _, p := range paths {
		if !strings.Contains(table.String(), p) {
			t.Errorf("%q is not in\n%s", p, &table)
		}
	}
	var plot strings.Builder
	if err := r.Plot(&plot); err != nil {
		t.Error(err)
	}
	if err := xml.Unmarshal([]byte(plot.String()), new(struct{})); err != nil {
		t.Errorf("the plot is no XML: %v\n%s", err, &plot)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"version":1`, `"machine":{"cpus":`, `"own_proxies":`, `"results":[{"mode":"`, `"paths":[{"path":"proxies","median":{`, `"rounds":[{`} {
		if !strings.Contains(string(b), key) {
			t.Errorf("%s is not in\n%s", key, b)
		}
	}
	for _, f := range figures {
		if !strings.Contains(string(b), `"`+f+`":`) {
			t.Errorf("%s is not in\n%s", f, b)
		}
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
}

func TestThroughput(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	r := run(t, tiny("throughput"))
	want(t, r, []string{PathProxies, PathPump, PathOther, PathDirect}, MBps, CPUPerGB, OwnCPUPerGB)
}

func TestLatency(t *testing.T) {
	want(t, run(t, tiny("latency")), []string{PathProxies, PathPump}, P50, P99, PerSecond)
}

func TestSetup(t *testing.T) {
	o := tiny("setup")
	o.Pump = ""
	want(t, run(t, o), []string{PathProxies}, P50, P99, PerSecond)
}

func TestFair(t *testing.T) {
	r := run(t, tiny("fair"))
	want(t, r, []string{PathProxies, PathPump}, MBps, Alone, OfAlone, P50, P99)
}

func TestUnread(t *testing.T) {
	r := run(t, tiny("unread"))
	want(t, r, []string{PathProxies}, MBps, Alone, OfAlone, Accepted, RSS, RSSMax)
	if took := r.Results[0].Paths[0].Median[Accepted]; took < 20*100_000 {
		t.Errorf("took %.0f bytes for 20 receivers that do not read", took)
	}
}

func TestMany(t *testing.T) {
	want(t, run(t, tiny("many")), []string{PathProxies}, RSS, RSSEach)
}

func TestSteady(t *testing.T) {
	r := run(t, tiny("steady"))
	want(t, r, []string{PathProxies})
	if n, ok := r.figure("steady", "", PathProxies, Allocs); !ok || n > 1000 {
		t.Errorf("%v allocations a packet, %v", n, ok)
	}
}

func TestLink(t *testing.T) {
	if err := wan.Available(); err != nil {
		t.Skipf("no emulated network: %v", err)
	}
	o := tiny("link")
	o.Time = 300 * time.Millisecond
	r := run(t, o)
	want(t, r, []string{PathProxies, PathPump}, MBps)
	if l := r.Results[0].Paths[0].Median[MBps]; l > 65 {
		t.Errorf("%v MB/s over a link of 62.5 MB/s", l)
	}
}

func TestSoak(t *testing.T) {
	o := tiny("soak")
	o.Time = 400 * time.Millisecond
	r := run(t, o)
	want(t, r, []string{PathProxies}, TotalBytes, TotalOpened, RSS, RSSTrend)
	if n := len(r.Results[0].Series); n < 4 {
		t.Errorf("%d samples of memory", n)
	}
}

func TestInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	o := tiny("throughput")
	o.Time = time.Hour
	o.Progress = func(step string) {
		if strings.Contains(step, "round") {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOptions(t *testing.T) {
	e := Endpoint{Dbid: 1, Socket: "/none"}
	for want, o := range map[string]Options{
		"unknown mode":     {Mode: "speed"},
		"kind of byte":     {Pump: "fast"},
		"not enough":       {Proxies: []Endpoint{e}},
		"looks into":       {Mode: "steady", Proxies: []Endpoint{e, {Dbid: 2}}},
		"at the ends":      {Mode: "link", Proxies: []Endpoint{e, {Dbid: 2}}},
		"given twice":      {Proxies: []Endpoint{e, e}},
		"cannot be: use":   {Size: 10},
		"be negative":      {Rounds: -1},
		"connect to /none": {Proxies: []Endpoint{e, {Dbid: 2, Socket: "/none"}}},
	} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	o := tiny("")
	o.Command = func(args ...string) *exec.Cmd { return exec.Command("/bin/sh", "-c", "echo it broke >&2") }
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "it broke") {
		t.Error(err)
	}
}

// What a proxy has complained about, and that it is no more, is in the error of
// a run that breaks off.
func TestErrorTellsOfProxies(t *testing.T) {
	var mu sync.Mutex
	var proxies []*exec.Cmd
	o := tiny("setup")
	o.Pump, o.OtherPump = "", false
	o.Command = func(args ...string) *exec.Cmd {
		cmd := testCommand(args...)
		mu.Lock()
		defer mu.Unlock()
		proxies = append(proxies, cmd)
		return cmd
	}
	o.Progress = func(step string) {
		if strings.HasPrefix(step, "setup ") {
			mu.Lock()
			defer mu.Unlock()
			_ = proxies[0].Process.Kill()
		}
	}
	o.Time = patience
	_, err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "proxy1: ") || !strings.Contains(err.Error(), "(the process has ended)") ||
		!strings.Contains(err.Error(), "proxy2: ") || !strings.Contains(err.Error(), "lost a peer") {
		t.Errorf("%v", err)
	}
}

// Given proxies that have to find out the header dialect are not connected
// before the first backends have said hello: the first of those is turned away.
func TestProxiesWithoutDialect(t *testing.T) {
	dir, err := os.MkdirTemp("", "ic")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var list topology.AddressList
	for i := range 2 {
		port, err := freeport.One()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: "127.0.0.1", Port: port})
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	o := Options{Mode: "setup", Rounds: 1, Time: 30 * time.Millisecond}
	for _, e := range list {
		p, err := proxy.New(proxy.Config{
			Source: proxy.Source{
				Facts: func() (proxy.Facts, error) {
					return proxy.Facts{Dbid: e.Dbid, Content: e.Content, Addresses: list}, nil
				},
				Postmaster: func() (int, int, error) { return 5432, int(e.Dbid), nil },
			},
			Log: slog.New(slog.DiscardHandler), SocketDir: dir, AckRefused: true,
			Times: proxy.Times{Grace: 50 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		socket := filepath.Join(dir, filepath.Base(datadir.ICProxySocket(5432, int(e.Dbid))))
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if _, err := os.Lstat(socket); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		o.Proxies = append(o.Proxies, Endpoint{Content: e.Content, Dbid: e.Dbid, Socket: socket})
	}
	want(t, run(t, o), []string{PathProxies}, P50)
}
