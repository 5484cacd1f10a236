package udpifc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// TestPackets holds the packets of a short motion against the protocol.
func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var mu sync.Mutex
		var got []string
		var headers []icwire.UDPHeader
		net.filter = func(b []byte, from, to netip.AddrPort) bool {
			h, body, err := icwire.DecodeUDP(b)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%v %d %d %d", h.Flags, h.Seq, h.Extra, len(body)))
			headers = append(headers, h)
			return true
		}
		n := net.executors(t, 2, Config{MaxPacket: 512})
		s, r := open(t, mid(3), n[0], n[1])
		for _, size := range []int{440, 440, 10} {
			if err := s.Send(t.Context(), 0, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- s.Close(t.Context()) }()
		time.Sleep(5 * time.Millisecond)
		for range 3 {
			if _, _, err := r.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := r.Receive(t.Context()); err != io.EOF {
			t.Fatal(err)
		}
		if err := errors.Join(<-done, r.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"DATA 1 0 444", // one until the first ack
			"RECEIVER_TO_SENDER|ACK|CAPACITY 1 0 0",
			"DATA 2 0 444",
			"EOS 3 0 18", // 10 and the end
			"RECEIVER_TO_SENDER|ACK|CAPACITY 2 0 0",
			"RECEIVER_TO_SENDER|ACK|CAPACITY 3 0 0",
			"RECEIVER_TO_SENDER|ACK|CAPACITY 3 2 0", // for the second consumed
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		for i, h := range headers {
			want := icwire.UDPHeader{
				UDPKey: icwire.UDPKey{
					Session: 5, Instance: 3 << 8, SendSlice: 2, RecvSlice: 1,
					SrcContent: 0, SrcPid: 1000, DstContent: 1, DstPid: 1001,
				},
				MotionNode: 2, SrcPort: 1, DstPort: 2, Flags: h.Flags, Seq: h.Seq, Extra: h.Extra,
			}
			if d := cmp.Diff(want, h); d != "" {
				t.Errorf("packet %d: %s", i, d)
			}
		}
	})
}

// TestLatePackets: what the network brings after its motion is over is
// answered, and does no harm to the next motion of the same key.
func TestLatePackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var mu sync.Mutex
		type sent struct {
			b        []byte
			from, to netip.AddrPort
		}
		var all []sent
		net.filter = func(b []byte, from, to netip.AddrPort) bool {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, sent{bytes.Clone(b), from, to})
			return true
		}
		n := net.executors(t, 2, Config{})
		for range 5 {
			if err := move(t, mid(1), n[:1], n[1:], 40); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			again := all
			mu.Unlock()
			for i, p := range again {
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() {
					net.mu.Lock()
					s := net.socks[p.to]
					net.mu.Unlock()
					if s != nil {
						s.arrive(memPacket{p.b, p.from})
					}
				})
			}
		}
		time.Sleep(time.Minute)
		if k := n[1].receivers.bytes; k != 0 {
			t.Errorf("%d bytes of late packets are kept", k)
		}
	})
}

// TestEarlyPackets: what comes before its receiver is kept, unless it is to be
// dropped; then it is sent again.
func TestEarlyPackets(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := perfect(time.Millisecond).executors(t, 2, Config{Tuning: Tuning{DropFuture: drop, Params: link.Params{MinRTO: time.Second, DefaultRTT: time.Second}}})
			s, err := n[0].Send(t.Context(), mid(1), n[0].peer, peers(n[1:]))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			start := time.Now()
			r, err := n[1].Receive(t.Context(), mid(1), n[1].peer, peers(n[:1]))
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := r.Receive(t.Context()); string(got) != "row" {
				t.Fatal(err)
			}
			waited, again := time.Since(start), n[0].Stats().Retransmitted
			if drop && (waited < 500*time.Millisecond || again != 1) || !drop && (waited != 0 || again != 0) {
				t.Errorf("drop %v: received after %v, sent again %d times", drop, waited, again)
			}
			s.Abort()
			r.Abort()
		})
	}
}

// TestDamage: with checksums a damaged packet is as if it were lost.
func TestDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := perfect(time.Millisecond)
		var count atomic.Int32
		net.filter = func(b []byte, _, _ netip.AddrPort) bool {
			// Only the header is made anew when a packet is sent again.
			if k := int(count.Add(1)); k%3 == 0 {
				b[k%icwire.UDPHeaderLen] ^= 4
			}
			return true
		}
		n := net.executors(t, 2, Config{Tuning: Tuning{FullCRC: true}})
		if err := move(t, mid(1), n[:1], n[1:], 100); err != nil {
			t.Fatal(err)
		}
		if n[1].Stats().Ignored < 10 || n[0].Stats().Retransmitted < 10 {
			t.Errorf("%v; %v", n[0].Stats(), n[1].Stats())
		}
	})
}

// TestLostOnPurpose: the parameters that lose packets do.
func TestLostOnPurpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tuning := range []Tuning{{DropData: 30}, {DropAcks: 60}} {
			n := perfect(time.Millisecond).executors(t, 2, Config{Tuning: tuning})
			if err := move(t, mid(1), n[:1], n[1:], 200); err != nil {
				t.Fatal(err)
			}
			if again := n[0].Stats().Retransmitted; again < 3 {
				t.Errorf("%+v: sent again %d times", tuning, again)
			}
			if k := n[1].Stats().Disorder; tuning.DropData == 0 && k != 0 {
				t.Errorf("%d packets out of order though only acks were lost", k)
			}
		}
	})
}

// TestTune: parameters apply to the motions opened after they were set.
func TestTune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := perfect(25*time.Millisecond).executors(t, 2, Config{})
		run := func(command uint32) time.Duration {
			start := time.Now()
			if err := move(t, mid(command), n[:1], n[1:], 2000); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		slow := run(1)
		for _, n := range n {
			if err := n.Tune(Tuning{Params: link.Params{QueueDepth: 64, SndQueueDepth: 64, DefaultRTT: 100 * time.Millisecond}}); err != nil {
				t.Fatal(err)
			}
			if err := n.Tune(Tuning{Params: link.Params{QueueDepth: 5000}}); err == nil ||
				!strings.Contains(err.Error(), `5000 is outside the valid range for parameter "gp_interconnect_queue_depth" (1 .. 4096)`) {
				t.Errorf("%v", err)
			}
		}
		if fast := run(2); fast > slow/8 {
			t.Errorf("%v by default, %v with long queues", slow, fast)
		}
	})
}

// TestBadStream: chunks that make no sense fail the motion at both ends.
func TestBadStream(t *testing.T) {
	whole := icwire.AppendChunk(nil, icwire.ChunkWhole, []byte("row"))
	start := icwire.AppendChunk(nil, icwire.ChunkStart, []byte("ro"))
	end := icwire.AppendChunk(nil, icwire.ChunkEndOfStream, nil)
	for _, c := range []struct {
		want  string
		body  []byte
		flags icwire.UDPFlags
	}{
		{"received TC_WHOLE chunk from [src=0,mn=2] after partial tuple data", append(bytes.Clone(start), whole...), 0},
		{"received TC_END_OF_STREAM chunk from [src=0,mn=2] after partial tuple data", append(bytes.Clone(start), end...), icwire.UDPEOS},
		{"received TC_PARTIAL_MID chunk from [src=0,mn=2] without any leading tuple data", icwire.AppendChunk(nil, icwire.ChunkMid, nil), 0},
		{"interconnect error parsing message (icwire: chunk of 7 bytes in a packet that has 6 left)", whole[:6], 0},
		{"interconnect error parsing message: insufficient data received (", []byte{1, 2, 3}, 0},
		{"interconnect error parsing message (received data after the end of the stream)", append(bytes.Clone(end), whole...), icwire.UDPEOS},
		{"interconnect error parsing message: insufficient data received (the last packet of a stream does not end it)", whole, icwire.UDPEOS},
	} {
		synctest.Test(t, func(t *testing.T) {
			net := perfect(time.Millisecond)
			n := net.executors(t, 2, Config{})
			s, r := open(t, mid(1), n[0], n[1])
			if err := s.Send(t.Context(), 0, []byte("row")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := icwire.UDPHeader{UDPKey: connKey(mid(1), n[0].peer, n[1].peer, 0), Seq: 2, Flags: c.flags}
			b := append(make([]byte, icwire.UDPHeaderLen), c.body...)
			h.Put(b, false)
			out := n[0].out.(*memSocket)
			n[1].arrive(n[1].in, b, out.addr)
			var err error
			for err == nil {
				_, _, err = r.Receive(t.Context())
			}
			if err == io.EOF || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			time.Sleep(time.Second)
			if c.flags == 0 {
				if err := s.Send(t.Context(), 0, nil); err == nil {
					t.Error("the sender has not been told")
				}
			}
			s.Abort()
			r.Abort()
		})
	}
}

// FuzzDatagrams: whatever comes to an executor that receives and sends, it
// neither panics nor keeps more than it may, and its motions can be closed.
func FuzzDatagrams(f *testing.F) {
	f.Add([]byte{0, 1, 0, 5, 1, 2, 0, 0, 2, 130, 1, 0, 9, 4, 4, 7})
	f.Add([]byte{0, 0, 1, 1, 0, 129, 1, 1, 3, 32, 2, 1, 1, 8, 3, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			net := perfect(time.Millisecond)
			net.loss = 1 // nothing but what is made up here
			n := net.executors(t, 2, Config{MaxPacket: 512})
			s, _ := open(t, mid(1), n[0], n[1])
			_, r := open(t, mid(1), n[1], n[0])
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go func() {
				for s.Send(ctx, 0, make([]byte, 100)) == nil {
				}
			}()
			go func() {
				for {
					if _, _, err := r.Receive(ctx); err != nil {
						return
					}
				}
			}()
			for ; len(b) >= 4; b = b[4:] {
				h := icwire.UDPHeader{Flags: icwire.UDPFlags(b[1]), Seq: uint32(b[2]), Extra: uint32(b[3] & 15)}
				if b[0]&1 == 0 {
					h.UDPKey = connKey(mid(uint32(b[0]>>4)), n[1].peer, n[0].peer, use(b[3]>>4))
				} else {
					h.UDPKey = connKey(mid(uint32(b[0]>>4)), n[0].peer, n[1].peer, use(b[3]>>4))
				}
				if b[0]&8 != 0 {
					h.Flags |= icwire.UDPAbort
				}
				p := append(make([]byte, icwire.UDPHeaderLen), b[4:min(len(b), 4+int(b[0]>>1&3)*4)]...)
				h.Put(p, false)
				n[0].arrive(n[0].in, p, n[1].in.(*memSocket).addr)
			}
			time.Sleep(2 * time.Second)
			s.Abort()
			r.Abort()
			if k := n[0].receivers.bytes; k > maxEarly {
				t.Fatalf("%d bytes kept", k)
			}
		})
	})
}
