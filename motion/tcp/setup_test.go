package tcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
	"github.com/trunkline-db/trunkline/motion/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = motion.ID{Session: 7, Command: 3, SendSlice: 2, RecvSlice: 1}

func newIC(t *testing.T, cfg tcp.Config) motion.Interconnect {
	t.Helper()
	ic, err := tcp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ic.Close() })
	return ic
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var me *motion.Error
	if !errors.As(err, &me) || me.Code != motion.CodeInterconnect {
		t.Errorf("%v (%T), want a *motion.Error", err, err)
		return
	}
	for _, p := range parts {
		if !strings.Contains(me.Error(), p) {
			t.Errorf("error %q does not have %q", me.Error(), p)
		}
	}
}

// wantClosed fails the test unless the other end closes c soon.
func wantClosed(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Read(make([]byte, 1))
	if n != 0 || err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestListensLate: an executor that neither receives nor is asked for its
// address takes no port.
func TestListensLate(t *testing.T) {
	before := listeners(t)
	ic := newIC(t, tcp.Config{})
	if n := listeners(t) - before; n != 0 {
		t.Errorf("%d listeners before anybody asked", n)
	}
	addr := ic.Addr()
	if n := listeners(t) - before; n != 1 || addr == "" || ic.Addr() != addr {
		t.Errorf("%d listeners, address %q, then %q", n, addr, ic.Addr())
	}
	ic.Close()
	if n := listeners(t) - before; n != 0 || ic.Addr() != "" {
		t.Errorf("%d listeners after Close, address %q", n, ic.Addr())
	}
}

// listeners counts this process's listening sockets.
func listeners(t *testing.T) (n int) {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		own[link] = true
	}
	for _, f := range sockets(t) {
		if f[3] == "0A" && own["socket:["+f[9]+"]"] {
			n++
		}
	}
	return n
}

// sockets returns the lines of the kernel's table of TCP sockets.
func sockets(t *testing.T) (lines [][]string) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n")[1:] {
		if f := strings.Fields(line); len(f) > 9 {
			lines = append(lines, f)
		}
	}
	return lines
}

// TestNoTimeWait: after many motions no closed connection lingers, on neither
// side.
func TestNoTimeWait(t *testing.T) {
	n := factory(t, 2, motiontest.Options{})
	var port int
	_, p, _ := net.SplitHostPort(n[1].Addr())
	fmt.Sscan(p, &port)
	for i := range 50 {
		id := id
		id.Command = uint32(i)
		r, err := n[1].Receive(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
		if err != nil {
			t.Fatal(err)
		}
		s, err := n[0].Send(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			for range 10 {
				if err := s.Send(t.Context(), 0, []byte("row")); err != nil && err != motion.ErrStopped {
					done <- err
					return
				}
			}
			done <- s.Close(t.Context())
		}()
		if _, _, err := r.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			r.Stop()
		}
		for err == nil {
			_, _, err = r.Receive(t.Context())
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var left []string
	for range 200 { // the last ones may be closing, on a busy machine slowly
		left = nil
		for _, f := range sockets(t) {
			hex := fmt.Sprintf(":%04X", port)
			if f[3] != "0A" && (strings.HasSuffix(f[1], hex) || strings.HasSuffix(f[2], hex)) {
				left = append(left, strings.Join(f[1:4], " "))
			}
		}
		if left == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("sockets are left (local, remote, state): %q", left)
}

// TestGarbage: whoever does not register is closed, and disturbs nobody; the log
// says who it was.
func TestGarbage(t *testing.T) {
	n := factory(t, 2, motiontest.Options{})
	logged := make(chan string, 10)
	n[1].Interconnect = newIC(t, tcp.Config{Log: func(m string) { logged <- m }})
	n[1].Peer.Addr = n[1].Addr()
	r, err := n[1].Receive(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
	if err != nil {
		t.Fatal(err)
	}
	long := icwire.Registration{}.Append(nil)
	long[0] = 33
	negative := icwire.Registration{SrcContent: 1, SendSlice: -1}.Append(nil)
	for _, said := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00", "\xfe\xca\xdd\xba", string(long), string(negative), strings.Repeat("x", 100000)} {
		c, err := net.Dial("tcp", n[1].Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(said)) // may fail: it need not be read to its end
		wantClosed(t, c)
		if want := "interconnect error reading register message from " + c.LocalAddr().String() + ": "; !strings.HasPrefix(<-logged, want) {
			t.Errorf("not logged: %s", want)
		}
		c.Close()
	}
	silent, err := net.Dial("tcp", n[1].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s, err := n[0].Send(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := r.Receive(t.Context()); err != nil || string(got) != "row" {
		t.Errorf("%q, %v", got, err)
	}
	n[1].Close()
	wantClosed(t, silent)
}

// TestSetupTimeout: a sender that never comes fails the motion, in Greenplum's
// words.
func TestSetupTimeout(t *testing.T) {
	n := factory(t, 4, motiontest.Options{SetupTimeout: time.Second})
	r, err := n[0].Receive(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer, n[2].Peer, n[3].Peer})
	if err != nil {
		t.Fatal(err)
	}
	s, err := n[2].Send(t.Context(), id, n[2].Peer, []motion.Peer{n[0].Peer})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, _, err = r.Receive(t.Context())
	wantError(t, err, "Interconnect timeout: Unable to complete setup of all connections within time limit.",
		"Completed 1 of 3 incoming and 0 of 0 outgoing connections.  gp_interconnect_setup_timeout = 1 seconds.  No connection from seg")
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("after %v", d)
	}
	wantError(t, s.Close(t.Context()), "connection closed prematurely")

	// A late one is turned away, so that it does not wait for a receiver.
	s, err = n[1].Send(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if err := s.Close(t.Context()); err == nil {
		t.Error("a late sender was not told")
	}
	if d := time.Since(start); d > 500*time.Millisecond {
		t.Errorf("a late sender was told after %v", d)
	}
}

// TestEarlyLimit: a connection that comes too early for anybody is not kept
// for ever.
func TestEarlyLimit(t *testing.T) {
	n := factory(t, 2, motiontest.Options{SetupTimeout: 500 * time.Millisecond})
	s, err := n[0].Send(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	wantError(t, s.Close(t.Context()), "connection closed prematurely")
	if d := time.Since(start); d < 300*time.Millisecond || d > 2*time.Second {
		t.Errorf("closed after %v", d)
	}
}

// TestNewestCounts: a connection left from a motion that failed gives way to
// the next of the same key.
func TestNewestCounts(t *testing.T) {
	n := factory(t, 2, motiontest.Options{})
	old, err := n[0].Send(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // until it has registered
	s, err := n[0].Send(t.Context(), id, n[0].Peer, []motion.Peer{n[1].Peer})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, old.Close(t.Context()), "prematurely")
	r, err := n[1].Receive(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), 0, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := r.Receive(t.Context()); string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDuplicateReceive(t *testing.T) {
	n := factory(t, 2, motiontest.Options{})
	r, err := n[1].Receive(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n[1].Receive(t.Context(), id, n[1].Peer, []motion.Peer{n[0].Peer})
	wantError(t, err, "interconnect error: A HTAB entry for motion node 2 already exists")
	r.Abort()
}

// TestNoListener: the error names the receiver and comes at once.
func TestNoListener(t *testing.T) {
	port, err := freeport.One()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ic := newIC(t, tcp.Config{})
	_, err = ic.Send(t.Context(), id, motion.Peer{}, []motion.Peer{{Content: 3, Addr: addr}})
	wantError(t, err, "interconnect could not connect to seg3 "+addr+": ", "connection refused")
	_, err = ic.Send(t.Context(), id, motion.Peer{}, []motion.Peer{{Content: 3, Dbid: 5, Pid: 9}})
	wantError(t, err, "interconnect could not connect to seg3: it has no listener (seg3:dbid5:p9)")
	for addr, want := range map[string]string{
		"nonsense":        `could not translate host addr "nonsense", port "" to address: `,
		"127.0.0.1:99999": `could not translate host addr "127.0.0.1", port "99999" to address: `,
	} {
		_, err = ic.Send(t.Context(), id, motion.Peer{}, []motion.Peer{{Content: 3, Addr: addr}})
		var me *motion.Error
		if !errors.As(err, &me) || me.Code != "XX000" || !strings.HasPrefix(me.Message, want) {
			t.Errorf("%s: %v, want XX000 %s", addr, err, want)
		}
	}
}

// TestFullBacklog: connecting to somebody who does not accept ends with the
// setup timeout, or with the caller's patience.
func TestFullBacklog(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := motion.Peer{Content: 1, Addr: fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)}
	ic := newIC(t, tcp.Config{SetupTimeout: time.Second})
	all := make([]motion.Peer, 10)
	for i := range all {
		all[i] = to
	}
	_, err = ic.Send(t.Context(), id, motion.Peer{}, all)
	wantError(t, err, "Interconnect timeout: Unable to complete setup", "of 10 outgoing connections.  gp_interconnect_setup_timeout = 1 seconds.  No connection to seg1 "+to.Addr, " more.")

	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
	defer cancel()
	if _, err := ic.Send(ctx, id, motion.Peer{}, all); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { ic.Close() })
	_, err = ic.Send(t.Context(), id, motion.Peer{}, all)
	wantError(t, err, "closed")
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]tcp.Config{
		"AdvertiseHost": {ListenHost: "0.0.0.0"},
		"backlog":       {Backlog: 65536},
		"packet size":   {MaxPacket: 511},
		"negative":      {TransmitTimeout: -1},
	} {
		if _, err := tcp.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error about %s", cfg, err, want)
		}
	}
	ic := newIC(t, tcp.Config{ListenHost: "0.0.0.0", AdvertiseHost: "127.0.0.1"})
	if !strings.HasPrefix(ic.Addr(), "127.0.0.1:") || ic.Type() != "tcp" {
		t.Errorf("%s %s", ic.Type(), ic.Addr())
	}
	// An address that is not ours.
	ic = newIC(t, tcp.Config{ListenHost: "192.0.2.1"})
	if ic.Addr() != "" {
		t.Error(ic.Addr())
	}
	_, err := ic.Receive(t.Context(), id, motion.Peer{}, []motion.Peer{{}})
	wantError(t, err, "interconnect Error: Could not set up tcp listener socket", "192.0.2.1")
}
