package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// originFresh is how long an address counts as a host's without asking again;
// originPause is the least time between two questions for one host, however
// many connections are made in its name.
const (
	originFresh = 10 * time.Second
	originPause = time.Second
)

// origins knows where the hosts of the address list are.
type origins struct {
	mu    sync.Mutex
	hosts map[string]*origin
}

type origin struct {
	addrs  []netip.Addr
	err    error
	asked  time.Time
	asking bool
}

// forget makes every host be looked up again, for names may have new addresses,
// and drops those that the list no longer has. Where the others were stays
// known, in case nobody answers.
func (o *origins) forget(list topology.AddressList) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for host, h := range o.hosts {
		if !slices.ContainsFunc(list, func(e topology.Entry) bool { return e.Host == host }) {
			delete(o.hosts, host)
		}
		h.asked = time.Time{}
	}
}

// comesFrom checks that a connection made in the name of a peer comes from an
// address of its host.
func (p *Proxy) comesFrom(ctx context.Context, e topology.Entry, from net.Addr) error {
	tcp, ok := from.(*net.TCPAddr)
	if !ok || p.anySource.Load() {
		return nil
	}
	addr := plain(tcp.AddrPort().Addr())
	ours := sync.OnceValue(func() []netip.Addr { return localAddrs() })
	belongs := func(addrs []netip.Addr) bool {
		if slices.Contains(addrs, addr) {
			return true
		}
		// An instance on this very host: the kernel chose the source.
		return isLocal(addr, ours) && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return isLocal(a, ours) })
	}
	addrs, err := p.whereIs(ctx, e.Host, belongs)
	switch {
	case belongs(addrs):
		return nil
	case err != nil:
		return refusef(rejAddress, refuseAddress, "a connection from %v in the name of %s, whose host's addresses are not known: %s",
			addr, instanceName(e.Content, e.Dbid), reason(err))
	}
	host := listAddrs(addrs)
	if host != e.Host {
		host = e.Host + ", " + host
	}
	return refusef(rejAddress, refuseAddress, "a connection from %v in the name of %s, whose host is %s (%s = off accepts it)",
		addr, instanceName(e.Content, e.Dbid), host, guc.ProxyCheckSource)
}

// whereIs returns the addresses of a host. Those that suit are taken as they
// were known a moment ago; else the name is looked up, by one at a time.
func (p *Proxy) whereIs(ctx context.Context, host string, suit func([]netip.Addr) bool) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{plain(a)}, nil
	}
	o := &p.origins
	o.mu.Lock()
	h := o.hosts[host]
	if h == nil {
		if o.hosts == nil {
			o.hosts = map[string]*origin{}
		}
		h = &origin{}
		o.hosts[host] = h
	}
	age := time.Since(h.asked)
	if h.asking || age < originPause || age < originFresh && suit(h.addrs) {
		defer o.mu.Unlock()
		if h.asking && h.addrs == nil {
			return nil, fmt.Errorf("the name %s is being resolved", host)
		}
		return h.addrs, h.err
	}
	h.asking = true
	o.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, p.times().DialTimeout)
	defer cancel()
	addrs, err := p.lookup(ctx, host)
	o.mu.Lock()
	defer o.mu.Unlock()
	h.asking, h.asked, h.err = false, time.Now(), err
	if err == nil { // else they are where they were
		h.addrs = addrs
	}
	return h.addrs, err
}

// lookup asks for a host's addresses.
func (p *Proxy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ips, err := p.cfg.Resolve(ctx, host)
	if err == nil && len(ips) == 0 {
		err = &net.DNSError{Err: "it has no address", Name: host}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = &net.DNSError{Err: fmt.Sprintf("no answer within %v", p.times().DialTimeout), Name: host, IsTimeout: true}
		}
		return nil, err
	}
	for i, a := range ips {
		ips[i] = a.Unmap()
	}
	return ips, nil
}

// plain is an address as it is compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func isLocal(a netip.Addr, ours func() []netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || slices.Contains(ours(), a)
}

// localAddrs are the addresses of this host's interfaces.
func localAddrs() (l []netip.Addr) {
	ifs, _ := net.InterfaceAddrs() // none known: then only loopback is local
	for _, i := range ifs {
		if n, ok := i.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				l = append(l, plain(a))
			}
		}
	}
	return l
}

func listAddrs(addrs []netip.Addr) string {
	s := ""
	for i, a := range addrs {
		if i > 0 {
			s += ", "
		}
		s += a.String()
	}
	return s
}
