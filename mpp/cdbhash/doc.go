// Package cdbhash tells which segment a row of a hash-distributed table
// belongs to, bit for bit as Greenplum 6 and 7 do with their default hash
// operator classes.
//
// A row's hash starts at 0. For each distribution key column in order it is
// rotated left by one bit and, unless the value is NULL, combined by XOR with
// the PostgreSQL hash of the value. The segment is the jump consistent hash
// (Lamping and Veach) of that number over the segment count of the table's
// policy.
//
// Values are given in the format PostgreSQL's send functions write: the
// fields of a binary COPY and of binary result columns. FromText makes that
// format out of text input where its meaning is beyond doubt.
//
// Hashable types: boolean, "char", the integers, oid and its reg aliases,
// real, double precision, numeric, text, character varying, name, character,
// bytea, bit, bit varying, uuid, date, time, timetz, timestamp, timestamptz,
// interval, inet, cidr, macaddr, macaddr8, tid, xid, xid8, cid, pg_lsn,
// oidvector, jsonb, the built-in ranges, and arrays of all of these. An enum
// hashes as the oid of its pg_enum row and a domain as its base type: the
// caller resolves both. Multiranges and composite types are not supported.
package cdbhash
