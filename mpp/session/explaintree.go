package session

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// planTree puts the plans that PostgreSQL servers make for the slices of one
// statement together: in the place of each row source stands the motion that
// feeds it, in Greenplum's words (facts 4.3), and below it the plan of the
// slice that sends. Slices have the numbers that motions know them by.
type planTree struct {
	slices   []plan.Slice
	sql      []string // what segments run for each
	segments int      // of the cluster
	json     bool
	timing   bool       // unless TIMING is off
	ran      *analysis  // with ANALYZE
	plans    [][]string // of each slice, the lines of EXPLAIN
	trees    []planNode // of each slice, in JSON
	tokens   [][]string // that each plan's row sources read, in order
}

// reads says whether slice i reads others.
func (t *planTree) reads(i int) bool {
	for k := range t.slices {
		if t.slices[k].Motion != plan.GatherMotion && t.slices[k].To == i {
			return true
		}
	}
	return false
}

// senders counts the segments that run a slice.
func (t *planTree) senders(i int) int {
	if s := t.slices[i].Segments; s != nil {
		return len(s)
	}
	return t.segments
}

// motion is the line of slice i's motion but for its costs.
func (t *planTree) motion(i int) string {
	from, to := t.senders(i), 1
	if sl := &t.slices[i]; sl.Motion != plan.GatherMotion {
		to = t.senders(sl.To)
	}
	return fmt.Sprintf("%s %d:%d  (slice%d; segments: %d)", t.slices[i].Motion, from, to, i+1, from)
}

// costs are PostgreSQL's estimates at the end of a node's line.
var costs = regexp.MustCompile(`  \(cost=[0-9.]+ rows=([0-9]+) width=[0-9]+\)`)

// dropCosts takes the estimates out of a plan.
func (p serverPlan) dropCosts() {
	for k, l := range p.lines {
		p.lines[k] = costs.ReplaceAllString(l, "")
	}
	var drop func(n planNode)
	drop = func(n planNode) {
		for _, k := range []string{"Startup Cost", "Total Cost", "Plan Rows", "Plan Width"} {
			delete(n, k)
		}
		for _, c := range n.children() {
			drop(c)
		}
	}
	drop(p.tree)
}

// gather is the plan of a statement whose first slice sends to the client.
func (t *planTree) gather(o outcome) []string {
	line, limit := t.motion(0), "Limit"
	if len(t.plans[0]) > 0 {
		// The plan is one segment's, the motion has the rows of all.
		if at := costs.FindStringSubmatchIndex(t.plans[0][0]); at != nil {
			c := t.plans[0][0]
			if rows, err := strconv.ParseFloat(c[at[2]:at[3]], 64); err == nil {
				rows *= float64(t.senders(0))
				line += c[at[0]:at[2]] + strconv.FormatFloat(rows, 'f', 0, 64) + c[at[3]:at[1]]
				limit += c[at[0]:at[2]] + strconv.FormatFloat(t.limited(rows), 'f', 0, 64) + c[at[3]:at[1]]
			}
		}
	}
	if t.ran != nil {
		line += t.actual(o.first, o.last, t.merged(o))
		limit += t.actual(o.first, o.last, o.rows)
	}
	lines := []string{line}
	if keys := t.mergeKey(0); keys != nil {
		lines = append(lines, strings.Repeat(" ", rootIndent)+"Merge Key: "+strings.Join(keys, ", "))
	}
	lines = append(lines, t.below(0, rootIndent)...)
	if t.limits() {
		lines = append([]string{limit}, asChild(lines, rootIndent)...)
	}
	return lines
}

// mergeKey are the keys by which slice i's rows are merged, nil when they are
// not.
func (t *planTree) mergeKey(i int) (keys []string) {
	if m := t.slices[i].Merge; m != nil {
		for _, k := range m.Keys {
			keys = append(keys, k.Name)
		}
	}
	return keys
}

// limits says whether not all rows that are merged are the client's.
func (t *planTree) limits() bool {
	m := t.slices[0].Merge
	return m != nil && (m.Limit >= 0 || m.Offset > 0)
}

// limited is an estimate of the rows that are left of those that are merged.
func (t *planTree) limited(rows float64) float64 {
	if m := t.slices[0].Merge; t.limits() {
		rows = max(rows-float64(m.Offset), 1)
		if m.Limit >= 0 {
			rows = min(rows, float64(m.Limit))
		}
	}
	return rows
}

// merged is how many rows the client's have been left of.
func (t *planTree) merged(o outcome) int64 {
	if !t.limits() {
		return o.rows
	}
	sent := int64(0)
	for _, s := range t.ran.sent[0] {
		sent += s.rows
	}
	return o.rows + min(t.slices[0].Merge.Offset, sent)
}

// gatherNode is gather in JSON.
func (t *planTree) gatherNode(o outcome) planNode {
	like := planNode{}
	maps.Copy(like, t.trees[0])
	if rows, ok := like["Plan Rows"].(float64); ok {
		like["Plan Rows"] = rows * float64(t.senders(0))
	}
	for _, k := range []string{"Filter", "Rows Removed by Filter", "Parent Relationship"} {
		delete(like, k)
	}
	if t.ran != nil {
		t.setActual(like, o.first, o.last, t.merged(o))
	}
	delete(like, "Alias")
	n := t.motionNode(0, like)
	if keys := t.mergeKey(0); keys != nil {
		n["Merge Key"] = keys
	}
	if !t.limits() {
		return n
	}
	limit := planNode{"Node Type": "Limit", "Plans": []any{map[string]any(n)}}
	for _, k := range costKeys {
		if v, ok := n[k]; ok {
			limit[k] = v
		}
	}
	if rows, ok := like["Plan Rows"].(float64); ok {
		limit["Plan Rows"] = t.limited(rows)
	}
	if t.ran != nil {
		limit["Actual Rows"] = o.rows
	}
	n["Parent Relationship"] = "Outer"
	return limit
}

// actual is the end of a node's line that says how it went.
func (t *planTree) actual(first, last time.Duration, rows int64) string {
	if !t.timing {
		return fmt.Sprintf(" (actual rows=%d loops=1)", rows)
	}
	return fmt.Sprintf(" (actual time=%.3f..%.3f rows=%d loops=1)", milliseconds(first), milliseconds(last), rows)
}

// setActual is actual in JSON.
func (t *planTree) setActual(n planNode, first, last time.Duration, rows int64) {
	if t.timing {
		n["Actual Startup Time"], n["Actual Total Time"] = milliseconds(first), milliseconds(last)
	}
	n["Actual Rows"], n["Actual Loops"] = rows, 1
}

// milliseconds is d as plans print times.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// rootIndent is how far PostgreSQL indents what belongs to the topmost node;
// what belongs to another is nodeIndent further right than its arrow.
const (
	rootIndent = 2
	nodeIndent = 6
	arrow      = "->  "
)

// below is slice i's plan as the child of its motion, whose children are
// indented by indent.
func (t *planTree) below(i, indent int) []string {
	return asChild(t.place(t.plans[i], t.tokens[i]), indent)
}

// asChild are a plan's lines as those of a child, indented by indent.
func asChild(lines []string, indent int) []string {
	out := make([]string, len(lines))
	for k, l := range lines {
		if k == 0 {
			out[k] = strings.Repeat(" ", indent) + arrow + l
		} else {
			out[k] = strings.Repeat(" ", indent+nodeIndent-rootIndent) + l
		}
	}
	return out
}

// sourceLine is the line of a node that reads a row source: indentation,
// arrow, name of the source in the plan, the rest.
var sourceLine = regexp.MustCompile(`^( *)(->  )?Function Scan on (?:pg_catalog\.)?gp_motion_recv(?:_[0-9])?( (?:"(?:[^"]|"")*"|[^ ]+))?(.*)$`)

// sourceCall is the line of a verbose plan that names the source.
var sourceCall = regexp.MustCompile(`^ *Function Call: (?:pg_catalog\.)?gp_motion_recv(?:_[0-9])?\('gp_motion'::text, '([^']*)'::text\)$`)

// tokensRead are the tokens of a verbose plan's row sources, in order.
func tokensRead(lines [][]byte) (tokens []string) {
	for _, l := range unportioned(planLines(lines)) {
		if m := sourceCall.FindStringSubmatch(l); m != nil {
			tokens = append(tokens, m[1])
		}
	}
	return tokens
}

// place puts motions in the place of the row sources of a plan, which read
// tokens in this order.
func (t *planTree) place(lines, tokens []string) []string { return t.placeNext(lines, &tokens) }

// placeNext is place for a part of a plan: it takes the tokens it comes by.
func (t *planTree) placeNext(lines []string, tokens *[]string) (out []string) {
	for at := 0; at < len(lines); at++ {
		m := sourceLine.FindStringSubmatch(lines[at])
		if m == nil || len(*tokens) == 0 {
			out = append(out, lines[at])
			continue
		}
		i, ours := t.byToken((*tokens)[0])
		*tokens = (*tokens)[1:]
		if !ours {
			out = append(out, lines[at])
			continue
		}
		indent := rootIndent
		if m[2] != "" {
			indent = len(m[1]) + nodeIndent
		}
		out = append(out, m[1]+m[2]+t.motion(i)+m[4])
		if keys := t.hashKey(i, strings.TrimPrefix(m[3], " ")); keys != "" {
			out = append(out, strings.Repeat(" ", indent)+"Hash Key: "+keys)
		}
		// What else the plan says of the node comes before its child.
		var own []string
		for at+1 < len(lines) && strings.HasPrefix(lines[at+1], strings.Repeat(" ", indent)) {
			at++
			if !sourceCall.MatchString(lines[at]) || lines[at][indent] == ' ' {
				own = append(own, lines[at])
			}
		}
		out = append(out, t.placeNext(own, tokens)...)
		out = append(out, t.below(i, indent)...)
	}
	return out
}

func (t *planTree) byToken(token string) (int, bool) {
	for i := range t.slices {
		if t.slices[i].Token == token && token != "" {
			return i, true
		}
	}
	return 0, false
}

// hashKey are the columns by which slice i is redistributed, under the name
// that the plan that reads it has for it; "" when it is not.
func (t *planTree) hashKey(i int, alias string) string {
	var keys []string
	for _, k := range t.slices[i].Keys {
		keys = append(keys, alias+"."+explainName(t.slices[i].Columns[k].Name))
	}
	return strings.Join(keys, ", ")
}

var bareName = regexp.MustCompile(`^[a-z_][a-z0-9_$]*$`)

// explainName is a column's name as EXPLAIN writes it: in quotes where it needs
// them.
func explainName(name string) string {
	if bareName.MatchString(name) {
		return name
	}
	return catalog.Ident(name)
}
