package session

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A statement that tells when it has its snapshot, see modifyTogether, has in its plan
// what the client has not asked for:
//
//	Update on t
//	  InitPlan 1 (returns $0)
//	    ->  Result
//	  ->  Result
//	        One-Time Filter: $0
//	        ->  Seq Scan on t
//
// EXPLAIN shows it without the InitPlan and the filter, and without the Result if there
// is nothing else that it filters by.

const oneTimeFilter = "One-Time Filter"

var (
	initPlan  = regexp.MustCompile(`^InitPlan [0-9]+ \(returns (\$[0-9]+)\)$`)
	resultRow = regexp.MustCompile(`^(->  )?Result(  ?\(.*)?$`)
)

// quiet is the plan without what tells.
func (p serverPlan) quiet() serverPlan {
	if len(p.lines) > 0 {
		root := linesTree(p.lines)
		root.below[0].quiet()
		p.lines = root.print(nil, 0)
	}
	if p.tree != nil {
		p.tree.quiet()
	}
	return p
}

// without is a one-time filter without one of its conditions, a parameter; ok is false
// when that is none of them.
func without(filter, param string) (rest string, ok bool) {
	if filter == param {
		return "", true
	}
	rest = strings.Replace(strings.Replace(filter, " AND "+param+")", ")", 1), "("+param+" AND ", "(", 1)
	if rest == filter {
		return filter, false
	}
	if !strings.Contains(rest, " AND ") {
		rest = rest[1 : len(rest)-1]
	}
	return rest, true
}

// quiet is serverPlan.quiet for a plan in lines, from its first on.
func (n *planLine) quiet() {
	for i, b := range n.below {
		m := initPlan.FindStringSubmatch(b.text)
		if m != nil && len(b.below) == 1 && resultRow.MatchString(b.below[0].text) && n.unfilter(m[1]) {
			n.below = slices.Delete(n.below, i, i+1)
			return
		}
	}
}

// unfilter drops the parameter from the one-time filters below n, and says whether
// there were any.
func (n *planLine) unfilter(param string) (found bool) {
	for _, b := range n.below {
		at := slices.IndexFunc(b.below, func(p *planLine) bool { return strings.HasPrefix(p.text, oneTimeFilter) })
		if at >= 0 {
			rest, ok := without(strings.TrimPrefix(b.below[at].text, oneTimeFilter+": "), param)
			child := slices.IndexFunc(b.below, func(p *planLine) bool { return strings.HasPrefix(p.text, arrow) })
			switch {
			case ok && rest == "" && child >= 0:
				b.text, b.below = b.below[child].text, withOutput(b.below, b.below[child].below)
			case ok:
				b.below[at].text = oneTimeFilter + ": " + rest
			}
			found = found || ok
		}
		found = b.unfilter(param) || found
	}
	return found
}

// withOutput are the properties and plans below a node whose output is that of another,
// in a verbose plan.
func withOutput(of, below []*planLine) []*planLine {
	output := func(p *planLine) bool { return strings.HasPrefix(p.text, "Output: ") }
	from, to := slices.IndexFunc(of, output), slices.IndexFunc(below, output)
	if from >= 0 && to >= 0 {
		below[to].text = of[from].text
	}
	return below
}

// quiet is serverPlan.quiet for a plan in JSON.
func (n planNode) quiet() {
	for i, c := range n.children() {
		name, _ := c["Subplan Name"].(string)
		m := initPlan.FindStringSubmatch(name)
		if m != nil && c["Node Type"] == "Result" && len(c.children()) == 0 && n.unfilter(m[1]) {
			n["Plans"] = slices.Delete(n["Plans"].([]any), i, i+1)
			return
		}
	}
}

func (n planNode) unfilter(param string) (found bool) {
	for _, c := range n.children() {
		filter, _ := c[oneTimeFilter].(string)
		rest, ok := without(filter, param)
		found = found || ok
		switch below := c.children(); {
		case ok && rest == "" && len(below) == 1:
			relation, output := c["Parent Relationship"], c["Output"]
			clear(c)
			maps.Copy(c, below[0])
			if c["Parent Relationship"] = relation; output != nil {
				c["Output"] = output
			}
		case ok:
			c[oneTimeFilter] = rest
		}
		found = c.unfilter(param) || found
	}
	return found
}
