package udpifc

import (
	"net/netip"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// notice is an abort that the other end has not confirmed.
type notice struct {
	hdr   icwire.UDPHeader
	to    netip.AddrPort
	sock  packetConn
	tries int
	due   time.Duration
}

// noticeKey names a notice: a connection and which end says it.
type noticeKey struct {
	icwire.UDPKey
	back bool
}

// notices repeats aborts until they are confirmed. It needs the interconnect's
// mutex.
type notices struct {
	m     map[noticeKey]*notice
	timer *time.Timer
	empty chan struct{} // not nil: closed when there are none left
}

const (
	abortData  = icwire.UDPCapacity | icwire.UDPAbort
	abortReply = icwire.UDPToSender | icwire.UDPNak | icwire.UDPAbort
)

// abort tells the other ends that this one has failed.
func (ic *Interconnect) abort(all []*notice) {
	now := ic.now()
	ic.mu.Lock()
	for _, n := range all {
		n.due = now + abortFirst
		if len(ic.notices.m) < maxRemembered && !ic.gone {
			ic.notices.m[noticeKey{n.hdr.UDPKey, n.hdr.Flags&icwire.UDPToSender != 0}] = n
		}
	}
	ic.armNotices(now)
	ic.mu.Unlock()
	for _, n := range all {
		ic.say(n.sock, &n.hdr, n.to)
	}
}

// confirmed takes the answer to an abort.
func (ic *Interconnect) confirmed(h *icwire.UDPHeader) {
	ic.mu.Lock()
	defer ic.mu.Unlock()
	delete(ic.notices.m, noticeKey{h.UDPKey, h.Flags&icwire.UDPToSender == 0})
	ic.armNotices(ic.now())
}

// armNotices sets the alarm for the next repetition.
func (ic *Interconnect) armNotices(now time.Duration) {
	n := &ic.notices
	if len(n.m) == 0 {
		n.timer.Stop()
		if n.empty != nil {
			close(n.empty)
			n.empty = nil
		}
		return
	}
	next := time.Duration(1<<63 - 1)
	for _, e := range n.m {
		next = min(next, e.due)
	}
	n.timer.Reset(max(next-now, 0))
}

// repeat says again what is due, and gives up what was said often enough.
func (ic *Interconnect) repeat() {
	now := ic.now()
	ic.mu.Lock()
	var due []notice
	for k, n := range ic.notices.m {
		if n.due > now {
			continue
		}
		if n.tries++; n.tries >= abortTries || ic.gone {
			delete(ic.notices.m, k)
			continue
		}
		n.due = now + min(abortFirst<<n.tries, abortLast)
		due = append(due, *n)
	}
	ic.armNotices(now)
	ic.mu.Unlock()
	for i := range due {
		ic.say(due[i].sock, &due[i].hdr, due[i].to)
	}
}
