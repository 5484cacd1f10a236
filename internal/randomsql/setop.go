package randomsql

import (
	"fmt"
	"strings"
)

// setOp draws a set operation of at most so many levels.
func (g *Generator) setOp(kinds []byte, depth, levels int) (string, []byte) {
	var arms [2]string
	for i := range arms {
		switch {
		case levels > 1 && g.One(4):
			arms[i], kinds = g.setOp(kinds, depth, levels-1)
			arms[i] = "(" + arms[i] + ")"
		case kinds != nil || g.One(3):
			arms[i], kinds = g.selKinds(kinds, nil, depth)
		default:
			arms[i], kinds = g.columns(nil)
		}
		if i == 1 && g.One(2) {
			// Some of the same columns, so that rows are placed alike.
			arms[i], kinds = g.columns(kinds)
		}
	}
	return arms[0] + " " + g.pick("union all", "union all", "union all", "union", "union", "intersect", "except", "intersect all", "except all") + " " + arms[1], kinds
}

// columns draws a SELECT of a table's columns as they are.
func (g *Generator) columns(want []byte) (string, []byte) {
	from, sc := g.from(nil, 0)
	where := ""
	if g.One(2) {
		where = " where " + g.cond(sc, 0)
	}
	if sc.commaJoin != "" {
		if where == "" {
			where = " where " + sc.commaJoin
		} else {
			where += " and " + sc.commaJoin
		}
	}
	kinds := want
	if kinds == nil {
		for range 1 + g.N(3) {
			kinds = append(kinds, sc.cols[g.N(len(sc.cols))].kind)
		}
	}
	var outs []string
	for i, k := range kinds {
		e := g.constant(k)
		if cols := sc.of(k); len(cols) > 0 {
			e = cols[g.N(len(cols))]
			if g.One(2) {
				e = cols[0]
			}
		}
		outs = append(outs, fmt.Sprintf("%s as o%d", e, i+1))
	}
	return "select " + strings.Join(outs, ", ") + from + where, kinds
}
