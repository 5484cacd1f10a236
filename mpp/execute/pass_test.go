package execute

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPasses opens slices that read as somebody else: there is a pass for each
// while they are open, and none before and after.
func TestPasses(t *testing.T) {
	serveQE(t)
	dir := server.Dir.ReadsDir()
	passes := func() (all []pass) {
		t.Helper()
		names, _ := os.ReadDir(dir)
		for _, n := range names {
			if fi, err := n.Info(); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", n.Name(), fi.Mode(), err)
			}
			content, err := os.ReadFile(filepath.Join(dir, n.Name()))
			if err != nil {
				t.Fatal(err)
			}
			var p pass
			if err := json.Unmarshal(content, &p); err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	conn := connect(t, nil)
	read := Read{Owner: "ann", Schema: "s", Table: "t", Columns: []string{"a"}, SQL: "SELECT a FROM s.t"}
	open := Command{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: "SELECT $1", Read: &read}, {Index: 2, SQL: "SELECT 2"},
		{Index: 3, SQL: "SELECT $1::int, $2", Params: []Param{{OID: 23, Value: []byte("7")}}, Read: &read}}}
	if n := len(passes()); n != 0 {
		t.Fatalf("%d passes before", n)
	}
	if _, err := command(t, conn, open); err != nil {
		t.Fatal(err)
	}
	all := passes()
	if len(all) != 2 {
		t.Fatalf("%d passes, expected 2", len(all))
	}
	for _, p := range all {
		if p.Pid != conn.PID() || p.Owner != "ann" || p.Table != "t" || p.SQL != read.SQL {
			t.Errorf("a pass for %d: %+v; expected one for %d", p.Pid, p.Read, conn.PID())
		}
	}
	if _, err := command(t, conn, Command{Op: OpClose}); err != nil {
		t.Error(err)
	}
	if n := len(passes()); n != 0 {
		t.Errorf("%d passes when the slices are closed", n)
	}
	bad := open
	bad.Slices = append([]Slice{{Index: 9, SQL: "SELECT nix"}}, open.Slices...)
	if _, err := command(t, conn, bad); sqlState(err) != "42703" {
		t.Error(err)
	}
	if n := len(passes()); n != 0 {
		t.Errorf("%d passes after a failure", n)
	}
	if _, err := command(t, conn, open); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(context.Background())
	for end := time.Now().Add(10 * time.Second); len(passes()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the passes outlive the session")
		}
	}
}
