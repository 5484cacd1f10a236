package benchreport

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// Plot is a grid of panels with lines, that share their series' colours.
type Plot struct {
	Title  string
	XLabel string
	// X are the values of the axis, which has a place for each, as far from
	// each other as their neighbours: 1, 10, 50, 100.
	X      []float64
	Panels [][]Panel // rows of it
	Series []Series  // for the legend, in order
	// Width is that of a panel, 0 for the usual one.
	Width int
	// Apart says that the values of X have nothing to do with each other: each
	// has a point of every line, beside each other, and no line joins them.
	Apart bool
}

// Series is the colour of lines with that name, as "#1f6fb2". Dashed ones are
// what is computed and not measured.
type Series struct {
	Name, Color string
	Dashed      bool
}

// Panel is one picture of the grid. Its y axis is logarithmic.
type Panel struct {
	Title string
	Lines []Line
}

// Line is a series' values by X. A NaN or what is not above 0 is a gap.
type Line struct {
	Series string
	Y      []float64
	// Open marks the points that are estimates.
	Open []bool
}

// Sizes of the drawing, in its units.
const (
	panelWidth  = 270
	panelHeight = 190
	padLeft     = 52
	padRight    = 14
	padTop      = 30
	padBottom   = 30
	headHeight  = 58
)

// SVG draws the plot. It needs no other file.
func (p *Plot) SVG(w io.Writer) error {
	cols := 1
	for _, row := range p.Panels {
		cols = max(cols, len(row))
	}
	width, height := max(cols*p.width(), 560), headHeight+len(p.Panels)*panelHeight+24
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#fff"/>
`, width, height, width, height)
	text(&b, 12, 22, `font-size="15" font-weight="bold"`, p.Title)
	x := 12.0
	for _, s := range p.Series {
		fmt.Fprintf(&b, "<path d=\"M%.0f 41h22\" stroke=\"%s\" stroke-width=\"2.5\"%s/>\n", x, s.Color, s.dash())
		text(&b, x+28, 45, "", s.Name)
		x += 48 + 6.2*float64(len([]rune(s.Name)))
	}
	for r, row := range p.Panels {
		for c := range row {
			p.panel(&b, &row[c], float64(c*p.width()), float64(headHeight+r*panelHeight))
		}
	}
	text(&b, float64(width)/2, float64(height-8), `text-anchor="middle" fill="#444"`, p.XLabel)
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func (p *Plot) width() int {
	if p.Width > 0 {
		return p.Width
	}
	return panelWidth
}

func (s Series) dash() string {
	if s.Dashed {
		return ` stroke-dasharray="2 4"`
	}
	return ""
}

func text(w io.Writer, x, y float64, attrs, s string) {
	fmt.Fprintf(w, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, attrs, html.EscapeString(s))
}

func drawn(v float64) bool { return v > 0 && !math.IsInf(v, 0) } // false for NaN

func (p *Plot) panel(w io.Writer, panel *Panel, x0, y0 float64) {
	left, right, top, bottom := x0+padLeft, x0+float64(p.width())-padRight, y0+padTop, y0+panelHeight-padBottom
	lo, hi := math.Inf(1), 0.0
	for _, l := range panel.Lines {
		for _, v := range l.Y {
			if drawn(v) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	text(w, left, y0+20, `font-weight="bold"`, panel.Title)
	fmt.Fprintf(w, "<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" stroke=\"#888\"/>\n", left, top, bottom, right)
	at := func(i int) float64 { return left + (right-left)*(float64(i)+0.5)/float64(len(p.X)) }
	for i, v := range p.X {
		text(w, at(i), bottom+14, `text-anchor="middle"`, Number(v))
		if p.Apart && i > 0 {
			x := (at(i-1) + at(i)) / 2
			fmt.Fprintf(w, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#e4e6ea\"/>\n", x, top, bottom)
		}
	}
	if hi == 0 {
		text(w, (left+right)/2, (top+bottom)/2, `text-anchor="middle" fill="#888"`, "not measured")
		return
	}
	l0, l1 := math.Log10(lo), math.Log10(hi)
	if l1-l0 < 0.5 { // or else noise fills the picture
		mid := (l0 + l1) / 2
		l0, l1 = mid-0.25, mid+0.25
	}
	l0, l1 = l0-0.06*(l1-l0), l1+0.06*(l1-l0)
	y := func(v float64) float64 { return bottom - (bottom-top)*(math.Log10(v)-l0)/(l1-l0) }
	for _, v := range ticks(math.Pow(10, l0), math.Pow(10, l1)) {
		fmt.Fprintf(w, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#e4e6ea\"/>\n", left, y(v), right)
		text(w, left-5, y(v)+4, `text-anchor="end"`, Number(v))
	}
	for _, l := range panel.Lines {
		i := slices.IndexFunc(p.Series, func(s Series) bool { return s.Name == l.Series })
		if i < 0 {
			continue
		}
		s := p.Series[i]
		at := at
		if p.Apart {
			// The points of a place share the middle two thirds of it.
			step := (right - left) / float64(len(p.X)) * 2 / 3 / float64(len(p.Series))
			off := step * (float64(i) - float64(len(p.Series)-1)/2)
			middle := at
			at = func(i int) float64 { return middle(i) + off }
		}
		var path strings.Builder
		pen := "M"
		for i, v := range l.Y {
			if !drawn(v) {
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, at(i), y(v))
			pen = "L"
		}
		if !p.Apart {
			fmt.Fprintf(w, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", path.String(), s.Color, s.dash())
		}
		for i, v := range l.Y {
			if !drawn(v) || s.Dashed {
				continue
			}
			fill := s.Color
			if i < len(l.Open) && l.Open[i] {
				fill = "#fff"
			}
			fmt.Fprintf(w, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", at(i), y(v), fill, s.Color)
		}
	}
}

// ticks are round numbers of a logarithmic axis: powers of ten where there are
// three of them, else 1, 2 and 5 times such.
func ticks(lo, hi float64) (list []float64) {
	for _, steps := range [][]float64{{1}, {1, 3}, {1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 6, 8}} {
		list = nil
		for e := math.Floor(math.Log10(lo)); e <= math.Log10(hi); e++ {
			for _, s := range steps {
				if v := s * math.Pow(10, e); v >= lo && v <= hi {
					list = append(list, v)
				}
			}
		}
		if len(list) >= 3 {
			break
		}
	}
	return list
}
