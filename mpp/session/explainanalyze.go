package session

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/topology"
)

// analysis is what EXPLAIN ANALYZE learns of a statement while it runs: servers
// say in notices, by auto_explain, how they have run slices and what else they
// were given, executors count what they have sent, and the session what it has
// given to segments to write.
type analysis struct {
	json   bool // servers say it in JSON
	slices []plan.Slice
	sql    []string     // that each slice is run as; nil: none has run
	sent   [][]sentRows // of each slice, in the order of its segments
	counts bool         // the statement that runs on the gang is that of the slices

	change // what it is of a statement that changes rows

	mu      sync.Mutex       // guards what comes in notices:
	plans   map[int][]string // by content id, in the order they have come
	step    *written         // that segments are doing now
	topPlan serverPlan       // what the coordinator has said of top
}

// coordinator is the content id of the coordinator.
const coordinator = int(topology.ContentCoordinator)

// sentRows is what one segment has sent of a slice.
type sentRows struct{ bytes, packets, rows int64 }

// queryText begins, in what auto_explain says, the statement it says it of.
const queryText = "Query Text"

// note takes a server's notice, if it is one of auto_explain's.
func (a *analysis) note(seg int, message string) bool {
	if !strings.HasPrefix(message, "duration: ") || !strings.Contains(message, queryText) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case seg == coordinator:
		if p, ok := a.planIn(message, a.top); ok {
			a.topPlan = p
		}
	case a.step != nil && a.step.note(a, seg, message):
	default: // perhaps of a slice that ends only now
		a.plans[seg] = append(a.plans[seg], message)
	}
	return true
}

// planIn is the plan in a notice; ok is false when it is not that of sql.
func (a *analysis) planIn(message, sql string) (p serverPlan, ok bool) {
	if !a.json {
		_, rest, _ := strings.Cut(message, queryText+": ")
		lines, ok := strings.CutPrefix(rest, sql+"\n")
		if !ok {
			return p, false
		}
		p.lines = strings.Split(strings.TrimRight(lines, "\n"), "\n")
		return p.unportioned(), true
	}
	var said struct {
		Text string   `json:"Query Text"`
		Plan planNode `json:"Plan"`
	}
	at := strings.IndexByte(message, '{')
	if at < 0 || json.Unmarshal([]byte(message[at:]), &said) != nil || said.Text != sql {
		return p, false
	}
	p.tree = said.Plan
	return p.unportioned(), true
}

// count takes what executors have sent. The statement has ended.
func (a *analysis) count(run *dispatch.Running) {
	if !a.counts {
		return
	}
	a.counts = false
	for i := range a.slices {
		for _, tag := range run.Tags(int16(i + 1)) {
			var n sentRows
			if _, err := fmt.Sscanf(tag.String(), "SELECT %d %d %d", &n.bytes, &n.packets, &n.rows); err != nil {
				n = sentRows{rows: tag.RowsAffected()}
			}
			a.sent[i] = append(a.sent[i], n)
		}
	}
}

// segment is the content id of the n-th segment that runs slice i.
func (a *analysis) segment(i, n int) int {
	if s := a.slices[i].Segments; s != nil {
		return s[n]
	}
	return n
}

// busiest is the segment that has sent most rows of slice i, as Greenplum shows
// it; ok is false when the slice has not run.
func (a *analysis) busiest(i int) (seg int, ok bool) {
	most := int64(-1)
	for n, s := range a.sent[i] {
		if s.rows > most {
			most, seg, ok = s.rows, a.segment(i, n), true
		}
	}
	return seg, ok
}

// planOf is what a segment's server has said of slice i, empty when it has said
// nothing. Of two slices with the same statement each takes what came first and
// is not taken.
func (a *analysis) planOf(i, seg int) serverPlan {
	if a.sql == nil {
		return serverPlan{}
	}
	for k, m := range a.plans[seg] {
		if p, ok := a.planIn(m, a.sql[i]); ok {
			a.plans[seg][k] = ""
			return p
		}
	}
	return serverPlan{}
}

// statistics are the lines below a plan that say what each slice has sent.
func (a *analysis) statistics() (lines []string) {
	for i := range a.slices {
		rows, most, bytes, packets, at := int64(0), int64(-1), int64(0), int64(0), 0
		for n, s := range a.sent[i] {
			rows, bytes, packets = rows+s.rows, bytes+s.bytes, packets+s.packets
			if s.rows > most {
				most, at = s.rows, a.segment(i, n)
			}
		}
		n := len(a.sent[i])
		line := fmt.Sprintf("  (slice%d)    ", i+1)
		if n == 0 {
			line += "never executed"
		} else {
			line += spread("Rows out", n, rows, most, at) + fmt.Sprintf("  Sent: %s in %s.", plural(bytes, "byte"), plural(packets, "packet"))
		}
		lines = append(lines, line)
	}
	return lines
}

// spread says what n segments have done together, and the one that did most.
func spread(what string, n int, rows, most int64, at int) string {
	if n == 1 {
		return fmt.Sprintf("%s: %d (seg%d).", what, rows, at)
	}
	return fmt.Sprintf("%s: %s avg x %d workers, %d max (seg%d).", what, average(rows, n), n, most, at)
}

func average(sum int64, n int) string {
	return strings.TrimSuffix(strconv.FormatFloat(float64(sum)/float64(n), 'f', 1, 64), ".0")
}

// statistic is one entry of the slice statistics in JSON.
type statistic struct {
	Slice   int   `json:"Slice"`
	Workers int   `json:"Workers"`
	Rows    int64 `json:"Rows Out"`
	Most    int64 `json:"Maximum Rows Out"`
	Bytes   int64 `json:"Bytes Sent"`
	Packets int64 `json:"Packets Sent"`
}

func (a *analysis) statisticsJSON() (out []any) {
	for i := range a.slices {
		st := statistic{Slice: i + 1, Workers: len(a.sent[i])}
		for _, s := range a.sent[i] {
			st.Rows, st.Most = st.Rows+s.rows, max(st.Most, s.rows)
			st.Bytes, st.Packets = st.Bytes+s.bytes, st.Packets+s.packets
		}
		out = append(out, st)
	}
	return out
}

// outcome is how a statement went as a whole.
type outcome struct {
	rows        int64
	first, last time.Duration // when the first row came, and the last
	top         serverPlan    // the coordinator's plan, unless the client reads the first slice
}

// analyze runs a distributed SELECT for EXPLAIN ANALYZE. Its rows go nowhere.
func (s *Session) analyze(ctx context.Context, st *pg.ExplainStmt, q *plan.Query, top string) (a *analysis, o outcome, err error) {
	if err := s.beforeSlices(ctx, q.Slices); err != nil {
		return nil, o, err
	}
	defer func() {
		s.setAnalysis(nil)
		off, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		// In a transaction that has failed it fails; then all is undone.
		if oerr := s.tellSegments(off, tellNoPlans); err == nil {
			err = oerr
		}
	}()
	if err := s.tellSegments(ctx, tellPlans(st)); err != nil {
		return nil, o, err
	}
	a = &analysis{json: explainFormat(st) != "text", plans: map[int][]string{}}
	a.expect(q.Slices)
	s.setAnalysis(a)
	start := time.Now()
	if q.Kind == plan.Gather {
		err = s.gather(ctx, q.Slices, nil, nil, func([]byte) error {
			if o.rows++; o.rows == 1 {
				o.first = time.Since(start)
			}
			return nil
		})
		o.last = time.Since(start)
		return a, o, err
	}
	set, err := s.openSources(ctx, q.Slices, nil)
	if err != nil {
		return nil, o, err
	}
	prefix, _, err := explainPrefix(st)
	if err == nil {
		var res *result
		if res, err = s.local(prefix + top); err == nil {
			o.top, err = readPlan(firstColumn(res.rows), a.json)
		}
	}
	if cerr := set.close(); cerr != nil {
		err = cerr
	}
	return a, o, err
}

// expect makes ready for the run of these slices.
func (a *analysis) expect(slices []plan.Slice) {
	a.slices, a.sent, a.counts = slices, make([][]sentRows, len(slices)), true
	a.sql = nil
}

// runs takes over what the slices, and the one that writes after them, are run as.
func (a *analysis) runs(ds []dispatch.Slice) {
	a.sql = nil
	for i := range ds {
		a.sql = append(a.sql, ds[i].SQL)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.step != nil && len(ds) > len(a.slices) {
		a.step.sql = a.sql[len(ds)-1]
	}
}

func (s *Session) setAnalysis(a *analysis) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.analysis = a
}

func (s *Session) analyzing() *analysis {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.analysis
}

// tellPlans asks a server to say how it runs what comes next, tellNoPlans to say
// no more.
func tellPlans(st *pg.ExplainStmt) string {
	return "SELECT pg_catalog.gp_explain_slices('{" + strings.Join(segmentOptions(st), ",") + "}')"
}

const tellNoPlans = "SELECT pg_catalog.gp_explain_slices(NULL)"

// tellSegments has executors and their readers do what tellPlans or tellNoPlans says.
func (s *Session) tellSegments(ctx context.Context, sql string) error {
	readers := sql
	if sql == tellNoPlans {
		readers = ""
	}
	s.gang.TellReaders(readers, tellNoPlans)
	_, err := s.gang.Exec(ctx, nil, sql)
	return err
}

// segmentOptions are the options of an EXPLAIN ANALYZE that its segments have to
// know.
func segmentOptions(st *pg.ExplainStmt) []string {
	given := map[string]bool{"timing": true}
	for _, o := range st.Options {
		d := o.GetDefElem()
		given[d.Defname] = !optionOff(d)
	}
	if explainFormat(st) != "text" {
		given["json"] = true
	}
	var out []string
	for _, name := range []string{"buffers", "wal", "timing", "verbose", "settings", "json"} {
		if given[name] {
			out = append(out, name)
		}
	}
	return out
}
