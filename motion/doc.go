// Package motion is what an executor sees of a query's motions: it opens the
// sending or the receiving end of one, moves tuples, stops early, and closes.
// How the bytes travel is the business of the interconnect types below it: tcp,
// udpifc and proxied. Package motiontest holds what they all promise, as tests.
//
// A tuple is opaque bytes to this package and everything under it.
//
// Each executor of a motion has one end; the plan says who the others are, by
// an ID and Peers that are the same for all. Tuples of one sender arrive at a
// receiver in the order in which they were sent; there is no order between
// senders. What is under way between two executors is bounded: a sender whose
// receiver does not read has to wait, and no motion waits for another.
//
// A motion ends well when every sender has called Close and every receiver has
// received io.EOF, or has stopped, and closed. In any other case it fails for
// everyone soon: executors that wait get an *Error with an SQLSTATE, or the
// context's cause when it was their own context that ended. An end that has
// failed, or whose Send was cancelled, is given up with Abort.
package motion
