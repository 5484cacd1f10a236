// Package plan turns SQL into slices and motions: which statement each primary
// runs, which rows it sends to the coordinator, and which statement the
// coordinator's PostgreSQL runs over them.
//
// # The rule
//
// A plan is never wrong and a SELECT is never refused. Whatever the planner
// does not understand for certain is answered by gathering the needed columns
// of the distributed base tables to the coordinator's PostgreSQL and running
// the query there. Everything else here is an optimisation of that: whole query
// levels run on the segments when the rows they join and group are certain to
// be on one segment ("islands"), aggregates run in two stages (with a motion
// between segments where many different values are to be counted once), ORDER
// BY with LIMIT sends only the first rows, rows that only have to be put in
// order are sorted where they are and merged, and simple conditions are tested
// where the rows are. A statement whose outermost level is no island is planned
// a second time, said otherwise (WITH inlined, sub-selects joined), and that
// plan is taken if it is one.
//
// # What the coordinator's PostgreSQL has
//
// Every distributed table exists there too, empty, with the same definition,
// and so do views, functions and types. A row source is
//
//	pg_catalog.gp_motion_recv('gp_motion', 'token') AS alias(column type, …)
//
// a volatile set-returning record function; its rows are what the slice with
// that token gathers.
//
// # Shape
//
// The package is pure: no I/O, no goroutines, no state between calls. What it
// must know of tables and functions it asks of a [Catalog]. [Split] and
// [Parse] read statements as a Greenplum client writes them; [Select] plans a
// query; [Modify] plans an UPDATE or a DELETE. Parse trees are pg_query's;
// planning never changes the tree it is given.
package plan
