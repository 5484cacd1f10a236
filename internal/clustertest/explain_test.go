package clustertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// explainTables makes two tables whose join by a.b has to move one of them.
const explainTables = `create table a (id int, b int, w text) distributed by (id);
	create table b (id int, v text) distributed by (id);
	insert into a select i, i % 100, 'w' || i from generate_series(1, 1000) i;
	insert into b select i, 'v' || i from generate_series(0, 99) i;
	analyze a; analyze b`

// has checks that text matches all patterns.
func has(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(text) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}

// TestExplainAnalyze runs statements whose slices read each other's rows, and
// shows what each has done.
func TestExplainAnalyze(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	testkit.Exec(t, c.Connect(t, db), explainTables)
	const (
		ran     = ` \(actual time=\d+\.\d+\.\.\d+\.\d+ rows=%d loops=1\)`
		sent    = `\n  \(slice%d\)    Rows out: %s\.  Sent: \d+ bytes in (?:1 packet|\d+ packets)\.\n`
		joined  = "select a.w, b.v from a join b on a.b = b.id where a.id <= 900"
		grouped = "select y.w, count(*) from a x join a y on x.b = y.id group by 1 order by 2 desc, 1 limit 5"
	)
	for _, typ := range []string{"udpifc", "tcp", "proxy"} {
		t.Run(typ, func(t *testing.T) {
			conn := c.Connect(t, db, "gp_interconnect_type="+typ)
			explain := func(sql string) string {
				return strings.Join(testkit.Query(t, conn, "explain "+sql), "\n") + "\n"
			}
			has(t, explain("analyze "+joined),
				`^Gather Motion 3:1  \(slice1; segments: 3\)  \(cost=\S+ rows=\d+ width=\d+\)`+fmt.Sprintf(ran, 900),
				`Broadcast Motion 3:3  \(slice2; segments: 3\)  \(cost=.*\) \(actual time=`,
				`Seq Scan on a  \(cost=.*\) \(actual time=.* rows=\d+ loops=1\)`, `Seq Scan on b  \(cost=.*\) \(actual time=`,
				fmt.Sprintf(sent, 1, `300 avg x 3 workers, \d+ max \(seg[012]\)`), fmt.Sprintf(sent, 2, `33\.3 avg x 3 workers, \d+ max \(seg[012]\)`),
				`\nInterconnect: `+typ+`\n`, `\nExecution Time: \d+\.\d+ ms\n$`)
			has(t, explain("(analyze, timing off, costs off, buffers) "+grouped),
				`Gather Motion 3:1  \(slice1; segments: 3\) \(actual rows=99 loops=1\)`, `Redistribute Motion 3:3  \(slice2; segments: 3\) \(actual rows=\d+ loops=1\)`,
				`Buffers: shared hit=`, fmt.Sprintf(sent, 1, `33 avg x 3 workers, \d+ max \(seg[012]\)`), fmt.Sprintf(sent, 2, `333\.3 avg x 3 workers, \d+ max \(seg[012]\)`),
				`\nPlanning Time: `)
			has(t, explain("analyze select * from b where id = 7"), `^Gather Motion 1:1  \(slice1; segments: 1\)`, fmt.Sprintf(sent, 1, `1 \(seg[012]\)`))

			type node struct {
				Type  string `json:"Node Type"`
				Slice int
				Rows  float64 `json:"Actual Rows"`
				Keys  string  `json:"Hash Key"`
				Plans []node
			}
			var all []struct {
				Plan       node
				Statistics []struct {
					Slice, Workers int
					Rows           int64 `json:"Rows Out"`
					Bytes          int64 `json:"Bytes Sent"`
					Packets        int64 `json:"Packets Sent"`
				} `json:"Slice statistics"`
				Interconnect string
				Time         float64 `json:"Execution Time"`
			}
			text := explain("(analyze, format json) " + joined)
			if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
				t.Fatalf("%v\n%s", err, text)
			}
			motions := map[int]string{}
			var look func(n node)
			look = func(n node) {
				if n.Slice > 0 {
					motions[n.Slice] = fmt.Sprintf("%s %s", n.Type, n.Keys)
				}
				for _, c := range n.Plans {
					look(c)
				}
			}
			look(all[0].Plan)
			if got := fmt.Sprint(motions); got != "map[1:Gather Motion  2:Broadcast Motion ]" || all[0].Plan.Rows != 900 || all[0].Interconnect != typ || all[0].Time <= 0 {
				t.Errorf("%s\n%s", got, text)
			}
			for i, s := range all[0].Statistics {
				if s.Slice != i+1 || s.Workers != 3 || s.Rows != []int64{900, 100}[i] || s.Bytes < 3*s.Rows || s.Packets < 3 {
					t.Errorf("%+v\n%s", s, text)
				}
			}
			clear(motions)
			text = explain("(format json, costs off) " + grouped)
			if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
				t.Fatalf("%v\n%s", err, text)
			}
			look(all[0].Plan)
			if got := fmt.Sprint(motions); got != "map[1:Gather Motion  2:Redistribute Motion x.b]" || strings.Contains(text, "Cost") {
				t.Errorf("%s\n%s", got, text)
			}
		})
	}
}

// TestExplainLeavesNothing: what segments are told to say they do not say of the
// next statement, whatever has become of this one.
func TestExplainLeavesNothing(t *testing.T) {
	c := beside(t)
	db := c.Database(t)
	testkit.Exec(t, c.Connect(t, db), explainTables+"; create role watcher login; grant select on a, b to watcher")
	cfg := c.Connect(t, db).Config().Copy()
	cfg.User = "watcher"
	var notices []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	quiet := func(after string) {
		t.Helper()
		notices = nil
		testkit.Query(t, conn, "select count(*) from a join b on a.b = b.id")
		if len(notices) > 0 {
			t.Errorf("after %s: %q", after, notices)
		}
	}
	testkit.Exec(t, conn, "set client_min_messages = warning")
	if plan := strings.Join(testkit.Query(t, conn, "explain analyze select count(*) from a join b on a.b = b.id"), "\n"); !strings.Contains(plan, "Rows out: ") || !strings.Contains(plan, "Seq Scan on a  (cost") {
		t.Errorf("the user has\n%s", plan)
	}
	if got := testkit.Value(t, conn, "show client_min_messages"); got != "warning" {
		t.Errorf("client_min_messages is %s", got)
	}
	testkit.Exec(t, conn, "set client_min_messages = notice")
	quiet("a plan")
	if _, err := conn.Exec(t.Context(), "explain analyze select 1 / (id - id) from a"); err == nil || !strings.Contains(err.Error(), "22012") {
		t.Errorf("division by zero: %v", err)
	}
	quiet("an error")
	for _, end := range []string{"commit", "rollback"} {
		testkit.Exec(t, conn, "begin")
		testkit.Query(t, conn, "explain analyze select * from a where id < 10")
		quiet("a plan in a transaction")
		testkit.Exec(t, conn, end)
		quiet(end)
	}
	testkit.Exec(t, conn, "begin")
	if _, err := conn.Exec(t.Context(), "explain analyze select 1 / (id - id) from a"); err == nil {
		t.Error("no error")
	}
	testkit.Exec(t, conn, "rollback")
	quiet("an error in a transaction")
}
