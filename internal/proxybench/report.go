package proxybench

import (
	"encoding/json"
	"io"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// Report is what Run returns. Its JSON form is for programs; a change of
// meaning changes Version.
type Report struct {
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // that it took
	Machine Machine   `json:"machine"`
	// Own is true when the proxies were started for the run.
	Own bool `json:"own_proxies"`
	// Pump is the kind of the byte pump, "" for none.
	Pump    string   `json:"byte_pump,omitempty"`
	Results []Result `json:"results"`
	// Failures are why parts of the standard set could not be measured.
	Failures []string `json:"failures,omitempty"`
	// Bounds compare the results with what must hold. Only the standard set
	// has them.
	Bounds []Bound `json:"bounds,omitempty"`
}

// Machine is where it was measured.
type Machine = benchreport.Machine

// Result is one measurement.
type Result struct {
	Mode  string `json:"mode"`
	Label string `json:"label"`
	// Streams are those with data, Connections the ones without.
	Streams     int            `json:"streams,omitempty"`
	Size        int            `json:"packet_bytes,omitempty"`
	Connections int            `json:"connections,omitempty"`
	Paths       []PathResult   `json:"paths"`
	Series      []MemorySample `json:"memory_series,omitempty"` // of a soak
	Notes       []string       `json:"notes,omitempty"`
}

// PathResult is what one path did: in each round, and the medians.
type PathResult struct {
	Path   string    `json:"path"`
	Median Figures   `json:"median"`
	Rounds []Figures `json:"rounds"`
	// Ratio is the median over the rounds of each figure divided by the byte
	// pump's of the same round.
	Ratio Figures `json:"ratio_to_byte_pump,omitempty"`
}

// Figures are named numbers; the names tell the unit.
type Figures map[string]float64

// Names of figures. Bytes of memory are the proxies' sum unless the name says
// otherwise.
const (
	MBps        = "mb_per_s"         // 10^6 bytes a second, all streams together
	CPUPerGB    = "cpu_s_per_gb"     // of the processes in between, 10^9 bytes
	OwnCPUPerGB = "own_cpu_s_per_gb" // of the process that measures
	P50         = "p50_ms"
	P99         = "p99_ms"
	PerSecond   = "per_s"
	CPUEach     = "cpu_us_each" // of the processes in between, each time
	Alone       = "alone_mb_per_s"
	OfAlone     = "of_rate_alone"     // rate beside something as a part of the rate alone
	RSS         = "rss_bytes"         // resident memory after
	RSSMax      = "rss_bytes_1"       // in the proxy where it is greater
	RSSTrend    = "rss_trend"         // last quarter of a soak to its second
	RSSGrowth   = "rss_growth_bytes"  // by what was measured
	RSSEach     = "rss_bytes_each"    // growth a connection, all proxies
	RSSEachMax  = "rss_bytes_each_1"  // growth a connection in the proxy where it is greater
	AnonEach    = "anon_bytes_each"   // anonymous memory (heap and stacks), growth a connection
	Accepted    = "accepted_bytes"    // what the path took from senders nobody reads
	Allocs      = "allocs_per_packet" // on the heap, both proxies
	TotalBytes  = "bytes"
	TotalOpened = "connections"
	Descriptors = "descriptors_left" // more than before
)

// MemorySample is the proxies' memory at a moment.
type MemorySample struct {
	Second float64 `json:"second"`
	Memory
	Connections int   `json:"connections"` // made so far
	Bytes       int64 `json:"bytes"`       // moved so far
}

// figure returns a median, and whether there is one.
func (r *Report) figure(mode, label, path, name string) (float64, bool) {
	for _, res := range r.Results {
		if res.Mode == mode && (label == "" || res.Label == label) {
			for _, p := range res.Paths {
				if p.Path == path {
					v, ok := p.Median[name]
					return v, ok
				}
			}
		}
	}
	return 0, false
}

// ratio returns the proxies' ratio to the byte pump.
func (r *Report) ratio(mode, label, name string) (float64, bool) {
	for _, res := range r.Results {
		if res.Mode == mode && (label == "" || res.Label == label) {
			for _, p := range res.Paths {
				if p.Path == PathProxies {
					v, ok := p.Ratio[name]
					return v, ok
				}
			}
		}
	}
	return 0, false
}

// summarize fills in medians and ratios.
func (res *Result) summarize() {
	var pump []Figures
	for _, p := range res.Paths {
		if p.Path == PathPump {
			pump = p.Rounds
		}
	}
	for i := range res.Paths {
		p := &res.Paths[i]
		p.Median = benchreport.Medians(p.Rounds)
		if p.Path != PathProxies || pump == nil {
			continue
		}
		var ratios []Figures
		for j, r := range p.Rounds {
			q := Figures{}
			for k, v := range r {
				if j < len(pump) && pump[j][k] > 0 {
					q[k] = v / pump[j][k]
				}
			}
			ratios = append(ratios, q)
		}
		p.Ratio = benchreport.Medians(ratios)
	}
}

// JSON prints the report.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
