package session

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// planNode is a node of EXPLAIN (FORMAT JSON).
type planNode map[string]any

// children are the nodes below n.
func (n planNode) children() (out []planNode) {
	list, _ := n["Plans"].([]any)
	for _, c := range list {
		if m, ok := c.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// costKeys are what a motion has of the node in whose place it stands, or of the
// one below it.
var costKeys = []string{"Parent Relationship", "Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Actual Startup Time",
	"Actual Total Time", "Actual Rows", "Actual Loops", "Output", "Filter", "Rows Removed by Filter"}

// motionNode is slice i's motion, with costs like those of like and the slice's
// plan below it.
func (t *planTree) motionNode(i int, like planNode) planNode {
	n := planNode{}
	for _, k := range costKeys {
		if v, ok := like[k]; ok {
			n[k] = v
		}
	}
	from, to := t.senders(i), 1
	sl := &t.slices[i]
	if sl.Motion != plan.GatherMotion {
		to = t.senders(sl.To)
	}
	n["Node Type"], n["Senders"], n["Receivers"] = sl.Motion.String(), from, to
	n["Slice"], n["Segments"], n["Gang Type"] = i+1, from, "primary reader"
	if alias, _ := like["Alias"].(string); alias != "" {
		if keys := t.hashKey(i, alias); keys != "" {
			n["Hash Key"] = keys
		}
	}
	if tree := t.trees[i]; tree != nil {
		tree = t.placeTree(tree, t.tokens[i])
		tree["Parent Relationship"] = "Outer"
		n["Plans"] = []any{map[string]any(tree)}
	}
	return n
}

// placeTree is place for a plan in JSON.
func (t *planTree) placeTree(n planNode, tokens []string) planNode { return t.placeNode(n, &tokens) }

func (t *planTree) placeNode(n planNode, tokens *[]string) planNode {
	if name, _ := n["Function Name"].(string); strings.HasPrefix(name, "gp_motion_recv") && len(*tokens) > 0 {
		i, ours := t.byToken((*tokens)[0])
		*tokens = (*tokens)[1:]
		if ours {
			// What else belongs to the node stands before what the motion brings.
			own := t.placeChildren(n, tokens)
			m := t.motionNode(i, n)
			if below, _ := m["Plans"].([]any); own != nil {
				m["Plans"] = append(own, below...)
			}
			return m
		}
	}
	t.placeChildren(n, tokens)
	return n
}

// placeChildren places what is below n, which it returns.
func (t *planTree) placeChildren(n planNode, tokens *[]string) []any {
	list, _ := n["Plans"].([]any)
	for k, c := range n.children() {
		list[k] = map[string]any(t.placeNode(c, tokens))
	}
	return list
}

// treeIn is the plan in the JSON that EXPLAIN has printed, and what else it has
// printed; nil when there is none.
func treeIn(lines [][]byte) (tree planNode, rest map[string]any, err error) {
	var all []map[string]any
	if err := json.Unmarshal(bytes.Join(lines, []byte("\n")), &all); err != nil || len(all) == 0 {
		return nil, nil, err
	}
	m, _ := all[0]["Plan"].(map[string]any)
	delete(all[0], "Plan")
	return m, all[0], nil
}
