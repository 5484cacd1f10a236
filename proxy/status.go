package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"time"

	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/topology"
)

// Role says who connects a peer with this proxy.
type Role string

// The roles of a peer.
const (
	WeDial  Role = "we dial"
	DialsUs Role = "dials us"
	// NoDial is a mirror or standby of this instance: the two never connect.
	NoDial Role = "own content"
	// Itself is this instance; its backends' connections with each other.
	Itself Role = "itself"
)

// The states of a peer.
const (
	StateConnected  = "connected"
	StateConnecting = "connecting" // we are dialling
	StateFailed     = "failed"     // we could not, and will try again
	StateWaiting    = "waiting"    // for it to dial us
	StateNone       = "none"       // never connected, by rule
)

// Status is how a proxy is.
type Status struct {
	Dbid    uint16 `json:"dbid"`
	Content int16  `json:"content"`
	Pid     int    `json:"pid"` // of the proxy's process
	// Started is when the proxy was made.
	Started time.Time `json:"started"`
	// Socket is where backends register; empty while no server runs.
	Socket      string `json:"socket"`
	SocketError string `json:"socket_error,omitempty"`
	// Server is the postmaster's process id; 0 while none runs, and
	// ServerError says how that is known.
	Server      int    `json:"server"`
	ServerError string `json:"server_error,omitempty"`
	// Dialect is "magic36", "plain32", or "auto" until it is known.
	Dialect string `json:"dialect"`
	// ConfigError says what of the configuration as it is now is not in force,
	// and why.
	ConfigError string `json:"config_error,omitempty"`
	// Problem says why no backend can be served at all.
	Problem  string         `json:"problem,omitempty"`
	Listener ListenerStatus `json:"listener"`
	Peers    []PeerStatus   `json:"peers"`

	Backends  int    `json:"backends"`  // connected
	Early     int    `json:"early"`     // connections that wait for their backend
	Refused   uint64 `json:"refused"`   // backends turned away
	Rejected  uint64 `json:"rejected"`  // connections of strangers closed
	Misrouted uint64 `json:"misrouted"` // packets dropped
	// Rejections are those of Rejected by their kind, all kinds always:
	// "garbage", no hello; "silent", no hello in time; "crowded", closed while
	// silent for there were too many such; "unlisted", a peer that the list
	// does not expect here; "address", a peer of the list but not from its
	// address or with its port; "user", a process of another user.
	Rejections map[string]uint64 `json:"rejections"`
	// Strangers are the connections that have not said who they are yet.
	Strangers int `json:"strangers"`
	// Memory is the budget for what waits for backends.
	Memory MemoryStatus `json:"memory"`
	// Limits are the time limits in force.
	Limits LimitStatus `json:"limits"`
}

// LimitStatus are the limits in force, in seconds, by the names their
// parameters have behind "trunkline.proxy_".
type LimitStatus struct {
	Grace         float64 `json:"grace"`
	HelloTimeout  float64 `json:"hello_timeout"`
	DialTimeout   float64 `json:"dial_timeout"`
	PeerTimeout   float64 `json:"peer_timeout"`
	MinBackoff    float64 `json:"min_backoff"`
	MaxBackoff    float64 `json:"max_backoff"`
	MirrorBackoff float64 `json:"mirror_backoff"`
	CheckSource   bool    `json:"check_source"`
}

func (p *Proxy) limitStatus() LimitStatus {
	t := p.times()
	return LimitStatus{
		Grace: t.Grace.Seconds(), HelloTimeout: t.HelloTimeout.Seconds(), DialTimeout: t.DialTimeout.Seconds(),
		PeerTimeout: t.PeerTimeout.Seconds(), MinBackoff: t.MinBackoff.Seconds(), MaxBackoff: t.MaxBackoff.Seconds(),
		MirrorBackoff: t.MirrorBackoff.Seconds(), CheckSource: !p.anySource.Load(),
	}
}

// MemoryStatus is the budget for what waits for backends, in bytes.
type MemoryStatus struct {
	Budget  int64 `json:"budget"`
	Granted int64 `json:"granted"` // that peers may send, or have sent and is waiting
}

// ListenerStatus is how the listening socket for peers is.
type ListenerStatus struct {
	Address string `json:"address"`
	Bound   bool   `json:"bound"`
	Error   string `json:"error,omitempty"`
}

// PeerStatus is how the connection with one other instance is.
type PeerStatus struct {
	Dbid    uint16    `json:"dbid"`
	Content int16     `json:"content"`
	Address string    `json:"address"`
	Role    Role      `json:"role"`
	State   string    `json:"state"`
	Error   string    `json:"error,omitempty"` // why the last attempt failed, or the last connection ended
	Since   time.Time `json:"since"`           // of being connected, or of not being it
	// Lost says why the last connection ended that there was, and LostAt when;
	// both stay when there is another. Empty and zero if none has ended.
	Lost   string    `json:"lost,omitempty"`
	LostAt time.Time `json:"lost_at,omitzero"`
	// Trunkline is true when the peer is a Trunkline proxy too.
	Trunkline   bool   `json:"trunkline"`
	Connections int    `json:"connections"` // logical ones, those without a backend included
	BytesIn     uint64 `json:"bytes_in"`    // since it is connected
	BytesOut    uint64 `json:"bytes_out"`
	// RTT is the round trip to a Trunkline peer in milliseconds, the least of
	// the last seconds; 0 while it is not known.
	RTT float64 `json:"rtt_ms"`
	// Cause is one sentence why the instance cannot be reached; empty if it
	// can.
	Cause string `json:"cause,omitempty"`
}

// Cause is one plain sentence why the instance cannot be reached from the
// proxy, "" if it can.
func (s Status) Cause(dbid uint16) string {
	switch {
	case s.Problem != "":
		return s.Problem
	case dbid == s.Dbid:
		return ""
	}
	for _, p := range s.Peers {
		if p.Dbid == dbid {
			return p.Cause
		}
	}
	return fmt.Sprintf("dbid %d is not in the address list of the proxy of %s", dbid, instanceName(s.Content, s.Dbid))
}

// lossTime is for how long a connection's end is looked upon as the reason for
// what backends complain of. They notice it at once, but may be slow to ask.
const lossTime = 5 * time.Second

// Explain is what Cause says, or, of a logical connection that has been lost
// for a reason that is gone by now, what Loss says.
func (s Status) Explain(dbid uint16, lost bool) string {
	why := s.Cause(dbid)
	if why == "" && lost {
		why = s.Loss(dbid, time.Now())
	}
	return why
}

// Loss is one plain sentence why a logical connection with the instance has
// ended of late although the instance can be reached now, "" if nothing is
// known to have happened in the seconds before.
func (s Status) Loss(dbid uint16, now time.Time) string {
	own := instanceName(s.Content, s.Dbid)
	for _, p := range s.Peers {
		// What was lost with it may end only now that there is another.
		if ago := now.Sub(p.LostAt); p.Dbid == dbid && p.Lost != "" && (ago < lossTime || now.Sub(p.Since) < lossTime) {
			return fmt.Sprintf("the connection of the proxy of %s with that of %s at %s was lost %.1f s ago: %s",
				own, instanceName(p.Content, p.Dbid), p.Address, ago.Seconds(), p.Lost)
		}
	}
	if ago := now.Sub(s.Started); ago < lossTime {
		return fmt.Sprintf("the proxy of %s was started again %.1f s ago", own, ago.Seconds())
	}
	return ""
}

// Healthy says whether the proxy can serve backends and every peer that should
// be connected is.
func (s Status) Healthy() bool {
	return s.Problem == "" && s.ConfigError == "" && s.SocketError == "" && len(s.Missing()) == 0
}

// Missing are the peers that should be connected and are not. Of instances
// that share a content one is enough.
func (s Status) Missing() []PeerStatus {
	served := map[int16]bool{s.Content: true}
	for _, p := range s.Peers {
		served[p.Content] = served[p.Content] || p.State == StateConnected
	}
	var l []PeerStatus
	for _, p := range s.Peers {
		if !served[p.Content] {
			l = append(l, p)
		}
	}
	return l
}

// cause is PeerStatus.Cause. It is called with pr.mu held, or for roles whose
// cause never changes.
func (pr *peer) cause() string {
	switch {
	case pr.role == NoDial:
		return fmt.Sprintf("%s has the content of %s: an instance and its mirror have no connection", pr.label, pr.p.label)
	case pr.role == Itself || pr.trunk != nil:
		return ""
	}
	why := pr.err
	if pr.role == WeDial {
		if why == "" {
			why = "still " + pr.doing
			if pr.doing == "" {
				why = "it has not answered yet"
			}
		}
		return fmt.Sprintf("the proxy of %s at %s cannot be reached from the proxy of %s: %s", pr.label, pr.entry.Addr(), pr.p.label, why)
	}
	s := fmt.Sprintf("the proxy of %s has not connected to the proxy of %s", pr.label, pr.p.label)
	if why != "" {
		s += ": " + why
	}
	return s
}

// Status returns how the proxy is now.
func (p *Proxy) Status() Status {
	d, known := p.dialect()
	p.mu.RLock()
	own, _ := p.facts.Addresses.Lookup(p.dbid)
	s := Status{
		Dbid: p.dbid, Content: p.content, Pid: os.Getpid(), Started: p.started, Dialect: DialectAuto.String(),
		SocketError: p.socketErr, Server: p.server, ServerError: p.serverErr,
		ConfigError: joinText(p.confErr, p.paramErr), Problem: p.unfit(),
		Listener: ListenerStatus{Bound: p.listener != nil, Error: p.listenErr},
		Refused:  p.refused.Load(), Misrouted: p.misrouted.Load(),
		Rejections: map[string]uint64{}, Strangers: p.callers.len() + p.locals.len(),
		Memory: MemoryStatus{Budget: p.budget.Total(), Granted: p.budget.Granted()},
		Limits: p.limitStatus(), Peers: []PeerStatus{},
	}
	for i, name := range rejectionNames {
		n := p.rejections[i].Load()
		s.Rejections[name] = n
		s.Rejected += n
	}
	if known {
		s.Dialect = d.String()
	}
	if p.socket != nil {
		s.Socket = p.socket.path
	}
	if own != (topology.Entry{}) {
		s.Listener.Address = own.Addr()
	}
	p.mu.RUnlock()
	for _, pr := range p.all() {
		ps, backends, early := pr.status()
		s.Backends += backends
		s.Early += early
		if pr.role != Itself {
			s.Peers = append(s.Peers, ps)
		}
	}
	sort.Slice(s.Peers, func(i, j int) bool { return s.Peers[i].Dbid < s.Peers[j].Dbid })
	return s
}

func joinText(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

func (pr *peer) status() (s PeerStatus, backends, early int) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	s = PeerStatus{
		Dbid: pr.entry.Dbid, Content: pr.entry.Content, Role: pr.role, Error: pr.err, Since: pr.since,
		Lost: pr.lost, LostAt: pr.lostAt,
		Trunkline: pr.trunk != nil && pr.agreement.Trunkline, Connections: pr.table.Len(), Cause: pr.cause(),
	}
	early, _ = pr.table.Early()
	backends = pr.table.Backends()
	switch {
	case pr.role == Itself:
		return s, backends, early
	case pr.trunk != nil:
		s.State = StateConnected
		traffic := pr.trunk.Traffic()
		s.BytesIn, s.BytesOut = traffic.BytesIn, traffic.BytesOut
		s.RTT = float64(pr.trunk.RTT()) / float64(time.Millisecond)
	case pr.role == NoDial:
		s.State = StateNone
	case pr.role == DialsUs:
		s.State = StateWaiting
	case pr.dialling || pr.err == "":
		s.State = StateConnecting
	default:
		s.State = StateFailed
	}
	s.Address = pr.entry.Addr()
	return s, backends, early
}

// statusTimeout bounds one answer, so that a client that does not read cannot
// hold a descriptor.
const statusTimeout = 2 * time.Second

func (p *Proxy) serveStatus(c *local.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(statusTimeout)) // fails if closed; so will the write
	_ = json.NewEncoder(c).Encode(p.Status())
}

// listenStatus makes the status socket, unless another proxy answers on it.
func (p *Proxy) listenStatus() (*unixListener, error) {
	path := p.cfg.StatusSocket
	if path == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	if s, err := ReadStatus(ctx, path); err == nil {
		return nil, fmt.Errorf("%w, as process %d", ErrRunning, s.Pid)
	}
	u, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	return u, nil
}

// ReadStatus asks the proxy whose Config.StatusSocket is path how it is. The
// error matches ErrStopped when no proxy answers there.
func ReadStatus(ctx context.Context, path string) (Status, error) {
	var s Status
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return s, fmt.Errorf("%w: %s: %s", ErrStopped, path, reason(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	b, err := io.ReadAll(io.LimitReader(conn, 16<<20))
	if err == nil && len(b) == 0 {
		err = errors.New("the connection was closed without an answer")
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("proxy status from %s: %w", path, err)
	}
	return s, nil
}
