package clustertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/tpch"
)

// queryDirs are the directories of runs of bench queries.
const queryDirs = "/tmp/tlqb*"

// queriesCommand is a small run of bench queries. Of a flag that is given twice
// the last counts.
func queriesCommand(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := testkit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return command(ctx, bin, append([]string{"bench", "queries", "--segments", "2", "--scale", "0.01", "--rounds", "1", "--types", "proxy", "--progress"}, args...)...)
}

// TestBenchQueries makes runs, one at a time: each looks for the one directory that
// is new.
func TestBenchQueries(t *testing.T) {
	t.Parallel()
	t.Run("Run", benchQueries)
	t.Run("Interrupted", benchQueriesInterrupted)
	t.Run("Unread", benchQueriesUnread)
}

// benchQueries makes a small run: all answers are those of the plain server, and
// nothing is left.
func benchQueries(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	page := filepath.Join(t.TempDir(), "report.md")
	cmd := queriesCommand(ctx, t, "--json", "--indexes", "--report", page)
	before, _ := filepath.Glob(queryDirs)
	var out bytes.Buffer
	cmd.Stdout = &out
	dir := ""
	said, err := follow(t, cmd, func(string) {
		if dir == "" {
			dir = newDirectory(queryDirs, before)
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var r struct {
		Queries []struct {
			Number int
			Runs   []struct {
				Side              string
				Median            float64 `json:"median_ms"`
				Compared, Differ  int
				Difference, Error string
				Unfinished        bool
			}
			Plan struct {
				Slices  int
				Motions map[string]struct{ Bytes, Packets, Rows int64 }
				Error   string
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if len(r.Queries) != tpch.NumQueries {
		t.Errorf("%d queries", len(r.Queries))
	}
	for _, q := range r.Queries {
		if len(q.Runs) != 2 || q.Runs[0].Side != "plain" || q.Runs[1].Side != "proxy" {
			t.Fatalf("%+v", q)
		}
		for i, run := range q.Runs {
			if run.Median <= 0 || run.Error != "" || run.Unfinished || run.Compared != i || run.Differ != 0 {
				t.Errorf("query %d: %+v", q.Number, run)
			}
		}
		if f := q.Plan.Motions["Gather Motion"]; q.Plan.Error != "" || q.Plan.Slices == 0 || f.Bytes == 0 || f.Rows == 0 || f.Packets == 0 {
			t.Errorf("query %d: %+v", q.Number, q.Plan)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("(report-times.svg)")) {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := os.Stat(strings.TrimSuffix(page, ".md") + "-times.svg"); err != nil {
		t.Error(err)
	}
	wantAll(t, "the progress", said, "the plain server: create index on lineitem (l_partkey)", "the cluster: create index on supplier (s_nationkey)")
	leavesNothing(t, dir)
}

// benchQueriesInterrupted ends a run by Ctrl-C while it loads the cluster,
// which takes a moment.
func benchQueriesInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	before, _ := filepath.Glob(queryDirs)
	dir := ""
	said, _ := interrupt(t, queriesCommand(ctx, t, "--scale", "0.05"), "the cluster: loading", func() {
		dir = newDirectory(queryDirs, before)
		if len(withArgument(dir)) < 5 {
			t.Error("there are no processes to be ended")
		}
	})
	wantAll(t, "what it says", said, "error: interrupted; the servers are removed")
	leavesNothing(t, dir)
}

// benchQueriesUnread stops reading what a run says while it measures, which
// would take minutes.
func benchQueriesUnread(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := queriesCommand(ctx, t, "--rounds", "100")
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob(queryDirs)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for s := bufio.NewScanner(errs); dir == "" && s.Scan(); {
		if strings.Contains(s.Text(), "query 1, proxy") {
			dir = newDirectory(queryDirs, before)
		}
	}
	errs.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("it came to its end")
	}
	if ctx.Err() != nil {
		t.Error("it went on until it was told to end")
	}
	leavesNothing(t, dir)
}

// leavesNothing looks for what a run has left of its directory.
func leavesNothing(t *testing.T, dir string) {
	t.Helper()
	if dir == "" {
		t.Fatal("no directory of the run was found")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if list := withArgument(dir); len(list) > 0 {
		t.Errorf("processes are still there: %v", list)
	}
}
