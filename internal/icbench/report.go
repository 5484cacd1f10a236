package icbench

import (
	"encoding/json"
	"io"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// Names of figures; each ends in its unit. Per run is per execution of the
// query.
const (
	ElapsedP50 = "elapsed_p50_ms"
	ElapsedP95 = "elapsed_p95_ms"
	// Rate is that of bytes of rows that clients got; of a run over the WAN that
	// did not finish in time, of what there was until then.
	Rate        = "rate_mb_per_s"
	PerSecond   = "queries_per_s"
	NetKB       = "net_kb_per_run" // between instances
	NetPackets  = "net_packets_per_run"
	Retransmits = "retransmits"
	Runs        = "runs"
	Unfinished  = "unfinished_runs" // ended by the time limit
	// Estimate is how long it would have taken at the rate so far, of a gather
	// that did not finish.
	Estimate = "elapsed_estimated_ms"
)

// Figures are numbers by their names.
type Figures map[string]float64

// Report is what was measured.
type Report struct {
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Machine Machine   `json:"machine"`
	Quick   bool      `json:"quick,omitempty"`
	Setup   Setup     `json:"setup"`
	Cells   []*Cell   `json:"cells"`
	Peaks   []Peak    `json:"peaks"`
	Bounds  []Bound   `json:"bounds"`
	Notes   []string  `json:"notes,omitempty"`
}

// Machine is what it was measured on.
type Machine = benchreport.Machine

// Bound is a figure that must hold, and what was measured.
type Bound = benchreport.Bound

// Setup is what was asked for.
type Setup struct {
	Types       []string  `json:"types"`
	Segments    []int     `json:"segments"`
	Sessions    []int     `json:"sessions"`
	Rounds      int       `json:"rounds"`
	SlotMS      float64   `json:"slot_ms"`
	Rows        int       `json:"rows"`
	GatherRows  int       `json:"gather_rows"`
	Namespaces  bool      `json:"namespaces"` // the clusters had networks of their own
	WAN         bool      `json:"wan"`
	WANSegments int       `json:"wan_segments"`
	RTTMS       []float64 `json:"rtt_ms"`
	LossPercent []float64 `json:"loss_percent"`
	RateMbit    float64   `json:"rate_mbit_per_s"`
	GatherMB    int       `json:"wan_gather_mb"`
	LimitS      float64   `json:"wan_limit_s"`
	WANRounds   int       `json:"wan_rounds"`
}

// Place is where a cell was measured.
type Place struct {
	WAN         bool    `json:"wan"`
	Segments    int     `json:"segments"`
	Sessions    int     `json:"sessions"`
	RTTMS       float64 `json:"rtt_ms,omitempty"`
	LossPercent float64 `json:"loss_percent,omitempty"`
}

// Cell is one query in one interconnect type at one place.
type Cell struct {
	Place
	Query  string    `json:"query"`
	Type   string    `json:"type"` // one of Types, or PlainTCP
	Rounds []Figures `json:"rounds,omitempty"`
	// Median has the medians of the rounds' figures; the 95th percentile is
	// that of all runs.
	Median Figures `json:"median,omitempty"`
	Error  string  `json:"error,omitempty"` // why there is no more

	elapsed []float64 // of all finished runs, in ms
}

// Peak is what a type holds while all sessions are in the middle of a query.
type Peak struct {
	Segments int    `json:"segments"`
	Sessions int    `json:"sessions"`
	Query    string `json:"query"`
	Type     string `json:"type"`
	Sockets
	// Sim is what package sim says of the same; nil when it was not asked.
	Sim   *Sockets `json:"sim,omitempty"`
	Error string   `json:"error,omitempty"`
}

// cell finds or adds a cell.
func (r *Report) cell(p Place, query, typ string) *Cell {
	if c := r.find(p, query, typ); c != nil {
		return c
	}
	c := &Cell{Place: p, Query: query, Type: typ}
	r.Cells = append(r.Cells, c)
	return c
}

func (r *Report) find(p Place, query, typ string) *Cell {
	for _, c := range r.Cells {
		if c.Place == p && c.Query == query && c.Type == typ {
			return c
		}
	}
	return nil
}

// fail records why a cell ends; the first reason stays.
func (c *Cell) fail(err error) {
	if c.Error == "" {
		c.Error = benchreport.FirstLine(err)
	}
}

// summarize fills in the medians.
func (c *Cell) summarize() {
	if len(c.Rounds) == 0 {
		return
	}
	c.Median = benchreport.Medians(c.Rounds)
	if len(c.elapsed) > 0 {
		c.Median[ElapsedP95] = benchreport.Quantile(c.elapsed, 0.95)
	}
}

// JSON prints the report.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
