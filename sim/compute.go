package sim

// Usage is what a place has open. Sockets that have two ends in it are counted
// as two descriptors and one connection.
type Usage struct {
	// Executors are the QDs and QEs: processes of Greenplum, goroutines here.
	Executors int64 `json:"executors"`
	// TCPConnections are established connections with an end here.
	TCPConnections int64 `json:"tcp_connections"`
	// SameInstance are those of them with both ends in one instance: a segment
	// sends to itself as to every other.
	SameInstance int64 `json:"tcp_connections_same_instance"`
	// SameHost are those with both ends on one host, SameInstance included.
	SameHost int64 `json:"tcp_connections_same_host"`
	// UDPSockets is also the number of UDP ports.
	UDPSockets int64 `json:"udp_sockets"`
	// ListeningPorts are TCP ports with a listener.
	ListeningPorts int64 `json:"listening_ports"`
	// UnixConnections lead from executors to their proxy, one for each end of
	// a logical connection.
	UnixConnections int64 `json:"unix_connections"`
	// Descriptors are those of all these sockets, of all processes.
	Descriptors int64 `json:"descriptors"`
	// ProxyIdle and ProxyMost are bytes of proxies: with every connection open
	// and nothing under way, and with as much as may wait for backends that do
	// not read.
	ProxyIdle int64 `json:"proxy_bytes_idle"`
	ProxyMost int64 `json:"proxy_bytes_most"`
}

// HostUsage is the Usage of one host.
type HostUsage struct {
	// Where is one of the Where constants. Of segment hosts it is the one with
	// most segments.
	Where string `json:"where"`
	Usage
}

// TypeResult is what one type needs.
type TypeResult struct {
	Type  Type        `json:"type"`
	All   Usage       `json:"all"`
	Hosts []HostUsage `json:"hosts"`
	// Limits are those that can be met, whether they are or not; for each the
	// place that meets it first.
	Limits []Limit `json:"limits"`
	// Sessions is the greatest number of sessions that meets no hard limit, or
	// NoLimit when MaxSessions do not.
	Sessions int64 `json:"most_sessions"`
}

// Result is what Compute returns. Its JSON form is for programs; a change of
// meaning changes Version.
type Result struct {
	Version  int          `json:"version"`
	Cluster  Cluster      `json:"cluster"`
	Motions  []Motion     `json:"motions"`
	Sessions int          `json:"sessions"`
	Types    []TypeResult `json:"types"`
	// AddressList is the length in bytes of gp_interconnect_proxy_addresses
	// with IPv4 addresses of full length.
	AddressList int64 `json:"address_list_bytes"`
	// InVain is how many pairs of instances there are of which one's proxy
	// dials the other's, a mirror or standby, where none runs: Greenplum's each
	// second (facts 6.4), Trunkline's twice a minute
	// (trunkline.proxy_mirror_backoff).
	InVain int64 `json:"dialled_in_vain"`
}

// Type returns the result for one type, nil if there is no such type.
func (r *Result) Type(t Type) *TypeResult {
	for i := range r.Types {
		if r.Types[i].Type == t {
			return &r.Types[i]
		}
	}
	return nil
}

// Compute counts what sessions need that run the query with these motions all
// at the same time, in each type, at the peak. Every slice runs on all segments,
// and all motions are set up before the first ends; Trunkline's gather is set
// up later if there are others.
//
// Proxies, and the connections between them, are counted for the types that
// use them, though they are there in the others as well when an address list
// is set.
func Compute(c Cluster, motions []Motion, sessions int) (*Result, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if err := inRange([]RangeError{{"sessions", int64(sessions), 1, MaxSessions}}); err != nil {
		return nil, err
	}
	q, err := shapeOf(motions)
	if err != nil {
		return nil, err
	}
	r := &Result{Version: 1, Cluster: c, Motions: motions, Sessions: sessions, AddressList: c.addressList(), InVain: c.inVain()}
	for _, t := range Types {
		m := model{c: c, q: q, t: t}
		res := TypeResult{Type: t, All: m.usage(c.whole(), int64(sessions))}
		for _, p := range c.places() {
			res.Hosts = append(res.Hosts, HostUsage{p.name, m.usage(p, int64(sessions))})
		}
		res.Limits, res.Sessions = m.limits(int64(sessions))
		r.Types = append(r.Types, res)
	}
	return r, nil
}

// model is one type on one cluster with one query.
type model struct {
	c Cluster
	q shape
	t Type
}

// executors of one session at a place. Greenplum: one for each sending slice
// and segment, and the QD (facts 6.2, 7: ports by slices × segments). Trunkline:
// one for each segment, and the QD (mpp/execute).
func (m model) executors(p place) int64 {
	if m.c.Engine == Greenplum {
		return p.segments*int64(len(m.q.slices)) + p.coordinator
	}
	return p.segments + p.coordinator
}

// ends of one session at a place: the ends of the pairs of a sender and a
// receiver. A gather has N senders, of which each has an end, and the QD has N.
// A motion N:N has N² pairs, and each segment N ends as a sender and N as a
// receiver. They are ends of TCP connections in type tcp (facts 6.3: one
// connection for each pair and motion), and of logical connections with a
// proxy (facts 6.4: a unix socket for each).
func (m model) ends(p place) int64 {
	n := int64(m.c.Segments)
	return m.gathers()*(p.segments+p.coordinator*n) + m.q.wide*2*p.segments*n
}

// gathers are the motions N:1 that are open at the peak. Trunkline's executors
// set up the motions between segments together, but a gather only when its
// slice runs, which is the last: by then the others are over (mpp/execute).
func (m model) gathers() int64 {
	if m.c.Engine == Trunkline && m.q.wide > 0 {
		return 0
	}
	return m.q.gathers
}

// pairs of one session with an end at the place, and those of them with both
// ends in it.
func (m model) pairs(p place) (any, both int64) {
	both = m.gathers()*p.coordinator*p.segments + m.q.wide*p.segments*p.segments
	return m.ends(p) - both, both
}

func (m model) usage(p place, sessions int64) Usage {
	n := int64(m.c.Segments)
	u := Usage{Executors: sessions * m.executors(p)}
	proxies, others := int64(0), int64(0) // here, and in all but for one
	switch m.t {
	case UDPIFC:
		u.UDPSockets = sessions * m.udpSockets(p)
		u.Descriptors = u.UDPSockets
	case TCP:
		u.TCPConnections, u.SameHost = m.pairs(p)
		u.TCPConnections *= sessions
		u.SameHost *= sessions
		u.SameInstance = sessions * m.q.wide * p.segments
		// Each executor has a listener (facts 6.3, motion/tcp).
		u.ListeningPorts = u.Executors
		u.Descriptors = sessions*m.ends(p) + u.ListeningPorts
	case Proxy:
		// One connection for each two instances that run a proxy, whatever the
		// queries are (proxy: all pairs are connected).
		proxies, others = p.instances(), n
	case HostProxy:
		proxies, others = 1, m.c.hosts()-1
		if p.hosts == 0 {
			proxies = m.c.hosts()
		}
	}
	if proxies > 0 {
		u.SameHost = proxies * (proxies - 1) / 2
		u.TCPConnections = proxies*(others+1-proxies) + u.SameHost
		u.ListeningPorts = proxies
		u.UnixConnections = sessions * m.ends(p)
		// Backends find their proxy under their instance's name: a listening
		// unix socket for each.
		u.Descriptors = proxies*others + u.ListeningPorts + 2*u.UnixConnections + p.instances()
	}
	if p.hosts == 0 {
		u.SameHost = 0
		for _, h := range m.c.layout() {
			u.SameHost += h.hosts * m.usage(h, sessions).SameHost
		}
	}
	u.ProxyIdle, u.ProxyMost = m.memory(p, sessions)
	return u
}

// udpSockets of one session at a place. Greenplum: two for each process, one
// that receives and one that sends (facts 6.2). Trunkline: the same, but the QD
// opens only the one it needs, for it sends nothing (motion/udpifc opens a
// socket with the first use).
func (m model) udpSockets(p place) int64 {
	if m.c.Engine == Greenplum {
		return 2 * m.executors(p)
	}
	return 2*p.segments + p.coordinator
}

// addressList is the length of gp_interconnect_proxy_addresses:
// dbid:content:host:port for each instance, mirrors and standby included, with
// commas in between. Host and port take 15 and 5 bytes.
func (c Cluster) addressList() (bytes int64) {
	dbid := 0
	add := func(content int) {
		dbid++
		bytes += int64(digits(dbid) + 1 + digits(content) + 1 + 15 + 1 + 5 + 1)
	}
	add(-1)
	for i := range c.Segments {
		add(i)
	}
	if c.Mirrors {
		for i := range c.Segments {
			add(i)
		}
	}
	if c.Standby {
		add(-1)
	}
	return bytes - 1
}

func digits(n int) int {
	d := 1
	if n < 0 {
		return 1 + digits(-n)
	}
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// inVain counts pairs: an instance dials all of smaller content (facts 6.4), a
// primary so the mirrors of the segments before it, and the standby.
func (c Cluster) inVain() (pairs int64) {
	n := int64(c.Segments)
	if c.Mirrors {
		pairs += n * (n - 1) / 2
	}
	if c.Standby {
		pairs += n
	}
	return pairs
}
