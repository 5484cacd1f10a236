package wan

import (
	"math/rand/v2"
	"time"
)

// outcome is what becomes of a packet.
type outcome uint8

const (
	carried   outcome = iota
	queueFull         // the line's queue had no room
	lost              // the line lost it
	cutOff            // the link was cut
)

// fate is the model's answer for one packet.
type fate struct {
	outcome outcome
	due     time.Duration // when it arrives; only when carried
	copies  int           // 1, or 2 when duplicated
	held    bool          // held back, so that later ones may overtake
}

// model is the link of one direction as a function of what is sent when. It
// knows neither clock nor socket: times are given, since an instant of the
// caller's choice, and must not go backwards. Not safe for concurrent use.
type model struct {
	link      Link
	queueTime time.Duration // how long a full queue takes to be sent
	rng       rand.PCG
	cut       bool
	busyUntil time.Duration // when the line has sent what it accepted
	lastDue   time.Duration // of the packets in order
}

func newModel(l Link, direction uint64) *model {
	m := &model{}
	m.rng.Seed(l.Seed, direction)
	m.set(l)
	return m
}

// set changes the link for packets to come. Those under way keep their times,
// and nothing in order overtakes them.
func (m *model) set(l Link) {
	l = l.withDefaults()
	m.link = l
	if l.Rate > 0 {
		m.queueTime = m.sending(l.Queue)
	}
}

// reseed starts the fates again.
func (m *model) reseed(seed, direction uint64) { m.rng.Seed(seed, direction) }

// setCut cuts or mends. A line that was cut has nothing under way any more.
func (m *model) setCut(cut bool) {
	m.cut = cut
	m.busyUntil, m.lastDue = 0, 0
}

// sending is how long the line needs for size bytes, rounded up, so that the
// rate is never exceeded.
func (m *model) sending(size int) time.Duration {
	rate := uint64(m.link.Rate)
	ns := (uint64(size)*8e9 + rate - 1) / rate // below 2^64 for all of 2^31 bytes
	return time.Duration(min(ns, 1<<62))
}

// send decides on a packet of size bytes that is handed to the link at now.
func (m *model) send(now time.Duration, size int) fate {
	// Each packet takes the same number of draws, so that the fate of the k-th
	// does not depend on what else the link does, nor on the time.
	l := &m.link
	loss, dup, hold, holdBy, jitter := m.draw(), m.draw(), m.draw(), m.draw(), m.draw()
	if m.cut {
		return fate{outcome: cutOff}
	}
	departs := now
	if l.Rate > 0 {
		departs = max(now, m.busyUntil)
		needs := m.sending(size)
		// An idle line takes any packet, however small its queue.
		if departs > now && departs-now+needs > m.queueTime {
			return fate{outcome: queueFull}
		}
		departs += needs
		m.busyUntil = departs
	}
	// Lost on the line, hence after it took its time there.
	if loss < l.Loss {
		return fate{outcome: lost}
	}
	f := fate{due: departs + l.Delay + time.Duration(jitter*float64(l.Jitter)), copies: 1}
	f.due = max(f.due, m.lastDue)
	if hold < l.Reorder {
		f.held = true
		f.due += time.Duration((1 - holdBy) * float64(l.ReorderBy)) // never 0
	} else {
		m.lastDue = f.due
	}
	if dup < l.Duplicate {
		f.copies = 2
	}
	return f
}

// draw returns a number in [0,1).
func (m *model) draw() float64 { return float64(m.rng.Uint64()>>11) / (1 << 53) }
