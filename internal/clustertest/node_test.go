package clustertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// node lets node-postgres run testdata/node/client.js on a database. It skips
// the test where there is no Node.js or no node-postgres.
func node(t *testing.T, c *testkit.Cluster, env ...string) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("Node.js is not installed; scripts/setup-node installs it from Debian")
	}
	dir, err := filepath.Abs("testdata/node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "pg")); err != nil {
		t.Skip("node-postgres is not installed; scripts/setup-node installs it with npm")
	}
	out, err := c.Shell("node "+filepath.Join(dir, "client.js"), env...)
	if err != nil {
		t.Errorf("node: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestNodePostgres talks to the cluster with the driver of Node.js.
func TestNodePostgres(t *testing.T) {
	c := beside(t)
	modes(t, func(t *testing.T, mode string) {
		node(t, c, "PGDATABASE="+c.Database(t), "PGOPTIONS=-c "+mode)
	})
}
