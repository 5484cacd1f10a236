package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/proxy/logical"
	"github.com/trunkline-db/trunkline/proxy/trunk"
	"github.com/trunkline-db/trunkline/topology"
)

// Proxy is the interconnect proxy of one instance. Make one with New. Its
// methods may be called from any goroutine.
type Proxy struct {
	cfg     Config
	log     *limitLog
	dbid    uint16
	content int16
	label   string
	budget  *logical.Budget
	started time.Time

	wg      sync.WaitGroup // every goroutine but Run's own
	reloads chan chan error
	done    chan struct{} // Run has returned

	outside
	ended     local.Closer  // backends' sockets
	refused   atomic.Uint64 // backends
	misrouted atomic.Uint64 // packets

	mu        sync.RWMutex
	facts     Facts
	confErr   string
	peers     map[uint16]*peer
	listener  *peerListener
	listenErr string
	socket    *unixListener
	socketErr string
	server    int // the postmaster's process id, 0 if there is none
	serverErr string
	paramErr  string
	learned   bool
	spoken    icwire.Dialect
	maxData   int
}

// peerListener is the listening TCP socket for peers.
type peerListener struct {
	net.Listener
	addr  string // ip:port
	entry string // the entry's host:port
}

// New makes a proxy; Run starts it. It fails when the Source does not know
// the instance.
func New(cfg Config) (*Proxy, error) {
	if cfg.Source.Facts == nil || cfg.Source.Postmaster == nil {
		return nil, errors.New("proxy: no source of configuration")
	}
	cfg = cfg.withDefaults()
	f, err := cfg.Source.Facts()
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{
		cfg: cfg, log: &limitLog{Logger: cfg.Log},
		dbid: f.Dbid, content: f.Content, label: instanceName(f.Content, f.Dbid),
		budget:  &logical.Budget{},
		started: time.Now(),
		reloads: make(chan chan error), done: make(chan struct{}),
		peers: map[uint16]*peer{}, facts: f,
	}
	p.facts.Addresses = nil // nothing is applied yet
	p.applyTimes(f)
	return p, nil
}

// ErrStopped is what Reload returns when Run is over.
var ErrStopped = errors.New("proxy: not running")

// ErrRunning says that another proxy serves the instance.
var ErrRunning = errors.New("another proxy of this instance is running")

// Run serves until ctx ends, then closes every connection, removes its sockets
// and returns nil. It returns early only when it cannot begin. It may be
// called once.
func (p *Proxy) Run(ctx context.Context) error {
	defer close(p.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	status, err := p.listenStatus()
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	defer func() {
		p.wg.Wait()
		p.ended.Flush()
	}()
	if status != nil {
		defer status.close()
		p.wg.Go(func() {
			p.accept(ctx, status, func(c *local.Conn) { p.wg.Go(func() { p.serveStatus(c) }) })
		})
	}
	defer p.stop()
	self := p.newPeer(topology.Entry{Dbid: p.dbid, Content: p.content}, Itself)
	p.startLoop(self)
	p.log.Info("proxy started", "instance", p.label)
	p.reload(ctx)
	p.followPostmaster(ctx)

	poll := time.NewTicker(p.cfg.Poll)
	defer poll.Stop()
	// A backend that finds no socket, or another's, waits or hangs.
	follow := time.NewTicker(min(p.cfg.Poll, 50*time.Millisecond))
	defer follow.Stop()
	for {
		select {
		case <-ctx.Done():
			p.log.Info("proxy stopped", "instance", p.label)
			return nil
		case answer := <-p.reloads:
			err := p.reload(ctx)
			p.followPostmaster(ctx)
			answer <- err
		case <-follow.C:
			p.followPostmaster(ctx)
		case now := <-poll.C:
			if !p.listening() {
				p.listen(ctx)
			}
			for _, pr := range p.all() {
				pr.look(now)
			}
		}
	}
}

// Reload reads the configuration again and applies what has changed, and
// nothing else. It returns what is wrong with the new configuration; then the
// old one stays in force. Host names are resolved again.
func (p *Proxy) Reload() error {
	answer := make(chan error, 1)
	select {
	case p.reloads <- answer:
		return <-answer
	case <-p.done:
		return ErrStopped
	}
}

// startLoop makes the trunk by which backends of this instance reach each
// other.
func (p *Proxy) startLoop(self *peer) {
	p.mu.Lock()
	p.peers[p.dbid] = self
	p.mu.Unlock()
	t := trunk.New(nil, icwire.Magic36, icwire.MaxPacketLen)
	self.attach(t, trunk.Agreement{Trunkline: true}, "")
	p.wg.Go(func() { self.detach(t, whyEnded(t.Run(&session{pr: self, t: t}))) })
}

// newTrunk makes a trunk of a connection on which the handshake is over.
func (p *Proxy) newTrunk(conn net.Conn, d icwire.Dialect, a trunk.Agreement) *trunk.Trunk {
	most := p.maxPacket(d)
	if a.Trunkline {
		most = icwire.MaxPacketLen
	}
	return trunk.New(conn.(*net.TCPConn), d, most)
}

// end is this proxy as one end of a packet that is of no backend.
func (p *Proxy) end() icwire.End { return icwire.End{Content: p.content, Dbid: p.dbid} }

// stop ends everything but the status.
func (p *Proxy) stop() {
	p.mu.Lock()
	l, u := p.listener, p.socket
	p.listener, p.socket = nil, nil
	p.mu.Unlock()
	if u != nil {
		u.close()
	}
	if l != nil {
		l.Close()
	}
	for _, pr := range p.all() {
		pr.remove()
	}
}

func (p *Proxy) all() []*peer {
	p.mu.RLock()
	defer p.mu.RUnlock()
	l := make([]*peer, 0, len(p.peers))
	for _, pr := range p.peers {
		l = append(l, pr)
	}
	return l
}

func (p *Proxy) listening() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.listener != nil
}

// payload is the longest payload sent in one DATA packet. Longer would be
// refused by Greenplum's proxies.
func (p *Proxy) payload() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.maxData
}

// maxPacket is the longest packet accepted from peers. A peer may already have
// been told a longer gp_max_packet_size than this proxy, not a shorter default.
func (p *Proxy) maxPacket(d icwire.Dialect) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return min(max(p.facts.MaxPacket, icwire.DefaultPayload)+d.HeaderLen(), icwire.MaxPacketLen)
}

// unfit says why this proxy cannot serve any backend at all. It is called with
// p.mu held.
func (p *Proxy) unfit() string {
	_, there := p.facts.Addresses.Lookup(p.dbid)
	switch {
	case len(p.facts.Addresses) == 0 && p.confErr != "":
		return fmt.Sprintf("the proxy of %s has no addresses: %s", p.label, p.confErr)
	case len(p.facts.Addresses) == 0:
		return fmt.Sprintf("the proxy of %s has no addresses: gp_interconnect_proxy_addresses is not set", p.label)
	case !there:
		return fmt.Sprintf("%s is missing in gp_interconnect_proxy_addresses", p.label)
	case p.listener == nil:
		return fmt.Sprintf("the proxy of %s cannot listen on %s: %s", p.label, p.listenAddr(), p.listenErr)
	}
	return ""
}

func (p *Proxy) listenAddr() string {
	own, _ := p.facts.Addresses.Lookup(p.dbid)
	return own.Addr()
}

// whyEnded puts the end of a trunk into words.
func whyEnded(err error) string {
	switch {
	case errors.Is(err, trunk.ErrClosed):
		return "closed by this proxy"
	case errors.Is(err, io.EOF):
		return "the peer closed the connection"
	case errors.Is(err, syscall.ETIMEDOUT):
		return "the peer's host has been silent for too long (" + guc.ProxyPeerTimeout + ")"
	}
	return reason(err)
}

// reason is err without the addresses, which are told elsewhere.
func reason(err error) string {
	var op *net.OpError
	var dial *dialError
	var dns *net.DNSError
	var sys syscall.Errno
	switch {
	case errors.As(err, &dial):
		return dial.text
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.As(err, &op) && op.Timeout():
		return "timed out"
	case errors.As(err, &sys):
		return sys.Error()
	case op != nil:
		return op.Err.Error()
	}
	return err.Error()
}
