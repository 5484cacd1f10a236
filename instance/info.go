package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

// Superuser is the database superuser of every instance.
const Superuser = "gpadmin"

// ConfigurationFile is the name of the cluster's list of instances in the
// cluster directory.
const ConfigurationFile = "gp_segment_configuration"

// Server is a network server that lives in the instance process.
type Server interface {
	// Serve runs until ctx is done and returns nil then. It closes its
	// connections and ends its goroutines before it returns. An error, or a
	// return before ctx is done, ends the instance.
	Serve(ctx context.Context) error
	// Reload is called after the configuration was read again and the
	// PostgreSQL server and the proxy were told. It must not block.
	Reload()
}

// Drainer is implemented by servers that know of clients. A smart stop calls
// Drain on each and waits for all of them.
type Drainer interface {
	// Drain refuses new clients from now on and returns when the last one has
	// left or ctx is done.
	Drain(ctx context.Context) error
}

// SessionCounter is implemented by servers that can tell how many client
// sessions they serve.
type SessionCounter interface{ Sessions() int }

// Info is what a server is made from.
type Info struct {
	Dir        datadir.Dir
	ClusterDir string // holds gp_segment_configuration, bin and env.sh
	Dbid       uint16
	Content    int16
	Port       int    // the instance's port
	Address    string // host part of the instance's port
	Standby    bool   // in recovery: a standby that was not activated

	// Listener accepts the connections to the instance's port, on all the
	// addresses of listen_addresses. It is bound already. The server that
	// uses it may close it; the instance does so at the end.
	Listener net.Listener
	Log      *slog.Logger
}

// facts are what the files say of an instance.
type facts struct {
	dir        datadir.Dir
	clusterDir string
	self       topology.Instance
	all        []topology.Instance
	standby    bool
}

// ClusterDir returns the directory of the cluster that the data directory
// belongs to: the nearest one above it with a gp_segment_configuration file.
func ClusterDir(dir datadir.Dir) (string, error) {
	for d := filepath.Dir(string(dir)); ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, ConfigurationFile)); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not part of a cluster: no %s in a directory above it", dir, ConfigurationFile)
		}
	}
}

func readFacts(dir datadir.Dir) (*facts, error) {
	f := &facts{dir: dir}
	dbid, err := dir.Dbid()
	if err != nil {
		return nil, err
	}
	if f.clusterDir, err = ClusterDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(f.clusterDir, ConfigurationFile)
	if f.all, err = topology.ReadFile(path); err != nil {
		return nil, err
	}
	found := false
	for _, inst := range f.all {
		if inst.Dbid == dbid {
			f.self, found = inst, true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s has no row for dbid %d of %s", path, dbid, dir)
	}
	f.standby = inRecovery(dir)
	return f, nil
}

// inRecovery reports whether the server on dir is (or will start as) a
// standby.
func inRecovery(dir datadir.Dir) bool {
	_, err := os.Stat(filepath.Join(string(dir), "standby.signal"))
	return !errors.Is(err, os.ErrNotExist)
}

// coordinator returns the row of the instance that acts as coordinator.
func (f *facts) coordinator() (topology.Instance, bool) {
	for _, inst := range f.all {
		if inst.IsCoordinator() {
			return inst, true
		}
	}
	return topology.Instance{}, false
}

// hasStandby reports whether the cluster has a standby coordinator.
func (f *facts) hasStandby() bool {
	for _, inst := range f.all {
		if inst.IsStandby() {
			return true
		}
	}
	return false
}
