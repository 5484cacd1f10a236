package icbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Read reads a report that JSON has printed.
func Read(r io.Reader) (*Report, error) {
	var rep Report
	if err := json.NewDecoder(r).Decode(&rep); err != nil {
		return nil, fmt.Errorf("not a report of bench interconnect: %w", err)
	}
	if rep.Version != 1 || len(rep.Cells) == 0 || slices.Contains(rep.Cells, nil) {
		return nil, errors.New("not a report of bench interconnect, or one of another version")
	}
	return &rep, nil
}

// Merge makes one report of several parts of a run on one machine: of other
// numbers of segments or sessions, or of the WAN. What two parts have measured
// at the same place is that of the later one.
func Merge(parts []*Report) (*Report, error) {
	r := &Report{}
	for i, p := range parts {
		if i == 0 {
			r.Version, r.Started, r.Machine, r.Quick, r.Setup = p.Version, p.Started, p.Machine, p.Quick, p.Setup
		}
		if p.Machine != r.Machine {
			return nil, fmt.Errorf("the parts are of different machines: %v, and %v", r.Machine, p.Machine)
		}
		r.Seconds += p.Seconds
		mergeSetup(&r.Setup, &p.Setup)
		for _, c := range p.Cells {
			if i := slices.IndexFunc(r.Cells, func(o *Cell) bool { return o.Place == c.Place && o.Query == c.Query && o.Type == c.Type }); i >= 0 {
				r.Cells[i] = c
			} else {
				r.Cells = append(r.Cells, c)
			}
		}
		for _, c := range p.Peaks {
			same := func(o Peak) bool {
				return o.Segments == c.Segments && o.Sessions == c.Sessions && o.Query == c.Query && o.Type == c.Type
			}
			if i := slices.IndexFunc(r.Peaks, same); i >= 0 {
				r.Peaks[i] = c
			} else {
				r.Peaks = append(r.Peaks, c)
			}
		}
		for _, n := range p.Notes {
			if !slices.Contains(r.Notes, n) {
				r.Notes = append(r.Notes, n)
			}
		}
	}
	// By place, as one run has them.
	slices.SortStableFunc(r.Cells, func(a, b *Cell) int { return slices.Compare(a.order(), b.order()) })
	r.finish()
	return r, nil
}

// order is what cells are sorted by.
func (c *Cell) order() []float64 {
	wan := 0.0
	if c.WAN {
		wan = 1
	}
	return []float64{wan, c.LossPercent, c.RTTMS, float64(c.Segments), float64(c.Sessions)}
}

// mergeSetup adds what a part says of the WAN.
func mergeSetup(s, p *Setup) {
	s.Namespaces = s.Namespaces || p.Namespaces
	if p.WAN && !s.WAN {
		s.WAN, s.WANSegments, s.RateMbit = true, p.WANSegments, p.RateMbit
		s.GatherMB, s.LimitS, s.WANRounds = p.GatherMB, p.LimitS, p.WANRounds
	}
}
