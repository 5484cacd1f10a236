package udpifc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// Config says how an executor's interconnect works. The zero value is an
// executor on 127.0.0.1 with Greenplum's defaults.
type Config struct {
	// ListenHost is the address of the sockets, at ports of the kernel's
	// choice; "" is 127.0.0.1.
	ListenHost string
	// AdvertiseHost is the host in Addr; "" is ListenHost. It must be set when
	// ListenHost is a wildcard.
	AdvertiseHost string
	// MaxPacket is gp_max_packet_size in bytes, 512 to 65507; 0 is 8192. The
	// header is part of it.
	MaxPacket int
	// BufferKB is gp_udp_bufsize_k, 0 to 32768; 0 is 2048. The kernel may give
	// less.
	BufferKB int
	// Tuning is what Tune changes later.
	Tuning Tuning

	// Warn is told, at most once for a motion, that packets are not
	// acknowledged; the error's Code is 01000. Log is told of every
	// RetryInterval-th time the same packet is sent again. Refused is told, at
	// most once a minute, that the kernel does not let a packet out, as a
	// firewall's rule has it (EPERM); it counts as lost. All are called on any
	// goroutine and must not call the interconnect. They may be nil.
	Warn    func(*motion.Error)
	Log     func(message string)
	Refused func(to netip.AddrPort, err error)
}

// Tuning is the parameters that a session may change at any time.
type Tuning struct {
	link.Params
	// DropFuture is gp_interconnect_cache_future_packets = off: packets that
	// come before their receiver are dropped.
	DropFuture bool
	// FullCRC is gp_interconnect_full_crc: packets have checksums, and those
	// without the right one are ignored.
	FullCRC bool
	// RetryInterval is gp_interconnect_debug_retry_interval, 1 to 4096; 0 is
	// 10.
	RetryInterval int
	// DropData and DropAcks are gp_udpic_dropxmit_percent and
	// gp_udpic_dropacks_percent: how many of 100 packets to lose on purpose.
	DropData, DropAcks int
	// FaultPercent is gp_udpic_fault_inject_percent: what happens to so many
	// of 100 datagrams is one of Faults, gp_udpic_fault_inject_bitmap, which
	// has bit 1<<f for each Fault f.
	FaultPercent int
	Faults       uint32
	// OnlyIPv4 is gp_udpic_network_disable_ipv6: sockets opened from now on
	// are of IPv4.
	OnlyIPv4 bool
}

func (t *Tuning) check() error {
	if t.RetryInterval < 0 || t.RetryInterval > 4096 {
		return fmt.Errorf("motion/udpifc: %d is outside the valid range for parameter %q (1 .. 4096)", t.RetryInterval, "gp_interconnect_debug_retry_interval")
	}
	for what, v := range map[string]int{"data packets to lose": t.DropData, "acks to lose": t.DropAcks, "faults": t.FaultPercent} {
		if v < 0 || v > 100 {
			return fmt.Errorf("motion/udpifc: percentage of %s %d is not between 0 and 100", what, v)
		}
	}
	return t.Params.Check()
}

// Interconnect is a motion.Interconnect of type udpifc.
type Interconnect struct {
	cfg    Config
	epoch  time.Time
	tuning atomic.Pointer[Tuning]
	stats  counters
	wg     sync.WaitGroup // readers of sockets
	bufs   sync.Pool      // of *[]byte, cfg.MaxPacket long
	socket func() (packetConn, error)

	saidRefused atomic.Int64 // when, in nanoseconds since epoch, plus 1; 0 for never

	mu        sync.Mutex // never taken under a motion's, nor the other way round
	closed    bool       // refuses new motions
	gone      bool       // the sockets are closed
	in, out   packetConn // nil until needed
	motions   map[failer]struct{}
	senders   map[icwire.UDPKey]outRef
	receivers registry
	uses      *recent[motion.ID, use]
	notices   notices
}

// failer is a motion that is open.
type failer interface{ fail(err error) }

// outRef is a connection of a sender.
type outRef struct {
	s *sender
	i int
}

var _ motion.Interconnect = (*Interconnect)(nil)

// New makes an executor's interconnect. It opens no socket before the first
// Addr, Receive or Send.
func New(cfg Config) (*Interconnect, error) {
	if cfg.ListenHost == "" {
		cfg.ListenHost = defaultHost
	}
	if cfg.AdvertiseHost == "" {
		cfg.AdvertiseHost = cfg.ListenHost
		if ip := net.ParseIP(cfg.ListenHost); ip != nil && ip.IsUnspecified() {
			return nil, fmt.Errorf("motion/udpifc: listening on %s needs an AdvertiseHost for the senders", cfg.ListenHost)
		}
	}
	if cfg.MaxPacket == 0 {
		cfg.MaxPacket = defaultPacket
	}
	for _, r := range []struct {
		what        string
		v, min, max int
	}{
		{"maximum packet size", cfg.MaxPacket, minPacket, maxPacket},
		{"socket buffer in kB", cfg.BufferKB, 0, mostSocketKB},
	} {
		if r.v < r.min || r.v > r.max {
			return nil, fmt.Errorf("motion/udpifc: %s %d is not between %d and %d", r.what, r.v, r.min, r.max)
		}
	}
	ic := &Interconnect{
		cfg: cfg, epoch: time.Now(),
		motions: map[failer]struct{}{}, senders: map[icwire.UDPKey]outRef{},
		uses: newRecent[motion.ID, use](maxRemembered),
	}
	if err := ic.Tune(cfg.Tuning); err != nil {
		return nil, err
	}
	ic.socket = func() (packetConn, error) {
		network := "udp"
		if ic.tuning.Load().OnlyIPv4 {
			network = "udp4"
		}
		return openSocket(network, cfg.ListenHost, cfg.BufferKB)
	}
	ic.bufs.New = func() any { b := make([]byte, cfg.MaxPacket); return &b }
	ic.receivers.init()
	ic.notices.m = map[noticeKey]*notice{}
	ic.notices.timer = time.AfterFunc(time.Hour, ic.repeat)
	ic.notices.timer.Stop()
	return ic, nil
}

// Tune sets parameters for the motions opened from now on. Checksums, and what
// is lost on purpose, change at once.
func (ic *Interconnect) Tune(t Tuning) error {
	if err := t.check(); err != nil {
		return err
	}
	if t.RetryInterval == 0 {
		t.RetryInterval = defaultRetryInterval
	}
	t.Params = t.WithDefaults()
	ic.tuning.Store(&t)
	return nil
}

func (ic *Interconnect) now() time.Duration { return time.Since(ic.epoch) }

func (ic *Interconnect) crc() bool { return ic.tuning.Load().FullCRC }

// Type implements motion.Interconnect.
func (ic *Interconnect) Type() string { return "udpifc" }

// Addr implements motion.Interconnect. It opens the socket for data when there
// is none; when that fails it returns "", and Receive tries again and says why.
func (ic *Interconnect) Addr() string {
	s, err := ic.open(&ic.in)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(ic.cfg.AdvertiseHost, strconv.Itoa(s.port()))
}

// open opens a socket unless it is open.
func (ic *Interconnect) open(p *packetConn) (packetConn, error) {
	ic.mu.Lock()
	defer ic.mu.Unlock()
	if ic.closed {
		return nil, errClosed
	}
	if *p == nil {
		s, err := ic.socket()
		if err != nil {
			return nil, err
		}
		*p = s
		ic.wg.Add(1)
		go ic.read(s)
	}
	return *p, nil
}

// enter makes a motion known that is about to start.
func (ic *Interconnect) enter(m failer) error {
	if ic.closed {
		return errClosed
	}
	ic.motions[m] = struct{}{}
	return nil
}

// failAll fails all motions that are open.
func (ic *Interconnect) failAll(err error) {
	ic.mu.Lock()
	open := make([]failer, 0, len(ic.motions))
	for m := range ic.motions {
		open = append(open, m)
	}
	ic.mu.Unlock()
	for _, m := range open {
		m.fail(err)
	}
}

// Send implements motion.Interconnect. It does not wait for the receivers.
func (ic *Interconnect) Send(ctx context.Context, id motion.ID, self motion.Peer, receivers []motion.Peer) (motion.Sender, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	addrs := make([]netip.AddrPort, len(receivers))
	for i, p := range receivers {
		var err error
		if addrs[i], err = resolve(ctx, p); err != nil {
			return nil, err
		}
	}
	sock, err := ic.open(&ic.out)
	if err != nil {
		return nil, err
	}
	return newSender(ic, sock, id, self, receivers, addrs)
}

// resolve finds a receiver's address.
func resolve(ctx context.Context, p motion.Peer) (netip.AddrPort, error) {
	if p.Addr == "" {
		return netip.AddrPort{}, motion.Errorf("interconnect could not connect to seg%d: it has no listener (%v)", p.Content, p)
	}
	if a, err := netip.ParseAddrPort(p.Addr); err == nil {
		return a, nil
	}
	host, port, err := net.SplitHostPort(p.Addr)
	fail := func(err error) (netip.AddrPort, error) {
		return netip.AddrPort{}, motion.Errorf("interconnect error: Could not parse remote listener address: '%s' port '%s': %w", host, port, err)
	}
	if err != nil {
		host = p.Addr
		return fail(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fail(err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fail(err)
	}
	ip := ips[0]
	for _, other := range ips { // as a listener on a name prefers it
		if other.Unmap().Is4() {
			ip = other
			break
		}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

// Receive implements motion.Interconnect. It returns at once; for senders that
// never come the receiver waits until its context ends.
func (ic *Interconnect) Receive(ctx context.Context, id motion.ID, self motion.Peer, senders []motion.Peer) (motion.Receiver, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	sock, err := ic.open(&ic.in)
	if err != nil {
		return nil, err
	}
	return newReceiver(ic, sock, id, self, senders)
}

// Close implements motion.Interconnect. The other ends of motions that are
// still open are told; they have a moment to confirm it.
func (ic *Interconnect) Close() error {
	ic.mu.Lock()
	ic.closed = true
	ic.mu.Unlock()
	ic.failAll(errAborted)

	ic.mu.Lock()
	var told chan struct{}
	if len(ic.notices.m) > 0 && !ic.gone {
		if told = ic.notices.empty; told == nil {
			told = make(chan struct{})
			ic.notices.empty = told
		}
	}
	ic.mu.Unlock()
	if told != nil {
		t := time.NewTimer(closeLimit)
		defer t.Stop()
		select {
		case <-told:
		case <-t.C:
		}
	}

	ic.mu.Lock()
	ic.gone = true
	ic.notices.timer.Stop()
	for _, s := range []packetConn{ic.in, ic.out} {
		if s != nil {
			s.Close()
		}
	}
	ic.mu.Unlock()
	ic.wg.Wait()
	return nil
}
