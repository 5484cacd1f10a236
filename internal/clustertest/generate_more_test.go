package clustertest

import (
	"fmt"
	"regexp"
	"strings"

	"pgregory.net/rapid"
)

// twice draws a CTE that is read two times.
func (g *generator) twice(sql string, typs []string) (string, []string) {
	cte, a, b := g.alias(), g.alias(), g.alias()
	cols := make([]string, len(typs))
	var left, right []ref
	for i, typ := range typs {
		cols[i] = fmt.Sprintf("o%d", i)
		left = append(left, ref{a + "." + cols[i], typ})
		right = append(right, ref{b + "." + cols[i], typ})
	}
	head := fmt.Sprintf("with %s (%s) as %s(%s)", cte, strings.Join(cols, ", "), g.pick("", "materialized ", "not materialized "), sql)
	if g.coin() {
		return fmt.Sprintf("%s select * from %s union all select * from %s", head, cte, cte), typs
	}
	refs := append(left, right...)
	out := []string{g.pick(types...), g.pick(types...)}
	return fmt.Sprintf("%s select %s, %s from %s %s %s %s %s on %s%s", head, g.expr(out[0], refs), g.expr(out[1], refs),
		cte, a, g.pick("join", "left join"), cte, b, g.equality(left, right), g.where(refs)), out
}

// recursive draws a WITH RECURSIVE that comes to an end.
func (g *generator) recursive() (string, []string) {
	first := g.plain([]string{"int"}, nil)
	a := g.alias()
	step := "select n / 2 from " + a + " where n <> 0"
	for _, tb := range g.tables {
		for _, col := range tb.cols {
			if col.typ == "int" {
				step = fmt.Sprintf("select b.%s / 3 from %s join %s b on b.%s = n where n <> 0", col.name, a, tb.name, col.name)
			}
		}
	}
	return fmt.Sprintf("with recursive %s (n) as (%s union %s) select n from %s", a, first, step, a), []string{"int"}
}

// first draws the first rows of an order, or of each group of an order.
func (g *generator) first() (string, []string) {
	typs := []string{g.pick(types...), g.pick(types...), g.pick(types...)}
	from, refs := g.from()
	exprs := make([]string, len(typs))
	for i, typ := range typs {
		exprs[i] = fmt.Sprintf("%s as o%d", g.expr(typ, refs), i)
	}
	list := strings.Join(exprs, ", ")
	if g.coin() {
		a := g.alias()
		return fmt.Sprintf("select o0, o1, o2 from (select distinct on (o0) * from (select %s from %s%s) %s order by o0, o1, o2) %s", list, from, g.where(refs), a, a), typs
	}
	limit := fmt.Sprint(g.n(0, 9))
	if g.n(0, 3) == 0 {
		tb := rapid.SampledFrom(g.tables).Draw(g.rt, "table")
		limit = fmt.Sprintf("(select count(*) %% 7 from %s)", tb.name)
	}
	return fmt.Sprintf("select o0, o1, o2 from (select %s from %s%s order by 1, 2, 3 limit %s) %s", list, from, g.where(refs), limit, g.alias()), typs
}

// list draws a VALUES list.
func (g *generator) list() (string, []string) {
	typs := []string{g.pick(types...), g.pick(types...)}
	rows := make([]string, g.n(1, 4))
	for i := range rows {
		rows[i] = fmt.Sprintf("(%s, %s)", g.literal(typs[0]), g.literal(typs[1]))
	}
	return "values " + strings.Join(rows, ", "), typs
}

// special draws a condition of the less common kinds.
func (g *generator) special(refs []ref) string {
	x := func(typ string) string { return g.expr(typ, refs) }
	switch g.n(0, 5) {
	case 0:
		return fmt.Sprintf("(%s %slike %s)", x("text"), g.pick("", "not "), g.pick("'a%'", "'_'", "'%b'"))
	case 1:
		typ := g.pick("int", "text", "date")
		return fmt.Sprintf("(%s %sbetween %s and %s)", x(typ), g.pick("", "not "), x(typ), g.literal(typ))
	case 2:
		return fmt.Sprintf("(%s is %s)", x("bool"), g.pick("true", "not true", "false", "unknown", "not unknown"))
	case 3:
		return fmt.Sprintf("(%s = any (array[%s, %s]))", x("int"), g.literal("int"), x("int"))
	case 4:
		return fmt.Sprintf("((%s, %s) %s (%s, %s))", x("int"), x("text"), g.pick("=", "<", ">=", "is distinct from"), x("int"), x("text"))
	default:
		return fmt.Sprintf("(%s ~ %s)", x("text"), g.pick("'^a'", "'[A-Z]'", "'b$'"))
	}
}

// leafText draws a text without anything below it.
func leafText(g *generator, refs []ref) string {
	for _, r := range refs {
		if r.typ == "text" && g.coin() {
			return r.sql
		}
	}
	return g.literal("text")
}

var numberLiteral = regexp.MustCompile(`\((-?[0-9.e]+)\)::(int|bigint|numeric)\b`)

// parameters makes parameters of some of a query's numbers.
func (g *generator) parameters(sql string) (string, [][]byte) {
	var params [][]byte
	sql = numberLiteral.ReplaceAllStringFunc(sql, func(lit string) string {
		if g.coin() {
			return lit
		}
		m := numberLiteral.FindStringSubmatch(lit)
		params = append(params, []byte(m[1]))
		return fmt.Sprintf("$%d::%s", len(params), m[2])
	})
	return sql, params
}
