// Package querybench measures whole queries, the 22 of TPC-H, on a cluster that
// it makes for it in each interconnect type, beside one PostgreSQL server with
// the same rows: how long they take, whether the answers are the same, what
// moves between the instances. It is the work of `trunkline bench queries`.
package querybench
