package execute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
	"github.com/trunkline-db/trunkline/motion/tcp"
	"github.com/trunkline-db/trunkline/motion/udpifc"
	"github.com/trunkline-db/trunkline/proxy"
)

// Interconnects makes the built-in interconnects of one instance, for QEs and
// for the QD alike.
type Interconnects struct {
	// Dir is the instance's data directory.
	Dir datadir.Dir
	// Content is the instance's content id, -1 of the coordinator.
	Content int16
	// Address is the host by which executors of the types udpifc and tcp are
	// reached. When empty it is the parameter gp_interconnect_address, which
	// the dispatcher sends, or else 127.0.0.1.
	Address string
	// Cause says why the instance of that dbid cannot be reached through the
	// proxy; see proxied.Config. Nil asks the status of the instance's proxy.
	Cause func(ctx context.Context, dbid uint16, lost bool) string
	// Loops connects the instance's executors with each other in type proxy, where
	// they are in one process. Nil: through the proxy, as any others.
	Loops *proxied.Loops
	// Log takes what gp_log_interconnect and gp_interconnect_log_stats ask
	// for. It may be nil.
	Log *slog.Logger
}

// Interconnect is one executor's motions with the session's parameters. Its
// methods may be called concurrently.
type Interconnect struct {
	motion.Interconnect
	log  *slog.Logger
	warn atomic.Pointer[func(*motion.Error)]

	mu     sync.Mutex // of params
	from   Interconnects
	params map[string]string // as given
	now    atomic.Pointer[settings]

	statMu  sync.Mutex
	counted udpifc.Stats // what statistics have been written of
}

// New makes one executor's interconnect of the type, which is an
// *Interconnect. params may hold the session's values of the parameters in
// guc.Motions; absent ones have their defaults. Errors are *motion.Error.
func (i Interconnects) New(typ string, params map[string]string) (motion.Interconnect, error) {
	if i.Log == nil {
		i.Log = slog.New(slog.DiscardHandler)
	}
	s, err := i.read(params)
	if err != nil {
		return nil, err
	}
	ic := &Interconnect{log: i.Log, from: i, params: maps.Clone(params)}
	ic.now.Store(s)
	listen, advertise := i.hosts(params)
	switch typ {
	case "udpifc":
		ic.Interconnect, err = udpifc.New(udpifc.Config{ListenHost: listen, AdvertiseHost: advertise,
			MaxPacket: s.packet, BufferKB: s.bufferKB, Tuning: s.udp,
			Warn: ic.warning, Log: ic.retried, Refused: ic.refused})
	case "tcp":
		ic.Interconnect, err = tcp.New(tcp.Config{ListenHost: listen, AdvertiseHost: advertise,
			SetupTimeout: s.setup, TransmitTimeout: s.transmit, MaxPacket: s.packet,
			Backlog: s.backlog, SlowRetry: s.slowRetry, Warn: ic.warning, Log: ic.connecting})
	case "proxy":
		ic.Interconnect, err = proxied.New(proxied.Config{Dir: i.Dir, Cause: i.cause(), Loops: i.Loops, Whole: true,
			SetupTimeout: s.setup, TransmitTimeout: s.transmit, MaxPacket: s.packet})
	default:
		return nil, &motion.Error{
			Code:    guc.CodeInvalidValue,
			Message: fmt.Sprintf("there is no interconnect type %q", typ),
			Hint:    "Available types: udpifc, tcp, proxy.",
		}
	}
	if err != nil {
		return nil, motion.Errorf("interconnect type %s cannot be set up: %w", typ, err)
	}
	return ic, nil
}

// hosts are where motions listen, and what senders are told.
func (i Interconnects) hosts(params map[string]string) (listen, advertise string) {
	host := i.Address
	if host == "" {
		host = params["gp_interconnect_address"]
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if params[guc.AddressType] == "wildcard" {
		return "0.0.0.0", host // Go takes it for every address, IPv6 too
	}
	return host, host
}

// cause is i.Cause or its default.
func (i Interconnects) cause() func(context.Context, uint16, bool) string {
	if i.Cause != nil {
		return i.Cause
	}
	return func(ctx context.Context, dbid uint16, lost bool) string {
		s, err := proxy.ReadStatus(ctx, i.Dir.ProxySocket())
		if err != nil {
			switch {
			case lost && errors.Is(err, proxy.ErrStopped):
				return err.Error()
			case lost && ctx.Err() != nil:
				return "the proxy of the instance, which knows why, does not answer"
			}
			return "" // it has died and is being started again
		}
		return s.Explain(dbid, lost)
	}
}

// Tune sets parameters for the motions opened from now on; those it does not
// name stay as they are, and those that are fixed at connection start are left
// alone. Errors are *motion.Error; nothing has changed then.
func (ic *Interconnect) Tune(params map[string]string) error {
	ic.mu.Lock()
	defer ic.mu.Unlock()
	all := maps.Clone(ic.params)
	if all == nil {
		all = map[string]string{}
	}
	for name, value := range params {
		if p, ok := guc.Lookup(name); ok && p.Context > guc.Backend {
			all[name] = value
		}
	}
	s, err := ic.from.read(all)
	if err != nil {
		return err
	}
	switch t := ic.Interconnect.(type) {
	case *udpifc.Interconnect:
		err = t.Tune(s.udp)
	case *tcp.Interconnect:
		err = t.Tune(tcp.Tuning{SetupTimeout: s.setup, TransmitTimeout: s.transmit, Backlog: s.backlog, SlowRetry: s.slowRetry})
	case *proxied.Interconnect:
		err = t.Tune(proxied.Tuning{SetupTimeout: s.setup, TransmitTimeout: s.transmit})
	}
	if err != nil {
		return motion.Errorf("the interconnect's parameters cannot be changed: %w", err)
	}
	ic.params = all
	ic.now.Store(s)
	return nil
}

// OnWarning sets who is told of warnings for the client, Code 01000. He is
// called on any goroutine, must return soon and must not call the interconnect.
func (ic *Interconnect) OnWarning(f func(*motion.Error)) { ic.warn.Store(&f) }

func (ic *Interconnect) warning(e *motion.Error) {
	if ic.now.Load().level >= logTerse {
		ic.log.Warn("interconnect: "+e.Message, "detail", e.Detail)
	}
	if f := ic.warn.Load(); f != nil {
		(*f)(e)
	}
}

func (ic *Interconnect) retried(message string) {
	if ic.now.Load().level >= logDebug {
		ic.log.Info("interconnect: " + message)
	}
}

func (ic *Interconnect) refused(to netip.AddrPort, err error) {
	if ic.now.Load().level >= logTerse {
		ic.log.Warn("interconnect: a packet was not let out, by a firewall's rule probably", "to", to.String(), "err", err)
	}
}

// connecting takes what Greenplum logs in any case, but not when nothing is to
// be logged.
func (ic *Interconnect) connecting(message string) {
	if ic.now.Load().level >= logTerse {
		ic.log.Info("interconnect: " + message)
	}
}

// Send implements motion.Interconnect.
func (ic *Interconnect) Send(ctx context.Context, id motion.ID, self motion.Peer, receivers []motion.Peer) (motion.Sender, error) {
	ic.opening("interconnect: sending", "to", id, self, receivers)
	return ic.Interconnect.Send(ctx, id, self, receivers)
}

// Receive implements motion.Interconnect.
func (ic *Interconnect) Receive(ctx context.Context, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	ic.opening("interconnect: receiving", "from", id, self, senders)
	return ic.Interconnect.Receive(ctx, id, self, senders)
}

func (ic *Interconnect) opening(what, prep string, id motion.ID, self motion.Peer, peers []motion.Peer) {
	level := ic.now.Load().level
	if level < logVerbose {
		return
	}
	args := []any{"type", ic.Type(), "motion", name(id), "self", self, prep, len(peers)}
	if level >= logDebug {
		for _, p := range peers {
			args = append(args, "peer", fmt.Sprintf("%v at %q", p, p.Addr))
		}
	}
	ic.log.Info(what, args...)
}

// name is a motion's name as the proxies' logs have it.
func name(id motion.ID) string {
	return fmt.Sprintf("con%d,cmd%d,slice[%d->%d]", id.Session, id.Command, id.SendSlice, id.RecvSlice)
}

// EndStatement writes down what the statement has cost, when
// gp_interconnect_log_stats or gp_log_interconnect wants it.
func (ic *Interconnect) EndStatement(session int32, command uint32) {
	s := ic.now.Load()
	u, ok := ic.Interconnect.(*udpifc.Interconnect)
	if !ok || !s.stats && s.level < logDebug {
		return
	}
	now := u.Stats()
	ic.statMu.Lock()
	d := now.Since(ic.counted)
	ic.counted = now
	ic.statMu.Unlock()
	if d.Sent == 0 && d.Received == 0 {
		return
	}
	ic.log.Info(d.String(), "session", session, "command", command, "content", ic.from.Content)
}

// The levels of gp_log_interconnect.
type logLevel int

const (
	logOff     logLevel = iota // nothing
	logTerse                   // warnings
	logVerbose                 // each motion that is opened
	logDebug                   // its peers, retransmissions, statistics
)

// settings are the parameters in terms of the types.
type settings struct {
	setup, transmit time.Duration
	packet          int
	backlog         int
	slowRetry       bool
	bufferKB        int
	udp             udpifc.Tuning
	level           logLevel
	stats           bool
}

// read checks the parameters.
func (i Interconnects) read(params map[string]string) (*settings, error) {
	p := parameters{values: params}
	s := &settings{
		setup:     p.duration(guc.SetupTimeout, time.Second),
		transmit:  p.duration(guc.TransmitTimeout, time.Second),
		packet:    p.number(guc.MaxPacketSize),
		backlog:   p.number(guc.TCPListenerBacklog),
		slowRetry: !p.flag(guc.AggressiveRetry),
		bufferKB:  p.number(guc.UDPBufferSize),
		level:     map[string]logLevel{"terse": logTerse, "verbose": logVerbose, "debug": logDebug}[p.canonical(guc.LogInterconnect)],
		stats:     p.flag(guc.LogStats),
	}
	if s.setup == 0 {
		s.setup = -1 // no limit
	}
	if s.backlog == 0 {
		s.backlog = -1
	}
	u := &s.udp
	u.Capacity = p.canonical(guc.FlowControl) == "capacity"
	u.QueueDepth = p.number(guc.QueueDepth)
	u.SndQueueDepth = p.number(guc.SndQueueDepth)
	u.DefaultRTT = p.duration(guc.DefaultRTT, time.Millisecond)
	u.MinRTO = p.duration(guc.MinRTO, time.Millisecond)
	u.TimerPeriod = p.duration(guc.TimerPeriod, time.Millisecond)
	u.TimerCheckingPeriod = p.duration(guc.TimerChecking, time.Millisecond)
	u.TransmitTimeout = s.transmit
	u.MinRetries = p.number(guc.MinRetries)
	u.DropFuture = !p.flag(guc.CacheFuture)
	u.FullCRC = p.flag(guc.FullCRC)
	u.RetryInterval = p.number(guc.RetryInterval)
	u.OnlyIPv4 = p.number(guc.DisableIPv6) != 0
	if seg := p.number(guc.DropSegment); seg == allSegments || seg == int(i.Content) {
		u.DropData, u.DropAcks = p.number(guc.DropData), p.number(guc.DropAcks)
		u.FaultPercent, u.Faults = p.number(guc.FaultPercent), uint32(p.number(guc.FaultBitmap))
	}
	if p.err != nil {
		return nil, p.err
	}
	return s, nil
}

// allSegments is gp_udpic_dropseg for every instance.
const allSegments = -2

// parameters reads Greenplum's parameters, keeping the first error.
type parameters struct {
	values map[string]string
	err    error
}

// canonical is the value of a parameter, or its default.
func (p *parameters) canonical(name string) string {
	g, ok := guc.Lookup(name)
	if !ok {
		p.fail(guc.ErrUnknown(name))
		return ""
	}
	v, ok := p.values[name]
	if !ok {
		return g.Default
	}
	c, err := g.Parse(v)
	if err != nil {
		p.fail(err)
		return g.Default
	}
	return c
}

func (p *parameters) number(name string) int {
	c := p.canonical(name)
	if p.err != nil {
		return 0
	}
	g, _ := guc.Lookup(name)
	return g.Int(c)
}

func (p *parameters) flag(name string) bool { return p.canonical(name) == "on" }

func (p *parameters) duration(name string, unit time.Duration) time.Duration {
	return time.Duration(p.number(name)) * unit
}

func (p *parameters) fail(err error) {
	if p.err != nil {
		return
	}
	e := &motion.Error{Code: guc.CodeInvalidValue, Message: err.Error(), Err: err}
	var ge *guc.Error
	if errors.As(err, &ge) {
		e.Code, e.Message, e.Detail, e.Hint = ge.Code, ge.Message, ge.Detail, ge.Hint
	}
	p.err = e
}
