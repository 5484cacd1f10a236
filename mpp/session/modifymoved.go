package session

import (
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
)

// insertMoved puts rows whose key may have changed where they belong now.
func (c *rowChange) insertMoved() error {
	tables, err := c.tables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := c.insertInto(t); err != nil {
			return err
		}
	}
	return nil
}

// movedTable is a table that gets rows back: the one that the statement names, or one
// that inherits from it.
type movedTable struct {
	r    *relation
	at   []int // where the columns that it stores are in a row of the query
	rows [][][]byte
}

// firstNew is where the new row begins in one of the query.
func (c *rowChange) firstNew() int {
	if c.m.HasTable {
		return 3
	}
	return 2
}

// tables are those of the rows that were found. Of a partitioned table PostgreSQL finds
// the partition.
func (c *rowChange) tables() (list []*movedTable, err error) {
	byName := map[string]*movedTable{}
	for _, rows := range c.perSeg {
		for _, row := range rows {
			name := ""
			if c.m.HasTable && c.m.r.Kind == 'r' {
				name = string(row[2])
			}
			t := byName[name]
			if t == nil {
				if t, err = c.table(name); err != nil {
					return nil, err
				}
				byName[name], list = t, append(list, t)
			}
			t.rows = append(t.rows, row)
		}
	}
	return list, nil
}

// table is one by its regclass, the statement's for "".
func (c *rowChange) table(regclass string) (*movedTable, error) {
	t := &movedTable{r: c.m.r}
	if regclass != "" {
		res, err := c.s.local("SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = " +
			literal(regclass) + "::pg_catalog.regclass")
		if err != nil {
			return nil, err
		}
		if len(res.rows) == 1 {
			t.r, err = c.s.relation(string(res.rows[0][0]), string(res.rows[0][1]))
		}
		if err != nil {
			return nil, err
		}
		if t.r == nil || t.r.Policy == nil {
			return nil, internal("rows of table %s, which is not distributed", regclass)
		}
	}
	for i := range t.r.columns {
		col := &t.r.columns[i]
		if col.generated {
			continue
		}
		at := slices.IndexFunc(c.m.NewColumns, func(k int) bool { return c.m.r.columns[k].Name == col.Name })
		if at < 0 {
			return nil, internal("column %q of table %q has no value", col.Name, t.r.Name)
		}
		t.at = append(t.at, c.firstNew()+at)
	}
	return t, nil
}

// insertInto inserts the rows of one table.
func (c *rowChange) insertInto(t *movedTable) error {
	template, err := insertTemplate(t.r, &pg.InsertStmt{Relation: &pg.RangeVar{
		Schemaname: t.r.sqlSchema(), Relname: t.r.Name, Inh: true, Relpersistence: "p"}})
	if err != nil {
		return err
	}
	w := &rowWriter{s: c.s, ctx: c.req.ctx, r: t.r, text: true, template: template}
	if err := w.open(); err != nil {
		return err
	}
	shown := c.firstNew() + len(c.m.NewColumns) // by RETURNING
	var buf []byte
	for from := 0; from < len(t.rows); from += applyRows {
		part := t.rows[from:min(from+applyRows, len(t.rows))]
		keys, err := c.binaryKeys(t, part)
		if err != nil {
			return err
		}
		for i, r := range part {
			stored := make([][]byte, 0, len(t.at)+len(keys[i]))
			for _, k := range t.at {
				stored = append(stored, r[k])
			}
			buf = appendRowBody(buf[:0], append(stored, keys[i]...))
			if err := w.add(buf); err != nil {
				return err
			}
			if c.m.Returning {
				c.s.out.send(&pgproto3.DataRow{Values: r[shown:]})
			}
		}
	}
	_, err = w.finish()
	return err
}

// binaryKeys converts the key columns of new rows from text, which is what the
// query yields, to what is hashed.
func (c *rowChange) binaryKeys(t *movedTable, rows [][][]byte) ([][][]byte, error) {
	var at []int
	for _, k := range t.r.Policy.Keys {
		name := t.r.columns[k].Name
		at = append(at, c.firstNew()+slices.IndexFunc(c.m.NewColumns, func(col int) bool { return c.m.r.columns[col].Name == name }))
	}
	if len(at) == 0 {
		return make([][][]byte, len(rows)), nil
	}
	var sql strings.Builder
	sql.WriteString("SELECT ")
	for i, k := range at {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("k" + strconv.Itoa(i) + "::" + constantType(c.cols[k]))
	}
	sql.WriteString(" FROM (VALUES ")
	for n, r := range rows {
		if n > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("(" + strconv.Itoa(n))
		for _, k := range at {
			if r[k] == nil {
				sql.WriteString(", NULL::text")
			} else {
				sql.WriteString(", " + literal(string(r[k])) + "::text")
			}
		}
		sql.WriteString(")")
	}
	sql.WriteString(") v(n")
	for i := range at {
		sql.WriteString(", k" + strconv.Itoa(i))
	}
	sql.WriteString(") ORDER BY n")
	out := make([][][]byte, 0, len(rows))
	err := c.s.runExtended(sql.String(), &request{ctx: c.req.ctx, formats: []int16{1}}, func(m pgproto3.BackendMessage) {
		if d, ok := m.(*pgproto3.DataRow); ok {
			row := make([][]byte, len(d.Values))
			for i, v := range d.Values {
				if v != nil {
					row[i] = append([]byte{}, v...)
				}
			}
			out = append(out, row)
		}
	})
	c.s.pending = nil
	return out, err
}
