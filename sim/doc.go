// Package sim computes what an interconnect type needs for sessions that run a
// query all at the same time: TCP connections, UDP sockets, ports,
// descriptors, memory of proxies; and which limit that meets first. It is
// arithmetic: nothing is measured, opened or looked up here.
//
// Compute takes a Cluster, the motions of a query and a number of sessions. It
// counts the moment at which every session has set up the motions of its query
// and none has ended, which is the peak. What it counts is the interconnect's
// alone: not dispatch, not clients, not a process' other files.
//
// Where the numbers come from is said with each formula: "facts" is Greenplum
// as its documentation and source describe it, everything else is this
// project's code, or was measured.
package sim
