package benchreport

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestBound(t *testing.T) {
	for _, tc := range []struct {
		b               Bound
		bound, verdict  string
		missed, measure bool
	}{
		{NewBound("f", "ms", false, 5, 5, true), "≤ 5 ms", "ok", false, true},
		{NewBound("f", "ms", false, 5, 5.1, true), "≤ 5 ms", "MISSED", true, true},
		{NewBound("f", "", true, 0.8, 0.79, true), "≥ 0.80", "MISSED", true, true},
		{NewBound("f", "", true, 0.8, 0.8, true), "≥ 0.80", "ok", false, true},
		{NewBound("f", "", true, 0.8, 1, false), "≥ 0.80", "not measured", false, false},
		{NewBound("f", "", true, 0.8, math.NaN(), true), "≥ 0.80", "not measured", false, false},
	} {
		if tc.b.Bound != tc.bound || tc.b.Verdict() != tc.verdict || tc.b.Missed() != tc.missed || (tc.b.Value() != "-") != tc.measure {
			t.Errorf("%+v: %s, value %s", tc.b, tc.b.Verdict(), tc.b.Value())
		}
	}
}

func TestQuantile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	if m := Median(v); m != 3 || v[0] != 5 {
		t.Errorf("median %v, and the values are now %v", m, v)
	}
	if m := Median([]float64{4, 1}); m != 2.5 {
		t.Errorf("median of two is %v", m)
	}
	if q := Quantile(v, 0.95); q != 5 {
		t.Errorf("95th percentile %v", q)
	}
	if Median(nil) != 0 {
		t.Error("no values have a median")
	}
}

func TestMedians(t *testing.T) {
	type figures map[string]float64
	m := Medians([]figures{{"a": 1, "b": 5}, {"a": 3}, {"a": 2}})
	if len(m) != 2 || m["a"] != 2 || m["b"] != 5 {
		t.Errorf("%v", m)
	}
}

func TestMustHold(t *testing.T) {
	list := []Bound{NewBound("f", "ms", false, 5, 5, true), NewBound("g", "ms", false, 5, 0, false)}
	if !Held(list) {
		t.Error("a bound that was not measured is missed")
	}
	var page, text strings.Builder
	MustHold(&page, list, []string{"a note"})
	const want = `## What must hold

### Bounds

| Figure | Measured | Bound | Verdict | Remark |
|---|--:|--:|--:|---|
| f | 5 | ≤ 5 ms | ok |  |
| g | - | ≤ 5 ms | not measured |  |

## Notes

* a note
`
	if page.String() != want {
		t.Errorf("%q, want\n%q", page.String(), want)
	}
	Notes(&text, nil)
	Notes(&text, []string{"one", "two"})
	if text.String() != "\nNotes\n  one\n  two\n" {
		t.Errorf("%q", text.String())
	}
	if Held(append(list, NewBound("h", "", true, 1, 0, true))) {
		t.Error("a missed bound holds")
	}
}

func TestTable(t *testing.T) {
	tab := Table{Title: "T & t", Head: []string{"Name", "n"}, Left: 1}
	tab.Add("a|b", "1")
	tab.Add("long name")
	var text, md, page strings.Builder
	tab.Text(&text)
	tab.Markdown(&md)
	tab.HTML(&page)
	if want := "\nT & t\n  NAME       N\n  a|b        1\n  long name\n"; text.String() != want {
		t.Errorf("text\n%q, want\n%q", text.String(), want)
	}
	if want := "\n### T & t\n\n| Name | n |\n|---|--:|\n| a\\|b | 1 |\n| long name |  |\n"; md.String() != want {
		t.Errorf("Markdown\n%q, want\n%q", md.String(), want)
	}
	for _, want := range []string{"<h3>T &amp; t</h3>", `<td class="left">a|b</td><td>1</td>`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("HTML lacks %s:\n%s", want, &page)
		}
	}
}

func TestPlot(t *testing.T) {
	p := Plot{
		Title: "a < b", XLabel: "x", X: []float64{1, 10, 100},
		Series: []Series{{Name: "one", Color: "#111"}, {Name: "dashed", Color: "#222", Dashed: true}},
		Panels: [][]Panel{
			{{Title: "full", Lines: []Line{{Series: "one", Y: []float64{1, 10, 1000}, Open: []bool{false, true, false}}, {Series: "dashed", Y: []float64{2, 2, 2}}}}},
			{{Title: "gap", Lines: []Line{{Series: "one", Y: []float64{1, math.NaN(), 2}}}}, {Title: "empty"}},
		},
	}
	var svg strings.Builder
	if err := p.SVG(&svg); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(svg.String())); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v", err)
		}
	}
	if strings.Contains(svg.String(), "NaN") || strings.Contains(svg.String(), "Inf") {
		t.Error("a value that is no number was drawn")
	}
	for want, n := range map[string]int{"a &lt; b": 1, "<circle": 5, `fill="#fff" stroke="#111"`: 1, "not measured": 1, "stroke-dasharray": 2} {
		if got := strings.Count(svg.String(), want); got != n {
			t.Errorf("%q is there %d times, want %d", want, got, n)
		}
	}
}

func TestPlotApart(t *testing.T) {
	p := Plot{
		Title: "t", X: []float64{1, 2, 3}, Width: 600, Apart: true, Series: []Series{{Name: "a", Color: "#111"}, {Name: "b", Color: "#222"}},
		Panels: [][]Panel{{{Lines: []Line{{Series: "a", Y: []float64{1, 10, 100}}, {Series: "b", Y: []float64{1, 10, 100}}}}}},
	}
	var svg strings.Builder
	if err := p.SVG(&svg); err != nil {
		t.Fatal(err)
	}
	// No line joins points, and no two lie on each other.
	places := map[string]bool{}
	for part := range strings.SplitSeq(svg.String(), "<circle ") {
		place, _, _ := strings.Cut(part, " cy=")
		places[place] = true
	}
	if len(places) != 7 || strings.Contains(svg.String(), `stroke-width="2"/>`) || !strings.Contains(svg.String(), `width="600"`) {
		t.Errorf("%d places of points:\n%s", len(places)-1, &svg)
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		lo, hi float64
		want   []float64
	}{
		{0.9, 1100, []float64{1, 10, 100, 1000}},
		{0.9, 35, []float64{1, 3, 10, 30}},
		{9, 55, []float64{10, 20, 50}},
	} {
		if got := ticks(tc.lo, tc.hi); !slices.EqualFunc(got, tc.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9*b }) {
			t.Errorf("%v to %v: %v, want %v", tc.lo, tc.hi, got, tc.want)
		}
	}
}

type brokenWriter struct{ n int }

var errBroken = errors.New("broken")

func (b *brokenWriter) Write([]byte) (int, error) { b.n++; return 0, errBroken }

func TestWriter(t *testing.T) {
	b := &brokenWriter{}
	w := &Writer{W: b}
	for range 2 {
		_, _ = io.WriteString(w, "x")
	}
	if w.Err != errBroken || b.n != 1 {
		t.Errorf("%v after %d writes", w.Err, b.n)
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	if m.CPUs < 1 || m.Kernel == "" || m.Memory <= 0 || !strings.Contains(m.String(), m.Kernel) {
		t.Errorf("%+v, %s", m, m)
	}
}
