package udpifc

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/motiontest"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// node is an executor.
type node struct {
	*Interconnect
	peer motion.Peer
}

func newNodeOf(i int, ic *Interconnect) node {
	return node{ic, motion.Peer{Content: int16(i), Dbid: uint16(i + 2), Pid: int32(1000 + i), Addr: ic.Addr()}}
}

// factory makes executors on net, or on sockets when it is nil.
func factory(net *memNet, tuning Tuning) motiontest.Factory {
	return func(t *testing.T, n int, opt motiontest.Options) []motiontest.Node {
		t.Helper()
		nodes := make([]motiontest.Node, n)
		for i := range nodes {
			cfg := Config{MaxPacket: opt.MaxPacket, Tuning: tuning}
			if opt.TransmitTimeout != 0 {
				cfg.Tuning.TransmitTimeout = opt.TransmitTimeout
			}
			ic, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ic.Close() })
			if net != nil {
				net.attach(ic)
			}
			n := newNodeOf(i, ic)
			nodes[i] = motiontest.Node{Interconnect: ic, Peer: n.peer}
		}
		return nodes
	}
}

func TestConformance(t *testing.T) { motiontest.Run(t, factory(nil, Tuning{})) }

// TestConformanceOtherwise runs the same tests with everything set that may
// be.
func TestConformanceOtherwise(t *testing.T) {
	motiontest.Run(t, factory(nil, Tuning{
		Params:     link.Params{Capacity: true, QueueDepth: 1, SndQueueDepth: 1},
		DropFuture: true, FullCRC: true,
	}))
}

// TestConformanceHostile runs them where 20 % are lost, 20 % overtaken and 5 %
// doubled. With quick retransmission it does not take long.
func TestConformanceHostile(t *testing.T) {
	quick := link.Params{
		DefaultRTT: time.Millisecond, MinRTO: time.Millisecond,
		TimerPeriod: time.Millisecond, TimerCheckingPeriod: time.Millisecond,
		QueueDepth: 64, SndQueueDepth: 32,
	}
	for _, capacity := range []bool{false, true} {
		t.Run(fmt.Sprintf("capacity=%v", capacity), func(t *testing.T) {
			p := quick
			p.Capacity = capacity
			motiontest.RunPatient(t, func(t *testing.T, n int, opt motiontest.Options) []motiontest.Node {
				return factory(hostile(7, 100*time.Microsecond), Tuning{Params: p})(t, n, opt)
			})
		})
	}
}
