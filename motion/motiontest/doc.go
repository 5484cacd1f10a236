// Package motiontest holds the tests that every interconnect type must pass:
// what package motion promises, whatever the bytes travel on.
package motiontest
