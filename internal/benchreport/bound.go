package benchreport

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Bound is a figure that must hold, and what was measured.
type Bound struct {
	Figure   string   `json:"figure"`
	Bound    string   `json:"bound"`
	Measured *float64 `json:"measured,omitempty"` // nil when it was not
	Unit     string   `json:"unit,omitempty"`
	OK       bool     `json:"ok"`
	Limit    float64  `json:"limit"` // smallest or largest value that is ok
	AtLeast  bool     `json:"at_least"`
	// Remark is what has to be known of the measured value.
	Remark string `json:"remark,omitempty"`
}

// NewBound compares v with a limit. It was not measured if ok is false or v is
// no number.
func NewBound(figure, unit string, atLeast bool, limit, v float64, ok bool) Bound {
	sign := "≤"
	if atLeast {
		sign = "≥"
	}
	b := Bound{Figure: figure, Unit: unit, Limit: limit, AtLeast: atLeast, Bound: sign + " " + short(limit)}
	if unit != "" {
		b.Bound += " " + unit
	}
	if ok && !math.IsNaN(v) {
		b.Measured = &v
		b.OK = v <= limit
		if atLeast {
			b.OK = v >= limit
		}
	}
	return b
}

func short(v float64) string {
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Missed says that it was measured and does not hold.
func (b Bound) Missed() bool { return b.Measured != nil && !b.OK }

// Held says whether every bound that was measured holds.
func Held(list []Bound) bool { return !slices.ContainsFunc(list, Bound.Missed) }

// BoundTable has a line for each bound.
func BoundTable(list []Bound) *Table {
	t := &Table{Title: "Must hold", Left: 1, Remarks: true, Head: []string{"Figure", "Measured", "Bound", "Verdict", "Remark"}}
	for _, b := range list {
		t.Add(b.Figure, b.Value(), b.Bound, b.Verdict(), b.Remark)
	}
	return t
}

// Value is the measured value, "-" for none.
func (b Bound) Value() string {
	if b.Measured == nil {
		return "-"
	}
	return Number(*b.Measured)
}

// Verdict is "ok", "MISSED" or "not measured".
func (b Bound) Verdict() string {
	switch {
	case b.Measured == nil:
		return "not measured"
	case b.OK:
		return "ok"
	}
	return "MISSED"
}

// Number prints three digits at least.
func Number(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Quantile of values in any order, 0 for none; between two it is the mean of
// both for the median, else the upper.
func Quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if q == 0.5 && len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// Median of values in any order, 0 for none.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Medians are the medians of figures by their names; a figure need not be in
// every round.
func Medians[F ~map[string]float64](rounds []F) F {
	values := map[string][]float64{}
	for _, f := range rounds {
		for name, v := range f {
			values[name] = append(values[name], v)
		}
	}
	medians := F{}
	for name, v := range values {
		medians[name] = Median(v)
	}
	return medians
}

// Milliseconds is d as reports have it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// FirstLine shortens an error to what fits a table: a server's is its SQLSTATE
// and message.
func FirstLine(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code + ": " + pe.Message
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// Notes prints what there is to say beside the tables, a line for each.
func Notes(w io.Writer, list []string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w, "\nNotes")
	for _, n := range list {
		fmt.Fprintln(w, "  "+n)
	}
}

// MustHold writes the sections of a page of Markdown that have the bounds, and
// what there is to say of them and of the rest.
func MustHold(w io.Writer, bounds []Bound, notes []string) {
	fmt.Fprint(w, "## What must hold\n")
	t := BoundTable(bounds)
	t.Title = "Bounds"
	t.Markdown(w)
	if len(notes) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Notes\n\n")
	for _, n := range notes {
		fmt.Fprintf(w, "* %s\n", n)
	}
}

// Writer remembers the first error, and is silent after it.
type Writer struct {
	W   io.Writer
	Err error
}

func (e *Writer) Write(b []byte) (int, error) {
	if e.Err == nil {
		_, e.Err = e.W.Write(b)
	}
	if e.Err != nil {
		return 0, e.Err
	}
	return len(b), nil
}
