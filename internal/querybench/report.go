package querybench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

const (
	// version is that of the report.
	version = 1
	// mostRatio is what all queries on the cluster may take, × plain.
	mostRatio = 1.5
	// mostGathers is how many queries may gather a base table.
	mostGathers = 4
)

// Report is what was measured.
type Report struct {
	Version int                 `json:"version"`
	Started time.Time           `json:"started"`
	Seconds float64             `json:"seconds"`
	Machine benchreport.Machine `json:"machine"`
	Setup   Setup               `json:"setup"`
	Load    Load                `json:"load"`
	Queries []*Query            `json:"queries"`
	Totals  []Total             `json:"totals"`
	Bounds  []benchreport.Bound `json:"bounds"`
	Notes   []string            `json:"notes,omitempty"`
}

// Setup is what was asked for.
type Setup struct {
	Scale    float64  `json:"scale"`
	Segments int      `json:"segments"`
	Types    []string `json:"types"`
	Rounds   int      `json:"rounds"`
	LimitS   float64  `json:"limit_s"`
	Indexes  bool     `json:"indexes"`
}

// Load is what bringing the rows took, with keys, indexes and VACUUM ANALYZE.
type Load struct {
	Rows     int64   `json:"rows"` // of each side
	PlainS   float64 `json:"plain_s"`
	ClusterS float64 `json:"cluster_s"`
}

// Query is what was measured of one query.
type Query struct {
	Number int    `json:"number"`
	Title  string `json:"title"`
	Rows   int    `json:"rows"` // of the answer
	// Reference is whose answer the others are compared with: the plain
	// server's, but for queries that it does not answer by the limit.
	Reference string    `json:"reference,omitempty"`
	Runs      []*Timing `json:"runs"`
	Plan      *Plan     `json:"plan,omitempty"`
}

// Timing is one query on one side.
type Timing struct {
	Side     string    `json:"side"` // Plain or a type
	RoundsMS []float64 `json:"rounds_ms"`
	MedianMS float64   `json:"median_ms"`
	// Unfinished says that it was ended by the limit in its last round, and not
	// tried again. The limit counts.
	Unfinished bool   `json:"unfinished,omitempty"`
	Compared   int    `json:"compared"` // answers
	Differ     int    `json:"differ"`   // of them
	Difference string `json:"difference,omitempty"`
	// Error is why there was no answer. The limit counts as its time.
	Error string `json:"error,omitempty"`
}

// Total is all queries on one side, by their medians.
type Total struct {
	Side       string  `json:"side"`
	MS         float64 `json:"ms"`
	Ratio      float64 `json:"ratio"`      // to the plain server's
	Unfinished int     `json:"unfinished"` // queries that were ended by the limit, or failed
	// Done are the queries that every side has done, DoneMS and DoneRatio are
	// of them: what is ended by the limit might have taken any time.
	Done      int     `json:"done"`
	DoneMS    float64 `json:"done_ms"`
	DoneRatio float64 `json:"done_ratio"`
}

// done says whether it has an answer by the limit.
func (t *Timing) done() bool {
	return t != nil && !t.Unfinished && t.Error == "" && len(t.RoundsMS) > 0
}

// run finds or adds a side's run.
func (q *Query) run(side string) *Timing {
	if r := q.find(side); r != nil {
		return r
	}
	r := &Timing{Side: side}
	q.Runs = append(q.Runs, r)
	return r
}

func (q *Query) find(side string) *Timing {
	for _, r := range q.Runs {
		if r.Side == side {
			return r
		}
	}
	return nil
}

// Held says whether every bound that was measured holds.
func (r *Report) Held() bool { return benchreport.Held(r.Bounds) }

// sides are the plain server and the types.
func (r *Report) sides() []string { return append([]string{Plain}, r.Setup.Types...) }

// finish fills in medians, totals and bounds.
func (r *Report) finish() {
	limit := r.Setup.LimitS * 1e3
	for _, q := range r.Queries {
		for _, run := range q.Runs {
			run.MedianMS = benchreport.Median(run.RoundsMS)
			if !run.done() {
				run.MedianMS = limit
			}
		}
	}
	r.Totals = nil
	for _, s := range r.sides() {
		t := Total{Side: s}
		for _, q := range r.Queries {
			run := q.find(s)
			if run == nil {
				continue
			}
			t.MS += run.MedianMS
			if !run.done() {
				t.Unfinished++
			}
			if r.doneByAll(q) {
				t.Done++
				t.DoneMS += run.MedianMS
			}
		}
		r.Totals = append(r.Totals, t)
	}
	plain := r.Totals[0]
	for i := range r.Totals {
		t := &r.Totals[i]
		if plain.MS > 0 {
			t.Ratio = t.MS / plain.MS
		}
		if plain.DoneMS > 0 {
			t.DoneRatio = t.DoneMS / plain.DoneMS
		}
	}
	r.bounds()
}

func (r *Report) doneByAll(q *Query) bool {
	for _, s := range r.sides() {
		if !q.find(s).done() {
			return false
		}
	}
	return true
}

func (r *Report) bounds() {
	r.Bounds = nil
	add := func(figure, unit string, limit, v float64, ok bool, remark string) {
		b := benchreport.NewBound(figure, unit, false, limit, v, ok)
		b.Remark = remark
		r.Bounds = append(r.Bounds, b)
	}
	compared, differ, failed, gathers, unknown := 0, 0, 0, 0, 0
	var where, which []string
	for _, q := range r.Queries {
		for _, run := range q.Runs {
			compared += run.Compared
			differ += run.Differ
			if run.Differ > 0 {
				where = append(where, fmt.Sprintf("query %d in %s", q.Number, run.Side))
			}
			if run.Error != "" {
				failed++
				where = append(where, fmt.Sprintf("error of query %d in %s", q.Number, run.Side))
			}
		}
		switch {
		case q.Plan == nil || q.Plan.Error != "":
			unknown++
		case len(q.Plan.Gathered) > 0:
			gathers++
			which = append(which, fmt.Sprintf("%d (%s)", q.Number, strings.Join(q.Plan.Gathered, ", ")))
		}
	}
	remark := fmt.Sprintf("of %d compared", compared)
	if where != nil {
		remark += ": " + strings.Join(where, ", ")
	}
	add("answers that differ, or errors instead", "", 0, float64(differ+failed), compared+failed > 0, remark)
	if unknown > 0 {
		which = append(which, fmt.Sprintf("unknown of %d", unknown))
	}
	add("queries that gather a base table", "", mostGathers, float64(gathers), unknown < len(r.Queries), strings.Join(which, ", "))
	for _, t := range r.Totals[1:] {
		plain := r.Totals[0]
		remark := ""
		if plain.Unfinished+t.Unfinished > 0 {
			remark = fmt.Sprintf("the limit counts for %d of the plain server's queries, for %d of the cluster's; without them %.2f",
				plain.Unfinished, t.Unfinished, t.DoneRatio)
		}
		add("all queries, "+t.Side, "× plain", mostRatio, t.Ratio, plain.MS > 0 && t.MS > 0, remark)
	}
}

// JSON prints the report.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Read reads a report that JSON has printed.
func Read(in io.Reader) (*Report, error) {
	var r Report
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return nil, fmt.Errorf("not a report of bench queries: %w", err)
	}
	broken := func(q *Query) bool { return q == nil || slices.Contains(q.Runs, nil) }
	if r.Version != version || len(r.Queries) == 0 || slices.ContainsFunc(r.Queries, broken) {
		return nil, errors.New("not a report of bench queries, or one of another version")
	}
	r.finish()
	return &r, nil
}
