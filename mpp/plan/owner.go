package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The tables of a view are read with the rights of its owner. Where the user
// has not got them, such a table is scanned by pg_catalog.gp_owner_rows(), a
// function on the segments; all else, also what the view does with the rows,
// is evaluated as the user, as in PostgreSQL.

// readMark stands for the call in a slice's tree.
func (p *planner) readMark() string { return "?gp" + p.salt + "read?" }

// ownerItem is the FROM item of a slice that reads a table with the rights of
// r's owner, and notes what it reads. A slice has one such item at most.
func (p *planner) ownerItem(r *rte) (*pg.Node, error) {
	sel, cols, _ := p.scan(r, nil)
	rd, err := r.ownerRead(sel, cols)
	if err != nil {
		return nil, err
	}
	p.read = rd
	return &pg.Node{Node: &pg.Node_RangeVar{RangeVar: &pg.RangeVar{
		Relname: p.readMark(), Inh: true, Relpersistence: "p", Location: -1}}}, nil
}

// ownerReads says what keeps a level that reads with an owner's rights from
// being an island. Levels of the user's query are none over such tables: the
// fence around the view keeps them apart.
func (lv *level) ownerReads() string {
	why, reads := "", 0
	lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.owner == "" || r.kind != rteGather {
				continue
			}
			if reads++; reads > 1 {
				why = "several tables that the view's owner may read and the user may not"
			}
			if r.whole || r.sample != nil || r.textual() {
				why = "a table that the view's owner may read and the user may not"
			}
		}
		return true
	})
	return why
}

// textual says whether some of a table's columns are gathered as text.
func (r *rte) textual() bool {
	return slices.ContainsFunc(r.rel.Columns, func(c Column) bool { _, asText := typeFit(c.Type); return asText })
}

// source is the FROM item whose argument is parameter n.
func (r *Read) source(n int) string {
	return "pg_catalog.gp_owner_rows($" + itoa(n) + "::text) AS " + r.as
}

// ownerRead is the scan that sel is, which makes cols, as the owner of a view.
func (r *rte) ownerRead(sel *pg.SelectStmt, cols []Column) (*Read, error) {
	if r.sample != nil && !plainSample(r.sample) {
		return nil, errorf(codeUnsupported, "the TABLESAMPLE of table %q cannot be read with the rights of the view's owner", r.rel.Name)
	}
	rd := &Read{Owner: r.owner, Schema: relSchema(r.rel), Table: r.rel.Name, Filtered: r.filtered, as: quote(r.alias) + "(" + columnDefs(cols) + ")"}
	for i, c := range r.rel.Columns {
		if r.filtered {
			break // the user's rights to columns were checked by PostgreSQL, the policies need none
		}
		if r.all || i < len(r.need) && r.need[i] {
			rd.Columns = append(rd.Columns, c.Name)
		}
	}
	for _, s := range sortedKeys(r.sys) {
		if s != segmentID {
			rd.Columns = append(rd.Columns, s)
		}
	}
	var err error
	rd.SQL, err = deparseSelect(proto.CloneOf(sel))
	return rd, err
}

// plainSample says whether a sample's arguments are plain numbers, so that
// nothing is called with the owner's rights.
func plainSample(s *pg.RangeTableSample) bool {
	ok := true
	check := func(n *pg.Node) {
		if c := n.GetTypeCast(); c != nil {
			name, _ := lastString(c.TypeName.GetNames())
			ok = ok && (name == "float4" || name == "float8")
			n = c.Arg
		}
		ok = ok && n.GetAConst() != nil
	}
	for _, a := range s.Args {
		check(a)
	}
	if s.Repeatable != nil {
		check(s.Repeatable)
	}
	method, _ := lastString(s.Method)
	return ok && (method == "bernoulli" || method == "system")
}
