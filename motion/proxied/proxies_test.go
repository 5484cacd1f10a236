package proxied_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
	"github.com/trunkline-db/trunkline/motion/proxied"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

// instances are the real proxies of a cluster, with no instances behind them.
type instances struct {
	whole   bool // executors hand over short streams whole
	dir     string
	proxies []*proxy.Proxy
	stop    []context.CancelFunc
	run     []bool
	wg      sync.WaitGroup
}

// startProxies starts the proxies of n instances. dead ones are in the list
// and do not run.
func startProxies(t testing.TB, n int, dead ...int) *instances {
	t.Helper()
	dir, err := os.MkdirTemp("", "ic")
	if err != nil {
		t.Fatal(err)
	}
	is := &instances{dir: dir, proxies: make([]*proxy.Proxy, n), stop: make([]context.CancelFunc, n), run: make([]bool, n)}
	t.Cleanup(func() {
		for i := range n {
			is.kill(i)
		}
		is.wg.Wait()
		os.RemoveAll(dir)
	})
	var list topology.AddressList
	for i := range n {
		port, err := freeport.One()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: "127.0.0.1", Port: port})
	}
	for i := range n {
		p, err := proxy.New(proxy.Config{
			Source: proxy.Source{
				Facts: func() (proxy.Facts, error) {
					return proxy.Facts{Dbid: uint16(i + 1), Content: int16(i - 1), Addresses: list}, nil
				},
				Postmaster: func() (port, pid int, err error) { return i + 1, os.Getpid(), nil },
			},
			Log:       slog.New(slog.DiscardHandler),
			SocketDir: dir,
			Dialect:   proxy.DialectMagic36, // or one side may wait for the other to say hello
		})
		if err != nil {
			t.Fatal(err)
		}
		is.proxies[i] = p
	}
	for i, p := range is.proxies {
		ctx, cancel := context.WithCancel(context.Background())
		is.stop[i] = cancel
		if is.run[i] = !slices.Contains(dead, i); is.run[i] {
			is.wg.Go(func() {
				if err := p.Run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
	is.wait(t)
	return is
}

// wait waits until the proxies that run are connected with each other and listen
// to backends.
func (is *instances) wait(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		missing := ""
		for i, p := range is.proxies {
			st := p.Status()
			if is.run[i] && st.Socket == "" {
				missing = "no socket for backends"
			}
			for _, ps := range st.Peers {
				if is.run[i] && is.run[ps.Dbid-1] && ps.State != proxy.StateConnected {
					missing = ps.Cause
				}
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the proxies do not connect: %s", missing)
		}
	}
}

func (is *instances) kill(i int) { is.stop[i]() }

// executor makes one of the instance's executors.
func (is *instances) executor(t testing.TB, instance, pid int, opt motiontest.Options) motiontest.Node {
	t.Helper()
	name := filepath.Base(datadir.ICProxySocket(instance+1, os.Getpid()))
	return motiontest.Node{
		Interconnect: newIC(t, proxied.Config{
			Socket: func() (string, error) { return filepath.Join(is.dir, name), nil },
			Cause: func(_ context.Context, dbid uint16, lost bool) string {
				return is.proxies[instance].Status().Explain(dbid, lost)
			},
			SetupTimeout: opt.SetupTimeout, TransmitTimeout: opt.TransmitTimeout, MaxPacket: opt.MaxPacket,
			Whole: is.whole,
		}),
		Peer: motion.Peer{Content: int16(instance - 1), Dbid: uint16(instance + 1), Pid: int32(pid)},
	}
}

// TestConformance has some executors on the same instance and some on others.
// The two ways to hand over a stream differ for short ones only.
func TestConformance(t *testing.T) {
	factory := func(whole bool) motiontest.Factory {
		return func(t *testing.T, n int, opt motiontest.Options) []motiontest.Node {
			is := startProxies(t, 3)
			is.whole = whole
			nodes := make([]motiontest.Node, n)
			for i := range nodes {
				nodes[i] = is.executor(t, i%3, 1000+i, opt)
			}
			return nodes
		}
	}
	t.Run("Whole", func(t *testing.T) { motiontest.Run(t, factory(true)) })
	t.Run("Hello", func(t *testing.T) { motiontest.RunShort(t, factory(false)) })
}

// TestPeerUnreachable: both directions fail in time, and say which instance.
func TestPeerUnreachable(t *testing.T) {
	flush := func(from motiontest.Node, to motion.Peer) error {
		s, err := from.Send(t.Context(), id, from.Peer, []motion.Peer{to})
		if err != nil {
			return err
		}
		defer s.Abort()
		return s.Flush(t.Context()) // before that it need not connect
	}
	is := startProxies(t, 3, 1)
	here, there := is.executor(t, 2, 1000, motiontest.Options{}), is.executor(t, 1, 1001, motiontest.Options{})
	start := time.Now()
	err := flush(here, there.Peer)
	wantError(t, start, err, "interconnect error: ", "seg0", "connection refused")
	start = time.Now()
	_, err = here.Receive(t.Context(), id, here.Peer, []motion.Peer{there.Peer})
	wantError(t, start, err, "interconnect error: ", "seg0", "connection refused")

	start = time.Now()
	err = flush(here, motion.Peer{Content: 7, Dbid: 9, Pid: 1})
	wantError(t, start, err, "interconnect error: ", "dbid 9 is not in the address list")
}

// TestPeerDies: a motion under way fails soon at both ends when one of the
// proxies goes.
func TestPeerDies(t *testing.T) {
	is := startProxies(t, 3)
	from, to := is.executor(t, 2, 1000, motiontest.Options{}), is.executor(t, 1, 1001, motiontest.Options{})
	r, err := to.Receive(t.Context(), id, to.Peer, []motion.Peer{from.Peer})
	if err != nil {
		t.Fatal(err)
	}
	s, err := from.Send(t.Context(), id, from.Peer, []motion.Peer{to.Peer})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	is.kill(1)
	_, _, err = r.Receive(t.Context())
	wantError(t, start, err, "interconnect error: connection closed prematurely")
	for err = nil; err == nil; {
		err = s.Send(t.Context(), 0, make([]byte, 1000))
	}
	wantError(t, start, err, "interconnect error: connection closed prematurely", "seg0")
}
