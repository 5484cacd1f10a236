package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

// benchCommand is a small run of bench interconnect.
func benchCommand(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := testkit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"bench", "interconnect", "--segments", "2", "--sessions", "2", "--rounds", "1", "--slot", "20ms", "--rows", "1000",
		"--gather-rows", "1000", "--rtt", "5", "--loss", "0", "--size", "1", "--wan-rounds", "1", "--wan-segments", "2", "--limit", "20s"}, args...)
	return command(ctx, bin, args...)
}

// TestBenchInterconnect makes runs, one at a time: some look for the one directory
// that is new.
func TestBenchInterconnect(t *testing.T) {
	t.Parallel()
	t.Run("Run", benchInterconnect)
	t.Run("Interrupted", benchInterrupted)
}

// benchInterconnect makes a small run: every query is answered in each type, and
// what is held is what package sim says.
func benchInterconnect(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	page := filepath.Join(t.TempDir(), "report.html")
	cmd := benchCommand(ctx, t, "--json", "--html", page)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	type sockets struct {
		TCP    int `json:"tcp_connections"`
		Within int `json:"tcp_connections_same_instance"`
		UDP    int `json:"udp_sockets"`
		Listen int `json:"listening_tcp_ports"`
	}
	var r struct {
		Cells []struct {
			WAN                bool
			Query, Type, Error string
			Median             map[string]float64
		}
		Peaks []struct {
			Query, Type, Error string
			sockets
			Sim *sockets
		}
		Notes []string
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	far := 0
	for _, c := range r.Cells {
		if c.Error != "" || c.Median["elapsed_p50_ms"] <= 0 || c.Median["net_kb_per_run"] < 0 {
			t.Errorf("%+v", c)
		}
		if c.WAN {
			far++
			// The rows have to come; that they are wanted is said beside the network.
			if c.Median["elapsed_p50_ms"] < 5.0/2 {
				t.Errorf("over a round trip of 5 ms: %+v", c)
			}
		}
	}
	want, wantFar := 3*5, 3*5+1 // the types, the queries; plain TCP
	if wan.Available() != nil {
		wantFar = 0
	}
	if len(r.Cells)-far != want || far != wantFar {
		t.Errorf("%d cells on loopback, %d over the WAN; want %d and %d", len(r.Cells)-far, far, want, wantFar)
	}
	if len(r.Peaks) != 9 {
		t.Errorf("%d counts of sockets, want 9", len(r.Peaks))
	}
	for _, p := range r.Peaks {
		if p.Error != "" || p.Sim == nil || p.sockets != *p.Sim {
			t.Errorf("%s, %s: held %+v, computed %+v, error %q", p.Query, p.Type, p.sockets, p.Sim, p.Error)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("<svg")) {
		t.Errorf("the page has no plot: %v", err)
	}
	if t.Failed() {
		t.Logf("notes: %s", strings.Join(r.Notes, "\n"))
	}
}

// benchInterrupted ends a run while it makes a cluster and looks for what it
// leaves.
func benchInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	before, _ := filepath.Glob(benchDirs)
	dir := ""
	said, _ := interrupt(t, benchCommand(ctx, t, "--no-wan", "--progress"), ": made", func() { dir = newDirectory(benchDirs, before) })
	wantAll(t, "what it says", said, "error: interrupted; the clusters are removed")
	leavesNothing(t, dir)
}

// benchDirs are the directories of the bench's clusters, one a run.
const benchDirs = "/tmp/tlic*"

// newDirectory is one of a pattern that was not there before, "" when there is
// none.
func newDirectory(pattern string, before []string) string {
	now, _ := filepath.Glob(pattern)
	for _, dir := range now {
		if !slices.Contains(before, dir) {
			return dir
		}
	}
	return ""
}

// withArgument are the processes with a text in their arguments: pid, parent
// and arguments of each.
func withArgument(text string) (list []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(text)) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		f := strings.Fields(string(rest))
		if len(f) < 2 {
			continue
		}
		pid := filepath.Base(filepath.Dir(path))
		list = append(list, pid+" "+f[1]+" "+strings.Join(strings.Split(string(b), "\x00"), " "))
	}
	return list
}
