//go:build !race

// Package race tells tests whether the race detector is on: with it, memory
// pools forget at random what they are given.
package race

// Enabled says whether the race detector is on.
const Enabled = false
