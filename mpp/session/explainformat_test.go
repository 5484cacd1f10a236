package session

import (
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestPrintPlan prints a plan with all kinds of values in each format, in the
// order in which a plan is read.
func TestPrintPlan(t *testing.T) {
	tree := func() planNode {
		return planNode{
			"Plans":     []any{planNode{"Node Type": "Seq Scan", "Filter": `(w <> '<"&'::text)`, "Plan Rows": 12.5, "Output": []any{"a", `b"c`}}},
			"Node Type": "ModifyTable", "Operation": "Update", "Slice": 0, "Parallel Aware": false, "Total Cost": 7,
		}
	}
	rest := map[string]any{"Optimizer": "x\ny", "Execution Time": 1.5, "Triggers": []any{}, "Settings": map[string]any{"work_mem": "8MB"},
		"Slice statistics": []any{map[string]any{"Operation": "Update", "Slice": 0}, statistic{Slice: 1, Rows: 1 << 60}}}
	for format, want := range map[string]string{
		"json": `[
  {
    "Plan": {
      "Node Type": "ModifyTable",
      "Slice": 0,
      "Operation": "Update",
      "Parallel Aware": false,
      "Total Cost": 7,
      "Plans": [
        {
          "Node Type": "Seq Scan",
          "Plan Rows": 12.5,
          "Output": ["a", "b\"c"],
          "Filter": "(w <> '<\"&'::text)"
        }
      ]
    },
    "Settings": {
      "work_mem": "8MB"
    },
    "Triggers": [],
    "Slice statistics": [
      {
        "Slice": 0,
        "Operation": "Update"
      },
      {
        "Slice": 1,
        "Workers": 0,
        "Rows Out": 1152921504606846976,
        "Maximum Rows Out": 0,
        "Bytes Sent": 0,
        "Packets Sent": 0
      }
    ],
    "Optimizer": "x\ny",
    "Execution Time": 1.5
  }
]`,
		"yaml": `- Plan: 
    Node Type: "ModifyTable"
    Slice: 0
    Operation: "Update"
    Parallel Aware: false
    Total Cost: 7
    Plans: 
      - Node Type: "Seq Scan"
        Plan Rows: 12.5
        Output: 
          - "a"
          - "b\"c"
        Filter: "(w <> '<\"&'::text)"
  Settings: 
    work_mem: "8MB"
  Triggers: []
  Slice statistics: 
    - Slice: 0
      Operation: "Update"
    - Slice: 1
      Workers: 0
      Rows Out: 1152921504606846976
      Maximum Rows Out: 0
      Bytes Sent: 0
      Packets Sent: 0
  Optimizer: "x\ny"
  Execution Time: 1.5`,
		"xml": `<explain xmlns="http://www.postgresql.org/2009/explain">
  <Query>
    <Plan>
      <Node-Type>ModifyTable</Node-Type>
      <Slice>0</Slice>
      <Operation>Update</Operation>
      <Parallel-Aware>false</Parallel-Aware>
      <Total-Cost>7</Total-Cost>
      <Plans>
        <Plan>
          <Node-Type>Seq Scan</Node-Type>
          <Plan-Rows>12.5</Plan-Rows>
          <Output>
            <Item>a</Item>
            <Item>b&#34;c</Item>
          </Output>
          <Filter>(w &lt;&gt; &#39;&lt;&#34;&amp;&#39;::text)</Filter>
        </Plan>
      </Plans>
    </Plan>
    <Settings>
      <work_mem>8MB</work_mem>
    </Settings>
    <Triggers>
    </Triggers>
    <Slice-statistics>
      <Slice>
        <Slice>0</Slice>
        <Operation>Update</Operation>
      </Slice>
      <Slice>
        <Slice>1</Slice>
        <Workers>0</Workers>
        <Rows-Out>1152921504606846976</Rows-Out>
        <Maximum-Rows-Out>0</Maximum-Rows-Out>
        <Bytes-Sent>0</Bytes-Sent>
        <Packets-Sent>0</Packets-Sent>
      </Slice>
    </Slice-statistics>
    <Optimizer>x&#xA;y</Optimizer>
    <Execution-Time>1.5</Execution-Time>
  </Query>
</explain>`,
	} {
		got, err := printPlan(format, tree(), rest)
		if err != nil || got != want {
			t.Errorf("%s: %v\n%s\nexpected\n%s", format, err, got, want)
		}
	}
}

// TestChangeLines puts the query that yields a change's rows where the segments'
// plan has them.
func TestChangeLines(t *testing.T) {
	source := []string{"Gather Motion 3:1  (slice1; segments: 3)", "  ->  Seq Scan on s"}
	const below = "Gather Motion 3:1  (slice1; segments: 3)"
	for name, tc := range map[string]struct {
		op    string
		plan  string
		want  string
		alone bool
	}{
		"no plan": {op: "Insert", want: "Insert on t  (slice0; segments: 2)\n  Distributed: randomly\n  ->  " + below + "\n        ->  Seq Scan on s"},
		"several rows": {op: "Insert", plan: "Insert on t  (cost=1.00..2.00 rows=0 width=0)\n  ->  Values Scan on \"*VALUES*\"  (cost=0.00)\n        Output: a",
			want: "Insert on t  (slice0; segments: 2)  (cost=1.00..2.00 rows=0 width=0)\n  Distributed: randomly\n  ->  Values Scan on \"*VALUES*\"  (cost=0.00)\n        Output: a\n        ->  " + below + "\n              ->  Seq Scan on s"},
		"one row": {op: "Insert", plan: "Insert on t\n  ->  Result", want: "Insert on t  (slice0; segments: 2)\n  Distributed: randomly\n  ->  Result\n        ->  " + below + "\n              ->  Seq Scan on s"},
		"in a join": {op: "Update", plan: "Update on t (actual rows=0 loops=1)\n  ->  Hash Join\n        ->  Hash\n              ->  Values Scan on \"*VALUES*\"\n        ->  Seq Scan on t",
			want: "Update on t  (slice0; segments: 2) (actual rows=0 loops=1)\n  ->  Hash Join\n        ->  Hash\n              ->  Values Scan on \"*VALUES*\"\n                    ->  " + below +
				"\n                          ->  Seq Scan on s\n        ->  Seq Scan on t"},
		"a row by its place": {op: "Delete", plan: "Delete on t\n  ->  Tid Scan on t\n        TID Cond: (ctid = '(0,1)'::tid)",
			want: "Delete on t  (slice0; segments: 2)\n  ->  Tid Scan on t\n        TID Cond: (ctid = '(0,1)'::tid)\n  ->  " + below + "\n        ->  Seq Scan on s"},
		"the segments alone": {op: "Delete", plan: "Delete on t\n  ->  Seq Scan on t", alone: true, want: "Delete on t  (slice0; segments: 2)\n  ->  Seq Scan on t"},
	} {
		c := &change{op: tc.op, segments: 2, r: &relation{Relation: plan.Relation{Name: "t", Policy: &plan.Policy{Kind: plan.Random}}}}
		if tc.plan != "" {
			c.direct.lines = strings.Split(tc.plan, "\n")
		}
		v := changeView{t: &planTree{}, c: c}
		below := source
		if tc.alone {
			below = nil
		}
		if got := strings.Join(v.lines(below), "\n"); got != tc.want {
			t.Errorf("%s:\n%s\nexpected\n%s", name, got, tc.want)
		}
	}
}
