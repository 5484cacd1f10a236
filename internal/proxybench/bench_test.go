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
	"github.com/trunkline-db/trunkline/icwire"
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

func TestSoak(t *testing.T) {
	o := tiny("soak")
	o.Time = 400 * time.Millisecond
	r := run(t, o)
	want(t, r, []string{PathProxies}, TotalBytes, TotalOpened, RSS, RSSTrend)
	if n := len(r.Results[0].Series); n < 4 {
		t.Errorf("%d samples of memory", n)
	}
}

// A path that changes a byte, loses some or says nothing is found out.
func TestCheck(t *testing.T) {
	pat := newPattern(500)
	src := pat.source(3)
	var b []byte
	for range 20 {
		b = append(b, src.next()...)
	}
	for _, step := range []int{1, 7, 499, 500, 501, len(b)} {
		c := pat.check(3)
		for at := 0; at < len(b); at += step {
			if err := c.add(b[at:min(at+step, len(b))]); err != nil {
				t.Fatalf("pieces of %d: %v", step, err)
			}
		}
		if err := c.end(20); err != nil {
			t.Error(err)
		}
		if c.end(21) == nil {
			t.Error("a lost packet was not found")
		}
	}
	for _, change := range []func(b []byte) []byte{
		func(b []byte) []byte { b[0]++; return b },
		func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		func(b []byte) []byte { b[5*500+12]++; return b },
		func(b []byte) []byte { return append(b[:500:500], b[501:]...) },
		func(b []byte) []byte { return append(b[:500:500], b[1000:]...) },               // a packet lost
		func(b []byte) []byte { copy(b[7*500+100:7*500+200], b[6*500+100:]); return b }, // stale
	} {
		if err := pat.check(3).add(change(append([]byte(nil), b...))); err == nil {
			t.Error("a change was not found")
		}
	}
	if pat.check(4).add(b) == nil {
		t.Error("another stream's data was taken")
	}
	if _, _, err := icwire.NextTuplePacket(b); err != nil {
		t.Error("not an ic-tcp packet:", err)
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

// brokenPath is a path of which a byte is changed on the way.
type brokenPath struct {
	directPath
	wg sync.WaitGroup
}

func (p *brokenPath) open(i int) (stream, error) {
	a, err := p.directPath.open(i)
	if err != nil {
		return a, err
	}
	b, err := p.directPath.open(i)
	if err != nil {
		a.close()
		return b, err
	}
	p.wg.Go(func() {
		defer a.to.close()
		defer b.from.close()
		buf := make([]byte, 10_000)
		for at := 0; ; {
			n, err := a.to.Read(buf)
			if err != nil {
				return
			}
			if at < 12_345 && 12_345 < at+n {
				buf[12_345-at]++
			}
			at += n
			if _, err := b.from.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return stream{from: a.from, to: b.to}, nil
}

// What a measurement goes through must be what was sent.
func TestCorrupted(t *testing.T) {
	socks, stop := newSockets(t.Context())
	defer stop()
	p := &brokenPath{directPath: directPath{socks}}
	_, err := throughputRound(t.Context(), p, newPattern(1000), 2, 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "data corrupted: stream 0: byte 12345, in packet 12 at 345") {
		t.Errorf("a changed byte: %v", err)
	}
	s := &setup{p: p, pat: newPattern(20_000), src: newPattern(20_000).source(0), buf: make([]byte, 20_000)}
	if err := s.once(); err == nil || !strings.Contains(err.Error(), "byte 12345") {
		t.Errorf("a changed byte of a new connection: %v", err)
	}
	p.wg.Wait()
	if len(socks.open) > 0 {
		t.Errorf("%d sockets left open", len(socks.open))
	}
}

// A run drives proxies it has not started, three of them, in the other dialect.
func TestGivenProxies(t *testing.T) {
	var ends []Endpoint
	var list topology.AddressList
	for i := range 3 {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: "127.0.0.1", Port: port})
	}
	for _, e := range list {
		dir := t.TempDir()
		p, err := proxy.New(proxy.Config{
			Source: proxy.Source{
				Facts: func() (proxy.Facts, error) {
					return proxy.Facts{Dbid: e.Dbid, Content: e.Content, Addresses: list}, nil
				},
				Postmaster: func() (int, int, error) { return 15432, 1, nil },
			},
			SocketDir: dir, Dialect: proxy.DialectPlain32, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		ends = append(ends, Endpoint{e.Content, e.Dbid, filepath.Join(dir, filepath.Base(datadir.ICProxySocket(15432, 1)))})
		for until := time.Now().Add(patience); p.Status().Socket == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("a proxy does not come up")
			}
		}
	}
	o := tiny("throughput")
	o.Proxies, o.Dialect, o.Streams = ends, icwire.Plain32, 3
	r := run(t, o)
	want(t, r, []string{PathProxies, PathPump, PathOther, PathDirect}, MBps, CPUPerGB)
	if r.Own {
		t.Error("the report says the proxies were started for it")
	}
	o.Dialect, o.Pump = icwire.Magic36, ""
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "instead of answering HELLO") {
		t.Errorf("the wrong dialect: %v", err)
	}
}

// The rest of the standard set is measured, and what failed is not hidden.
func TestFailures(t *testing.T) {
	b := &bench{report: &Report{}}
	if err := b.try(t.Context(), "latency", func() error { return errSilent }); err != nil {
		t.Error(err)
	}
	if b.report.Held() {
		t.Error("a failure was said to hold")
	}
	var table strings.Builder
	if err := b.report.Table(&table); err != nil || !strings.Contains(table.String(), errSilent.Error()) {
		t.Errorf("%v\n%s", err, &table)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.try(ctx, "latency", func() error { return errSilent }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	r := &Report{Results: []Result{
		{Mode: "throughput", Label: eightStreams, Paths: []PathResult{
			{Path: PathProxies, Rounds: []Figures{{MBps: 80, CPUPerGB: 3}, {MBps: 10, CPUPerGB: 3}, {MBps: 90, CPUPerGB: 1}}},
			{Path: PathPump, Rounds: []Figures{{MBps: 100, CPUPerGB: 1}, {MBps: 20, CPUPerGB: 2}, {MBps: 100, CPUPerGB: 1}}},
		}},
		{Mode: "many", Label: "idle", Paths: []PathResult{{Path: PathProxies, Rounds: []Figures{{RSSEach: 16 << 10, RSSEachMax: 8<<10 + 100}}}}},
	}}
	for i := range r.Results {
		r.Results[i].summarize()
	}
	r.compare(1 << 20)
	got := map[string]string{}
	for _, b := range r.Bounds {
		switch {
		case b.Measured == nil:
			got[b.Figure] = "-"
		default:
			got[b.Figure] = fmt.Sprintf("%.3g %v", *b.Measured, b.OK)
		}
	}
	for figure, want := range map[string]string{
		"throughput, " + eightStreams:     "0.8 true",
		"throughput, " + oneStream:        "-",
		"proxy CPU a GB, " + eightStreams: "1.5 false",
		"idle, RSS of a proxy for each":   "8.1 false",
		"idle, RSS of both for each":      "16 true",
		"setup, p50":                      "-",
	} {
		if got[figure] != want {
			t.Errorf("%s: %q, want %q", figure, got[figure], want)
		}
	}
	if r.Held() {
		t.Error("missed bounds were said to hold")
	}
	var table strings.Builder
	if err := r.Table(&table); err != nil || strings.Count(table.String(), "MISSED") != 2 {
		t.Errorf("%v\n%s", err, &table)
	}
}
