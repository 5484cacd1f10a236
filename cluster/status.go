package cluster

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// InstanceStatus tells of one instance.
type InstanceStatus struct {
	topology.Instance
	Running bool // its process runs
	Wanted  bool // it is meant to run: started, and not stopped since
	Pid     int  // of the instance process; 0 when it does not run
	// ProxyAddress is host and port of its entry in
	// gp_interconnect_proxy_addresses of its own postgresql.conf; "" without.
	ProxyAddress string
	// Live is the instance's own word; zero when it does not run or does not
	// answer.
	Live instance.Status
}

// State is one word: ready, starting, stopping, down (stopped) or dead (it
// should run and does not).
func (s InstanceStatus) State() string {
	switch {
	case s.Running && s.Live.State != "":
		if s.Live.State == instance.Ready && s.Live.Postgres.State != instance.Ready {
			return string(instance.Starting) // its server is being started again
		}
		return string(s.Live.State)
	case s.Running:
		return string(instance.Starting)
	case s.Wanted:
		return "dead"
	}
	return string(instance.Down)
}

// Status asks every instance how it is, in dbid order.
func (c *Cluster) Status(ctx context.Context) ([]InstanceStatus, error) {
	list := make([]InstanceStatus, len(c.instances))
	var g errgroup.Group
	for k, inst := range c.instances {
		g.Go(func() error {
			st := InstanceStatus{Instance: inst, Wanted: instance.Wanted(data(inst))}
			var err error
			if st.Pid, st.Running, err = instance.Pid(data(inst)); err != nil {
				return err
			}
			if st.Running {
				st.Live, _ = instance.ReadStatus(ctx, data(inst))
			}
			st.ProxyAddress = proxyAddress(inst)
			list[k] = st
			return nil
		})
	}
	err := g.Wait()
	return list, err
}

func proxyAddress(inst topology.Instance) string {
	conf, err := guc.ReadConf(data(inst).Conf())
	if err != nil {
		return ""
	}
	v, _ := conf.Get("gp_interconnect_proxy_addresses")
	addrs, err := topology.ParseAddresses(v)
	if err != nil {
		return ""
	}
	e, ok := addrs.Lookup(inst.Dbid)
	if !ok {
		return ""
	}
	return e.Addr()
}

// reloadWait bounds how long a reload of one instance is waited for.
const reloadWait = 10 * time.Second

// ReloadFailure is an instance that could not be reloaded.
type ReloadFailure struct {
	Instance topology.Instance
	Err      error
}

// Reload has every instance read its configuration again and waits until new
// sessions see it. It returns the instances that did not, among them those
// that do not run.
func (c *Cluster) Reload(ctx context.Context) []ReloadFailure {
	errs := make([]error, len(c.instances))
	var g errgroup.Group
	for k, inst := range c.instances {
		g.Go(func() error {
			errs[k] = reloadInstance(ctx, inst)
			return nil
		})
	}
	_ = g.Wait()
	var failed []ReloadFailure
	for k, err := range errs {
		if err != nil {
			failed = append(failed, ReloadFailure{c.instances[k], err})
		}
	}
	return failed
}

func reloadInstance(ctx context.Context, inst topology.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	pid, running, err := instance.Pid(data(inst))
	if err != nil {
		return err
	}
	if !running {
		return ErrNotRunning
	}
	asked := time.Now()
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return err
	}
	for {
		st, err := instance.ReadStatus(ctx, data(inst))
		if err != nil {
			return err
		}
		if st.Reloaded.After(asked) {
			return nil
		}
		if !pause(ctx, 2*time.Millisecond) {
			return ctx.Err()
		}
	}
}
