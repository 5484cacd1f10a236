package querybench

import (
	"fmt"
	"io"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

type table = benchreport.Table

// Table prints the report to read.
func (r *Report) Table(w io.Writer) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprintln(e, r.Machine)
	fmt.Fprintf(e, "TPC-H at scale %g on %d segments and on one PostgreSQL server. Medians of %s; MB is 10^6 bytes.\n",
		r.Setup.Scale, r.Setup.Segments, counted(r.Setup.Rounds, "round"))
	if r.marked() {
		fmt.Fprintln(e, marks)
	}
	r.timeTable().Text(e)
	benchreport.BoundTable(r.Bounds).Text(e)
	benchreport.Notes(e, r.Notes)
	return e.Err
}

// marks explains the signs of the time table.
const marks = "A time with > is of a query that was ended by the limit, which counts as its time; a ratio with < or > is to or of such."

// marked says whether there is such a sign.
func (r *Report) marked() bool {
	for _, t := range r.Totals {
		if t.Unfinished > 0 {
			return true
		}
	}
	return false
}

// timeTable has a line for each query, and the totals.
func (r *Report) timeTable() *table {
	t := &table{Title: "Queries", Left: 1, Remarks: true, Head: []string{"Query", "Plain ms"}}
	for _, typ := range r.Setup.Types {
		t.Head = append(t.Head, typ+" ms", "× plain")
	}
	t.Head = append(t.Head, "Between segments MB", "Gathered MB", "Slices", "Pushed down")
	sum := Plan{Motions: map[string]Flow{}}
	for _, q := range r.Queries {
		plain := q.find(Plain)
		cells := []string{fmt.Sprint(q.Number), plain.text()}
		for _, typ := range r.Setup.Types {
			run := q.find(typ)
			cells = append(cells, run.text(), run.ratio(plain))
		}
		t.Add(append(cells, q.Plan.cells(&sum)...)...)
	}
	total := func(name string, value func(Total) (ms, ratio float64)) []string {
		cells := []string{name}
		for i, s := range r.Totals {
			ms, ratio := value(s)
			cells = append(cells, digits(ms))
			if i > 0 {
				cells = append(cells, fmt.Sprintf("%.2f", ratio))
			}
		}
		return cells
	}
	t.Add(append(total("all", func(s Total) (float64, float64) { return s.MS, s.Ratio }),
		megabytes(sum.Between()), megabytes(sum.ToCoordinator()), fmt.Sprint(sum.Slices))...)
	if done := r.Totals[0].Done; done > 0 && done < len(r.Queries) {
		t.Add(total(fmt.Sprintf("%d done by all", done), func(s Total) (float64, float64) { return s.DoneMS, s.DoneRatio })...)
	}
	return t
}

// cells are a plan's of the time table; what it moves is added to sum.
func (p *Plan) cells(sum *Plan) []string {
	switch {
	case p == nil:
		return []string{"-", "-", "-", "-"}
	case p.Error != "":
		return []string{"-", "-", "-", "plan: " + p.Error}
	}
	sum.Slices += p.Slices
	for kind, f := range p.Motions {
		s := sum.Motions[kind]
		s.Bytes += f.Bytes
		sum.Motions[kind] = s
	}
	return []string{megabytes(p.Between()), megabytes(p.ToCoordinator()), fmt.Sprint(p.Slices), p.pushed()}
}

// pushed says whether segments do all of the query.
func (p *Plan) pushed() string {
	if p.NotPushedDown == "" {
		return "yes"
	}
	s := "no: " + p.NotPushedDown
	if p.Gathered != nil {
		s += "; gathers " + strings.Join(p.Gathered, ", ")
	}
	return s
}

// motionTable says what each query moves.
func (r *Report) motionTable() *table {
	t := &table{Title: "What moves in each query", Left: 2, Head: []string{"Query", "Title", "Rows of the answer",
		"Broadcasts", "Rows", "MB", "Redistributions", "Rows", "MB", "Gathers", "Rows", "MB", "Packets"}}
	for _, q := range r.Queries {
		cells := []string{fmt.Sprint(q.Number), q.Title, fmt.Sprint(q.Rows)}
		if q.Plan != nil && q.Plan.Error == "" {
			packets := int64(0)
			for _, kind := range []string{broadcastMotion, redistributeMotion, gatherMotion} {
				f := q.Plan.Motions[kind]
				packets += f.Packets
				cells = append(cells, fmt.Sprint(f.Slices), fmt.Sprint(f.Rows), megabytes(f.Bytes))
			}
			cells = append(cells, fmt.Sprint(packets))
		}
		t.Add(cells...)
	}
	return t
}

// text is a run's time in ms.
func (run *Timing) text() string {
	switch {
	case run == nil:
		return "-"
	case run.Error != "":
		return "error"
	case run.Unfinished:
		return "> " + digits(run.MedianMS)
	}
	return digits(run.MedianMS)
}

// ratio is a run's time to another's.
func (run *Timing) ratio(plain *Timing) string {
	if run == nil || plain == nil || run.Error != "" || plain.Error != "" || plain.MedianMS == 0 || run.Unfinished && plain.Unfinished {
		return "-"
	}
	sign := ""
	switch {
	case run.Unfinished:
		sign = "> "
	case plain.Unfinished:
		sign = "< "
	}
	return sign + fmt.Sprintf("%.2f", run.MedianMS/plain.MedianMS)
}

// digits prints milliseconds with what of them means something.
func digits(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func megabytes(n int64) string {
	v := float64(n) / 1e6
	switch {
	case n == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.001:
		return fmt.Sprintf("%.3f", v)
	}
	return "< 0.001"
}

// counted is a number of things: "1 round", "3 rounds".
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
