package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of a played backend.
const patience = 10 * time.Second

var errSilent = fmt.Errorf("nothing moved for %v", patience)

// sock is a blocking unix stream socket whose reads and writes end after
// patience. One goroutine may read while another writes; close is for when
// both are done, cut for any time.
type sock struct {
	fd int
	of *sockets
	// shared says that the Go scheduler is told of reads and writes, as many
	// wait at once. Otherwise the thread just waits in the kernel, as the
	// process does that a backend is: what the scheduler makes of a wait is not
	// in the times measured. The scheduler's signals then end a wait early now
	// and then.
	shared bool
	mu     sync.Mutex // between cut and close
	closed bool
}

// call makes a system call, once more when a signal has ended it, but not for
// longer than patience, which begins anew each time for the kernel.
//
//go:uintptrescapes
func (k *sock) call(trap, a, b, c uintptr) (int, unix.Errno) {
	do := unix.RawSyscall6
	if k.shared {
		do = unix.Syscall6
	}
	var since time.Time
	for {
		n, _, errno := do(trap, a, b, c, 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
		if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > patience {
			return 0, unix.EAGAIN
		}
	}
}

// sockets are the open ones of a run, to cut them all when it is to end.
type sockets struct {
	mu   sync.Mutex
	open map[*sock]struct{}
	over bool
}

// newSockets returns a set whose sockets are cut when ctx ends. stop ends the
// watch.
func newSockets(ctx context.Context) (s *sockets, stop func() bool) {
	s = &sockets{open: map[*sock]struct{}{}}
	return s, context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.over = true
		var all []*sock
		for k := range s.open {
			all = append(all, k)
		}
		s.mu.Unlock()
		for _, k := range all {
			k.cut()
		}
	})
}

// adopt makes a sock of fd, which it owns from now on.
func (s *sockets) adopt(fd int) (*sock, error) {
	k := &sock{fd: fd, of: s}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	var err error
	for _, opt := range [...]uintptr{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, opt,
			uintptr(unsafe.Pointer(&tv)), unsafe.Sizeof(tv), 0)
		if errno != 0 && err == nil {
			err = os.NewSyscallError("setsockopt", errno)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.over {
		err = context.Canceled
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s.open[k] = struct{}{}
	return k, nil
}

// dial connects to the unix socket at path.
func (s *sockets) dial(path string) (*sock, error) {
	var addr unix.RawSockaddrUnix
	if len(path) >= len(addr.Path) {
		return nil, fmt.Errorf("connect to %s: %w", path, unix.ENAMETOOLONG)
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("socket", errno)
	}
	k, err := s.adopt(int(fd))
	if err != nil {
		return nil, err
	}
	addr.Family = unix.AF_UNIX
	for i := range len(path) {
		addr.Path[i] = int8(path[i])
	}
	size := unsafe.Offsetof(addr.Path) + uintptr(len(path)) + 1
	if _, errno := k.call(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&addr)), size); errno != 0 {
		k.close()
		return nil, fmt.Errorf("connect to %s: %w", path, errno)
	}
	return k, nil
}

// Read implements io.Reader.
func (k *sock) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, errno := k.call(unix.SYS_READ, uintptr(k.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	switch {
	case errno == unix.EAGAIN:
		return 0, errSilent
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements io.Writer: one write call unless the kernel takes less.
func (k *sock) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, errno := k.call(unix.SYS_WRITE, uintptr(k.fd), uintptr(unsafe.Pointer(&b[done])), uintptr(len(b)-done))
		switch errno {
		case 0:
			done += n
		case unix.EAGAIN:
			return done, errSilent
		default:
			return done, os.NewSyscallError("write", errno)
		}
	}
	return done, nil
}

// accept waits, as long as k would for reading, for a connection at the
// listening socket fd.
func (k *sock) accept(fd int) (*sock, error) {
	n, errno := k.call(unix.SYS_ACCEPT, uintptr(fd), 0, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("accept", errno)
	}
	return k.of.adopt(n)
}

// closeWrite ends the stream towards the other side.
func (k *sock) closeWrite() error {
	if _, errno := k.call(unix.SYS_SHUTDOWN, uintptr(k.fd), unix.SHUT_WR, 0); errno != 0 {
		return os.NewSyscallError("shutdown", errno)
	}
	return nil
}

// expectEOF reads the end of the stream.
func (k *sock) expectEOF() error {
	var b [64]byte
	n, err := k.Read(b[:])
	if err == nil {
		return fmt.Errorf("expected the end of the stream, read %d bytes", n)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// cut wakes whoever waits at the socket; nothing can be read or written after.
func (k *sock) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		_ = unix.Shutdown(k.fd, unix.SHUT_RDWR)
	}
}

// close closes the socket, once.
func (k *sock) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.closed = true
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(k.fd), 0, 0)
	k.of.mu.Lock()
	delete(k.of.open, k)
	k.of.mu.Unlock()
}

// peerPid is the process that listens at the other end.
func (k *sock) peerPid() (int, error) {
	cred, err := unix.GetsockoptUcred(k.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return int(cred.Pid), nil
}
