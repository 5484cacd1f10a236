package proxybench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// The rest of the standard set is measured, and what failed is not hidden.
func TestFailures(t *testing.T) {
	b := &bench{report: &Report{}}
	if err := b.try(t.Context(), "latency", func() error { return errSilent }); err != nil {
		t.Error(err)
	}
	if b.report.Held() {
		t.Error("a failure was said to hold")
	}
	var table strings.Builder
	if err := b.report.Table(&table); err != nil || !strings.Contains(table.String(), errSilent.Error()) {
		t.Errorf("%v\n%s", err, &table)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.try(ctx, "latency", func() error { return errSilent }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	r := &Report{Results: []Result{
		{Mode: "throughput", Label: eightStreams, Paths: []PathResult{
			{Path: PathProxies, Rounds: []Figures{{MBps: 80, CPUPerGB: 3}, {MBps: 10, CPUPerGB: 3}, {MBps: 90, CPUPerGB: 1}}},
			{Path: PathPump, Rounds: []Figures{{MBps: 100, CPUPerGB: 1}, {MBps: 20, CPUPerGB: 2}, {MBps: 100, CPUPerGB: 1}}},
		}},
		{Mode: "many", Label: "idle", Paths: []PathResult{{Path: PathProxies, Rounds: []Figures{{RSSEach: 16 << 10, RSSEachMax: 8<<10 + 100}}}}},
	}}
	for i := range r.Results {
		r.Results[i].summarize()
	}
	r.compare(1 << 20)
	got := map[string]string{}
	for _, b := range r.Bounds {
		switch {
		case b.Measured == nil:
			got[b.Figure] = "-"
		default:
			got[b.Figure] = fmt.Sprintf("%.3g %v", *b.Measured, b.OK)
		}
	}
	for figure, want := range map[string]string{
		"throughput, " + eightStreams:     "0.8 true",
		"throughput, " + oneStream:        "-",
		"proxy CPU a GB, " + eightStreams: "1.5 false",
		"idle, RSS of a proxy for each":   "8.1 false",
		"idle, RSS of both for each":      "16 true",
		"setup, p50":                      "-",
	} {
		if got[figure] != want {
			t.Errorf("%s: %q, want %q", figure, got[figure], want)
		}
	}
	if r.Held() {
		t.Error("missed bounds were said to hold")
	}
	var table strings.Builder
	if err := r.Table(&table); err != nil || strings.Count(table.String(), "MISSED") != 2 {
		t.Errorf("%v\n%s", err, &table)
	}
}
