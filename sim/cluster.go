package sim

import "fmt"

// Engine says how the executors of a query are laid out.
type Engine string

const (
	// Greenplum has a process for each slice, segment and session: the gangs
	// of a query, one for each sending slice. The QD is a process of the
	// coordinator.
	Greenplum Engine = "greenplum"
	// Trunkline is this project's embedded cluster: one executor for each
	// segment and session runs all slices of it. The QD is an executor too.
	Trunkline Engine = "trunkline"
)

// Engines are all engines.
var Engines = []Engine{Greenplum, Trunkline}

// Type is an interconnect type, or a way to use one.
type Type string

const (
	UDPIFC Type = "udpifc"
	TCP    Type = "tcp"
	Proxy  Type = "proxy"
	// HostProxy is what one proxy for all instances of a host would need. No
	// implementation has it; it is here to be compared with.
	HostProxy Type = "host-proxy"
)

// Types are all types, in the order of Result.Types.
var Types = []Type{UDPIFC, TCP, Proxy, HostProxy}

// Cluster is the system a query runs on.
type Cluster struct {
	Engine Engine `json:"engine"`
	// Segments is the number of primaries, 1 to MaxSegments.
	Segments int `json:"segments"`
	// Hosts is how many hosts the segments are spread over, as evenly as it
	// goes; 1 to Segments.
	Hosts int `json:"hosts"`
	// CoordinatorHost says that the coordinator has a host of its own. Without
	// it it shares that of the first segments.
	CoordinatorHost bool `json:"coordinator_host"`
	// Standby and Mirrors say that there is a standby coordinator, and a mirror
	// for each segment. Neither runs executors or listens as a proxy before it
	// is activated; they are in the address list, and proxies dial them.
	Standby bool `json:"standby"`
	Mirrors bool `json:"mirrors"`
	// System is what a host of it allows.
	System System `json:"system"`
}

// System holds the limits of a host and of what runs on it.
type System struct {
	// Ports is how many ports the kernel gives out on one address, for UDP and
	// for TCP each: the size of net.ipv4.ip_local_port_range.
	Ports int `json:"ports"`
	// Addresses is on how many addresses the executors of a host listen: 1
	// when they listen on all at once (gp_interconnect_address_type =
	// wildcard), for then a port is taken on each.
	Addresses int `json:"addresses"`
	// Descriptors is how many a process may have open (ulimit -n).
	Descriptors int64 `json:"descriptors"`
	// Backlog is gp_interconnect_tcp_listener_backlog, Somaxconn
	// net.core.somaxconn; the smaller of them counts.
	Backlog   int `json:"backlog"`
	Somaxconn int `json:"somaxconn"`
	// ProxyMemory is trunkline.proxy_memory in bytes.
	ProxyMemory int64 `json:"proxy_memory"`
}

// The defaults of System.
const (
	// DefaultPortLow and DefaultPortHigh are Linux's
	// net.ipv4.ip_local_port_range: 28232 ports.
	DefaultPortLow, DefaultPortHigh = 32768, 60999
	// DefaultDescriptors is what deploy/trunkline-proxy@.service allows.
	DefaultDescriptors = 262144
	// DefaultBacklog is that of Greenplum 7 and of this project; 128 in 6
	// (facts 1.1).
	DefaultBacklog = 256
	// DefaultSomaxconn is Linux's since 5.4.
	DefaultSomaxconn = 4096
	// DefaultProxyMemory is trunkline.proxy_memory.
	DefaultProxyMemory = 512 << 20
)

// DefaultSystem is a host as its kernel and this project's files set it up.
func DefaultSystem() System {
	return System{
		Ports: DefaultPortHigh - DefaultPortLow + 1, Addresses: 1, Descriptors: DefaultDescriptors,
		Backlog: DefaultBacklog, Somaxconn: DefaultSomaxconn, ProxyMemory: DefaultProxyMemory,
	}
}

// Upper ends of ranges. Within them no count overflows.
const (
	MaxSegments = 32767 // a content id has 16 bits
	MaxMotions  = 1000
	// MaxSessions is also where the search for a limit ends.
	MaxSessions = 1_000_000
)

// RangeError says that a value cannot be computed with.
type RangeError struct {
	// What is the value's name as an option has it: "segments", "hosts",
	// "sessions", "slices", "ports", "addresses", "descriptors", "backlog",
	// "somaxconn", "proxy-memory".
	What             string
	Value, Low, High int64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%s %d is outside the range %d to %d", e.What, e.Value, e.Low, e.High)
}

// Check returns what is wrong with c: a *RangeError, or the engine.
func (c Cluster) Check() error {
	if c.Engine != Greenplum && c.Engine != Trunkline {
		return fmt.Errorf("unknown engine %q: use %s or %s", c.Engine, Greenplum, Trunkline)
	}
	s := c.System
	return inRange([]RangeError{
		{"segments", int64(c.Segments), 1, MaxSegments},
		{"hosts", int64(c.Hosts), 1, int64(c.Segments)},
		{"ports", int64(s.Ports), 1, 65535},
		{"addresses", int64(s.Addresses), 1, 65535},
		{"descriptors", s.Descriptors, 64, 1 << 30},
		{"backlog", int64(s.Backlog), 0, 65535},
		{"somaxconn", int64(s.Somaxconn), 1, 1 << 31},
		{"proxy-memory", s.ProxyMemory, 16 << 20, 1 << 40},
	})
}

func inRange(values []RangeError) error {
	for _, v := range values {
		if v.Value < v.Low || v.Value > v.High {
			return &v
		}
	}
	return nil
}

// place is a host, or a number of hosts alike, or all of the cluster.
type place struct {
	name        string
	hosts       int64 // 0: all of the cluster
	segments    int64 // on each host
	coordinator int64 // 0 or 1
}

func (p place) instances() int64 { return p.segments + p.coordinator }

// whole is the cluster as one place.
func (c Cluster) whole() place { return place{segments: int64(c.Segments), coordinator: 1} }

// Names of hosts in a Result.
const (
	WhereHost        = "the host"
	WhereSegmentHost = "a segment host"
	WhereCoordinator = "the coordinator's host"
)

// layout is the hosts, those alike together and those with more segments
// first.
func (c Cluster) layout() (l []place) {
	hosts, fewer := int64(c.Hosts), int64(c.Segments/c.Hosts)
	more := int64(c.Segments) - hosts*fewer // hosts with a segment more
	add := func(name string, hosts, segments, coordinator int64) {
		if hosts > 0 {
			l = append(l, place{name, hosts, segments, coordinator})
		}
	}
	switch {
	case c.CoordinatorHost:
		add(WhereSegmentHost, more, fewer+1, 0)
		add(WhereSegmentHost, hosts-more, fewer, 0)
		add(WhereCoordinator, 1, 0, 1)
		return l
	case hosts == 1:
		add(WhereHost, 1, fewer, 1)
		return l
	case more > 0:
		add(WhereSegmentHost, more-1, fewer+1, 0)
		add(WhereSegmentHost, hosts-more, fewer, 0)
		add(WhereCoordinator, 1, fewer+1, 1)
	default:
		add(WhereSegmentHost, hosts-1, fewer, 0)
		add(WhereCoordinator, 1, fewer, 1)
	}
	return l
}

// places are one host of each name, the busiest.
func (c Cluster) places() (l []place) {
	for _, p := range c.layout() {
		if len(l) == 0 || l[len(l)-1].name != p.name {
			l = append(l, p)
		}
	}
	return l
}

// hosts is the number of hosts with instances that run.
func (c Cluster) hosts() int64 {
	if c.CoordinatorHost {
		return int64(c.Hosts) + 1
	}
	return int64(c.Hosts)
}
