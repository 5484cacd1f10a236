package trunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/icwire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(pid int32) icwire.Key {
	return icwire.Key{Session: 1, Command: 1, Local: icwire.End{Dbid: 2, Pid: pid}, Remote: icwire.End{Content: -1, Dbid: 1, Pid: 100 + pid}}
}

func packet(k icwire.Key, payload []byte) *Buffer {
	b := Get(36 + len(payload))
	b.B = k.Header(icwire.Data, len(payload), icwire.Magic36).Append(b.B, icwire.Magic36)
	b.B = append(b.B, payload...)
	return b
}

type record struct {
	mu    sync.Mutex
	types []icwire.Type
	data  map[int32][]byte
	fail  error
	got   chan struct{}
}

func newRecord() *record { return &record{data: map[int32][]byte{}, got: make(chan struct{}, 1)} }

func (r *record) Batch() {}

func (r *record) Packet(h icwire.Header, payload []byte, end bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end {
		r.types = append(r.types, h.Type)
	}
	r.data[h.SrcPid] = append(r.data[h.SrcPid], payload...)
	select {
	case r.got <- struct{}{}:
	default:
	}
	return r.fail
}

func (r *record) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.got:
		case <-deadline:
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = dialled.(*net.TCPConn), accepted.(*net.TCPConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// run starts a trunk and returns a function that waits for its end.
func run(t *Trunk, h Handler) func() error {
	done := make(chan error, 1)
	go func() { done <- t.Run(h) }()
	return func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("trunk did not end in 10 s")
		}
	}
}

func TestManyStreamsArriveInOrder(t *testing.T) {
	for _, name := range []string{"tcp", "loop"} {
		t.Run(name, func(t *testing.T) {
			r := newRecord()
			var sender *Trunk
			var ends []func() error
			if name == "tcp" {
				a, b := tcpPair(t)
				sender = New(a, icwire.Magic36, 8228)
				receiver := New(b, icwire.Magic36, 8228)
				ends = append(ends, run(sender, newRecord()), run(receiver, r))
			} else {
				sender = New(nil, icwire.Magic36, 8228)
				ends = append(ends, run(sender, r))
			}
			const streams, packets = 20, 200
			var wg sync.WaitGroup
			for i := range int32(streams) {
				wg.Go(func() {
					s := sender.Open(key(i).ID())
					for n := range uint32(packets) {
						s.Send(packet(key(i), binary.LittleEndian.AppendUint32(make([]byte, int(n*37)%8000), n)))
						if n%10 == 0 {
							sender.Control(key(i).Header(icwire.DataAck, 0, icwire.Magic36))
						}
						sender.Flush()
					}
					s.Bye(key(i).Header(icwire.Bye, 0, icwire.Magic36))
					sender.Flush()
				})
			}
			wg.Wait()
			byes := func() (n int) {
				for _, ty := range r.types {
					if ty == icwire.Bye {
						n++
					}
				}
				return n
			}
			r.wait(t, "all BYEs", func() bool { return byes() == streams })
			var want []byte
			for n := range uint32(packets) {
				want = binary.LittleEndian.AppendUint32(append(want, make([]byte, int(n*37)%8000)...), n)
			}
			for i := range int32(streams) {
				if !bytes.Equal(r.data[i], want) {
					t.Errorf("stream %d: %d bytes differ from the %d sent", i, len(r.data[i]), len(want))
				}
			}
			sender.mu.Lock()
			if n := len(sender.sched.open); n != 0 || sender.sched.queued != 0 {
				t.Errorf("%d streams, %d bytes remembered after BYE", n, sender.sched.queued)
			}
			sender.mu.Unlock()
			sender.Close()
			if err := ends[0](); !errors.Is(err, ErrClosed) {
				t.Errorf("sender ended with %v", err)
			}
			if len(ends) > 1 {
				if err := ends[1](); err != io.EOF {
					t.Errorf("receiver ended with %v", err)
				}
			}
		})
	}
}

// One stream with a lot queued does not hold up another's packet, control
// packets pass both, and a successor does not overtake its predecessor's BYE.
func TestScheduler(t *testing.T) {
	s := scheduler{open: map[icwire.ID]*Stream{}}
	bulk, small := s.get(nil, key(1).ID()), s.get(nil, key(2).ID())
	for range 100 {
		s.push(bulk, packet(key(1), make([]byte, 8192)))
	}
	s.push(small, packet(key(2), []byte("hello")))
	first := s.collect(nil)
	at := -1
	for i, b := range first {
		if len(b.B) < 100 {
			at = i
		}
	}
	if at < 0 || at > 8 {
		t.Errorf("the small packet comes at place %d of the first batch", at)
	}
	bye := packet(key(1), nil)
	bye.B[6] = byte(icwire.Bye)
	s.push(bulk, bye)
	bulk.closed = true
	again := s.get(nil, key(1).ID())
	if again != bulk {
		t.Fatal("the successor got a stream of its own while BYE was queued")
	}
	s.push(again, packet(key(1), []byte("successor")))
	var order []int
	for !s.empty() {
		for _, b := range s.collect(nil) {
			order = append(order, len(b.B))
		}
	}
	if n := len(order); n < 2 || order[n-2] != 36 || order[n-1] != 36+len("successor") {
		t.Errorf("the last two are %v", order)
	}
	again.closed = true
	s.push(again, packet(key(1), nil))
	s.collect(nil)
	if s.get(nil, key(1).ID()) == bulk {
		t.Error("the stream was kept after it had ended")
	}
}

// Rates of streams that always have something queued are equal, whatever the
// size of their packets.
func TestSchedulerFairness(t *testing.T) {
	s := scheduler{open: map[icwire.ID]*Stream{}}
	a, b := s.get(nil, key(1).ID()), s.get(nil, key(2).ID())
	for range 400 {
		s.push(a, packet(key(1), make([]byte, 8192)))
	}
	for range 4000 {
		s.push(b, packet(key(2), make([]byte, 600)))
	}
	var got [3]int
	for got[1]+got[2] < 2<<20 {
		for _, buf := range s.collect(nil) {
			h, _ := icwire.Decode(buf.B, icwire.Magic36)
			got[h.SrcPid] += len(buf.B)
		}
	}
	if d := got[1] - got[2]; d > 2*quantum || d < -2*quantum {
		t.Errorf("%d and %d bytes", got[1], got[2])
	}
}

func TestGarbageAndSilence(t *testing.T) {
	good := icwire.Header{Type: icwire.Bye}.Append(nil, icwire.Magic36)
	for _, c := range []struct {
		name  string
		bytes []byte
		close bool
		check func(error) bool
	}{
		{"text", []byte("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n"), false, isProtocolError},
		{"length 0", append(append([]byte{}, good[:4]...), append([]byte{0, 0}, good[6:]...)...), false, isProtocolError},
		{"too long", icwire.Header{Len: 8229, Type: icwire.Data}.Append(nil, icwire.Magic36), false, isProtocolError},
		{"control with payload", append(icwire.Header{Len: 45, Type: icwire.Bye}.Append(nil, icwire.Magic36), make([]byte, 9)...), false, isProtocolError},
		{"half a header", good[:20], true, func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"whole packets, then close", good, true, func(err error) bool { return err == io.EOF }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := tcpPair(t)
			tr := New(b, icwire.Magic36, 8228)
			end := run(tr, newRecord())
			if _, err := a.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			if c.close {
				a.Close()
			}
			if err := end(); !c.check(err) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func isProtocolError(err error) bool {
	var pe *icwire.ProtocolError
	return errors.As(err, &pe)
}

// A handler's refusal ends the trunk, and what is sent afterwards goes nowhere.
func TestHandlerError(t *testing.T) {
	a, b := tcpPair(t)
	r := newRecord()
	r.fail = errors.New("not wanted")
	tr := New(b, icwire.Magic36, 8228)
	end := run(tr, r)
	if _, err := a.Write(icwire.Header{Type: icwire.Bye}.Append(nil, icwire.Magic36)); err != nil {
		t.Fatal(err)
	}
	if err := end(); err != r.fail {
		t.Errorf("ended with %v", err)
	}
	tr.Open(key(1).ID()).Send(packet(key(1), nil))
	tr.Control(icwire.Header{Type: icwire.DataAck})
	tr.Flush()
	if !tr.sched.empty() {
		t.Error("something is queued on a trunk that has ended")
	}
}

// The peer's stream may be cut anywhere.
func TestReaderCuts(t *testing.T) {
	var stream []byte
	for i := range int32(5) {
		p := packet(key(i), bytes.Repeat([]byte{byte(i)}, int(i)*700))
		stream = append(stream, p.B...)
		p.Release()
	}
	a, b := tcpPair(t)
	r := newRecord()
	tr := New(b, icwire.Magic36, 8228)
	end := run(tr, r)
	for rest := stream; len(rest) > 0; {
		n := min(997, len(rest))
		if _, err := a.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	r.wait(t, "5 packets", func() bool { return len(r.types) == 5 })
	for i := range int32(5) {
		if len(r.data[i]) != int(i)*700 {
			t.Errorf("packet %d has %d bytes", i, len(r.data[i]))
		}
	}
	if n := tr.Traffic(); n.PacketsIn != 5 || n.BytesIn != uint64(len(stream)) {
		t.Errorf("counted %+v", n)
	}
	tr.Close()
	if err := end(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestAgreement(t *testing.T) {
	hello := icwire.Header{Type: icwire.PeerHello, SrcContent: 1, SrcDbid: 3, DstDbid: 2}
	// With Greenplum on the other side: it echoes.
	if a := Agreed(Offer(hello).PeerHelloAck(7)); a.Trunkline {
		t.Error("an echo was taken for an agreement")
	}
	ack := hello.PeerHelloAck(7)
	if got, a := Accept(hello, ack); a.Trunkline || got != ack {
		t.Errorf("Greenplum's hello was answered with %v, %+v", got, a)
	}
	// Between two of ours.
	answer, a := Accept(Offer(hello), Offer(hello).PeerHelloAck(7))
	if b := Agreed(answer); !a.Trunkline || a != b || a.Version != 1 {
		t.Errorf("%+v and %+v", a, b)
	}
}

// A stream that has enough queued takes no more until some of it is written.
func TestFull(t *testing.T) {
	a, b := tcpPair(t)
	tr := New(a, icwire.Magic36, icwire.MaxPacketLen)
	s := tr.Open(key(1).ID())
	woken := make(chan struct{}, 1)
	wake := func() { woken <- struct{}{} }
	sent := 0
	for !s.Full(wake) {
		s.Send(packet(key(1), make([]byte, 60000)))
		if sent++; sent > 100 {
			t.Fatal("a stream nobody writes is never full")
		}
	}
	select {
	case <-woken:
		t.Fatal("woken while nothing was written")
	default:
	}
	r := newRecord()
	receiver := New(b, icwire.Magic36, icwire.MaxPacketLen)
	ends := []func() error{run(tr, newRecord()), run(receiver, r)}
	tr.Flush()
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Fatal("not woken in 10 s")
	}
	r.wait(t, "all", func() bool { return len(r.types) == sent })
	tr.Close()
	for _, end := range ends {
		_ = end()
	}
}

// A ping tells the round trip, and its absence that nobody is there.
func TestHealth(t *testing.T) {
	a, b := tcpPair(t)
	us, them := New(a, icwire.Magic36, 8228), New(b, icwire.Magic36, 8228)
	us.Ping(icwire.End{}, icwire.End{})
	if us.RTT() != 0 {
		t.Error("a round trip is known before any")
	}
	time.Sleep(time.Millisecond) // what Silent measures
	if us.Silent() <= 0 {
		t.Error("not silent")
	}
	ends := []func() error{run(us, newRecord()), run(them, newRecord())}
	deadline := time.Now().Add(10 * time.Second)
	for us.RTT() == 0 || us.Silent() != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("round trip %v, silent for %v", us.RTT(), us.Silent())
		}
		time.Sleep(time.Millisecond)
	}
	us.Fail(io.ErrNoProgress)
	if err := ends[0](); err != io.ErrNoProgress {
		t.Errorf("ended with %v", err)
	}
	_ = ends[1]()
}

// The round trip is the least of late: a slow ping does not count, and a way
// that has become longer does after a while.
func TestLeastRoundTrip(t *testing.T) {
	var h Health
	at := int64(0)
	for _, c := range []struct{ pass, took, want time.Duration }{
		{0, 5 * time.Millisecond, 5 * time.Millisecond},
		{time.Second, time.Millisecond, time.Millisecond},
		{time.Second, 9 * time.Millisecond, time.Millisecond},
		{9 * time.Second, 7 * time.Millisecond, time.Millisecond},
		{5 * time.Second, 7 * time.Millisecond, time.Millisecond},
		{6 * time.Second, 8 * time.Millisecond, 7 * time.Millisecond},
		{time.Second, 2 * time.Millisecond, 2 * time.Millisecond},
	} {
		at += int64(c.pass)
		h.measured(at, int64(c.took))
		if h.RTT() != c.want {
			t.Errorf("at %v: %v, want %v", time.Duration(at), h.RTT(), c.want)
		}
	}
}

func BenchmarkTrunk(b *testing.B) {
	for _, size := range []int{512, 8192, 65000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkTrunk(b, size) })
	}
}

func benchmarkTrunk(b *testing.B, size int) {
	c, d := tcpPair(b)
	out, in := New(c, icwire.Magic36, icwire.MaxPacketLen), New(d, icwire.Magic36, icwire.MaxPacketLen)
	room := make(chan struct{}, 100)
	var wg sync.WaitGroup
	wg.Go(func() { _ = out.Run(newRecord()) })
	wg.Go(func() { _ = in.Run(drain(room)) })
	s := out.Open(key(1).ID())
	payload := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		room <- struct{}{}
		s.Send(packet(key(1), payload))
		out.Flush()
	}
	out.Close()
	in.Close()
	wg.Wait()
}

type drain chan struct{}

func (d drain) Packet(h icwire.Header, _ []byte, end bool) error {
	if end && h.Type == icwire.Data {
		<-d
	}
	return nil
}

func (d drain) Batch() {}
