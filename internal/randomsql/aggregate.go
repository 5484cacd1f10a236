package randomsql

// aggOut draws a result of an aggregating level: over groups gs, rows sc.
func (g *Generator) aggOut(sc, gs *scope, kind byte, depth int) string {
	if cols := gs.of(kind); len(cols) > 0 && g.N(4) > 0 {
		return cols[g.N(len(cols))]
	}
	e := g.agg(sc, kind, depth)
	if kind == kindInt && g.One(4) {
		return "(" + e + " + 1)"
	}
	if g.One(10) && len(gs.cols) > 0 && kind == kindInt {
		return "(rank() over (order by " + e + "))::int"
	}
	return e
}

// agg draws an aggregate of a kind.
func (g *Generator) agg(sc *scope, kind byte, depth int) string {
	x := func(k byte) string { return g.expr(sc, k, 1) }
	filter := ""
	if g.One(6) {
		filter = " filter (where " + g.cond(sc, 0) + ")"
	}
	switch kind {
	case kindInt:
		if g.counted != "" && g.One(2) {
			return "count(distinct " + g.counted + ")" + filter
		}
		if g.One(8) {
			return "count(distinct " + x(allKinds[g.N(len(allKinds))]) + ")" + filter
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
func (g *Generator) window(sc *scope, kind byte) string {
	def := ""
	if g.One(2) {
		def = "partition by " + g.expr(sc, kindInt, 0)
		if g.One(3) {
			def += ", " + g.expr(sc, kindText, 0)
		}
	}
	if g.One(2) {
		def += " order by " + g.expr(sc, kindInt, 1)
	}
	if kind == kindNum {
		return "sum(" + g.expr(sc, kindNum, 0) + ") over (" + def + ")"
	}
	return g.pick("rank()", "dense_rank()", "count(*)", "max("+g.expr(sc, kindInt, 0)+")") + " over (" + def + ")"
}
