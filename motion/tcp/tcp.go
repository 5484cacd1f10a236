package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// Config says how an executor's interconnect works. The zero value is an
// executor on 127.0.0.1 with Greenplum's defaults.
type Config struct {
	// ListenHost is the address to listen on, at a port of the kernel's
	// choice; "" is 127.0.0.1.
	ListenHost string
	// AdvertiseHost is the host in Addr; "" is ListenHost. It must be set when
	// ListenHost is a wildcard.
	AdvertiseHost string
	// Backlog is gp_interconnect_tcp_listener_backlog; 0 is 128, negative 0.
	Backlog int
	// SetupTimeout is gp_interconnect_setup_timeout: how long Send and the
	// receivers of Receive wait for connections, and how long a connection is
	// kept that comes before Receive. 0 is 2 hours, negative is no limit.
	SetupTimeout time.Duration
	// TransmitTimeout is gp_interconnect_transmit_timeout: how long Close of a
	// sender waits for its receivers. 0 is 1 hour.
	TransmitTimeout time.Duration
	// SlowRetry is gp_enable_interconnect_aggressive_retry = off: a connection
	// that takes long, because the listener's backlog is full for example, is
	// left to the kernel's own schedule.
	SlowRetry bool
	// MaxPacket is gp_max_packet_size in bytes, 512 to 65507; 0 is 8192.
	MaxPacket int
	// Warn is told of a motion with more senders than Backlog; the error's
	// Code is 01000. It may be nil.
	Warn func(*motion.Error)
	// Log is told of each connection that is tried again, of whoever connects
	// without registering, and when none can be accepted. It is called on any
	// goroutine and must not call the interconnect. It may be nil.
	Log func(message string)
}

// Interconnect is a motion.Interconnect of type tcp.
type Interconnect struct {
	cfg      Config
	opt      stream.Options // but for what Tune changes
	tuning   atomic.Pointer[Tuning]
	group    stream.Group
	registry registry
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ln     *net.TCPListener // nil until somebody asks for Addr or receives
	port   int
}

var _ motion.Interconnect = (*Interconnect)(nil)

// New makes an executor's interconnect. It opens no port before the first Addr
// or Receive.
func New(cfg Config) (motion.Interconnect, error) {
	if cfg.ListenHost == "" {
		cfg.ListenHost = defaultHost
	}
	if cfg.AdvertiseHost == "" {
		cfg.AdvertiseHost = cfg.ListenHost
		if ip := net.ParseIP(cfg.ListenHost); ip != nil && ip.IsUnspecified() {
			return nil, fmt.Errorf("motion/tcp: listening on %s needs an AdvertiseHost for the senders", cfg.ListenHost)
		}
	}
	ic := &Interconnect{cfg: cfg, opt: stream.Options{MaxPacket: cfg.MaxPacket}}
	if err := ic.opt.Check(); err != nil {
		return nil, err
	}
	t := Tuning{SetupTimeout: cfg.SetupTimeout, TransmitTimeout: cfg.TransmitTimeout, Backlog: cfg.Backlog, SlowRetry: cfg.SlowRetry}
	if err := t.check(); err != nil {
		return nil, err
	}
	ic.tuning.Store(&t)
	ic.ctx, ic.cancel = context.WithCancel(context.Background())
	ic.registry.init(t.SetupTimeout)
	return ic, nil
}

// Type implements motion.Interconnect.
func (ic *Interconnect) Type() string { return "tcp" }

// Addr implements motion.Interconnect. It opens the listener when there is
// none; when that fails it returns "", and Receive tries again and says why.
func (ic *Interconnect) Addr() string {
	port, err := ic.listen()
	if err != nil {
		return ""
	}
	return net.JoinHostPort(ic.cfg.AdvertiseHost, fmt.Sprint(port))
}

// Send implements motion.Interconnect.
func (ic *Interconnect) Send(ctx context.Context, id motion.ID, self motion.Peer, receivers []motion.Peer) (motion.Sender, error) {
	tuning := ic.tuning.Load()
	limit := tuning.SetupTimeout
	ctx, cancel := ic.setup(ctx, limit)
	defer cancel()
	ic.mu.Lock()
	port := ic.port
	ic.mu.Unlock()
	msg := icwire.Registration{
		RecvSlice: int32(id.RecvSlice), SendSlice: int32(id.SendSlice),
		SrcContent: int32(self.Content), SrcPort: int32(port), SrcPid: self.Pid,
		Session: id.Session, Command: id.Command,
	}.Append(nil)

	conns := make([]net.Conn, len(receivers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(dialling)
	for i, peer := range receivers {
		g.Go(func() (err error) {
			conns[i], err = ic.dial(gctx, peer, msg, tuning.SlowRetry)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		for _, c := range conns {
			if c != nil {
				stream.Reset(c)
			}
		}
		if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
			<-ctx.Done() // the dialler has looked at the clock first
		}
		switch {
		case ctx.Err() == nil:
			return nil, err
		case errors.Is(context.Cause(ctx), errSetup):
			var absent []motion.Peer
			for i, c := range conns {
				if c == nil {
					absent = append(absent, receivers[i])
				}
			}
			return nil, setupTimeout(limit, 0, len(receivers), absent)
		}
		return nil, context.Cause(ctx)
	}
	return stream.NewSender(&ic.group, ic.options(), receivers, conns), nil
}

var (
	errSetup  = errors.New("setup timeout")
	errClosed = motion.Errorf("interconnect error: the executor's interconnect is closed: %w", net.ErrClosed)
)

// setup bounds ctx by limit, unless it is negative, and by Close.
func (ic *Interconnect) setup(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stops := []func() bool{context.AfterFunc(ic.ctx, func() { cancel(errClosed) })}
	if limit > 0 {
		stops = append(stops, time.AfterFunc(limit, func() { cancel(errSetup) }).Stop)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

func (ic *Interconnect) logf(format string, args ...any) {
	if ic.cfg.Log != nil {
		ic.cfg.Log(fmt.Sprintf(format, args...))
	}
}

// setupTimeout is for connections, of so many incoming or outgoing ones, that
// were not made within the limit. Greenplum does not say which.
func setupTimeout(limit time.Duration, ofIn, ofOut int, absent []motion.Peer) *motion.Error {
	in, out, prep := ofIn, ofOut, "to"
	if ofIn > 0 {
		in, prep = ofIn-len(absent), "from"
	} else {
		out = ofOut - len(absent)
	}
	e := &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "Interconnect timeout: Unable to complete setup of all connections within time limit.",
		Detail: fmt.Sprintf("Completed %d of %d incoming and %d of %d outgoing connections.  gp_interconnect_setup_timeout = %d seconds.",
			in, ofIn, out, ofOut, int(limit.Seconds())),
	}
	for i, p := range absent {
		sep := ","
		if i == 0 {
			sep = "  No connection " + prep
		}
		if i == mostNamed {
			e.Detail += fmt.Sprintf(" and %d more", len(absent)-i)
			break
		}
		e.Detail += fmt.Sprintf("%s seg%d %s", sep, p.Content, stream.At(p))
	}
	if len(absent) > 0 {
		e.Detail += "."
	}
	return e
}

// dial connects to a receiver and registers.
func (ic *Interconnect) dial(ctx context.Context, peer motion.Peer, msg []byte, slow bool) (net.Conn, error) {
	if peer.Addr == "" {
		return nil, motion.Errorf("interconnect could not connect to seg%d: it has no listener (%v)", peer.Content, peer)
	}
	c, err := ic.connect(ctx, peer, slow)
	if err != nil {
		return nil, connectError(peer, err)
	}
	// The message fits into any socket buffer: this does not block.
	if _, err := c.Write(msg); err != nil {
		stream.Reset(c)
		return nil, motion.Errorf("interconnect error writing registration message to seg%d at %s: %w", peer.Content, peer.Addr, bare(err))
	}
	return c, nil
}

// connect connects to a receiver. Time alone, up to the end of ctx, is no
// reason to give up.
func (ic *Interconnect) connect(ctx context.Context, peer motion.Peer, slow bool) (net.Conn, error) {
	limit := retryFirst
	for try := 1; ; try++ {
		var d net.Dialer
		if !slow {
			d.Timeout = limit
		}
		start := time.Now()
		c, err := d.DialContext(ctx, "tcp", peer.Addr)
		var ne net.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &ne) || !ne.Timeout() {
			return c, err
		}
		if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
			return c, err // the dialler has looked at the clock before ctx
		}
		ic.logf("Interconnect timeout: Connection to seg%d %s was not complete after %dms.  Will retry.",
			peer.Content, peer.Addr, time.Since(start).Milliseconds())
		if try >= retryFast {
			limit = min(2*limit, retryLast)
		}
	}
}

// connectError says why there is no connection with a receiver.
func connectError(peer motion.Peer, err error) *motion.Error {
	var (
		lookup *net.DNSError
		parse  *net.AddrError
		call   *os.SyscallError
	)
	switch {
	case errors.As(err, &lookup), errors.As(err, &parse):
		host, port, serr := net.SplitHostPort(peer.Addr)
		if serr != nil {
			host = peer.Addr
		}
		e := motion.Errorf("could not translate host addr %q, port %q to address: %w", host, port, bare(err))
		e.Code = "XX000"
		return e
	case errors.As(err, &call) && call.Syscall == "socket":
		return &motion.Error{Code: motion.CodeInterconnect, Message: "interconnect error setting up outgoing connection",
			Detail: call.Error(), Err: err}
	}
	return motion.Errorf("interconnect could not connect to seg%d %s: %w", peer.Content, peer.Addr, bare(err))
}

// bare is err without the addresses, which the message has already.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Receive implements motion.Interconnect. It returns at once; senders that do
// not connect within the setup timeout fail the receiver.
func (ic *Interconnect) Receive(ctx context.Context, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := ic.listen(); err != nil {
		return nil, err
	}
	ic.warnBacklog(len(senders))
	r := stream.NewReceiver(&ic.group, ic.options(), id, senders)
	w, err := ic.registry.expect(id, r, senders)
	if err != nil {
		r.Abort()
		return nil, err
	}
	ic.mu.Lock()
	if ic.closed {
		ic.mu.Unlock()
		ic.registry.forget(w)
		return nil, errClosed // the group has aborted r
	}
	ic.wg.Add(1)
	ic.mu.Unlock()
	go ic.attend(w, ic.tuning.Load().SetupTimeout)
	return r, nil
}

// attend waits until all senders of a motion have connected, not longer than
// limit unless it is negative.
func (ic *Interconnect) attend(w *awaited, limit time.Duration) {
	defer ic.wg.Done()
	var late <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-w.complete:
		return
	case <-w.r.Done():
	case <-late:
		w.r.Fail(setupTimeout(limit, len(w.keys), 0, ic.registry.absent(w)))
	}
	ic.registry.forget(w)
}

// Close implements motion.Interconnect.
func (ic *Interconnect) Close() error {
	ic.mu.Lock()
	ic.closed = true
	if ic.ln != nil {
		ic.ln.Close()
	}
	ic.mu.Unlock()
	ic.cancel()
	ic.group.Close()
	ic.wg.Wait()
	ic.registry.close()
	return nil
}
