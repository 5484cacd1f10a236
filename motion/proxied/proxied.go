package proxied

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// Config says where an executor's proxy is and how long to wait for what.
type Config struct {
	// Dir is the data directory of the executor's instance, whose
	// postmaster.pid names the proxy's socket. Needed unless Socket is set.
	Dir datadir.Dir
	// Socket returns the path of the proxy's socket as it is now, or why it
	// cannot be told. It is asked before each attempt to connect.
	Socket func() (string, error)
	// Cause returns why connections with the instance of that dbid fail, by
	// name, or "" when it finds nothing wrong. With lost, one that was made has
	// ended; the reason may be gone by now, and is told all the same. It must
	// return soon after ctx has ended. The proxy's status is where to look. May
	// be nil.
	Cause func(ctx context.Context, dbid uint16, lost bool) string
	// Loops, if not nil, has what goes to executors of the same instance go through
	// it and not through the proxy: all of them have the same one.
	Loops *Loops
	// Whole says that the proxy is Trunkline's and takes short streams whole, in
	// one packet. It has a meaning in the dialect Magic36 only.
	Whole bool
	// Dialect is the proxy packet header the cluster speaks.
	Dialect icwire.Dialect
	// Restart is how long to wait for a proxy that does not listen, because
	// it is being restarted; 0 is 1.5 s, negative is not at all.
	Restart time.Duration
	// SetupTimeout is gp_interconnect_setup_timeout: how long Send and Receive
	// take at most. 0 is 2 hours, negative is no limit.
	SetupTimeout time.Duration
	// TransmitTimeout is gp_interconnect_transmit_timeout: how long Close of a
	// sender waits for the proxy to take what is written. 0 is 1 hour.
	TransmitTimeout time.Duration
	// MaxPacket is gp_max_packet_size in bytes, 512 to 65507; 0 is 8192. It
	// must not be more than the proxies' own.
	MaxPacket int
}

// Interconnect is a motion.Interconnect of type proxy.
type Interconnect struct {
	cfg    Config
	opt    stream.Options // but for what Tune changes
	tuning atomic.Pointer[Tuning]
	path   atomic.Pointer[string] // of the proxy's socket, when last connected to
	group  stream.Group
	loops  loops
	lines  pool[*local.Conn] // on which streams are handed over
	ears   pool[*ear]        // on which they come
	ctx    context.Context   // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex     // of the end of ctx
	wg     sync.WaitGroup // of spawn
}

var _ motion.Interconnect = (*Interconnect)(nil)

// New makes an executor's interconnect. It connects to nothing yet.
func New(cfg Config) (motion.Interconnect, error) {
	if cfg.Socket == nil {
		if cfg.Dir == "" {
			return nil, errors.New("motion/proxied: neither the data directory nor the proxy's socket is known")
		}
		cfg.Socket = SocketOf(cfg.Dir)
	}
	if cfg.Restart == 0 {
		cfg.Restart = defaultRestart
	}
	ic := &Interconnect{cfg: cfg, loops: loops{Loops: cfg.Loops}}
	ic.opt = stream.Options{
		MaxPacket: cfg.MaxPacket,
		HandOver:  true,
		Explain:   func(ctx context.Context, p motion.Peer) string { return ic.cause(ctx, p.Dbid, true) },
	}
	if err := ic.opt.Check(); err != nil {
		return nil, err
	}
	if err := ic.Tune(Tuning{SetupTimeout: cfg.SetupTimeout, TransmitTimeout: cfg.TransmitTimeout}); err != nil {
		return nil, err
	}
	ic.ctx, ic.cancel = context.WithCancel(context.Background())
	return ic, nil
}

// Tuning is the parameters that a session may change at any time; see Config.
type Tuning struct {
	SetupTimeout    time.Duration
	TransmitTimeout time.Duration
}

// Tune sets parameters for the motions opened from now on.
func (ic *Interconnect) Tune(t Tuning) error {
	if t.SetupTimeout == 0 {
		t.SetupTimeout = stream.DefaultSetupTimeout
	}
	if err := (stream.Options{TransmitTimeout: t.TransmitTimeout}).Check(); err != nil {
		return err
	}
	ic.tuning.Store(&t)
	return nil
}

// options are those of a motion opened now.
func (ic *Interconnect) options() stream.Options {
	opt := ic.opt
	opt.TransmitTimeout = ic.tuning.Load().TransmitTimeout
	return opt
}

// SocketOf returns a function that reads from dir's postmaster.pid where the
// instance's proxy listens.
func SocketOf(dir datadir.Dir) func() (string, error) {
	return func() (string, error) {
		pm, err := dir.Postmaster()
		if err != nil {
			return "", err
		}
		return datadir.ICProxySocket(pm.Port, pm.Pid), nil
	}
}

// Type implements motion.Interconnect.
func (ic *Interconnect) Type() string { return "proxy" }

// Addr implements motion.Interconnect. Executors are reached through their
// proxies: it is empty.
func (ic *Interconnect) Addr() string { return "" }

// Send implements motion.Interconnect. It returns at once: the proxy hears of
// the sender when it has something to send, or all of it.
func (ic *Interconnect) Send(ctx context.Context, id motion.ID, self motion.Peer, receivers []motion.Peer) (motion.Sender, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return stream.NewLateSender(&ic.group, ic.options(), receivers, stream.Opening{
		Connect: func(ctx context.Context) ([]net.Conn, error) { return ic.connect(ctx, id, self, receivers, nil) },
		Deliver: func(ctx context.Context, streams [][]byte) error {
			conns, err := ic.connect(ctx, id, self, receivers, streams)
			for _, c := range conns {
				c.Close()
			}
			return err
		},
		Abandon: func() { ic.abandon(callsOf(id, self, receivers, nil)) },
	}), nil
}

// Receive implements motion.Interconnect. It returns when this instance's
// proxy has answered for every sender, whether they have come or not.
func (ic *Interconnect) Receive(ctx context.Context, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	r := stream.NewReceiver(&ic.group, ic.options(), id, senders)
	h, err := ic.hear(ctx, r, id, self, senders)
	if err == nil {
		err = h.connect(ctx)
	}
	if err == nil {
		err = h.start()
	}
	if err != nil {
		r.Abort()
		return nil, err
	}
	return r, nil
}

// spawn runs f in a goroutine that Close waits for. It is false, and f is not run,
// after Close.
func (ic *Interconnect) spawn(f func()) bool {
	ic.mu.Lock()
	defer ic.mu.Unlock()
	if ic.ctx.Err() != nil {
		return false
	}
	ic.wg.Go(f)
	return true
}

// Close implements motion.Interconnect.
func (ic *Interconnect) Close() error {
	ic.mu.Lock()
	ic.cancel()
	ic.mu.Unlock()
	ic.group.Close()
	ic.loops.close()
	ic.lines.close()
	ic.ears.close()
	ic.wg.Wait()
	return nil
}

var (
	errSetup  = errors.New("setup timeout")
	errClosed = &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error: the executor's interconnect is closed",
		Err:     net.ErrClosed,
	}
)

func callsOf(id motion.ID, self motion.Peer, peers []motion.Peer, streams [][]byte) []call {
	calls := make([]call, len(peers))
	for i, p := range peers {
		calls[i].key = icwire.Key{
			Session: id.Session, Command: id.Command, SendSlice: id.SendSlice, RecvSlice: id.RecvSlice,
			Local:  icwire.End{Content: self.Content, Dbid: self.Dbid, Pid: self.Pid},
			Remote: icwire.End{Content: p.Content, Dbid: p.Dbid, Pid: p.Pid},
		}
		if streams != nil {
			calls[i].stream = streams[i]
		}
	}
	return calls
}

// connect registers self with the proxy for each of the peers, and returns a
// connection for each. With streams, one for each, it writes those, and there are
// fewer connections if the proxy has taken some whole.
func (ic *Interconnect) connect(ctx context.Context, id motion.ID, self motion.Peer, peers []motion.Peer, streams [][]byte) ([]net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ic.ctx, func() { cancel(errClosed) })()
	limit := ic.tuning.Load().SetupTimeout
	if limit > 0 {
		defer time.AfterFunc(limit, func() { cancel(errSetup) }).Stop()
	}
	calls := callsOf(id, self, peers, streams)
	err := ic.register(ctx, calls)
	if err == nil && ctx.Err() == nil {
		conns := make([]net.Conn, 0, len(calls))
		for _, c := range calls {
			if !c.done {
				conns = append(conns, c.conn)
			}
		}
		return conns, nil
	}
	for _, c := range calls {
		if c.err == nil && c.conn != nil {
			c.conn.Close()
		}
	}
	switch cause := context.Cause(ctx); {
	case ctx.Err() == nil:
		return nil, err
	case errors.Is(cause, errSetup):
		return nil, setupTimeout(id, self, limit)
	default:
		return nil, cause
	}
}

func setupTimeout(id motion.ID, self motion.Peer, limit time.Duration) error {
	return motion.Errorf("ic-proxy: backend con%d,cmd%d,slice[%d->%d] %v: Interconnect timeout: Unable to complete setup of connection within time limit %d seconds",
		id.Session, id.Command, id.SendSlice, id.RecvSlice, self, int(limit.Seconds()))
}

// cause asks why the instance cannot be reached, or why a connection with it
// was lost.
func (ic *Interconnect) cause(ctx context.Context, dbid uint16, lost bool) string {
	if ic.cfg.Cause == nil {
		return ""
	}
	if !lost { // the other way it has a limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, causeLimit)
		defer cancel()
	}
	return ic.cfg.Cause(ctx, dbid, lost)
}

// interconnectError puts what is wrong into the words of SQL.
func interconnectError(what string, err error) *motion.Error {
	return &motion.Error{Code: motion.CodeInterconnect, Message: fmt.Sprintf("interconnect error: %s", what), Err: err}
}
