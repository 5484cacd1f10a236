package clustertest

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/trunkline-db/trunkline/internal/testkit"
)

// The parameters of sessions that choose their interconnect.
const (
	udpifc = "gp_interconnect_type=udpifc" // the default
	tcp    = "gp_interconnect_type=tcp"
	proxy  = "gp_interconnect_type=proxy"
)

var (
	theCluster  *testkit.Cluster
	clusterErr  error
	makeCluster sync.Once
)

// shared returns the cluster of 3 segments and a standby that all tests use,
// those that call beside together and all others one after the other. Its proxies are connected, its servers do not wait for the
// disk; its default interconnect is udpifc, as that of every new cluster. A test
// that changes or breaks it puts it right.
func shared(t *testing.T) *testkit.Cluster {
	t.Helper()
	makeCluster.Do(func() {
		theCluster, clusterErr = testkit.Create(testkit.Options{Segments: 3, Standby: true})
		if clusterErr == nil {
			// What a killed process has written stays without it; only a machine
			// without power would lose that.
			// Estimates of random queries are such that segments would compile many.
			theCluster.MustShell(t, "gpconfig -c fsync -v off && gpconfig -c jit -v off")
			theCluster.ConnectProxies(t) // reloads
		}
	})
	if clusterErr != nil {
		t.Fatalf("no cluster: %v", clusterErr)
	}
	t.Cleanup(func() { theCluster.DumpLogs(t) })
	return theCluster
}

// beside is shared for a test that changes nothing of the cluster but what is in
// databases and roles of its own, and that counts nothing others could have: it
// runs beside others of its kind, after all that need the cluster for themselves.
func beside(t *testing.T) *testkit.Cluster {
	t.Helper()
	t.Parallel()
	return shared(t)
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theCluster != nil {
		if err := theCluster.Destroy(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// modes runs a test once in each type of interconnect.
func modes(t *testing.T, f func(t *testing.T, option string)) {
	for _, mode := range []string{udpifc, tcp, proxy} {
		t.Run(mode, func(t *testing.T) { f(t, mode) })
	}
}

// dbids of the shared cluster.
const (
	coordinatorDbid = 1
	firstSegment    = 2 // content 0; content k has dbid k+2
	lastSegment     = 4
	standbyDbid     = 5
)
