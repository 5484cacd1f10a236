package cluster

import (
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// Host is a network of its own on this machine, such as a network namespace,
// in which instances run. Whoever gave it to [Create] keeps it until the
// cluster is stopped: a cluster that is found by [Open] knows nothing of it
// and cannot be started. Neither must a neighbour start an instance again:
// that runs in the neighbour's network, so its address has to be there, too.
type Host struct {
	// Address is what the instance listens on; it has to be in the network.
	Address string
	// Do calls fn on a thread that is in the network and returns its error:
	// a process that fn starts is in it with all its children, a socket that fn
	// makes belongs to it. Calls may overlap.
	Do func(fn func() error) error
}

// inNetwork calls fn in the network of an instance.
func (c *Cluster) inNetwork(inst topology.Instance, fn func() error) error {
	if c.host == nil {
		return fn()
	}
	return c.host(inst).Do(fn)
}

// spawn starts an instance's process in its network.
func (c *Cluster) spawn(inst topology.Instance) (p *instance.Process, err error) {
	err = c.inNetwork(inst, func() error {
		p, err = instance.Spawn(data(inst), c.binary())
		return err
	})
	return p, err
}
