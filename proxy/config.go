package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/logical"
	"github.com/trunkline-db/trunkline/topology"
)

// Facts are what a proxy has to know of its instance.
type Facts struct {
	Dbid    uint16
	Content int16
	// Addresses is where every instance's proxy listens, this one's included.
	Addresses topology.AddressList
	// AddressError says why Addresses cannot be used; then the list in force
	// stays in force.
	AddressError error
	// MaxPacket is gp_max_packet_size, the longest payload in bytes a
	// Greenplum proxy of this cluster accepts. 0 means 8192.
	MaxPacket int
	// Times are the limits the configuration sets; zero fields are defaults.
	Times Times
	// AnySource is Config.AnySource as the configuration has it.
	AnySource bool
	// Memory and MaxWindow are those of Config as the configuration has them;
	// 0 is the default.
	Memory, MaxWindow int64
	// ParameterError says which of the other parameters cannot be used. They
	// have their defaults; everything else is in force.
	ParameterError error
}

// Source is where a proxy's configuration comes from.
type Source struct {
	// Facts is called at start and at each Reload.
	Facts func() (Facts, error)
	// Postmaster returns the port and the process id by which backends find
	// the proxy's socket. It is called every Config.Poll; an error means that
	// no server runs.
	Postmaster func() (port, pid int, err error)
}

// Config is what New takes. The zero value of every field but Source is a
// default.
type Config struct {
	Source Source
	// Log takes the proxy's log; nil is slog.Default().
	Log *slog.Logger
	// StatusSocket is the path of the socket ReadStatus asks; "" for none. Its
	// directory must be private to the user. It also keeps a second proxy of
	// the same instance from starting.
	StatusSocket string
	// SocketDir is the directory of the backends' socket: /tmp, where
	// Greenplum's backends look for it.
	SocketDir string
	// Dialect is the header dialect of the cluster. With DialectAuto the proxy
	// takes it from the first backend or peer that says hello, and does not
	// dial before.
	Dialect Dialect
	// AckRefused answers a backend before it is turned away. Greenplum's
	// backends want that: closed without an answer, they would try again for
	// gp_interconnect_setup_timeout. Ours take it as the refusal it is.
	AckRefused bool

	// Times are limits that go before those of the Source.
	Times
	// AnySource accepts a peer from any address, though its entry in the list
	// leads elsewhere, and whatever port it says it listens on.
	AnySource bool
	// TakeOver takes the backends' socket back from whoever replaces it.
	// Greenplum's own proxy does so whenever it starts. Without it another's
	// socket is left alone.
	TakeOver bool
	// Resolve returns the addresses of a host name; nil asks the system.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Poll is how often the listener and what waits too long are looked
	// after, and the postmaster at least. Default 1 s.
	Poll time.Duration
	// Memory is the budget in bytes for what waits for backends, and MaxWindow
	// how much of it one connection with a Trunkline peer may get; they go
	// before those of the Source. Defaults 512 MB and 16 MB.
	Memory, MaxWindow int64
	// Window is the sending side's limit towards a Greenplum peer. Default 100
	// and 30 packets.
	Window logical.Window
	// Limits bound what is kept for backends.
	Limits logical.Limits
}

func (c Config) withDefaults() Config {
	if c.Poll <= 0 {
		c.Poll = time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.SocketDir == "" {
		c.SocketDir = "/tmp"
	}
	if c.Window.Pause <= 0 {
		c.Window = logical.DefaultWindow
	}
	if c.Limits == (logical.Limits{}) {
		c.Limits = logical.DefaultLimits
	}
	return c
}

// Dialect says which header dialect a cluster speaks, or that the proxy is to
// find out.
type Dialect uint8

// The settings of Config.Dialect.
const (
	DialectAuto Dialect = iota
	DialectMagic36
	DialectPlain32
)

// String returns "auto", "magic36" or "plain32".
func (d Dialect) String() string {
	switch d {
	case DialectMagic36:
		return icwire.Magic36.String()
	case DialectPlain32:
		return icwire.Plain32.String()
	}
	return "auto"
}

// wire is the dialect, if it is said.
func (d Dialect) wire() (w icwire.Dialect, known bool) {
	switch d {
	case DialectMagic36:
		return icwire.Magic36, true
	case DialectPlain32:
		return icwire.Plain32, true
	}
	return 0, false
}

// ParseDialect reads what Dialect.String prints.
func ParseDialect(s string) (Dialect, error) {
	for _, d := range [...]Dialect{DialectAuto, DialectMagic36, DialectPlain32} {
		if d.String() == s {
			return d, nil
		}
	}
	return 0, fmt.Errorf("invalid dialect %q: use auto, magic36 or plain32", s)
}
