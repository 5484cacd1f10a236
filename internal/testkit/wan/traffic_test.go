package wan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// echo returns what comes to conn until it is closed.
func echo(conn net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(buf[:size], from)
	}
}

// TestDelay measures round trips of single packets. Too early is wrong at any
// time; too late is the machine's load as well, so only the best counts.
func TestDelay(t *testing.T) {
	n := network(t, Config{Hosts: 2, Link: Link{Delay: 4 * time.Millisecond}})
	a, b := udp(t, n)
	go echo(b)
	buf := make([]byte, 100)
	roundTrip := func() time.Duration {
		start := time.Now()
		send(t, a, b, buf)
		if _, _, err := a.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	for _, tc := range []struct{ there, back time.Duration }{
		{4 * time.Millisecond, 4 * time.Millisecond},
		{10 * time.Millisecond, 500 * time.Microsecond},
		{0, 0},
	} {
		if err := errors.Join(n.SetPath(0, 1, Link{Delay: tc.there}), n.SetPath(1, 0, Link{Delay: tc.back})); err != nil {
			t.Fatal(err)
		}
		var trips []time.Duration
		for range 15 {
			trips = append(trips, roundTrip())
		}
		slices.Sort(trips)
		want := tc.there + tc.back
		t.Logf("%v: best %v, median %v, worst %v", want, trips[0], trips[len(trips)/2], trips[len(trips)-1])
		if trips[0] < want {
			t.Errorf("a round trip of %v took %v", want, trips[0])
		}
		if trips[0] > want+20*time.Millisecond {
			t.Errorf("no round trip of %v took less than %v", want, trips[0])
		}
	}
}

// collect reads numbered packets from conn until none comes for a while, and
// returns their numbers in order of arrival.
func collect(t *testing.T, conn net.PacketConn, quiet time.Duration) []int {
	t.Helper()
	var got []int
	buf := make([]byte, 2000)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			t.Fatal(err)
		}
		size, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		if err != nil || size < 4 {
			t.Fatalf("packet of %d bytes, %v", size, err)
		}
		got = append(got, int(binary.BigEndian.Uint32(buf)))
	}
}

// TestLossReorderDuplicate sends numbered packets and compares what arrives
// with the counters and these with the probabilities.
func TestLossReorderDuplicate(t *testing.T) {
	const packets = 4000
	link := Link{Loss: 0.2, Reorder: 0.2, Duplicate: 0.05, ReorderBy: 2 * time.Millisecond, Delay: time.Millisecond, Seed: 7}
	n := network(t, Config{Hosts: 2, Link: link})
	a, b := udp(t, n)
	if err := b.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	go func() {
		data := make([]byte, 100)
		for i := range packets {
			binary.BigEndian.PutUint32(data, uint32(i))
			if _, err := a.WriteTo(data, b.LocalAddr()); err != nil {
				return
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	got := collect(t, b, 500*time.Millisecond)
	c := n.Counters(0, 1)
	t.Logf("%+v", c)
	if c.Sent != packets || uint64(len(got)) != c.Carried || c.Lost+c.Carried != packets+c.Duplicated {
		t.Errorf("sent %d, got %d, counted %+v", packets, len(got), c)
	}
	seen, overtaken, twice, last := make([]bool, packets), 0, 0, -1
	for _, i := range got {
		switch {
		case seen[i]:
			twice++
		case i < last:
			overtaken++
		}
		seen[i] = true
		last = max(last, i)
	}
	if uint64(twice) != c.Duplicated {
		t.Errorf("%d packets came twice, counted %d", twice, c.Duplicated)
	}
	if overtaken < packets/20 || uint64(overtaken) > c.HeldBack {
		t.Errorf("%d packets arrived after later ones, %d were held back", overtaken, c.HeldBack)
	}
	if off := math.Abs(float64(c.Lost) - packets*link.Loss); off > 5*math.Sqrt(packets*link.Loss*(1-link.Loss)) {
		t.Errorf("%d of %d packets lost", c.Lost, packets)
	}
}

// TestRate fills a slow line and takes the time that the packets need.
func TestRate(t *testing.T) {
	const (
		rate    = 20e6
		packets = 300
		size    = 1000 + 28 // with IP and UDP headers
	)
	n := network(t, Config{Hosts: 2, Link: Link{Rate: rate, Queue: 200 * size}})
	a, b := udp(t, n)
	start := time.Now()
	for i := range packets {
		data := make([]byte, 1000)
		binary.BigEndian.PutUint32(data, uint32(i))
		send(t, a, b, data)
	}
	buf := make([]byte, 2000)
	var bits float64
	for range 200 {
		if _, _, err := b.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
		bits += size * 8
		if took := time.Since(start).Seconds(); bits > rate*took {
			t.Fatalf("%.0f bits within %.6f s on a line of %.0f bit/s", bits, took, rate)
		}
	}
	t.Logf("%.2f Mbit/s", bits/1e6/time.Since(start).Seconds())
	if c := n.Counters(0, 1); c.Sent == packets && c.QueueFull == 0 {
		t.Errorf("%d packets at once, and a queue of 200 dropped none: %+v", packets, c)
	}
}

func TestCutLosesAndMendRestores(t *testing.T) {
	n := network(t, Config{Hosts: 3, Link: Link{Delay: 20 * time.Millisecond}})
	a, b := udp(t, n)
	number := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
	send(t, a, b, number(1)) // under way when the link is cut
	n.waitSent(t, 0, 1, 1)
	n.Cut(0, 1)
	send(t, a, b, number(2))
	n.waitSent(t, 0, 1, 2)
	n.Mend(0, 1)
	send(t, a, b, number(3))
	if got := collect(t, b, 200*time.Millisecond); !slices.Equal(got, []int{3}) {
		t.Errorf("packets %v arrived, want 3 only", got)
	}
	if c := n.Counters(0, 1); c.CutOff != 2 || c.Carried != 1 {
		t.Errorf("counted %+v", c)
	}

	// One direction, and other pairs, are on their own.
	n.SetCut(1, 0, true)
	send(t, a, b, number(4))
	send(t, b, a, number(5))
	if got := collect(t, b, 100*time.Millisecond); !slices.Equal(got, []int{4}) {
		t.Errorf("packets %v arrived on the direction that is not cut", got)
	}
	if got := collect(t, a, 100*time.Millisecond); len(got) > 0 {
		t.Errorf("packets %v arrived on the direction that is cut", got)
	}
	c, err := n.Host(2).ListenPacket(deadline(t), "udp4", n.Host(2).AddrPort(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, b, c, number(6))
	if got := collect(t, c, 100*time.Millisecond); !slices.Equal(got, []int{6}) {
		t.Errorf("packets %v arrived at the third host", got)
	}
}

// waitSent waits until the switch has seen so many packets.
func (n *Network) waitSent(t *testing.T, from, to int, packets uint64) {
	t.Helper()
	for range 2000 {
		if n.Counters(from, to).Sent >= packets {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("the switch saw %+v, expected %d packets", n.Counters(from, to), packets)
}

// TestTCPStream sends data over TCP through loss and reordering, all hosts to
// all, and expects it whole.
func TestTCPStream(t *testing.T) {
	const hosts, size = 4, 200_000
	n := network(t, Config{Hosts: hosts, Link: Link{Delay: 200 * time.Microsecond, Rate: 100e6, Loss: 0.002, Reorder: 0.05, Duplicate: 0.01}})
	ctx := deadline(t)
	errs := make(chan error, hosts*hosts)
	for from := range hosts {
		for to := range hosts {
			go func() {
				errs <- func() error {
					ln, err := n.Host(to).Listen(ctx, "tcp4", ":0")
					if err != nil {
						return err
					}
					defer ln.Close()
					out, err := n.Host(from).Dial(ctx, "tcp4", n.Host(to).AddrPort(ln.Addr().(*net.TCPAddr).Port))
					if err != nil {
						return err
					}
					defer out.Close()
					in, err := ln.Accept()
					if err != nil {
						return err
					}
					defer in.Close()
					until, _ := ctx.Deadline()
					if err := errors.Join(out.SetDeadline(until), in.SetDeadline(until)); err != nil {
						return err
					}
					if got := in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != n.Host(from).Addr() {
						return fmt.Errorf("a connection of %v came from %v", n.Host(from).Addr(), got)
					}
					data := make([]byte, size)
					for i := range data {
						data[i] = byte(i * (from + 3*to + 1) >> 3)
					}
					go func() {
						_, _ = out.Write(data)
						_ = out.(*net.TCPConn).CloseWrite()
					}()
					got, err := io.ReadAll(in)
					if err == nil && !slices.Equal(got, data) {
						err = fmt.Errorf("%d to %d: %d bytes arrived, not the %d that were sent", from, to, len(got), len(data))
					}
					return err
				}()
			}()
		}
	}
	for range hosts * hosts {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	c := n.Total()
	t.Logf("%+v", c)
	if c.Lost == 0 || c.HeldBack == 0 || c.Duplicated == 0 {
		t.Errorf("the links did nothing to the packets: %+v", c)
	}
}

func TestPlainTCP(t *testing.T) {
	const rate = 100e6
	n := network(t, Config{Hosts: 2, Link: Link{Delay: 2 * time.Millisecond, Rate: rate}})
	before, start := n.Counters(0, 1), time.Now()
	s, err := n.PlainTCP(deadline(t), 0, 1, 300*time.Millisecond, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c := n.Counters(0, 1)
	t.Logf("%.1f Mbit/s of %.0f; %+v", s.BitsPerSecond()/1e6, rate/1e6, c)
	if s.Bytes == 0 {
		t.Error("nothing arrived")
	}
	if carried, most := float64(c.CarriedBytes-before.CarriedBytes)*8, rate*time.Since(start).Seconds(); carried > most {
		t.Errorf("the line carried %.0f bits, it can %.0f", carried, most)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("long enough"))
	defer cancel()
	if _, err := n.PlainTCP(ctx, 0, 1, 0, time.Minute); err == nil || !strings.Contains(err.Error(), "long enough") {
		t.Errorf("a measurement that is called off: %v", err)
	}
}

// TestSwitchDoesNotAllocate counts what the whole process allocates while
// packets go through.
func TestSwitchDoesNotAllocate(t *testing.T) {
	const packets, burst = 4000, 20
	n := network(t, Config{Hosts: 2, Link: Link{Delay: 300 * time.Microsecond, Rate: 1e9}})
	connA, connB := udp(t, n)
	a, b := connA.(*net.UDPConn), connB.(*net.UDPConn)
	to, data := b.LocalAddr().(*net.UDPAddr).AddrPort(), make([]byte, 1000)
	pass := func() error {
		for range burst {
			if _, err := a.WriteToUDPAddrPort(data, to); err != nil {
				return err
			}
		}
		for range burst {
			if _, _, err := b.ReadFromUDPAddrPort(data); err != nil {
				return err
			}
		}
		return nil
	}
	var before, after runtime.MemStats
	for i := range packets / burst {
		if i == packets/burst/4 {
			runtime.ReadMemStats(&before)
		}
		if err := pass(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > packets/20 { // the runtime's own, and others'
		t.Errorf("%d allocations for %d packets", n, packets*3/4)
	}
}

// BenchmarkPlainTCP is one TCP stream over 50 ms of round trip at 500 Mbit/s.
// 0.965 of the rate is the most that TCP's payload can be.
func BenchmarkPlainTCP(b *testing.B) {
	const rate = 500e6
	n := network(b, Config{Hosts: 2, Link: Link{Delay: 25 * time.Millisecond, Rate: rate}})
	for range b.N {
		s, err := n.PlainTCP(b.Context(), 0, 1, 2*time.Second, 3*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(s.BitsPerSecond()/1e6, "Mbit/s")
		b.ReportMetric(s.BitsPerSecond()/rate, "of-rate")
	}
	drops, err := n.Host(0).DeviceDrops()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(drops), "device-drops")
	c := n.Total()
	b.ReportMetric(float64(c.Late)/float64(c.Carried), "late")
}

// BenchmarkSwitch is what the switch and the kernel carry without a limit.
func BenchmarkSwitch(b *testing.B) {
	for _, tc := range []struct {
		name string
		link Link
		mtu  int
	}{
		{"straight", Link{}, 1500},
		{"delayed", Link{Delay: time.Millisecond}, 1500},
		{"delayed-mtu9000", Link{Delay: time.Millisecond}, 9000},
	} {
		b.Run(tc.name, func(b *testing.B) {
			n := network(b, Config{Hosts: 2, Link: tc.link, MTU: tc.mtu})
			for range b.N {
				s, err := n.PlainTCP(b.Context(), 0, 1, time.Second, 2*time.Second)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(s.BitsPerSecond()/1e6, "Mbit/s")
			}
		})
	}
}
