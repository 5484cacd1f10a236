package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/sim"
)

// TestSim compares the report with the files in testdata; UPDATE_GOLDEN=1 writes
// them.
func TestSim(t *testing.T) {
	for name, args := range map[string]string{
		"sim_default":   "sim",
		"sim_trunkline": "sim --engine trunkline --segments 3 --sessions 20 --query gather",
		"sim_large":     "sim --segments 1024 --hosts 64 --sessions 200 --mirrors --standby",
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"trunkline"}, strings.Fields(args)...), &out, &errs); code != 0 {
			t.Errorf("%s: exit %d: %s", args, code, &errs)
			continue
		}
		path := filepath.Join("testdata", name+".txt")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", args, &out, want)
		}
	}
}

func TestSimArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"sim extra", 2, "unknown command"},
		{"sim --engine oracle", 2, `invalid --engine "oracle": use greenplum or trunkline`},
		{"sim --query sort", 2, `invalid --query "sort": use gather, redistribute, broadcast or five-slices`},
		{"sim --query gather --slices 3", 2, "--query and --slices exclude each other"},
		{"sim --slices 0", 2, "invalid --slices 0: use 1 to 1000"},
		{"sim --segments 0", 2, "invalid --segments 0: use 1 to 32767"},
		{"sim --hosts 17", 2, "invalid --hosts 17: use 1 to 16, the number of segments"},
		{"sim --sessions 0", 2, "invalid --sessions 0: use 1 to 1000000"},
		{"sim --coordinator both", 2, `invalid --coordinator "both": use own or shared`},
		{"sim --port-range 9-1", 2, `invalid --port-range "9-1"`},
		{"sim --proxy-memory 1MB", 2, "invalid --proxy-memory"},
		{"sim --help", 0, "Nothing is started or measured"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"trunkline"}, strings.Fields(c.args)...), &out, &errs)
		if said := out.String() + errs.String(); code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s", c.args, code, c.code, c.want, said)
		}
	}
}

// The JSON form is what Compute returns.
func TestSimJSON(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), strings.Fields("trunkline sim --segments 4 --sessions 2 --slices 3 --json"), &out, &errs); code != 0 {
		t.Fatal(&errs)
	}
	var r sim.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	// A gather and two motions N:N in two sessions.
	if got, want := r.Type(sim.TCP).All.TCPConnections, int64(2*(4+2*16)); got != want {
		t.Errorf("%d TCP connections, want %d", got, want)
	}
}
