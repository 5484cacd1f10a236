package wan

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLinkCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		link Link
		want string // "" is fine
	}{
		{"zero", Link{}, ""},
		{"all", Link{Delay: time.Second, Jitter: time.Second, Rate: 1, Queue: 1, Loss: 1, Duplicate: 1, Reorder: 1, ReorderBy: 1}, ""},
		{"loss", Link{Loss: 1.1}, "Loss is 1.1"},
		{"not a number", Link{Reorder: math.NaN()}, "Reorder is NaN"},
		{"duplicate", Link{Duplicate: -0.1}, "Duplicate is -0.1"},
		{"delay", Link{Delay: -1}, "Delay is -1ns"},
		{"jitter", Link{Jitter: time.Hour}, "Jitter is 1h0m0s"},
		{"rate", Link{Rate: -1}, "Rate is -1"},
		{"queue", Link{Queue: -1}, "Queue is -1"},
	} {
		err := tc.link.check()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestLinkDefaults(t *testing.T) {
	for _, tc := range []struct {
		link      Link
		queue     int
		reorderBy time.Duration
	}{
		{Link{}, 0, time.Millisecond},
		{Link{Delay: 25 * time.Millisecond, Rate: 500e6}, 3125000, 3125 * time.Microsecond},
		{Link{Rate: 1e6}, 64 << 10, time.Millisecond},
		{Link{Rate: 1e6, Queue: 1, ReorderBy: 1}, 1, 1},
		{Link{Delay: time.Minute, Rate: 1e12}, math.MaxInt32, 7500 * time.Millisecond},
	} {
		got := tc.link.withDefaults()
		if got.Queue != tc.queue || got.ReorderBy != tc.reorderBy {
			t.Errorf("%+v: queue %d, reorder by %v; want %d, %v", tc.link, got.Queue, got.ReorderBy, tc.queue, tc.reorderBy)
		}
	}
}

// TestFates walks through packets whose fate is certain.
func TestFates(t *testing.T) {
	const ms = time.Millisecond
	type packet struct {
		at   time.Duration
		size int
		want fate
	}
	for _, tc := range []struct {
		name    string
		link    Link
		packets []packet
	}{
		{"nothing in the way", Link{}, []packet{{0, 1500, fate{carried, 0, 1, false}}, {7, 1, fate{carried, 7, 1, false}}}},
		{"delay", Link{Delay: 5 * ms}, []packet{{ms, 1500, fate{carried, 6 * ms, 1, false}}, {ms, 40, fate{carried, 6 * ms, 1, false}}}},
		{"rate", Link{Delay: 5 * ms, Rate: 8e6}, []packet{ // 1 byte takes 1 µs
			{0, 1000, fate{carried, 6 * ms, 1, false}},
			{0, 1000, fate{carried, 7 * ms, 1, false}},
			{ms + ms/2, 500, fate{carried, 7*ms + ms/2, 1, false}},
			{9 * ms, 1000, fate{carried, 15 * ms, 1, false}},
		}},
		{"queue", Link{Rate: 8e6, Queue: 2000}, []packet{
			{0, 1500, fate{carried, ms + ms/2, 1, false}},
			{0, 501, fate{outcome: queueFull}},
			{0, 500, fate{carried, 2 * ms, 1, false}},
			{0, 1, fate{outcome: queueFull}},
			{ms, 1000, fate{carried, 3 * ms, 1, false}},
		}},
		{"an idle line takes what its queue would not", Link{Rate: 8e6, Queue: 1}, []packet{
			{0, 1000, fate{carried, ms, 1, false}}, {0, 1, fate{outcome: queueFull}}, {ms, 1000, fate{carried, 2 * ms, 1, false}}}},
		{"loss takes its time on the line", Link{Rate: 8e6, Loss: 1}, []packet{
			{0, 70000, fate{outcome: lost}}, {0, 1, fate{outcome: queueFull}}}},
		{"twice", Link{Duplicate: 1}, []packet{{3, 1, fate{carried, 3, 2, false}}}},
	} {
		m := newModel(tc.link, 1)
		for i, p := range tc.packets {
			if got := m.send(p.at, p.size); got != p.want {
				t.Errorf("%s: packet %d: got %+v, want %+v", tc.name, i, got, p.want)
			}
		}
	}
}

func TestCutAndMend(t *testing.T) {
	m := newModel(Link{Rate: 8e6, Delay: time.Millisecond}, 1)
	m.send(0, 5000)
	m.setCut(true)
	if got := m.send(0, 1000); got.outcome != cutOff {
		t.Errorf("packet for a cut link: %+v", got)
	}
	m.setCut(false)
	if got, want := m.send(0, 1000), 2*time.Millisecond; got.due != want {
		t.Errorf("first packet after mending is due at %v, want %v: what was on the line before is gone", got.due, want)
	}
}

func drawLink(t *rapid.T) Link {
	part := rapid.SampledFrom([]float64{0, 0.001, 0.2, 0.9, 1})
	span := rapid.SampledFrom([]time.Duration{0, 1, time.Millisecond, 50 * time.Millisecond})
	return Link{
		Delay: span.Draw(t, "delay"), Jitter: span.Draw(t, "jitter"), ReorderBy: span.Draw(t, "by"),
		Rate:  rapid.SampledFrom([]int64{0, 1, 3, 56e3, 5e8, 7e10, 1e12}).Draw(t, "rate"),
		Queue: rapid.SampledFrom([]int{0, 1, 1500, 1e6}).Draw(t, "queue"),
		Loss:  part.Draw(t, "loss"), Duplicate: part.Draw(t, "dup"), Reorder: part.Draw(t, "reorder"),
		Seed: rapid.Uint64().Draw(t, "seed"),
	}
}

// TestModelKeepsItsWord checks what holds for every link and every traffic.
func TestModelKeepsItsWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		link := drawLink(t)
		m, twin := newModel(link, 5), newModel(link, 5)
		l := link.withDefaults()
		sending := func(bytes int) time.Duration { // rounded up to nanoseconds
			return time.Duration((uint64(bytes)*8e9 + uint64(l.Rate) - 1) / uint64(l.Rate))
		}
		var now, inOrder, lineFree time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			now += rapid.SampledFrom([]time.Duration{0, 0, 0, 1000, time.Millisecond}).Draw(t, "gap")
			size := rapid.SampledFrom([]int{1, 40, 1500, 65535}).Draw(t, "size")
			f := m.send(now, size)
			if g := twin.send(now, size); g != f {
				t.Fatalf("same seed, same packets, but %+v and %+v", f, g)
			}
			if f.outcome == queueFull {
				if l.Rate == 0 {
					t.Fatal("no line, but it has no room")
				}
				if lineFree <= now {
					t.Fatal("an idle line has no room")
				}
				if lineFree-now+sending(size) <= sending(l.Queue) {
					t.Fatalf("the queue of %d bytes has no room for %d when %v are waiting", l.Queue, size, lineFree-now)
				}
				continue
			}
			if l.Rate > 0 {
				wait := lineFree - now + sending(size)
				if lineFree > now && wait > sending(l.Queue) {
					t.Fatalf("the queue of %d bytes took a packet that waits %v", l.Queue, wait)
				}
				lineFree = max(lineFree, now) + sending(size)
			}
			least := max(lineFree, now) + l.Delay
			if f.outcome == lost {
				if l.Loss == 0 {
					t.Fatal("lost without loss")
				}
				continue
			}
			if f.due < least {
				t.Fatalf("packet of %d bytes at %v is due at %v, before %v", size, now, f.due, least)
			}
			switch {
			case f.held:
				if l.Reorder == 0 || f.due <= inOrder && l.ReorderBy > 1 {
					t.Fatalf("held back: %+v", f)
				}
			case f.due < inOrder:
				t.Fatalf("due at %v, overtakes the packet due at %v", f.due, inOrder)
			default:
				inOrder = f.due
			}
			if f.copies != 1 && !(f.copies == 2 && l.Duplicate > 0) {
				t.Fatalf("%d copies", f.copies)
			}
		}
	})
}

// TestFractions counts fates against the probabilities, and that the fate of
// the k-th packet depends on nothing but the seed and k.
func TestFractions(t *testing.T) {
	const packets = 100_000
	link := Link{Loss: 0.01, Duplicate: 0.05, Reorder: 0.2, ReorderBy: time.Millisecond, Seed: 42}
	m, slow, other := newModel(link, 1), newModel(link, 1), newModel(link, 2)
	var losses, dups, held, same int
	for i := range packets {
		f, g := m.send(0, 100), slow.send(time.Duration(i)*time.Second, 1500)
		if f.outcome != g.outcome || f.copies != g.copies || f.held != g.held {
			t.Fatalf("packet %d: %+v and %+v", i, f, g)
		}
		if h := other.send(0, 100); h.outcome == lost && f.outcome == lost {
			same++
		}
		switch {
		case f.outcome == lost:
			losses++
			continue
		case f.copies == 2:
			dups++
		}
		if f.held {
			held++
		}
	}
	arrived := float64(packets - losses)
	for _, c := range []struct {
		name       string
		got        int
		part, size float64
	}{{"lost", losses, link.Loss, packets}, {"duplicated", dups, link.Duplicate, arrived}, {"held back", held, link.Reorder, arrived}} {
		if off := math.Abs(float64(c.got) - c.part*c.size); off > 5*math.Sqrt(c.size*c.part*(1-c.part)) {
			t.Errorf("%s: %d of %.0f, expected about %.0f", c.name, c.got, c.size, c.part*c.size)
		}
	}
	if same > losses/2 {
		t.Errorf("two directions lost %d of %d packets in common", same, losses)
	}
}

// TestReorderOvertakes sees a later packet before an earlier one.
func TestReorderOvertakes(t *testing.T) {
	m := newModel(Link{Delay: 10 * time.Millisecond, Reorder: 0.2}, 1)
	var last time.Duration
	overtaken := 0
	for i := range 1000 {
		f := m.send(time.Duration(i)*50*time.Microsecond, 1500)
		if f.due < last {
			overtaken++
		}
		last = max(last, f.due)
	}
	if overtaken < 100 {
		t.Errorf("%d of 1000 packets arrive after a later one, with a fifth held back", overtaken)
	}
}
