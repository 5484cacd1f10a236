package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// ErrNotCluster is matched by the error of [Open] for a directory that is not
// part of a cluster.
var ErrNotCluster = errors.New("not the directory of a cluster")

// Cluster is a cluster on disk, running or not. Its methods may be called by
// several processes; a method is not safe for concurrent use with itself.
type Cluster struct {
	dir       string // absolute, without symbolic links
	instances []topology.Instance
	host      func(topology.Instance) Host // nil: all in this process's network
}

// Open finds the cluster of a directory: DIR itself, or any directory below
// it, such as an instance's data directory.
func Open(dir string) (*Cluster, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrNotCluster, err)
	}
	for d := real; ; d = filepath.Dir(d) {
		path := filepath.Join(d, instance.ConfigurationFile)
		list, err := topology.ReadFile(path)
		switch {
		case err == nil && len(list) > 0:
			return &Cluster{dir: d, instances: list}, nil
		case err == nil:
			return nil, fmt.Errorf("%s: %w: %s is empty", dir, ErrNotCluster, path)
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		case d == filepath.Dir(d):
			return nil, fmt.Errorf("%s: %w: it has no file %s; make one with `trunkline cluster create`",
				dir, ErrNotCluster, instance.ConfigurationFile)
		}
	}
}

// Dir is the cluster's directory, an absolute path without symbolic links.
func (c *Cluster) Dir() string { return c.dir }

// Instances returns the rows of gp_segment_configuration as they were when
// the cluster was opened. The slice is the caller's.
func (c *Cluster) Instances() []topology.Instance {
	return append([]topology.Instance(nil), c.instances...)
}

// Coordinator returns the acting coordinator.
func (c *Cluster) Coordinator() topology.Instance {
	for _, i := range c.instances {
		if i.IsCoordinator() {
			return i
		}
	}
	return topology.Instance{}
}

// Env is what env.sh sets, as NAME=value, with PATH's addition in front of
// the given PATH.
func (c *Cluster) Env(path string) []string {
	var env []string
	for _, kv := range c.variables() {
		env = append(env, kv[0]+"="+kv[1])
	}
	return append(env, "PATH="+strings.Join(c.pathDirs(), ":")+":"+path)
}

func (c *Cluster) variables() [][2]string {
	co := c.Coordinator()
	return [][2]string{
		{"GPHOME", c.dir},
		{"PGHOST", co.Address},
		{"PGPORT", strconv.Itoa(co.Port)},
		{"PGUSER", instance.Superuser},
		{"COORDINATOR_DATA_DIRECTORY", co.Datadir},
		{"MASTER_DATA_DIRECTORY", co.Datadir},
	}
}

// pathDirs are put in front of PATH: the utilities, and PostgreSQL's programs.
func (c *Cluster) pathDirs() []string {
	return []string{filepath.Join(c.dir, "bin"), filepath.Join(c.dir, instance.PostgresLink)}
}

// binary is the cluster's own copy of the program.
func (c *Cluster) binary() string { return filepath.Join(c.dir, "bin", "trunkline") }

func data(i topology.Instance) datadir.Dir { return datadir.Dir(i.Datadir) }

// label names an instance in progress lines.
func label(i topology.Instance) string {
	kind := "primary"
	switch {
	case i.IsCoordinator():
		kind = "coordinator"
	case i.IsStandby():
		kind = "standby"
	}
	return fmt.Sprintf("%-11s dbid %d, content %d, port %d", kind, i.Dbid, i.Content, i.Port)
}
