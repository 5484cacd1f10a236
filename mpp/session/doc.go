// Package session is PostgreSQL's protocol towards clients: it accepts them on
// an instance's port, and on the coordinator it is the query dispatcher (QD).
//
// Each client has one session, and each session one connection to the
// coordinator's PostgreSQL, the local link. Every statement is first seen by
// that server: it reports syntax and type errors, describes results, and runs
// whatever touches no distributed table. The rest is planned (package plan),
// dispatched to the segments (package dispatch) and its rows come back through
// motions: straight to the client, or to the local server, which reads them
// from a row source as if they were a table.
//
// # Transactions
//
// The local link carries the truth about the client's transaction; the gang
// follows. A statement outside a block that writes runs in an implicit block,
// which ends before the client is told that it is complete.
//
// # Concurrency
//
// A session is one goroutine. Cancel requests and the row source come from
// others and touch only what is documented as shared.
package session
