package plan

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Guesses of how many bytes a scan sends. They decide between plans that are
// all right.

// unknownRows stands for the number of rows of a table of which it is not
// known. It is large, so that such a table is not sent to every segment where
// anything else will do.
const unknownRows = 1e6

// textWidths are typical lengths of values as text.
var textWidths = map[uint32]float64{
	16: 1, 18: 1, 21: 3, 23: 6, 20: 8, 26: 6, 700: 8, 701: 12, 1700: 8, 1082: 10, 1083: 8, 1114: 19, 1184: 22, 1186: 10,
	2950: 36, 829: 17, 869: 13, 650: 15, 17: 64, 25: 32, 3802: 100, 114: 100, 142: 200,
}

// width is a guess of a column's bytes in a row that is sent.
func (c *Column) width() float64 {
	const head = 4
	w, ok := textWidths[c.TypeOID]
	switch {
	case c.TypeOID == 1042 || c.TypeOID == 1043:
		w = 24
		if _, mod, found := strings.Cut(c.Type, "("); found {
			if n, err := strconv.Atoi(strings.TrimSuffix(mod, ")")); err == nil {
				w = min(float64(n), 24+float64(n)/16)
			}
		}
	case !ok:
		w = 32
	}
	return head + w
}

// scanBytes guesses what the used columns of a table have in all, and in how
// many rows, when conds are all that is sent of it.
func scanBytes(r *rte, conds []*pg.Node) (bytes, rows float64) {
	rows = r.rel.Rows
	if rows <= 0 {
		rows = unknownRows
	}
	rows = max(rows*selectivity(conds), 1)
	const head = 8
	width := float64(head)
	for i := range r.rel.Columns {
		if r.all || i < len(r.need) && r.need[i] {
			width += r.rel.Columns[i].width()
		}
	}
	return rows * width, rows
}

// selectivity guesses the share of rows that conditions let through.
func selectivity(conds []*pg.Node) float64 {
	share := 1.0
	for _, c := range conds {
		if x := c.GetAExpr(); x != nil && (isEquals(x) || x.Kind == pg.A_Expr_Kind_AEXPR_IN) {
			share *= 0.05
		} else {
			share *= 0.4
		}
	}
	return max(share, 0.01)
}
