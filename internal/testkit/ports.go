package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// ProxyDelta is added to an instance's port to get its proxy's, as in the
// published walkthrough.
const ProxyDelta = -1000

// freePorts returns the first of n adjacent ports that are free, as are the
// ports ProxyDelta away. It looks below the range from which the kernel takes
// the ports of outgoing connections: in that range any connection of the
// cluster could take the port of an instance that is being started again.
func freePorts(n int) (int, error) {
	low := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &low)
	}
	const least = 11000
	if low < least+1000 {
		return 0, fmt.Errorf("the kernel's ephemeral ports begin at %d: too few are left below", low)
	}
	for range 200 {
		first := least + rand.IntN(low-n-least)
		if free(first, n) && free(first+ProxyDelta, n) {
			return first, nil
		}
	}
	return 0, errors.New("no free ports were found")
}

func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
