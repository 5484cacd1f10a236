package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/motion/proxied"
	mppcatalog "github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/execute"
	qd "github.com/trunkline-db/trunkline/mpp/session"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

func init() {
	instanceServers = makeServers
	clusterBootstrap = installCatalog
}

// installCatalog puts Greenplum's relations into the databases initdb made.
func installCatalog(ctx context.Context, inst topology.Instance, socketDir string) error {
	dir := datadir.Dir(inst.Datadir)
	clusterDir, err := instance.ClusterDir(dir)
	if err != nil {
		return err
	}
	return mppcatalog.InstallEverywhere(ctx, socketDir, mppcatalog.Info{
		Dbid: inst.Dbid, Content: inst.Content,
		ConfigurationFile: filepath.Join(clusterDir, instance.ConfigurationFile),
		RowsDir:           dir.RowsDir(), Port: inst.Port, Superuser: instance.Superuser,
	})
}

// makeServers makes what serves an instance's port, and a segment's executors.
func makeServers(info instance.Info) ([]instance.Server, error) {
	conf := &configuration{path: filepath.Join(info.ClusterDir, instance.ConfigurationFile)}
	if _, err := conf.read(); err != nil {
		return nil, err
	}
	role := qd.Segment
	switch {
	case info.Standby:
		role = qd.Standby
	case info.Content == -1:
		role = qd.Coordinator
	}
	newInterconnect := interconnects(info).New
	own := motionParameters(info)
	clients := qd.NewServer(qd.Config{
		Dir: info.Dir, Dbid: info.Dbid, Content: info.Content, Port: info.Port, Address: info.Address,
		Role: role, Listener: info.Listener, Instances: conf.instances, NewInterconnect: newInterconnect, Log: info.Log,
	})
	if err := clients.LoadTLS(); err != nil {
		return nil, err
	}
	servers := []instance.Server{clients}
	if role == qd.Segment {
		servers = append(servers, &executors{dir: info.Dir, server: execute.NewServer(execute.Config{
			Dir: info.Dir, Content: info.Content, Dbid: info.Dbid, Port: info.Port, Address: info.Address,
			NewInterconnect: newInterconnect, Own: own, Log: info.Log,
		})})
	}
	return servers, nil
}

// interconnects makes executors' access to motions; what its proxy knows goes
// into the errors.
func interconnects(info instance.Info) execute.Interconnects {
	return execute.Interconnects{Dir: info.Dir, Content: info.Content, Address: info.Address, Log: info.Log, Loops: new(proxied.Loops), Cause: func(ctx context.Context, dbid uint16, lost bool) string {
		st, err := proxy.ReadStatus(ctx, info.Dir.ProxySocket())
		switch {
		case err == nil:
		case lost:
			return fmt.Sprintf("the proxy of dbid %d does not answer: %v", info.Dbid, err)
		default:
			return "" // it has died and is being started again
		}
		return st.Explain(dbid, lost)
	}}
}

// motionParameters reads what the instance's postgresql.conf says of Greenplum's
// parameters. While the file cannot be read the last values stay in force, as
// they do in the server.
func motionParameters(info instance.Info) func() map[string]string {
	var last map[string]string
	return func() map[string]string {
		conf, err := guc.ReadConf(info.Dir.Conf())
		if err != nil {
			info.Log.Warn("parameters of motions were not read", "error", err)
			return last
		}
		_, last, _ = guc.Split(conf) // what is wrong in it has been reported
		return last
	}
}

// executors serves a segment's executors on their unix socket.
type executors struct {
	dir    datadir.Dir
	server *execute.Server
}

func (e *executors) Serve(ctx context.Context) error {
	_ = os.Remove(e.dir.QESocket()) // of a life before; the instance holds the lock
	l, err := net.Listen("unix", e.dir.QESocket())
	if err != nil {
		return err
	}
	if err := os.Chmod(e.dir.QESocket(), 0o700); err != nil {
		l.Close()
		return err
	}
	return e.server.Serve(ctx, l)
}

func (e *executors) Reload() { e.server.Reload() }

// configuration is the cluster's list of instances, read again when the file
// changes.
type configuration struct {
	path string

	mu      sync.Mutex
	checked time.Time
	mod     time.Time
	list    []topology.Instance
}

// recheck is how old an answer about the file may be.
const recheck = 500 * time.Millisecond

func (c *configuration) read() ([]topology.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list != nil && time.Since(c.checked) < recheck {
		return c.list, nil
	}
	c.checked = time.Now()
	fi, err := os.Stat(c.path)
	if err != nil {
		return c.list, err
	}
	if c.list != nil && fi.ModTime().Equal(c.mod) {
		return c.list, nil
	}
	list, err := topology.ReadFile(c.path)
	if err != nil {
		return c.list, err
	}
	c.list, c.mod = list, fi.ModTime()
	return list, nil
}

// instances returns the list as last read.
func (c *configuration) instances() []topology.Instance {
	list, _ := c.read()
	return list
}
