package icbench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		edit func(*Options)
		want string
	}{
		{func(o *Options) {}, ""},
		{func(o *Options) { o.Quick = true }, ""},
		{func(o *Options) { o.Types = []string{"tcp", "rdma"} }, `unknown interconnect type "rdma": use udpifc, tcp, proxy`},
		{func(o *Options) { o.Types = []string{"tcp", "tcp"} }, "given twice"},
		{func(o *Options) { o.Segments = []int{1} }, "1 segments: use 2 to 16"},
		{func(o *Options) { o.Sessions = []int{65} }, "65 sessions: use 1 to 64"},
		{func(o *Options) { o.RTT = []time.Duration{time.Minute} }, "a round trip of 1m0s: use 0 to 2s"},
		{func(o *Options) { o.Loss = []float64{1} }, "a loss of 100 %"},
		{func(o *Options) { o.WANSegments = 16 }, "16 segments over the WAN: use 1 to 15"},
		{func(o *Options) { o.Size = 5000 }, "5000 MB are too many"},
		{func(o *Options) { o.Size = -1 }, "cannot be that small"},
		{func(o *Options) { o.Slot = -1 }, "cannot be negative"},
		{func(o *Options) { o.NoWAN, o.NoLoopback = true, true }, "nothing to measure"},
	} {
		var o Options
		tc.edit(&o)
		o.Fill()
		if err := o.Check(); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", o, err, tc.want)
		}
	}
}

func TestRoom(t *testing.T) {
	// A segment of 16 in type tcp or a proxy: 32 sessions with 4 motions, of
	// which each has 16 senders and 16 receivers there.
	for _, tc := range []struct {
		segments, sessions int
		least, most        uint64
	}{{16, 32, 32*4*2*16 + 1000, 6000}, {2, 1, 1000, 1200}} {
		if n, err := filesNeeded(tc.segments, tc.sessions); err != nil || n < tc.least || n > tc.most {
			t.Errorf("%d × %d: %d open files, %v; want %d to %d", tc.segments, tc.sessions, n, err, tc.least, tc.most)
		}
	}
	var o Options
	o.Fill()
	if n := maxConnections(&o); n != 250 {
		t.Errorf("max_connections %d by default", n)
	}
	o.Sessions = []int{64, 1}
	if n := maxConnections(&o); n != 404 {
		t.Errorf("max_connections %d for 64 sessions", n)
	}
	if err := makeRoom(&Options{Segments: []int{2}, Sessions: []int{1}}); err != nil {
		t.Error(err)
	}
}

// TestSockets counts what this process opens.
func TestSockets(t *testing.T) {
	count := func() Sockets {
		t.Helper()
		n, proxies, err := countSockets([]process{{dbid: 1, pid: os.Getpid(), port: 1}, {dbid: 2, pid: 1 << 22, proxy: true}})
		if err != nil || proxies != (Sockets{}) {
			t.Fatal(proxies, err)
		}
		return n
	}
	before := count()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range 2 {
		a, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	after := count()
	want := Sockets{TCP: before.TCP + 2, Within: before.Within + 2, UDP: before.UDP + 1, Listen: before.Listen + 1}
	if after != want {
		t.Errorf("counted %+v, want %+v", after, want)
	}
	if want.differ(before) != 6 || want.Ports() != before.Ports()+2 {
		t.Errorf("%+v and %+v differ by %d", want, before, want.differ(before))
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"0000000000000000FFFF00000100007F:0016": "127.0.0.1:22",
		"00000000000000000000000001000000:0050": "[::1]:80",
	} {
		if got, err := parseAddress(text); err != nil || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0100007F", "01007F:1F90", "0100007F:1F901"} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	snmp := "Ip: A B\nIp: 1 2\nTcp: ActiveOpens RetransSegs InErrs\nTcp: 5 77 0\n"
	if n, err := snmpValue(snmp, "Tcp", "RetransSegs"); n != 77 || err != nil {
		t.Error(n, err)
	}
	if _, err := snmpValue(snmp, "Tcp", "Nothing"); err == nil {
		t.Error("a counter that is not there was found")
	}
	got := countMotions(" Redistribute Motion 4:4 (slice2)\n Gather Motion 4:1\n Redistribute Motion 4:4 (slice3)\n GatherMotion\n")
	if d := describeMotions(got); d != "1 gather, 2 redistribute" {
		t.Error(d)
	}
}

// The counts that queries are compared with are those of package sim.
func TestSimulate(t *testing.T) {
	for _, q := range queries(100, 100) {
		n, err := simulate(16, 32, "tcp", q.motions)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{Gather: 32 * 16, Redistribute: 32 * 2 * 256, Broadcast: 32 * 256, FiveSlices: 32 * 4 * 256}[q.name]
		if want == 0 {
			if n != nil {
				t.Errorf("%s: %+v", q.name, n)
			}
			continue
		}
		if n.TCP != want || n.Listen != 32*17 {
			t.Errorf("%s: %+v, want %d connections", q.name, n, want)
		}
	}
}

// report is a made-up one, of which everything is known.
func report() *Report {
	r := &Report{
		Version: 1, Started: time.Unix(0, 0), Seconds: 60, Machine: Machine{CPUs: 2, Kernel: "k", Go: "g"},
		Setup: Setup{
			Types: Types, Segments: []int{16}, Sessions: []int{1, 32}, Rounds: 2, Rows: 100, GatherRows: 100, WAN: true, WANSegments: 4,
			RTTMS: []float64{10, 50}, LossPercent: []float64{0, 1}, RateMbit: 100, GatherMB: 100, LimitS: 5,
		},
		Notes: []string{"a <note>"},
	}
	add := func(p Place, query, typ string, rounds ...Figures) {
		r.Cells = append(r.Cells, &Cell{Place: p, Query: query, Type: typ, Rounds: rounds})
	}
	far := func(rtt, loss float64) Place {
		return Place{WAN: true, Segments: 4, Sessions: 1, RTTMS: rtt, LossPercent: loss}
	}
	add(far(50, 0), Gather, "udpifc", Figures{Rate: 0.5, Unfinished: 1, Estimate: 200000})
	add(far(50, 0), Gather, "proxy", Figures{Rate: 20, ElapsedP50: 5000})
	add(far(50, 0), Gather, PlainTCP, Figures{Rate: 40, ElapsedP50: 2500})
	add(far(50, 1), Gather, "udpifc", Figures{Rate: 2, Unfinished: 1})
	add(far(50, 1), Gather, "proxy", Figures{Rate: 1, Unfinished: 1})
	add(far(10, 0), Short, "tcp", Figures{ElapsedP50: 32})
	add(far(10, 0), Short, "proxy", Figures{ElapsedP50: 20})
	for i, n := range []int{1, 32} {
		p := Place{Segments: 16, Sessions: n}
		add(p, Short, "tcp", Figures{ElapsedP50: 10}, Figures{ElapsedP50: 20})
		add(p, Short, "proxy", Figures{ElapsedP50: 9}, Figures{ElapsedP50: 18 + float64(i)})
		add(p, FiveSlices, "tcp", Figures{ElapsedP50: 100}, Figures{ElapsedP50: 100})
		add(p, FiveSlices, "proxy", Figures{ElapsedP50: 110}, Figures{ElapsedP50: 130 + 10*float64(i)})
	}
	sim := Sockets{TCP: 32768, Within: 2048, Listen: 544}
	r.Peaks = []Peak{
		{Segments: 16, Sessions: 32, Query: FiveSlices, Type: "tcp", Sockets: sim, Sim: &sim},
		{Segments: 16, Sessions: 32, Query: FiveSlices, Type: "proxy", Sockets: Sockets{TCP: 137, Listen: 17}, Sim: &Sockets{TCP: 136, Listen: 17}},
		{Segments: 16, Sessions: 32, Query: FiveSlices, Type: "udpifc", Error: "58M01: why"},
	}
	r.finish()
	return r
}

func TestBounds(t *testing.T) {
	r := report()
	var got []string
	for _, b := range r.Bounds {
		got = append(got, fmt.Sprintf("%s | %s | %s | %s | %s", b.Figure, b.Value(), b.Bound, b.Verdict(), b.Remark))
	}
	want := []string{
		"100 MB gather at 50 ms, 0 % loss: proxy | 40 | ≥ 20 × udpifc | ok | by rates: not all ended in time",
		"100 MB gather at 50 ms, 0 % loss: proxy | 0.5 | ≥ 0.80 × plain TCP | MISSED | ",
		"100 MB gather at 50 ms, 1 % loss: proxy | 0.5 | ≥ 1 × udpifc | MISSED | by rates: not all ended in time",
		"short query at 10 ms: proxy earlier than tcp by | 1.2 | ≥ 1 round trips | ok | ",
		"loopback, short: time of proxy | 0.91 | ≤ 1 × tcp | ok | median of 2 places; worst 0.93 at 16 segments × 32 sessions",
		"loopback, five-slices: time of proxy | 1.23 | ≤ 1.15 × tcp | MISSED | median of 2 places; worst 1.25 at 16 segments × 32 sessions",
		"16 segments × 32 sessions, five slices, udpifc: counts unlike sim's | - | ≤ 0 | not measured | 58M01: why",
		"16 segments × 32 sessions, five slices, tcp: counts unlike sim's | 0 | ≤ 0 | ok | 32768 TCP connections, 544 ports",
		"16 segments × 32 sessions, five slices, proxy: counts unlike sim's | 1 | ≤ 0 | MISSED | 137 TCP connections, 17 ports",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("bounds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			break
		}
	}
	if r.Held() {
		t.Error("missed bounds were said to hold")
	}
	if !(&Report{}).Held() {
		t.Error("an empty report misses a bound")
	}
}

// TestForms looks at each form of the report.
func TestForms(t *testing.T) {
	r := report()
	var text, page, md, js bytes.Buffer
	plots := map[string]string{}
	for _, err := range []error{
		r.Table(&text), r.HTML(&page), r.JSON(&js),
		r.Markdown(&md, func(name string) string { return "x-" + name + ".svg" }),
		r.Plots(func(name string, svg func(io.Writer) error) error {
			var b strings.Builder
			err := svg(&b)
			plots[name] = b.String()
			return err
		}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"MISSED", "not finished in 5 s, at this rate 200 s", "32768 (32768)", "137 (136)", "58M01: why", "a <note>"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &text)
		}
	}
	for _, want := range []string{"a &lt;note&gt;", `class="missed">MISSED`, "<code>trunkline bench interconnect</code>"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// It needs nothing from elsewhere.
	for _, no := range []string{"src=", "href=", "url(", "@import", "<script"} {
		if strings.Contains(page.String(), no) {
			t.Errorf("the page has %q", no)
		}
	}
	if n := strings.Count(page.String(), "<svg"); n != 4 || len(plots) != 4 {
		t.Errorf("%d plots in the page, %d by themselves, want 4", n, len(plots))
	}
	for name, svg := range plots {
		if !strings.Contains(md.String(), "(x-"+name+".svg)") {
			t.Errorf("the Markdown does not show %s", name)
		}
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	var back Report
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || len(back.Cells) != len(r.Cells) || len(back.Bounds) != len(r.Bounds) {
		t.Errorf("JSON: %v, %d cells", err, len(back.Cells))
	}
}

// A report is the same when it is made of its parts.
func TestMerge(t *testing.T) {
	whole := report()
	var parts []*Report
	for _, far := range []bool{true, false} {
		p := report()
		p.Cells = slices.DeleteFunc(p.Cells, func(c *Cell) bool { return c.WAN != far })
		p.Setup.WAN = far
		if far {
			p.Peaks, p.Setup.Segments, p.Setup.Sessions = nil, []int{16}, []int{1}
		} else {
			p.Setup.RTTMS, p.Setup.GatherMB = nil, 7
		}
		var b bytes.Buffer
		if err := p.JSON(&b); err != nil {
			t.Fatal(err)
		}
		back, err := Read(&b)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, back)
	}
	r, err := Merge(append(parts, parts[1]))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(r.Setup) != fmt.Sprint(whole.Setup) || len(r.Cells) != len(whole.Cells) || len(r.Peaks) != len(whole.Peaks) || len(r.Notes) != 1 {
		t.Errorf("merged %+v, %d cells, %d counts, notes %q; want %+v, %d, %d", r.Setup, len(r.Cells), len(r.Peaks), r.Notes, whole.Setup, len(whole.Cells), len(whole.Peaks))
	}
	if r.Cells[0].WAN || !r.Cells[len(r.Cells)-1].WAN {
		t.Error("the cells are not in order")
	}
	for i, b := range r.Bounds {
		if w := whole.Bounds[i]; b.Value() != w.Value() || b.Remark != w.Remark {
			t.Errorf("bound %+v, want %+v", b, w)
		}
	}
	parts[1].Machine.Kernel = "other"
	if _, err := Merge(parts); err == nil || !strings.Contains(err.Error(), "different machines") {
		t.Error(err)
	}
	for _, text := range []string{"{}", `{"version": 1, "cells": [null]}`} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s is a report", text)
		}
	}
}

// TestPlainTCP sends over an emulated link, all of it and as much as comes in
// time.
func TestPlainTCP(t *testing.T) {
	if err := wan.Available(); err != nil {
		t.Skip(err)
	}
	n, err := wan.New(wan.Config{Hosts: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s := &site{net: n, wide: true}
	if err := s.setLinks(wan.Link{Delay: time.Millisecond, Rate: 20e6}); err != nil {
		t.Fatal(err)
	}
	f, err := s.plainTCP(t.Context(), 1e6+1, 20*time.Second)
	if err != nil || f[Unfinished] != 0 || f[ElapsedP50] < 200 || f[Rate] <= 0 || f[Rate] > 5 || f[NetKB] < 1000 {
		t.Errorf("1 MB over two lines of 2.5 MB/s: %v, %v", f, err)
	}
	f, err = s.plainTCP(t.Context(), 1e9, 300*time.Millisecond)
	if err != nil || f[Unfinished] != 1 || f[Estimate] < 200_000 {
		t.Errorf("1 GB in 0.3 s: %v, %v", f, err)
	}
	s.awaitQuiet(t.Context())
}
