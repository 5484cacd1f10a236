package wan

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
)

// Available returns nil when New can work here, and otherwise an error whose
// text says what is missing, for a test to skip with. It tries once.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if _, err := os.Stat(tunPath); err != nil {
		return fmt.Errorf("no emulated WAN here: %s is not there (modprobe tun; in a container, --device %s): %w", tunPath, tunPath, err)
	}
	cfg := Config{}.withDefaults()
	ns, err := newNamespace(func() error {
		if _, err := setSysctls(cfg); err != nil {
			return err
		}
		device, err := openDevice(netip.PrefixFrom(hostAddr(0), networkBits), cfg.MTU)
		if err != nil {
			return err
		}
		return device.Close()
	})
	if err != nil {
		return fmt.Errorf("no emulated WAN here (run as root with CAP_SYS_ADMIN and CAP_NET_ADMIN): %w", err)
	}
	return ns.Close()
})
