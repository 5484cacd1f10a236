// Package clustertest holds the tests that need a whole cluster: what is
// documented works word for word, the interconnect uses as few connections as
// it says, failures are named, and nothing that was committed is lost.
package clustertest
