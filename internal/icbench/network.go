package icbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/topology"
)

const (
	loopback = "127.0.0.1"
	// firstPort is the coordinator's in a network of the cluster's own.
	firstPort = 15432
	// proxyDelta leads from an instance's port to its proxy's.
	proxyDelta = -1000
	// readyTime bounds the waits until something is as it was asked to be.
	readyTime = 30 * time.Second
	// removeTime bounds the removal of a cluster.
	removeTime = 90 * time.Second
)

// site is a cluster and the networks it runs in.
type site struct {
	c    *cluster.Cluster
	dir  string
	net  *wan.Network // nil: the machine's own network
	wide bool         // each instance is on a host of its own
}

// makeSite makes a cluster. What it made is removed by remove, or already when
// it fails.
func (b *bench) makeSite(ctx context.Context, segments int, wide bool) (_ *site, err error) {
	b.sites++
	s := &site{wide: wide, dir: filepath.Join(b.dir, strconv.Itoa(b.sites))}
	defer func() {
		if err != nil && s.net != nil {
			cerr := s.net.Close()
			b.left = errors.Join(b.left, cerr)
			err = errors.Join(err, cerr)
		}
	}()
	hosts := 2 // the least there can be; one of them is used
	if wide {
		hosts = segments + 1
	}
	port := firstPort
	switch err := wan.Available(); {
	case err == nil:
		if s.net, err = wan.New(wan.Config{Hosts: hosts}); err != nil {
			return nil, err
		}
	case wide:
		return nil, err
	default:
		if port, err = freeport.Adjacent(segments+1, proxyDelta); err != nil {
			return nil, err
		}
	}
	o := cluster.Options{
		Dir: s.dir, Segments: segments, Port: port, Binary: b.opt.Binary, Bootstrap: b.opt.Bootstrap,
		Conf: []string{
			"gp_interconnect_proxy_addresses='" + s.addresses(segments, port).String() + "'",
			// Nothing shall be written while something is measured, and nobody
			// needs the data after a crash.
			"fsync=off", "synchronous_commit=off", "autovacuum=off", "checkpoint_timeout=1h", "max_wal_size=8GB",
			"shared_buffers=64MB", fmt.Sprintf("max_connections=%d", maxConnections(&b.opt)),
		},
		Progress: func(line string) { b.say("%d segments: %s", segments, line) },
	}
	if s.net != nil {
		o.Host = func(i topology.Instance) cluster.Host {
			return cluster.Host{Address: s.address(int(i.Content)), Do: s.host(int(i.Content)).Do}
		}
	}
	if s.c, err = cluster.Create(ctx, o); err != nil {
		return nil, err
	}
	return s, nil
}

// host is where the instance with that content id runs; nil is the machine.
func (s *site) host(content int) *wan.Host {
	switch {
	case s.net == nil:
		return nil
	case s.wide:
		return s.net.Host(content + 1)
	}
	return s.net.Host(0)
}

func (s *site) address(content int) string {
	if s.wide {
		return s.host(content).Addr().String()
	}
	return loopback
}

// addresses is gp_interconnect_proxy_addresses.
func (s *site) addresses(segments, port int) topology.AddressList {
	var list topology.AddressList
	for content := -1; content < segments; content++ {
		list = append(list, topology.Entry{
			Dbid: uint16(content + 2), Content: int16(content), Host: s.address(content), Port: port + content + 1 + proxyDelta,
		})
	}
	return list
}

// dial connects to an instance's port from the instance's own host, so that no
// client's traffic is on the wide area network.
func (s *site) dial(ctx context.Context, content int, address string) (net.Conn, error) {
	if h := s.host(content); h != nil {
		return h.Dial(ctx, "tcp4", address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp4", address)
}

// remove removes a site, also when ctx has ended, and remembers what it could not.
func (b *bench) remove(ctx context.Context, s *site) error {
	err := s.remove(ctx)
	b.left = errors.Join(b.left, err)
	return err
}

// remove ends the cluster and its networks.
func (s *site) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	err := s.c.Destroy(ctx)
	if s.net != nil {
		err = errors.Join(err, s.net.Close())
	}
	return err
}

// renewProxies ends every proxy, which its instance starts again, and waits
// until they are connected: what their connections have learnt of a link is
// not to last longer than the link.
func (s *site) renewProxies(ctx context.Context) error {
	var g errgroup.Group
	for _, inst := range s.c.Instances() {
		g.Go(func() error { return renewProxy(ctx, inst) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.c.AwaitProxies(ctx, readyTime)
}

func renewProxy(ctx context.Context, inst topology.Instance) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("the proxy is not there again after %v", readyTime))
	defer cancel()
	old := 0
	for {
		st, err := instance.ReadStatus(ctx, datadir.Dir(inst.Datadir))
		switch pid := st.Proxy.Pid; {
		case err != nil || pid == 0:
		case old == 0:
			old = pid
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		case pid != old && st.Proxy.State == instance.Ready:
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%v: %w", inst, context.Cause(ctx))
		}
	}
}

// pids are the processes of the instances by dbid that hold sockets of the
// interconnect.
func (s *site) pids(ctx context.Context) ([]process, error) {
	var list []process
	for _, inst := range s.c.Instances() {
		st, err := instance.ReadStatus(ctx, datadir.Dir(inst.Datadir))
		if err != nil {
			return nil, fmt.Errorf("%v does not say how it is: %w", inst, err)
		}
		list = append(list, process{dbid: inst.Dbid, pid: st.Pid, port: inst.Port})
		if st.Proxy.Pid > 0 {
			list = append(list, process{dbid: inst.Dbid, pid: st.Proxy.Pid, proxy: true})
		}
	}
	return list, nil
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
