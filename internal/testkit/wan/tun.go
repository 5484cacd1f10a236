package wan

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

const (
	deviceName = "wan0"
	tunPath    = "/dev/net/tun"
	// deviceQueue is how many packets the device holds until the switch reads
	// them. TCP hands over whole windows at once, and losing part of one here
	// would be a loss that no Link asked for.
	deviceQueue = 20000
)

// openDevice makes the host's TUN device in the calling thread's namespace and
// brings it and the loopback up.
func openDevice(addr netip.Prefix, mtu int) (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("wan: open %s: %w", tunPath, err)
	}
	if err := setUpDevice(fd, addr, mtu); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// Non-blocking only now, so that os.File registers it with the poller:
	// before TUNSETIFF there is nothing to poll.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("wan: %s: %w", deviceName, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), deviceName), nil
}

func setUpDevice(fd int, addr netip.Prefix, mtu int) error {
	ifr, err := unix.NewIfreq(deviceName)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("wan: no TUN device (this needs root, CAP_NET_ADMIN): %w", err)
	}
	// The interface ioctls work on any socket of the namespace.
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("wan: %s: %w", deviceName, err)
	}
	defer unix.Close(sock)
	ip, mask := addr.Addr().As4(), ^uint32(0)<<(32-addr.Bits())
	for _, step := range []struct {
		what, device string
		request      uint
		set          func(*unix.Ifreq) error
	}{
		{"loopback up", "lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
		{"MTU", deviceName, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(mtu)); return nil }},
		{"queue length", deviceName, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(deviceQueue); return nil }},
		{"address", deviceName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }},
		{"netmask", deviceName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error {
			return r.SetInet4Addr([]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)})
		}},
		{"up", deviceName, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		ifr, err := unix.NewIfreq(step.device)
		if err != nil {
			return err
		}
		if err := step.set(ifr); err != nil {
			return fmt.Errorf("wan: %s: %s: %w", step.device, step.what, err)
		}
		if err := unix.IoctlIfreq(sock, step.request, ifr); err != nil {
			return fmt.Errorf("wan: %s: %s: %w", step.device, step.what, err)
		}
	}
	return nil
}

const (
	congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"
	// ipv6Off, for devices to come: no router solicitations and the like.
	ipv6Off = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
)

// setSysctls writes the namespaced settings of the calling thread's namespace
// and returns the congestion control that is then in force.
func setSysctls(cfg Config) (string, error) {
	for _, s := range []struct{ path, value string }{
		{"/proc/sys/net/ipv4/tcp_rmem", fmt.Sprintf("4096 131072 %d", cfg.TCPBuffer)},
		{"/proc/sys/net/ipv4/tcp_wmem", fmt.Sprintf("4096 65536 %d", cfg.TCPBuffer)},
		{"/proc/sys/net/ipv4/tcp_no_metrics_save", "1"},
		{congestionControl, cfg.CongestionControl},
		{ipv6Off, "1"},
	} {
		if s.value == "" {
			continue
		}
		err := os.WriteFile(s.path, []byte(s.value), 0)
		if s.path == ipv6Off && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if s.path == congestionControl && err != nil {
			allowed, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
			return "", fmt.Errorf("wan: congestion control %q: %w (in a namespace the machine allows: %s)", s.value, err, bytes.TrimSpace(allowed))
		}
		if err != nil {
			return "", fmt.Errorf("wan: set %s to %q: %w", s.path, s.value, err)
		}
	}
	used, err := os.ReadFile(congestionControl)
	if err != nil {
		return "", fmt.Errorf("wan: %w", err)
	}
	return string(bytes.TrimSpace(used)), nil
}
