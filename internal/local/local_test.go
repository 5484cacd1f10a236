package local

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

// ends returns the two ends of an accepted connection.
func ends(t *testing.T) (backend *net.UnixConn, c *Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	backend, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	if c, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, x := range []interface{ SetDeadline(time.Time) error }{backend, c} {
		if err := x.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return backend, c
}

func TestAcceptEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	got := make(chan error)
	go func() {
		_, err := l.Accept()
		got <- err
	}()
	l.Close()
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the file is not left there: %v", err)
	}
}

func TestBothWays(t *testing.T) {
	backend, c := ends(t)
	if u, err := c.User(); err != nil || int(u.Pid) != os.Getpid() || int(u.Uid) != os.Geteuid() {
		t.Errorf("%+v, %v", u, err)
	}
	var b [16]byte
	if n, err := c.TryRead(b[:]); n != 0 || err != unix.EAGAIN {
		t.Fatalf("%d bytes, %v of an empty socket", n, err)
	}
	// More than the kernel takes at once, so that Write and Read have to wait.
	const size = 2 << 20
	for _, way := range []struct {
		w io.Writer
		r io.Reader
	}{{backend, c}, {c, backend}} {
		wrote := make(chan error, 1)
		go func() {
			_, err := way.w.Write(make([]byte, size))
			wrote <- err
		}()
		if _, err := io.ReadFull(way.r, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
	c.CloseWrite()
	if n, err := backend.Read(b[:]); err != io.EOF {
		t.Errorf("%d bytes, %v after CloseWrite", n, err)
	}
	backend.Close()
	if n, err := c.Read(b[:]); err != io.EOF {
		t.Errorf("%d bytes, %v when the backend has gone", n, err)
	}
	if n, err := c.TryRead(b[:]); n != 0 || err != nil {
		t.Errorf("%d bytes, %v when the backend has gone", n, err)
	}
	if _, err := c.Write(b[:]); !errors.Is(err, unix.EPIPE) {
		t.Errorf("writing to a backend that has gone: %v", err)
	}
}

// TestSocket: a Socket of package net behaves as one does that is not quiet.
func TestSocket(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			ln, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			here, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			there, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			a, ok := Quiet(here).(*Socket)
			b, ok2 := Quiet(there).(*Socket)
			if !ok || !ok2 {
				t.Fatal("no Socket")
			}
			defer a.Close()
			defer b.Close()
			var buf [16]byte
			if n, err := a.Peek(buf[:]); n != 0 || err != unix.EAGAIN {
				t.Errorf("%d bytes, %v of an empty socket", n, err)
			}
			const size = 8 << 20 // more than the kernel takes at once
			wrote := make(chan error, 1)
			go func() {
				_, err := b.Write(make([]byte, size))
				wrote <- err
			}()
			if _, err := io.ReadFull(a, make([]byte, size-1)); err != nil {
				t.Fatal(err)
			}
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
			if n, err := a.Peek(buf[:]); n != 1 || err != nil {
				t.Errorf("%d bytes, %v of a socket with one", n, err)
			}
			if n, err := a.Read(buf[:]); n != 1 || err != nil {
				t.Errorf("%d bytes, %v of a socket with one", n, err)
			}
			if err := a.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err = a.Read(buf[:])
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %v", err)
			}
			if err := a.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			b.Close()
			if _, err := a.Read(buf[:]); err != io.EOF {
				t.Errorf("%v when the other end has gone", err)
			}
			if n, err := a.Peek(buf[:]); n != 0 || err != nil {
				t.Errorf("%d bytes, %v when the other end has gone", n, err)
			}
			a.Close()
			if _, err := a.Read(buf[:]); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	if Quiet(here) != here {
		t.Error("a pipe has become another connection")
	}
}

func TestDeadline(t *testing.T) {
	_, c := ends(t)
	if err := c.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v", err)
	}
}

// A backend whose words nobody has read sees an end, not a reset, and what was
// written to it before.
func TestOrderlyEnd(t *testing.T) {
	backend, c := ends(t)
	if _, err := backend.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	c.End()
	var k Closer
	k.Add(c)
	k.Trim()
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Errorf("one descriptor is not many, but was closed: %v", err)
	}
	k.Flush()
	if err := c.SetDeadline(time.Time{}); err == nil {
		t.Error("not closed")
	}
	if b, err := io.ReadAll(backend); string(b) != "last words" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestCloserKeepsFew(t *testing.T) {
	var k Closer
	var all []*Conn
	for range mostEnded {
		_, c := ends(t)
		all = append(all, c)
		k.Add(c)
	}
	k.Trim()
	for _, c := range all {
		if err := c.SetDeadline(time.Time{}); err == nil {
			t.Fatal("not closed")
		}
	}
}

// Hangup tells the end of the stream from the end of the socket.
func TestHangup(t *testing.T) {
	backend, c := ends(t)
	over := make(chan struct{})
	if err := backend.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%d bytes, %v", n, err)
	}
	go func() {
		c.Hangup()
		close(over)
	}()
	// The other direction still works.
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(backend, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-over:
		t.Fatal("a backend that still reads counts as gone")
	default:
	}
	backend.Close()
	select {
	case <-over:
	case <-time.After(patience):
		t.Fatal("a backend that has closed its socket does not count as gone")
	}
}
