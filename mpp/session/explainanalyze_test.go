package session

import (
	"slices"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestStatistics reads what is said of slices that have sent nothing, one packet,
// and more.
func TestStatistics(t *testing.T) {
	a := &analysis{slices: []plan.Slice{{}, {Segments: []int{2}}, {}}, sent: [][]sentRows{
		{{bytes: 100, packets: 2, rows: 5}, {bytes: 1, packets: 1, rows: 6}}, {{bytes: 38, packets: 1, rows: 1}}, nil}}
	want := []string{
		"  (slice1)    Rows out: 5.5 avg x 2 workers, 6 max (seg1).  Sent: 101 bytes in 3 packets.",
		"  (slice2)    Rows out: 1 (seg2).  Sent: 38 bytes in 1 packet.",
		"  (slice3)    never executed",
	}
	if got := a.statistics(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
