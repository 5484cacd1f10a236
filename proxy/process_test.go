package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/topology"
)

// processEnv makes this test binary the proxy of a data directory.
const processEnv = "TRUNKLINE_TEST_PROXY"

func runProcess(dir datadir.Dir) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := ConfigFor(dir)
	cfg.Dialect, cfg.Log = DialectMagic36, slog.New(slog.NewTextHandler(os.Stderr, nil))
	var p *Proxy
	if err == nil {
		p, err = New(cfg)
	}
	if err == nil {
		err = p.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a proxy in a process of its own.
type process struct {
	*node
	cmd    *exec.Cmd
	status string
}

// fakePostmaster numbers the servers that are not there.
var fakePostmaster atomic.Int32

// startProcess starts a proxy by start, cmd.Start itself or that of a host.
func startProcess(t *testing.T, dbid uint16, content int16, list topology.AddressList, conf string, start func(*exec.Cmd) error) *process {
	t.Helper()
	text, err := os.MkdirTemp("", "ic")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(text) })
	dir := datadir.Dir(text)
	pid := os.Getpid()*100 + int(fakePostmaster.Add(1))
	write(t, dir.InternalAutoConf(), fmt.Sprintf("gp_dbid=%d\n", dbid))
	write(t, dir.Conf(), fmt.Sprintf("gp_contentid=%d\ngp_interconnect_proxy_addresses='%v'\n%s", content, list, conf))
	write(t, dir.PostmasterPid(), fmt.Sprintf("%d\n%s\n1\n15432\n", pid, dir))
	p := &process{status: dir.ProxySocket()}
	p.node = &node{t: t, dir: "/tmp", pid: pid, facts: Facts{Dbid: dbid, Content: content, Addresses: list}}
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), processEnv+"="+text)
	p.cmd.Stderr = logWriter{t, fmt.Sprint(dbid)}
	if err := start(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("the proxy of dbid %d: %v", dbid, err)
		}
		if left, _ := filepath.Glob(p.socket() + "*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	until(t, "the proxy's status", func() bool { return p.read().Socket != "" })
	return p
}

// read is the status; it is zero while the proxy does not answer.
func (p *process) read() Status {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, _ := ReadStatus(ctx, p.status)
	return s
}

func (p *process) untilConnected() {
	p.t.Helper()
	until(p.t, "all peers", func() bool { s := p.read(); return s.Dbid != 0 && s.Healthy() })
}

// connected makes a connection whose two ends have heard of each other.
func connected(t *testing.T, from, to *node, pid int32) (s, r *net.UnixConn) {
	t.Helper()
	k := key(from.facts.Dbid, to.facts.Dbid, pid, 1)
	r, s = to.hello(back(k)), from.hello(k)
	mustWrite(t, s, ictcp(1, 100, 0))
	mustRead(t, r, ictcp(1, 100, 0))
	return s, r
}

const briefLimits = "trunkline.proxy_peer_timeout=1\ntrunkline.proxy_dial_timeout=0.5\ntrunkline.proxy_grace=0.3\n"

// A peer's process that hangs still has a kernel that acknowledges. It is given
// up all the same, its backends' partners end, and it is served again when it
// wakes up.
func TestPeerProcessHangs(t *testing.T) {
	list := addresses(t, 2)
	qd := startProcess(t, 1, -1, list, briefLimits, (*exec.Cmd).Start)
	seg := startProcess(t, 2, 0, list, briefLimits, (*exec.Cmd).Start)
	seg.untilConnected()
	for name, c := range map[string]struct {
		hangs, other *process
		cause        string
	}{
		"the dialled one": {qd, seg, "the proxy of seg-1 (dbid 1) at " + list[0].Addr() + " cannot be reached from the proxy of seg0 (dbid 2): "},
		"the dialler":     {seg, qd, "the proxy of seg0 (dbid 2) has not connected to the proxy of seg-1 (dbid 1): "},
	} {
		t.Run(name, func(t *testing.T) {
			qd.t, seg.t = t, t
			s, _ := connected(t, c.other.node, c.hangs.node, 10)
			_, r := connected(t, c.hangs.node, c.other.node, 11)
			if err := c.hangs.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			mustEOF(t, s)
			mustEOF(t, r)
			cause := c.other.read().Cause(c.hangs.facts.Dbid)
			if !strings.HasPrefix(cause, c.cause) || !strings.Contains(cause, "no sign of life for 1s") && !strings.Contains(cause, "did not answer our hello") {
				t.Errorf("cause %q", cause)
			}
			// Beside Greenplum a backend is answered before it is turned away.
			mustEOF(t, c.other.hello(key(c.other.facts.Dbid, c.hangs.facts.Dbid, 12, 1)))
			if err := c.hangs.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			qd.untilConnected()
			seg.untilConnected()
			connected(t, seg.node, qd.node, 13)
		})
	}
}

// Descriptors that silent connections have used up are taken from them: a
// backend is served all the same.
func TestDescriptorsRunOut(t *testing.T) {
	list := addresses(t, 1)
	n := startProcess(t, 1, -1, list, "trunkline.proxy_hello_timeout=60\n", (*exec.Cmd).Start)
	const limit = 48
	if err := unix.Prlimit(n.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * limit {
		network, address := "tcp", list[0].Addr()
		if i%2 == 1 {
			network, address = "unix", n.socket()
		}
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	k := key(1, 1, 10, 1)
	a, b := n.hello(k), n.hello(back(k))
	mustWrite(t, a, ictcp(1, 100, 0))
	mustRead(t, b, ictcp(1, 100, 0))
	until(t, "the count", func() bool { return n.read().Rejections["crowded"] > 0 })
}

// A cut line: no answer, no refusal, nothing. Whether there is something to
// send or not, and whether the peer is Trunkline or Greenplum, it is noticed
// within the limit, named, and the connections end; mended, they come back.
func TestCutLine(t *testing.T) {
	if err := wan.Available(); err != nil {
		t.Skip(err)
	}
	network, err := wan.New(wan.Config{Hosts: 2, Link: wan.Link{Delay: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	at := func(dbid uint16, content int16, host, port int) topology.Entry {
		return topology.Entry{Dbid: dbid, Content: content, Host: network.Host(host).Addr().String(), Port: port}
	}
	t.Run("Trunkline", func(t *testing.T) {
		list := topology.AddressList{at(1, -1, 0, 5001), at(2, 0, 1, 5002)}
		qd := startProcess(t, 1, -1, list, briefLimits, network.Host(0).Start)
		seg := startProcess(t, 2, 0, list, briefLimits, network.Host(1).Start)
		seg.untilConnected()
		qd.untilConnected()
		for _, busy := range []bool{false, true} {
			s, r := connected(t, seg.node, qd.node, 10)
			if busy {
				go func() {
					b := ictcp(1, 8192, 0)
					for {
						if _, err := s.Write(b); err != nil {
							return
						}
					}
				}()
				go func() {
					b := make([]byte, 64<<10)
					for {
						if _, err := r.Read(b); err != nil {
							return
						}
					}
				}()
				time.Sleep(50 * time.Millisecond)
			}
			network.Cut(0, 1)
			until(t, "the end on both sides", func() bool {
				a, b := seg.read(), qd.read()
				return a.Backends+b.Backends == 0
			})
			for _, s := range []Status{seg.read(), qd.read()} {
				if len(s.Missing()) != 1 || s.Peers[0].Error == "" {
					t.Errorf("busy %v: %+v", busy, s.Peers)
				}
				t.Logf("busy %v: %s", busy, s.Peers[0].Cause)
			}
			// Attempts are not answered either.
			until(t, "an attempt to fail", func() bool {
				return strings.Contains(seg.read().Cause(1), "no answer to our attempt to connect within 500ms")
			})
			mustEOF(t, seg.hello(key(2, 1, 12, 1)))
			network.Mend(0, 1)
			qd.untilConnected()
			seg.untilConnected()
			connected(t, seg.node, qd.node, 13)
		}
	})
	t.Run("Greenplum", func(t *testing.T) {
		ln, err := network.Host(0).Listen(t.Context(), "tcp4", ":5003")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		list := topology.AddressList{at(1, -1, 0, 5003), at(2, 0, 1, 5004)}
		seg := startProcess(t, 2, 0, list, briefLimits, network.Host(1).Start)
		for _, busy := range []bool{false, true} {
			g := acceptAs(t, ln, list[0])
			k := key(2, 1, 10, 1)
			s := seg.hello(k)
			network.Cut(0, 1)
			if busy {
				mustWrite(t, s, ictcp(1, 100, 0))
			}
			mustEOF(t, s)
			if got := seg.read().Peers[0].Error; !strings.Contains(got, "silent") && !strings.Contains(got, "no answer") && !strings.Contains(got, "no route") {
				t.Errorf("busy %v: %q", busy, got)
			}
			t.Logf("busy %v: %s", busy, seg.read().Peers[0].Error)
			g.Close()
			network.Mend(0, 1)
		}
		acceptAs(t, ln, list[0]).Close()
	})
}

// acceptAs takes a proxy's next connection as Greenplum's proxy of an instance.
// Connections of attempts that have been given up are passed over.
func acceptAs(t *testing.T, l net.Listener, own topology.Entry) *greenplum {
	t.Helper()
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		h, d, err := readHello(c, icwire.PeerHello)
		if err == nil {
			_, err = c.Write(h.PeerHelloAck(4711).Append(nil, d))
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			c.Close()
			continue
		}
		if h.DstDbid != own.Dbid || h.DstContent != own.Content {
			t.Fatalf("%v dials dbid %d", h, own.Dbid)
		}
		t.Cleanup(func() { c.Close() })
		return &greenplum{t, c, d}
	}
}
