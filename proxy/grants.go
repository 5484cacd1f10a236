package proxy

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// leastRTT is the least round trip that windows are made for: with less, the
// time a busy machine takes to let a process run counts for more. With more,
// a few heavy streams on one machine would fill the kernel's buffers with
// megabytes that every other packet waits behind.
const leastRTT = 300 * time.Microsecond

// lateGrant marks a grant that was sent behind its sender's BYE.
const lateGrant = 1 << 63

// announce tells the peer what new connections may send from now on without a
// grant, when that has changed. It is called with pr.mu held.
func (pr *peer) announce() {
	if pr.trunk == nil {
		return
	}
	if w, changed := pr.table.Announce(); changed {
		pr.trunk.Control(icwire.Header{
			Type: icwire.Free, SrcContent: pr.p.content, SrcDbid: pr.p.dbid,
			DstContent: pr.entry.Content, DstDbid: pr.entry.Dbid,
		}, uint64Bytes(w)...)
	}
}

func uint64Bytes(n uint64) []byte {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return b[:]
}

// watch asks a Trunkline peer for a sign of life and gives up one that has not
// shown any for too long. It is called with pr.mu held.
func (pr *peer) watch() {
	t := pr.trunk
	if t == nil || !pr.agreement.Trunkline || pr.role == Itself {
		return
	}
	limit := pr.p.times().PeerTimeout
	switch silent := t.Silent() >= limit; {
	case silent && pr.doubted == t:
		t.Fail(fmt.Errorf("no sign of life for %v, though it is connected", limit))
		return
	case silent:
		// It may be this process, or the whole machine, that has been stopped,
		// and the answer lies in the socket unread. Until the next look it is
		// read, if so.
		pr.doubted = t
	default:
		pr.doubted = nil
	}
	t.Ping(pr.p.end(), icwire.End{Content: pr.entry.Content, Dbid: pr.entry.Dbid})
}
