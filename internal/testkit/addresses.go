package testkit

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/topology"
)

// Addresses returns the list of every instance's proxy, ProxyDelta from the
// instance's port.
func (c *Cluster) Addresses(t testing.TB) topology.AddressList {
	t.Helper()
	list, err := topology.Derive(c.Instances(t), ProxyDelta)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// SetAddresses writes gp_interconnect_proxy_addresses on every instance as it
// is given, unchecked, and reloads. It does not wait for the proxies.
func (c *Cluster) SetAddresses(t testing.TB, list string) {
	t.Helper()
	c.MustShell(t, fmt.Sprintf(`gpconfig --skipvalidation -c gp_interconnect_proxy_addresses -v "'%s'" && gpstop -u`, list))
}

// ConnectProxies sets the right list and waits until every two running
// instances are connected.
func (c *Cluster) ConnectProxies(t testing.TB) {
	t.Helper()
	c.SetAddresses(t, c.Addresses(t).String())
	c.WaitProxies(t)
}

// WaitProxies waits until every two running instances' proxies are connected.
func (c *Cluster) WaitProxies(t testing.TB) {
	t.Helper()
	want := c.Mesh()
	Eventually(t, 15*time.Second, func() error {
		if n := c.Watch(t)(); n.Proxies != want {
			return fmt.Errorf("%v, expected %d", n, want)
		}
		return nil
	})
}

// Mesh is the number of connections between the proxies of the coordinator
// and the primaries. A standby runs none.
func (c *Cluster) Mesh() int {
	n := c.Segments + 1
	return n * (n - 1) / 2
}

// Without returns the list without one instance's entry.
func Without(list topology.AddressList, dbid uint16) topology.AddressList {
	return slices.DeleteFunc(slices.Clone(list), func(e topology.Entry) bool { return e.Dbid == dbid })
}

// Moved returns the list with another port in one instance's entry.
func Moved(list topology.AddressList, dbid uint16, port int) topology.AddressList {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Dbid == dbid {
			list[i].Port = port
		}
	}
	return list
}
