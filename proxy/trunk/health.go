package trunk

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// Health is what pings have told of a trunk between two Trunkline proxies: how
// long the round trip is, and whether anybody is there. A process that hangs
// still answers TCP's own probes. Its methods may be called from any goroutine.
type Health struct {
	rtt   atomic.Int64 // ns, the least of late
	last  atomic.Int64 // when something was last heard, ns since the epoch
	asked atomic.Int64 // when the oldest ping without an answer was sent, or 0

	// The reader's alone.
	fresh int64 // ns, the least round trip since turn
	turn  int64 // when that became rtt
}

// epoch makes times of the monotonic clock.
var epoch = time.Now()

func clock() int64 { return int64(time.Since(epoch)) }

// rttPeriod is how long a round trip counts, at least. The least of a few pings
// is the way without what is queued on it: what we have queued ourselves must
// not make windows bigger, which would queue more.
const rttPeriod = 10 * time.Second

// RTT is the least round trip to the peer's proxy of the last 10 to 20 s; 0
// while none is known.
func (h *Health) RTT() time.Duration { return time.Duration(h.rtt.Load()) }

// Silent is for how long a ping has had no answer and nothing else has been
// heard either.
func (h *Health) Silent() time.Duration {
	asked := h.asked.Load()
	if asked == 0 {
		return 0
	}
	return time.Duration(max(0, clock()-max(asked, h.last.Load())))
}

func (h *Health) heard() { h.last.Store(clock()) }

// Ping asks the peer for a sign of life, which RTT and Silent then tell of.
// Only a Trunkline peer understands it.
func (t *Trunk) Ping(from, to icwire.End) {
	now := clock()
	t.asked.CompareAndSwap(0, now)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(now))
	t.Control(icwire.Header{
		Type: icwire.Ping, SrcContent: from.Content, SrcDbid: from.Dbid, DstContent: to.Content, DstDbid: to.Dbid,
	}, b[:]...)
	t.Flush()
}

// health takes the packets that are the trunk's own.
func (t *Trunk) health(h icwire.Header, payload []byte) bool {
	switch {
	case h.Type == icwire.Ping && len(payload) == 8:
		h.Type = icwire.Pong
		h.SrcContent, h.DstContent = h.DstContent, h.SrcContent
		h.SrcDbid, h.DstDbid = h.DstDbid, h.SrcDbid
		t.Control(h, payload...)
	case h.Type == icwire.Pong && len(payload) == 8:
		t.asked.Store(0)
		now := clock()
		t.measured(now, max(1, now-int64(binary.LittleEndian.Uint64(payload))))
	default:
		return false
	}
	return true
}

// measured takes a round trip. It is called by the reader alone.
func (h *Health) measured(now, took int64) {
	if h.fresh == 0 || took < h.fresh {
		h.fresh = took
	}
	rtt := h.rtt.Load()
	switch {
	case rtt == 0:
		h.rtt.Store(took)
		h.turn = now
	case now-h.turn >= int64(rttPeriod):
		h.rtt.Store(h.fresh)
		h.fresh, h.turn = 0, now
	case took < rtt:
		h.rtt.Store(took)
	}
}
