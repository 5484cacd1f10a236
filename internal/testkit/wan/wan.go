package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what New builds.
type Config struct {
	Hosts int  // 2 to 16
	Link  Link // of each direction of each pair to begin with
	// MTU in bytes, 576 to 65535; 0 is 1500. A large one saves work a byte, but
	// loss, order and rate then act on packets of that size.
	MTU int
	// TCPBuffer is up to how many bytes TCP may size each socket's receive and
	// send buffer by itself; 0 is 32 MB, enough for 2 Gbit/s over 50 ms.
	TCPBuffer int
	// CongestionControl is that of new TCP sockets; "" is the machine's own. A
	// namespace is allowed only what the machine's
	// net.ipv4.tcp_allowed_congestion_control lists.
	CongestionControl string
}

const (
	minHosts, maxHosts = 2, 16
	minMTU, maxMTU     = 576, 65535
	defaultMTU         = 1500
	defaultTCPBuffer   = 32 << 20
	minTCPBuffer       = 4096
	networkBits        = 24
)

// hostAddr is the address of the i-th host; the switch reads i back out of it.
func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}) }

func (c Config) withDefaults() Config {
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	if c.TCPBuffer == 0 {
		c.TCPBuffer = defaultTCPBuffer
	}
	return c
}

func (c Config) check() error {
	var errs []error
	if c.Hosts < minHosts || c.Hosts > maxHosts {
		errs = append(errs, fmt.Errorf("wan: Hosts is %d, must be between %d and %d", c.Hosts, minHosts, maxHosts))
	}
	if c.MTU < minMTU || c.MTU > maxMTU {
		errs = append(errs, fmt.Errorf("wan: MTU is %d, must be between %d and %d", c.MTU, minMTU, maxMTU))
	}
	if c.TCPBuffer < minTCPBuffer || c.TCPBuffer > 1<<30 {
		errs = append(errs, fmt.Errorf("wan: TCPBuffer is %d bytes, must be between %d and %d", c.TCPBuffer, minTCPBuffer, 1<<30))
	}
	return errors.Join(append(errs, c.Link.check())...)
}

// Network is a number of hosts and the links between them. Its methods may be
// called from any goroutine, except that Close must be the last.
type Network struct {
	hosts    []*Host
	ports    []*port // by receiving host
	wg       sync.WaitGroup
	closing  sync.Once
	closeErr error
	unrouted atomic.Uint64
	tcp      string // congestion control
}

// New builds the network and starts its switch. It is the caller's to Close.
func New(cfg Config) (*Network, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Network{}
	epoch := time.Now()
	for i := range cfg.Hosts {
		if err := n.addHost(i, cfg, epoch); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	// Only now does each port know where the packets read may go.
	for i := range n.hosts {
		n.wg.Add(2)
		go func() {
			defer n.wg.Done()
			n.ports[i].run()
		}()
		go func() {
			defer n.wg.Done()
			n.read(i, cfg.MTU)
		}()
	}
	return n, nil
}

func (n *Network) addHost(i int, cfg Config, epoch time.Time) error {
	addr := hostAddr(i)
	var device *os.File
	ns, err := newNamespace(func() (err error) {
		if n.tcp, err = setSysctls(cfg); err == nil {
			device, err = openDevice(netip.PrefixFrom(addr, networkBits), cfg.MTU)
		}
		return err
	})
	if err != nil {
		return err
	}
	h := &Host{name: fmt.Sprintf("host%d", i), addr: addr, ns: ns}
	alarm, err := newAlarm()
	if err != nil {
		return errors.Join(err, device.Close(), ns.Close())
	}
	p := &port{device: device, alarm: alarm, epoch: epoch, paths: make([]*path, cfg.Hosts)}
	for from := range p.paths {
		if from != i {
			id := uint64(from*maxHosts + i)
			p.paths[from] = &path{id: id, model: newModel(cfg.Link, id)}
		}
	}
	n.hosts, n.ports = append(n.hosts, h), append(n.ports, p)
	return nil
}

// read passes on what the host sends until its device is closed.
func (n *Network) read(from, mtu int) {
	buf := make([]byte, mtu)
	device := n.ports[from].device
	for {
		size, err := device.Read(buf)
		if err != nil {
			return
		}
		if to := destination(buf[:size]); to >= 0 && to < len(n.ports) && to != from {
			n.ports[to].accept(from, buf[:size])
		} else {
			n.unrouted.Add(1)
		}
	}
}

// destination is the number of the host that an IP packet is for, which may
// be beyond the last; negative for what is not IPv4 or for another network.
func destination(packet []byte) int {
	const headerSize, dst = 20, 16
	if len(packet) < headerSize || packet[0]>>4 != 4 {
		return -1
	}
	net := hostAddr(0).As4()
	if [3]byte(packet[dst:dst+3]) != [3]byte(net[:3]) {
		return -1
	}
	return int(packet[dst+3]) - 1
}

// Hosts is the number of hosts.
func (n *Network) Hosts() int { return len(n.hosts) }

// Host returns the i-th host, counted from 0. It panics when there is none.
func (n *Network) Host(i int) *Host { return n.hosts[i] }

// way returns the path between two different hosts and its port. It panics
// when there is none, as an index does.
func (n *Network) way(from, to int) (*port, *path) {
	p := n.ports[to]
	w := p.paths[from]
	if w == nil {
		panic(fmt.Sprintf("wan: there is no link from host %d to itself", from))
	}
	return p, w
}

// SetLink changes both directions between two hosts for the packets to come.
// Those under way arrive as they would have; the later ones do not overtake
// them unless held back or delayed otherwise. Another Seed than before starts
// the fates anew.
func (n *Network) SetLink(a, b int, l Link) error {
	return errors.Join(n.SetPath(a, b, l), n.SetPath(b, a, l))
}

// SetPath is SetLink for one direction.
func (n *Network) SetPath(from, to int, l Link) error {
	if err := l.check(); err != nil {
		return err
	}
	p, w := n.way(from, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Seed != w.model.link.Seed {
		w.model.reseed(l.Seed, w.id)
	}
	w.model.set(l)
	return nil
}

// Path returns the link of one direction, defaults filled in.
func (n *Network) Path(from, to int) Link {
	p, w := n.way(from, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.model.link
}

// Cut cuts both directions between two hosts: what is under way is lost, and
// so is what comes until Mend. Nobody is told.
func (n *Network) Cut(a, b int) {
	n.SetCut(a, b, true)
	n.SetCut(b, a, true)
}

// Mend undoes Cut.
func (n *Network) Mend(a, b int) {
	n.SetCut(a, b, false)
	n.SetCut(b, a, false)
}

// SetCut cuts or mends one direction.
func (n *Network) SetCut(from, to int, cut bool) {
	p, w := n.way(from, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if cut {
		w.age++
	}
	w.model.setCut(cut)
}

// Counters returns what one direction has carried and dropped so far.
func (n *Network) Counters(from, to int) Counters {
	p, w := n.way(from, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.count
}

// Total is the sum of the Counters of all directions.
func (n *Network) Total() Counters {
	var sum Counters
	for to := range n.hosts {
		for from := range n.hosts {
			if from != to {
				sum.add(n.Counters(from, to))
			}
		}
	}
	return sum
}

// CongestionControl is that of the hosts' TCP sockets: "cubic", "bbr" and so on.
func (n *Network) CongestionControl() string { return n.tcp }

// Unrouted is the number of packets that were for none of the hosts: broad-
// and multicast, IPv6, addresses that do not exist.
func (n *Network) Unrouted() uint64 { return n.unrouted.Load() }

// Close kills the processes inside the hosts, takes the links down and ends
// the switch. Sockets of this process keep their namespace, without its
// device, until they are closed too. Further calls return the same error.
func (n *Network) Close() error {
	n.closing.Do(func() {
		var errs []error
		for _, h := range n.hosts {
			errs = append(errs, h.killAll())
		}
		for _, p := range n.ports {
			errs = append(errs, p.close())
		}
		n.wg.Wait()
		for _, h := range n.hosts {
			errs = append(errs, h.ns.Close())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}
