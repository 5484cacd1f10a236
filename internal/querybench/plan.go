package querybench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kinds of motions, as plans name them.
const (
	gatherMotion       = "Gather Motion"
	redistributeMotion = "Redistribute Motion"
	broadcastMotion    = "Broadcast Motion"
)

// Flow is what the slices of one kind of motion have sent. A row that is sent
// to several segments counts once as a row, and for each as bytes.
type Flow struct {
	Slices  int   `json:"slices"`
	Bytes   int64 `json:"bytes"`
	Packets int64 `json:"packets"`
	Rows    int64 `json:"rows"`
}

// Plan is how the cluster has run a query.
type Plan struct {
	Slices  int             `json:"slices"` // that segments run
	Motions map[string]Flow `json:"motions,omitempty"`
	// NotPushedDown says why segments do not do more of it; "" when they do all.
	NotPushedDown string `json:"not_pushed_down,omitempty"`
	// Gathered are the base tables that are brought to the coordinator as they
	// are, because the query was not pushed down.
	Gathered []string `json:"gathered,omitempty"`
	Error    string   `json:"error,omitempty"` // why there is no plan
}

// Between is what segments have sent each other, in bytes.
func (p *Plan) Between() int64 {
	return p.Motions[redistributeMotion].Bytes + p.Motions[broadcastMotion].Bytes
}

// ToCoordinator is what segments have sent the coordinator, in bytes.
func (p *Plan) ToCoordinator() int64 { return p.Motions[gatherMotion].Bytes }

// explain runs a query once more to see its plan.
func (s *side) explain(ctx context.Context, sql string, limit time.Duration) (*Plan, error) {
	// No clock is read for each row: it is the amounts that are wanted.
	rows, _, err := s.ask(ctx, "explain (analyze, timing off, format json) "+sql, limit)
	if err != nil {
		return nil, err
	}
	return readPlan(strings.Join(rows, "\n"))
}

// node is one of a plan.
type node struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Slice    int     `json:"Slice"`
	Plans    []*node `json:"Plans"`
}

// readPlan reads what EXPLAIN (ANALYZE, FORMAT JSON) prints for a distributed
// query.
func readPlan(text string) (*Plan, error) {
	var all []struct {
		Plan       *node  `json:"Plan"`
		Reason     string `json:"Not Pushed Down"`
		Statistics []struct {
			Slice   int   `json:"Slice"`
			Rows    int64 `json:"Rows Out"`
			Bytes   int64 `json:"Bytes Sent"`
			Packets int64 `json:"Packets Sent"`
		} `json:"Slice statistics"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("the plan is no JSON: %w", err)
	}
	if len(all) != 1 || all[0].Plan == nil {
		return nil, fmt.Errorf("there is no plan in %.80q", text)
	}
	a := all[0]
	p := &Plan{Slices: len(a.Statistics), NotPushedDown: a.Reason, Motions: map[string]Flow{}}
	kinds := map[int]string{}
	var walk func(*node)
	walk = func(n *node) {
		if n.Slice > 0 {
			kinds[n.Slice] = n.Type
			if t := n.scanned(); t != "" && n.Type == gatherMotion && a.Reason != "" && !slices.Contains(p.Gathered, t) {
				p.Gathered = append(p.Gathered, t)
			}
		}
		for _, c := range n.Plans {
			walk(c)
		}
	}
	walk(a.Plan)
	for _, st := range a.Statistics {
		kind, ok := kinds[st.Slice]
		if !ok {
			return nil, fmt.Errorf("slice %d is not in the plan", st.Slice)
		}
		f := p.Motions[kind]
		f.Slices, f.Bytes, f.Packets, f.Rows = f.Slices+1, f.Bytes+st.Bytes, f.Packets+st.Packets, f.Rows+st.Rows
		p.Motions[kind] = f
	}
	slices.Sort(p.Gathered)
	return p, nil
}

// scanned is the base table whose rows a motion sends as they are, "" when it
// sends something else.
func (n *node) scanned() string {
	for len(n.Plans) == 1 {
		n = n.Plans[0]
		switch {
		case n.Type == "Gather" || n.Type == "Gather Merge": // of parallel workers
		case strings.HasSuffix(n.Type, "Scan"):
			return n.Relation
		default:
			return ""
		}
	}
	return ""
}
