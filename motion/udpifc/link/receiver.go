package link

import (
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// Reply is a packet from a receiver to its sender. Flags of 0 mean that there
// is none.
type Reply struct {
	Flags   icwire.UDPFlags // without UDPToSender
	Seq     uint32
	Extra   uint32
	Missing []uint32
}

// Receiver is the receiving end of one connection: a queue of as many packets
// as the window has.
type Receiver struct {
	slots [][]byte // packet seq is in slots[(seq-1) % len(slots)]
	// The numbers of the first packet that is missing, of the next to hand
	// out, of the last consumed, and of the last of the stream (0: not seen).
	next, head, consumed, last uint32

	stopped bool
	ended   bool          // the last packet has come
	again   time.Duration // when to say stop again
	pause   time.Duration
}

// NewReceiver makes the receiving end of a connection with a queue of depth
// packets.
func NewReceiver(depth int) *Receiver {
	return &Receiver{slots: make([][]byte, depth), next: 1, head: 1}
}

// Arrive takes a packet from the sender. When it is one to keep, keep is
// called with its body and returns what to hand out in its place. ready says
// that there is more to hand out than before.
func (r *Receiver) Arrive(h *icwire.UDPHeader, body []byte, keep func(body []byte) []byte) (reply Reply, ready bool) {
	if len(body) == 0 { // a status query, or nothing that could be kept
		if h.Flags&icwire.UDPCapacity == 0 {
			return Reply{}, false
		}
		if r.stopped {
			return r.stop(r.next - 1), false
		}
		return r.ack(), false
	}
	if r.stopped {
		r.ended = r.ended || h.Flags&icwire.UDPEOS != 0
		return r.stop(h.Seq), false
	}
	depth := uint32(len(r.slots))
	slot := &r.slots[(h.Seq-1)%depth]
	switch {
	case h.Seq < r.next: // 0, which no packet has, among them
		return r.ack(), false
	case h.Seq > r.consumed+depth || r.last != 0 && h.Seq > r.last:
		return Reply{}, false
	case *slot != nil:
		return Reply{Flags: icwire.UDPDuplicate, Seq: h.Seq, Extra: r.next - 1}, false
	}
	*slot = keep(body)
	if h.Flags&icwire.UDPEOS != 0 {
		r.last = h.Seq
	}
	if h.Seq > r.next {
		reply = Reply{Flags: icwire.UDPDisorder, Seq: h.Seq, Extra: r.next - 1}
		for seq := r.next; seq < h.Seq && len(reply.Missing) < icwire.MaxMissing; seq++ {
			if r.slots[(seq-1)%depth] == nil {
				reply.Missing = append(reply.Missing, seq)
			}
		}
		return reply, false
	}
	for r.next <= r.consumed+depth && r.slots[(r.next-1)%depth] != nil {
		r.next++
	}
	r.ended = r.last != 0 && r.next > r.last
	return r.ack(), true
}

func (r *Receiver) ack() Reply {
	return Reply{Flags: icwire.UDPAck | icwire.UDPCapacity, Seq: r.next - 1, Extra: r.consumed}
}

func (r *Receiver) stop(seq uint32) Reply {
	return Reply{Flags: icwire.UDPStop | icwire.UDPAck | icwire.UDPCapacity, Seq: seq, Extra: seq}
}

// Next hands out the next packet, nil when there is none. Consumed must be
// called before the packet after it is handed out.
func (r *Receiver) Next() []byte {
	if r.head >= r.next || r.head != r.consumed+1 {
		return nil
	}
	r.head++
	return r.slots[(r.head-2)%uint32(len(r.slots))]
}

// Consumed says that the packet that was handed out last has been used up. The
// reply is the ack for it: every other packet has one.
func (r *Receiver) Consumed() Reply {
	if r.head != r.consumed+2 {
		return Reply{} // stopped meanwhile
	}
	depth := uint32(len(r.slots))
	r.slots[r.consumed%depth] = nil
	r.consumed++
	if r.consumed%2 == 0 || depth == 1 {
		return r.ack()
	}
	return Reply{}
}

// Ready says whether Next would return a packet once the one handed out is
// consumed.
func (r *Receiver) Ready() bool { return r.head < r.next }

// Ended says whether the sender has nothing more to say: the last packet has
// come, and all before it unless the receiver stopped.
func (r *Receiver) Ended() bool { return r.ended }

// Stop gives up what is in the queue, for which drop is called, and the rest
// of the stream. The packet that was handed out last remains the caller's.
// Nothing is handed out any more.
func (r *Receiver) Stop(now time.Duration, drop func([]byte)) Reply {
	if r.stopped {
		return Reply{}
	}
	r.stopped = true
	for i, b := range r.slots {
		if b != nil && !(r.head == r.consumed+2 && uint32(i) == r.consumed%uint32(len(r.slots))) {
			drop(b)
		}
		r.slots[i] = nil
	}
	r.head, r.consumed = r.next, r.next-1
	r.ended = r.last != 0
	r.pause = stopFirst
	r.again = now + r.pause
	return r.stop(r.next - 1)
}

// NextStop is when Tick has something to do; false for never.
func (r *Receiver) NextStop() (time.Duration, bool) { return r.again, r.stopped && !r.ended }

// Tick says stop again to a sender whose stream has not ended, when it is time.
func (r *Receiver) Tick(now time.Duration) Reply {
	if !r.stopped || r.ended || now < r.again {
		return Reply{}
	}
	r.pause = min(2*r.pause, stopLast)
	r.again = now + r.pause
	return r.stop(r.next - 1)
}
