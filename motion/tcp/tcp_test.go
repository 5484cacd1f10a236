package tcp_test

import (
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
	"github.com/trunkline-db/trunkline/motion/tcp"
)

func factory(t *testing.T, n int, opt motiontest.Options) []motiontest.Node {
	t.Helper()
	nodes := make([]motiontest.Node, n)
	for i := range nodes {
		ic, err := tcp.New(tcp.Config{SetupTimeout: opt.SetupTimeout, TransmitTimeout: opt.TransmitTimeout, MaxPacket: opt.MaxPacket})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ic.Close() })
		nodes[i] = motiontest.Node{
			Interconnect: ic,
			Peer:         motion.Peer{Content: int16(i), Dbid: uint16(i + 2), Pid: int32(1000 + i), Addr: ic.Addr()},
		}
	}
	return nodes
}

func TestConformance(t *testing.T) { motiontest.Run(t, factory) }
