package clustertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/testkit"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/topology"
)

// wideCluster is a cluster each of whose instances is on a host of its own,
// with an emulated network between them. An instance that dies must not be
// started again by its neighbour, who would do so on the wrong host: tests kill
// its children only.
type wideCluster struct {
	*testkit.Cluster
	net *wan.Network
}

// Ports on hosts of the cluster's own.
const (
	widePort      = 15432
	wideProxyPort = 14432
)

var wides atomic.Int32

// newWide makes a wideCluster for one test, or skips it where namespaces are
// not allowed.
func newWide(t *testing.T, segments int) *wideCluster {
	t.Helper()
	if err := wan.Available(); err != nil {
		t.Skipf("no emulated network can be made here: %v", err)
	}
	binary, err := testkit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	network, err := wan.New(wan.Config{Hosts: segments + 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	// Where a cluster is removed also when this process ends before its time.
	dir := filepath.Join(filepath.Dir(binary), fmt.Sprintf("w%d", wides.Add(1)))
	var list topology.AddressList
	for i := range segments + 1 {
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1),
			Host: network.Host(i).Addr().String(), Port: wideProxyPort + i})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Create(ctx, cluster.Options{
		Dir: dir, Segments: segments, Port: widePort, Binary: binary,
		Conf: []string{"gp_interconnect_proxy_addresses='" + list.String() + "'"},
		Host: func(i topology.Instance) cluster.Host {
			h := network.Host(int(i.Content) + 1)
			return cluster.Host{Address: h.Addr().String(), Do: h.Do}
		},
		Bootstrap: func(ctx context.Context, i topology.Instance, socketDir string) error {
			return catalog.InstallEverywhere(ctx, socketDir, catalog.Info{
				Dbid: i.Dbid, Content: i.Content, ConfigurationFile: filepath.Join(dir, instance.ConfigurationFile),
				RowsDir: datadir.Dir(i.Datadir).RowsDir(), Port: i.Port, Superuser: instance.Superuser,
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &wideCluster{net: network, Cluster: &testkit.Cluster{Dir: dir, Port: widePort, Options: testkit.Options{Segments: segments}}}
	t.Cleanup(func() {
		w.DumpLogs(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
		if left := processesOf(dir); len(left) > 0 {
			t.Errorf("processes that are left of the cluster:\n%s", strings.Join(left, "\n"))
		}
	})
	return w
}

// connect opens a session on the coordinator, from the coordinator's host. The
// caller closes it.
func (w *wideCluster) connect(options ...string) (*pgx.Conn, error) {
	host := w.net.Host(0)
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable connect_timeout=10",
		host.Addr(), widePort, instance.Superuser))
	if err != nil {
		return nil, err
	}
	if len(options) > 0 {
		cfg.RuntimeParams["options"] = "-c " + strings.Join(options, " -c ")
	}
	cfg.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) { return host.Dial(ctx, "tcp4", address) }
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, cfg)
}

// processesOf returns the processes that have the directory on their command
// line.
func processesOf(dir string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if line := strings.ReplaceAll(string(b), "\x00", " "); err == nil && strings.Contains(line, dir+"/") {
			found = append(found, filepath.Base(filepath.Dir(file))+" "+line)
		}
	}
	return found
}
