package tpch

import (
	"embed"
	"fmt"
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
