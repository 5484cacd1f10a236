package clustertest

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// generator draws random SELECTs whose answer is determined: no function of
// time or chance, no LIMIT without a total order, no sum of floats.
type generator struct {
	rt     *rapid.T
	tables []table
	names  int
	depth  int
}

// ref is a column that an expression may use: alias.name.
type ref struct{ sql, typ string }

func (g *generator) n(least, most int) int { return rapid.IntRange(least, most).Draw(g.rt, "n") }
func (g *generator) coin() bool            { return rapid.Bool().Draw(g.rt, "coin") }
func (g *generator) pick(of ...string) string {
	return rapid.SampledFrom(of).Draw(g.rt, "pick")
}

func (g *generator) alias() string {
	g.names++
	return fmt.Sprintf("a%d", g.names)
}

// query returns a statement and whether it fixes the order of its rows.
func (g *generator) query() (sql string, ordered bool) {
	sql, typs := g.body()
	switch g.n(0, 11) {
	case 0, 1:
		name := g.alias()
		sql = fmt.Sprintf("with %s as (%s) select * from %s", name, sql, name)
	case 2:
		sql, typs = g.twice(sql, typs)
	case 3:
		sql, typs = g.recursive()
	}
	if !g.coin() {
		return sql, false
	}
	// By every output column, so that rows that tie are equal.
	keys := make([]string, len(typs))
	for i := range typs {
		keys[i] = fmt.Sprint(i+1) + g.pick("", " desc", " nulls first", " desc nulls last")
	}
	sql += " order by " + strings.Join(keys, ", ")
	if g.coin() {
		sql += fmt.Sprintf(" limit %d", g.n(0, 8))
		if g.coin() {
			sql += fmt.Sprintf(" offset %d", g.n(0, 5))
		}
	}
	return sql, true
}

// body draws a SELECT, or a combination of two, without ORDER BY.
func (g *generator) body() (sql string, typs []string) {
	if g.n(0, 7) == 0 {
		typs = []string{g.pick("int", "text"), g.pick("int", "bigint", "date")}
		sql = "(" + g.plain(typs, nil) + ")"
		for range g.n(1, 2) {
			op := g.pick("union", "union all", "intersect", "intersect all", "except", "except all")
			sql = fmt.Sprintf("(%s %s (%s))", sql, op, g.plain(typs, nil))
		}
		return sql, typs
	}
	switch g.n(0, 7) {
	case 0, 1:
		return g.grouped()
	case 2, 3:
		return g.windowed()
	case 4:
		return g.first()
	default:
		for range g.n(1, 4) {
			typs = append(typs, g.pick(types...))
		}
		return g.plain(typs, nil), typs
	}
}

// plain draws SELECT exprs FROM … WHERE …, possibly correlated with outer.
func (g *generator) plain(typs []string, outer []ref) string {
	from, refs := g.from()
	refs = append(refs, outer...)
	exprs := make([]string, len(typs))
	for i, typ := range typs {
		exprs[i] = g.expr(typ, refs) + fmt.Sprintf(" as o%d", i)
	}
	distinct := ""
	if g.n(0, 5) == 0 {
		distinct = "distinct "
	}
	return fmt.Sprintf("select %s%s from %s%s", distinct, strings.Join(exprs, ", "), from, g.where(refs))
}

func (g *generator) where(refs []ref) string {
	if g.coin() {
		return ""
	}
	return " where " + g.expr("bool", refs)
}

// from draws a FROM list and the columns it offers.
func (g *generator) from() (sql string, refs []ref) {
	sql, refs = g.source(nil)
	for range g.n(0, 2) {
		right, more := g.source(nil)
		join := g.pick("join", "join", "left join", "right join", "full join")
		on := g.equality(refs, more)
		if on == "" {
			join, on = "cross join", ""
		} else if join != "full join" && g.n(0, 3) == 0 {
			on += " and " + g.expr("bool", slices.Concat(refs, more))
		}
		sql = fmt.Sprintf("%s %s %s", sql, join, right)
		if on != "" {
			sql += " on " + on
		}
		refs = append(refs, more...)
	}
	if g.n(0, 9) == 0 {
		right, more := g.source(refs)
		sql += ", " + right
		refs = append(refs, more...)
	}
	return sql, refs
}

// equality joins the sides on columns of one type; keys first, as people do.
func (g *generator) equality(left, right []ref) string {
	var pairs []string
	for _, l := range left {
		for _, r := range right {
			if l.typ == r.typ || (number(l.typ) && number(r.typ)) {
				pair := l.sql + " = " + r.sql
				pairs = append(pairs, pair)
				if strings.HasSuffix(l.sql, ".k") && strings.HasSuffix(r.sql, ".k") {
					pairs = append(pairs, pair, pair, pair)
				}
			}
		}
	}
	if pairs == nil {
		return ""
	}
	on := g.pick(pairs...)
	if g.n(0, 4) == 0 {
		on += " and " + g.pick(pairs...)
	}
	return on
}

func number(typ string) bool { return typ == "int" || typ == "bigint" || typ == "numeric" }

// source draws one FROM item: a table, a view, a list or a subquery, which may
// be LATERAL to what stands left of it.
func (g *generator) source(left []ref) (sql string, refs []ref) {
	a := g.alias()
	if g.depth < 2 && g.n(0, 5) == 0 {
		g.depth++
		defer func() { g.depth-- }()
		var body string
		var typs []string
		lateral := ""
		switch n := g.n(0, 8); {
		case n == 0:
			body, typs = g.list()
		case n == 1:
			body, typs = "select generate_series(-1, 3)", []string{"int"}
		case left != nil && n < 6:
			lateral, typs = "lateral ", []string{g.pick(types...), g.pick(types...)}
			body = g.plain(typs, left)
		default:
			body, typs = g.body()
		}
		cols := make([]string, len(typs))
		for i, typ := range typs {
			cols[i] = fmt.Sprintf("o%d", i)
			refs = append(refs, ref{a + "." + cols[i], typ})
		}
		return fmt.Sprintf("%s(%s) %s (%s)", lateral, body, a, strings.Join(cols, ", ")), refs
	}
	tb := rapid.SampledFrom(g.tables).Draw(g.rt, "table")
	for _, col := range tb.cols {
		refs = append(refs, ref{a + "." + col.name, col.typ})
	}
	return tb.name + " " + a, refs
}

// grouped draws an aggregation.
func (g *generator) grouped() (sql string, typs []string) {
	from, refs := g.from()
	var keys, outputs []string
	for range g.n(0, 2) {
		r := rapid.SampledFrom(refs).Draw(g.rt, "key")
		keys = append(keys, r.sql)
		outputs, typs = append(outputs, r.sql), append(typs, r.typ)
	}
	for range g.n(1, 3) {
		agg, typ := g.aggregate(refs)
		if !strings.HasPrefix(agg, "(") && g.n(0, 4) == 0 {
			agg += " filter (where " + g.expr("bool", refs) + ")"
		}
		outputs, typs = append(outputs, agg), append(typs, typ)
	}
	if keys != nil && g.n(0, 5) == 0 {
		outputs, typs = append(outputs, "grouping("+keys[0]+")"), append(typs, "int")
	}
	sql = fmt.Sprintf("select %s from %s%s", strings.Join(outputs, ", "), from, g.where(refs))
	if keys != nil {
		by := strings.Join(keys, ", ")
		switch g.n(0, 10) {
		case 0:
			by = "rollup (" + by + ")"
		case 1:
			by = "grouping sets ((), (" + by + "))"
		case 2:
			by = "cube (" + by + ")"
		case 3:
			by = fmt.Sprintf("grouping sets ((%s), (%s))", by, keys[0])
		}
		sql += " group by " + by
	}
	if g.n(0, 3) == 0 {
		agg, typ := g.aggregate(refs)
		sql += fmt.Sprintf(" having %s is not null and %[1]s %s %s", agg, g.pick("=", "<>", "<", ">="), g.literal(typ))
	}
	return sql, typs
}

// aggregate draws an aggregate whose answer does not depend on the order of
// its input.
func (g *generator) aggregate(refs []ref) (sql, typ string) {
	x := func(typ string) string { return g.expr(typ, refs) }
	switch g.n(0, 15) {
	case 12:
		return "sum(distinct " + x("int") + ")", "bigint"
	case 13:
		v := x("int")
		return fmt.Sprintf("(array_to_string(array_agg(%s order by %s), ',', '-'))", v, v), "text"
	case 14:
		return "percentile_disc(0.5) within group (order by " + x(g.pick("int", "int", "int")) + ")", "int"
	case 15:
		return "(round(var_pop(" + x("int") + "), 3))", "numeric"
	case 0:
		return "count(*)", "bigint"
	case 1:
		return "count(" + x(g.pick(types...)) + ")", "bigint"
	case 2:
		return "count(distinct " + x(g.pick("int", "text", "date")) + ")", "bigint"
	case 3:
		return "sum(" + x("int") + ")", "bigint"
	case 4:
		return "sum(" + x(g.pick("bigint", "numeric")) + ")", "numeric"
	case 5:
		return "avg(" + x(g.pick("int", "bigint", "numeric")) + ")", "numeric"
	case 6:
		return g.pick("bool_and", "bool_or", "every") + "(" + x("bool") + ")", "bool"
	case 7:
		v := x("text")
		return fmt.Sprintf("string_agg(%s, '+' order by %s)", v, v), "text"
	case 8:
		return g.pick("bit_and", "bit_or") + "(" + x("int") + ")", "int"
	case 9:
		v := x("int")
		return fmt.Sprintf("string_agg(%s::text, ',' order by %s)", v, v), "text"
	default:
		typ := g.pick("int", "bigint", "numeric", "text", "date")
		return g.pick("min", "max") + "(" + x(typ) + ")", typ
	}
}

// windowed draws a SELECT with a window function that treats ties alike.
func (g *generator) windowed() (sql string, typs []string) {
	from, refs := g.from()
	r := rapid.SampledFrom(refs).Draw(g.rt, "column")
	part, order := rapid.SampledFrom(refs).Draw(g.rt, "partition"), rapid.SampledFrom(refs).Draw(g.rt, "order")
	fn, typ := g.pick("rank()", "dense_rank()", "count(*)"), "bigint"
	if g.coin() {
		fn, typ = "max("+g.expr("int", refs)+")", "int"
	}
	over := "order by " + order.sql
	if g.n(0, 2) == 0 {
		// By everything there is: rows that tie are equal.
		keys := make([]string, len(refs))
		for i, r := range refs {
			keys[i] = r.sql
		}
		over = "order by " + strings.Join(keys, ", ")
		switch g.n(0, 3) {
		case 0:
			fn, typ = "row_number()", "bigint"
		case 1:
			fn, typ = g.pick("lag", "lead", "first_value", "last_value")+"("+r.sql+")", r.typ
		case 2:
			fn, typ = "ntile(3)", "int"
		case 3:
			fn, typ = "sum("+g.expr("int", refs)+")", "bigint"
			over += g.pick(" rows between 1 preceding and 1 following", " rows unbounded preceding")
		}
	}
	if g.coin() {
		over = "partition by " + part.sql + " " + over
	}
	return fmt.Sprintf("select %s, %s over (%s) from %s%s", r.sql, fn, over, from, g.where(refs)), []string{r.typ, typ}
}

func (g *generator) literal(typ string) string {
	if g.n(0, 9) == 0 {
		return "null::" + typ
	}
	v := rapid.SampledFrom(values[typ]).Draw(g.rt, "literal")
	if typ == "text" {
		return v + "::text"
	}
	return "(" + v + ")::" + typ
}

// expr draws an expression of a type.
func (g *generator) expr(typ string, refs []ref) string {
	g.depth++
	defer func() { g.depth-- }()
	var own []string
	for _, r := range refs {
		if r.typ == typ {
			own = append(own, r.sql)
		}
	}
	leaf := func() string {
		if own != nil && g.n(0, 4) > 0 {
			return g.pick(own...)
		}
		if typ == "bool" && refs != nil && g.n(0, 9) > 0 {
			r := rapid.SampledFrom(refs).Draw(g.rt, "column")
			return fmt.Sprintf("(%s %s %s)", r.sql, g.pick("=", "<>", "<", ">", ">="), g.literal(r.typ))
		}
		return g.literal(typ)
	}
	if g.depth > 3 || g.n(0, 2) == 0 && typ != "bool" {
		return leaf()
	}
	x := func(typ string) string { return g.expr(typ, refs) }
	switch g.n(0, 9) {
	case 0:
		return fmt.Sprintf("coalesce(%s, %s)", x(typ), leaf())
	case 1:
		return fmt.Sprintf("case when %s then %s else %s end", x("bool"), x(typ), leaf())
	case 2:
		if typ != "bool" && g.depth < 2 {
			g.depth++
			defer func() { g.depth-- }()
			from, inner := g.from()
			all := slices.Concat(inner, refs)
			// Of inner columns only: the aggregate is the subquery's own then.
			return fmt.Sprintf("(select %s(%s) from %s%s)", g.pick("min", "max"), g.expr(typ, inner), from, g.where(all))
		}
	case 3:
		if typ != "bool" {
			return fmt.Sprintf("%s(%s, %s)", g.pick("nullif", "greatest", "least"), x(typ), leaf())
		}
	}
	switch typ {
	case "int":
		return g.pick("length("+x("text")+")", "("+x("int")+" % 5)", "sign("+x("int")+")::int", "("+x("int")+" / 3 + 1)",
			"position("+x("text")+" in "+leafText(g, refs)+")", "extract(year from "+x("date")+")::int", "("+x("date")+" - "+x("date")+")", "ascii("+x("text")+")")
	case "bigint":
		return g.pick(x("int")+"::bigint", "("+x("bigint")+" + 1)", "("+x("bigint")+" % 7)")
	case "numeric":
		return g.pick("("+x("numeric")+" + "+leaf()+")", "round("+x("numeric")+", 1)", x("int")+"::numeric")
	case "text":
		return g.pick("("+x("text")+" || "+leaf()+")", "upper("+x("text")+")", "substr("+x("text")+", 1, 1)", x("int")+"::text",
			"concat("+x("text")+", "+x("int")+")", "to_char("+x("date")+", 'YYYY-MM')", "md5("+x("text")+")", "replace("+x("text")+", 'a', 'bc')")
	case "date":
		return "(" + x("date") + " + 1)"
	}
	return g.condition(refs)
}

// condition draws a boolean expression.
func (g *generator) condition(refs []ref) string {
	typ := g.pick(types...)
	x := func() string { return g.expr(typ, refs) }
	switch g.n(0, 10) {
	case 0:
		return fmt.Sprintf("(%s and %s)", g.expr("bool", refs), g.expr("bool", refs))
	case 1:
		return fmt.Sprintf("(%s or %s)", g.expr("bool", refs), g.expr("bool", refs))
	case 2:
		return "(not " + g.expr("bool", refs) + ")"
	case 3:
		return fmt.Sprintf("(%s is %snull)", x(), g.pick("", "not "))
	case 4:
		return fmt.Sprintf("(%s is %sdistinct from %s)", x(), g.pick("", "not "), x())
	case 5:
		return fmt.Sprintf("(%s %sin (%s, %s))", x(), g.pick("", "not "), g.literal(typ), g.literal(typ))
	case 8:
		return g.special(refs)
	case 6, 7:
		if g.depth < 3 {
			g.depth += 2
			defer func() { g.depth -= 2 }()
			switch g.n(0, 7) {
			case 0:
				return fmt.Sprintf("(%s %s %s (%s))", x(), g.pick("=", "<>", "<", ">="), g.pick("any", "all"), g.plain([]string{typ}, refs))
			case 1:
				return fmt.Sprintf("((%s, %s) %sin (%s))", x(), g.expr("int", refs), g.pick("", "not "), g.plain([]string{typ, "int"}, refs))
			}
			if g.coin() {
				return fmt.Sprintf("%sexists (%s)", g.pick("", "not "), g.plain([]string{"int"}, refs))
			}
			return fmt.Sprintf("(%s %sin (%s))", x(), g.pick("", "not "), g.plain([]string{typ}, refs))
		}
	}
	return fmt.Sprintf("(%s %s %s)", x(), g.pick("=", "=", "<>", "<", "<=", ">", ">="), x())
}
