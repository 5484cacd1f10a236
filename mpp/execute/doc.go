// Package execute is the query executor (QE) server of a segment instance.
//
// The coordinator's dispatcher connects to the instance's private unix socket
// and speaks PostgreSQL's protocol. Every such dispatch connection is one QE:
// it owns one connection to the local PostgreSQL server and one end of the
// interconnect. Bytes are relayed both ways untouched, so that the simple and
// extended protocols and COPY work as they do on PostgreSQL itself, except
// Query messages that start with Marker. Those carry a Command and drive the
// slices of a distributed statement: open them (which takes their snapshots),
// run one into a motion, close them.
//
// A QE has two goroutines. The feeder reads the dispatch connection and writes
// to PostgreSQL; the pump reads PostgreSQL and either relays to the dispatch
// connection or, while a slice command is under way, moves rows into the
// motion. The rows never leave the pump's read buffer before Sender.Send
// copies them.
//
// A QE lives exactly as long as its dispatch connection: whichever side ends
// first, the other is cancelled and closed, and with it every motion.
package execute
