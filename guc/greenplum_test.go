package guc

import (
	"slices"
	"testing"
)

// TestGreenplumTable holds the parameters of the interconnect against
// Greenplum's (facts 1.1; the defaults are Greenplum 7's).
func TestGreenplumTable(t *testing.T) {
	const hide, own = true, true
	for _, w := range []struct {
		name    string
		kind    Kind
		unit    string
		lo, hi  float64
		def     string
		context Context
		hidden  bool
		noSync  bool
	}{
		{InterconnectType, Enum, "", 0, 0, "udpifc", Backend, false, false},
		{AddressType, Enum, "", 0, 0, "unicast", Backend, false, false},
		{FlowControl, Enum, "", 0, 0, "loss", Userset, false, false},
		{ProxyAddresses, String, "", 0, 0, "", Sighup, hide, own},
		{QueueDepth, Int, "", 1, 4096, "4", Userset, false, false},
		{SndQueueDepth, Int, "", 1, 4096, "2", Userset, false, false},
		{TimerPeriod, Int, "ms", 1, 100, "5", Userset, false, false},
		{TimerChecking, Int, "ms", 1, 100, "20", Userset, false, false},
		{DefaultRTT, Int, "ms", 1, 1000, "20", Userset, false, false},
		{MinRTO, Int, "ms", 1, 1000, "20", Userset, false, false},
		{TransmitTimeout, Int, "s", 1, 7200, "3600", Userset, false, false},
		{MinRetries, Int, "", 1, 4096, "100", Userset, false, false},
		{RetryInterval, Int, "", 1, 4096, "10", Userset, false, false},
		{SetupTimeout, Int, "s", 0, 7200, "7200", Userset, false, false},
		{TCPListenerBacklog, Int, "", 0, 65535, "256", Userset, false, false},
		{CacheFuture, Bool, "", 0, 0, "on", Userset, false, own},
		{FullCRC, Bool, "", 0, 0, "off", Userset, hide, false},
		{LogStats, Bool, "", 0, 0, "off", Userset, hide, false},
		{AggressiveRetry, Bool, "", 0, 0, "on", Userset, hide, own},
		{MaxPacketSize, Int, "", 512, 65507, "8192", Backend, false, false},
		{UDPBufferSize, Int, "kB", 0, 32768, "0", Backend, false, false},
		{LogInterconnect, Enum, "", 0, 0, "terse", Userset, hide, false},
		{DropSegment, Int, "", -2, 1<<31 - 1, "-2", Userset, hide, false},
		{DropAcks, Int, "", 0, 100, "0", Userset, hide, false},
		{DropData, Int, "", 0, 100, "0", Userset, hide, false},
		{FaultPercent, Int, "", 0, 100, "0", Userset, hide, false},
		{FaultBitmap, Int, "", 0, 1<<31 - 1, "0", Userset, hide, false},
		{DisableIPv6, Int, "", 0, 1, "0", Userset, hide, false},
	} {
		p := find(t, w.name)
		if p.Type != w.kind || p.Unit != w.unit || p.Min != w.lo || p.Max != w.hi || p.Default != w.def ||
			p.Context != w.context || p.Hidden != w.hidden || p.NoSync != w.noSync {
			t.Errorf("%s: %+v, want %+v", w.name, *p, w)
		}
	}
	for name, want := range map[string][]string{
		InterconnectType: {"udpifc", "tcp", "proxy"},
		AddressType:      {"wildcard", "unicast"},
		FlowControl:      {"loss", "capacity"},
		LogInterconnect:  {"off", "terse", "verbose", "debug"},
	} {
		if got := find(t, name).Enum; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
