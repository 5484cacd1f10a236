package randomsql

import (
	"fmt"
	"strings"
)

// from draws a FROM clause.
func (g *Generator) from(outer *scope, depth int) (string, *scope) {
	if g.chains && !g.One(4) {
		text, sc := g.chain(3 + g.N(2))
		sc.outer = outer
		return " from " + text, sc
	}
	n := 1 + g.N(3)
	if depth <= 0 && n > 2 {
		n = 2
	}
	first := 1 + g.N(n)
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

func (s *scope) with(o *scope) *scope {
	return &scope{cols: append(append([]column(nil), s.cols...), o.cols...), rows: append(append([]string(nil), s.rows...), o.rows...),
		pks: append(append([]string(nil), s.pks...), o.pks...), segs: append(append([]string(nil), s.segs...), o.segs...)}
}

// joins draws a tree of joins of n items.
func (g *Generator) joins(n, depth int) (string, *scope) {
	if n == 1 {
		return g.item(depth)
	}
	k := 1 + g.N(n-1)
	left, lsc := g.joins(k, depth)
	right, rsc := g.joins(n-k, depth)
	if n-k > 1 && right[0] != '(' {
		right = "(" + right + ")"
	}
	both := lsc.with(rsc)
	join := g.pick("join", "join", "join", "left join", "left join", "right join", "full join", "cross join")
	if join != "cross join" && n == 2 && g.One(5) {
		if common := commonNames(lsc, rsc); len(common) > 0 {
			if g.One(4) && len(lsc.rows)+len(rsc.rows) == 2 {
				return left + " natural " + join + " " + right, both
			}
			return left + " " + join + " " + right + " using (" + strings.Join(common[:1+g.N(len(common))], ", ") + ")", both
		}
	}
	on := g.joinCond(lsc, rsc)
	if join == "cross join" || on == "" {
		return left + " cross join " + right, both
	}
	if join != "full join" && g.One(3) {
		on += " and " + g.cond(both, 0)
	}
	text := left + " " + join + " " + right + " on " + on
	if g.One(15) {
		// One name for it all, and for its columns.
		j := g.alias()
		var list []string
		named := &scope{}
		for i, c := range both.cols {
			name := fmt.Sprintf("j%d", i+1)
			list = append(list, name)
			named.cols = append(named.cols, column{j + "." + name, c.kind})
		}
		return "(" + text + ") as " + j + "(" + strings.Join(list, ", ") + ")", named
	}
	return text, both
}

// chain draws a join of n tables, each joined with one before it.
func (g *Generator) chain(n int) (string, *scope) {
	text, all := g.tableItem(g.alias())
	scopes := []*scope{all}
	comma := g.One(4)
	where := ""
	for range n - 1 {
		item, sc := g.tableItem(g.alias())
		if g.One(6) {
			item, sc = g.grouped(g.alias())
		}
		before := scopes[len(scopes)-1]
		if g.One(4) {
			before = scopes[g.N(len(scopes))]
		}
		var on []string
		for _, a := range before.cols {
			for _, b := range sc.cols {
				if a.kind == b.kind {
					on = append(on, a.ref+" = "+b.ref)
				}
			}
		}
		both := all.with(sc)
		switch {
		case len(on) == 0:
			text += " cross join " + item
		case comma:
			if where != "" {
				where += " and "
			}
			where += on[g.N(len(on))]
			text += ", " + item
		default:
			names := commonNames(before, sc)
			if join := g.pick("join", "join", "join", "join", "left join"); len(scopes) == 1 && len(names) > 0 && g.One(5) {
				text += " " + join + " " + item + " using (" + names[g.N(len(names))] + ")"
			} else {
				text += " " + join + " " + item + " on " + on[g.N(len(on))]
				if g.One(4) {
					text += " and " + g.cond(both, 0)
				}
			}
		}
		all = both
		scopes = append(scopes, sc)
	}
	all.commaJoin = where
	return text, all
}

// commonNames are the columns of the same name and kind on both sides.
func commonNames(l, r *scope) (out []string) {
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
func (g *Generator) joinCond(l, r *scope) string {
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
	if len(across) > 0 && g.One(8) {
		return across[g.N(len(across))]
	}
	if len(kind) == 0 {
		return ""
	}
	if len(same) > 0 && !g.One(4) {
		on := same[0]
		for _, s := range same[1:] {
			if g.One(2) {
				on += " and " + s
			}
		}
		return on
	}
	return kind[g.N(len(kind))]
}

// item draws one FROM item.
func (g *Generator) item(depth int) (string, *scope) {
	a := g.alias()
	sets := g.One(8)
	if depth > 0 && g.One(5) || sets {
		sub, kinds := "", []byte(nil)
		if sets {
			sub, kinds = g.setOp(nil, max(depth-1, 0), 2)
		} else {
			sub, kinds = g.rows(depth - 1)
		}
		if g.One(8) {
			sub += " order by 1 limit " + fmt.Sprint(5000+g.N(9))
		}
		sc := &scope{}
		for i, k := range kinds {
			sc.cols = append(sc.cols, column{fmt.Sprintf("%s.o%d", a, i+1), k})
		}
		return "(" + sub + ") " + a, sc
	}
	if g.focus && g.One(5) {
		return g.grouped(a)
	}
	if g.focus {
		return g.tableItem(a)
	}
	if g.One(25) {
		return fmt.Sprintf("generate_series(1, %d) %s(a)", 1+g.N(6), a), &scope{cols: []column{{a + ".a", kindInt}}}
	}
	if g.One(25) {
		return fmt.Sprintf("(values (1, 's1'), (2, null), (%d, 's2')) %s(a, c)", g.N(9), a),
			&scope{cols: []column{{a + ".a", kindInt}, {a + ".c", kindText}}}
	}
	return g.tableItem(a)
}

// grouped draws a sub-select that aggregates one table.
func (g *Generator) grouped(a string) (string, *scope) {
	from, in := g.tableItem(g.alias())
	above := g.counted
	defer func() { g.counted = above }()
	g.counted = in.cols[g.N(len(in.cols))].ref
	var outs, groups []string
	sc := &scope{}
	out := func(e string, k byte) {
		sc.cols = append(sc.cols, column{fmt.Sprintf("%s.o%d", a, len(outs)+1), k})
		outs = append(outs, fmt.Sprintf("%s as o%d", e, len(outs)+1))
	}
	for range g.N(3) {
		c := in.cols[g.N(len(in.cols))]
		groups = append(groups, c.ref)
		out(c.ref, c.kind)
	}
	for range 1 + g.N(2) {
		k := []byte{kindInt, kindInt, kindNum, kindText, kindReal, kindDate, kindBool}[g.N(7)]
		out(g.agg(in, k, 0), k)
	}
	tail := ""
	if g.One(3) {
		tail = " where " + g.cond(in, 0)
	}
	if len(groups) > 0 {
		tail += " group by " + strings.Join(groups, ", ")
	}
	if g.One(5) {
		tail += " having count(*) > " + g.pick("0", "1", "2")
	}
	return "(select " + strings.Join(outs, ", ") + " from " + from + tail + ") " + a, sc
}

// twice draws a SELECT that names a WITH query twice: it joins a table with it, and
// compares with a value of it.
func (g *Generator) twice(w Table) (string, []byte) {
	saved := g.focus
	g.focus = true
	item, sc := g.tableItem(g.alias())
	g.focus = saved
	a := g.alias()
	in := &scope{}
	for _, c := range w.cols {
		in.cols = append(in.cols, column{a + "." + c.ref, c.kind})
	}
	where := g.joinCond(sc, in)
	if where == "" {
		where = "true"
	}
	if c := w.cols[g.N(len(w.cols))]; c.kind != kindBool && c.kind != kindUUID && c.kind != kindBytes {
		where += fmt.Sprintf(" and %s.%s %s (select %s(%[2]s) from %[5]s)", a, c.ref, g.pick("=", "<", ">=", "<>"), g.pick("min", "max"), w.Name)
	} else {
		where += " and exists (select from " + w.Name + " where " + c.ref + " is not null)"
	}
	var outs []string
	var kinds []byte
	both := sc.with(in)
	for i := range 1 + g.N(3) {
		c := both.cols[g.N(len(both.cols))]
		outs, kinds = append(outs, fmt.Sprintf("%s as o%d", c.ref, i+1)), append(kinds, c.kind)
	}
	return "select " + strings.Join(outs, ", ") + " from " + item + ", " + w.Name + " " + a + " where " + where, kinds
}

func (g *Generator) tableItem(a string) (string, *scope) {
	t := g.tables[g.N(len(g.tables))]
	for g.focus && !t.base {
		t = g.tables[g.N(len(g.tables))]
	}
	sc := &scope{}
	text := t.Name + " " + a
	renamed := t.base && g.One(12)
	var list []string
	for i, c := range t.cols {
		name := c.ref
		if renamed && i < 2 {
			name = fmt.Sprintf("y%d", i+1)
			list = append(list, name)
		}
		sc.cols = append(sc.cols, column{a + "." + name, c.kind})
	}
	if renamed {
		text += "(" + strings.Join(list, ", ") + ")"
	}
	if t.base {
		sc.rows = []string{a}
		switch {
		case g.One(20):
			text += " tablesample bernoulli (100)"
		case g.One(20):
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
