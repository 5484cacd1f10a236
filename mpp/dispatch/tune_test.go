package dispatch

import (
	"context"
	"testing"

	"github.com/trunkline-db/trunkline/guc"
)

// TestTune: parameters of motions go to the executors, the others to their
// PostgreSQL, each when it differs from what the connection has.
func TestTune(t *testing.T) {
	c := newICCluster(t, "udpifc")
	settings := map[string]string{guc.QueueDepth: "9", "work_mem": "1234kB"}
	g := c.NewGang(GangConfig{
		SessionID: 5, User: "gpadmin", Database: "postgres", InterconnectType: "udpifc",
		Startup:  map[string]string{guc.QueueDepth: "8", guc.MinRTO: "30"},
		Settings: func(context.Context) (map[string]string, error) { return settings, nil },
	})
	t.Cleanup(g.Close)
	work := func(want string) {
		t.Helper()
		for _, r := range exec(t, g, nil, "SHOW work_mem") {
			if got := string(r.Rows[0][0]); got != want {
				t.Errorf("work_mem on segment %d is %s, expected %s", r.Seg, got, want)
			}
		}
	}
	told := func(depth, rto string) {
		t.Helper()
		for _, m := range g.members {
			if m.tuned[guc.QueueDepth] != depth || m.tuned[guc.MinRTO] != rto || m.tuned["work_mem"] != "" {
				t.Errorf("segment %d was told %v", m.seg.Content, m.tuned)
			}
		}
	}
	work("1234kB")
	told("9", "30")
	if err := g.SetAll(testContext(t), map[string]string{guc.QueueDepth: "10", "work_mem": "2345kB"}); err != nil {
		t.Fatal(err)
	}
	work("2345kB")
	told("10", "30")
	if err := g.SetAll(testContext(t), map[string]string{guc.QueueDepth: "0", "work_mem": "3456kB"}); code(err) != "22023" {
		t.Errorf("a queue of 0: %v", err)
	}
	work("2345kB")
	told("10", "30")
	// Whoever connects anew begins at the beginning.
	settings = map[string]string{guc.QueueDepth: "8", "work_mem": "1234kB"}
	for _, m := range g.members {
		m.drop()
	}
	work("1234kB")
	told("8", "30")
	if n, _, err := c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1"}, -1); n != nsegs || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
}
