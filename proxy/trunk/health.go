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
	rtt   atomic.Int64 // ns, smoothed
	last  atomic.Int64 // when something was last heard, ns since the epoch
	asked atomic.Int64 // when the oldest ping without an answer was sent, or 0
}

// epoch makes times of the monotonic clock.
var epoch = time.Now()

func clock() int64 { return int64(time.Since(epoch)) }

// RTT is the smoothed round trip to the peer's proxy, what the kernels have
// queued included; 0 while it is not known.
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
		took := max(1, clock()-int64(binary.LittleEndian.Uint64(payload)))
		if old := t.rtt.Load(); old > 0 {
			took = old + (took-old)/4
		}
		t.rtt.Store(took)
	default:
		return false
	}
	return true
}
