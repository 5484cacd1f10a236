// Package proxied is the interconnect type proxy: each pair of a sender and a
// receiver has a unix socket connection to its own instance's proxy, and the
// proxies carry the bytes of all of them over one connection between two
// instances.
//
// An executor needs no port and no address for this, only the socket of its
// proxy. That is looked for again when nobody answers at it, because its name
// has the postmaster's pid in it; a proxy that is being restarted is waited for
// a moment. A receiver connects at once, a sender when it has a buffer full or has
// paused. One that has come to its end before has a short stream, and is done when
// the proxy has answered for it. A Trunkline proxy takes such streams whole, a
// packet each, on one connection that the executor keeps (Config.Whole), and hands
// them to receivers in the same way; another gets and gives them behind a hello.
// The proxy answers before it has heard from the other end: whether the two ends
// meet shows later, and a connection that the proxy gives up becomes an error that
// says why, as far as the proxy's status tells.
//
// Who sends is not in the name of a logical connection. Two executors that are
// both at both ends of one motion therefore need a pid for each end, as they
// have in Greenplum, where a slice is a process.
package proxied
