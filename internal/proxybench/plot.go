package proxybench

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// Sizes of the drawing, in its units.
const (
	plotWidth  = 760
	plotLeft   = 190 // of the bars
	plotRight  = plotWidth - 90
	barStep    = 22
	lineHeight = 160
)

// charts are the figures to draw, each a chart of its own.
var charts = []struct {
	name, title string
	scale       float64
}{
	{MBps, "MB a second", 1},
	{CPUPerGB, "CPU seconds a GB", 1},
	{P50, "ms, p50", 1},
	{P99, "ms, p99", 1},
	{PerSecond, "a second", 1},
	{RSSEach, "KiB of memory each", 1.0 / 1024},
}

var pathColors = map[string]string{PathProxies: "#1f6fb2", PathPump: "#8a8f98", PathOther: "#c4c8ce"}

// bar is a median, with the range of the rounds.
type bar struct {
	label, color  string
	value, lo, hi float64
}

// Plot draws the report as an SVG: for each figure of each measurement a bar
// for every path, as long as the median, and a line over the range of its
// rounds; of a soak the memory over time.
func (r *Report) Plot(w io.Writer) error {
	var body bytes.Buffer
	y := 30
	text := func(x, y int, attrs, s string) {
		fmt.Fprintf(&body, "<text x=\"%d\" y=\"%d\" %s>%s</text>\n", x, y, attrs, html.EscapeString(s))
	}
	text(16, y, `font-size="16" font-weight="bold"`, "trunkline bench proxy")
	y += 20
	text(16, y, `fill="#555"`, strings.Join(strings.Fields(fmt.Sprintf("%s, %d CPUs %s, Linux %s",
		r.Started.Format("2006-01-02 15:04"), r.Machine.CPUs, r.Machine.Model, r.Machine.Kernel)), " "))
	y += 18
	for i := range r.Results {
		res := &r.Results[i]
		for _, c := range charts {
			bars := res.bars(c.name, c.scale)
			if len(bars) == 0 {
				continue
			}
			y += 24
			text(16, y, `font-weight="bold"`, res.Mode+", "+res.Label+": "+c.title)
			longest := 0.0
			for _, b := range bars {
				longest = max(longest, b.hi)
			}
			at := func(v float64) float64 {
				return plotLeft + (plotRight-plotLeft)*v/max(longest, 1e-9)
			}
			for _, b := range bars {
				y += barStep
				text(plotLeft-8, y, `text-anchor="end"`, b.label)
				fmt.Fprintf(&body, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\" fill=\"%s\"/>\n", plotLeft, y-11, at(b.value)-plotLeft, b.color)
				fmt.Fprintf(&body, "<path d=\"M%.1f %dH%.1f\" stroke=\"#222\"/>\n", at(b.lo), y-4, at(b.hi))
				text(plotRight+8, y, "", benchreport.Number(b.value))
			}
		}
		y = res.drawSeries(&body, text, y)
	}
	y += 24
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#fff"/>
%s</svg>
`, plotWidth, y, plotWidth, y, &body)
	return err
}

func (res *Result) bars(name string, scale float64) (bars []bar) {
	for _, p := range res.Paths {
		v, ok := p.Median[name]
		if !ok || p.Path == PathDirect { // next to which all others look small
			continue
		}
		b := bar{label: p.Path, color: pathColors[p.Path], value: v * scale, lo: v * scale, hi: v * scale}
		for _, f := range p.Rounds {
			b.lo, b.hi = min(b.lo, f[name]*scale), max(b.hi, f[name]*scale)
		}
		bars = append(bars, b)
	}
	return bars
}

// drawSeries draws memory over time from y on, and returns where it ends.
func (res *Result) drawSeries(w io.Writer, text func(x, y int, attrs, s string), y int) int {
	if len(res.Series) < 2 {
		return y
	}
	y += 24
	text(16, y, `font-weight="bold"`, res.Mode+", "+res.Label+": MB of memory (RSS), both proxies")
	top := slices.MaxFunc(res.Series, func(a, b MemorySample) int { return int(a.RSS - b.RSS) }).RSS
	end := res.Series[len(res.Series)-1].Second
	y += lineHeight
	var points []string
	for _, s := range res.Series {
		points = append(points, fmt.Sprintf("%.1f,%.1f",
			plotLeft+float64(plotRight-plotLeft)*s.Second/end, float64(y)-float64(lineHeight-20)*float64(s.RSS)/float64(max(top, 1))))
	}
	fmt.Fprintf(w, "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#999\"/>\n", plotLeft, y-lineHeight+10, y, plotRight)
	fmt.Fprintf(w, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(points, " "), pathColors[PathProxies])
	text(plotLeft-8, y-lineHeight+24, `text-anchor="end"`, fmt.Sprintf("%.0f", float64(top)/1e6))
	text(plotLeft-8, y, `text-anchor="end"`, "0")
	y += 16
	text(plotRight, y, `text-anchor="end"`, fmt.Sprintf("%.0f s", end))
	return y
}
