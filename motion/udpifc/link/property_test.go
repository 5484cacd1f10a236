package link

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestHostileNetwork: at 20 % loss, 20 % reordering and 5 % duplication each
// receiver gets each packet once and in order, whatever the parameters.
func TestHostileNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params{
			Capacity:      rapid.Bool().Draw(t, "capacity"),
			QueueDepth:    rapid.IntRange(1, 9).Draw(t, "queue depth"),
			SndQueueDepth: rapid.IntRange(1, 9).Draw(t, "send queue depth"),
			MinRTO:        time.Duration(rapid.SampledFrom([]int{1, 20, 200}).Draw(t, "min rto")) * time.Millisecond,
			MinRetries:    4096,
		}
		m := newSim(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 4).Draw(t, "receivers"), p, network{
			oneWay: time.Duration(rapid.IntRange(0, 100).Draw(t, "one way")) * time.Millisecond,
			loss:   0.2, delay: 0.2, dup: 0.05,
		})
		for _, r := range m.recv {
			r.pause = time.Duration(rapid.SampledFrom([]int{0, 1, 700}).Draw(t, "pause")) * time.Millisecond
			r.stopAt = rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "stop after")
		}
		if err := m.run(rapid.IntRange(1, 30).Draw(t, "packets"), time.Hour); err != nil {
			t.Fatal(err)
		}
	})
}

// TestQuietNetwork: where nothing is lost and round trips are short nothing is
// sent twice.
func TestQuietNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params{
			QueueDepth:    rapid.IntRange(1, 9).Draw(t, "queue depth"),
			SndQueueDepth: rapid.IntRange(1, 9).Draw(t, "send queue depth"),
		}
		m := newSim(1, rapid.IntRange(1, 4).Draw(t, "receivers"), p, network{oneWay: 5 * time.Millisecond})
		if err := m.run(rapid.IntRange(1, 30).Draw(t, "packets"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if m.again != 0 || m.queries != 0 {
			t.Fatalf("%d packets sent again, %d queries", m.again, m.queries)
		}
	})
}

// TestWindow: how many packets are on a long way is the least of what
// the parameters allow, and every one of them matters.
func TestWindow(t *testing.T) {
	long := network{oneWay: 25 * time.Millisecond}
	patient := Params{DefaultRTT: time.Second, MinRTO: time.Second}
	for _, c := range []struct {
		name    string
		capac   bool
		queue   int
		snd     int
		inRound float64 // packets in each round trip of 50 ms
	}{
		{"defaults", false, 4, 2, 2},
		{"send queue alone", false, 4, 64, 4},
		{"queue alone", false, 64, 2, 2},
		{"both", false, 64, 64, 40},
		{"capacity", true, 4, 2, 2},
		{"capacity, both", true, 64, 64, 40},
	} {
		p := patient
		p.Capacity, p.QueueDepth, p.SndQueueDepth = c.capac, c.queue, c.snd
		m := newSim(1, 1, p, long)
		const packets = 400
		if err := m.run(packets, time.Hour); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		rounds := float64(m.now) / float64(50*time.Millisecond)
		if got := packets / rounds; got < 0.8*c.inRound || c.inRound < 10 && got > 1.1*c.inRound {
			t.Errorf("%s: %.1f packets in each round trip, want about %v", c.name, got, c.inRound)
		}
	}
}

// TestLongRoundTrip is what Greenplum suffers from: with a first guess of
// 20 ms every packet is sent twice and more where a round trip takes 50, and
// no measurement ever says so. A better guess helps.
func TestLongRoundTrip(t *testing.T) {
	run := func(p Params) *sim {
		m := newSim(1, 1, p, network{oneWay: 25 * time.Millisecond})
		if err := m.run(200, time.Hour); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := run(Params{}); m.again < 200 || m.s.conns[0].srtt != 20*time.Millisecond {
		t.Errorf("by default %d of 200 packets were sent again, round trip estimated %v", m.again, m.s.conns[0].srtt)
	}
	if m := run(Params{Capacity: true}); m.again < 500 {
		t.Errorf("in capacity mode %d of 200 packets were sent again", m.again)
	}
	if m := run(Params{DefaultRTT: 60 * time.Millisecond}); m.again > 5 || (m.s.conns[0].srtt-50*time.Millisecond).Abs() > 2*time.Millisecond {
		t.Errorf("with a good guess %d packets were sent again, round trip estimated %v", m.again, m.s.conns[0].srtt)
	}
	if m := run(Params{MinRTO: 200 * time.Millisecond}); m.again > 5 {
		t.Errorf("with min_rto of 200 ms %d packets were sent again", m.again)
	}
}

// TestGivesUp: a receiver that is not there is given up when both the timeout
// and the retries say so, after one warning.
func TestGivesUp(t *testing.T) {
	for _, capac := range []bool{false, true} {
		m := newSim(1, 1, Params{Capacity: capac, TransmitTimeout: 10 * time.Second, MinRetries: 30}, network{loss: 1})
		err := m.run(5, time.Hour)
		if err == nil || m.warned != 1 || m.again < 30 || m.again > 60 {
			t.Errorf("%v; %d warnings, sent again %d times", err, m.warned, m.again)
		}
		if m.now < 10*time.Second || m.now > 60*time.Second {
			t.Errorf("given up after %v", m.now)
		}
	}
}

// TestUnansweredQueries: so is one that has taken packets, consumes none, and
// is gone.
func TestUnansweredQueries(t *testing.T) {
	m := newSim(1, 1, Params{TransmitTimeout: 10 * time.Second}, network{})
	m.recv[0].pause = time.Hour
	if err := m.run(20, 30*time.Second); err == nil || m.queries < 50 || m.again > 0 {
		t.Fatalf("a slow receiver: %v; %d queries", err, m.queries)
	}
	m.net.loss = 1
	var to *Timeout
	for to == nil {
		m.advance()
		to = m.s.Tick(m.now)
		m.deliver()
	}
	if to.Retries != 0 || to.After <= 10*time.Second || m.now < 40*time.Second || m.now > 42*time.Second {
		t.Errorf("%v: %+v", m.now, *to)
	}
	m.s.Abort()
	if _, ok := m.s.Next(); ok || m.s.Open() != 0 {
		t.Error("an aborted sender waits for something")
	}
}
