package proxybench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of a played backend.
const patience = 10 * time.Second

var errSilent = fmt.Errorf("nothing moved for %v", patience)

// sock is a blocking unix stream socket whose reads and writes end after
// patience. One goroutine may read while another writes; close is for when
// both are done, cut for any time.
type sock struct {
	fd     int
	of     *sockets
	mu     sync.Mutex // between cut and close
	closed bool
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
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	}
	k := &sock{fd: fd, of: s}
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
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	k, err := s.adopt(fd)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		k.close()
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return k, nil
}

// Read implements io.Reader.
func (k *sock) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(k.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, errSilent
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write implements io.Writer: one write call unless the kernel takes less.
func (k *sock) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(k.fd, b[done:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return done, errSilent
		case err != nil:
			return done, os.NewSyscallError("write", err)
		}
		done += n
	}
	return done, nil
}

// closeWrite ends the stream towards the other side.
func (k *sock) closeWrite() error {
	return os.NewSyscallError("shutdown", unix.Shutdown(k.fd, unix.SHUT_WR))
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
	unix.Close(k.fd)
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
