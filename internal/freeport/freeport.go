// Package freeport finds TCP ports to listen on in a while: those of instances
// and proxies that are still to be started, and may be started again.
package freeport

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

const (
	least = 11000 // above what a machine's services listen on, and what Adjacent's also leads down to
	tries = 400
)

var (
	mu    sync.Mutex
	given = map[int]net.Listener{} // the marks of ports this process has been given
)

// mark tells every process that asks here that a port is taken, until the mark is
// closed or its process ends: that of an instance which is still to be started
// listens nowhere yet. The name is in no directory, and each network namespace has
// its own.
func mark(port int) (net.Listener, error) {
	return net.Listen("unix", fmt.Sprintf("@trunkline-port-%d", port))
}

// One returns a port of the loopback address 127.0.0.1 that nobody listens on
// and that neither this process nor another that runs has been given before. It
// may be called concurrently. Each port costs a descriptor until the process ends.
func One() (int, error) { return Adjacent(1) }

// Adjacent returns the first of n adjacent ports as One does; those that lie
// also away from them are free too. The ports are below the range from which
// the kernel takes the ports of outgoing connections: in that range any
// connection could take the port of an instance that is being started again.
func Adjacent(n int, also ...int) (int, error) {
	below := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &below)
	}
	if below < least+1000 {
		below = 65536 // nothing is left below it: any port must do
	}
	if n < 1 || n > below-least {
		return 0, fmt.Errorf("%d adjacent ports were asked for; 1 to %d can be had", n, below-least)
	}
	mu.Lock()
	defer mu.Unlock()
	for range tries {
		first := least + rand.IntN(below-least-n+1)
		ports := adjacent(first, n)
		for _, d := range also {
			ports = append(ports, adjacent(first+d, n)...)
		}
		if take(ports) {
			return first, nil
		}
	}
	return 0, errors.New("no free ports were found")
}

func adjacent(first, n int) []int {
	ports := make([]int, n)
	for i := range ports {
		ports[i] = first + i
	}
	return ports
}

// take has all ports given to this process, or none.
func take(ports []int) bool {
	marks := map[int]net.Listener{}
	defer func() {
		for _, l := range marks {
			_ = l.Close()
		}
	}()
	for _, p := range ports {
		m, err := mark(p)
		if err != nil {
			return false
		}
		marks[p] = m
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	maps.Copy(given, marks)
	clear(marks)
	return true
}
