package plan

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// Random tables and queries that PostgreSQL takes, mostly.

// A column's name says its kind, so that joins by USING fit.
const (
	kindInt   = 'i'
	kindText  = 't'
	kindNum   = 'n'
	kindDate  = 'd'
	kindBool  = 'b'
	kindReal  = 'r'
	kindChar  = 'c'
	kindUUID  = 'u'
	kindTime  = 'l'
	kindStamp = 'm' // without time zone
	kindZoned = 'v' // with time zone
	kindBytes = 'w'
)

// allKinds are the kinds that are drawn where nothing says which.
var allKinds = []byte{kindInt, kindText, kindNum, kindDate, kindBool, kindReal, kindChar, kindUUID, kindTime, kindStamp, kindZoned, kindBytes}

// alike are kinds that PostgreSQL compares with each other.
var alike = map[byte]string{kindInt: "1", kindNum: "1", kindReal: "1", kindDate: "2", kindStamp: "2", kindZoned: "2"}

var columnKinds = map[string]byte{"a": kindInt, "b": kindInt, "c": kindText, "d": kindNum, "e": kindDate, "f": kindBool, "g": kindReal, "h": kindText,
	"k": kindChar, "u": kindUUID, "l": kindTime, "m": kindStamp, "v": kindZoned, "w": kindBytes}

var kindTypes = map[byte][]string{
	kindInt: {"int", "bigint", "smallint"}, kindText: {"text", "varchar(20)", "text", "text", "varchar(20)", `text collate "C"`},
	kindNum: {"numeric", "numeric(10,2)"}, kindDate: {"date"}, kindBool: {"bool"}, kindReal: {"float8", "float4"},
	kindChar: {"char(4)", "char(6)"}, kindUUID: {"uuid"}, kindTime: {"time", "time(3)"}, kindStamp: {"timestamp", "timestamp(3)"},
	kindZoned: {"timestamptz"}, kindBytes: {"bytea"},
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

	segments int                // that it lies on
	size     float64            // what the planner takes for its number of rows
	distinct map[string]float64 // and for the number of different values of its columns
	spread   bool               // its rows have a gp_segment_id
	// more are definitions to be made after the table's own, with the rows
	// of the tables among them.
	more [][2]string
}

type gen struct {
	t       *rapid.T
	tables  []genTable
	aliases int
	// focus: base tables only and shallow expressions, so that most levels
	// can run on the segments.
	focus bool
	// params are the values of the query's parameters, with their types.
	params [][2]string
	// counted is what most aggregates with DISTINCT of a level are of, "" where each
	// has its own.
	counted string
	// counts: the query is of levels that have one.
	counts bool
	// segment: the query may use gp_segment_id, and does when used says so.
	segment, used bool
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
	t = genTable{name: fmt.Sprintf("t%d", i), base: true, segments: testSegments, spread: true}
	names := strings.Split("abcdefghkulmvw", "")
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
			kindInt:   fmt.Sprintf("%s %% %d", h, 4+g.n(12)),
			kindText:  fmt.Sprintf("'s' || %s %% %d", h, 3+g.n(6)),
			kindNum:   fmt.Sprintf("case %s %% 11 when 10 then 'NaN' else (%[1]s %% 9) / 2.0 end", h),
			kindDate:  fmt.Sprintf("case %s %% 8 when 5 then 'infinity' when 6 then '0044-03-15 BC' when 7 then '12020-01-01' else date '2020-01-01' + %[1]s %% 5 end", h),
			kindBool:  fmt.Sprintf("%s %% 2 = 0", h),
			kindReal:  fmt.Sprintf("case %s %% 13 when 10 then 'NaN' when 11 then 'infinity' when 12 then '-0' else (%[1]s %% 9) / 2.0::float8 end", h),
			kindChar:  fmt.Sprintf("'k' || %s %% %d", h, 2+g.n(12)),
			kindUUID:  fmt.Sprintf("('%s' || %s %% 6)::uuid", uuidStart, h),
			kindTime:  fmt.Sprintf("case %s %% 6 when 5 then '24:00' else time '12:00:00.5' + %[1]s %% 4 * interval '1 hour' end", h),
			kindStamp: fmt.Sprintf("case %s %% 7 when 5 then '-infinity' when 6 then '0044-03-15 01:02:03 BC' else timestamp '2020-01-01' + %[1]s %% 5 * interval '12 hours' end", h),
			// There the time zone of the tests is 44 minutes and 30 seconds from UTC.
			kindZoned: fmt.Sprintf("case %s %% 7 when 5 then 'infinity' when 6 then '0044-03-15 01:02:03+00 BC' else timestamptz '1971-12-30 00:00' + %[1]s %% 5 * interval '12 hours' end", h),
			kindBytes: fmt.Sprintf("decode('5c' || lpad(%s %% 5 || '', 2, '0'), 'hex')", h),
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
	switch n := g.n(9); {
	case t.pk || n < 3:
		dist = "distributed by (a)"
		if !t.pk && g.one(3) {
			dist = "distributed by (a, " + t.cols[1].ref + ")"
		}
	case n < 6:
		dist = "distributed by (" + t.cols[g.n(len(t.cols))].ref + ")"
	case n == 6 || n == 7:
		dist = "distributed replicated"
		t.spread = false
	}
	if g.one(6) {
		t.segments = 1 + g.n(testSegments)
	}
	t.size = []float64{0, 1, 20, 1e3, 1e3, 1e5, 1e7}[g.n(7)]
	if g.one(2) {
		t.distinct = map[string]float64{}
		if g.one(2) {
			t.size = 1e7
		}
		for _, c := range t.cols {
			t.distinct[c.ref] = []float64{0, 3, 50, 50, 1e4, 1e6}[g.n(6)]
		}
	}
	series := func(from, to int) string {
		return fmt.Sprintf("select %s from generate_series(%d, %d) g", strings.Join(vals, ", "), from, to)
	}
	n := g.n(20)
	rows = series(1, n)
	part := ""
	switch {
	case t.spread && g.one(8):
		part = " partition by hash (a)"
		for k := range 2 {
			t.more = append(t.more, [2]string{fmt.Sprintf("create table %s_%d partition of %s for values with (modulus 2, remainder %d)", t.name, k, t.name, k), ""})
		}
	case t.spread && !t.pk && g.one(8):
		child := fmt.Sprintf("create table %s_0 () inherits (%s) distributed by (%s)", t.name, t.name, t.cols[g.n(len(t.cols))].ref)
		t.more = append(t.more, [2]string{child, series(n+1, n+g.n(9))})
	}
	create = fmt.Sprintf("create table %s (%s)%s %s", t.name, strings.Join(defs, ", "), part, dist)
	return t, create, rows
}

const uuidStart = "00000000-0000-4000-8000-00000000000"

var groupingSets = regexp.MustCompile("group by (rollup|cube|grouping sets)")

var paramRef = regexp.MustCompile(`\$[0-9]+`)

// query draws a whole query. ordered: its rows have a definite order; any:
// only their number is definite.
func (g *gen) query() (sql string, ordered, any bool) {
	sql, ordered, any = g.anyQuery()
	// Only the parameters that have come into the query are given.
	all := g.params
	g.params = nil
	number := map[string]string{}
	sql = paramRef.ReplaceAllStringFunc(sql, func(ref string) string {
		if number[ref] == "" {
			i, _ := strconv.Atoi(ref[1:])
			g.params = append(g.params, all[i-1])
			number[ref] = fmt.Sprintf("$%d", len(g.params))
		}
		return number[ref]
	})
	return sql, ordered, any
}

func (g *gen) anyQuery() (sql string, ordered, any bool) {
	g.aliases, g.focus, g.params, g.used = 0, g.one(2), nil, false
	g.segment, g.counts = g.one(8), g.one(6)
	saved := g.tables
	defer func() { g.tables = saved }()
	with := ""
	if g.one(10) {
		name := "w" + g.alias()
		body, kinds := g.rows(1)
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
	if g.one(8) {
		body, kinds = g.setOp(nil, min(depth, 1), 2)
	}
	if g.one(6) {
		body = "select * from (" + body + ") z"
	}
	how := g.n(5)
	if strings.Contains(body, " where ") && groupingSets.MatchString(body) {
		how = 2 // PostgreSQL does not sort by what WHERE makes the same, NULL though it be in some sets
	}
	switch how {
	case 4:
		if len(kinds) > 0 && g.one(3) {
			body += fmt.Sprintf(" order by %d%s fetch first %d rows with ties", 1+g.n(len(kinds)), g.pick("", " desc nulls last"), g.n(6))
		}
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
	segs  []string // aliases of tables that have gp_segment_id
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
	if g.n(5) < 2 || g.counts { // aggregate
		above := g.counted
		defer func() { g.counted = above }()
		if g.counted = ""; g.counts || g.one(3) {
			k := g.kind(sc)
			g.counted = g.expr(sc, k, g.n(2))
			if cols := sc.of(k); len(cols) > 0 && !g.one(4) {
				g.counted = cols[g.n(len(cols))]
			}
			if want == nil && !g.one(3) {
				kinds[g.n(len(kinds))] = kindInt
			}
		}
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

// rows draws a SELECT or a set operation with result columns o1, o2, …
func (g *gen) rows(depth int) (string, []byte) {
	if g.one(3) {
		return g.setOp(nil, depth, 2)
	}
	return g.sel(nil, depth)
}

// setOp draws a set operation of at most so many levels.
func (g *gen) setOp(kinds []byte, depth, levels int) (string, []byte) {
	var arms [2]string
	for i := range arms {
		switch {
		case levels > 1 && g.one(4):
			arms[i], kinds = g.setOp(kinds, depth, levels-1)
			arms[i] = "(" + arms[i] + ")"
		case kinds != nil || g.one(3):
			arms[i], kinds = g.selKinds(kinds, nil, depth)
		default:
			arms[i], kinds = g.columns(nil)
		}
		if i == 1 && g.one(2) {
			// Some of the same columns, so that rows are placed alike.
			arms[i], kinds = g.columns(kinds)
		}
	}
	return arms[0] + " " + g.pick("union all", "union all", "union all", "union", "union", "intersect", "except", "intersect all", "except all") + " " + arms[1], kinds
}

// columns draws a SELECT of a table's columns as they are.
func (g *gen) columns(want []byte) (string, []byte) {
	from, sc := g.from(nil, 0)
	where := ""
	if g.one(2) {
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
		for range 1 + g.n(3) {
			kinds = append(kinds, sc.cols[g.n(len(sc.cols))].kind)
		}
	}
	var outs []string
	for i, k := range kinds {
		e := g.constant(k)
		if cols := sc.of(k); len(cols) > 0 {
			e = cols[g.n(len(cols))]
			if g.one(2) {
				e = cols[0]
			}
		}
		outs = append(outs, fmt.Sprintf("%s as o%d", e, i+1))
	}
	return "select " + strings.Join(outs, ", ") + from + where, kinds
}

// kind draws a kind that the scope has columns of, mostly.
func (g *gen) kind(sc *genScope) byte {
	if len(sc.cols) > 0 && !g.one(6) {
		return sc.cols[g.n(len(sc.cols))].kind
	}
	return allKinds[g.n(len(allKinds))]
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
		pks: append(append([]string(nil), s.pks...), o.pks...), segs: append(append([]string(nil), s.segs...), o.segs...)}
}

// joins draws a tree of joins of n items.
func (g *gen) joins(n, depth int) (string, *genScope) {
	if n == 1 {
		return g.item(depth)
	}
	k := 1 + g.n(n-1)
	left, lsc := g.joins(k, depth)
	right, rsc := g.joins(n-k, depth)
	if n-k > 1 && right[0] != '(' {
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
	text := left + " " + join + " " + right + " on " + on
	if g.one(15) {
		// One name for it all, and for its columns.
		j := g.alias()
		var list []string
		named := &genScope{}
		for i, c := range both.cols {
			name := fmt.Sprintf("j%d", i+1)
			list = append(list, name)
			named.cols = append(named.cols, genColumn{j + "." + name, c.kind})
		}
		return "(" + text + ") as " + j + "(" + strings.Join(list, ", ") + ")", named
	}
	return text, both
}

// commonNames are the columns of the same name and kind on both sides.
func commonNames(l, r *genScope) (out []string) {
	for _, a := range l.cols {
		for _, b := range r.cols {
			an, bn := a.ref[strings.IndexByte(a.ref, '.')+1:], b.ref[strings.IndexByte(b.ref, '.')+1:]
			if an == bn && a.kind == b.kind && !strings.Contains(an, "y") {
				out = append(out, an)
			}
		}
	}
	return out
}

// joinCond equates columns of two sides, columns of the same name if any.
func (g *gen) joinCond(l, r *genScope) string {
	var same, kind, across []string
	for _, a := range l.cols {
		for _, b := range r.cols {
			eq := a.ref + " = " + b.ref
			if a.kind != b.kind {
				if alike[a.kind] != "" && alike[a.kind] == alike[b.kind] {
					across = append(across, eq)
				}
				continue
			}
			kind = append(kind, eq)
			if a.ref[strings.IndexByte(a.ref, '.'):] == b.ref[strings.IndexByte(b.ref, '.'):] {
				same = append(same, eq)
			}
		}
	}
	if len(across) > 0 && g.one(8) {
		return across[g.n(len(across))]
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
	sets := g.one(8)
	if depth > 0 && g.one(5) || sets {
		sub, kinds := "", []byte(nil)
		if sets {
			sub, kinds = g.setOp(nil, max(depth-1, 0), 2)
		} else {
			sub, kinds = g.rows(depth - 1)
		}
		if g.one(8) {
			sub += " order by 1 limit " + fmt.Sprint(5000+g.n(9))
		}
		sc := &genScope{}
		for i, k := range kinds {
			sc.cols = append(sc.cols, genColumn{fmt.Sprintf("%s.o%d", a, i+1), k})
		}
		return "(" + sub + ") " + a, sc
	}
	if g.focus && g.one(5) {
		return g.grouped(a)
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

// grouped draws a sub-select that aggregates one table.
func (g *gen) grouped(a string) (string, *genScope) {
	from, in := g.tableItem(g.alias())
	above := g.counted
	defer func() { g.counted = above }()
	g.counted = in.cols[g.n(len(in.cols))].ref
	var outs, groups []string
	sc := &genScope{}
	out := func(e string, k byte) {
		sc.cols = append(sc.cols, genColumn{fmt.Sprintf("%s.o%d", a, len(outs)+1), k})
		outs = append(outs, fmt.Sprintf("%s as o%d", e, len(outs)+1))
	}
	for range g.n(3) {
		c := in.cols[g.n(len(in.cols))]
		groups = append(groups, c.ref)
		out(c.ref, c.kind)
	}
	for range 1 + g.n(2) {
		k := []byte{kindInt, kindInt, kindNum, kindText, kindReal, kindDate, kindBool}[g.n(7)]
		out(g.agg(in, k, 0), k)
	}
	tail := ""
	if g.one(3) {
		tail = " where " + g.cond(in, 0)
	}
	if len(groups) > 0 {
		tail += " group by " + strings.Join(groups, ", ")
	}
	if g.one(5) {
		tail += " having count(*) > " + g.pick("0", "1", "2")
	}
	return "(select " + strings.Join(outs, ", ") + " from " + from + tail + ") " + a, sc
}

func (g *gen) tableItem(a string) (string, *genScope) {
	t := g.tables[g.n(len(g.tables))]
	for g.focus && !t.base {
		t = g.tables[g.n(len(g.tables))]
	}
	sc := &genScope{}
	text := t.name + " " + a
	renamed := t.base && g.one(12)
	var list []string
	for i, c := range t.cols {
		name := c.ref
		if renamed && i < 2 {
			name = fmt.Sprintf("y%d", i+1)
			list = append(list, name)
		}
		sc.cols = append(sc.cols, genColumn{a + "." + name, c.kind})
	}
	if renamed {
		text += "(" + strings.Join(list, ", ") + ")"
	}
	if t.base {
		sc.rows = []string{a}
		switch {
		case g.one(20):
			text += " tablesample bernoulli (100)"
		case g.one(20):
			text = "only " + text
		}
	}
	if t.base && t.spread {
		sc.segs = []string{a}
	}
	if t.pk && !renamed {
		sc.pks = []string{a}
	}
	return text, sc
}

// change draws an UPDATE or DELETE whose effect does not depend on the order
// of rows, and the table it changes.
func (g *gen) change() (table, sql string) {
	g.aliases, g.focus, g.params, g.segment = 0, true, nil, false
	t := g.tables[g.n(len(g.tables))]
	a := g.alias()
	sc := &genScope{}
	var returned []string
	for _, c := range t.cols {
		sc.cols = append(sc.cols, genColumn{a + "." + c.ref, c.kind})
		returned = append(returned, a+"."+c.ref)
	}
	from, where := "", g.cond(sc, g.n(2))
	if g.one(4) {
		where = "true"
	}
	if !g.one(4) {
		text, fsc := g.joins(1+g.n(2), 0)
		if on := g.joinCond(sc, fsc); on != "" {
			from, where = text, on+" and "+where
			if g.one(3) {
				where += " and " + g.cond(fsc, 0)
			}
		}
	}
	tail := " where " + where
	if g.one(3) {
		tail += " returning " + strings.Join(returned, ", ")
	}
	if g.one(3) {
		if from != "" {
			from = " using " + from
		}
		return t.name, "delete from " + t.name + " " + a + from + tail
	}
	var sets []string
	for i, c := range t.cols {
		if i == 0 && t.pk || i > 0 && !g.one(2) {
			continue
		}
		sets = append(sets, c.ref+" = "+g.pick(g.literal(c.kind), g.expr(sc, c.kind, 1)))
	}
	if len(sets) == 0 {
		c := t.cols[1]
		sets = []string{c.ref + " = " + g.literal(c.kind)}
	}
	if from != "" {
		from = " from " + from
	}
	return t.name, "update " + t.name + " " + a + " set " + strings.Join(sets, ", ") + from + tail
}
