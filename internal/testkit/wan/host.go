package wan

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Host is one host of a Network. Its methods may be called from any goroutine.
type Host struct {
	name string
	addr netip.Addr
	ns   *os.File
}

// Name is host0, host1 and so on, for messages; it does not resolve.
func (h *Host) Name() string { return h.name }

// Addr is the host's only address beside 127.0.0.1. It means something inside
// the network's hosts only.
func (h *Host) Addr() netip.Addr { return h.addr }

// AddrPort is Addr with a port, as net.Dial wants it.
func (h *Host) AddrPort(port int) string {
	return netip.AddrPortFrom(h.addr, uint16(port)).String()
}

// Do runs fn on a thread inside the host's namespace and returns its error.
// The sockets that fn makes stay in the namespace, also when other goroutines
// use them later; goroutines that fn starts run outside. Inside fn the
// namespace's files are /proc/thread-self/net, not /proc/net. A
// runtime.Goexit of fn, such as t.FailNow's, ends the caller's goroutine as well.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error { return enterNamespace(h.ns) }, fn)
}

// Start is cmd.Start inside the host's namespace: the process and its children
// see the host's network and nothing else of it; file system, unix sockets in
// directories and users are the machine's. Waiting for it is the caller's;
// Close kills it when it still runs. SysProcAttr.Pdeathsig follows the thread
// that started it and not this process, so leave it alone.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// Run is cmd.Run inside the host's namespace.
func (h *Host) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Listen is net.Listen inside the host's namespace; network is "tcp4" or
// "unix", and the address must not need a resolver (":0", Addr and a port).
func (h *Host) Listen(ctx context.Context, network, address string) (ln net.Listener, err error) {
	err = h.Do(func() error {
		ln, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return ln, err
}

// ListenPacket is net.ListenPacket inside the host's namespace, for "udp4".
func (h *Host) ListenPacket(ctx context.Context, network, address string) (conn net.PacketConn, err error) {
	err = h.Do(func() error {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// Dial is net.Dial inside the host's namespace. The address is one of numbers:
// a name would be looked up by goroutines that are outside.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("wan: dial from %s: the address must be numbers: %w", h.name, err)
	}
	err = h.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// WaitListening returns once a TCP socket of the host listens on the port at
// any address, or when ctx is done.
func (h *Host) WaitListening(ctx context.Context, port int) error {
	for {
		ports, err := h.listening()
		if err != nil || ports[port] {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wan: nothing listens on %s port %d: %w", h.name, port, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// listening returns the TCP ports on which the host listens.
func (h *Host) listening() (map[int]bool, error) {
	const stateListen = "0A"
	ports := map[int]bool{}
	err := h.Do(func() error {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if os.IsNotExist(err) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return fmt.Errorf("wan: sockets of %s: %w", h.name, err)
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(line)
				if len(f) < 4 || f[3] != stateListen {
					continue
				}
				hex := f[1][strings.LastIndexByte(f[1], ':')+1:]
				if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
					ports[int(port)] = true
				}
			}
		}
		return nil
	})
	return ports, err
}

// DeviceDrops is how many packets the host's device dropped before the switch
// read them, because this process did not get enough of the machine. Anything
// but 0 says that a measurement is one of the emulation.
func (h *Host) DeviceDrops() (drops uint64, err error) {
	// face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop
	const transmitDrops = 11
	err = h.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return fmt.Errorf("wan: counters of %s: %w", h.name, err)
		}
		for line := range bytes.Lines(text) {
			name, rest, _ := strings.Cut(string(line), ":")
			if f := strings.Fields(rest); strings.TrimSpace(name) == deviceName && len(f) > transmitDrops {
				drops, err = strconv.ParseUint(f[transmitDrops], 10, 64)
				return err
			}
		}
		return fmt.Errorf("wan: %s has no device %s", h.name, deviceName)
	})
	return drops, err
}
