package querybench

import (
	"fmt"
	"io"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/internal/tpch"
)

// intro are the paragraphs that say what was measured, and how.
func (r *Report) intro() []string {
	s := r.Setup
	command := "trunkline bench queries"
	if s.Scale != 1 {
		command += fmt.Sprintf(" --scale %g", s.Scale)
	}
	if s.Indexes {
		command += " --indexes"
	}
	indexes := "Beside the primary keys there is no index."
	if s.Indexes {
		indexes = "Beside the primary keys both sides have indexes on the foreign keys."
	}
	queries := fmt.Sprintf("The %d queries", tpch.NumQueries)
	if n := len(r.Queries); n < tpch.NumQueries {
		queries = fmt.Sprintf("%d of the %d queries", n, tpch.NumQueries)
	}
	return []string{
		fmt.Sprintf("Made by `%s` on %s, in %.0f minutes, on %s. Figures of different machines and minutes are not comparable; those of a "+
			"table are, for all sides took turns, query by query.", command, r.Started.UTC().Format("2 January 2006"), r.Seconds/60, r.Machine),
		fmt.Sprintf("%s of TPC-H, with the parameters of its validation, on data of scale %g (%d rows): on a cluster of %d segments, "+
			"in each interconnect type (%s), and on one PostgreSQL server of the same version, made by the same initdb. All servers have their defaults: "+
			"128 MB of shared buffers each, parallel workers, JIT (on the coordinator a new cluster has it off). All run on the same machine and share "+
			"its processors, so the cluster has no more of them than the single server. %s Loading, keys and VACUUM ANALYZE took %.0f s on the single server and "+
			"%.0f s on the cluster.",
			queries, s.Scale, r.Load.Rows, s.Segments, strings.Join(s.Types, ", "), indexes, r.Load.PlainS, r.Load.ClusterS),
		fmt.Sprintf("In each of %s a query ran on the single server and then in each type, another type first each time, in one session each, which was "+
			"open before. The time is that from sending the query until its last row was there; shown is the median. A query that is not done "+
			"in %g s is ended and not tried again on that side; the limit counts as its time. Every answer was compared with the single server's, where it had one. "+
			"Then each query ran once more, in type proxy, under EXPLAIN (ANALYZE, FORMAT JSON): what segments sent each other (redistributions and broadcasts; a "+
			"row counts once, its bytes once for each receiver), what they sent the coordinator (gathers), and whether the segments do all of the query. A query "+
			"that is not pushed down is finished by the coordinator's own PostgreSQL; then it may gather a base table as it is.",
			counted(s.Rounds, "round"), s.LimitS),
	}
}

// Markdown writes the report for a page of documentation. image turns a plot's
// name into the address of its file.
func (r *Report) Markdown(w io.Writer, image func(name string) string) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprint(e, "# TPC-H on a cluster and on one PostgreSQL server\n\n")
	for _, p := range r.intro() {
		fmt.Fprintf(e, "%s\n\n", p)
	}
	benchreport.MustHold(e, r.Bounds, r.remarks())
	fmt.Fprint(e, "\n## Times\n")
	p := r.plot()
	fmt.Fprintf(e, "\nOpen circles: ended by the limit of %g s, or compared with such.\n\n![%s](%s)\n", r.Setup.LimitS, p.Title, image(plotName))
	if r.marked() {
		fmt.Fprintf(e, "\n%s\n", marks)
	}
	r.timeTable().Markdown(e)
	fmt.Fprint(e, "\n## Motions\n")
	r.motionTable().Markdown(e)
	return e.Err
}

// remarks are the notes, and what went wrong.
func (r *Report) remarks() []string {
	list := append([]string(nil), r.Notes...)
	for _, q := range r.Queries {
		for _, run := range q.Runs {
			if run.Differ > 0 {
				list = append(list, fmt.Sprintf("Query %d, %s: %d of %d answers differ: %s", q.Number, run.Side, run.Differ, run.Compared, run.Difference))
			}
			if run.Error != "" {
				list = append(list, fmt.Sprintf("Query %d, %s: %s", q.Number, run.Side, run.Error))
			}
		}
		if q.Reference != Plain && q.Reference != "" {
			list = append(list, fmt.Sprintf("Query %d: the single server had no answer by the limit; the other answers were compared with that in %s.", q.Number, q.Reference))
		}
	}
	return list
}

// Plots calls f for each plot with its name, as Markdown gives it to image.
func (r *Report) Plots(f func(name string, svg func(io.Writer) error) error) error {
	p := r.plot()
	return f(plotName, p.SVG)
}

const plotName = "times"

var series = []benchreport.Series{
	{Name: Plain, Color: "#222"},
	{Name: "udpifc", Color: "#c2571a"},
	{Name: "tcp", Color: "#7a828e"},
	{Name: "proxy", Color: "#1f6fb2"},
}

// plot has the times of all queries, and their ratios.
func (r *Report) plot() *benchreport.Plot {
	p := &benchreport.Plot{Title: fmt.Sprintf("TPC-H at scale %g", r.Setup.Scale), XLabel: "query", Width: 900, Apart: true}
	for _, q := range r.Queries {
		p.X = append(p.X, float64(q.Number))
	}
	times, ratios := benchreport.Panel{Title: "ms"}, benchreport.Panel{Title: "× plain"}
	for _, s := range series {
		line, ratio := benchreport.Line{Series: s.Name}, benchreport.Line{Series: s.Name}
		there := false
		for _, q := range r.Queries {
			run, plain := q.find(s.Name), q.find(Plain)
			ms, x, open := 0.0, 0.0, false // 0 is a gap
			if run != nil && run.Error == "" {
				there = true
				ms, open = run.MedianMS, run.Unfinished
				if plain != nil && plain.Error == "" && plain.MedianMS > 0 && !(open && plain.Unfinished) {
					x = ms / plain.MedianMS
				}
			}
			line.Y, line.Open = append(line.Y, ms), append(line.Open, open)
			ratio.Y, ratio.Open = append(ratio.Y, x), append(ratio.Open, open || plain != nil && plain.Unfinished)
		}
		if !there {
			continue
		}
		p.Series = append(p.Series, s)
		times.Lines = append(times.Lines, line)
		if s.Name != Plain {
			ratios.Lines = append(ratios.Lines, ratio)
		}
	}
	p.Panels = [][]benchreport.Panel{{times}, {ratios}}
	return p
}
