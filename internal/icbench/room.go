package icbench

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/sim"
)

const (
	// serverConnections are what a session may take of a PostgreSQL server.
	serverConnections = 6
	// defaultConnections is max_connections of a new cluster's servers.
	defaultConnections = 250
	// spareFiles are the open files of a process beside its sockets of the
	// interconnect: connections to clients, servers and other instances.
	spareFiles = 1000
)

// makeRoom lets this process, and so those that it starts, have as many open
// files as the biggest case needs.
func makeRoom(o *Options) error {
	segments, sessions := slices.Max(o.Segments), slices.Max(o.Sessions)
	if o.NoLoopback {
		segments, sessions = o.WANSegments, 1
	}
	need, err := filesNeeded(segments, sessions)
	if err != nil {
		return err
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur >= need {
		return err
	}
	more := unix.Rlimit{Cur: need, Max: max(l.Max, need)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err != nil {
		return fmt.Errorf("%d segments × %d sessions need %d open files in a process, and %d are allowed: raise ulimit -n, or give fewer --segments or --sessions (%w)",
			segments, sessions, need, l.Max, err)
	}
	return nil
}

// filesNeeded is how many open files a process of a cluster may have at the
// most.
func filesNeeded(segments, sessions int) (uint64, error) {
	motions, err := sim.Query(FiveSlices)
	if err != nil {
		return 0, err
	}
	r, err := sim.Compute(sim.Cluster{Engine: sim.Trunkline, Segments: segments, Hosts: 1, System: sim.DefaultSystem()}, motions, sessions)
	if err != nil {
		return 0, err
	}
	var most int64
	for _, t := range r.Types {
		if t.Type == sim.HostProxy {
			continue
		}
		for _, l := range t.Limits {
			if l.Name == sim.LimitDescriptors {
				most = max(most, l.Need)
			}
		}
	}
	return uint64(most) + spareFiles + uint64(serverConnections*sessions), nil
}

// maxConnections is what the clusters' servers have to allow.
func maxConnections(o *Options) int {
	return max(defaultConnections, serverConnections*slices.Max(o.Sessions)+20)
}
