// Package trunk is the one connection between two proxies: many logical
// connections' packets out by one fair, batching writer, packets in by one
// reader that never waits for anybody.
//
// Ownership: a Buffer handed to a Stream belongs to the trunk, which releases
// it once it is written; the payload handed to a Handler is valid until the
// Handler returns.
package trunk
