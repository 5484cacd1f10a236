// Package proxy is the interconnect proxy of one instance. Backends of the
// instance register logical connections on its unix socket; the proxy carries
// each to the proxy of the instance at the other end, over the one TCP
// connection it has with that, and back. It speaks the protocol of Greenplum's
// own proxies, with whom it can be mixed.
//
// New makes a Proxy from a Config, Run serves until its context ends, Reload
// reads the configuration again. ReadStatus asks a running proxy how it is.
//
// The protocol itself is package logical, which does no I/O; package trunk is
// the connection between two proxies. This package ties them to sockets:
//
//	backend ── conn ── peer (logical.Table) ── trunk ══ TCP ══ peer's proxy
//
// Locks are taken in this order, and none is held while waiting for I/O:
// Proxy.mu, peer.mu, then conn.mu or the trunk's own.
package proxy
