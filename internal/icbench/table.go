package icbench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table prints the report to read.
func (r *Report) Table(w io.Writer) error {
	e := &errWriter{w: w}
	fmt.Fprintln(e, r.Machine)
	fmt.Fprintln(e, "Medians of rounds in which the types took turns; MB is 10^6 bytes.")
	r.loopbackTables(e)
	r.wanTables(e)
	r.peakTable(e)
	if len(r.Bounds) > 0 {
		fmt.Fprintln(e, "\nMust hold")
		tw := newTab(e)
		fmt.Fprintln(tw, "  FIGURE\tMEASURED\tBOUND\t\t")
		for _, b := range r.Bounds {
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t\n", b.Figure, b.measured(), b.Bound, b.verdict())
		}
		tw.Flush()
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(e, "\nNotes")
		for _, n := range r.Notes {
			fmt.Fprintln(e, "  "+n)
		}
	}
	return e.err
}

func newTab(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// String describes the machine in a line.
func (m Machine) String() string {
	s := fmt.Sprintf("%d CPUs %s", m.CPUs, m.Model)
	if m.Memory > 0 {
		s += fmt.Sprintf(", %.0f GB", float64(m.Memory)/1e9)
	}
	s += fmt.Sprintf(", Linux %s, %s", m.Kernel, m.Go)
	if m.CongestionControl != "" {
		s += ", TCP " + m.CongestionControl
	}
	return s
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

func (r *Report) loopbackTables(w io.Writer) {
	for _, name := range r.queryNames(false) {
		fmt.Fprintf(w, "\nLoopback, %s\n", name)
		tw := newTab(w)
		fmt.Fprintln(tw, "  SEGMENTS\tSESSIONS\tTYPE\tP50 MS\tP95 MS\tA SECOND\tMB/S\tNET KB A RUN\tPACKETS A RUN\tRETRANSMITS\tRUNS\t")
		for _, p := range r.places(false) {
			for _, typ := range r.Setup.Types {
				c := r.find(p, name, typ)
				if c == nil {
					continue
				}
				fmt.Fprintf(tw, "  %d\t%d\t%s\t", p.Segments, p.Sessions, typ)
				if c.Error != "" && len(c.Rounds) == 0 {
					fmt.Fprintf(tw, "%s\t\t\t\t\t\t\t\t\n", c.Error)
					continue
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", c.text(ElapsedP50), c.text(ElapsedP95), c.text(PerSecond), c.text(Rate),
					c.text(NetKB), c.text(NetPackets), c.text(Retransmits), c.text(Runs))
			}
		}
		tw.Flush()
	}
}

func (r *Report) wanTables(w io.Writer) {
	for _, name := range r.queryNames(true) {
		fmt.Fprintf(w, "\nWAN, %s, %d segments, each two instances %g Mbit/s apart\n", name, r.Setup.WANSegments, r.Setup.RateMbit)
		tw := newTab(w)
		fmt.Fprintln(tw, "  RTT MS\tLOSS %\tTYPE\tP50 MS\tMB/S\tNET KB A RUN\tPACKETS A RUN\tRETRANSMITS\tRUNS\t\t")
		for _, p := range r.places(true) {
			for _, typ := range r.Setup.Types {
				c := r.find(p, name, typ)
				if c == nil {
					continue
				}
				fmt.Fprintf(tw, "  %g\t%g\t%s\t", p.RTTMS, p.LossPercent, typ)
				if c.Error != "" && len(c.Rounds) == 0 {
					fmt.Fprintf(tw, "%s\t\t\t\t\t\t\t\n", c.Error)
					continue
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", c.text(ElapsedP50), c.text(Rate),
					c.text(NetKB), c.text(NetPackets), c.text(Retransmits), c.text(Runs), c.remark(r.Setup.LimitS))
			}
		}
		tw.Flush()
	}
}

// remark is what has to be said beside a cell's figures.
func (c *Cell) remark(limit float64) string {
	var words []string
	if c.Median[Unfinished] > 0 {
		words = append(words, fmt.Sprintf("not finished in %g s: rate so far", limit))
	}
	if c.Error != "" {
		words = append(words, c.Error)
	}
	return strings.Join(words, "; ")
}

func (r *Report) peakTable(w io.Writer) {
	if len(r.Peaks) == 0 {
		return
	}
	fmt.Fprintln(w, "\nHeld while all sessions are in the middle of the query (in brackets: what trunkline sim says)")
	tw := newTab(w)
	fmt.Fprintln(tw, "  QUERY\tSEGMENTS\tSESSIONS\tTYPE\tTCP CONNECTIONS\tOF WHICH WITHIN AN INSTANCE\tUDP SOCKETS\tLISTENING PORTS\t")
	for _, p := range sortedPeaks(r.Peaks) {
		fmt.Fprintf(tw, "  %s\t%d\t%d\t%s\t", p.Query, p.Segments, p.Sessions, p.Type)
		if p.Error != "" {
			fmt.Fprintf(tw, "%s\t\t\t\t\n", p.Error)
			continue
		}
		cell := func(n int, sim func(*Sockets) int) string {
			if p.Sim == nil {
				return fmt.Sprint(n)
			}
			return fmt.Sprintf("%d (%d)", n, sim(p.Sim))
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t\n", cell(p.TCP, func(s *Sockets) int { return s.TCP }), p.Within,
			cell(p.UDP, func(s *Sockets) int { return s.UDP }), cell(p.Listen, func(s *Sockets) int { return s.Listen }))
	}
	tw.Flush()
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

// errWriter remembers the first error.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(b []byte) (int, error) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
	return len(b), e.err
}
