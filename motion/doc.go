// Package motion is what an executor sees of a query's motions: it opens the
// sending or the receiving end of one, moves tuples, stops early, and closes.
// How the bytes travel is the business of the interconnect types below it.
//
// A tuple is opaque bytes to this package and everything under it.
package motion
