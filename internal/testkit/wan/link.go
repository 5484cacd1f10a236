package wan

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Link is what happens to the packets of one direction. The zero Link carries
// everything at once.
type Link struct {
	Delay  time.Duration // one way; a round trip takes the sum of both directions
	Jitter time.Duration // at most this much is added to Delay; order is kept
	Rate   int64         // bit/s of IP packets, headers included; 0 is without limit
	// Queue is how many bytes may wait for the line when Rate is set; what
	// comes on top is dropped. 0 is one product of Rate and twice Delay, at
	// least 64 KiB.
	Queue     int
	Loss      float64 // 0..1, the part of the packets that the line loses
	Duplicate float64 // 0..1, the part that arrives twice
	Reorder   float64 // 0..1, the part that is held back so that later ones overtake
	// ReorderBy is how long at most a packet is held back. 0 is an eighth of
	// Delay, at least 1 ms.
	ReorderBy time.Duration
	// Seed chooses the fates. The k-th packet of a direction meets the same
	// fate in each run with the same seed; directions differ by themselves.
	Seed uint64
}

const (
	minQueue     = 64 << 10
	minReorderBy = time.Millisecond
	maxDelay     = time.Minute
	maxRate      = int64(1e12)
)

func (l Link) withDefaults() Link {
	if l.Queue == 0 && l.Rate > 0 {
		bdp := float64(l.Rate) / 8 * 2 * l.Delay.Seconds()
		l.Queue = int(min(max(bdp, minQueue), math.MaxInt32))
	}
	if l.ReorderBy == 0 {
		l.ReorderBy = max(l.Delay/8, minReorderBy)
	}
	return l
}

func (l Link) check() error {
	var errs []error
	for _, p := range []struct {
		name  string
		value float64
	}{{"Loss", l.Loss}, {"Duplicate", l.Duplicate}, {"Reorder", l.Reorder}} {
		if !(p.value >= 0 && p.value <= 1) { // so that NaN is refused too
			errs = append(errs, fmt.Errorf("wan: link: %s is %v, must be between 0 and 1", p.name, p.value))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Delay", l.Delay}, {"Jitter", l.Jitter}, {"ReorderBy", l.ReorderBy}} {
		if d.value < 0 || d.value > maxDelay {
			errs = append(errs, fmt.Errorf("wan: link: %s is %v, must be between 0 and %v", d.name, d.value, maxDelay))
		}
	}
	if l.Rate < 0 || l.Rate > maxRate {
		errs = append(errs, fmt.Errorf("wan: link: Rate is %d bit/s, must be between 0 (no limit) and %d", l.Rate, maxRate))
	}
	if l.Queue < 0 || l.Queue > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("wan: link: Queue is %d bytes, must be between 0 (default) and %d", l.Queue, math.MaxInt32))
	}
	return errors.Join(errs...)
}
