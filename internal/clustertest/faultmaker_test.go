package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/topology"
)

// faultMaker disturbs a wideCluster at random. make is one goroutine's.
type faultMaker struct {
	w      *wideCluster
	rng    *rand.Rand
	list   []topology.Instance
	wg     sync.WaitGroup
	mu     sync.Mutex
	counts map[string]int
	note   string   // of the fault that is being made
	recent []string // the last faults, with their time
	errs   []error
}

func newFaultMaker(t *testing.T, w *wideCluster, seed uint64) *faultMaker {
	return &faultMaker{w: w, rng: rand.New(rand.NewPCG(seed, 1)), list: w.Instances(t), counts: map[string]int{}}
}

// faults are what may happen, by weight.
var faults = []struct {
	name   string
	weight int
	do     func(f *faultMaker) error
}{
	{"link changed", 40, (*faultMaker).changeLink},
	{"network calm", 12, (*faultMaker).calm},
	{"cut", 22, (*faultMaker).cut},
	{"proxy killed", 10, (*faultMaker).killProxy},
	{"proxy frozen", 5, (*faultMaker).freezeProxy},
	{"backend terminated", 10, (*faultMaker).terminateBackend},
	{"backend killed", 2, (*faultMaker).killBackend},
}

// run makes faults until ctx ends, and then undoes what of them lasts.
func (f *faultMaker) run(ctx context.Context) {
	total := 0
	for _, k := range faults {
		total += k.weight
	}
	for ctx.Err() == nil {
		n := f.rng.IntN(total)
		for _, k := range faults {
			if n -= k.weight; n < 0 {
				f.did(k.name, k.do(f))
				break
			}
		}
		f.pause(ctx, 50, 700)
	}
	f.wg.Wait() // cuts and frozen proxies
	f.did("network calm", f.calm())
}

// clock is the form of times in what is logged.
const clock = "15:04:05.000"

// manyRecent is how many faults are told of beside a failure.
const manyRecent = 8

// lately are the last faults.
func (f *faultMaker) lately() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.recent, "; ")
}

func (f *faultMaker) did(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[name]++
	if len(f.recent) == manyRecent {
		f.recent = f.recent[1:]
	}
	f.recent = append(f.recent, time.Now().Format(clock)+" "+name+" "+f.note)
	f.note = ""
	if err != nil {
		f.errs = append(f.errs, fmt.Errorf("%s: %w", name, err))
	}
}

// pause waits for a random number of milliseconds.
func (f *faultMaker) pause(ctx context.Context, least, most int) {
	t := time.NewTimer(f.milliseconds(least, most))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (f *faultMaker) milliseconds(least, most int) time.Duration {
	return time.Duration(least+f.rng.IntN(most-least+1)) * time.Millisecond
}

func one[T any](f *faultMaker, of ...T) T { return of[f.rng.IntN(len(of))] }

// pair draws two hosts.
func (f *faultMaker) pair() (a, b int) {
	a = f.rng.IntN(f.w.net.Hosts())
	b = (a + 1 + f.rng.IntN(f.w.net.Hosts()-1)) % f.w.net.Hosts()
	return a, b
}

// changeLink gives one pair of hosts, or one direction of it, or all of them,
// another link.
func (f *faultMaker) changeLink() error {
	l := wan.Link{
		Delay:     one[time.Duration](f, 0, 0, 1, 5, 15) * time.Millisecond,
		Jitter:    one[time.Duration](f, 0, 0, 2, 10) * time.Millisecond,
		Rate:      one[int64](f, 0, 0, 0, 100e6, 20e6),
		Loss:      one(f, 0.0, 0.0, 0.001, 0.01, 0.03, 0.10),
		Duplicate: one(f, 0.0, 0.0, 0.01, 0.05),
		Reorder:   one(f, 0.0, 0.0, 0.05, 0.20),
		ReorderBy: one[time.Duration](f, 1, 5, 20) * time.Millisecond,
		Seed:      f.rng.Uint64(),
	}
	a, b := f.pair()
	switch f.rng.IntN(3) {
	case 0:
		return f.w.net.SetPath(a, b, l)
	case 1:
		return f.w.net.SetLink(a, b, l)
	}
	return f.everyLink(l)
}

func (f *faultMaker) everyLink(l wan.Link) error {
	for a := range f.w.net.Hosts() {
		for b := range a {
			if err := f.w.net.SetLink(a, b, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// calm undoes changeLink.
func (f *faultMaker) calm() error { return f.everyLink(wan.Link{}) }

// cut cuts two hosts off from each other for a while, or one direction only.
func (f *faultMaker) cut() error {
	a, b := f.pair()
	both := f.rng.IntN(3) > 0
	f.note = fmt.Sprintf("host %d from %d, both ways %v", a, b, both)
	f.w.net.SetCut(a, b, true)
	f.w.net.SetCut(b, a, both)
	f.later(f.milliseconds(20, one(f, 200, 1000, 4000)), func() { f.w.net.Mend(a, b) })
	return nil
}

// later does something after a while, and before run returns.
func (f *faultMaker) later(d time.Duration, do func()) {
	f.wg.Add(1)
	time.AfterFunc(d, func() {
		defer f.wg.Done()
		do()
	})
}

// status asks a random instance, the coordinator among them if it may be, for
// its processes.
func (f *faultMaker) status(coordinator bool) (instance.Status, error) {
	for {
		i := f.list[f.rng.IntN(len(f.list))]
		if i.Content >= 0 || coordinator {
			return instance.ReadStatus(context.Background(), datadir.Dir(i.Datadir))
		}
	}
}

// signal sends a signal to a process that may have ended.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%v to process %d: %w", sig, pid, err)
	}
	return nil
}

func (f *faultMaker) killProxy() error {
	st, err := f.status(true)
	if err != nil || st.Proxy.Pid <= 0 {
		return err // it is being started again
	}
	f.note = "of dbid " + strconv.Itoa(int(st.Dbid))
	return signal(st.Proxy.Pid, syscall.SIGKILL)
}

func (f *faultMaker) freezeProxy() error {
	st, err := f.status(true)
	if err != nil || st.Proxy.Pid <= 0 {
		return err
	}
	f.note = "of dbid " + strconv.Itoa(int(st.Dbid))
	f.later(f.milliseconds(50, 1500), func() { _ = signal(st.Proxy.Pid, syscall.SIGCONT) })
	return signal(st.Proxy.Pid, syscall.SIGSTOP)
}

// terminateBackend ends the PostgreSQL process of an executor as
// pg_terminate_backend does.
func (f *faultMaker) terminateBackend() error { return f.signalBackend(syscall.SIGTERM) }

// killBackend makes that segment's server restart, and with it all executors
// of it fail.
func (f *faultMaker) killBackend() error { return f.signalBackend(syscall.SIGKILL) }

func (f *faultMaker) signalBackend(sig syscall.Signal) error {
	st, err := f.status(false)
	if err != nil || st.Postgres.Pid <= 0 {
		return err
	}
	pids := backends(st.Postgres.Pid)
	if len(pids) == 0 {
		return nil
	}
	pid := one(f, pids...)
	f.note = fmt.Sprintf("%d of dbid %d", pid, st.Dbid)
	return signal(pid, sig)
}

// backends are the processes of a server that have clients.
func backends(postmaster int) (pids []int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", postmaster))
	if err != nil {
		return nil
	}
	for _, s := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", s, "cmdline"))
		if err == nil && strings.Contains(string(line), "[local]") {
			pids = append(pids, pid)
		}
	}
	return pids
}
