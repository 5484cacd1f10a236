package session

import (
	"regexp"
	"slices"
	"strings"
)

// planLine is a line of a plan and those indented below it.
type planLine struct {
	text  string
	by    int // how much further than its parent it is indented; -1: it is no line
	below []*planLine
}

// linesTree is a plan as a tree below a line that is none.
func linesTree(lines []string) *planLine {
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
	return root
}

// print adds the lines from n on to out.
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

// isPlan says whether a line stands above a plan that belongs to the node it is below.
func (n *planLine) isPlan() bool {
	return slices.ContainsFunc(n.below, func(b *planLine) bool { return strings.HasPrefix(b.text, arrow) })
}

// properties are the lines of a node that are no plans.
func (n *planLine) properties() (out []*planLine) {
	for _, b := range n.below {
		if !strings.HasPrefix(b.text, arrow) && !b.isPlan() {
			out = append(out, b)
		}
	}
	return out
}

// plans are a node's initplans and subplans.
func (n *planLine) plans() (out []*planLine) {
	for _, b := range n.below {
		if !strings.HasPrefix(b.text, arrow) && b.isPlan() {
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
