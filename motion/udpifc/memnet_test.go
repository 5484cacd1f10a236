package udpifc

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// memNet is a network in memory that loses, delays and doubles datagrams.
type memNet struct {
	oneWay           time.Duration
	loss, dup, delay float64                                             // probabilities; delay: of being overtaken
	filter           func(b []byte, from, to netip.AddrPort) (keep bool) // may be nil

	mu    sync.Mutex
	rng   *rand.Rand
	socks map[netip.AddrPort]*memSocket
	next  uint16
	count int
	// What is under way, in order of arrival.
	flying []memFlight
}

type memFlight struct {
	at time.Time
	to *memSocket
	p  memPacket
}

// hostile is the network of which much is lost, as the tests want it.
func hostile(seed uint64, oneWay time.Duration) *memNet {
	return &memNet{oneWay: oneWay, loss: 0.2, delay: 0.2, dup: 0.05, rng: rand.New(rand.NewPCG(seed, 2))}
}

func perfect(oneWay time.Duration) *memNet {
	return &memNet{oneWay: oneWay, rng: rand.New(rand.NewPCG(1, 1))}
}

// attach has an executor use the network.
func (n *memNet) attach(ic *Interconnect) { ic.socket = n.open }

func (n *memNet) open() (packetConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	s := &memSocket{net: n, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n.next), in: make(chan memPacket, 4096), closed: make(chan struct{})}
	if n.socks == nil {
		n.socks = map[netip.AddrPort]*memSocket{}
	}
	n.socks[s.addr] = s
	return s, nil
}

// sent is how many datagrams were sent so far.
func (n *memNet) sent() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}

type memPacket struct {
	b    []byte
	from netip.AddrPort
}

type memSocket struct {
	net    *memNet
	addr   netip.AddrPort
	in     chan memPacket
	once   sync.Once
	closed chan struct{}
}

func (s *memSocket) send(b []byte, to netip.AddrPort) error {
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count++
	if n.filter != nil && !n.filter(b, s.addr, to) {
		return nil
	}
	copies := 1
	if n.rng.Float64() < n.dup {
		copies = 2
	}
	for range copies {
		if n.rng.Float64() < n.loss {
			continue
		}
		delay := n.oneWay
		if n.rng.Float64() < n.delay {
			delay += time.Duration(n.rng.Int64N(int64(4*n.oneWay) + 1))
		}
		p, dst := memPacket{append([]byte(nil), b...), s.addr}, n.socks[to]
		if dst == nil {
			continue
		}
		f := memFlight{time.Now().Add(delay), dst, p}
		i := len(n.flying)
		for i > 0 && n.flying[i-1].at.After(f.at) {
			i--
		}
		n.flying = slices.Insert(n.flying, i, f)
		time.AfterFunc(delay, n.deliver)
	}
	return nil
}

// deliver hands over what is due.
func (n *memNet) deliver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := 0
	for now := time.Now(); k < len(n.flying) && !n.flying[k].at.After(now); k++ {
		n.flying[k].to.arrive(n.flying[k].p)
	}
	n.flying = slices.Delete(n.flying, 0, k)
}

func (s *memSocket) arrive(p memPacket) {
	select {
	case s.in <- p:
	default: // no room in the socket's buffer
	}
}

func (s *memSocket) recv(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.in:
		return copy(b, p.b), p.from, nil
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *memSocket) port() int { return int(s.addr.Port()) }

func (s *memSocket) Close() error {
	err := errors.New("closed twice")
	s.once.Do(func() {
		close(s.closed)
		s.net.mu.Lock()
		delete(s.net.socks, s.addr)
		s.net.mu.Unlock()
		err = nil
	})
	return err
}

// executors makes n executors on a network.
func (n *memNet) executors(t *testing.T, count int, cfg Config) []node {
	nodes := make([]node, count)
	for i := range nodes {
		ic, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ic.Close() })
		n.attach(ic)
		nodes[i] = newNodeOf(i, ic)
	}
	return nodes
}
