package randomsql

import (
	"fmt"
	"strings"
)

// scope is what a query's expressions see: its own columns first.
type scope struct {
	cols  []column
	rows  []string // aliases of base tables, for whole rows
	segs  []string // aliases of tables that have gp_segment_id
	pks   []string // aliases of tables with primary key a
	outer *scope

	commaJoin string // a condition for the items of a FROM list
}

func (s *scope) of(kind byte) (out []string) {
	for _, c := range s.cols {
		if c.kind == kind {
			out = append(out, c.ref)
		}
	}
	return out
}

// kind draws a kind that the scope has columns of, mostly.
func (g *Generator) kind(sc *scope) byte {
	if len(sc.cols) > 0 && !g.One(6) {
		return sc.cols[g.N(len(sc.cols))].kind
	}
	return allKinds[g.N(len(allKinds))]
}

// sel draws a SELECT with 1 to 4 columns named o1, o2, …
func (g *Generator) sel(outer *scope, depth int) (string, []byte) {
	return g.selKinds(nil, outer, depth)
}

// selOf draws a SELECT with result columns of these kinds.
func (g *Generator) selOf(kinds []byte, outer *scope, depth int) (string, bool) {
	sql, _ := g.selKinds(kinds, outer, depth)
	return sql, true
}

func (g *Generator) selKinds(want []byte, outer *scope, depth int) (string, []byte) {
	from, sc := g.from(outer, depth)
	where := ""
	if !g.One(3) {
		where = " where " + g.cond(sc, depth)
	}
	if sc.commaJoin != "" && !g.One(3) {
		if where == "" {
			where = " where " + sc.commaJoin
		} else {
			where += " and " + sc.commaJoin
		}
	}
	kinds := want
	if kinds == nil {
		for range 1 + g.N(3) {
			kinds = append(kinds, g.kind(sc))
		}
	}
	var outs []string
	tail := ""
	distinct := ""
	if g.N(5) < 2 || g.counts { // aggregate
		above := g.counted
		defer func() { g.counted = above }()
		if g.counted = ""; g.counts || g.One(3) {
			k := g.kind(sc)
			g.counted = g.expr(sc, k, g.N(2))
			if cols := sc.of(k); len(cols) > 0 && !g.One(4) {
				g.counted = cols[g.N(len(cols))]
			}
			if want == nil && !g.One(3) {
				kinds[g.N(len(kinds))] = kindInt
			}
		}
		var groups []string
		gs := &scope{outer: outer}
		for range g.N(3) {
			k := g.kind(sc)
			e := g.expr(sc, k, 1)
			if cols := sc.of(k); len(cols) > 0 && !g.One(4) {
				e = cols[g.N(len(cols))]
			}
			if isConst(e) {
				continue
			}
			groups = append(groups, e)
			gs.cols = append(gs.cols, column{e, k})
		}
		if len(sc.pks) > 0 && g.One(2) {
			// Columns that depend on a primary key need no grouping.
			pk := sc.pks[g.N(len(sc.pks))]
			groups = append(groups, pk+".a")
			for _, c := range sc.cols {
				if strings.HasPrefix(c.ref, pk+".") {
					gs.cols = append(gs.cols, c)
				}
			}
			if want == nil {
				kinds[0] = gs.cols[len(gs.cols)-1-g.N(2)].kind
			}
		}
		for i, k := range kinds {
			outs = append(outs, fmt.Sprintf("%s as o%d", g.aggOut(sc, gs, k, depth), i+1))
		}
		if len(groups) > 0 {
			tail = " group by " + strings.Join(groups, ", ")
			if g.One(8) {
				tail = " group by " + g.pick("rollup", "cube", "grouping sets") + " (" + strings.Join(groups, ", ") + ")"
			}
		}
		if g.One(3) {
			tail += " having " + g.agg(sc, kindInt, depth) + g.pick(" > ", " < ", " <> ") + fmt.Sprint(g.N(9))
		}
	} else {
		for i, k := range kinds {
			e := g.expr(sc, k, 2-2*g.N(2))
			if g.One(8) && (k == kindInt || k == kindNum) {
				e = g.window(sc, k)
			}
			outs = append(outs, fmt.Sprintf("%s as o%d", e, i+1))
		}
		if g.One(5) {
			distinct = "distinct "
		} else if want == nil && g.One(12) {
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
func (g *Generator) rows(depth int) (string, []byte) {
	if g.One(3) {
		return g.setOp(nil, depth, 2)
	}
	return g.sel(nil, depth)
}

func isConst(e string) bool {
	return e == "" || e[0] == '\'' || e[0] >= '0' && e[0] <= '9' || strings.HasPrefix(e, "date") || e == "null"
}
