// Package local is stream sockets as proxies and executors have them: no system call in a connection's life but the last tells the
// Go scheduler.
//
// None of these calls blocks, so there is nothing to tell. Telling has a price
// of its own: the first call of a process that was idle wakes the runtime's
// monitor thread, which then looks around every 20 µs for a millisecond or
// more. For short connections that was a third of all the proxy's processor
// time.
package local

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/internal/iov"
)

// Listener is a listening unix stream socket. Accept and Close may be called
// from different goroutines.
type Listener struct {
	file *os.File
	raw  syscall.RawConn

	nfd int // of accept
	err error
	try func(fd uintptr) bool
}

// Listen makes a listening socket at path, where nothing may be yet. The file
// is left there on Close.
func Listen(path string) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	if err == nil {
		// The kernel makes it net.core.somaxconn.
		if err = os.NewSyscallError("listen", unix.Listen(fd, 1<<16-1)); err != nil {
			os.Remove(path)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	l := &Listener{file: os.NewFile(uintptr(fd), path)}
	l.try = l.tryAccept
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

func (l *Listener) tryAccept(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, fd, 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			l.nfd, l.err = int(n), nil
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNABORTED:
		default:
			l.err = os.NewSyscallError("accept", errno)
			return true
		}
	}
}

// Accept waits for the next connection, which is the caller's to close. After
// Close the error is os.ErrClosed. One goroutine may call it at a time.
func (l *Listener) Accept() (*Conn, error) {
	if err := l.raw.Read(l.try); err != nil {
		return nil, os.ErrClosed // there is no deadline, so there is no other reason
	}
	if l.err != nil {
		return nil, l.err
	}
	return newConn(l.nfd)
}

// Close ends Accept.
func (l *Listener) Close() error { return l.file.Close() }

// Dial connects to the listener at path. It does not wait: one whose queue is
// full is an error, EAGAIN.
func Dial(path string) (*Conn, error) {
	a := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if len(path) >= len(a.Path) {
		return nil, os.NewSyscallError("connect", unix.ENAMETOOLONG)
	}
	for i := range len(path) {
		a.Path[i] = int8(path[i])
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	for {
		_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&a)), unsafe.Offsetof(a.Path)+uintptr(len(path))+1)
		if errno != unix.EINTR {
			break
		}
	}
	if errno != 0 {
		unix.Close(int(fd))
		return nil, os.NewSyscallError("connect", errno)
	}
	return newConn(int(fd))
}

// Pair returns the two ends of a connection.
func Pair() (a, b *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if a, err = newConn(fds[0]); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if b, err = newConn(fds[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// Conn is one connection, a net.Conn. It may be used from any goroutine.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
}

func newConn(fd int) (*Conn, error) {
	c := &Conn{file: os.NewFile(uintptr(fd), "unix")}
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.file.Close()
		return nil, err
	}
	c.raw = raw
	return c, nil
}

// Raw is for system calls of the caller's own.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// User is who has connected, as the kernel knows it.
func (c *Conn) User() (u unix.Ucred, err error) {
	size := uint32(unsafe.Sizeof(u))
	cerr := c.raw.Control(func(fd uintptr) {
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERCRED,
			uintptr(unsafe.Pointer(&u)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			err = os.NewSyscallError("getsockopt", errno)
		}
	})
	return u, errors.Join(cerr, err)
}

// TryRead reads what is there, with unix.EAGAIN when nothing is.
func (c *Conn) TryRead(b []byte) (n int, err error) {
	if cerr := c.raw.Control(func(fd uintptr) { n, err = iov.Read(int(fd), b) }); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// TryWrite writes as much as the kernel takes at once.
func (c *Conn) TryWrite(b []byte) (n int, err error) {
	var v iov.Vec
	v.Add(b)
	if cerr := c.raw.Control(func(fd uintptr) { err = v.Write(int(fd)) }); cerr != nil {
		return 0, cerr
	}
	return len(b) - v.Len(), err
}

// AtEnd says whether there is nothing to read and never will be.
func (c *Conn) AtEnd() (end bool) {
	_ = c.raw.Control(func(fd uintptr) {
		n, err := peek(fd, make([]byte, 1))
		end = err == nil && n == 0
	})
	return end
}

// Read implements io.Reader.
func (c *Conn) Read(b []byte) (int, error) { return read(c.raw, b) }

// Write implements io.Writer.
func (c *Conn) Write(b []byte) (int, error) { return write(c.raw, b) }

// Writev writes several pieces as one.
func (c *Conn) Writev(pieces ...[]byte) (int, error) { return write(c.raw, pieces...) }

// SetDeadline bounds Read and Write; the zero time does not.
func (c *Conn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// LocalAddr implements net.Conn. It says nothing.
func (c *Conn) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// RemoteAddr implements net.Conn. It says nothing.
func (c *Conn) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// CloseWrite ends the stream towards the backend.
func (c *Conn) CloseWrite() {
	_ = c.raw.Control(func(fd uintptr) { shutdown(fd, unix.SHUT_WR) })
}

// End shuts the socket down both ways, so that the backend sees an orderly end.
// What it has written and nobody reads is taken off first, for the kernel would
// make a reset of it. The descriptor is left to Close.
func (c *Conn) End() {
	_ = c.raw.Control(func(fd uintptr) {
		shutdown(fd, unix.SHUT_RDWR)
		var b [4096]byte
		for {
			if n, err := iov.Read(int(fd), b[:]); n <= 0 || err != nil {
				return
			}
		}
	})
}

func shutdown(fd uintptr, how uintptr) {
	_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, fd, how, 0) // who is gone is shut down
}

// Hangup waits until the other end has closed its socket altogether, or ours
// has been shut down or closed.
func (c *Conn) Hangup() { _ = c.raw.Read(hungUp) }

// HungUp says whether Hangup would return at once.
func (c *Conn) HungUp() (yes bool) {
	err := c.raw.Control(func(fd uintptr) { yes = hungUp(fd) })
	return yes || err != nil
}

func hungUp(fd uintptr) bool {
	p := unix.PollFd{Fd: int32(fd)}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&noTime)), 0, 0, 0)
		switch errno {
		case 0:
			return p.Revents&(unix.POLLHUP|unix.POLLERR) != 0
		case unix.EINTR:
		default:
			return true
		}
	}
}

var noTime unix.Timespec // zero, which the kernel leaves as it is

// Close gives the descriptor back. It is the one call here that tells the
// scheduler; see Closer.
func (c *Conn) Close() error { return c.file.Close() }

// Closer closes connections that have ended, many at a time. The zero value is
// ready. It may be used from any goroutine.
type Closer struct {
	mu    sync.Mutex
	ended []*Conn
}

// mostEnded is with how many descriptors Trim closes them.
const mostEnded = 32

// Add takes over a Conn on which End has been called, or whose other end has
// gone. Nobody may use it any more.
func (k *Closer) Add(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = append(k.ended, c)
}

// Trim closes all if there are many.
func (k *Closer) Trim() { k.closeFrom(mostEnded) }

// Flush closes all there are.
func (k *Closer) Flush() { k.closeFrom(1) }

func (k *Closer) closeFrom(least int) {
	k.mu.Lock()
	var l []*Conn
	if len(k.ended) >= least {
		l, k.ended = k.ended, nil
	}
	k.mu.Unlock()
	for _, c := range l {
		c.Close()
	}
}
