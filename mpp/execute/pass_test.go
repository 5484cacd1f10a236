package execute

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// TestPasses runs slices that read as somebody else: a slice has a pass while
// it runs, and there is none before and after.
func TestPasses(t *testing.T) {
	fabric := serveQE(t)
	conn := connect(t, nil)
	self := motion.Peer{Content: -1, Pid: 1}
	passes := func() (all []pass) {
		t.Helper()
		names, _ := os.ReadDir(server.Dir.ReadsDir())
		for _, n := range names {
			content, err := os.ReadFile(filepath.Join(server.Dir.ReadsDir(), n.Name()))
			if err != nil {
				t.Fatal(err)
			}
			var p pass
			if json.Unmarshal(content, &p) == nil { // else it is being written
				all = append(all, p)
			}
		}
		return all
	}
	left := func(when string) {
		t.Helper()
		if n := len(passes()); n > 0 {
			t.Errorf("%d passes %s", n, when)
		}
	}
	// The slices wait for a lock that the test holds.
	const content = "SELECT length($2) FROM pg_advisory_lock_shared($1) l, LATERAL (SELECT l, pg_advisory_unlock_shared($1)) u"
	holder, err := server.Connect(bounded(t), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	read := func(table string) *Read {
		return &Read{Owner: "ann", Schema: "s", Table: table, Columns: []string{"a"}, SQL: "SELECT a FROM s.t"}
	}
	seven := []Param{{OID: 20, Value: []byte("7")}}
	var qe motion.Peer
	if _, err := fmt.Sscan(conn.ParameterStatus("gp_qe_pid"), &qe.Pid); err != nil {
		t.Fatal(err)
	}
	got := func(command uint32, slice int16, run func() error) {
		t.Helper()
		if _, err := holder.Exec(bounded(t), "SELECT pg_advisory_lock(7)").ReadAll(); err != nil {
			t.Fatal(err)
		}
		rcv, err := fabric.New().Receive(bounded(t), motion.ID{Command: command, SendSlice: slice}, self, []motion.Peer{qe})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- run() }()
		var all []pass
		for end := time.Now().Add(10 * time.Second); len(all) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			all = passes()
		}
		if want := []string{"", "t", "", "u"}[slice]; len(all) != 1 || all[0].Pid != conn.PID() || all[0].Read == nil || all[0].Table != want || all[0].Owner != "ann" {
			t.Errorf("passes %+v for %d", all, conn.PID())
		}
		if _, err := holder.Exec(bounded(t), "SELECT pg_advisory_unlock(7)").ReadAll(); err != nil {
			t.Fatal(err)
		}
		rows := 0
		for {
			row, _, err := rcv.Receive(bounded(t))
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			left("when there is a row")
			if rows++; !strings.HasSuffix(string(row), "26") {
				t.Errorf("the pass' name is told as %q", row)
			}
		}
		if err := rcv.Close(bounded(t)); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil || rows != 1 {
			t.Fatalf("%d rows, %v", rows, err)
		}
		left("after the slice")
	}
	two := []Slice{{Index: 1, SQL: content, Params: seven, Read: read("t")}, {Index: 2, SQL: "SELECT 2"}, {Index: 3, SQL: content, Params: seven, Read: read("u")}}
	if _, err := command(t, conn, Command{Op: OpOpen, Command: 5, Slices: two}); err != nil {
		t.Fatal(err)
	}
	left("before a slice runs")
	for _, slice := range []int16{3, 1} {
		got(5, slice, func() error {
			_, err := command(t, conn, Command{Op: OpRun, Command: 5, Run: &Run{Slice: slice, Receivers: []motion.Peer{self}}})
			return err
		})
	}
	if _, err := command(t, conn, Command{Op: OpClose}); err != nil {
		t.Error(err)
	}
	got(6, 1, func() error {
		_, err := command(t, conn, Command{Op: OpOpen, Command: 6, Slices: two[:1], Run: &Run{Slice: 1, Receivers: []motion.Peer{self}}})
		return err
	})
	bad := []Slice{{Index: 1, SQL: "SELECT nix", Read: read("t")}}
	if _, err := command(t, conn, Command{Op: OpOpen, Slices: bad, Run: &Run{Slice: 1, Receivers: []motion.Peer{self}}}); sqlState(err) != "42703" {
		t.Error(err)
	}
	left("after a failure")
}
