package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

func someStatus() []cluster.InstanceStatus {
	row := func(dbid uint16, content int16, role byte, address string) topology.Instance {
		return topology.Instance{Dbid: dbid, Content: content, Role: role, Port: 6000 + int(dbid), Address: address, Datadir: "/c/x"}
	}
	ready := instance.ChildStatus{Pid: 12, State: instance.Ready, Restarts: 1}
	return []cluster.InstanceStatus{
		{
			Instance: row(1, -1, 'p', "127.0.0.1"), Running: true, Wanted: true, Pid: 11, ProxyAddress: "127.0.0.1:5001",
			Live: instance.Status{State: instance.Ready, Postgres: ready, Proxy: ready, Sessions: 2, SyncStandby: "*"},
		},
		{
			Instance: row(2, 0, 'p', "::1"), Running: true, Wanted: true, Pid: 21,
			Live: instance.Status{State: instance.Ready, Postgres: instance.ChildStatus{State: instance.Down}},
		},
		{Instance: row(3, 1, 'p', "::1"), Wanted: true},
		{Instance: row(4, -1, 'm', "::1")},
	}
}

func TestWriteStatus(t *testing.T) {
	var b bytes.Buffer
	if err := writeStatus(&b, someStatus()); err != nil {
		t.Fatal(err)
	}
	want := `
INSTANCE     DBID  CONTENT  ADDRESS         STATE     PID  POSTGRES    PROXY       PROXY ADDRESS
coordinator  1     -1       127.0.0.1:6001  ready     11   ready (12)  ready (12)  127.0.0.1:5001
primary      2     0        [::1]:6002      starting  21   -           -           -
primary      3     1        [::1]:6003      dead      -    -           -           -
standby      4     -1       [::1]:6004      down      -    -           -           -
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), b.String()); diff != "" {
		t.Error(diff)
	}
}

// Scripts read the JSON: the names in it stay.
func TestWriteStatusJSON(t *testing.T) {
	dir := t.TempDir()
	list := []topology.Instance{{
		Dbid: 1, Content: -1, Role: 'p', PreferredRole: 'p', Mode: 'n', Status: 'u',
		Port: 6001, Hostname: "mdw", Address: "::1", Datadir: "/c/x",
	}}
	if err := topology.WriteFile(filepath.Join(dir, instance.ConfigurationFile), list); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeStatusJSON(&b, c, someStatus()[:1]); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"dir": c.Dir(),
		"instances": []any{map[string]any{
			"kind": "coordinator", "dbid": 1.0, "content": -1.0, "address": "127.0.0.1", "port": 6001.0, "datadir": "/c/x",
			"state": "ready", "pid": 11.0, "sessions": 2.0, "in_sync": true,
			"postgres": map[string]any{"pid": 12.0, "state": "ready", "restarts": 1.0},
			"proxy":    map[string]any{"pid": 12.0, "state": "ready", "restarts": 1.0, "address": "127.0.0.1:5001"},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestClusterArguments(t *testing.T) {
	t.Setenv("COORDINATOR_DATA_DIRECTORY", "")
	t.Setenv("MASTER_DATA_DIRECTORY", "")
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	list := []topology.Instance{{
		Dbid: 1, Content: -1, Role: 'p', PreferredRole: 'p', Mode: 'n', Status: 'u',
		Port: 6001, Hostname: "mdw", Address: "127.0.0.1", Datadir: filepath.Join(sub, "gpseg-1"),
	}}
	if err := topology.WriteFile(filepath.Join(dir, instance.ConfigurationFile), list); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"create", 2, "accepts 1 arg"},
		{"create " + empty + "/c --segments 0", 2, "at least one"},
		{"create " + empty + "/c --port 0", 2, "1 to 65535"},
		{"create " + empty + "/c --port x", 2, "invalid argument"},
		{"stop " + dir + " --mode gently", 2, "fast, smart or immediate"},
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"start " + empty, 1, "not the directory of a cluster"},
		{"destroy " + empty, 1, "not the directory of a cluster"},
		{"destroy " + sub, 1, "only part of the cluster in " + dir},
		{"status " + sub, 1, ""},
		{"load", 0, ""},
		{"load tpcds", 2, `unknown command "tpcds"`},
		{"load tpch a b", 2, "accepts at most 1 arg"},
		{"load tpch " + dir + " --scale 0", 2, "--scale 0: it goes from 0.001 to 10000"},
		{"load tpch " + dir + " --scale big", 2, "invalid argument"},
		{"load tpch " + dir + " --jobs 0", 2, "--jobs 0: it goes from 1 to 64"},
		{"load tpch " + dir + " --database=", 2, "--database is empty"},
		{"load tpch", 2, "name the cluster's directory, or source its env.sh first"},
		{"load tpch " + empty, 1, "not the directory of a cluster"},
		{"load tpch " + sub, 1, "does not run; start it with `trunkline cluster start " + dir + "`"},
		{"stop " + sub, 0, ""},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"trunkline", "cluster"}, strings.Fields(tc.args)...), &out, &errs)
		if code != tc.code || !strings.Contains(errs.String(), tc.want) {
			t.Errorf("cluster %s: exit status %d, %q, want %d and %q", tc.args, code, errs.String(), tc.code, tc.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, instance.ConfigurationFile)); err != nil {
		t.Error(err)
	}
}
