// Package logical is the protocol of logical connections without sockets,
// clocks or goroutines: what a proxy does with each packet and each event of a
// backend. A Conn is one end of one logical connection; a Table holds all of
// those that go to one peer, decides which of them a packet belongs to, keeps
// packets that come before their backend, and orders successors of the same
// key.
//
// Every method returns what is to be done as an Effect; the caller does it
// after it has released the lock that guards the Table. Time comes in as an
// argument. Nothing here is safe for concurrent use.
package logical
