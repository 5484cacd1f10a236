package tpch

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

//go:embed queries/*.sql
var queryFiles embed.FS

// NumQueries is how many queries there are.
const NumQueries = 22

// Query is one of the 22, with the parameters that the specification validates
// answers by.
type Query struct {
	Number int    // from 1
	Title  string // the specification's
	SQL    string // one statement, without a semicolon
}

// tieless are the queries whose ORDER BY leaves no two rows equal. Of the others
// rows of the same rank may come in any order, if all of them come.
var tieless = []int{1, 2, 4, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22}

// Differ compares two answers to the query, in lines of text: "" when they are
// the same, else the first line in which they are not. Where the ORDER BY lets
// rows be equal, their order means nothing.
func (q Query) Differ(want, got []string) string {
	if !slices.Contains(tieless, q.Number) {
		want, got = slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("row %d of %d is %s, expected %s", i+1, len(got), got[i], want[i])
		}
	}
	if len(want) != len(got) {
		return fmt.Sprintf("%d rows, expected %d", len(got), len(want))
	}
	return ""
}

// Queries are the 22 in order. One of them looks for a share of the whole that
// depends on the scale factor.
func Queries(scale float64) ([]Query, error) {
	if err := CheckScale(scale); err != nil {
		return nil, err
	}
	fraction := strings.TrimRight(strconv.FormatFloat(0.0001/scale, 'f', 10, 64), "0")
	list := make([]Query, NumQueries)
	for i := range list {
		text, err := queryFiles.ReadFile(fmt.Sprintf("queries/q%02d.sql", i+1))
		if err != nil {
			return nil, err
		}
		title, sql, _ := strings.Cut(strings.TrimPrefix(string(text), "-- "), "\n")
		list[i] = Query{Number: i + 1, Title: title, SQL: strings.TrimSpace(strings.ReplaceAll(sql, "$FRACTION", fraction))}
	}
	return list, nil
}
