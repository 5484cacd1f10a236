package proxy

import (
	"io"
	"testing"

	"github.com/trunkline-db/trunkline/proxy/internal/race"
)

// In the steady state no packet costs an allocation on the whole path, backend
// to backend, in both directions.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector makes the pools of buffers allocate")
	}
	nodes := startCluster(t, 2, nil)
	k := key(2, 1, 10, 1)
	r, s := nodes[0].hello(back(k)), nodes[1].hello(k)
	for _, size := range []int{512, 8192} {
		packet := ictcp(1, size, 0)
		buf := make([]byte, len(packet))
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := s.Write(packet); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, buf); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 {
			t.Errorf("%v allocations for a packet of %d bytes", n, size)
		}
	}
	s.CloseWrite()
	r.Close()
	s.Close()
}
