package sim

import "fmt"

// Kind is a motion's shape, with N segments.
type Kind string

const (
	Gather       Kind = "gather"       // N:1, to the coordinator
	Redistribute Kind = "redistribute" // N:N
	Broadcast    Kind = "broadcast"    // N:N
)

// Motion is one motion of a query, and the slice that sends it.
type Motion struct {
	Kind Kind `json:"kind"`
	// To is the index, in the query's list, of the motion whose slice reads
	// this one. It must be smaller than the motion's own index. A Gather is
	// read by the QD and has none.
	To int `json:"to"`
}

// Queries are the names Query knows.
var Queries = []string{"gather", "redistribute", "broadcast", "five-slices"}

// Query returns the motions of a query by name:
//
//	gather        every segment's rows go to the coordinator
//	redistribute  a join of which one side is redistributed
//	broadcast     a join of which one side is broadcast
//	five-slices   Slices(5)
func Query(name string) ([]Motion, error) {
	switch name {
	case "gather":
		return Slices(1)
	case "redistribute":
		return Slices(2)
	case "broadcast":
		return []Motion{{Kind: Gather}, {Kind: Broadcast}}, nil
	case "five-slices":
		return Slices(5)
	}
	return nil, fmt.Errorf("unknown query %q", name)
}

// Slices returns the motions of a query of n slices beside the coordinator's,
// 1 to MaxMotions: a gather and n-1 redistributions, which the slices read in
// pairs as joins of joins do. Slice i, from 1, reads slices 2i and 2i+1.
func Slices(n int) ([]Motion, error) {
	if err := inRange([]RangeError{{"slices", int64(n), 1, MaxMotions}}); err != nil {
		return nil, err
	}
	ms := make([]Motion, n)
	ms[0].Kind = Gather
	for i := 1; i < n; i++ {
		ms[i] = Motion{Kind: Redistribute, To: (i+1)/2 - 1}
	}
	return ms, nil
}

// shape is what the formulas need of a query.
type shape struct {
	gathers, wide int64 // motions N:1 and N:N
	// out is whether a slice sends to one or to N, in how many motions it
	// reads: for each sending slice.
	slices []sliceShape
}

type sliceShape struct {
	gather bool
	reads  int64
}

func shapeOf(motions []Motion) (q shape, err error) {
	if err := inRange([]RangeError{{"slices", int64(len(motions)), 1, MaxMotions}}); err != nil {
		return q, err
	}
	q.slices = make([]sliceShape, len(motions))
	for i, m := range motions {
		switch m.Kind {
		case Gather:
			q.gathers++
			q.slices[i].gather = true
			continue
		case Redistribute, Broadcast:
			q.wide++
		default:
			return q, fmt.Errorf("motion %d: unknown kind %q", i, m.Kind)
		}
		if m.To < 0 || m.To >= i {
			return q, fmt.Errorf("motion %d (%s): to %d is not an earlier motion", i, m.Kind, m.To)
		}
		q.slices[m.To].reads++
	}
	return q, nil
}
