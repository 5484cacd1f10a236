package proxybench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/icwire"
)

// Names of the paths in a report.
const (
	PathProxies = "proxies"
	PathPump    = "byte pump"
	// PathOther is the other kind of byte pump, for comparison.
	PathOther  = "other pump"
	PathDirect = "no proxy" // a socket pair: what the measuring itself costs
)

// Endpoint is one proxy, as its backends see it.
type Endpoint struct {
	Content int16
	Dbid    uint16
	Socket  string // of its backends
}

// path is a way from one backend to another.
type path interface {
	name() string
	// open connects the two ends of a stream, which are the caller's to close.
	// i chooses between the proxies when there are more than two.
	open(i int) (stream, error)
	// pids are the processes in between.
	pids() []int
}

// stream is an open stream: what is written to from comes out of to.
type stream struct {
	from, to *sock
}

func (s stream) close() {
	s.from.close()
	s.to.close()
}

// proxyPath goes through proxies: stream i from endpoint i+1 to endpoint i,
// and with two proxies always from the second to the first.
type proxyPath struct {
	socks   *sockets
	ends    []Endpoint
	dialect icwire.Dialect
	session int32
	command uint32
	opened  atomic.Int64
	ids     []int
}

// newProxyPath finds out the processes of the proxies, and that all answer.
func newProxyPath(socks *sockets, ends []Endpoint, d icwire.Dialect) (*proxyPath, error) {
	// Proxies drop what is of an older command than one they have seen of the
	// same pair, so a later run must have the higher one.
	p := &proxyPath{socks: socks, ends: ends, dialect: d, session: int32(os.Getpid()), command: uint32(time.Now().Unix())}
	for _, e := range ends {
		k, err := socks.dial(e.Socket)
		if err != nil {
			return nil, fmt.Errorf("proxy of dbid %d: %w", e.Dbid, err)
		}
		pid, err := k.peerPid()
		k.close()
		if err != nil {
			return nil, err
		}
		p.ids = append(p.ids, pid)
	}
	return p, nil
}

func (p *proxyPath) name() string { return PathProxies }
func (p *proxyPath) pids() []int  { return p.ids }

// maxPids keeps the made-up process ids in the range of real ones.
const maxPids = 1 << 22

func (p *proxyPath) open(i int) (s stream, err error) {
	n := p.opened.Add(1)
	to := p.ends[i%len(p.ends)]
	from := p.ends[(i+1)%len(p.ends)]
	if len(p.ends) == 2 {
		to, from = p.ends[0], p.ends[1]
	}
	pid := int32(n%maxPids) + 1
	k := icwire.Key{
		Session: p.session, Command: p.command + uint32(n/maxPids), SendSlice: 1, RecvSlice: 0,
		Local:  icwire.End{Content: to.Content, Dbid: to.Dbid, Pid: pid},
		Remote: icwire.End{Content: from.Content, Dbid: from.Dbid, Pid: pid},
	}
	if s.to, err = p.hello(to, k); err != nil {
		return s, err
	}
	if s.from, err = p.hello(from, k.Flip()); err != nil {
		s.to.close()
		return s, err
	}
	return s, nil
}

// hello registers one end with its proxy.
func (p *proxyPath) hello(e Endpoint, k icwire.Key) (*sock, error) {
	s, err := p.socks.dial(e.Socket)
	if err != nil {
		return nil, fmt.Errorf("proxy of dbid %d: %w", e.Dbid, err)
	}
	var out, in, want [icwire.MaxHeaderLen]byte
	h := k.Header(icwire.Hello, 0, p.dialect)
	_, err = s.Write(h.Append(out[:0], p.dialect))
	got := in[:p.dialect.HeaderLen()]
	if err == nil {
		_, err = io.ReadFull(s, got)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the proxy closed the connection instead of answering HELLO")
	}
	if ack := h.HelloAck(); err == nil && !bytes.Equal(got, ack.Append(want[:0], p.dialect)) {
		err = fmt.Errorf("HELLO was answered with % x", got)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("proxy of dbid %d: %w", e.Dbid, err)
	}
	return s, nil
}

// pumpPath goes through the two relays, the second of which connects to our
// listening socket.
type pumpPath struct {
	socks  *sockets
	as     string
	first  string // socket of the first relay
	listen int    // our listening socket
	mu     sync.Mutex
	ids    []int
}

func (p *pumpPath) name() string { return p.as }
func (p *pumpPath) pids() []int  { return p.ids }

func (p *pumpPath) open(int) (s stream, err error) {
	// One at a time, so that it is clear which two belong together.
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.from, err = p.socks.dial(p.first); err != nil {
		return s, fmt.Errorf("byte pump: %w", err)
	}
	if s.to, err = s.from.accept(p.listen); err != nil {
		s.from.close()
		return s, fmt.Errorf("byte pump: %w", err)
	}
	return s, nil
}

// listenUnix makes a listening socket whose accepts end after patience.
func listenUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

// directPath is a socket pair.
type directPath struct{ socks *sockets }

func (p directPath) name() string { return PathDirect }
func (p directPath) pids() []int  { return nil }

func (p directPath) open(int) (s stream, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, os.NewSyscallError("socketpair", err)
	}
	if s.from, err = p.socks.adopt(fds[0]); err != nil {
		unix.Close(fds[1])
		return s, err
	}
	if s.to, err = p.socks.adopt(fds[1]); err != nil {
		s.from.close()
	}
	return s, err
}
