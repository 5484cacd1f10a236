package proxybench

import "github.com/trunkline-db/trunkline/internal/benchreport"

// Bound is a figure that must hold, and what was measured.
type Bound = benchreport.Bound

// Held says whether nothing failed and every bound that was measured holds.
func (r *Report) Held() bool { return len(r.Failures) == 0 && benchreport.Held(r.Bounds) }

// bound adds a comparison. A value that is not there is shown as not measured.
func (r *Report) bound(figure, unit string, atLeast bool, limit float64, v float64, ok bool) {
	r.Bounds = append(r.Bounds, benchreport.NewBound(figure, unit, atLeast, limit, v, ok))
}

// Labels of the standard set that bounds are about.
var (
	eightStreams = label(8, 8192)
	oneStream    = label(1, 8192)
	smallPackets = label(8, 512)
)

// compare fills in the bounds. budget is of one proxy's memory, in bytes.
func (r *Report) compare(budget int64) {
	ratio := func(figure, mode, label, name string, atLeast bool, limit float64) {
		v, ok := r.ratio(mode, label, name)
		r.bound(figure, "× byte pump", atLeast, limit, v, ok)
	}
	value := func(figure, unit, mode, name string, atLeast bool, limit float64) {
		v, ok := r.figure(mode, "", PathProxies, name)
		r.bound(figure, unit, atLeast, limit, v, ok)
	}
	ratio("throughput, "+eightStreams, "throughput", eightStreams, MBps, true, 0.80)
	ratio("throughput, "+oneStream, "throughput", oneStream, MBps, true, 0.80)
	ratio("throughput, "+smallPackets, "throughput", smallPackets, MBps, true, 0.60)
	ratio("proxy CPU a GB, "+eightStreams, "throughput", eightStreams, CPUPerGB, false, 1.4)
	ratio("proxy CPU a GB, "+oneStream, "throughput", oneStream, CPUPerGB, false, 1.4)
	value("setup, p50", "ms", "setup", P50, false, 0.35)
	value("setup, one after the other", "a second", "setup", PerSecond, true, 2500)
	value("setup beside 8 heavy streams, p99", "ms", "fair", P99, false, 5)
	value("the 8 heavy streams meanwhile", "of their rate alone", "fair", OfAlone, true, 0.8)

	limit := 0.15
	if pump, ok := r.figure("latency", "", PathPump, P50); ok {
		limit = max(limit, 1.5*pump)
	}
	value("lone packet there and back, p50", "ms", "latency", P50, false, limit)

	unread, idle, soak := "", "", ""
	for _, res := range r.Results {
		switch res.Mode {
		case "unread":
			unread = res.Label
		case "many":
			idle = res.Label
		case "soak":
			soak = res.Label
		}
	}
	value(unread+", the live one", "of its rate alone", "unread", OfAlone, true, 0.8)
	mib := func(figure, mode, name string, limit float64) {
		v, ok := r.figure(mode, "", PathProxies, name)
		r.bound(figure, "MiB", false, limit/(1<<20), v/(1<<20), ok)
	}
	kib := func(figure, name string, limit float64) {
		v, ok := r.figure("many", "", PathProxies, name)
		r.bound(figure, "KiB", false, limit, v/1024, ok)
	}
	mib(unread+", RSS of a proxy", "unread", RSSMax, float64(budget))
	kib(idle+", RSS of a proxy for each", RSSEachMax, 8)
	kib(idle+", RSS of both for each", RSSEach, 16)
	ratio("one stream over 50 ms, 500 Mbit/s", "link", longLinkLabel, MBps, true, 0.9)
	value("heap allocations a packet", "", "steady", Allocs, false, 0.01)
	value(soak+", RSS in the last quarter", "of that in the second", "soak", RSSTrend, false, 1.1)
	value(soak+", descriptors left", "", "soak", Descriptors, false, 0)
}
