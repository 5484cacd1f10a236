package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

// Options are what to measure, and through what.
type Options struct {
	// Proxies are the ones to drive, two or more; without them two of ours are
	// started.
	Proxies []Endpoint
	// Dialect is the one the proxies speak.
	Dialect icwire.Dialect
	// Pump is the kind of the byte pump to compare with: PumpSplice, PumpCopy,
	// or "" for none.
	Pump string
	// OtherPump measures throughput through the other kind, too.
	OtherPump bool
	// Command makes the command of this program with those arguments, which
	// are "proxy" and the arguments of that command, or "relay" or "probe" and
	// those of Relay and Probe.
	Command func(args ...string) *exec.Cmd

	// Mode is one of Modes, or "" for the standard set.
	Mode string
	// Quick makes the standard set short.
	Quick bool

	// What one mode does; 0 stands for what the standard set does.
	Streams     int
	Size        int           // of a packet, in bytes
	Connections int           // unread or idle ones
	Time        time.Duration // of a round
	Rounds      int
	// SetupEvery is the pause between connections of mode fair. 0 means one
	// right after the other.
	SetupEvery time.Duration

	// Budget is what a proxy's memory may be with unread connections, in
	// bytes; it is only compared with. Default 512 MiB, which is a Trunkline
	// proxy's.
	Budget int64

	// Progress is told what is going on, from one goroutine at a time. It may
	// be nil.
	Progress func(step string)
}

// Modes are the measurements, in the order of the standard set.
var Modes = []string{"throughput", "latency", "setup", "fair", "unread", "many", "steady", "link", "soak"}

// Check says what is wrong with the options.
func (o *Options) Check() error {
	switch {
	case o.Mode != "" && !slices.Contains(Modes, o.Mode):
		return fmt.Errorf("unknown mode %q: use one of %s", o.Mode, strings.Join(Modes, ", "))
	case o.Pump != "" && o.Pump != PumpSplice && o.Pump != PumpCopy:
		return fmt.Errorf("unknown kind of byte pump %q: use %s or %s", o.Pump, PumpSplice, PumpCopy)
	case len(o.Proxies) == 1:
		return errors.New("one proxy is not enough: give two or more, or none to have two started")
	case o.Size != 0 && (o.Size < minPacket || o.Size > maxPacket):
		return fmt.Errorf("a packet of %d bytes cannot be: use %d to %d", o.Size, minPacket, maxPacket)
	case o.Streams < 0 || o.Connections < 0 || o.Rounds < 0 || o.Time < 0 || o.SetupEvery < 0:
		return errors.New("numbers and times cannot be negative")
	case o.Mode == "steady" && len(o.Proxies) > 0:
		return errors.New("mode steady looks into the proxies: it needs those that it starts itself")
	case o.Mode == "link" && len(o.Proxies) > 0:
		return errors.New("mode link needs proxies at the ends of an emulated link: those that it starts itself")
	}
	seen := map[uint16]bool{}
	for _, e := range o.Proxies {
		if e.Dbid == 0 || seen[e.Dbid] {
			return fmt.Errorf("dbid %d cannot be, or is given twice", e.Dbid)
		}
		seen[e.Dbid] = true
	}
	return nil
}

// bench is a run.
type bench struct {
	opt      Options
	dir      string // temporary
	socks    *sockets
	proxies  *proxyPath
	pump     *pumpPath   // nil for none
	other    *pumpPath   // nil for none
	hosts    []*wan.Host // where the children run; nil is this machine itself
	children []*child    // all that were started
	cleanup  []func()    // in the order to be done in reverse
	report   *Report
}

// Run measures. It ends early, with everything it started stopped and removed,
// when ctx does.
func Run(ctx context.Context, opt Options) (_ *Report, err error) {
	if err := opt.Check(); err != nil {
		return nil, err
	}
	// A blocked goroutine keeps its place until the runtime takes it away, so
	// there must be places enough.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(32, runtime.NumCPU(), 4*opt.Streams)))
	b := &bench{opt: opt, report: &Report{Version: 1, Started: time.Now(), Machine: benchreport.ThisMachine(), Own: len(opt.Proxies) == 0, Pump: opt.Pump}}
	defer func() {
		b.clean()
		if ctx.Err() != nil {
			err = ctx.Err() // not what it broke
		}
	}()
	if b.dir, err = os.MkdirTemp("", "tlbench"); err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, func() { os.RemoveAll(b.dir) })
	var stop func() bool
	b.socks, stop = newSockets(ctx)
	b.cleanup = append(b.cleanup, func() { stop() })

	ends := opt.Proxies
	if len(ends) == 0 {
		b.say("starting two proxies")
		if ends, _, err = b.startProxies(ctx, "proxy", proxyWord); err != nil {
			return nil, err
		}
	}
	if b.proxies, err = newProxyPath(b.socks, ends, opt.Dialect); err != nil {
		return nil, err
	}
	if opt.Pump != "" {
		b.say("starting the byte pump")
		if b.pump, err = b.startPump(ctx, opt.Pump, PathPump); err != nil {
			return nil, err
		}
		if opt.OtherPump {
			other := map[string]string{PumpSplice: PumpCopy, PumpCopy: PumpSplice}[opt.Pump]
			if b.other, err = b.startPump(ctx, other, PathOther); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range b.paths() {
		if err := firstConnection(ctx, p); err != nil {
			return nil, b.explain(fmt.Errorf("no connection through the %s: %w", p.name(), err))
		}
	}
	if err := b.measure(ctx); err != nil {
		return nil, err
	}
	b.report.Seconds = time.Since(b.report.Started).Seconds()
	return b.report, nil
}

// firstTime is for how long a first connection is tried again.
const firstTime = 5 * time.Second

// firstConnection waits until p carries a connection. Proxies that are to find
// out their cluster's header dialect do so from the first backends, and connect
// with each other only then.
func firstConnection(ctx context.Context, p path) error {
	u := newSetup(p, newPattern(minPacket))
	for began := time.Now(); ; {
		err := u.once()
		if err == nil || time.Since(began) >= firstTime {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// clean ends and removes what was started.
func (b *bench) clean() {
	for _, f := range slices.Backward(b.cleanup) {
		f()
	}
}

// paths are the ways to compare.
func (b *bench) paths() []path {
	if b.pump == nil {
		return []path{b.proxies}
	}
	return []path{b.proxies, b.pump}
}

func (b *bench) say(format string, args ...any) {
	if b.opt.Progress != nil {
		b.opt.Progress(fmt.Sprintf(format, args...))
	}
}

// rounds measures each path in turn, rounds times, and adds the result.
func (b *bench) rounds(ctx context.Context, res Result, paths []path, rounds int, round func(path) (Figures, error)) error {
	for _, p := range paths {
		res.Paths = append(res.Paths, PathResult{Path: p.name()})
	}
	for i := range rounds {
		for j, p := range paths {
			b.say("%s %s, round %d of %d, %s", res.Mode, res.Label, i+1, rounds, p.name())
			f, err := round(p)
			if err != nil {
				return fmt.Errorf("%s %s, %s: %w", res.Mode, res.Label, p.name(), err)
			}
			res.Paths[j].Rounds = append(res.Paths[j].Rounds, f)
		}
	}
	b.add(res)
	return ctx.Err()
}

func (b *bench) add(res Result) {
	res.summarize()
	b.report.Results = append(b.report.Results, res)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// ownCPU is the processor time this process has used.
func ownCPU() (time.Duration, error) { return cpuTime(os.Getpid()) }
