package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

// system is what gpstop, gpstart and gpstate do to a cluster.
type system interface {
	Instances() []topology.Instance
	Coordinator() topology.Instance
	Start(context.Context, cluster.StartOptions) error
	Stop(context.Context, cluster.StopOptions) error
	Reload(context.Context) []cluster.ReloadFailure
	Status(context.Context) ([]cluster.InstanceStatus, error)
}

// openCluster is how the utilities come to the cluster of a directory.
var openCluster = func(dir string) (system, error) { return cluster.Open(dir) }

// openSystem opens the cluster of the coordinator whose data directory is dir,
// or that of the environment.
func openSystem(dir string) (system, error) {
	dir, err := coordinatorDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := openCluster(dir)
	if errors.Is(err, cluster.ErrNotCluster) {
		return nil, plainError(err.Error())
	}
	return s, err
}

// segments are the instances that hold data, in dbid order.
func segments(list []topology.Instance) []topology.Instance {
	var segs []topology.Instance
	for _, i := range list {
		if i.Content != topology.ContentCoordinator {
			segs = append(segs, i)
		}
	}
	return segs
}

func standbyOf(list []topology.Instance) (topology.Instance, bool) {
	for _, i := range list {
		if i.IsStandby() {
			return i, true
		}
	}
	return topology.Instance{}, false
}

// running finds the instances that run.
func running(list []cluster.InstanceStatus, which func(topology.Instance) bool) []cluster.InstanceStatus {
	var up []cluster.InstanceStatus
	for _, s := range list {
		if s.Running && which(s.Instance) {
			up = append(up, s)
		}
	}
	return up
}

func isSegment(i topology.Instance) bool { return i.Content != topology.ContentCoordinator }

// server is what the files of an instance say of its PostgreSQL server.
type server struct {
	pidFile bool // postmaster.pid is there
	pid     int  // in it; 0 without
	alive   bool // a process has that pid
	lock    bool // the server's socket has its lock file
}

func serverOf(i topology.Instance) server {
	var s server
	d := datadir.Dir(i.Datadir)
	if _, err := os.Stat(d.PostmasterPid()); err == nil {
		s.pidFile = true
	}
	if pm, err := d.Postmaster(); err == nil && pm.Pid > 0 {
		s.pid = pm.Pid
		err := syscall.Kill(pm.Pid, 0)
		s.alive = err == nil || errors.Is(err, syscall.EPERM)
	}
	_, err := os.Stat(fmt.Sprintf("%s/.s.PGSQL.%d.lock", d.SocketDir(), i.Port))
	s.lock = err == nil
	return s
}

// triplet is how tables name an instance.
func triplet(i topology.Instance) []string {
	return []string{i.Hostname, i.Datadir, strconv.Itoa(i.Port)}
}
