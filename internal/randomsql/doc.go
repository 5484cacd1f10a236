// Package randomsql draws random tables, with their rows, and random statements
// over them that PostgreSQL takes, mostly, and compares the answers: for tests
// which ask several systems the same and want the same from each.
//
// Everything is drawn by rapid, so that a test's failure shrinks and can be
// repeated. What a query answers follows from the rows alone: nothing depends
// on time, chance or the order of rows, apart from what Query and Trimmed say.
//
// The statements count on the settings of Session.
package randomsql
