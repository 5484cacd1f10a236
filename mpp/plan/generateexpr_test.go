package plan

import "fmt"

// expr draws an expression of a kind.
func (g *gen) expr(sc *genScope, kind byte, depth int) string {
	cols := sc.of(kind)
	if len(cols) > 0 && (depth <= 0 || !g.one(4)) {
		return cols[g.n(len(cols))]
	}
	if sc.outer != nil && g.one(3) {
		if cols := sc.outer.of(kind); len(cols) > 0 {
			return cols[g.n(len(cols))]
		}
	}
	if kind == kindInt && g.segment && len(sc.segs) > 0 && g.one(4) {
		g.used = true
		return sc.segs[g.n(len(sc.segs))] + ".gp_segment_id"
	}
	if depth > 0 {
		x := func(k byte) string { return g.expr(sc, k, depth-1) }
		switch kind {
		case kindInt:
			switch g.n(6) {
			case 0:
				return "(" + x(kindInt) + " + " + x(kindInt) + ")"
			case 1:
				return "length(" + x(kindText) + ")"
			case 2:
				return "coalesce(" + x(kindInt) + ", " + x(kindInt) + ")"
			case 3:
				return "case when " + g.cond(sc, 0) + " then " + x(kindInt) + " else " + x(kindInt) + " end"
			case 4:
				return "(" + x(kindInt) + " - " + x(kindInt) + ") * 2"
			}
		case kindText:
			switch g.n(5) {
			case 0:
				return "upper(" + x(kindText) + ")"
			case 1:
				return "(" + x(kindText) + " || " + x(kindText) + ")"
			case 2:
				return "to_char(" + x(kindDate) + ", 'YYYY/MM/DD')"
			case 3:
				if len(sc.rows) > 0 {
					return sc.rows[g.n(len(sc.rows))] + "::text"
				}
			}
		case kindNum:
			if g.one(2) {
				return "(" + x(kindNum) + " + 1)"
			}
		case kindDate:
			if g.one(2) {
				return "(" + x(kindDate) + " + 1)"
			}
		case kindBool:
			return "(" + g.cond(sc, 0) + ")"
		case kindReal:
			if g.one(2) {
				return "(" + x(kindReal) + " * 2)"
			}
		}
	}
	return g.constant(kind)
}

// constant draws a constant, or a parameter.
func (g *gen) constant(kind byte) string {
	if typ := paramTypes[kind]; typ != "" && g.one(12) {
		v := map[byte]string{kindInt: fmt.Sprint(g.n(10)), kindText: g.pick("s0", "s1", "s3"), kindNum: g.pick("1.5", "3"),
			kindDate: g.pick("2020-01-02", "2020-01-04")}[kind]
		g.params = append(g.params, [2]string{v, typ})
		return fmt.Sprintf("$%d::%s", len(g.params), typ)
	}
	return g.literal(kind)
}

// paramTypes are the types of parameters of each kind.
var paramTypes = map[byte]string{kindInt: "integer", kindText: "text", kindNum: "numeric", kindDate: "date"}

func (g *gen) literal(kind byte) string {
	switch kind {
	case kindInt:
		return fmt.Sprint(g.n(10))
	case kindText:
		return g.pick("'s0'::text", "'s1'::text", "'s2'::text", "'s3'::text", "'z'::text", "null::text")
	case kindNum:
		return g.pick("1.5", "0.0", "3", "null::numeric")
	case kindDate:
		return g.pick("date '2020-01-02'", "date '2020-01-04'")
	case kindBool:
		return g.pick("true", "false", "null::bool")
	case kindChar:
		return g.pick("'k1'::char(4)", "'k3'::bpchar", "null::bpchar")
	case kindUUID:
		return fmt.Sprintf("'%s%d'::uuid", uuidStart, g.n(6))
	case kindTime:
		return g.pick("time '12:00:00.5'", "time '24:00'")
	case kindStamp:
		return g.pick("timestamp '2020-01-01 12:00'", "timestamp '-infinity'")
	case kindZoned:
		return g.pick("timestamptz '1971-12-31 00:44:30+00'", "timestamptz '1972-01-01'", "null::timestamptz")
	case kindBytes:
		return g.pick(`'\x5c01'::bytea`, `'\x5c04'::bytea`)
	}
	return g.pick("1.5::float8", "2::float8")
}

// cond draws a condition.
func (g *gen) cond(sc *genScope, depth int) string {
	k := g.kind(sc)
	x := func() string { return g.expr(sc, k, g.n(2)) }
	switch n := g.n(17); {
	case n < 4:
		right := g.constant(k)
		if g.one(2) {
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
		return g.expr(sc, kindInt, 1) + fmt.Sprintf(" in (%d, %d, %d)", g.n(9), g.n(9), g.n(9))
	case n == 15 && depth == 0:
		return g.expr(sc, kindInt, 0) + " = " + fmt.Sprint(g.n(8))
	case n == 11:
		return g.expr(sc, kindInt, 0) + fmt.Sprintf(" between %d and %d", g.n(4), 3+g.n(9))
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
		return cols[g.n(len(cols))] + g.pick(" like 's%'", " < 's4'", " = 's2'")
	}
	return x() + " = " + x()
}

// tied draws a condition with a sub-select that is tied to the level around it by
// an equality, as those are that can be evaluated on the segments.
func (g *gen) tied(sc *genScope, depth int) string {
	from, in := g.from(sc, depth-1)
	k := g.kind(sc)
	outer, inner := sc.of(k), in.of(k)
	if len(outer) == 0 || len(inner) == 0 {
		return g.cond(sc, depth-1)
	}
	o, i := outer[g.n(len(outer))], inner[g.n(len(inner))]
	where := " where true"
	if in.commaJoin != "" {
		where = " where " + in.commaJoin
	}
	if g.one(3) {
		where += " and " + g.cond(in, 0)
	}
	tie := " and " + i + " = " + o
	val := g.kind(in)
	v := in.of(val)
	if len(v) == 0 {
		v, val = inner, k
	}
	e := v[g.n(len(v))]
	switch g.n(6) {
	case 0:
		return "exists (select *" + from + where + tie + ")"
	case 1:
		return "not exists (select 1" + from + where + tie + ")"
	case 2:
		return g.expr(sc, val, 0) + g.pick(" in ", " not in ") + "(select " + e + from + where + tie + ")"
	case 3:
		return g.expr(sc, val, 0) + g.pick(" = ", " < ", " >= ") + "(select " + g.pick("min", "max") + "(" + e + ")" + from + where + tie + ")"
	case 4:
		return o + g.pick(" in ", " in ", " not in ") + "(select " + i + from + where + " group by " + i + " having count(*) > " + fmt.Sprint(g.n(3)) + ")"
	}
	return o + g.pick(" in ", " = any ", " not in ") + "(select " + i + from + where + ")"
}

// aggSel draws a sub-select of one row.
func (g *gen) aggSel(outer *genScope, kind byte, depth int) (string, bool) {
	from, sc := g.from(outer, depth)
	where := ""
	if g.one(2) {
		where = " where " + g.cond(sc, 0)
	}
	return "select " + g.pick("min", "max") + "(" + g.expr(sc, kind, 1) + ")" + from + where, true
}

// aggOut draws a result of an aggregating level: over groups gs, rows sc.
func (g *gen) aggOut(sc, gs *genScope, kind byte, depth int) string {
	if cols := gs.of(kind); len(cols) > 0 && g.n(4) > 0 {
		return cols[g.n(len(cols))]
	}
	e := g.agg(sc, kind, depth)
	if kind == kindInt && g.one(4) {
		return "(" + e + " + 1)"
	}
	if g.one(10) && len(gs.cols) > 0 && kind == kindInt {
		return "(rank() over (order by " + e + "))::int"
	}
	return e
}

// agg draws an aggregate of a kind.
func (g *gen) agg(sc *genScope, kind byte, depth int) string {
	x := func(k byte) string { return g.expr(sc, k, 1) }
	filter := ""
	if g.one(6) {
		filter = " filter (where " + g.cond(sc, 0) + ")"
	}
	switch kind {
	case kindInt:
		if g.counted != "" && g.one(2) {
			return "count(distinct " + g.counted + ")" + filter
		}
		if g.one(8) {
			return "count(distinct " + x(allKinds[g.n(len(allKinds))]) + ")" + filter
		}
		return g.pick("count(*)", "count("+x(kindText)+")", "max("+x(kindInt)+")", "min("+x(kindInt)+")",
			"sum("+x(kindInt)+")", "sum(distinct "+x(kindInt)+")", "bit_or("+x(kindInt)+")") + filter
	case kindText:
		e := x(kindText)
		return g.pick("min("+e+")", "max("+e+")", "string_agg("+e+", ',' order by "+e+")") + filter
	case kindNum:
		return g.pick("sum("+x(kindNum)+")", "avg("+x(kindInt)+")", "avg("+x(kindNum)+")", "max("+x(kindNum)+")", "sum(distinct "+x(kindNum)+")", "avg(distinct "+x(kindInt)+")") + filter
	case kindDate:
		return g.pick("min(", "max(") + x(kindDate) + ")" + filter
	case kindBool:
		return g.pick("bool_and", "bool_or", "every") + "(" + x(kindBool) + ")" + filter
	case kindChar:
		return g.pick("min(", "max(") + x(kindChar) + ")" + filter
	case kindTime, kindStamp, kindZoned:
		return g.pick("min(", "max(") + x(kind) + ")" + filter
	case kindUUID, kindBytes:
		e := x(kind)
		return "(array_agg(" + e + " order by " + e + ")" + filter + ")[1]"
	}
	return g.pick("sum(", "avg(", "max(") + x(kindReal) + ")" + filter
}

// window draws a window function whose value does not depend on the order of
// peers.
func (g *gen) window(sc *genScope, kind byte) string {
	def := ""
	if g.one(2) {
		def = "partition by " + g.expr(sc, kindInt, 0)
		if g.one(3) {
			def += ", " + g.expr(sc, kindText, 0)
		}
	}
	if g.one(2) {
		def += " order by " + g.expr(sc, kindInt, 1)
	}
	if kind == kindNum {
		return "sum(" + g.expr(sc, kindNum, 0) + ") over (" + def + ")"
	}
	return g.pick("rank()", "dense_rank()", "count(*)", "max("+g.expr(sc, kindInt, 0)+")") + " over (" + def + ")"
}
