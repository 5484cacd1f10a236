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
	case c.Bytes > 0 && (c.TypeOID == 25 || c.TypeOID == 1042 || c.TypeOID == 1043):
		w = c.Bytes
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

// scanBytes guesses what the used columns of a table, but for those that are unsent, have
// in all, and in how many rows, when conds are all that is sent of it.
func scanBytes(r *rte, conds []*pg.Node, unsent []bool) (bytes, rows float64) {
	rows = r.rel.Rows
	if rows <= 0 {
		rows = unknownRows
	}
	rows = max(rows*selectivity(r, conds), 1)
	const head = 8
	width := float64(head)
	for i := range r.rel.Columns {
		if r.sends(i) && (i >= len(unsent) || !unsent[i]) {
			width += r.rel.Columns[i].width()
		}
	}
	return rows * width, rows
}

// selectivity guesses the share of a table's rows that conditions let through.
func selectivity(r *rte, conds []*pg.Node) float64 {
	share := 1.0
	for _, c := range conds {
		one := 0.05 // of one value among others
		x := c.GetAExpr()
		if x == nil {
			share *= 0.4
			continue
		}
		for _, side := range []*pg.Node{x.Lexpr, x.Rexpr} {
			if d := r.distinct(side); d > 0 {
				one = 1 / d
			}
		}
		switch {
		case isEquals(x):
			share *= one
		case x.Kind == pg.A_Expr_Kind_AEXPR_IN && x.Name[0].GetString_().GetSval() == "=":
			share *= min(1, one*float64(max(1, len(x.Rexpr.GetList().GetItems()))))
		case x.Kind == pg.A_Expr_Kind_AEXPR_OP && len(x.Name) == 1 && x.Name[0].GetString_().GetSval() == "<>",
			x.Kind == pg.A_Expr_Kind_AEXPR_LIKE && x.Name[0].GetString_().GetSval() == "!~~":
			share *= 1 - one
		case x.Kind == pg.A_Expr_Kind_AEXPR_LIKE:
			share *= 0.1
		default:
			share *= 0.4
		}
	}
	return max(share, 1e-6)
}

// distinct is how many different values the column of a table has that n is; 0
// when it is none, or that is not known.
func (r *rte) distinct(n *pg.Node) float64 {
	cr := n.GetColumnRef()
	if cr == nil || r.rel == nil {
		return 0
	}
	parts, star := fieldNames(cr)
	if star || len(parts) == 0 {
		return 0
	}
	i := r.column(parts[len(parts)-1])
	if i < 0 || i >= len(r.rel.Columns) {
		return 0
	}
	return r.rel.Columns[i].Distinct
}
