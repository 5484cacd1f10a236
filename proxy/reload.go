package proxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/topology"
)

// reload reads the configuration and applies the difference to what is in
// force. It runs in Run's goroutine only.
func (p *Proxy) reload(ctx context.Context) error {
	f, err := p.cfg.Source.Facts()
	if err == nil {
		p.applyTimes(f)
	}
	p.origins.forget(f.Addresses)
	switch {
	case err != nil:
	case f.AddressError != nil:
		err = f.AddressError
	case f.Dbid != p.dbid || f.Content != p.content:
		err = fmt.Errorf("this is the proxy of %s, the configuration now says %s: restart it", p.label, instanceName(f.Content, f.Dbid))
	}
	p.mu.Lock()
	if p.paramErr = ""; f.ParameterError != nil {
		p.paramErr = strings.ReplaceAll(f.ParameterError.Error(), "\n", "; ")
	}
	if err == nil || p.maxData == 0 {
		p.maxData = min(icwire.DefaultPayload, cmp.Or(f.MaxPacket, icwire.DefaultPayload))
	}
	if err != nil {
		p.confErr = err.Error()
		p.mu.Unlock()
		p.log.Error("the configuration cannot be used, the one before stays in force", "error", err)
		return err
	}
	p.confErr = ""
	if p.paramErr != "" {
		p.log.Error("parameters that cannot be used have their defaults", "error", p.paramErr)
	}
	diff := topology.Diff(p.facts.Addresses, f.Addresses)
	p.facts = f
	var gone []*peer
	var dialled []*peer
	drop := func(e topology.Entry) {
		if pr := p.peers[e.Dbid]; pr != nil && e.Dbid != p.dbid {
			gone = append(gone, pr)
			delete(p.peers, e.Dbid)
		}
	}
	add := func(e topology.Entry) {
		if e.Dbid == p.dbid {
			return
		}
		pr := p.newPeer(e, p.roleOf(e))
		p.peers[e.Dbid] = pr
		if pr.role == WeDial {
			dialled = append(dialled, pr)
		}
	}
	for _, e := range diff.Removed {
		drop(e)
	}
	for _, c := range diff.Changed {
		drop(c.Old)
		add(c.New)
	}
	for _, e := range diff.Added {
		add(e)
	}
	p.mu.Unlock()

	if !diff.Empty() {
		p.log.Info("addresses applied", "added", len(diff.Added), "changed", len(diff.Changed), "removed", len(diff.Removed), "all", len(f.Addresses))
	}
	for _, pr := range gone {
		pr.remove()
	}
	p.listen(ctx)
	for _, pr := range dialled {
		dctx, cancel := context.WithCancel(ctx)
		pr.cancel = cancel
		p.wg.Go(func() { pr.dial(dctx) })
	}
	for _, pr := range p.all() {
		if pr.role == WeDial && !slices.Contains(dialled, pr) {
			p.wg.Go(func() { pr.resolveAgain(ctx) })
		}
	}
	return nil
}

// roleOf is who dials: of two instances the one with the greater content,
// never one of the same content.
func (p *Proxy) roleOf(e topology.Entry) Role {
	switch {
	case e.Content < p.content:
		return WeDial
	case e.Content > p.content:
		return DialsUs
	}
	return NoDial
}

// listen binds the listener to the address the own entry says, if it is not
// bound there already. A name is resolved again.
func (p *Proxy) listen(ctx context.Context) {
	p.mu.RLock()
	own, ok := p.facts.Addresses.Lookup(p.dbid)
	old := p.listener
	p.mu.RUnlock()
	if !ok {
		p.setListener(nil, "")
		if old != nil {
			p.log.Info("no longer listening to peers", "address", old.addr)
			old.Close()
		}
		return
	}
	addrs, err := p.resolve(ctx, own)
	if err == nil && old != nil && slices.Contains(addrs, old.addr) {
		return
	}
	if err != nil && old != nil && own.Addr() == old.entry {
		return // as good as it was
	}
	var l net.Listener
	if err == nil {
		l, err = net.Listen("tcp", addrs[0])
		if err != nil && old != nil {
			// The same port of a wider or narrower address.
			old.Close()
			l, err = net.Listen("tcp", addrs[0])
		}
	}
	if old != nil {
		old.Close()
	}
	if err != nil {
		err = p.whyNotBound(own, addrs, err)
		p.setListener(nil, reason(err))
		p.log.limited("listen", slog.LevelError, "cannot listen to peers", "address", own.Addr(), "error", reason(err))
		return
	}
	p.setListener(&peerListener{Listener: l, addr: addrs[0], entry: own.Addr()}, "")
	p.log.forget("listen")
	p.log.Info("listening to peers", "address", own.Addr())
	p.wg.Go(func() { p.acceptPeers(ctx, l) })
}

func (p *Proxy) setListener(l *peerListener, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.listenErr = l, why
}

// resolve returns the addresses, "ip:port", of an entry's host.
func (p *Proxy) resolve(ctx context.Context, e topology.Entry) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.times().DialTimeout)
	defer cancel()
	ips, err := p.lookup(ctx, e.Host)
	if err != nil {
		return nil, err
	}
	l := make([]string, len(ips))
	for i, ip := range ips {
		l[i] = netip.AddrPortFrom(ip, uint16(e.Port)).String()
	}
	return l, nil
}

// resolveAgain closes the connection to a peer whose name leads elsewhere now,
// and lets one that could not be reached be tried at once.
func (pr *peer) resolveAgain(ctx context.Context) {
	defer pr.hurry()
	if _, err := netip.ParseAddr(pr.entry.Host); err == nil {
		return
	}
	addrs, err := pr.p.resolve(ctx, pr.entry)
	if err != nil {
		return // where it leads to is unknown; the connection still works
	}
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if t := pr.trunk; t != nil && !slices.Contains(addrs, pr.remote) {
		pr.p.log.Info("a peer's name has a new address", "peer", pr.label, "host", pr.entry.Host, "old", pr.remote, "new", addrs[0])
		pr.lose("its name has a new address")
		t.Close()
	}
}
