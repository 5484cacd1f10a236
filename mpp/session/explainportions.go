package session

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/catalog"
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
// removed are an average of the portions, so their sum is nearly right. Where the portions
// come as arrays a ProjectSet above the loop takes these apart, and has the CTE; what is
// above names the columns by the arrays, (unnest(b.id)) for b.id.
const portionsCTE = "CTE gp_portions"

// unportioned is the plan with such sources as one scan each.
func (p serverPlan) unportioned() serverPlan {
	p.lines = unportioned(p.lines)
	if p.tree != nil {
		var arrays []string
		p.tree.unportion(&arrays)
		p.tree.withoutArrays(arrays)
	}
	return p
}

// unportioned is serverPlan.unportioned for a plan in lines. In a verbose one a
// source's token stands where it does when the source is read whole.
func unportioned(lines []string) []string {
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.TrimSpace(l) == portionsCTE }) {
		return lines
	}
	root := linesTree(lines)
	var arrays []string
	root.unportion(&arrays)
	out := root.print(nil, 0)
	for i := range out {
		out[i] = withoutArrays(out[i], arrays)
	}
	return out
}

// withoutArrays is a part of a plan with the columns of sources of those names as they
// are when these do not come as arrays.
func withoutArrays(text string, sources []string) string {
	if len(sources) == 0 || !strings.Contains(text, "unnest(") {
		return text
	}
	return unnested.ReplaceAllStringFunc(text, func(s string) string {
		m := unnested.FindStringSubmatch(s)
		source, column := m[1]+m[3], m[2]+m[4]
		if !slices.Contains(sources, source) {
			return s
		}
		return source + "." + column
	})
}

const unnestedColumn = `("(?:[^"]|"")*"|[^ ".()]+)\.("(?:[^"]|"")*"|[^ ".(),]+)`

var (
	projectSet   = regexp.MustCompile(`^(->  )?ProjectSet(  ?\(.*)?$`)
	unnested     = regexp.MustCompile(`\(unnest\(` + unnestedColumn + `\)\)|unnest\(` + unnestedColumn + `\)`)
	nestedLoop   = regexp.MustCompile(`^(->  )?Nested Loop(  ?\(.*)?$`)
	subqueryScan = regexp.MustCompile(`^(->  )?Subquery Scan on ("(?:[^"]|"")*"|[^ ]+)(  ?\(.*)?$`)
	firstPortion = regexp.MustCompile(`^Output: '(.*) 0'::text$`)
	removedRows  = regexp.MustCompile(`^(Rows Removed by Filter: )([0-9]+)$`)
	loopsDone    = regexp.MustCompile(` loops=([0-9]+)\)$`)
)

// unportion makes one scan of what is below the line, or of the line itself: then it
// is true. It adds the names of those that come as arrays.
func (n *planLine) unportion(arrays *[]string) bool {
	for _, b := range n.below {
		if !b.unportion(arrays) {
			continue
		}
		// It has the name of the client's statement.
		if q := subqueryScan.FindStringSubmatch(n.text); q != nil {
			n.become(q[1]+"Function Scan on gp_motion_recv "+q[2]+q[3], slices.Concat(n.properties(), b.properties()), slices.Concat(n.plans(), b.plans()))
		}
	}
	at := slices.IndexFunc(n.below, func(b *planLine) bool { return b.text == portionsCTE })
	if at < 0 {
		return false
	}
	token := n.below[at].find(firstPortion)
	n.below = slices.Delete(n.below, at, at+1)
	loop, below := nestedLoop.FindStringSubmatch(n.text), n.below
	set := projectSet.FindStringSubmatch(n.text)
	if set != nil {
		for _, b := range n.below {
			if nestedLoop.MatchString(b.text) {
				loop, below = set, b.below
			}
		}
	}
	at = slices.IndexFunc(below, func(b *planLine) bool { return sourceLine.MatchString(b.text) })
	if loop == nil || at < 0 {
		return false // the rest says it all the same
	}
	scan := below[at]
	source := sourceLine.FindStringSubmatch(scan.text)
	if set != nil {
		*arrays = append(*arrays, strings.TrimSpace(source[3]))
	}
	properties := n.properties()
	if token != "" {
		properties = append(properties, &planLine{text: fmt.Sprintf("Function Call: gp_motion_recv('gp_motion'::text, '%s'::text)", token)})
	}
	loops := 1
	if m := loopsDone.FindStringSubmatch(source[4]); m != nil {
		loops, _ = strconv.Atoi(m[1])
	}
	for _, p := range scan.properties() {
		if m := removedRows.FindStringSubmatch(p.text); m != nil {
			each, _ := strconv.Atoi(m[2])
			p.text = m[1] + strconv.Itoa(each*loops)
		} else if !strings.HasPrefix(p.text, "Filter: ") {
			continue
		}
		properties = append(properties, p)
	}
	n.become(loop[1]+"Function Scan on gp_motion_recv"+source[3]+loop[2], properties, slices.Concat(n.plans(), scan.plans()))
	return true
}

// become makes n another node, with these properties and then plans of initplans and
// subplans below it. Two nodes' filters become one; of their outputs the first stays.
func (n *planLine) become(text string, properties, plans []*planLine) {
	indent := rootIndent
	if strings.HasPrefix(text, arrow) {
		indent = nodeIndent
	}
	n.text, n.below = text, nil
	first := map[string]*planLine{}
	for _, p := range properties {
		name, value, _ := strings.Cut(p.text, ": ")
		was := first[name]
		switch {
		case was == nil:
			first[name], n.below = p, append(n.below, p)
		case name == "Filter":
			was.text = name + ": " + bothFilters(value, strings.TrimPrefix(was.text, name+": "))
		case removedRows.MatchString(p.text):
			a, _ := strconv.Atoi(value)
			b, _ := strconv.Atoi(strings.TrimPrefix(was.text, name+": "))
			was.text = name + ": " + strconv.Itoa(a+b)
		}
	}
	n.below = append(n.below, plans...)
	for _, b := range n.below {
		b.by = indent
	}
}

// bothFilters is a filter of what another has let through.
func bothFilters(inner, outer string) string { return "(" + inner + " AND " + outer + ")" }

// unportion is planLine.unportion for a plan in JSON.
func (n planNode) unportion(arrays *[]string) bool {
	for _, c := range n.children() {
		if c.unportion(arrays) && n["Node Type"] == "Subquery Scan" {
			n.becomeSource(c, n["Alias"])
		}
	}
	list := n.children()
	at := slices.IndexFunc(list, func(c planNode) bool { return c["Subplan Name"] == portionsCTE })
	if at < 0 {
		return false
	}
	n["Plans"] = slices.Delete(n["Plans"].([]any), at, at+1)
	loop := n
	set := n["Node Type"] == "ProjectSet"
	if set && len(n.children()) == 1 {
		loop = n.children()[0]
		list = loop.children()
	}
	for _, c := range list {
		if name, _ := c["Function Name"].(string); loop["Node Type"] == "Nested Loop" && strings.HasPrefix(name, "gp_motion_recv") {
			if alias, _ := c["Alias"].(string); set {
				*arrays = append(*arrays, alias, catalog.Ident(alias))
			}
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

// withoutArrays is withoutArrays for all that a plan says.
func (n planNode) withoutArrays(sources []string) {
	for k, v := range n {
		switch v := v.(type) {
		case string:
			n[k] = withoutArrays(v, sources)
		case []any:
			for i := range v {
				if s, ok := v[i].(string); ok {
					v[i] = withoutArrays(s, sources)
				}
			}
		}
	}
	for _, c := range n.children() {
		c.withoutArrays(sources)
	}
}

// becomeSource makes a node the scan of the row source from, which is below it.
func (n planNode) becomeSource(from planNode, alias any) {
	n["Node Type"], n["Function Name"], n["Alias"] = "Function Scan", from["Function Name"], alias
	if v, ok := from["Schema"]; ok {
		n["Schema"] = v
	}
	if inner, ok := from["Filter"].(string); ok {
		if outer, ok := n["Filter"].(string); ok {
			inner = bothFilters(inner, outer)
		}
		n["Filter"] = inner
	}
	if a, ok := from["Rows Removed by Filter"].(float64); ok {
		b, _ := n["Rows Removed by Filter"].(float64)
		n["Rows Removed by Filter"] = a + b
	}
	var plans []any
	for _, c := range slices.Concat(n.children(), from.children()) {
		if r := c["Parent Relationship"]; r == "SubPlan" || r == "InitPlan" {
			plans = append(plans, map[string]any(c))
		}
	}
	for _, k := range []string{"Plans", "Join Type", "Inner Unique"} {
		delete(n, k)
	}
	if plans != nil {
		n["Plans"] = plans
	}
}
