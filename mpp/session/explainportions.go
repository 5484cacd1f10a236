package session

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A row source that is read in portions is a recursive query in PostgreSQL's plans,
// which EXPLAIN shows as the one scan that it is to who looks at it: a Nested Loop,
// below a Subquery Scan unless PostgreSQL has no need of that,
//
//	Nested Loop
//	  CTE gp_portions
//	    ->  Recursive Union        asks for one portion after the other
//	  ->  CTE Scan on gp_portions
//	  ->  Function Scan on gp_motion_recv_4 b
//
// becomes a Function Scan with the loop's costs, rows and times. Rows that a filter has
// removed are an average of the portions, so their sum is nearly right.
const portionsCTE = "CTE gp_portions"

// unportioned is the plan with such sources as one scan each.
func (p serverPlan) unportioned() serverPlan {
	p.lines = unportioned(p.lines)
	if p.tree != nil {
		p.tree.unportion()
	}
	return p
}

// unportioned is serverPlan.unportioned for a plan in lines. In a verbose one a
// source's token stands where it does when the source is read whole.
func unportioned(lines []string) []string {
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.TrimSpace(l) == portionsCTE }) {
		return lines
	}
	root := &planLine{by: -1}
	open := []*planLine{root} // the last line and those it is below
	indents := []int{-1}
	for _, l := range lines {
		text := strings.TrimLeft(l, " ")
		indent := len(l) - len(text)
		for indents[len(open)-1] >= indent {
			open, indents = open[:len(open)-1], indents[:len(open)-1]
		}
		parent := open[len(open)-1]
		n := &planLine{text: text, by: indent - max(indents[len(open)-1], 0)}
		parent.below = append(parent.below, n)
		open, indents = append(open, n), append(indents, indent)
	}
	root.unportion()
	return root.print(nil, 0)
}

// planLine is a line of a plan and those indented below it.
type planLine struct {
	text  string
	by    int // how much further than its parent it is indented; -1: it is no line
	below []*planLine
}

func (n *planLine) print(out []string, indent int) []string {
	if n.by >= 0 {
		indent += n.by
		out = append(out, strings.Repeat(" ", indent)+n.text)
	}
	for _, b := range n.below {
		out = b.print(out, indent)
	}
	return out
}

var (
	nestedLoop   = regexp.MustCompile(`^(->  )?Nested Loop(  ?\(.*)?$`)
	subqueryScan = regexp.MustCompile(`^(->  )?Subquery Scan on ("(?:[^"]|"")*"|[^ ]+)(  ?\(.*)?$`)
	firstPortion = regexp.MustCompile(`^Output: '(.*) 0'::text$`)
	removedRows  = regexp.MustCompile(`^(Rows Removed by Filter: )([0-9]+)$`)
	loopsDone    = regexp.MustCompile(` loops=([0-9]+)\)$`)
)

// unportion makes one scan of what is below the line, or of the line itself: then it
// is true.
func (n *planLine) unportion() bool {
	for _, b := range n.below {
		if !b.unportion() {
			continue
		}
		// It has the name of the client's statement.
		if q := subqueryScan.FindStringSubmatch(n.text); q != nil {
			n.text = q[1] + "Function Scan on gp_motion_recv " + q[2] + q[3]
			n.below = n.props("")
			n.below = append(n.below, b.props("Output: ")...)
		}
	}
	at := slices.IndexFunc(n.below, func(b *planLine) bool { return b.text == portionsCTE })
	if at < 0 {
		return false
	}
	token := n.below[at].find(firstPortion)
	n.below = slices.Delete(n.below, at, at+1)
	loop := nestedLoop.FindStringSubmatch(n.text)
	at = slices.IndexFunc(n.below, func(b *planLine) bool { return sourceLine.MatchString(b.text) })
	if loop == nil || at < 0 {
		return false // the rest says it all the same
	}
	scan := n.below[at]
	by := scan.by
	source := sourceLine.FindStringSubmatch(scan.text)
	n.text = loop[1] + "Function Scan on gp_motion_recv" + source[3] + loop[2]
	n.below = n.props("")
	if token != "" {
		n.below = append(n.below, &planLine{text: fmt.Sprintf("Function Call: gp_motion_recv('gp_motion'::text, '%s'::text)", token), by: by})
	}
	loops := 1
	if m := loopsDone.FindStringSubmatch(source[4]); m != nil {
		loops, _ = strconv.Atoi(m[1])
	}
	for _, p := range scan.props("Output: ") {
		if m := removedRows.FindStringSubmatch(p.text); m != nil {
			each, _ := strconv.Atoi(m[2])
			p.text = m[1] + strconv.Itoa(each*loops)
		} else if !strings.HasPrefix(p.text, "Filter: ") {
			continue
		}
		p.by = by
		n.below = append(n.below, p)
	}
	return true
}

// props are the lines below a node that are no nodes, without those that begin with
// without.
func (n *planLine) props(without string) (out []*planLine) {
	for _, b := range n.below {
		if !strings.HasPrefix(b.text, arrow) && (without == "" || !strings.HasPrefix(b.text, without)) {
			out = append(out, b)
		}
	}
	return out
}

// find is the first group of the first line below n that matches re.
func (n *planLine) find(re *regexp.Regexp) string {
	for _, b := range n.below {
		if m := re.FindStringSubmatch(b.text); m != nil {
			return m[1]
		}
		if s := b.find(re); s != "" {
			return s
		}
	}
	return ""
}

// unportion is planLine.unportion for a plan in JSON.
func (n planNode) unportion() bool {
	for _, c := range n.children() {
		if c.unportion() && n["Node Type"] == "Subquery Scan" {
			n.becomeSource(c, n["Alias"])
		}
	}
	list := n.children()
	at := slices.IndexFunc(list, func(c planNode) bool { return c["Subplan Name"] == portionsCTE })
	if at < 0 {
		return false
	}
	n["Plans"] = slices.Delete(n["Plans"].([]any), at, at+1)
	for _, c := range list {
		if name, _ := c["Function Name"].(string); n["Node Type"] == "Nested Loop" && strings.HasPrefix(name, "gp_motion_recv") {
			each, _ := c["Rows Removed by Filter"].(float64)
			if loops, ok := c["Actual Loops"].(float64); ok && each > 0 {
				c["Rows Removed by Filter"] = each * loops
			}
			n.becomeSource(c, c["Alias"])
			return true
		}
	}
	return false
}

// becomeSource makes a node the scan of the row source from, which is below it.
func (n planNode) becomeSource(from planNode, alias any) {
	n["Node Type"], n["Function Name"], n["Alias"] = "Function Scan", from["Function Name"], alias
	for _, k := range []string{"Schema", "Filter", "Rows Removed by Filter"} {
		if v, ok := from[k]; ok && n[k] == nil {
			n[k] = v
		}
	}
	for _, k := range []string{"Plans", "Join Type", "Inner Unique"} {
		delete(n, k)
	}
}
