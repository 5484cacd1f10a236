// Package link is the udpifc protocol without sockets, clocks and goroutines:
// what an executor that sends a motion and one that receives it do when a
// packet is ready, arrives, is consumed, or does not arrive in time.
//
// A Sender is the sending end of a whole motion, because loss-driven flow
// control has one window, and one pool of buffers, for all its connections. A
// Receiver is the receiving end of one connection.
//
// Time is a duration since whatever the caller likes; it must not go back.
// Nothing here may be used by two goroutines at a time.
//
// The rules are Greenplum's, including those that make it slow where round
// trips are long: see Params for what they can be changed to.
package link
