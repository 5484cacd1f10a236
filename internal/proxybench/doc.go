// Package proxybench measures interconnect proxies. It plays the backends of
// two or more proxies over their unix sockets, so that it can drive any proxy
// that speaks the protocol, and compares them with a byte pump: two relay
// processes that only copy, with a TCP connection for every stream, which is
// the floor for anything that takes the same way.
//
//	backends ── proxy ══ TCP ══ proxy ── backends
//	backends ── relay ══ TCP ══ relay ── backends
//
// Run does a measurement, or the standard set of them, and returns a Report.
// The same code writes the same packets with the same write calls to either
// path; every byte that comes out is compared with what went in.
//
// The sockets of the played backends are blocking ones, as real backends have
// each a process of its own: a goroutine of the Go runtime's poller would pay
// for wake-ups that are not the proxies'.
package proxybench
