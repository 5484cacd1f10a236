// Package udpifc is the interconnect type udpifc, Greenplum's default: rows in
// UDP datagrams, with acknowledgements, retransmission and flow control of its
// own. Package link has the rules; this one has the sockets.
//
// An executor has one or two sockets on ports of the kernel's choice: one that
// receives data and sends acks, from the first Addr or Receive on, and one that
// sends data and receives acks, from the first Send on. All its motions share
// them. Each socket has one goroutine that reads it; a motion has timers and no
// goroutine.
//
// There is no connection to set up: a sender sends its first packet, and goes
// on when it is acknowledged. A packet that comes before its receiver is kept,
// a few of each connection, or left to be sent again. One that comes after its
// receiver has gone is answered with stop.
//
// What package motion promises and Greenplum's protocol has no words for is
// said with packets that a Greenplum peer takes for something harmless: an end
// that fails says so with abort, repeatedly, until the other end confirms it,
// and a receiver that wants to close repeats its stop until the sender has
// ended the stream. A motion whose key was used before is told apart by the low
// byte of the header's instance field; the rest of that field is the command.
//
// Nothing tells a receiver that a sender has vanished without a word, with its
// whole host for example: a receiver only listens. Its caller's context ends
// the wait, as Greenplum's dispatcher does.
package udpifc
