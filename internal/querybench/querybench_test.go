package querybench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		edit func(*Options)
		want string
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Types, o.Queries, o.Scale = []string{"proxy"}, []int{22, 1}, 0.01 }, ""},
		{func(o *Options) { o.Types = []string{"rdma"} }, `unknown interconnect type "rdma": use udpifc, tcp, proxy`},
		{func(o *Options) { o.Types = []string{"tcp", "tcp"} }, "an interconnect type is given twice"},
		{func(o *Options) { o.Queries = []int{23} }, "there is no query 23"},
		{func(o *Options) { o.Queries = []int{3, 1, 3} }, "a query is given twice"},
		{func(o *Options) { o.Segments = 17 }, "17 segments: use 2 to 16"},
		{func(o *Options) { o.Rounds = -1 }, "-1 rounds: use 1 to 100"},
		{func(o *Options) { o.Limit = time.Millisecond }, "a limit of 1ms"},
		{func(o *Options) { o.Scale = -1 }, "scale"},
	} {
		var o Options
		tc.edit(&o)
		o.Fill()
		if err := o.Check(); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", o, err, tc.want)
		}
	}
}

func testReport(t *testing.T) *Report {
	t.Helper()
	f, err := os.Open("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// holds looks for lines that begin with a prefix and have these fields after
// it.
func holds(t *testing.T, text string, lines ...string) {
	t.Helper()
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, l := range lines {
		if !strings.Contains(squeezed, l) {
			t.Errorf("%q is not in\n%s", l, text)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := testReport(t).Table(&out); err != nil {
		t.Fatal(err)
	}
	holds(t, out.String(),
		"TPC-H at scale 0.1 on 3 segments and on one PostgreSQL server. Medians of 2 rounds;",
		"QUERY PLAIN MS TCP MS × PLAIN PROXY MS × PLAIN BETWEEN SEGMENTS MB GATHERED MB SLICES PUSHED DOWN",
		" 1 200 100 0.50 400 2.00 5.0 0.002 2 yes ",
		" 15 > 10000 1500 < 0.15 1500 < 0.15 0 0.3 2 no: WITH; gathers supplier ",
		" 20 50.0 > 10000 > 200.00 error - - - - plan: not done by the limit ",
		" all 10250 11600 1.13 11900 1.16 5.0 0.3 4 ",
		" 1 done by all 200 100 0.50 400 2.00 ",
		"answers that differ, or errors instead 2 ≤ 0 MISSED of 9 compared: query 1 in proxy, error of query 20 in proxy",
		"queries that gather a base table 1 ≤ 4 ok 15 (supplier), unknown of 1",
		"all queries, tcp 1.13 ≤ 1.50 × plain ok the limit counts for 1 of the plain server's queries, for 1 of the cluster's; without them 0.50",
		"Notes A note.",
	)
}

func TestHeld(t *testing.T) {
	r := testReport(t)
	if r.Held() {
		t.Error("an answer differs, and all is said to hold")
	}
	r.Queries = r.Queries[1:2]
	r.finish()
	if !r.Held() {
		t.Errorf("%+v", r.Bounds)
	}
	for _, run := range r.Queries[0].Runs[1:] {
		run.RoundsMS = []float64{15100}
	}
	r.finish()
	if r.Held() {
		t.Error("1.51 × the plain server's time is said to hold")
	}
}

func TestMarkdown(t *testing.T) {
	r := testReport(t)
	var page strings.Builder
	if err := r.Markdown(&page, func(name string) string { return "x-" + name + ".svg" }); err != nil {
		t.Fatal(err)
	}
	holds(t, page.String(),
		"Made by `trunkline bench queries --scale 0.1` on 28 November 2026, in 2 minutes",
		"3 of the 22 queries of TPC-H, with the parameters",
		"![TPC-H at scale 0.1](x-times.svg)",
		"| 15 | > 10000 | 1500 | < 0.15 | 1500 | < 0.15 | 0 | 0.3 | 2 | no: WITH; gathers supplier |",
		"| 1 | First | 4 | 1 | 9000 | 5.0 | 0 | 0 | 0 | 1 | 12 | 0.002 | 703 |",
		`| 20 | Third \| last | 7 |`,
		"* A note.",
		"* Query 1, proxy: 1 of 2 answers differ: 2 rows, expected 4",
		"* Query 20, proxy: 53200: out of memory",
		"* Query 15: the single server had no answer by the limit; the other answers were compared with that in tcp.",
	)
	n := 0
	err := r.Plots(func(name string, svg func(io.Writer) error) error {
		n++
		var b strings.Builder
		if err := svg(&b); err != nil {
			return err
		}
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
		}
		// Of nine times one is not there; of six ratios neither is that.
		if got := strings.Count(b.String(), "<circle"); got != 8+5 {
			t.Errorf("%d points", got)
		}
		return nil
	})
	if err != nil || n != 1 {
		t.Errorf("%d plots, %v", n, err)
	}
}

func TestRead(t *testing.T) {
	for _, text := range []string{"", "{}", `{"version": 1}`, `{"version": 2, "queries": [{}]}`,
		`{"version": 1, "queries": [null]}`, `{"version": 1, "queries": [{"runs": [null]}]}`} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "not a report of bench queries") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPlan(t *testing.T) {
	const pushed = `[{"Plan": {"Node Type": "Gather Motion", "Slice": 1, "Plans": [{"Node Type": "Seq Scan", "Relation Name": "part"}]},
		"Slice statistics": [{"Slice": 1, "Rows Out": 5, "Bytes Sent": 100, "Packets Sent": 3}]}]`
	const top = `[{"Plan": {"Node Type": "Aggregate", "Plans": [{"Node Type": "Hash Join", "Plans": [
			{"Node Type": "Gather Motion", "Slice": 1, "Plans": [{"Node Type": "Gather", "Plans": [{"Node Type": "Seq Scan", "Relation Name": "orders"}]}]},
			{"Node Type": "Gather Motion", "Slice": 2, "Plans": [{"Node Type": "Aggregate", "Plans": [
				{"Node Type": "Redistribute Motion", "Slice": 4, "Plans": [{"Node Type": "Seq Scan", "Relation Name": "lineitem"}]}]}]},
			{"Node Type": "Gather Motion", "Slice": 3, "Plans": [{"Node Type": "Index Scan", "Relation Name": "nation"}]}]}]},
		"Not Pushed Down": "because",
		"Slice statistics": [{"Slice": 1, "Bytes Sent": 1}, {"Slice": 2, "Bytes Sent": 10}, {"Slice": 3, "Bytes Sent": 100, "Rows Out": 7}, {"Slice": 4, "Bytes Sent": 1000, "Packets Sent": 2}]}]`
	p, err := readPlan(pushed)
	if err != nil || p.Gathered != nil || p.NotPushedDown != "" || p.Slices != 1 || p.ToCoordinator() != 100 || p.Between() != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = readPlan(top)
	if err != nil || strings.Join(p.Gathered, " ") != "nation orders" || p.NotPushedDown != "because" || p.Slices != 4 || p.ToCoordinator() != 111 ||
		p.Between() != 1000 || p.Motions[gatherMotion] != (Flow{Slices: 3, Bytes: 111, Rows: 7}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, text := range []string{"QUERY PLAN", "[]", `[{"Plan": {"Node Type": "Result"}, "Slice statistics": [{"Slice": 1}]}]`} {
		if p, err := readPlan(text); err == nil {
			t.Errorf("%s: %+v", text, p)
		}
	}
}
