package link

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// FuzzSender: whatever a receiver says, the sender's accounts stay right and
// it sends no more than it may.
func FuzzSender(f *testing.F) {
	f.Add([]byte{0x82, 1, 0, 10, 0x82, 2, 1, 10, 0x20, 4, 2, 1, 0x86, 4, 4, 255}, false)
	f.Add([]byte{0x40, 2, 1, 0, 0x82, 3, 3, 90, 0x10, 1, 1, 1}, true)
	f.Fuzz(func(t *testing.T, b []byte, capacity bool) {
		m := newSim(1, 2, Params{Capacity: capacity, SndQueueDepth: 3}, network{loss: 1})
		queued := 0
		for ; len(b) >= 4; b = b[4:] {
			conn := int(b[3] & 1)
			for !m.s.Ending(conn) && m.s.Take(conn) {
				queued++
				m.s.Queue(m.now, conn, &Packet{Buf: make([]byte, icwire.UDPHeaderLen), EOS: queued%16 == 15})
			}
			m.now += time.Duration(b[3]) * time.Millisecond
			if to := m.s.Tick(m.now); to != nil {
				return
			}
			h := icwire.UDPHeader{Flags: icwire.UDPFlags(b[0]), Seq: uint32(b[1]), Extra: uint32(b[2])}
			var body []byte
			if h.Flags&icwire.UDPDisorder != 0 {
				body = icwire.AppendMissing(nil, []uint32{uint32(b[2]) + 1, uint32(b[3])})
			}
			m.s.Arrive(m.now, conn, &h, body)
			if err := m.invariants(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzReceiver: whatever comes, packets are handed out in order and once, and
// no more are held than the queue has places.
func FuzzReceiver(f *testing.F) {
	f.Add([]byte{1, 0, 3, 0, 2, 0, 4, 8, 5, 0})
	f.Add([]byte{2, 8, 1, 0, 1, 128, 9, 0, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		const depth = 4
		r := NewReceiver(depth)
		var want uint32
		held, holding := 0, false
		for ; len(b) >= 2; b = b[2:] {
			h := icwire.UDPHeader{Seq: uint32(b[0]), Flags: icwire.UDPFlags(b[1] & 0x88)}
			var body []byte
			if h.Flags&icwire.UDPCapacity == 0 {
				body = binary.LittleEndian.AppendUint32(nil, h.Seq)
			}
			reply, _ := r.Arrive(&h, body, func(b []byte) []byte { held++; return b })
			if len(reply.Missing) > icwire.MaxMissing || reply.Extra > reply.Seq && reply.Flags&icwire.UDPAck != 0 {
				t.Fatalf("reply %+v", reply)
			}
			if b[1]&1 != 0 && holding {
				holding = false
				held--
				r.Consumed()
			}
			if b[1]&2 != 0 && !holding {
				if p := r.Next(); p != nil {
					want++
					holding = true
					if got := binary.LittleEndian.Uint32(p); got != want {
						t.Fatalf("packet %d handed out, want %d", got, want)
					}
				}
			}
			if b[1]&0x7f == 0x7f {
				r.Stop(0, func([]byte) { held-- })
				if r.Next() != nil {
					t.Fatal("a stopped receiver hands out packets")
				}
				if want := map[bool]int{true: 1}[holding]; held != want {
					t.Fatalf("%d packets held after stop, want %d", held, want)
				}
			}
			if held > depth {
				t.Fatalf("%d packets held", held)
			}
		}
	})
}
