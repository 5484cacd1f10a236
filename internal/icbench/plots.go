package icbench

import (
	"fmt"
	"math"
	"slices"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// figure is a plot and what it is called in file names.
type figure struct {
	name, about string
	benchreport.Plot
}

var series = []benchreport.Series{
	{Name: "udpifc", Color: "#c2571a"},
	{Name: "tcp", Color: "#7a828e"},
	{Name: "proxy", Color: "#1f6fb2"},
	{Name: PlainTCP, Color: "#222", Dashed: true},
}

// figures are the plots of the report; those without a point are left out.
func (r *Report) figures() (list []figure) {
	for _, f := range []figure{r.gatherFigure(), r.farFigure(), r.socketFigure(), r.loopbackFigure()} {
		if f.Panels != nil {
			list = append(list, f)
		}
	}
	return list
}

// lines are those of the types over the plot's X.
func (r *Report) lines(f *figure, value func(typ string, x float64) (v float64, open bool)) (list []benchreport.Line) {
	for _, typ := range r.ways() {
		l := benchreport.Line{Series: typ}
		some := false
		for _, x := range f.X {
			v, open := value(typ, x)
			l.Y, l.Open = append(l.Y, v), append(l.Open, open)
			some = some || v > 0
		}
		if some {
			list = append(list, l)
			f.use(typ)
		}
	}
	return list
}

// use puts a series into the legend.
func (f *figure) use(name string) {
	for _, s := range series {
		if s.Name == name && !slices.Contains(f.Series, s) {
			f.Series = append(f.Series, s)
		}
	}
	slices.SortFunc(f.Series, func(a, b benchreport.Series) int { return slices.Index(series, a) - slices.Index(series, b) })
}

func (f *figure) add(row []benchreport.Panel) {
	for _, p := range row {
		if len(p.Lines) > 0 {
			f.Panels = append(f.Panels, row)
			return
		}
	}
}

// value is a median of a cell that may not be there.
func (c *Cell) value(name string) float64 {
	if c == nil {
		return math.NaN()
	}
	if v, ok := c.Median[name]; ok {
		return v
	}
	return math.NaN()
}

func (r *Report) farPanel(f *figure, title string, loss float64, query, name string) benchreport.Panel {
	return benchreport.Panel{Title: title, Lines: r.lines(f, func(typ string, rtt float64) (float64, bool) {
		c := r.findFar(rtt, loss, query, typ)
		return c.value(name), c != nil && c.Median[Unfinished] > 0
	})}
}

func (r *Report) gatherFigure() figure {
	f := figure{name: "wan-gather", about: "How fast the rows of a gather come over the emulated WAN. Open circles: not finished in the time limit, the rate so far."}
	f.Title, f.XLabel, f.X = fmt.Sprintf("WAN: MB/s of a gather of %d MB", r.Setup.GatherMB), "round trip, ms", r.Setup.RTTMS
	var row []benchreport.Panel
	for _, loss := range r.Setup.LossPercent {
		row = append(row, r.farPanel(&f, fmt.Sprintf("%g %% loss", loss), loss, Gather, Rate))
	}
	f.add(row)
	return f
}

func (r *Report) farFigure() figure {
	f := figure{name: "wan-queries", about: "How long the other queries take over the emulated WAN. Points that are not there were not finished in the time limit."}
	f.Title, f.XLabel, f.X = "WAN: ms of a query", "round trip, ms", r.Setup.RTTMS
	for _, name := range r.queryNames(true) {
		if name == Gather {
			continue
		}
		var row []benchreport.Panel
		for _, loss := range r.Setup.LossPercent {
			row = append(row, r.farPanel(&f, fmt.Sprintf("%s, %g %% loss", name, loss), loss, name, ElapsedP50))
		}
		f.add(row)
	}
	return f
}

func (r *Report) loopbackFigure() figure {
	f := figure{name: "loopback", about: "How long a query takes on loopback, all sessions running it at the same time."}
	f.Title, f.XLabel = "Loopback: ms of a query, p50", "sessions"
	for _, n := range r.Setup.Sessions {
		f.X = append(f.X, float64(n))
	}
	for _, name := range r.queryNames(false) {
		var row []benchreport.Panel
		for _, n := range r.Setup.Segments {
			row = append(row, benchreport.Panel{Title: fmt.Sprintf("%s, %d segments", name, n), Lines: r.lines(&f, func(typ string, x float64) (float64, bool) {
				return r.find(Place{Segments: n, Sessions: int(x)}, name, typ).value(ElapsedP50), false
			})})
		}
		f.add(row)
	}
	return f
}

func (r *Report) socketFigure() figure {
	f := figure{name: "sockets", about: "What the query with five slices holds at its peak."}
	f.Title, f.XLabel = "Five slices: held at the peak", "sessions"
	for _, n := range r.Setup.Sessions {
		f.X = append(f.X, float64(n))
	}
	count := func(segments int, get func(Sockets) int) []benchreport.Line {
		return r.lines(&f, func(typ string, x float64) (float64, bool) {
			for _, p := range r.Peaks {
				if p.Segments == segments && p.Sessions == int(x) && p.Query == FiveSlices && p.Type == typ && p.Error == "" {
					return float64(get(p.Sockets)), false
				}
			}
			return math.NaN(), false
		})
	}
	var tcp, ports []benchreport.Panel
	for _, n := range r.Setup.Segments {
		tcp = append(tcp, benchreport.Panel{Title: fmt.Sprintf("TCP connections, %d segments", n), Lines: count(n, func(s Sockets) int { return s.TCP })})
		ports = append(ports, benchreport.Panel{Title: fmt.Sprintf("TCP and UDP ports, %d segments", n), Lines: count(n, Sockets.Ports)})
	}
	f.add(tcp)
	f.add(ports)
	return f
}
