// Package instance runs one instance of the embedded cluster: the process
// `trunkline instance -D DATADIR`.
//
// An instance owns a data directory and a TCP port. Its children are a real
// PostgreSQL server, reachable only through a unix socket inside the data
// directory, and `trunkline proxy`, the interconnect proxy. A child that dies
// is started again; when the instance goes, however it goes, so do its
// children. The network servers (client sessions on the coordinator, slice
// execution on the segments) are handed in as [Server] values, so that this
// package knows nothing of SQL.
//
// # Files
//
// The user's postgresql.conf holds PostgreSQL's and Greenplum's parameters.
// [Generate] writes trunkline/postgresql.conf from it, in which Greenplum's
// parameters appear as trunkline.<name>, and the server is started on that.
// trunkline/instance.pid is locked for as long as the process lives;
// trunkline/run exists while the instance is meant to run.
//
// # Signals
//
// As PostgreSQL's postmaster: SIGHUP reloads, SIGTERM is a smart stop, SIGINT
// a fast one, SIGQUIT an immediate one.
//
// # Who restarts whom
//
// Each instance watches its successor in dbid order and starts it again when
// its lock is free although its run file exists.
package instance
