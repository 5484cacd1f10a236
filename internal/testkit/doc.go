// Package testkit makes whole clusters for tests: it builds the trunkline
// binary, creates a cluster in a directory of its own on free ports, looks
// into it (process ids, TCP connections), breaks it (signals) and removes it
// when the test process ends, however it ends.
//
// Everything is done by the binary's own commands and by what any user of the
// machine could see, so that a test proves what a user gets.
package testkit
