package trunk

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tune sets what a trunk wants of its TCP connection. A kernel that refuses
// one of it still carries the data, so errors do not matter. It returns the
// connection for system calls on it, if that is possible.
func tune(c *net.TCPConn) syscall.RawConn {
	_ = c.SetNoDelay(true)
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	})
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
	})
	return raw
}
