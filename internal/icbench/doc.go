// Package icbench measures the interconnect types beside each other by real
// queries on clusters that it makes for it: how long they take, what
// connections and ports they hold, what goes between the instances; on
// loopback and over an emulated wide area network. It is the work of
// `trunkline bench interconnect`.
//
// Where it may (as root), each cluster runs in a network namespace of its own,
// so that counters are those of the cluster alone; in the wide area network
// each instance has one, and so does its proxy.
package icbench
