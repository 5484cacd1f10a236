package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
)

const (
	// defaultStartTimeout leaves room for crash recovery.
	defaultStartTimeout = 5 * time.Minute
	// defaultStopTimeout is how long a fast stop of the PostgreSQL server may
	// take: it writes a checkpoint and hands the rest of the WAL to the standby.
	defaultStopTimeout = 60 * time.Second
	// serverStopTimeout is how long the network servers may take to end.
	serverStopTimeout = 10 * time.Second
	// reloadTimeout is how long a reload waits until new connections to the
	// PostgreSQL server see it.
	reloadTimeout = 3 * time.Second
	// lockCheckInterval is how often the instance looks whether its data
	// directory is still there.
	lockCheckInterval = 2 * time.Second
)

// Options say how an instance is run. The zero value is good.
type Options struct {
	// Servers makes the network servers, once the PostgreSQL server accepts
	// connections. Without it the instance's port is not bound.
	Servers func(Info) ([]Server, error)
	// Binary is the program started as `Binary proxy -D DATADIR`, and for a
	// dead neighbour as `Binary instance -D DATADIR`. Default: this program.
	Binary string
	// Log takes the instance's own messages. Default: text on standard error.
	Log *slog.Logger
	// Ready is called once, when the instance serves.
	Ready func()

	// OnlyIfWanted has Run return [ErrUnwanted] when the run file is gone.
	OnlyIfWanted bool

	StartTimeout time.Duration // of the PostgreSQL server; default 5 min
	StopTimeout  time.Duration // of a fast stop of it; default 60 s
}

// Run runs the instance with the data directory until ctx is done (a fast
// stop) or a signal ends it, and returns nil then. The error matches
// [ErrRunning] when another process runs it already, and otherwise says why
// the instance could not start or go on. It handles this process's SIGHUP,
// SIGTERM, SIGINT and SIGQUIT while it runs.
func Run(ctx context.Context, dir datadir.Dir, opts Options) error {
	// Before the lock file tells our pid to those who send signals.
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(sigs)

	if os.Geteuid() == 0 {
		return errors.New("an instance does not run as root, because PostgreSQL does not: " +
			"use `trunkline cluster start`, which starts it as the owner of its data directory")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if opts.Binary == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		opts.Binary = exe
	}
	if opts.StartTimeout == 0 {
		opts.StartTimeout = defaultStartTimeout
	}
	if opts.StopTimeout == 0 {
		opts.StopTimeout = defaultStopTimeout
	}
	if fi, err := os.Stat(string(dir)); err != nil {
		return err
	} else if !fi.IsDir() {
		return fmt.Errorf("%s is not a data directory", dir)
	}
	lk, err := acquire(dir)
	if err != nil {
		return err
	}
	defer lk.release()
	// Asked with the lock held: whoever stops the cluster removes the run
	// file first and then looks who holds the lock.
	if opts.OnlyIfWanted && !Wanted(dir) {
		return fmt.Errorf("%s: %w", dir, ErrUnwanted)
	}
	r := &runner{dir: dir, opts: opts, lock: lk, log: opts.Log, sigs: sigs}
	return r.run(ctx)
}

// runner is one run of an instance.
type runner struct {
	dir   datadir.Dir
	opts  Options
	lock  *lock
	log   *slog.Logger
	sigs  <-chan os.Signal
	facts *facts

	board   board
	gate    *gate // nil without servers
	servers []Server
	pg      *postgres
	proxy   *proxyKeeper // nil in recovery

	pgReady   chan struct{} // closed at the first time
	readyOnce sync.Once
	immediate chan struct{} // closed: end without waiting
	immOnce   sync.Once
	reloads   chan struct{} // capacity 1: a reload is wanted
	syncs     chan struct{} // capacity 1: syncWant changed

	confMu sync.Mutex // guards what follows; held while files are written
	sync   string     // synchronous_standby_names written last
	conf   *userConf  // read last

	wantMu   sync.Mutex
	syncWant string
}

func (r *runner) run(ctx context.Context) (err error) {
	if r.facts, err = readFacts(r.dir); err != nil {
		return err
	}
	f := r.facts
	r.log = r.log.With("dbid", f.self.Dbid)
	r.pgReady, r.immediate = make(chan struct{}), make(chan struct{})
	r.reloads, r.syncs = make(chan struct{}, 1), make(chan struct{}, 1)
	r.board.st = Status{
		Dbid: f.self.Dbid, Content: f.self.Content, Pid: os.Getpid(), State: Starting, Standby: f.standby,
		Postgres: ChildStatus{State: Down}, Proxy: ChildStatus{State: Down},
	}
	if r.opts.Servers != nil {
		if r.gate, err = listenGate(ctx, r.listenHosts(), f.self.Port); err != nil {
			return err
		}
		defer func() {
			_ = r.gate.Close()
			r.gate.wait()
		}()
	}
	if err := r.board.listen(r.dir); err != nil {
		return err
	}
	defer r.board.close()
	bindir, err := clusterPostgres(f.clusterDir)
	if err != nil {
		return err
	}
	sp := newSpawner()
	defer sp.close()
	env := serverEnv(f, bindir)
	r.pg = &postgres{
		dir: r.dir, port: f.self.Port, bindir: bindir, env: env,
		args: serverArgs(r.dir, f.self.Port), prepare: r.prepare, onState: r.pgState,
		spawn: sp, log: r.log, startTimeout: r.opts.StartTimeout,
		stopTimeout: r.opts.StopTimeout, immediate: r.immediate,
	}
	processors := shareProcessors(len(f.all))
	if !f.standby {
		proxyEnv := env
		if processors != "" {
			proxyEnv = set(slices.Clone(env), processorsVar, processors)
		}
		r.proxy = &proxyKeeper{
			dir: r.dir, binary: r.opts.Binary, env: proxyEnv, spawn: sp, log: r.log,
			onState: func(pid int, s State) {
				r.board.update(func(st *Status) { st.Proxy.set(pid, s) })
			},
		}
	}
	return r.supervise(ctx)
}

// listenHosts is listen_addresses of the user's file, or else the instance's
// address.
func (r *runner) listenHosts() []string {
	conf, err := guc.ReadConf(r.dir.Conf())
	if err == nil {
		if v, ok := conf.Get("listen_addresses"); ok {
			var hosts []string
			for h := range strings.SplitSeq(v, ",") {
				if h = strings.TrimSpace(h); h != "" {
					hosts = append(hosts, h)
				}
			}
			// The others of the cluster and env.sh know the instance by its
			// address, so that is always among them.
			return append(hosts, r.facts.self.Address)
		}
	}
	return []string{r.facts.self.Address}
}

func (r *runner) pgState(pid int, s State) {
	r.board.update(func(st *Status) { st.Postgres.set(pid, s) })
	if s != Ready {
		return
	}
	r.readyOnce.Do(func() { close(r.pgReady) })
	// The proxy's socket carries the postmaster's pid in its name.
	if r.proxy != nil {
		r.proxy.reload()
	}
}

// set records a change of state; a start after an end is a restart.
func (c *ChildStatus) set(pid int, s State) {
	if pid != 0 && c.Pid != pid {
		if c.started {
			c.Restarts++
		}
		c.started = true
	}
	if pid != 0 || s == Down {
		c.Pid = pid
	}
	c.State = s
}

// supervise starts everything, waits for the end and stops everything.
func (r *runner) supervise(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()

	// What is stopped first has a context of its own: servers, then helpers
	// and proxy, then the PostgreSQL server.
	srvCtx, stopServers := context.WithCancel(context.Background())
	auxCtx, stopAux := context.WithCancel(context.Background())
	pgCtx, stopPG := context.WithCancel(context.Background())
	defer stopPG()
	defer stopAux()
	defer stopServers()

	pgEnd := make(chan error, 1)
	go func() { pgEnd <- r.pg.keep(pgCtx) }()

	failed := make(chan error, 1) // why the instance cannot go on
	var servers, aux sync.WaitGroup
	defer aux.Wait()
	tick := time.NewTicker(lockCheckInterval)
	defer tick.Stop()

	var cause error
	pgReady := r.pgReady
	drained := make(chan struct{})
	draining := false
loop:
	for {
		select {
		case <-pgReady:
			pgReady = nil
			if cause = r.serve(srvCtx, &servers, failed); cause != nil {
				break loop
			}
			r.startAux(auxCtx, &aux)
			r.board.update(func(st *Status) { st.State = Ready })
			r.log.Info("instance is ready", "port", r.facts.self.Port, "content", r.facts.self.Content)
			if r.opts.Ready != nil {
				r.opts.Ready()
			}
		case cause = <-pgEnd: // never got ready
			pgEnd <- nil
			break loop
		case cause = <-failed:
			break loop
		case <-ctx.Done():
			break loop
		case <-drained:
			break loop
		case <-tick.C:
			if r.lock.lost(r.dir) {
				r.log.Error("data directory was removed; ending")
				r.endNow()
				break loop
			}
		case sig := <-r.sigs:
			r.log.Info("signal", "signal", sig.String())
			switch sig {
			case syscall.SIGHUP:
				wish(r.reloads)
			case syscall.SIGTERM:
				if !draining {
					draining = true
					wg.Go(func() {
						r.drain(srvCtx)
						close(drained)
					})
				}
			case syscall.SIGQUIT:
				r.endNow()
				break loop
			default:
				break loop
			}
		}
	}
	r.board.update(func(st *Status) { st.State = Stopping })
	over := make(chan struct{})
	wg.Go(func() { r.escalate(over) })
	stopServers()
	r.waitServers(&servers)
	stopAux()
	aux.Wait()
	stopPG()
	<-pgEnd
	close(over)
	r.log.Info("instance has ended")
	return cause
}

// wish leaves a note in a channel of capacity 1; two notes are one.
func wish(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *runner) endNow() { r.immOnce.Do(func() { close(r.immediate) }) }

// escalate makes a stop that is under way immediate when SIGQUIT comes.
func (r *runner) escalate(over <-chan struct{}) {
	for {
		select {
		case sig := <-r.sigs:
			if sig == syscall.SIGQUIT {
				r.endNow()
			}
		case <-over:
			return
		}
	}
}

// serve makes and starts the network servers.
func (r *runner) serve(ctx context.Context, wg *sync.WaitGroup, failed chan<- error) error {
	if r.opts.Servers == nil {
		return nil
	}
	f := r.facts
	servers, err := r.opts.Servers(Info{
		Dir: r.dir, ClusterDir: f.clusterDir, Dbid: f.self.Dbid, Content: f.self.Content, Port: f.self.Port,
		Address: f.self.Address, Standby: f.standby, Listener: r.gate, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.confMu.Lock()
	r.servers = servers
	r.confMu.Unlock()
	r.board.mu.Lock()
	r.board.sessions = func() (n int) {
		for _, s := range servers {
			if c, ok := s.(SessionCounter); ok {
				n += c.Sessions()
			}
		}
		return n
	}
	r.board.mu.Unlock()
	for _, s := range servers {
		wg.Go(func() {
			err := s.Serve(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = errNoWords
			}
			select {
			case failed <- fmt.Errorf("a server of dbid %d ended: %w", f.self.Dbid, err):
			default:
			}
		})
	}
	r.gate.open()
	return nil
}

// startAux starts what works beside the servers.
func (r *runner) startAux(ctx context.Context, wg *sync.WaitGroup) {
	f := r.facts
	if r.proxy != nil {
		wg.Go(func() { r.proxy.keep(ctx) })
	}
	wg.Go(func() { r.configure(ctx) })
	wg.Go(func() {
		(&ring{dir: r.dir, clusterDir: f.clusterDir, dbid: f.self.Dbid, binary: r.opts.Binary, log: r.log}).run(ctx)
	})
	if f.self.IsCoordinator() && f.hasStandby() && !f.standby {
		w := standbyWatch{dir: r.dir, port: f.self.Port, want: r.setSync, log: r.log}
		wg.Go(func() { w.run(ctx) })
	}
}

// drain is the smart stop: it waits until the clients have left.
func (r *runner) drain(ctx context.Context) {
	r.confMu.Lock()
	servers := r.servers
	r.confMu.Unlock()
	var wg sync.WaitGroup
	for _, s := range servers {
		if d, ok := s.(Drainer); ok {
			wg.Go(func() { _ = d.Drain(ctx) })
		}
	}
	wg.Wait()
}

// waitServers waits for the servers to end, but not for ever: what hangs in
// one must not keep the PostgreSQL server from a clean stop.
func (r *runner) waitServers(servers *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		servers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-r.immediate:
	case <-time.After(serverStopTimeout):
		r.log.Error("a server does not end", "after", serverStopTimeout)
	}
}
