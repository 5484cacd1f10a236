package proxybench

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

// longLink is the link on which one stream is compared with plain TCP.
var longLink = wan.Link{Delay: 25 * time.Millisecond, Rate: 500e6}

const (
	longLinkLabel = "1 stream over 50 ms, 500 Mbit/s"

	// linkWarmUp is how long a stream runs there before it counts: TCP's slow
	// start, and the release of the queue that has built.
	linkWarmUp = 2 * time.Second
)

// link measures one stream over an emulated long link, in two hosts: through
// proxies, and through a byte pump, which is plain TCP.
func (b *bench) link(ctx context.Context, size int, sc scale) error {
	res := Result{Mode: "link", Label: longLinkLabel, Streams: 1, Size: size}
	if err := wan.Available(); err != nil {
		res.Notes = append(res.Notes, "not measured: "+err.Error())
		b.add(res)
		return nil
	}
	n, err := wan.New(wan.Config{Hosts: 2, Link: longLink})
	if err != nil {
		return err
	}
	defer n.Close()
	far := &bench{
		opt: b.opt, dir: filepath.Join(b.dir, "link"), socks: b.socks, report: b.report,
		hosts: []*wan.Host{n.Host(0), n.Host(1)},
	}
	defer far.clean()
	if err := os.Mkdir(far.dir, 0o700); err != nil {
		return err
	}
	ends, _, err := far.startProxies(ctx, "proxy", proxyWord)
	if err != nil {
		return err
	}
	if far.proxies, err = newProxyPath(b.socks, ends, b.opt.Dialect); err != nil {
		return err
	}
	if b.opt.Pump != "" {
		if far.pump, err = far.startPump(ctx, b.opt.Pump, PathPump); err != nil {
			return err
		}
	}
	res.Notes = append(res.Notes, "congestion control "+n.CongestionControl())
	pat := newPattern(size)
	return far.rounds(ctx, res, far.paths(), sc.rounds, func(p path) (Figures, error) {
		r, err := throughputAfter(ctx, p, pat, 1, min(linkWarmUp, sc.time), sc.time)
		return Figures{MBps: r.mbps}, err
	})
}

// host is where child number i of two runs; nil is this machine itself.
func (b *bench) host(i int) *wan.Host {
	if b.hosts == nil {
		return nil
	}
	return b.hosts[i]
}

// address is child number i's.
func (b *bench) address(i int) string {
	if h := b.host(i); h != nil {
		return h.Addr().String()
	}
	return "127.0.0.1"
}
