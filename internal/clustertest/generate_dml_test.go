package clustertest

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// change draws one statement that changes a table, now and then one that only
// looks.
func (g *generator) change() statement {
	tb := rapid.SampledFrom(g.tables).Draw(g.rt, "table")
	st := statement{extended: g.n(0, 2) == 0}
	switch g.n(0, 12) {
	case 0, 1:
		st.sql = g.insertValues(tb)
	case 2, 3:
		st.sql = g.insertSelect(tb)
	case 4, 5:
		st.sql = g.update(tb)
	case 6:
		st.sql = g.updateFrom(tb)
	case 7:
		st.sql = g.remove(tb)
	case 8:
		st.sql = g.removeUsing(tb)
	case 9:
		return g.copyIn(tb)
	case 10:
		st.sql = "copy " + tb.name + " (" + strings.Join(names(tb.cols), ", ") + ") to stdout" + g.pick("", " (format csv)")
		st.extended = false
		if g.coin() {
			st.sql = "copy (select count(*), max(" + tb.cols[0].name + ") from " + tb.name + ") to stdout"
		}
	case 11:
		if g.n(0, 3) == 0 {
			st.sql = "truncate " + tb.name
			break
		}
		fallthrough
	default:
		st.sql, _ = g.query()
	}
	return st
}

func names(cols []column) []string {
	out := make([]string, len(cols))
	for i, col := range cols {
		out[i] = col.name
	}
	return out
}

// some draws a few of a table's columns, its key's always.
func (g *generator) some(tb table) []column {
	var cols []column
	for _, col := range tb.cols {
		if strings.HasPrefix(col.extra, "primary") || g.n(0, 3) > 0 {
			cols = append(cols, col)
		}
	}
	if cols == nil {
		return tb.cols
	}
	return cols
}

// columns are what expressions may use of a table.
func (tb table) columns(alias string) []ref {
	refs := make([]ref, len(tb.cols))
	for i, col := range tb.cols {
		refs[i] = ref{alias + "." + col.name, col.typ}
	}
	return refs
}

func (g *generator) returning(refs []ref) string {
	if g.n(0, 2) > 0 {
		return ""
	}
	g.depth = 2 // no subqueries: RETURNING sees the statement's own changes
	defer func() { g.depth = 0 }()
	return " returning " + rapid.SampledFrom(refs).Draw(g.rt, "column").sql + ", " + g.expr(g.pick("int", "text", "date"), refs)
}

func (g *generator) insertValues(tb table) string {
	cols := g.some(tb)
	rows := make([]string, g.n(1, 4))
	for i := range rows {
		cells := make([]string, len(cols))
		for j, col := range cols {
			if cells[j] = g.expr(col.typ, nil); g.n(0, 7) == 0 {
				cells[j] = "default"
			}
		}
		rows[i] = "(" + strings.Join(cells, ", ") + ")"
	}
	return fmt.Sprintf("insert into %s (%s) values %s%s%s", tb.name, strings.Join(names(cols), ", "), strings.Join(rows, ", "),
		g.conflict(tb), g.returning(tb.columns(tb.name)))
}

// conflict draws ON CONFLICT for a table with a key.
func (g *generator) conflict(tb table) string {
	if !tb.unique {
		return ""
	}
	switch g.n(0, 3) {
	case 0:
		return " on conflict do nothing"
	case 1:
		return " on conflict (k) do nothing"
	case 2:
		sql := " on conflict (k) do update set c0 = excluded.c0 || " + tb.name + ".c0, c1 = " + tb.name + ".c1 + 1"
		if g.coin() {
			sql += " where " + tb.name + ".k < excluded.k + 2"
		}
		return sql
	}
	return ""
}

func (g *generator) insertSelect(tb table) string {
	cols := g.some(tb)
	if !tb.unique && g.coin() {
		return g.insertRows(tb, cols)
	}
	typs := make([]string, len(cols))
	order := make([]string, len(cols))
	for i, col := range cols {
		typs[i], order[i] = col.typ, fmt.Sprint(i+1)
	}
	// In order, for of two rows with the same key the first one counts.
	return fmt.Sprintf("insert into %s (%s) %s order by %s limit 20%s%s", tb.name, strings.Join(names(cols), ", "), g.plain(typs, nil),
		strings.Join(order, ", "), g.conflict(tb), g.returning(tb.columns(tb.name)))
}

// insertRows draws an INSERT of what one table has, in any order, which segments
// may run by themselves.
func (g *generator) insertRows(tb table, cols []column) string {
	from := rapid.SampledFrom(g.tables).Draw(g.rt, "from")
	refs := from.columns("z")
	exprs := make([]string, len(cols))
	for i, col := range cols {
		exprs[i] = g.expr(col.typ, refs)
		for _, r := range refs {
			if r.typ == col.typ && g.n(0, 3) > 0 {
				exprs[i] = r.sql
				break
			}
		}
	}
	return fmt.Sprintf("insert into %s (%s) select %s from %s z%s", tb.name, strings.Join(names(cols), ", "), strings.Join(exprs, ", "), from.name, g.where(refs))
}

// set draws SET's list. A unique key is not changed: whether two rows are
// equal for a moment depends on which is changed first.
func (g *generator) set(tb table, refs []ref) string {
	var list []string
	for _, col := range tb.cols {
		if tb.unique && col.name == "k" || g.n(0, 2) > 0 {
			continue
		}
		value := g.expr(col.typ, refs)
		if g.n(0, 9) == 0 {
			value = "default"
		}
		list = append(list, col.name+" = "+value)
	}
	if list == nil {
		last := tb.cols[len(tb.cols)-1]
		list = append(list, last.name+" = "+g.literal(last.typ))
	}
	return strings.Join(list, ", ")
}

func (g *generator) update(tb table) string {
	a := g.alias()
	refs := tb.columns(a)
	return fmt.Sprintf("update %s as %s set %s%s%s", tb.name, a, g.set(tb, refs), g.where(refs), g.returning(refs))
}

// updateFrom draws an UPDATE whose FROM finds each row at most once with
// values that matter.
func (g *generator) updateFrom(tb table) string {
	a, b := g.alias(), g.alias()
	refs := tb.columns(a)
	from, inner := g.source(nil)
	key := rapid.SampledFrom(inner).Draw(g.rt, "key")
	agg, typ := g.aggregate(inner)
	on := g.equality(refs, []ref{{b + ".j", key.typ}})
	if on == "" {
		return g.update(tb)
	}
	set := g.set(tb, append(refs, ref{b + ".v", typ}))
	return fmt.Sprintf("update %s %s set %s from (select %s, %s from %s group by 1) %s (j, v) where %s", tb.name, a, set, key.sql, agg, from, b, on)
}

func (g *generator) remove(tb table) string {
	a := g.alias()
	refs := tb.columns(a)
	return fmt.Sprintf("delete from %s %s where %s%s", tb.name, a, g.expr("bool", refs), g.returning(refs))
}

func (g *generator) removeUsing(tb table) string {
	a := g.alias()
	refs := tb.columns(a)
	from, more := g.source(nil)
	on := g.equality(refs, more)
	if on == "" {
		return g.remove(tb)
	}
	if g.coin() {
		on += " and " + g.expr("bool", append(more, refs...))
	}
	return fmt.Sprintf("delete from %s %s using %s where %s", tb.name, a, from, on)
}

// copyIn draws COPY FROM STDIN.
func (g *generator) copyIn(tb table) statement {
	cols := g.some(tb)
	var b strings.Builder
	csv := g.coin()
	for range g.n(1, 6) {
		cells := make([]string, len(cols))
		for i, col := range cols {
			v := rapid.SampledFrom(values[col.typ]).Draw(g.rt, "value")
			v = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(v, "date "), "'"), "'"), "''", "'")
			switch {
			case g.n(0, 5) == 0:
				if v = `\N`; csv {
					v = ""
				}
			case csv:
				v = `"` + v + `"`
			default:
				v = strings.ReplaceAll(v, `\`, `\\`)
			}
			cells[i] = v
		}
		sep := "\t"
		if csv {
			sep = ","
		}
		b.WriteString(strings.Join(cells, sep) + "\n")
	}
	sql := fmt.Sprintf("copy %s (%s) from stdin", tb.name, strings.Join(names(cols), ", "))
	if csv {
		sql += " (format csv)"
	}
	return statement{sql: sql, data: b.String()}
}
