package icbench

import "fmt"

// Bound is a figure that must hold, and what was measured.
type Bound struct {
	Figure   string   `json:"figure"`
	Bound    string   `json:"bound"`
	Measured *float64 `json:"measured,omitempty"` // nil when it was not
	OK       bool     `json:"ok"`
	Where    string   `json:"where,omitempty"` // the cell that decides
}

func (b Bound) measured() string {
	if b.Measured == nil {
		return "-"
	}
	s := fmt.Sprintf("%.3g", *b.Measured)
	if b.Where != "" {
		s += " (" + b.Where + ")"
	}
	return s
}

func (b Bound) verdict() string {
	switch {
	case b.Measured == nil:
		return "not measured"
	case b.OK:
		return "ok"
	}
	return "MISSED"
}
