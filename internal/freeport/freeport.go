// Package freeport finds TCP ports to listen on in a while: those of instances
// and proxies that are still to be started, and may be started again.
package freeport

import (
	"errors"
	"fmt"
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
	given = map[int]bool{} // ports this process has been given
)

// One returns a port of the loopback address 127.0.0.1 that nobody listens on
// and that this process has not been given before. It may be called
// concurrently.
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
		if free(ports) {
			for _, p := range ports {
				given[p] = true
			}
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

func free(ports []int) bool {
	for _, p := range ports {
		if given[p] {
			return false
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
