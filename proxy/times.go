package proxy

import (
	"cmp"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/proxy/logical"
)

// Times are the limits of every wait. A zero field leaves it to who is asked
// next: the Config, then the Source's Facts, then the default. They change with
// Reload; what is waiting then keeps the limit it began with.
type Times struct {
	// Grace is how long a backend waits for a peer that is not connected
	// before it is turned away. Default 1 s.
	Grace time.Duration
	// HelloTimeout bounds the wait for the first packet of a connection, and
	// for a peer's answer to ours. Default 5 s.
	HelloTimeout time.Duration
	// DialTimeout bounds name resolution and connecting together. Default 5 s.
	DialTimeout time.Duration
	// PeerTimeout is how long the host of a connected peer may be silent,
	// whether or not there is something to send. Default 30 s; whole seconds
	// when the connection is idle.
	PeerTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause between two attempts to reach
	// a peer, which doubles. Default 50 ms and 1 s.
	MinBackoff, MaxBackoff time.Duration
	// MirrorBackoff is the pause between attempts to reach an instance whose
	// content another instance serves: a mirror or standby. Default 30 s.
	MirrorBackoff time.Duration
}

var defaultTimes = Times{
	Grace: time.Second, HelloTimeout: 5 * time.Second, DialTimeout: 5 * time.Second, PeerTimeout: 30 * time.Second,
	MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second, MirrorBackoff: 30 * time.Second,
}

// or fills what is zero in t from the next one asked.
func (t Times) or(next Times) Times {
	for _, f := range [...]struct{ t, next *time.Duration }{
		{&t.Grace, &next.Grace}, {&t.HelloTimeout, &next.HelloTimeout}, {&t.DialTimeout, &next.DialTimeout},
		{&t.PeerTimeout, &next.PeerTimeout}, {&t.MinBackoff, &next.MinBackoff}, {&t.MaxBackoff, &next.MaxBackoff},
		{&t.MirrorBackoff, &next.MirrorBackoff},
	} {
		if *f.t <= 0 {
			*f.t = *f.next
		}
	}
	return t
}

// applyTimes puts the limits, of time and memory, of new facts into force.
func (p *Proxy) applyTimes(f Facts) {
	t := p.cfg.Times.or(f.Times).or(defaultTimes)
	t.MaxBackoff = max(t.MaxBackoff, t.MinBackoff)
	p.current.Store(&t)
	p.anySource.Store(p.cfg.AnySource || f.AnySource)
	p.budget.Resize(cmp.Or(p.cfg.Memory, f.Memory, logical.DefaultBudget), cmp.Or(p.cfg.MaxWindow, f.MaxWindow, logical.DefaultMaxWindow))
}

// Memory is the budget in force, in bytes, for what waits for backends.
func (p *Proxy) Memory() int64 { return p.budget.Total() }

// times are the limits in force.
func (p *Proxy) times() *Times { return p.current.Load() }

// watch makes the kernel give a connection up when the peer's host is silent
// for PeerTimeout: by keepalive probes when it is idle, else by what is not
// acknowledged. A kernel that refuses still carries the data.
func (p *Proxy) watch(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	limit := p.times().PeerTimeout
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: max(limit/2, time.Second), Interval: max(limit/6, time.Second), Count: 3,
	})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
}

// isTimeout says whether err is a deadline that has passed.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
