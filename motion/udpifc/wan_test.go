package udpifc

import (
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// TestEmulatedNetwork runs on sockets in network namespaces: the kernel's UDP,
// fragments, and a line that loses, reorders and doubles IP packets. A datagram
// of 8 kB is six of them.
func TestEmulatedNetwork(t *testing.T) {
	if err := wan.Available(); err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		link   wan.Link
		packet int
		rows   int
	}{
		"long":    {wan.Link{Delay: 25 * time.Millisecond}, 0, 40},
		"lossy":   {wan.Link{Delay: time.Millisecond, Loss: 0.03, Reorder: 0.05, Duplicate: 0.01, Seed: 7}, 0, 100},
		"hostile": {wan.Link{Delay: time.Millisecond, Loss: 0.2, Reorder: 0.2, Duplicate: 0.05, Seed: 7}, 1400, 100},
	} {
		t.Run(name, func(t *testing.T) {
			network, err := wan.New(wan.Config{Hosts: 3, Link: c.link})
			if err != nil {
				t.Fatal(err)
			}
			defer network.Close()
			var n []node
			for i := range 3 {
				host := network.Host(i)
				ic, err := New(Config{
					ListenHost: host.Addr().String(), MaxPacket: c.packet,
					Tuning: Tuning{Params: link.Params{QueueDepth: 16, SndQueueDepth: 8}},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer ic.Close()
				open := ic.socket
				ic.socket = func() (s packetConn, err error) {
					err = host.Do(func() error { s, err = open(); return err })
					return s, err
				}
				n = append(n, newNodeOf(i, ic))
			}
			if err := move(t, mid(1), n[:2], n[2:], c.rows); err != nil {
				t.Fatal(err)
			}
			s := n[0].Stats()
			if c.link.Loss > 0 && s.Retransmitted == 0 {
				t.Errorf("nothing was sent again: %v", s)
			}
			t.Logf("%v", s)
		})
	}
}
