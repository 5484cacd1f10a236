package randomsql

import (
	"strings"
)

// Change draws an UPDATE or DELETE whose effect does not depend on the order
// of rows, and the table it changes.
func (g *Generator) Change() (table, sql string) {
	g.aliases, g.focus, g.params, g.segment = 0, true, nil, false
	t := g.tables[g.N(len(g.tables))]
	for !t.base {
		t = g.tables[g.N(len(g.tables))]
	}
	a := g.alias()
	sc := &scope{}
	var returned []string
	for _, c := range t.cols {
		sc.cols = append(sc.cols, column{a + "." + c.ref, c.kind})
		returned = append(returned, a+"."+c.ref)
	}
	from, where := "", g.cond(sc, g.N(2))
	if g.One(4) {
		where = "true"
	}
	if !g.One(4) {
		text, fsc := g.joins(1+g.N(2), 0)
		if on := g.joinCond(sc, fsc); on != "" {
			from, where = text, on+" and "+where
			if g.One(3) {
				where += " and " + g.cond(fsc, 0)
			}
		}
	}
	tail := " where " + where
	if g.One(3) {
		tail += " returning " + strings.Join(returned, ", ")
	}
	if g.One(3) {
		if from != "" {
			from = " using " + from
		}
		return t.Name, inline("delete from "+t.Name+" "+a+from+tail, g.params)
	}
	var sets []string
	for i, c := range t.cols {
		if i == 0 && t.pk || i > 0 && !g.One(2) {
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
	return t.Name, inline("update "+t.Name+" "+a+" set "+strings.Join(sets, ", ")+from+tail, g.params)
}
