package proxied_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newIC(t testing.TB, cfg proxied.Config) motion.Interconnect {
	t.Helper()
	ic, err := proxied.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ic.Close() })
	return ic
}

func peer(i int) motion.Peer {
	return motion.Peer{Content: int16(i), Dbid: uint16(i + 2), Pid: int32(1000 + i)}
}

var id = motion.ID{Session: 7, Command: 3, SendSlice: 2, RecvSlice: 1}

// wantError checks the error's code and text and that it came in time.
func wantError(t *testing.T, start time.Time, err error, parts ...string) {
	t.Helper()
	var me *motion.Error
	if !errors.As(err, &me) || me.Code != motion.CodeInterconnect {
		t.Errorf("%v (%T), want a *motion.Error", err, err)
		return
	}
	for _, p := range parts {
		if !strings.Contains(me.Message, p) {
			t.Errorf("message %q does not have %q", me.Message, p)
		}
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("the error came after %v", d)
	}
}

// sendTo has a sender connect, which it does not before it has to.
func sendTo(t *testing.T, ic motion.Interconnect, receivers ...motion.Peer) error {
	s, err := ic.Send(t.Context(), id, peer(0), receivers)
	if err != nil {
		return err
	}
	defer s.Abort()
	return s.Flush(t.Context())
}

func TestNoProxy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ic_proxy")
	ic := newIC(t, proxied.Config{Socket: func() (string, error) { return path, nil }})
	for name, open := range map[string]func() error{
		"Send": func() error {
			return sendTo(t, ic, peer(1), peer(2), peer(3))
		},
		"Receive": func() error {
			_, err := ic.Receive(t.Context(), id, peer(0), []motion.Peer{peer(1), peer(2), peer(3)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			wantError(t, start, open(), "interconnect error: ic-proxy: the proxy of seg0 (dbid 2) is not listening at "+path, "no such file or directory")
			if d := time.Since(start); d < time.Second {
				t.Errorf("gave up after %v", d)
			}
		})
	}
}

// TestStaleSocket: the file is there, the proxy is not.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ic_proxy")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	ic := newIC(t, proxied.Config{Socket: func() (string, error) { return path, nil }, Restart: -1})
	start := time.Now()
	err = sendTo(t, ic, peer(1))
	wantError(t, start, err, "the proxy of seg0 (dbid 2) is not listening at "+path, "connection refused")
}

func TestNoServer(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	ic := newIC(t, proxied.Config{Dir: dir, Restart: 200 * time.Millisecond})
	start := time.Now()
	_, err := ic.Receive(t.Context(), id, peer(0), []motion.Peer{peer(1)})
	wantError(t, start, err, "no server is running", string(dir), "postmaster.pid")
}

// TestProxyRestarts: the socket comes back, under another name.
func TestProxyRestarts(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	write := func(pid int) {
		if err := os.WriteFile(dir.PostmasterPid(), fmt.Appendf(nil, "%d\n%s\n0\n0\n", pid, dir), 0o600); err != nil {
			t.Error(err)
		}
	}
	write(1)
	up := make(chan struct{})
	pid := 1<<30 + os.Getpid() // no process has it
	time.AfterFunc(300*time.Millisecond, func() {
		defer close(up)
		startRelayAt(t, datadir.ICProxySocket(0, pid))
		write(pid)
	})
	ic := newIC(t, proxied.Config{Dir: dir})
	r, err := ic.Receive(t.Context(), id, peer(0), []motion.Peer{peer(1)})
	<-up
	if err != nil {
		t.Fatal(err)
	}
	r.Abort()
}

// TestRefused: a proxy that cannot serve closes the connection, and its status
// says why.
func TestRefused(t *testing.T) {
	rel := startRelay(t)
	rel.mu.Lock()
	rel.refuse = true
	rel.mu.Unlock()
	const why = "ic-proxy: gp_interconnect_proxy_addresses is empty"
	asked := make(chan uint16, 10)
	ic := newIC(t, proxied.Config{Socket: rel.socket, Cause: func(_ context.Context, dbid uint16, lost bool) string {
		if lost {
			t.Error("asked why a connection was lost that never was")
		}
		asked <- dbid
		return why
	}})
	start := time.Now()
	wantError(t, start, sendTo(t, ic, peer(5)), "interconnect error: "+why)
	if time.Since(start) > time.Second {
		t.Errorf("a refusal with a reason was tried again for %v", time.Since(start))
	}
	if dbid := <-asked; dbid != peer(5).Dbid {
		t.Errorf("asked about dbid %d", dbid)
	}

	// Nobody knows why: it may have died and come back.
	ic = newIC(t, proxied.Config{Socket: rel.socket})
	time.AfterFunc(300*time.Millisecond, func() {
		rel.mu.Lock()
		rel.refuse = false
		rel.mu.Unlock()
	})
	if err := sendTo(t, ic, peer(5)); err != nil {
		t.Fatal(err)
	}
	rel.mu.Lock()
	defer rel.mu.Unlock()
	if rel.hellos < 3 {
		t.Errorf("%d attempts", rel.hellos)
	}
}

func TestBadAnswer(t *testing.T) {
	for name, answer := range map[string]func(h icwire.Header) []byte{
		"not swapped": func(h icwire.Header) []byte {
			h.Type = icwire.HelloAck
			return h.Append(nil, icwire.Magic36)
		},
		"not an answer": func(h icwire.Header) []byte { return h.HelloAck().Append(nil, icwire.Plain32) },
		"longer": func(h icwire.Header) []byte {
			h = h.HelloAck()
			h.Len = 40
			return h.Append(nil, icwire.Magic36)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ic_proxy")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				b := make([]byte, 36)
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				h, _ := icwire.Decode(b, icwire.Magic36)
				c.Write(append(answer(h), 0, 0, 0, 0))
			}()
			ic := newIC(t, proxied.Config{Socket: func() (string, error) { return path, nil }})
			start := time.Now()
			err = sendTo(t, ic, peer(1))
			ln.Close()
			<-done
			wantError(t, start, err, "the proxy gave no proper answer", path, "con7,cmd3,slice[2->1] seg0:dbid2:p1000->seg1:dbid3:p1001")
		})
	}
}

// TestSilentProxy: one that takes the connection and says nothing is given up
// with the setup timeout, or when the caller has enough.
func TestSilentProxy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ic_proxy")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket := func() (string, error) { return path, nil }

	ic := newIC(t, proxied.Config{Socket: socket, SetupTimeout: 200 * time.Millisecond})
	start := time.Now()
	err = sendTo(t, ic, peer(1))
	wantError(t, start, err, "Interconnect timeout: Unable to complete setup of connection within time limit 0 seconds")

	ic = newIC(t, proxied.Config{Socket: socket})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	start = time.Now()
	if _, err := ic.Receive(ctx, id, peer(0), []motion.Peer{peer(1)}); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("cancelling took %v", d)
	}

	time.AfterFunc(100*time.Millisecond, func() { ic.Close() })
	start = time.Now()
	_, err = ic.Receive(t.Context(), id, peer(0), []motion.Peer{peer(1)})
	wantError(t, start, err, "closed")
}

// TestProxyDies: both ends get an error soon, with the cause in it.
func TestProxyDies(t *testing.T) {
	rel := startRelay(t)
	const why = "ic-proxy: seg1 (dbid 3) at 127.0.0.1:35001: connection reset by peer"
	a := newIC(t, proxied.Config{Socket: rel.socket, Cause: func(_ context.Context, _ uint16, lost bool) string {
		if !lost {
			return "the instance can be reached"
		}
		return why
	}})
	b := newIC(t, proxied.Config{Socket: rel.socket})
	s, err := a.Send(t.Context(), id, peer(0), []motion.Peer{peer(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := b.Receive(t.Context(), id, peer(1), []motion.Peer{peer(0)})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, rel.kill)
	start := time.Now()
	for err == nil {
		_, _, err = r.Receive(t.Context())
	}
	wantError(t, start, err, "interconnect error: connection closed prematurely")
	if _, _, again := r.Receive(t.Context()); again != err {
		t.Errorf("then %v", again)
	}
	for err = nil; err == nil; {
		err = s.Send(t.Context(), 0, make([]byte, 1000))
	}
	wantError(t, start, err, "interconnect error: connection closed prematurely: "+why)
	s.Abort()
	r.Abort()
}

func TestNew(t *testing.T) {
	for want, cfg := range map[string]proxied.Config{
		"neither":      {},
		"packet size":  {Dir: "/", MaxPacket: 100},
		"packet size ": {Dir: "/", MaxPacket: 65508},
		"negative":     {Dir: "/", TransmitTimeout: -1},
	} {
		if _, err := proxied.New(cfg); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: %v, want an error about %s", cfg, err, want)
		}
	}
	ic := newIC(t, proxied.Config{Dir: "/"})
	if ic.Type() != "proxy" || ic.Addr() != "" {
		t.Errorf("type %q, address %q", ic.Type(), ic.Addr())
	}
}
