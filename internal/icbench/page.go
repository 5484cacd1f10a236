package icbench

import (
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// intro are the paragraphs that say what was measured, and how.
func (r *Report) intro() []string {
	s := r.Setup
	list := []string{
		fmt.Sprintf("Made by `trunkline bench interconnect%s` on %s, in %.0f minutes, on %s. Figures of different machines and minutes are not "+
			"comparable; those of a table are, for the types took turns, round by round.",
			map[bool]string{true: " --quick"}[r.Quick], r.Started.UTC().Format("2 January 2006"), r.Seconds/60, r.Machine),
	}
	if len(r.places(false)) > 0 {
		where := "in a network namespace of its own"
		if !s.Namespaces {
			where = "on the machine's own loopback"
		}
		list = append(list, fmt.Sprintf("Loopback: a cluster of PostgreSQL servers for each number of segments, %s. All sessions run the same query at the "+
			"same time, again and again for %g ms (at least once), up to %d rounds of each type (one where a run takes more than %g s). Net KB is what goes over the network for a run, "+
			"dispatch included, the client's part left out; packets and retransmissions of udpifc are its own statistics, "+
			"retransmissions of the others are TCP's.", where, s.SlotMS, s.Rounds, longRun.Seconds()))
	}
	if s.WAN {
		list = append(list, fmt.Sprintf("WAN: a cluster of %d segments, each instance and its proxy in a network namespace of its own, and between each "+
			"two an emulated line of %g Mbit/s with the round trip and loss (of each direction) given, a queue of one bandwidth-delay "+
			"product and packets of 1500 bytes. One session of each type runs each query once a round (the short one three times), %d rounds. "+
			"A query that is not done in %g s is told to end, and its figures are of the time until then: the rate so far, and how long "+
			"all would take at that rate. Plain TCP is the floor: as many bytes by one connection from each segment's host to "+
			"the coordinator's, at the same time, opened for it. Clients are on the coordinator's host. Proxies are started anew "+
			"for each kind of line. All parameters have their defaults.",
			s.WANSegments, s.RateMbit, s.WANRounds, s.LimitS))
	}
	return list
}

// Markdown writes the report for a page of documentation. image turns a plot's
// name into the address of its file.
func (r *Report) Markdown(w io.Writer, image func(name string) string) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprintf(e, "# The interconnect types compared\n\n")
	for _, p := range r.intro() {
		fmt.Fprintf(e, "%s\n\n", p)
	}
	r.queryList(e, r.Setup.WAN)
	fmt.Fprintln(e)
	benchreport.MustHold(e, r.Bounds, r.Notes)
	fmt.Fprint(e, "\n## Plots\n")
	for _, f := range r.figures() {
		fmt.Fprintf(e, "\n%s\n\n![%s](%s)\n", f.about, f.Title, image(f.name))
	}
	fmt.Fprint(e, "\n## Figures\n")
	for _, t := range r.tables() {
		if t.Title != "Must hold" {
			t.Markdown(e)
		}
	}
	return e.Err
}

// queryList names the queries as a list of Markdown.
func (r *Report) queryList(w io.Writer, far bool) {
	fmt.Fprintf(w, "The queries:\n\n")
	for _, q := range queries(r.Setup.Rows, r.Setup.GatherRows) {
		about := q.about
		if q.name == Gather && far {
			about += fmt.Sprintf(" on loopback, %d MB in rows of some %d bytes over the WAN", r.Setup.GatherMB, farPad)
		}
		fmt.Fprintf(w, "* `%s`: %s\n", q.name, about)
	}
}

// Plots calls f for each plot with its name, as Markdown gives it to image.
func (r *Report) Plots(f func(name string, svg func(io.Writer) error) error) error {
	for _, fig := range r.figures() {
		if err := f(fig.name, fig.SVG); err != nil {
			return err
		}
	}
	return nil
}

const pageHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>trunkline bench interconnect</title>
<style>
body { font: 14px/1.45 sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #1d2127 }
h1 { font-size: 24px } h2 { font-size: 19px; margin-top: 1.8em } h3 { font-size: 15px; margin: 1.4em 0 .4em }
p, li { max-width: 860px }
table { border-collapse: collapse; font-size: 12.5px }
th, td { padding: 2px 9px; text-align: right; border-bottom: 1px solid #e4e6ea; white-space: nowrap }
th { color: #555; font-weight: 600; border-bottom-color: #999 }
.left { text-align: left } .missed { color: #b3261e; font-weight: 700 }
tr > .left:first-child { text-align: left }
svg { display: block; max-width: 100%; height: auto; margin: .4em 0 1.4em; border: 1px solid #e4e6ea }
</style></head><body>
`

// HTML writes the report as one file that needs no other.
func (r *Report) HTML(w io.Writer) error {
	e := &benchreport.Writer{W: w}
	fmt.Fprint(e, pageHead, "<h1>The interconnect types compared</h1>\n")
	paragraph := func(s string) {
		// Of Markdown, code is all that is used.
		for i, part := range strings.Split(s, "`") {
			if i%2 == 1 {
				fmt.Fprintf(e, "<code>%s</code>", html.EscapeString(part))
			} else {
				fmt.Fprint(e, html.EscapeString(part))
			}
		}
	}
	for _, p := range r.intro() {
		fmt.Fprint(e, "<p>")
		paragraph(p)
		fmt.Fprintln(e, "</p>")
	}
	var list strings.Builder
	r.queryList(&list, r.Setup.WAN)
	fmt.Fprintln(e, "<ul>")
	for line := range strings.Lines(list.String()) {
		if item, ok := strings.CutPrefix(strings.TrimSpace(line), "* "); ok {
			fmt.Fprint(e, "<li>")
			paragraph(item)
			fmt.Fprintln(e, "</li>")
		}
	}
	fmt.Fprintln(e, "</ul>\n<h2>What must hold</h2>")
	t := benchreport.BoundTable(r.Bounds)
	t.Title = "Bounds"
	t.HTML(e)
	if len(r.Notes) > 0 {
		fmt.Fprintln(e, "<h2>Notes</h2>\n<ul>")
		for _, n := range r.Notes {
			fmt.Fprintf(e, "<li>%s</li>\n", html.EscapeString(n))
		}
		fmt.Fprintln(e, "</ul>")
	}
	fmt.Fprintln(e, "<h2>Plots</h2>")
	for _, f := range r.figures() {
		fmt.Fprintf(e, "<p>%s</p>\n", html.EscapeString(f.about))
		if err := f.SVG(e); err != nil {
			return err
		}
	}
	fmt.Fprintln(e, "<h2>Figures</h2>")
	for _, t := range r.tables() {
		if t.Title != "Must hold" {
			t.HTML(e)
		}
	}
	fmt.Fprintln(e, "</body></html>")
	return e.Err
}
