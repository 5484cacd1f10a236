package icbench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

type table = benchreport.Table

// Table prints the report to read.
func (r *Report) Table(w io.Writer) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprintln(e, r.Machine)
	fmt.Fprintln(e, "Medians of rounds in which the types took turns; MB is 10^6 bytes.")
	for _, t := range r.tables() {
		t.Text(e)
	}
	benchreport.Notes(e, r.Notes)
	return e.Err
}

// tables are all of the report, the bounds last.
func (r *Report) tables() []*table {
	list := slices.Concat(r.loopbackTables(), r.wanTables())
	if len(r.Peaks) > 0 {
		list = append(list, r.peakTable())
	}
	if len(r.Bounds) > 0 {
		list = append(list, benchreport.BoundTable(r.Bounds))
	}
	return list
}

// places are the places of the cells, in order, of one kind.
func (r *Report) places(wan bool) (list []Place) {
	for _, c := range r.Cells {
		if c.WAN == wan && !slices.Contains(list, c.Place) {
			list = append(list, c.Place)
		}
	}
	return list
}

// queryNames are the queries that have cells of one kind, in the set's order.
func (r *Report) queryNames(wan bool) (names []string) {
	for _, q := range Queries() {
		if slices.ContainsFunc(r.Cells, func(c *Cell) bool { return c.WAN == wan && c.Query == q[0] }) {
			names = append(names, q[0])
		}
	}
	return names
}

// ways are the types, and what they are compared with.
func (r *Report) ways() []string { return append(slices.Clone(r.Setup.Types), PlainTCP) }

func (r *Report) loopbackTables() (list []*table) {
	for _, name := range r.queryNames(false) {
		t := &table{Title: "Loopback, " + name, Left: 3, Head: []string{
			"Segments", "Sessions", "Type", "p50 ms", "p95 ms", "A second", "MB/s", "Net KB a run", "Packets a run", "Retransmits", "Runs"}}
		for _, p := range r.places(false) {
			for _, typ := range r.ways() {
				c := r.find(p, name, typ)
				switch {
				case c == nil:
				case c.Error != "" && len(c.Rounds) == 0:
					t.Add(fmt.Sprint(p.Segments), fmt.Sprint(p.Sessions), typ, c.Error)
				default:
					t.Add(fmt.Sprint(p.Segments), fmt.Sprint(p.Sessions), typ, c.text(ElapsedP50), c.text(ElapsedP95), c.text(PerSecond), c.text(Rate),
						c.text(NetKB), c.text(NetPackets), c.text(Retransmits), c.text(Runs))
				}
			}
		}
		list = append(list, t)
	}
	return list
}

func (r *Report) wanTables() (list []*table) {
	for _, name := range r.queryNames(true) {
		t := &table{Left: 3, Remarks: true, Head: []string{"RTT ms", "Loss %", "Type", "p50 ms", "MB/s", "Net KB a run", "Packets a run", "Retransmits", "Runs", "Remark"}}
		t.Title = fmt.Sprintf("WAN, %s, %d segments, %g Mbit/s between each two instances", name, r.Setup.WANSegments, r.Setup.RateMbit)
		for _, p := range r.places(true) {
			for _, typ := range r.ways() {
				c := r.find(p, name, typ)
				at := []string{fmt.Sprintf("%g", p.RTTMS), fmt.Sprintf("%g", p.LossPercent), typ}
				switch {
				case c == nil:
				case c.Error != "" && len(c.Rounds) == 0:
					t.Add(append(at, c.Error)...)
				default:
					t.Add(append(at, c.text(ElapsedP50), c.text(Rate), c.text(NetKB), c.text(NetPackets), c.text(Retransmits), c.text(Runs),
						c.remark(r.Setup.LimitS))...)
				}
			}
		}
		list = append(list, t)
	}
	return list
}

// remark is what has to be said beside a cell's figures.
func (c *Cell) remark(limit float64) string {
	var words []string
	if c.Median[Unfinished] > 0 {
		word := fmt.Sprintf("not finished in %g s", limit)
		if v, ok := c.Median[Estimate]; ok {
			word += fmt.Sprintf(", at this rate %s s", digits(v/1000))
		}
		words = append(words, word)
	}
	if c.Error != "" {
		words = append(words, c.Error)
	}
	return strings.Join(words, "; ")
}

func (r *Report) peakTable() *table {
	t := &table{Title: "Held while all sessions are in the middle of the query (in brackets: what trunkline sim says)", Left: 4, Head: []string{
		"Query", "Segments", "Sessions", "Type", "TCP connections", "Of which within an instance", "UDP sockets", "Listening ports"}}
	for _, p := range sortedPeaks(r.Peaks) {
		at := []string{p.Query, fmt.Sprint(p.Segments), fmt.Sprint(p.Sessions), p.Type}
		if p.Error != "" {
			t.Add(append(at, p.Error)...)
			continue
		}
		cell := func(count func(Sockets) int) string {
			if p.Sim == nil {
				return fmt.Sprint(count(p.Sockets))
			}
			return fmt.Sprintf("%d (%d)", count(p.Sockets), count(*p.Sim))
		}
		t.Add(append(at, cell(func(s Sockets) int { return s.TCP }), cell(func(s Sockets) int { return s.Within }),
			cell(func(s Sockets) int { return s.UDP }), cell(func(s Sockets) int { return s.Listen }))...)
	}
	return t
}

// sortedPeaks orders them by query, segments and sessions; types keep theirs.
func sortedPeaks(list []Peak) []Peak {
	rank := map[string]int{}
	for i, q := range Queries() {
		rank[q[0]] = i
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Peak) int {
		return cmp.Or(cmp.Compare(rank[a.Query], rank[b.Query]), cmp.Compare(a.Segments, b.Segments), cmp.Compare(a.Sessions, b.Sessions))
	})
	return list
}

// text is a median for a table, "-" when there is none.
func (c *Cell) text(name string) string {
	v, ok := c.Median[name]
	if !ok {
		return "-"
	}
	return digits(v)
}

// digits prints a number with what of it means something.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
