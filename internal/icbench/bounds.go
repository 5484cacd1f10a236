package icbench

import (
	"fmt"
	"math"
	"slices"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

// Held says whether every bound that was measured holds.
func (r *Report) Held() bool { return benchreport.Held(r.Bounds) }

// finish fills in medians, bounds and, in the setup, what there is to show.
func (r *Report) finish() {
	s := &r.Setup
	s.Segments, s.Sessions, s.RTTMS, s.LossPercent = nil, nil, nil, nil
	for _, c := range r.Cells {
		if c.WAN {
			s.RTTMS, s.LossPercent = append(s.RTTMS, c.RTTMS), append(s.LossPercent, c.LossPercent)
		} else {
			s.Segments, s.Sessions = append(s.Segments, c.Segments), append(s.Sessions, c.Sessions)
		}
	}
	s.Segments, s.Sessions, s.RTTMS, s.LossPercent = distinct(s.Segments), distinct(s.Sessions), distinct(s.RTTMS), distinct(s.LossPercent)
	for _, c := range r.Cells {
		c.summarize()
	}
	r.Bounds = nil
	r.farBounds()
	r.loopbackBounds()
	r.peakBounds()
}

// distinct are the values in order, each once.
func distinct[T int | float64](v []T) []T { return slices.Compact(slices.Sorted(slices.Values(v))) }

const (
	farRTT    = 50.0 // ms, of the gather that proxies are for
	farLoss   = 1.0  // per cent
	shortRTT  = 10.0 // ms, of the short query
	mostExtra = 1.15 // of a query on loopback
	maxSize   = 16   // segments of the counts that sim has to know
	maxCrowd  = 32   // sessions of them
)

func (r *Report) bound(figure, unit string, atLeast bool, limit, v float64, ok bool, remark string) {
	b := benchreport.NewBound(figure, unit, atLeast, limit, v, ok)
	b.Remark = remark
	r.Bounds = append(r.Bounds, b)
}

// farBounds are those over the WAN.
func (r *Report) farBounds() {
	if !r.Setup.WAN {
		return
	}
	// gather returns the ratio of two rates: of the proxies' and of another.
	gather := func(loss float64, other string) (v float64, ok bool, remark string) {
		p := r.findFar(farRTT, loss, Gather, "proxy")
		o := r.findFar(farRTT, loss, Gather, other)
		if p == nil || o == nil {
			return 0, false, ""
		}
		a, b := p.Median[Rate], o.Median[Rate]
		for _, c := range []*Cell{p, o} {
			if c.Median[Unfinished] > 0 {
				remark = "by rates: not all ended in time"
			}
		}
		return a / b, a > 0 && b > 0, remark
	}
	what := func(loss float64) string {
		return fmt.Sprintf("%d MB gather at %g ms, %g %% loss: proxy", r.Setup.GatherMB, farRTT, loss)
	}
	v, ok, remark := gather(0, "udpifc")
	r.bound(what(0), "× udpifc", true, 20, v, ok, remark)
	v, ok, remark = gather(0, PlainTCP)
	r.bound(what(0), "× plain TCP", true, 0.8, v, ok, remark)
	v, ok, remark = gather(farLoss, "udpifc")
	r.bound(what(farLoss), "× udpifc", true, 1, v, ok, remark)

	p, t := r.findFar(shortRTT, 0, Short, "proxy"), r.findFar(shortRTT, 0, Short, "tcp")
	v, ok = 0, p != nil && t != nil && p.Median[ElapsedP50] > 0 && t.Median[ElapsedP50] > 0
	if ok {
		v = (t.Median[ElapsedP50] - p.Median[ElapsedP50]) / shortRTT
	}
	r.bound(fmt.Sprintf("short query at %g ms: proxy earlier than tcp by", shortRTT), "round trips", true, 1, v, ok, "")
}

// findFar is the cell over the WAN with that link, nil if there is none.
func (r *Report) findFar(rtt, loss float64, query, typ string) *Cell {
	for _, c := range r.Cells {
		if c.WAN && c.RTTMS == rtt && math.Abs(c.LossPercent-loss) < 1e-6 && c.Query == query && c.Type == typ {
			return c
		}
	}
	return nil
}

// loopbackBounds compares the proxies with tcp, query by query: at each place
// by the median of the rounds' ratios, which are of neighbours in time, and of
// the places by their median, because one place by itself is noise.
func (r *Report) loopbackBounds() {
	for _, name := range r.queryNames(false) {
		var ratios []float64
		worst, where := 0.0, Place{}
		for _, p := range r.places(false) {
			v, ok := r.ratio(p, name)
			if !ok {
				continue
			}
			ratios = append(ratios, v)
			if v > worst {
				worst, where = v, p
			}
		}
		limit, remark := mostExtra, ""
		if name == Short {
			limit = 1
		}
		if len(ratios) > 1 {
			remark = fmt.Sprintf("median of %d places; worst %.2f at %d segments × %d sessions", len(ratios), worst, where.Segments, where.Sessions)
		}
		// To two digits: less is noise.
		v := math.Round(100*benchreport.Median(ratios)) / 100
		r.bound("loopback, "+name+": time of proxy", "× tcp", false, limit, v, len(ratios) > 0, remark)
	}
}

// ratio of the proxies' time to tcp's.
func (r *Report) ratio(p Place, query string) (float64, bool) {
	a, b := r.find(p, query, "proxy"), r.find(p, query, "tcp")
	if a == nil || b == nil {
		return 0, false
	}
	var list []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		if t := b.Rounds[i][ElapsedP50]; t > 0 {
			list = append(list, a.Rounds[i][ElapsedP50]/t)
		}
	}
	return benchreport.Median(list), len(list) > 0
}

// peakBounds compares the counts of the biggest case with the computed ones.
func (r *Report) peakBounds() {
	for _, typ := range r.Setup.Types {
		off, ok, remark := 0.0, false, ""
		for _, p := range r.Peaks {
			if p.Segments != maxSize || p.Sessions != maxCrowd || p.Query != FiveSlices || p.Type != typ {
				continue
			}
			switch {
			case p.Error != "":
				remark = p.Error
			case p.Sim == nil:
				remark = "the plan has no motion"
			default:
				ok, off = true, float64(p.Sockets.differ(*p.Sim))
				remark = fmt.Sprintf("%d TCP connections, %d ports", p.TCP, p.Ports())
			}
		}
		r.bound(fmt.Sprintf("%d segments × %d sessions, five slices, %s: counts unlike sim's", maxSize, maxCrowd, typ), "", false, 0, off, ok, remark)
	}
}

// differ is by how many sockets two counts differ.
func (s Sockets) differ(o Sockets) int {
	n := 0
	for _, d := range []int{s.TCP - o.TCP, s.Within - o.Within, s.UDP - o.UDP, s.Listen - o.Listen} {
		n += max(d, -d)
	}
	return n
}
