// Package deaf has listeners that do not answer: their queue is full.
package deaf

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a connection attempt on loopback is given before it counts as
// one that has no answer.
const patience = 200 * time.Millisecond

// Listen returns a listening socket, which the end of the test closes, and its address
// on 127.0.0.1. The kernel takes one connection for it, maybe some more; then attempts
// have no answer until fd accepts.
func Listen(t testing.TB) (fd int, addr netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	loopback := [4]byte{127, 0, 0, 1}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(sa.(*unix.SockaddrInet4).Port))
}

// Port is that of a listener whose queue is full already. Where the kernel takes any
// number of connections the test is skipped.
func Port(t testing.TB) int {
	t.Helper()
	_, addr := Listen(t)
	for range 20 {
		c, err := net.DialTimeout("tcp", addr.String(), patience)
		if err != nil {
			return int(addr.Port())
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this kernel takes connections beyond the listener's queue")
	return 0
}
