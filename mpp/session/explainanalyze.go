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
)

// analysis is what EXPLAIN ANALYZE learns of a statement's slices while it runs:
// segments' servers say in notices, by auto_explain, how they have run them, and
// executors count what they have sent.
type analysis struct {
	slices []plan.Slice

	mu    sync.Mutex
	plans map[int][]string // by content id, in the order they have come
	sent  [][]sentRows     // of each slice, in the order of its segments
}

// sentRows is what one segment has sent of a slice.
type sentRows struct{ bytes, packets, rows int64 }

// queryText begins, in what auto_explain says, the statement it says it of.
const queryText = "Query Text"

// note takes a segment's notice, if it is one of auto_explain's.
func (a *analysis) note(seg int, message string) bool {
	if !strings.Contains(message, queryText) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.plans[seg] = append(a.plans[seg], message)
	return true
}

// count takes what executors have sent. The statement has ended.
func (a *analysis) count(run *dispatch.Running) {
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

// planOf is what a segment's server has said of slice i, nil when it has said
// nothing. Of two slices with the same statement each takes what came first and
// is not taken.
func (a *analysis) planOf(i, seg int) []string {
	for k, m := range a.plans[seg] {
		_, rest, _ := strings.Cut(m, queryText+": ")
		if lines, ok := strings.CutPrefix(rest, a.slices[i].SQL+"\n"); ok {
			a.plans[seg][k] = ""
			return strings.Split(strings.TrimRight(lines, "\n"), "\n")
		}
	}
	return nil
}

// treeOf is planOf in JSON.
func (a *analysis) treeOf(i, seg int) planNode {
	for k, m := range a.plans[seg] {
		at := strings.IndexByte(m, '{')
		if at < 0 {
			continue
		}
		var said struct {
			Text string   `json:"Query Text"`
			Plan planNode `json:"Plan"`
		}
		if json.Unmarshal([]byte(m[at:]), &said) == nil && said.Text == a.slices[i].SQL {
			a.plans[seg][k] = ""
			return said.Plan
		}
	}
	return nil
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
		switch {
		case n == 0:
			line += "never executed"
		case n == 1:
			line += fmt.Sprintf("Rows out: %d (seg%d).", rows, at)
		default:
			line += fmt.Sprintf("Rows out: %s avg x %d workers, %d max (seg%d).", average(rows, n), n, most, at)
		}
		if n > 0 {
			line += fmt.Sprintf("  Sent: %d bytes in %d packets.", bytes, packets)
		}
		lines = append(lines, line)
	}
	return lines
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

func (a *analysis) statisticsJSON() (out []statistic) {
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
	top         [][]byte      // the coordinator's plan, of a Top
}

// analyze runs a distributed SELECT for EXPLAIN ANALYZE. Its rows go nowhere.
func (s *Session) analyze(ctx context.Context, st *pg.ExplainStmt, q *plan.Query, top string) (a *analysis, o outcome, err error) {
	if err := s.beforeDispatch(ctx); err != nil {
		return nil, o, err
	}
	if _, err := s.gang.Exec(ctx, nil, "SELECT pg_catalog.gp_explain_slices('{"+strings.Join(segmentOptions(st), ",")+"}')"); err != nil {
		return nil, o, err
	}
	a = &analysis{slices: q.Slices, plans: map[int][]string{}, sent: make([][]sentRows, len(q.Slices))}
	s.setAnalysis(a)
	defer func() {
		s.setAnalysis(nil)
		off, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		// In a transaction that has failed it fails; then all is undone.
		if _, oerr := s.gang.Exec(off, nil, "SELECT pg_catalog.gp_explain_slices(NULL)"); err == nil {
			err = oerr
		}
	}()
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
			o.top = firstColumn(res.rows)
		}
	}
	if cerr := set.close(); cerr != nil {
		err = cerr
	}
	return a, o, err
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

// segmentOptions are the options of an EXPLAIN ANALYZE that its segments have to
// know.
func segmentOptions(st *pg.ExplainStmt) []string {
	given := map[string]bool{"timing": true}
	for _, o := range st.Options {
		d := o.GetDefElem()
		given[d.Defname] = !optionOff(d)
	}
	if explainFormat(st) == "json" {
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
