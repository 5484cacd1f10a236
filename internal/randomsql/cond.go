package randomsql

import (
	"fmt"
)

// cond draws a condition.
func (g *Generator) cond(sc *scope, depth int) string {
	k := g.kind(sc)
	x := func() string { return g.expr(sc, k, g.N(2)) }
	switch n := g.N(17); {
	case n < 4:
		right := g.constant(k)
		if g.One(2) {
			right = x()
		}
		return x() + g.pick(" = ", " < ", " >= ", " <> ", " is distinct from ") + right
	case n < 7:
		return g.expr(sc, k, 0) + g.pick(" is null", " is null", " is not null")
	case n == 7:
		return "(" + g.cond(sc, depth) + " and " + g.cond(sc, depth) + ")"
	case n == 8:
		return "(" + g.cond(sc, depth) + " or " + g.cond(sc, 0) + ")"
	case n == 9:
		return "not (" + g.cond(sc, depth) + ")"
	case n == 10:
		return g.expr(sc, kindInt, 1) + fmt.Sprintf(" in (%d, %d, %d)", g.N(9), g.N(9), g.N(9))
	case n == 15 && depth == 0:
		return g.expr(sc, kindInt, 0) + " = " + fmt.Sprint(g.N(8))
	case n == 11:
		return g.expr(sc, kindInt, 0) + fmt.Sprintf(" between %d and %d", g.N(4), 3+g.N(9))
	case n == 12 && depth > 0:
		sub, _ := g.selOf([]byte{k}, sc, depth-1)
		return x() + g.pick(" in ", " = any ", " not in ") + "(" + sub + ")"
	case n == 13 && depth > 0:
		sub, _ := g.sel(sc, depth-1)
		return g.pick("exists (", "not exists (") + sub + ")"
	case n == 14 && depth > 0:
		sub, _ := g.aggSel(sc, k, depth-1)
		return x() + g.pick(" = ", " <= ") + "(" + sub + ")"
	case n == 16 && depth > 0:
		return g.tied(sc, depth)
	}
	if cols := sc.of(kindText); len(cols) > 0 {
		return cols[g.N(len(cols))] + g.pick(" like 's%'", " < 's4'", " = 's2'")
	}
	return x() + " = " + x()
}

// tied draws a condition with a sub-select that is tied to the level around it by
// an equality, as those are that can be evaluated on the segments.
func (g *Generator) tied(sc *scope, depth int) string {
	from, in := g.from(sc, depth-1)
	k := g.kind(sc)
	outer, inner := sc.of(k), in.of(k)
	if len(outer) == 0 || len(inner) == 0 {
		return g.cond(sc, depth-1)
	}
	o, i := outer[g.N(len(outer))], inner[g.N(len(inner))]
	where := " where true"
	if in.commaJoin != "" {
		where = " where " + in.commaJoin
	}
	if g.One(3) {
		where += " and " + g.cond(in, 0)
	}
	tie := " and " + i + " = " + o
	val := g.kind(in)
	v := in.of(val)
	if len(v) == 0 {
		v, val = inner, k
	}
	e := v[g.N(len(v))]
	switch g.N(6) {
	case 0:
		return "exists (select *" + from + where + tie + ")"
	case 1:
		return "not exists (select 1" + from + where + tie + ")"
	case 2:
		return g.expr(sc, val, 0) + g.pick(" in ", " not in ") + "(select " + e + from + where + tie + ")"
	case 3:
		return g.expr(sc, val, 0) + g.pick(" = ", " < ", " >= ") + "(select " + g.pick("min", "max") + "(" + e + ")" + from + where + tie + ")"
	case 4:
		return o + g.pick(" in ", " in ", " not in ") + "(select " + i + from + where + " group by " + i + " having count(*) > " + fmt.Sprint(g.N(3)) + ")"
	}
	return o + g.pick(" in ", " = any ", " not in ") + "(select " + i + from + where + ")"
}

// aggSel draws a sub-select of one row.
func (g *Generator) aggSel(outer *scope, kind byte, depth int) (string, bool) {
	from, sc := g.from(outer, depth)
	where := ""
	if g.One(2) {
		where = " where " + g.cond(sc, 0)
	}
	return "select " + g.pick("min", "max") + "(" + g.expr(sc, kind, 1) + ")" + from + where, true
}
