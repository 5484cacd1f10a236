package udpifc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/trunkline-db/trunkline/motion"
)

// packetConn is a socket, or what stands for one in a test.
type packetConn interface {
	// send sends one datagram, without waiting. What the kernel has no room
	// for just now is lost, as on the network. It keeps nothing.
	send(b []byte, to netip.AddrPort) error
	// recv waits for a datagram.
	recv(b []byte) (n int, from netip.AddrPort, err error)
	port() int
	Close() error
}

// socket is a UDP socket.
type socket struct {
	*net.UDPConn
	raw syscall.RawConn
	v4  bool

	mu  sync.Mutex // of the rest, which keeps send from allocating
	b   []byte
	sa4 syscall.SockaddrInet4
	sa6 syscall.SockaddrInet6
	to  syscall.Sockaddr
	err error
	fn  func(fd uintptr) bool
}

// openSocket opens a socket on a port of the kernel's choice.
func openSocket(network, host string, kb int) (packetConn, error) {
	conn, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, motion.Errorf("interconnect error: Could not set up udp listener socket: %w", err)
	}
	c := conn.(*net.UDPConn)
	if err := setBuffers(c, kb); err != nil {
		c.Close()
		return nil, motion.Errorf("interconnect error: Could not set up udp listener socket: %w", err)
	}
	s := &socket{UDPConn: c}
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if s.raw, err = c.SyscallConn(); err != nil || !ok {
		c.Close()
		return nil, motion.Errorf("interconnect Error: Could not get port from socket: %w", err)
	}
	s.v4 = local.IP.To4() != nil
	s.fn = s.sendto
	return s, nil
}

// setBuffers asks for buffers of kb in the kernel, and for half as much until
// it gets them.
func setBuffers(c *net.UDPConn, kb int) error {
	if kb == 0 {
		kb = defaultSocketKB
	}
	for {
		err := errors.Join(c.SetReadBuffer(kb<<10), c.SetWriteBuffer(kb<<10))
		if err == nil {
			return nil
		}
		if kb /= 2; kb < leastSocketKB {
			return fmt.Errorf("no socket buffers of %d kB: %w", leastSocketKB, err)
		}
	}
}

func (s *socket) port() int { return s.LocalAddr().(*net.UDPAddr).Port }

func (s *socket) recv(b []byte) (int, netip.AddrPort, error) { return s.ReadFromUDPAddrPort(b) }

func (s *socket) send(b []byte, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = b
	if s.v4 {
		addr := to.Addr().Unmap()
		if !addr.Is4() {
			return syscall.EAFNOSUPPORT
		}
		s.sa4.Addr, s.sa4.Port = addr.As4(), int(to.Port())
		s.to = &s.sa4
	} else {
		s.sa6.Addr, s.sa6.Port = to.Addr().As16(), int(to.Port())
		s.to = &s.sa6
	}
	err := s.raw.Write(s.fn)
	s.b = nil
	if err == nil {
		err = s.err
	}
	return err
}

// sendto returns true in any case, so that raw.Write does not wait for room.
func (s *socket) sendto(fd uintptr) bool {
	for {
		s.err = syscall.Sendto(int(fd), s.b, syscall.MSG_DONTWAIT, s.to)
		switch s.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN, syscall.ENOBUFS:
			s.err = nil
		}
		return true
	}
}
