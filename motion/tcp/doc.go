// Package tcp is the interconnect type tcp: one TCP connection for each pair
// of a sender and a receiver of each motion, made anew for each query, and one
// listening port for each executor.
//
// The sender connects and says with a registration message which motion the
// connection is for. One that comes before its motion is received is kept, for
// at most the setup timeout; one that says anything else is closed.
package tcp
