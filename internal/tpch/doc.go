// Package tpch is the TPC-H workload: its data, its tables and its 22 queries,
// as the benchmark's public specification describes them.
//
// A [Generator] makes the rows of a scale factor, in the text format of COPY.
// Every row is made of its own number alone, so that any part of a table can be
// made by itself, by as many workers as one likes, and is the same each time.
// Rows are not those of the benchmark's own tool, but their numbers, formulas
// and distributions are the same (clause 4.2 of the specification), but for two
// things: texts are cut out of 8 MB of pseudo text instead of 300, and scales
// below 0.024 may have a few more suppliers, see [Generator.Rows].
//
// [Load] brings all of it into a database.
package tpch
