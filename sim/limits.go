package sim

import (
	"fmt"
	"sort"
)

// NoLimit is a number of sessions greater than MaxSessions.
const NoLimit = -1

// LimitName names a limit.
type LimitName string

const (
	// LimitUDPPorts: each UDP socket has a port of its own on its address.
	LimitUDPPorts LimitName = "udp-ports"
	// LimitTCPPorts: each listener needs a port that no other listener has,
	// nor a connection that was dialled from the same host. Connections can
	// share a port where they lead to different listeners, and Linux gives them
	// one half of the range as long as that does (measured on Linux 6.18:
	// connect takes ports of one parity, bind with port 0 the rest).
	LimitTCPPorts LimitName = "tcp-ports"
	// LimitDescriptors is what a process may have open.
	LimitDescriptors LimitName = "descriptors"
	// LimitSelect: Greenplum's type tcp waits with select(), which takes
	// descriptors below 1024 (facts 6.3).
	LimitSelect LimitName = "select"
	// LimitBacklog: so many connections may come to a listener before it
	// accepts one. What comes beyond is dropped by the kernel, and tried again
	// after a second or more; Greenplum warns.
	LimitBacklog LimitName = "backlog"
	// LimitProxyMemory: what windows begin with is more than the budget.
	LimitProxyMemory LimitName = "proxy-memory"
	// LimitSmallWindows: connections that come later begin with the least
	// window, 8 KiB, which is slow on a long link.
	LimitSmallWindows LimitName = "small-windows"
	// LimitAddressList is the greatest length that Greenplum documents for
	// gp_interconnect_proxy_addresses (facts 1.1).
	LimitAddressList LimitName = "address-list"
)

const (
	fdSetSize        = 1024
	addressListBytes = 16384
)

// Limit compares what is needed with what there is, at the place where it is
// met first.
type Limit struct {
	Name LimitName `json:"name"`
	// Where is a host or a process.
	Where string `json:"where"`
	// Need and Allowed have the unit of the limit: ports, descriptors,
	// connections, bytes, ends of logical connections (small-windows).
	Need    int64 `json:"need"`
	Allowed int64 `json:"allowed"`
	// Hard says that queries fail beyond it; else they are slower, or the
	// limit is one of the documentation only.
	Hard bool `json:"hard"`
	// Sessions is the greatest number of sessions within it: 0 when one is too
	// many, NoLimit when MaxSessions are not.
	Sessions int64 `json:"sessions"`
}

// Met says whether more is needed than there is.
func (l Limit) Met() bool { return l.Need > l.Allowed }

// need is what a number of sessions needs; it does not shrink with it.
type need func(sessions int64) int64

// limits are those of the type, those met first in front, and the greatest
// number of sessions within the hard ones.
func (m model) limits(sessions int64) (list []Limit, most int64) {
	best := map[LimitName]int{}
	add := func(name LimitName, where string, hard bool, allowed int64, f need) {
		l := Limit{Name: name, Where: where, Need: f(sessions), Allowed: allowed, Hard: hard, Sessions: within(f, allowed)}
		if l.Need == 0 {
			return
		}
		i, ok := best[name]
		if !ok {
			best[name] = len(list)
			list = append(list, l)
		} else if l.before(list[i]) {
			list[i] = l
		}
	}
	s := m.c.System
	ports := int64(s.Ports) * int64(s.Addresses)
	for _, p := range m.c.places() {
		u := func(sessions int64) Usage { return m.usage(p, sessions) }
		add(LimitUDPPorts, p.name, true, ports, func(n int64) int64 { return u(n).UDPSockets })
		if m.t == TCP {
			add(LimitTCPPorts, p.name, true, ports, func(n int64) int64 {
				return u(n).ListeningPorts + min(n*m.dialled(p), int64(s.Ports)/2)
			})
		}
	}
	for _, p := range m.processes() {
		add(LimitDescriptors, p.name, true, s.Descriptors, func(n int64) int64 { return p.fixed + n*p.each })
		if m.t == TCP && m.c.Engine == Greenplum {
			add(LimitSelect, p.name, true, fdSetSize, func(n int64) int64 { return p.fixed + n*p.each })
		}
		if p.fanIn > 0 {
			add(LimitBacklog, p.name, false, int64(min(s.Backlog, s.Somaxconn)), func(int64) int64 { return p.fanIn })
		}
		if p.ends > 0 {
			add(LimitProxyMemory, p.name, true, s.ProxyMemory, func(n int64) int64 { return windows(n*p.ends, s.ProxyMemory) })
			add(LimitSmallWindows, p.name, false, roomy(s.ProxyMemory), func(n int64) int64 { return n * p.ends })
		}
	}
	if m.t == Proxy || m.t == HostProxy {
		add(LimitAddressList, "the parameter", false, addressListBytes, func(int64) int64 { return m.c.addressList() })
	}
	most = NoLimit
	for _, l := range list {
		if l.Hard && l.Sessions != NoLimit && (most == NoLimit || l.Sessions < most) {
			most = l.Sessions
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].before(list[j]) })
	return list, most
}

// before says whether fewer sessions meet l than o.
func (l Limit) before(o Limit) bool {
	switch {
	case l.Sessions == o.Sessions:
		return false
	case l.Sessions == NoLimit:
		return false
	case o.Sessions == NoLimit:
		return true
	}
	return l.Sessions < o.Sessions
}

// within is the greatest number of sessions for which f is at most allowed.
func within(f need, allowed int64) int64 {
	if f(MaxSessions) <= allowed {
		return NoLimit
	}
	lo, hi := int64(0), int64(MaxSessions) // f(hi) is too much
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; f(mid) <= allowed {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// dialled is how many TCP connections executors of a place dial, of one
// session: senders dial their receivers.
func (m model) dialled(p place) int64 {
	return p.segments * (m.gathers() + m.q.wide*int64(m.c.Segments))
}

// process is a kind of process and its part of one session.
type process struct {
	name        string
	fixed, each int64 // descriptors: without sessions, and of each
	fanIn       int64 // connections that one listener may get at once
	ends        int64 // of logical connections, if it is a proxy
}

// processes that may meet a limit.
func (m model) processes() (l []process) {
	n := int64(m.c.Segments)
	segment, coordinator := m.ends(place{segments: 1}), m.ends(place{coordinator: 1})
	switch m.t {
	case Proxy:
		// Its connections, its two listeners, and of each end a unix socket.
		l = append(l, process{"a segment's proxy", n + 2, segment, 0, segment},
			process{"the coordinator's proxy", n + 2, coordinator, 0, coordinator})
	case HostProxy:
		for _, p := range m.c.places() {
			e := m.ends(p)
			l = append(l, process{"the proxy of " + p.name, m.c.hosts() + p.instances(), e, 0, e})
		}
	}
	// Each executor of type tcp has a listener beside its connections; each
	// one of udpifc two sockets.
	extra, perEnd := int64(1), int64(1)
	switch m.t {
	case UDPIFC:
		extra, perEnd = 2, 0
	case Proxy, HostProxy:
		extra = 0
	}
	if m.c.Engine == Trunkline {
		// One process has the executors of all sessions on its instance.
		l = append(l, process{"a segment's instance", 0, extra + perEnd*segment, 0, 0},
			process{"the coordinator's instance", 0, min(extra, 1) + perEnd*coordinator, 0, 0})
		if m.t == TCP {
			l[0].fanIn, l[1].fanIn = m.q.wide*n, m.q.gathers*n
		}
		return l
	}
	l = append(l, process{"the QD", extra + perEnd*coordinator, 0, 0, 0})
	if m.t == TCP {
		l[len(l)-1].fanIn = coordinator
	}
	for i, s := range m.q.slices {
		out := n
		if s.gather {
			out = 1
		}
		p := process{fmt.Sprintf("a QE of slice %d", i+1), extra + perEnd*(out+s.reads*n), 0, 0, 0}
		if m.t == TCP {
			p.fanIn = s.reads * n
		}
		l = append(l, p)
	}
	return l
}
