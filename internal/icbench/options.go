package icbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/topology"
)

// The interconnect types, in the order in which they take turns.
var Types = []string{"udpifc", "tcp", "proxy"}

// Limits of the options.
const (
	MinSegments = 2
	MaxSegments = 16
	MaxSessions = 64 // each takes up to six connections to each PostgreSQL server
	maxRTT      = 2 * time.Second
	// wideHosts is how many instances the emulated network has room for.
	wideHosts = 16
)

// Options are what to measure. [Options.Fill] puts the defaults in.
type Options struct {
	Types    []string // of Types
	Segments []int    // a cluster for each
	Sessions []int    // for each cluster
	Rounds   int      // of each type, in turn
	// Slot is how long a round runs each query, again and again, on loopback;
	// once at least in each session.
	Slot time.Duration
	Rows int // of each big table of the joins on loopback
	// GatherRows is how many rows of some 110 bytes a gather brings on loopback.
	GatherRows int

	NoWAN       bool
	WANSegments int
	RTT         []time.Duration
	Loss        []float64     // 0..1, of each direction
	Rate        int64         // bit/s of each link between two instances
	Size        int           // MB (10^6 bytes) that a gather brings over the WAN
	Limit       time.Duration // for a query over the WAN; longer ones are ended
	WANRounds   int           // as Rounds
	NoLoopback  bool
	Quick       bool // smaller defaults

	// Binary is the program that the instances run. Default: this one.
	Binary string
	// Bootstrap makes the catalog in an instance's databases; see
	// cluster.Options.
	Bootstrap func(ctx context.Context, inst topology.Instance, socketDir string) error
	// Progress is told what is going on, from one goroutine at a time. It may
	// be nil.
	Progress func(step string)
}

// Fill puts defaults where nothing is given.
func (o *Options) Fill() {
	pick := func(n *int, full, quick int) {
		if *n == 0 {
			*n = full
			if o.Quick {
				*n = quick
			}
		}
	}
	if o.Types == nil {
		o.Types = slices.Clone(Types)
	}
	if o.Segments == nil {
		o.Segments = []int{2, 4, 8, 16}
		if o.Quick {
			o.Segments = []int{2, 4}
		}
	}
	if o.Sessions == nil {
		o.Sessions = []int{1, 8, 32}
		if o.Quick {
			o.Sessions = []int{1, 4}
		}
	}
	if o.RTT == nil {
		o.RTT = []time.Duration{time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}
		if o.Quick {
			o.RTT = []time.Duration{10 * time.Millisecond, 50 * time.Millisecond}
		}
	}
	if o.Loss == nil {
		o.Loss = []float64{0, 0.001, 0.01}
		if o.Quick {
			o.Loss = []float64{0, 0.01}
		}
	}
	pick(&o.Rounds, 3, 2)
	pick(&o.WANRounds, 2, 1)
	pick(&o.Rows, 10000, 5000)
	pick(&o.GatherRows, 10000, 5000)
	pick(&o.WANSegments, 3, 3)
	pick(&o.Size, 100, 20)
	if o.Slot == 0 {
		o.Slot = 300 * time.Millisecond
		if o.Quick {
			o.Slot = 150 * time.Millisecond
		}
	}
	if o.Rate == 0 {
		// What the emulator carries beside a busy cluster on two processors: the
		// line shall be what is slow.
		o.Rate = 80e6
	}
	if o.Limit == 0 {
		o.Limit = 8 * time.Second
		if o.Quick {
			o.Limit = 4 * time.Second
		}
	}
}

// Check says what is wrong with filled options.
func (o *Options) Check() error {
	for _, t := range o.Types {
		if !slices.Contains(Types, t) {
			return fmt.Errorf("unknown interconnect type %q: use %s", t, strings.Join(Types, ", "))
		}
	}
	for _, n := range o.Segments {
		if n < MinSegments || n > MaxSegments {
			return fmt.Errorf("%d segments: use %d to %d", n, MinSegments, MaxSegments)
		}
	}
	for _, n := range o.Sessions {
		if n < 1 || n > MaxSessions {
			return fmt.Errorf("%d sessions: use 1 to %d", n, MaxSessions)
		}
	}
	for _, d := range o.RTT {
		if d < 0 || d > maxRTT {
			return fmt.Errorf("a round trip of %v: use 0 to %v", d, maxRTT)
		}
	}
	for _, p := range o.Loss {
		if !(p >= 0 && p < 1) {
			return fmt.Errorf("a loss of %v %%: use 0 to less than 100", p*100)
		}
	}
	switch {
	case len(o.Types) == 0 || len(o.Segments) == 0 || len(o.Sessions) == 0:
		return errors.New("nothing to measure: give types, segments and sessions")
	case len(slices.Compact(slices.Sorted(slices.Values(o.Types)))) != len(o.Types):
		return errors.New("an interconnect type is given twice")
	case o.WANSegments < 1 || o.WANSegments >= wideHosts:
		return fmt.Errorf("%d segments over the WAN: use 1 to %d", o.WANSegments, wideHosts-1)
	case o.Rounds < 1 || o.WANRounds < 1 || o.Rows < 100 || o.GatherRows < 1 || o.Size < 1 || o.Rate < 1e5:
		return errors.New("rounds, rows and size cannot be that small")
	case o.Slot < 0 || o.Limit < 0:
		return errors.New("times cannot be negative")
	case o.Size > 4000:
		return fmt.Errorf("%d MB are too many: use up to 4000", o.Size)
	case o.NoWAN && o.NoLoopback:
		return errors.New("neither loopback nor WAN: nothing to measure")
	}
	return nil
}
