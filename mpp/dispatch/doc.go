// Package dispatch is the query dispatcher's (QD) side of the embedded
// cluster: gangs of executors on the segments, the slices they run, and
// transactions over several segments.
//
// A Gang belongs to one session and has at most one connection per segment,
// made when first needed. All methods of a Gang work on its segments in
// parallel, and a failure on one segment cancels the rest, so that a statement
// either runs everywhere or fails with its first real cause.
//
// # Transactions
//
// BEGIN travels lazily, together with the first thing that is sent to a
// segment. A commit of one writing segment is that segment's COMMIT. Any other
// is two-phase:
//
//	PREPARE TRANSACTION 'trunkline_<xid>_<session>_<era>'   on the segments that wrote
//	COMMIT                                                  on the coordinator: the decision
//	COMMIT PREPARED                                         on those segments
//
// <xid> is the transaction's id on the coordinator. Nothing else is recorded:
// whoever finds a prepared transaction whose session is gone asks the
// coordinator's PostgreSQL what became of <xid> (pg_xact_status). A crash can have
// that server give an id twice, if nothing of the first transaction was on disk;
// <era> tells the two apart: when the server had last started.
//
// # Atomic visibility
//
// The dispatcher's latch has two kinds of holders that exclude each other:
// statements that take their snapshots on several segments (Gang.Open,
// Gang.ExecAlone), and commits in their second phase. A statement therefore
// sees a distributed commit on all segments or on none. The locks of DDL are sent
// off between the two as commits are (Gang.ExecLocking), so that the segments see
// them in one order with the statements. A statement that takes long is looked at:
// when it waits for a lock it lets go of the latch, or the lock's owner could not
// commit; if somebody has committed by the time its snapshots are there, it is
// ErrTorn. Both kinds of holders are limited in time at any rate.
package dispatch
