package proxybench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// columns are the figures of a table, in order.
var columns = []struct {
	name, head, format string
	scale              float64
	ratio              bool // followed by the ratio to the byte pump
}{
	{MBps, "MB/S", "%.0f", 1, true},
	{CPUPerGB, "CPU S/GB", "%.2f", 1, true},
	{OwnCPUPerGB, "OWN CPU S/GB", "%.2f", 1, false},
	{Alone, "ALONE MB/S", "%.0f", 1, false},
	{OfAlone, "OF ALONE", "%.2f", 1, false},
	{P50, "P50 MS", "%.3f", 1, true},
	{P99, "P99 MS", "%.3f", 1, true},
	{PerSecond, "A SECOND", "%.0f", 1, false},
	{CPUEach, "CPU µS EACH", "%.0f", 1, false},
	{RSSEach, "RSS KB EACH", "%.1f", 1.0 / 1024, false},
	{RSSEachMax, "IN ONE PROXY", "%.1f", 1.0 / 1024, false},
	{AnonEach, "ANONYMOUS", "%.1f", 1.0 / 1024, false},
	{Accepted, "ACCEPTED MB", "%.0f", 1e-6, false},
	{RSSGrowth, "RSS GROWTH MB", "%.1f", 1e-6, false},
	{RSS, "RSS MB", "%.1f", 1e-6, false},
	{RSSMax, "IN ONE PROXY", "%.1f", 1e-6, false},
	{RSSTrend, "TREND", "%.3f", 1, false},
	{TotalOpened, "CONNECTIONS", "%.0f", 1, false},
	{TotalBytes, "GB", "%.1f", 1e-9, false},
	{Allocs, "ALLOCATIONS A PACKET", "%.4f", 1, false},
	{Descriptors, "DESCRIPTORS LEFT", "%.0f", 1, false},
}

// Table prints the report to read. Ratios are to the byte pump.
func (r *Report) Table(w io.Writer) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprintf(e, "%d CPUs %s, Linux %s, %s\n", r.Machine.CPUs, r.Machine.Model, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprint(e, "Medians of the rounds; MB is 10^6 bytes.")
	switch r.Pump {
	case PumpSplice:
		fmt.Fprint(e, " × is the ratio to the byte pump, which splices (the other copies).")
	case PumpCopy:
		fmt.Fprint(e, " × is the ratio to the byte pump, which copies (the other splices).")
	}
	fmt.Fprintln(e)
	mode := ""
	for _, res := range r.Results {
		if res.Mode != mode {
			fmt.Fprintf(e, "\n%s\n", strings.ToUpper(res.Mode[:1])+res.Mode[1:])
			mode = res.Mode
		}
		r.table(e, &res)
	}
	if len(r.Bounds) > 0 {
		fmt.Fprintln(e, "\nMust hold")
		tw := tabwriter.NewWriter(e, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "  FIGURE\tMEASURED\tBOUND\t")
		for _, b := range r.Bounds {
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", b.Figure, b.Value(), b.Bound, b.Verdict())
		}
		tw.Flush()
	}
	return e.Err
}

func (r *Report) table(w io.Writer, res *Result) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"  " + res.Label}
	shown := map[string]bool{}
	for _, c := range columns {
		for _, p := range res.Paths {
			if _, ok := p.Median[c.name]; ok && !shown[c.name] {
				shown[c.name] = true
				head = append(head, c.head)
				if c.ratio && r.Pump != "" {
					head = append(head, "×")
				}
			}
		}
	}
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, p := range res.Paths {
		row := []string{"    " + p.Path}
		for _, c := range columns {
			if !shown[c.name] {
				continue
			}
			cell := ""
			if v, ok := p.Median[c.name]; ok {
				cell = fmt.Sprintf(c.format, v*c.scale)
			}
			row = append(row, cell)
			if c.ratio && r.Pump != "" {
				cell = ""
				if v, ok := p.Ratio[c.name]; ok {
					cell = fmt.Sprintf("%.2f", v)
				}
				row = append(row, cell)
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	tw.Flush()
	for _, n := range res.Notes {
		fmt.Fprintf(w, "    %s\n", n)
	}
}
