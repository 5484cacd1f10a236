package session

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// changeView shows a change.
type changeView struct {
	t              *planTree
	c              *change
	costs, verbose bool
}

// workers counts the segments that write.
func (v *changeView) workers() int {
	all := map[int]bool{}
	for _, w := range v.c.steps {
		for seg := range w.segs {
			all[seg] = true
		}
	}
	if len(all) == 0 {
		return v.c.segments
	}
	return len(all)
}

func (v *changeView) target() string {
	if v.verbose {
		schema := v.c.r.Schema
		return explainName(schema) + "." + explainName(v.c.r.Name)
	}
	return explainName(v.c.r.Name)
}

// distributed says where inserted rows go, in the words of DISTRIBUTED.
func (v *changeView) distributed() string {
	switch p := v.c.r.Policy; p.Kind {
	case plan.Replicated:
		return "replicated"
	case plan.Hashed:
		var keys []string
		for _, k := range p.Keys {
			keys = append(keys, explainName(v.c.r.columns[k].Name))
		}
		return "by (" + strings.Join(keys, ", ") + ")"
	}
	return "randomly"
}

// lines is the plan in lines. source are those of the query that yields the rows.
func (v *changeView) lines(source []string) []string {
	if v.c.op == "" {
		return []string{"Create Table As  (never executed)"}
	}
	if v.moves() {
		root := []string{v.rootLine(source)}
		for _, w := range v.c.steps {
			root = attach(root, 0, v.stepLines(w, source))
			source = nil // it is shown once
		}
		if len(source) > 0 {
			root = attach(root, 0, source)
		}
		return root
	}
	w := &written{op: v.c.op}
	if len(v.c.steps) > 0 {
		w = v.c.steps[0]
	}
	lines := v.stepLines(w, source)
	// Slice 0 has no motion to stand beside.
	at := len(lines[0])
	for _, mark := range []string{"  (cost=", " (actual "} {
		if i := strings.Index(lines[0], mark); i >= 0 {
			at = min(at, i)
		}
	}
	lines[0] = lines[0][:at] + v.slice0() + lines[0][at:]
	return lines
}

// slice0 is what a motion says of its slice.
func (v *changeView) slice0() string { return fmt.Sprintf("  (slice0; segments: %d)", v.workers()) }

// moves says whether the change is an UPDATE that has deleted rows and inserted
// new ones.
func (v *changeView) moves() bool {
	return slices.ContainsFunc(v.c.steps, func(w *written) bool { return w.op != v.c.op })
}

// rootLine is the line of a change that no segment has a plan for.
func (v *changeView) rootLine(source []string) string {
	line := v.c.op + " on " + v.target()
	if v.moves() {
		line += v.slice0()
	}
	if len(source) > 0 && v.costs {
		if m := costRange.FindStringSubmatch(source[0]); m != nil {
			line += "  (cost=" + m[1] + " rows=0 width=0)"
		}
	}
	if v.t.ran != nil {
		line += v.t.actual(v.c.took, v.c.took, v.c.returned)
	}
	return line
}

var costRange = regexp.MustCompile(`  \(cost=([0-9.]+) rows=`)

// stepLines are the lines of one step, with the query's below it.
func (v *changeView) stepLines(w *written, source []string) []string {
	p := v.planOf(w)
	lines := slices.Clone(p.lines)
	if lines == nil {
		lines = []string{v.rootLine(source)}
	}
	if w.op == "Insert" {
		lines = slices.Insert(lines, 1, strings.Repeat(" ", rootIndent)+"Distributed: "+v.distributed())
	}
	if len(source) == 0 {
		return lines
	}
	// The rows are constants in the segment's statement.
	at := slices.IndexFunc(lines, valuesLine.MatchString)
	if at < 0 && w.op == "Insert" {
		at = slices.IndexFunc(lines, resultLine.MatchString)
	}
	return attach(lines, max(at, 0), source)
}

var (
	valuesLine = regexp.MustCompile(`^ *->  Values Scan on "\*VALUES\*`)
	resultLine = regexp.MustCompile(`^ *->  Result( |$)`)
)

// attach puts a plan below the node in line at, as its last child.
func attach(lines []string, at int, below []string) []string {
	indent := rootIndent
	if i := strings.Index(lines[at], arrow); i >= 0 && strings.TrimSpace(lines[at][:i]) == "" {
		indent = i + nodeIndent
	}
	end := at + 1
	for end < len(lines) && strings.HasPrefix(lines[end], strings.Repeat(" ", indent)) {
		end++
	}
	return slices.Insert(slices.Clone(lines), end, asChild(below, indent)...)
}

// planOf is the plan of a step on the segment that has written most, with motions in the place of its row sources.
func (v *changeView) planOf(w *written) serverPlan {
	p := v.c.direct
	if v.t.ran != nil {
		seg := w.busiest()
		if seg < 0 {
			return serverPlan{}
		}
		if p = w.segs[seg].plan; !v.costs {
			p.dropCosts()
		}
	}
	if v.c.moved != nil && !v.c.copies {
		p.lines = v.t.place(p.lines, v.c.movedTokens)
		if p.tree != nil {
			p.tree = v.t.placeTree(p.tree, v.c.movedTokens)
		}
	}
	return p
}

// tree is lines in JSON.
func (v *changeView) tree(source planNode) planNode {
	if v.c.op == "" {
		return planNode{"Node Type": "Create Table As", "Actual Rows": 0, "Actual Loops": 0}
	}
	var root planNode
	if v.moves() {
		root = v.rootNode(source)
		for _, w := range v.c.steps {
			addChild(root, v.stepTree(w, source))
			source = nil
		}
	} else {
		w := &written{op: v.c.op}
		if len(v.c.steps) > 0 {
			w = v.c.steps[0]
		}
		root = v.stepTree(w, source)
	}
	root["Slice"], root["Segments"], root["Gang Type"] = 0, v.workers(), "primary writer"
	return root
}

// rootNode is rootLine in JSON.
func (v *changeView) rootNode(source planNode) planNode {
	n := planNode{"Node Type": "ModifyTable", "Operation": v.c.op, "Relation Name": v.c.r.Name}
	if v.verbose {
		n["Schema"] = v.c.r.Schema
	}
	if total, ok := source["Total Cost"]; ok && v.costs {
		n["Startup Cost"], n["Total Cost"], n["Plan Rows"], n["Plan Width"] = source["Startup Cost"], total, 0, 0
	}
	if v.t.ran != nil {
		v.t.setActual(n, v.c.took, v.c.took, v.c.returned)
	}
	return n
}

// stepTree is stepLines in JSON.
func (v *changeView) stepTree(w *written, source planNode) planNode {
	p := v.planOf(w)
	n := p.tree
	if n == nil {
		n = v.rootNode(source)
	}
	if w.op == "Insert" {
		n["Distributed"] = v.distributed()
	}
	if source != nil {
		at := findNode(n, func(n planNode) bool {
			alias, _ := n["Alias"].(string)
			return n["Node Type"] == "Values Scan" && strings.HasPrefix(alias, "*VALUES*")
		})
		if at == nil && w.op == "Insert" {
			at = findNode(n, func(n planNode) bool { return n["Node Type"] == "Result" })
		}
		if at == nil {
			at = n
		}
		addChild(at, source)
	}
	return n
}

func findNode(n planNode, want func(planNode) bool) planNode {
	if want(n) {
		return n
	}
	for _, c := range n.children() {
		if found := findNode(c, want); found != nil {
			return found
		}
	}
	return nil
}

func addChild(n, child planNode) {
	list, _ := n["Plans"].([]any)
	child["Parent Relationship"] = "Outer"
	n["Plans"] = append(list, map[string]any(child))
}

// doneBy is an operation as something done.
var doneBy = map[string]string{"Insert": "inserted", "Update": "updated", "Delete": "deleted"}

// statistics are the lines below the plan that say what slice 0 has written.
func (v *changeView) statistics() (lines []string) {
	if v.c.op != "" && len(v.c.steps) == 0 {
		return []string{"  (slice0)    Rows " + doneBy[v.c.op] + ": 0."}
	}
	for _, w := range v.c.steps {
		var all writtenOn
		most := w.busiest()
		if most < 0 {
			continue
		}
		for _, on := range w.segs {
			all.rows, all.bytes, all.statements = all.rows+on.rows, all.bytes+on.bytes, all.statements+on.statements
		}
		line := "  (slice0)    " + spread("Rows "+doneBy[w.op], len(w.segs), all.rows, w.segs[most].rows, most)
		switch n := w.segs[most].statements; {
		case w.copied && all.bytes == 0:
			line += "  Received: what slice1 has sent, by COPY."
		case w.copied:
			line += fmt.Sprintf("  Received: %d bytes by COPY.", all.bytes)
		case n > 1:
			line += fmt.Sprintf("  Received: %d bytes in %d statements (the plan is seg%d's first of %d).", all.bytes, all.statements, most, n)
		default:
			line += fmt.Sprintf("  Received: %d bytes in %s.", all.bytes, plural(all.statements, "statement"))
		}
		if v.t.timing {
			line += fmt.Sprintf("  Time: %.3f ms.", milliseconds(w.took))
		}
		lines = append(lines, line)
	}
	return lines
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// statisticsJSON are statistics in JSON.
func (v *changeView) statisticsJSON() (out []any) {
	if v.c.op != "" && len(v.c.steps) == 0 {
		return []any{map[string]any{"Slice": 0, "Operation": v.c.op, "Workers": 0, "Rows Written": 0, "Maximum Rows Written": 0, "Bytes Received": 0}}
	}
	for _, w := range v.c.steps {
		var all writtenOn
		most := int64(0)
		for _, on := range w.segs {
			all.rows, all.bytes, all.statements = all.rows+on.rows, all.bytes+on.bytes, all.statements+on.statements
			most = max(most, on.rows)
		}
		st := map[string]any{"Slice": 0, "Operation": w.op, "Workers": len(w.segs), "Rows Written": all.rows, "Maximum Rows Written": most, "Bytes Received": all.bytes}
		if w.copied {
			st["Written By"] = "COPY"
		} else {
			st["Written By"], st["Statements"] = w.op, all.statements
		}
		if v.t.timing {
			st["Time"] = milliseconds(w.took)
		}
		out = append(out, st)
	}
	return out
}
