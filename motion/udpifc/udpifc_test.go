package udpifc

import (
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// factory makes executors as change says.
func factory(change func(*Config)) motiontest.Factory {
	return func(t *testing.T, n int, opt motiontest.Options) []motiontest.Node {
		t.Helper()
		nodes := make([]motiontest.Node, n)
		for i := range nodes {
			cfg := Config{MaxPacket: opt.MaxPacket, Tuning: Tuning{Params: link.Params{TransmitTimeout: opt.TransmitTimeout}}}
			change(&cfg)
			nodes[i] = newNode(t, i, cfg)
		}
		return nodes
	}
}

func newNode(t *testing.T, i int, cfg Config) motiontest.Node {
	t.Helper()
	ic, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ic.Close() })
	return motiontest.Node{
		Interconnect: ic,
		Peer:         motion.Peer{Content: int16(i), Dbid: uint16(i + 2), Pid: int32(1000 + i), Addr: ic.Addr()},
	}
}

func TestConformance(t *testing.T) {
	motiontest.Run(t, factory(func(*Config) {}))
}
