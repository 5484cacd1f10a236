package randomsql

import (
	"fmt"
	"slices"
	"strings"
)

// Insertion draws a table, without rows, and an INSERT … SELECT that fills it.
func (g *Generator) Insertion(name string) (table Relation, sql string) {
	g.aliases, g.focus, g.params, g.segment = 0, true, nil, false
	var rows string
	var kinds []byte
	copied := slices.IndexFunc(g.tables, func(t Table) bool { return !t.spread && t.base })
	switch {
	case copied >= 0 && g.One(5):
		var cols []string
		for i, c := range g.tables[copied].cols {
			kinds = append(kinds, c.kind)
			cols = append(cols, fmt.Sprintf("%s as o%d", c.ref, i+1))
		}
		rows = "select " + strings.Join(cols, ", ") + " from " + g.tables[copied].Name
	case g.One(2):
		rows, kinds = g.columns(nil)
	default:
		rows, kinds = g.rows(g.N(2))
	}
	var defs []string
	for i, k := range kinds {
		defs = append(defs, fmt.Sprintf("o%d %s", i+1, kindTypes[k][g.N(len(kindTypes[k]))]))
	}
	table = Relation{Name: name, Create: "create table " + name + " (" + strings.Join(defs, ", ") + ")"}
	table.Distributed = fmt.Sprintf("distributed by (o%d)", 1+g.N(len(kinds)))
	switch g.N(5) {
	case 0:
		table.Distributed = "distributed randomly"
	case 1:
		table.Distributed = "distributed replicated"
	case 2:
		if len(kinds) > 1 {
			table.Distributed = "distributed by (o1, o2)"
		}
	}
	if copied >= 0 && strings.HasSuffix(rows, " from "+g.tables[copied].Name) && g.One(2) {
		table.Distributed = "distributed replicated"
	}
	return table, inline("insert into "+name+" "+rows, g.params)
}
