package randomsql

import (
	"fmt"
)

// expr draws an expression of a kind.
func (g *Generator) expr(sc *scope, kind byte, depth int) string {
	cols := sc.of(kind)
	if len(cols) > 0 && (depth <= 0 || !g.One(4)) {
		return cols[g.N(len(cols))]
	}
	if sc.outer != nil && g.One(3) {
		if cols := sc.outer.of(kind); len(cols) > 0 {
			return cols[g.N(len(cols))]
		}
	}
	if kind == kindInt && g.segment && len(sc.segs) > 0 && g.One(4) {
		g.used = true
		return sc.segs[g.N(len(sc.segs))] + ".gp_segment_id"
	}
	if depth > 0 {
		x := func(k byte) string { return g.expr(sc, k, depth-1) }
		switch kind {
		case kindInt:
			switch g.N(6) {
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
			switch g.N(5) {
			case 0:
				return "upper(" + x(kindText) + ")"
			case 1:
				return "(" + x(kindText) + " || " + x(kindText) + ")"
			case 2:
				return "to_char(" + x(kindDate) + ", 'YYYY/MM/DD')"
			case 3:
				if len(sc.rows) > 0 {
					return sc.rows[g.N(len(sc.rows))] + "::text"
				}
			}
		case kindNum:
			if g.One(2) {
				return "(" + x(kindNum) + " + 1)"
			}
		case kindDate:
			if g.One(2) {
				return "(" + x(kindDate) + " + 1)"
			}
		case kindBool:
			return "(" + g.cond(sc, 0) + ")"
		case kindReal:
			if g.One(2) {
				return "(" + x(kindReal) + " * 2)"
			}
		}
	}
	return g.constant(kind)
}

// constant draws a constant, or a parameter.
func (g *Generator) constant(kind byte) string {
	if typ := paramTypes[kind]; typ != "" && g.One(12) {
		v := map[byte]string{kindInt: fmt.Sprint(g.N(10)), kindText: g.pick("s0", "s1", "s3"), kindNum: g.pick("1.5", "3"),
			kindDate: g.pick("2020-01-02", "2020-01-04")}[kind]
		g.params = append(g.params, [2]string{v, typ})
		return fmt.Sprintf("$%d::%s", len(g.params), typ)
	}
	return g.literal(kind)
}

func (g *Generator) literal(kind byte) string {
	switch kind {
	case kindInt:
		return fmt.Sprint(g.N(10))
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
		return fmt.Sprintf("'%s%d'::uuid", uuidStart, g.N(6))
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
