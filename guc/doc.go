// Package guc knows Greenplum's parameters and the file they are set in.
//
// [Lookup] and [All] are the table of the parameters that PostgreSQL itself
// does not have: those of the interconnect and what belongs to them, with
// type, range, default and context. Where Greenplum 6 and 7 differ the default
// is 7's. [Parameter.Parse] and [Parameter.Show] read and print a value as
// PostgreSQL does, errors included.
//
// [Conf] is a postgresql.conf, read by PostgreSQL's rules; [Set] and [Remove]
// edit one as gpconfig does: nothing is deleted, lines are only commented out
// and appended. [Conf.Split] parts the file into what PostgreSQL may be given
// and the effective values of the parameters of the table.
package guc
