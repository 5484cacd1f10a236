// Package lint holds the rules of the module's own house: which package may
// import which, and that each says what it is for. The rules are a test over
// what the go command lists, so `go test ./internal/lint` checks them.
package lint
