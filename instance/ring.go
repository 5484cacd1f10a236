package instance

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/topology"
)

const (
	// ringInterval is how often an instance looks at its successor.
	ringInterval = 300 * time.Millisecond
	// ringMisses is how many looks in a row must find it dead: an instance
	// that is being started by somebody else gets the time to take its lock.
	ringMisses = 2
	// ringRetry is the wait between two attempts to start the same instance.
	ringRetry = 3 * time.Second
)

// ring watches the next wanted instance in dbid order and starts it when it
// is dead. Every wanted instance has one watcher as long as two live, and two
// neighbours that die together are started one after the other.
type ring struct {
	dir        datadir.Dir
	clusterDir string
	dbid       uint16
	binary     string
	log        *slog.Logger

	misses map[uint16]int
	next   map[uint16]time.Time // not to be started before
}

func (r *ring) run(ctx context.Context) {
	r.misses, r.next = map[uint16]int{}, map[uint16]time.Time{}
	for sleep(ctx, ringInterval) {
		r.look()
	}
}

func (r *ring) look() {
	all, err := topology.ReadFile(filepath.Join(r.clusterDir, ConfigurationFile))
	if err != nil {
		if _, serr := os.Stat(r.clusterDir); serr == nil {
			r.log.Warn("cannot read the list of instances", "err", err)
		}
		return
	}
	inst, ok := successor(all, r.dbid, func(i topology.Instance) bool {
		return Wanted(datadir.Dir(i.Datadir))
	})
	if !ok {
		return
	}
	dir := datadir.Dir(inst.Datadir)
	_, running, err := Pid(dir)
	if running || err != nil {
		r.misses[inst.Dbid] = 0
		return
	}
	r.misses[inst.Dbid]++
	if r.misses[inst.Dbid] < ringMisses || time.Now().Before(r.next[inst.Dbid]) {
		return
	}
	r.next[inst.Dbid] = time.Now().Add(ringRetry)
	r.log.Warn("instance is dead; starting it again", "instance", inst.String())
	p, err := spawn(dir, r.binary, againVar+"=1")
	if err != nil {
		r.log.Error("cannot start instance", "instance", inst.String(), "err", err)
		return
	}
	p.Forget() // its own log says how it went
}

// successor returns the next instance after dbid, in dbid order and around
// the end, that is wanted.
func successor(all []topology.Instance, dbid uint16, wanted func(topology.Instance) bool) (topology.Instance, bool) {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b topology.Instance) int { return int(a.Dbid) - int(b.Dbid) })
	at := slices.IndexFunc(sorted, func(i topology.Instance) bool { return i.Dbid > dbid })
	if at < 0 {
		at = 0
	}
	for k := range sorted {
		i := sorted[(at+k)%len(sorted)]
		if i.Dbid != dbid && wanted(i) {
			return i, true
		}
	}
	return topology.Instance{}, false
}
