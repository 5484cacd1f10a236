package local

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/internal/iov"
)

// Socket is a TCP or unix stream socket of package net whose reads and writes tell
// the Go scheduler as little as a Conn's. It may be used from any goroutine.
type Socket struct {
	net.Conn
	raw syscall.RawConn
}

// Quiet makes a Socket of c, which belongs to it then. A connection that is none,
// as tests have, it returns as it is.
func Quiet(c net.Conn) net.Conn {
	switch s := c.(type) {
	case *net.TCPConn, *net.UnixConn:
		if raw, err := s.(syscall.Conn).SyscallConn(); err == nil {
			return &Socket{Conn: c, raw: raw}
		}
	}
	return c
}

// DialQuiet connects to the unix socket at path. It waits for room in the
// listener's queue until ctx ends.
func DialQuiet(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return Quiet(c), nil
}

// SyscallConn implements syscall.Conn.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

// Read implements io.Reader.
func (s *Socket) Read(b []byte) (int, error) { return read(s.raw, b) }

// Write implements io.Writer.
func (s *Socket) Write(b []byte) (int, error) { return write(s.raw, b) }

// Peek looks at what has come without taking it. It does not wait: with nothing
// there the error is unix.EAGAIN. At the end of the stream n is 0.
func (s *Socket) Peek(b []byte) (n int, err error) {
	cerr := s.raw.Control(func(fd uintptr) { n, err = peek(fd, b) })
	if cerr != nil {
		err = cerr
	}
	return n, err
}

func peek(fd uintptr, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// read reads from a stream socket that does not block.
func read(raw syscall.RawConn, b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	rerr := raw.Read(func(fd uintptr) bool {
		n, err = iov.Read(int(fd), b)
		return err != unix.EAGAIN
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// write writes several pieces as one to a stream socket that does not block.
func write(raw syscall.RawConn, pieces ...[]byte) (int, error) {
	var v iov.Vec
	for _, b := range pieces {
		v.Add(b)
	}
	n := v.Len()
	var err error
	werr := raw.Write(func(fd uintptr) bool {
		err = v.Write(int(fd))
		return err != nil || v.Len() == 0
	})
	if werr != nil {
		err = werr
	} else if err != nil {
		err = os.NewSyscallError("write", err)
	}
	return n - v.Len(), err
}
