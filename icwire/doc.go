// Package icwire is every byte on every wire of the interconnect: the proxy
// packet in both of its dialects, the ic-tcp packet and the tuple chunks in
// it. It is a pure codec: no I/O, no clock, no goroutine, nothing shared, so
// that every function may be called from anywhere.
//
// Encoding appends to a slice the caller owns; decoding returns values, or
// parts of the slice it was given, and keeps nothing. Every parser is fuzzed.
package icwire
