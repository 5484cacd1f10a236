package plan

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// Random tables and queries that PostgreSQL takes, mostly.

// A column's name says its kind, so that joins by USING fit.
const (
	kindInt  = 'i'
	kindText = 't'
	kindNum  = 'n'
	kindDate = 'd'
	kindBool = 'b'
	kindReal = 'r'
)

var columnKinds = map[string]byte{"a": kindInt, "b": kindInt, "c": kindText, "d": kindNum, "e": kindDate, "f": kindBool, "g": kindReal, "h": kindText}

var kindTypes = map[byte][]string{
	kindInt: {"int", "bigint", "smallint"}, kindText: {"text", "varchar(20)", "text"}, kindNum: {"numeric", "numeric(10,2)"},
	kindDate: {"date"}, kindBool: {"bool"}, kindReal: {"float8", "float4"},
}

// genColumn is a column an expression may use.
type genColumn struct {
	ref  string // as written
	kind byte
}

// genTable is a table, view or WITH query.
type genTable struct {
	name string
	cols []genColumn // ref is the bare name
	base bool
	pk   bool
}

type gen struct {
	t       *rapid.T
	tables  []genTable
	aliases int
	// focus: base tables only and shallow expressions, so that most levels
	// can run on the segments.
	focus bool
}

// n draws a number below n. rapid prefers small ones, here all are as likely;
// what rapid shrinks to is 0 all the same.
func (g *gen) n(n int) int {
	x := rapid.Uint64().Draw(g.t, "n")
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return int(x % uint64(n))
}

// one is true once in n times.
func (g *gen) one(n int) bool { return g.n(n) == n-1 }

func (g *gen) pick(of ...string) string { return of[g.n(len(of))] }

func (g *gen) alias() string {
	g.aliases++
	return fmt.Sprintf("x%d", g.aliases)
}

// table draws a table: its definition and its rows.
func (g *gen) table(i int) (t genTable, create, rows string) {
	t = genTable{name: fmt.Sprintf("t%d", i), base: true}
	names := strings.Split("abcdefgh", "")
	count := 2 + g.n(4)
	var defs, vals []string
	t.pk = g.one(3)
	seed := g.n(1000)
	for k := 0; len(t.cols) < count; k++ {
		at := g.n(len(names))
		if k == 0 {
			at = 0 // every table has a
		}
		name := names[at]
		names = append(names[:at], names[at+1:]...)
		kind := columnKinds[name]
		typ := kindTypes[kind][g.n(len(kindTypes[kind]))]
		t.cols = append(t.cols, genColumn{name, kind})
		h := fmt.Sprintf("(hashint4(g * 7 + %d) & 1023)", seed+k)
		val := map[byte]string{
			kindInt:  fmt.Sprintf("%s %% %d", h, 4+g.n(12)),
			kindText: fmt.Sprintf("'s' || %s %% %d", h, 3+g.n(6)),
			kindNum:  fmt.Sprintf("(%s %% 9) / 2.0", h),
			kindDate: fmt.Sprintf("date '2020-01-01' + %s %% 5", h),
			kindBool: fmt.Sprintf("%s %% 2 = 0", h),
			kindReal: fmt.Sprintf("(%s %% 9) / 2.0", h),
		}[kind]
		switch {
		case k == 0 && t.pk:
			val, typ = "g", typ+" primary key"
		case g.one(2):
			val = fmt.Sprintf("case when %s %% 5 > 0 then %s end", h, val)
		}
		defs = append(defs, name+" "+typ)
		vals = append(vals, val)
	}
	dist := "distributed randomly"
	switch n := g.n(8); {
	case t.pk || n < 4:
		dist = "distributed by (a)"
		if !t.pk && g.one(3) {
			dist = "distributed by (a, " + t.cols[1].ref + ")"
		}
	case n == 4:
		dist = "distributed by (" + t.cols[1].ref + ")"
	case n == 5 || n == 6:
		dist = "distributed replicated"
	}
	create = fmt.Sprintf("create table %s (%s) %s", t.name, strings.Join(defs, ", "), dist)
	rows = fmt.Sprintf("select %s from generate_series(1, %d) g", strings.Join(vals, ", "), g.n(20))
	return t, create, rows
}

// query draws a whole query. ordered: its rows have a definite order; any:
// only their number is definite.
func (g *gen) query() (sql string, ordered, any bool) {
	g.aliases, g.focus = 0, g.one(2)
	saved := g.tables
	defer func() { g.tables = saved }()
	with := ""
	if g.one(10) {
		name := "w" + g.alias()
		body, kinds := g.sel(nil, 1)
		var cols []genColumn
		var list []string
		for i, k := range kinds {
			cols = append(cols, genColumn{fmt.Sprintf("q%d", i+1), k})
			list = append(list, cols[i].ref)
		}
		g.tables = append(append([]genTable(nil), g.tables...), genTable{name: name, cols: cols}, genTable{name: name, cols: cols})
		with = "with " + name + "(" + strings.Join(list, ", ") + ") as (" + body + ") "
	}
	depth := g.n(3)
	if g.focus {
		depth = 0
	}
	body, kinds := g.sel(nil, depth)
	if g.one(12) {
		if other, ok := g.selOf(kinds, nil, 1); ok {
			body = body + " " + g.pick("union", "union all", "except", "intersect", "except all") + " " + other
		}
	}
	if g.one(6) {
		body = "select * from (" + body + ") z"
	}
	switch g.n(4) {
	case 0:
		var keys []string
		for i := range kinds {
			keys = append(keys, fmt.Sprintf("%d%s", i+1, g.pick("", " desc", " nulls first", " desc nulls last")))
		}
		body += " order by " + strings.Join(keys, ", ")
		ordered = true
		if g.one(2) {
			body += fmt.Sprintf(" limit %d", g.n(12))
			if g.one(2) {
				body += fmt.Sprintf(" offset %d", g.n(5))
			}
		}
	case 1:
		if g.one(3) {
			body += fmt.Sprintf(" limit %d", g.n(20))
			any = true
		}
	}
	return with + body, ordered, any
}

// scopeOf is what a query's expressions see: its own columns first.
type genScope struct {
	cols  []genColumn
	rows  []string // aliases of base tables, for whole rows
	pks   []string // aliases of tables with primary key a
	outer *genScope

	commaJoin string // a condition for the items of a FROM list
}

func (s *genScope) of(kind byte) (out []string) {
	for _, c := range s.cols {
		if c.kind == kind {
			out = append(out, c.ref)
		}
	}
	return out
}

// sel draws a SELECT with 1 to 4 columns named o1, o2, …
func (g *gen) sel(outer *genScope, depth int) (string, []byte) {
	return g.selKinds(nil, outer, depth)
}

// selOf draws a SELECT with result columns of these kinds.
func (g *gen) selOf(kinds []byte, outer *genScope, depth int) (string, bool) {
	sql, _ := g.selKinds(kinds, outer, depth)
	return sql, true
}

func (g *gen) selKinds(want []byte, outer *genScope, depth int) (string, []byte) {
	from, sc := g.from(outer, depth)
	where := ""
	if !g.one(3) {
		where = " where " + g.cond(sc, depth)
	}
	if sc.commaJoin != "" && !g.one(3) {
		if where == "" {
			where = " where " + sc.commaJoin
		} else {
			where += " and " + sc.commaJoin
		}
	}
	kinds := want
	if kinds == nil {
		for range 1 + g.n(3) {
			kinds = append(kinds, g.kind(sc))
		}
	}
	var outs []string
	tail := ""
	distinct := ""
	if g.n(5) < 2 { // aggregate
		var groups []string
		gs := &genScope{outer: outer}
		for range g.n(3) {
			k := g.kind(sc)
			e := g.expr(sc, k, 1)
			if cols := sc.of(k); len(cols) > 0 && !g.one(4) {
				e = cols[g.n(len(cols))]
			}
			if isConst(e) {
				continue
			}
			groups = append(groups, e)
			gs.cols = append(gs.cols, genColumn{e, k})
		}
		if len(sc.pks) > 0 && g.one(2) {
			// Columns that depend on a primary key need no grouping.
			pk := sc.pks[g.n(len(sc.pks))]
			groups = append(groups, pk+".a")
			for _, c := range sc.cols {
				if strings.HasPrefix(c.ref, pk+".") {
					gs.cols = append(gs.cols, c)
				}
			}
			if want == nil {
				kinds[0] = gs.cols[len(gs.cols)-1-g.n(2)].kind
			}
		}
		for i, k := range kinds {
			outs = append(outs, fmt.Sprintf("%s as o%d", g.aggOut(sc, gs, k, depth), i+1))
		}
		if len(groups) > 0 {
			tail = " group by " + strings.Join(groups, ", ")
			if g.one(8) {
				tail = " group by " + g.pick("rollup", "cube", "grouping sets") + " (" + strings.Join(groups, ", ") + ")"
			}
		}
		if g.one(3) {
			tail += " having " + g.agg(sc, kindInt, depth) + g.pick(" > ", " < ", " <> ") + fmt.Sprint(g.n(9))
		}
	} else {
		for i, k := range kinds {
			e := g.expr(sc, k, 2-2*g.n(2))
			if g.one(8) && (k == kindInt || k == kindNum) {
				e = g.window(sc, k)
			}
			outs = append(outs, fmt.Sprintf("%s as o%d", e, i+1))
		}
		if g.one(5) {
			distinct = "distinct "
		} else if want == nil && g.one(12) {
			distinct = "distinct on (1) "
			tail = " order by 1"
			for i := 1; i < len(kinds); i++ {
				tail += fmt.Sprintf(", %d", i+1)
			}
			return "(select " + distinct + strings.Join(outs, ", ") + from + where + tail + ")", kinds
		}
	}
	return "select " + distinct + strings.Join(outs, ", ") + from + where + tail, kinds
}

// kind draws a kind that the scope has columns of, mostly.
func (g *gen) kind(sc *genScope) byte {
	if len(sc.cols) > 0 && !g.one(6) {
		return sc.cols[g.n(len(sc.cols))].kind
	}
	return []byte{kindInt, kindText, kindNum, kindDate, kindBool, kindReal}[g.n(6)]
}

func isConst(e string) bool {
	return e == "" || e[0] == '\'' || e[0] >= '0' && e[0] <= '9' || strings.HasPrefix(e, "date") || e == "null"
}

// from draws a FROM clause.
func (g *gen) from(outer *genScope, depth int) (string, *genScope) {
	n := 1 + g.n(3)
	if depth <= 0 && n > 2 {
		n = 2
	}
	first := 1 + g.n(n)
	text, sc := g.joins(first, depth)
	if first < n {
		more, msc := g.joins(n-first, depth)
		text += ", " + more
		on := g.joinCond(sc, msc)
		sc = sc.with(msc)
		sc.commaJoin = on
	}
	sc.outer = outer
	return " from " + text, sc
}

func (s *genScope) with(o *genScope) *genScope {
	return &genScope{cols: append(append([]genColumn(nil), s.cols...), o.cols...), rows: append(append([]string(nil), s.rows...), o.rows...),
		pks: append(append([]string(nil), s.pks...), o.pks...)}
}

// joins draws a tree of joins of n items.
func (g *gen) joins(n, depth int) (string, *genScope) {
	if n == 1 {
		return g.item(depth)
	}
	k := 1 + g.n(n-1)
	left, lsc := g.joins(k, depth)
	right, rsc := g.joins(n-k, depth)
	if n-k > 1 {
		right = "(" + right + ")"
	}
	both := lsc.with(rsc)
	join := g.pick("join", "join", "join", "left join", "left join", "right join", "full join", "cross join")
	if join != "cross join" && n == 2 && g.one(5) {
		if common := commonNames(lsc, rsc); len(common) > 0 {
			if g.one(4) && len(lsc.rows)+len(rsc.rows) == 2 {
				return left + " natural " + join + " " + right, both
			}
			return left + " " + join + " " + right + " using (" + strings.Join(common[:1+g.n(len(common))], ", ") + ")", both
		}
	}
	on := g.joinCond(lsc, rsc)
	if join == "cross join" || on == "" {
		return left + " cross join " + right, both
	}
	if join != "full join" && g.one(3) {
		on += " and " + g.cond(both, 0)
	}
	return left + " " + join + " " + right + " on " + on, both
}

// commonNames are the columns of the same name and kind on both sides.
func commonNames(l, r *genScope) (out []string) {
	for _, a := range l.cols {
		for _, b := range r.cols {
			an, bn := a.ref[strings.IndexByte(a.ref, '.')+1:], b.ref[strings.IndexByte(b.ref, '.')+1:]
			if an == bn && a.kind == b.kind {
				out = append(out, an)
			}
		}
	}
	return out
}

// joinCond equates columns of two sides, columns of the same name if any.
func (g *gen) joinCond(l, r *genScope) string {
	var same, kind []string
	for _, a := range l.cols {
		for _, b := range r.cols {
			if a.kind != b.kind {
				continue
			}
			eq := a.ref + " = " + b.ref
			kind = append(kind, eq)
			if a.ref[strings.IndexByte(a.ref, '.'):] == b.ref[strings.IndexByte(b.ref, '.'):] {
				same = append(same, eq)
			}
		}
	}
	if len(kind) == 0 {
		return ""
	}
	if len(same) > 0 && !g.one(4) {
		on := same[0]
		for _, s := range same[1:] {
			if g.one(2) {
				on += " and " + s
			}
		}
		return on
	}
	return kind[g.n(len(kind))]
}

// item draws one FROM item.
func (g *gen) item(depth int) (string, *genScope) {
	a := g.alias()
	if depth > 0 && g.one(5) {
		sub, kinds := g.sel(nil, depth-1)
		if g.one(8) {
			sub += " order by 1 limit " + fmt.Sprint(5000+g.n(9))
		}
		sc := &genScope{}
		for i, k := range kinds {
			sc.cols = append(sc.cols, genColumn{fmt.Sprintf("%s.o%d", a, i+1), k})
		}
		return "(" + sub + ") " + a, sc
	}
	if g.focus {
		return g.tableItem(a)
	}
	if g.one(25) {
		return fmt.Sprintf("generate_series(1, %d) %s(a)", 1+g.n(6), a), &genScope{cols: []genColumn{{a + ".a", kindInt}}}
	}
	if g.one(25) {
		return fmt.Sprintf("(values (1, 's1'), (2, null), (%d, 's2')) %s(a, c)", g.n(9), a),
			&genScope{cols: []genColumn{{a + ".a", kindInt}, {a + ".c", kindText}}}
	}
	return g.tableItem(a)
}

func (g *gen) tableItem(a string) (string, *genScope) {
	t := g.tables[g.n(len(g.tables))]
	for g.focus && !t.base {
		t = g.tables[g.n(len(g.tables))]
	}
	sc := &genScope{}
	for _, c := range t.cols {
		sc.cols = append(sc.cols, genColumn{a + "." + c.ref, c.kind})
	}
	if t.base {
		sc.rows = []string{a}
	}
	if t.pk {
		sc.pks = []string{a}
	}
	return t.name + " " + a, sc
}
