package udpifc

import (
	"math/bits"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFaults: each kind of fault happens, costs what it has to, and harms no
// row; but a network that is down fails the motion.
func TestFaults(t *testing.T) {
	for f, want := range map[Fault]string{
		FaultShortHeader: "ignored", FaultShortPacket: "ignored", FaultNoLength: "ignored", FaultNegativeLength: "ignored",
		FaultRecvZero: "ignored", FaultCRC: "ignored", FaultMismatch: "again",
		FaultEAGAIN: "again", FaultEWOULDBLOCK: "again", FaultEINTR: "", FaultDuplicate: "twice",
		FaultNetInterface: "Interconnect error writing an outgoing packet: network is down",
		30:                "",
	} {
		synctest.Test(t, func(t *testing.T) {
			net := perfect(time.Millisecond)
			n := net.executors(t, 2, Config{Tuning: Tuning{FaultPercent: 30, Faults: 1 << f, FullCRC: f == FaultCRC}})
			err := move(t, mid(1), n[:1], n[1:], 200)
			a, b := n[0].Stats(), n[1].Stats()
			ignored, again, twice := a.Ignored+b.Ignored, a.Retransmitted, int64(net.sent()) > a.Sent+b.Sent+5
			if strings.HasPrefix(want, "Interconnect") {
				if err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "connection closed prematurely") {
					t.Errorf("fault %d: %v", f, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("fault %d: %v", f, err)
			}
			if (ignored > 0) != (want == "ignored") || (again > 0) != (want == "ignored" || want == "again") || twice != (want == "twice") {
				t.Errorf("fault %d: %d datagrams ignored, %d sent again, some sent twice: %v; expected %q", f, ignored, again, twice, want)
			}
		})
	}
	if n := bits.OnesCount32(allFaults); n != 12 {
		t.Errorf("%d kinds of faults, 12 were tested", n)
	}
}

// TestFaultsAtOnce: all that harm no row, at the same time.
func TestFaultsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := perfect(time.Millisecond).executors(t, 4, Config{Tuning: Tuning{FaultPercent: 30, Faults: allFaults &^ (1 << FaultNetInterface), FullCRC: true}})
		if err := move(t, mid(1), n[:2], n[2:], 200); err != nil {
			t.Fatal(err)
		}
	})
}
