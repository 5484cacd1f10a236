package plan

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pgCatalog is a Catalog over the test server's coord database.
type pgCatalog struct {
	w         *world
	rels      map[Name]*Relation
	funcs     map[Name]Func
	describes map[string][]Column
}

func (c *pgCatalog) forget() {
	c.rels, c.funcs, c.describes = map[Name]*Relation{}, map[Name]Func{}, map[string][]Column{}
}

const typeQuery = `format_type(a.atttypid, a.atttypmod),
	CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0 THEN (SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname)
		FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END`

func (c *pgCatalog) Relation(schema, name string) (*Relation, error) {
	key := Name{schema, name}
	if r, ok := c.rels[key]; ok {
		return r, nil
	}
	ctx := context.Background()
	full := quote(name)
	if schema != "" {
		full = quote(schema) + "." + full
	}
	conn := c.w.conns["coord"]
	r := &Relation{}
	var kind, persistence string
	err := conn.QueryRow(ctx, `SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relhassubclass,
		CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) ELSE '' END
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`, full).
		Scan(&r.OID, &r.Schema, &r.Name, &kind, &persistence, &r.HasChildren, &r.ViewDef)
	if errors.Is(err, pgx.ErrNoRows) {
		c.rels[key] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.Kind, r.Temp = kind[0], persistence == "t"
	rows, err := conn.Query(ctx, `SELECT a.attnum, a.attname, a.atttypid, `+typeQuery+`, a.attnotnull
		FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, r.OID)
	if err != nil {
		return nil, err
	}
	index := map[int16]int{}
	for rows.Next() {
		var num int16
		var col Column
		if err := rows.Scan(&num, &col.Name, &col.TypeOID, &col.Type, &col.Collation, &col.NotNull); err != nil {
			return nil, err
		}
		index[num] = len(r.Columns)
		r.Columns = append(r.Columns, col)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	var pk []int16
	err = conn.QueryRow(ctx, `SELECT conkey FROM pg_constraint WHERE conrelid = $1 AND contype = 'p' AND NOT condeferrable`, r.OID).Scan(&pk)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	for _, k := range pk {
		r.PrimaryKey = append(r.PrimaryKey, index[k])
	}
	lookup := r.Name
	if r.Schema != "public" && !r.Temp {
		lookup = r.Schema + "." + r.Name
	}
	if t := c.w.tables[lookup]; t != nil {
		for i := range r.Columns {
			r.Columns[i].Distinct = t.distinct[r.Columns[i].Name]
		}
		pol := t.policy
		for _, k := range t.keys {
			for i, col := range r.Columns {
				if col.Name == k {
					pol.Keys = append(pol.Keys, i)
				}
			}
		}
		r.Policy, r.Rows = &pol, t.size
	}
	c.rels[key] = r
	return r, nil
}

func (c *pgCatalog) ReadAs(schema, name, _ string) (*Relation, error) {
	return c.Relation(schema, name)
}

func (c *pgCatalog) Function(schema, name string) (Func, error) {
	key := Name{schema, name}
	if f, ok := c.funcs[key]; ok {
		return f, nil
	}
	rows, err := c.w.conns["coord"].Query(context.Background(), `SELECT p.oid::int8, p.provolatile::text, p.prokind::text, p.proretset, p.prosrc FROM pg_proc p
		JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.proname = $1 AND (n.nspname = $2 OR $2 = '' AND n.nspname = ANY (current_schemas(true)))`, name, schema)
	if err != nil {
		return Func{}, err
	}
	f := Func{Builtin: true, Volatility: 'i', Location: 'a'}
	for rows.Next() {
		var oid int64
		var vol, kind, src string
		var set bool
		if err := rows.Scan(&oid, &vol, &kind, &set, &src); err != nil {
			return Func{}, err
		}
		f.Found = true
		f.Builtin = f.Builtin && oid < 16384
		if vol == "v" || vol == "s" && f.Volatility == 'i' {
			f.Volatility = vol[0]
		}
		f.Aggregate = f.Aggregate || kind == "a"
		f.Window = f.Window || kind == "w"
		f.SetReturning = f.SetReturning || set
		// EXECUTE ON is told to the tests by the name.
		if name == "on_segments" {
			f.Location = 's'
		} else if name == "on_coordinator" {
			f.Location = 'c'
		}
	}
	f.Builtin = f.Builtin && f.Found
	c.funcs[key] = f
	return f, rows.Err()
}

func (c *pgCatalog) Describe(sql string, _ []int) ([]Column, error) {
	if cols, ok := c.describes[sql]; ok {
		return append([]Column(nil), cols...), nil
	}
	ctx := context.Background()
	conn := c.w.conns["coord"]
	sd, err := conn.PgConn().Prepare(ctx, "", sql, nil)
	if err != nil {
		return nil, fmt.Errorf("describe: %w: %s", err, sql)
	}
	var cols []Column
	for _, f := range sd.Fields {
		col := Column{Name: f.Name, TypeOID: f.DataTypeOID}
		if err := conn.QueryRow(ctx, "SELECT format_type($1, $2)", f.DataTypeOID, f.TypeModifier).Scan(&col.Type); err != nil {
			return nil, err
		}
		cols = append(cols, col)
	}
	c.describes[sql] = cols
	return append([]Column(nil), cols...), nil
}
