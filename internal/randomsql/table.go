package randomsql

import (
	"fmt"
	"strings"
)

// column is a column an expression may use.
type column struct {
	ref  string // as written
	kind byte
}

// Relation is what one statement makes.
type Relation struct {
	Name        string
	Create      string // the statement, as PostgreSQL takes it
	Distributed string // the clause that follows it where there are segments; may be ""
	Rows        string // a SELECT of the rows to insert, "" for none
}

// Table is a table, view or WITH query that queries can use.
type Table struct {
	Relation
	More     []Relation         // partitions and children, to be made before the table has its rows
	Segments int                // that it lies on; 0: all there are
	Size     float64            // what a planner may take for its number of rows
	Distinct map[string]float64 // and for the number of different values of its columns

	cols   []column // ref is the bare name
	base   bool
	pk     bool
	spread bool // its rows have a gp_segment_id
}

// All are the table and its parts, in the order in which they can be made.
func (t Table) All() []Relation { return append([]Relation{t.Relation}, t.More...) }

// Table draws a table named t<i>.
func (g *Generator) Table(i int) (t Table) {
	if i == 0 {
		g.large = g.One(2)
	}
	t = Table{Relation: Relation{Name: fmt.Sprintf("t%d", i)}, base: true, Segments: g.segments, spread: true}
	names := strings.Split("abcdefghkulmvw", "")
	count := 2 + g.N(4)
	var defs, vals []string
	t.pk = g.One(3)
	seed := g.N(1000)
	for k := 0; len(t.cols) < count; k++ {
		at := g.N(len(names))
		if k == 0 {
			at = 0 // every table has a
		}
		name := names[at]
		names = append(names[:at], names[at+1:]...)
		kind := columnKinds[name]
		typ := kindTypes[kind][g.N(len(kindTypes[kind]))]
		t.cols = append(t.cols, column{name, kind})
		h := fmt.Sprintf("(hashint4(g * 7 + %d) & 1023)", seed+k)
		val := map[byte]string{
			kindInt:   fmt.Sprintf("%s %% %d", h, 4+g.N(12)),
			kindText:  fmt.Sprintf("'s' || %s %% %d", h, 3+g.N(6)),
			kindNum:   fmt.Sprintf("case %s %% 11 when 10 then 'NaN' else (%[1]s %% 9) / 2.0 end", h),
			kindDate:  fmt.Sprintf("case %s %% 8 when 5 then 'infinity' when 6 then '0044-03-15 BC' when 7 then '12020-01-01' else date '2020-01-01' + %[1]s %% 5 end", h),
			kindBool:  fmt.Sprintf("%s %% 2 = 0", h),
			kindReal:  fmt.Sprintf("case %s %% 13 when 10 then 'NaN' when 11 then 'infinity' when 12 then '-0' else (%[1]s %% 9) / 2.0::float8 end", h),
			kindChar:  fmt.Sprintf("'k' || %s %% %d", h, 2+g.N(12)),
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
		case g.One(2):
			val = fmt.Sprintf("case when %s %% 5 > 0 then %s end", h, val)
		}
		defs = append(defs, name+" "+typ)
		vals = append(vals, val)
	}
	t.Distributed = "distributed randomly"
	switch n := g.N(9); {
	case t.pk || n < 3:
		t.Distributed = "distributed by (a)"
		if !t.pk && g.One(3) {
			t.Distributed = "distributed by (a, " + t.cols[1].ref + ")"
		}
	case n < 6:
		t.Distributed = "distributed by (" + t.cols[g.N(len(t.cols))].ref + ")"
	case n == 6 || n == 7:
		t.Distributed = "distributed replicated"
		t.spread = false
	}
	if g.segments > 0 && g.One(6) {
		t.Segments = 1 + g.N(g.segments)
	}
	t.Size = []float64{0, 1, 20, 1e3, 1e3, 1e5, 1e7}[g.N(7)]
	if g.One(2) {
		t.Distinct = map[string]float64{}
		if g.One(2) {
			t.Size = 1e7
		}
		for _, c := range t.cols {
			t.Distinct[c.ref] = []float64{0, 3, 50, 50, 1e4, 1e6}[g.N(6)]
		}
	}
	if g.large {
		t.Size, t.Distinct = []float64{1e5, 1e6, 1e6}[g.N(3)], map[string]float64{}
		for _, c := range t.cols {
			t.Distinct[c.ref] = []float64{t.Size, t.Size, 1e4}[g.N(3)]
		}
	}
	series := func(from, to int) string {
		return fmt.Sprintf("select %s from generate_series(%d, %d) g", strings.Join(vals, ", "), from, to)
	}
	n := g.N(20)
	t.Rows = series(1, n)
	part := ""
	switch {
	case t.spread && g.One(8):
		part = " partition by hash (a)"
		for k := range 2 {
			name := fmt.Sprintf("%s_%d", t.Name, k)
			t.More = append(t.More, Relation{Name: name, Create: fmt.Sprintf("create table %s partition of %s for values with (modulus 2, remainder %d)", name, t.Name, k)})
		}
	case t.spread && !t.pk && g.One(8):
		name := t.Name + "_0"
		by := t.cols[g.N(len(t.cols))].ref
		t.More = append(t.More, Relation{Name: name, Create: fmt.Sprintf("create table %s () inherits (%s)", name, t.Name),
			Distributed: "distributed by (" + by + ")", Rows: series(n+1, n+g.N(9))})
	}
	t.Create = fmt.Sprintf("create table %s (%s)%s", t.Name, strings.Join(defs, ", "), part)
	return t
}

// View draws a view named name over the tables so far. PostgreSQL may refuse it;
// where it does not, Add makes queries use it.
func (g *Generator) View(name string) Table {
	body, kinds := g.rows(1)
	v := Table{Relation: Relation{Name: name, Create: "create view " + name + " as " + body}}
	for i, k := range kinds {
		v.cols = append(v.cols, column{fmt.Sprintf("o%d", i+1), k})
	}
	return v
}
