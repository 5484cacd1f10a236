package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The general plan: every distributed base table is gathered.

// gatherLevel puts row sources in the place of a level's distributed tables.
func (p *planner) gatherLevel(lv *level) error {
	// Rows that come out of a source cannot be locked.
	lv.sel.LockingClause = nil
	if lv.segments {
		return p.gatherSegments(lv)
	}
	where := p.baseConditions(lv)
	var done []*pg.Node
	for _, r := range lv.rtes {
		if r.kind == rteGather {
			if err := p.gatherRTE(lv, r, where[r]); err != nil {
				return err
			}
			if r.owner == "" {
				done = append(done, where[r]...)
			}
		}
		if r.kind == rteSegments {
			if err := p.gatherFunction(r); err != nil {
				return err
			}
		}
		p.gatherView(r)
	}
	for _, t := range lv.without(done) {
		t.clause.Node = t.rest.Node
	}
	return nil
}

// prepare makes all levels fit for row sources. It comes before any source is
// made: what a level uses of a table may stand in a level below.
func (p *planner) prepare(levels []*level) error {
	for _, step := range []func(*level) error{
		func(lv *level) error { p.executionSegment(lv); return nil },
		func(lv *level) error { p.groupKeys(lv, levels); return nil },
		func(lv *level) error {
			for _, it := range lv.items {
				if err := plainJoins(it); err != nil {
					return err
				}
			}
			return nil
		},
		p.expandStars,
		p.rewriteRefs,
	} {
		for _, lv := range levels {
			if err := step(lv); err != nil {
				return err
			}
		}
	}
	return nil
}

// executionSegment takes gp_execution_segment() in a level that reads a
// distributed table for the segment the row is from: the call would have run
// there.
func (p *planner) executionSegment(lv *level) {
	var from *rte
	for _, r := range lv.rtes {
		if r.kind == rteGather && !r.hidden && (r.rel.Policy == nil || r.rel.Policy.Kind != Replicated || r.random) {
			from = r
			break
		}
	}
	if from == nil {
		return
	}
	for _, c := range lv.calls {
		if !isExecutionSegment(c.fn) {
			continue
		}
		nameAll(lv.sel.TargetList)
		if from.sys == nil {
			from.sys = map[string]bool{}
		}
		from.sys[segmentID] = true
		c.node.Node = colRef(from.alias, segmentID).Node
	}
}

func isExecutionSegment(f *pg.FuncCall) bool {
	schema, name := funcName(f)
	return name == "gp_execution_segment" && (schema == "" || schema == "pg_catalog") && len(f.Args) == 0 && f.Over == nil
}

// extras says whether a source has columns that * must not show.
func (r *rte) extras() bool { return len(r.sys) > 0 || r.whole && (r.kind == rteGather || r.isView()) }

// isView says whether r is an expanded view.
func (r *rte) isView() bool { return r.kind == rteSub && r.rel != nil }

// rewriteRefs makes a level's references fit the sources: qualified by alias
// alone, rows as values of their own column.
func (p *planner) rewriteRefs(lv *level) error {
	named := false
	for _, r := range lv.refs {
		t := r.rte
		if t == nil {
			continue
		}
		if t.kind == rteJoin {
			if r.kind == refWhole || r.kind == refUncertain {
				for _, i := range t.inner {
					if i.extras() {
						return errorf(codeUnsupported, "the row of join %q cannot be used as a value together with system columns of its tables", t.alias)
					}
				}
			}
			continue
		}
		if t.kind != rteGather && !t.isView() {
			continue
		}
		switch r.kind {
		case refWhole, refAttribute:
			if !named {
				nameAll(lv.sel.TargetList)
				named = true
			}
			row := colRef(t.alias, wholeRow)
			if r.kind == refAttribute {
				row = &pg.Node{Node: &pg.Node_AIndirection{AIndirection: &pg.A_Indirection{Arg: row, Indirection: names(r.name)}}}
			}
			r.node.Node = row.Node
		case refColumn, refSystem:
			if len(r.cr.Fields) > 1 {
				r.cr.Fields = names(t.alias, r.name)
			}
		}
	}
	for _, s := range lv.stars {
		if t := s.rte; t != nil && (t.kind == rteGather || t.isView()) {
			s.val.GetColumnRef().Fields = append(names(t.alias), aStar())
		}
	}
	return nil
}

func aStar() *pg.Node { return &pg.Node{Node: &pg.Node_AStar{AStar: &pg.A_Star{}}} }

// gatherView gives an expanded view a column of its row type, if that is used.
func (p *planner) gatherView(r *rte) {
	if !r.whole || !r.isView() || !r.known {
		return
	}
	rs := r.node.GetRangeSubselect()
	if rs == nil {
		return
	}
	const inner = "v"
	sel := newSelect()
	row := &pg.RowExpr{RowFormat: pg.CoercionForm_COERCE_EXPLICIT_CALL, Location: -1}
	in := &pg.Alias{Aliasname: inner}
	for i := range r.rel.Columns {
		name := r.cols[i]
		in.Colnames = append(in.Colnames, pg.MakeStrNode(name))
		sel.TargetList = append(sel.TargetList, target("", colRef(inner, name)))
		row.Args = append(row.Args, colRef(inner, name))
	}
	typ := &pg.TypeName{Names: names(r.rel.Schema, r.rel.Name), Typemod: -1, Location: -1}
	sel.TargetList = append(sel.TargetList, target(wholeRow, castTo(&pg.Node{Node: &pg.Node_RowExpr{RowExpr: row}}, typ)))
	sel.FromClause = []*pg.Node{{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{Subquery: rs.Subquery, Alias: in}}}}
	rs.Subquery = selectNode(sel)
	rs.Alias = &pg.Alias{Aliasname: r.alias}
}

// scan is the SELECT of what the query uses of a base table, but for the columns that are
// unsent, and its columns as they are gathered. wrap says that the source must make more of them.
func (p *planner) scan(r *rte, unsent []bool) (sel *pg.SelectStmt, cols []Column, wrap bool) {
	sel = newSelect()
	from := p.tableItem(r)
	name := from.alias
	for i, c := range r.rel.Columns {
		if !r.sends(i) || i < len(unsent) && unsent[i] {
			continue
		}
		val := colRef(name, r.cols[i])
		c.Name = r.cols[i]
		if typ, asText := typeFit(c.Type); asText {
			val, c.Type, c.Collation = cast(val, "text"), typ, ""
		}
		sel.TargetList = append(sel.TargetList, target("", val))
		cols = append(cols, c)
	}
	wrap = r.whole
	for _, s := range sortedKeys(r.sys) {
		var val *pg.Node
		col := Column{Name: s, Type: systemColumns[s]}
		switch s {
		case segmentID:
			val = funcCall("gp_execution_segment")
		case "tableoid":
			// Tables have other OIDs elsewhere; their names are the same.
			val, col.Type, wrap = cast(colRef(name, s), "regclass"), "pg_catalog.regclass", true
		default:
			val = colRef(name, s)
		}
		sel.TargetList = append(sel.TargetList, target(s, val))
		cols = append(cols, col)
	}
	if len(cols) == 0 {
		cols = []Column{{Name: dummyColumn, Type: "boolean"}}
		sel.TargetList = []*pg.Node{target(dummyColumn, cast(nullConst(), "bool"))}
	}
	sel.FromClause = []*pg.Node{from.node}
	return sel, cols, wrap
}

// gatherRTE makes a slice that scans one table and puts its source in the
// table's place. where are conditions on the table alone.
func (p *planner) gatherRTE(lv *level, r *rte, where []*pg.Node) error {
	var unsent []bool
	if r.owner == "" {
		unsent = lv.unsent(r, where)
	}
	sel, cols, wrap := p.scan(r, unsent)
	s := Slice{Columns: cols, Relation: r.rel.Name, Rows: r.rel.Rows}
	if r.owner != "" {
		item, err := p.ownerItem(r)
		if err != nil {
			return err
		}
		sel = newSelect()
		sel.FromClause = []*pg.Node{item}
		for _, c := range cols {
			sel.TargetList = append(sel.TargetList, target("", colRef(r.alias, c.Name)))
		}
		if r.textual() {
			where = nil // they may be on what is text by now
		}
	}
	if len(where) > 0 {
		clones := make([]*pg.Node, len(where))
		for i, w := range where {
			clones[i] = proto.CloneOf(w)
			replaceSegmentRefs(clones[i])
		}
		sel.WhereClause = and(clones)
	}
	s.Segments = p.scanSegments(lv, r, where)
	if err := p.addSlice(&s, sel); err != nil {
		return err
	}
	text := ""
	if !wrap {
		text = p.recv(&s, r.alias, cols)
	} else {
		text = p.wrapSource(r, &s, cols)
	}
	r.node.Node = p.addSource(text).Node
	return nil
}

// scanSegments are the segments that have rows of a base table which the
// conditions where let through, nil for all.
func (p *planner) scanSegments(lv *level, r *rte, where []*pg.Node) []int {
	only := p.segments(r)
	if len(where) == 0 {
		return only
	}
	l, _ := p.tableLocus(r)
	sh := &shape{lv: lv, refs: lv.refsByNode(), from: l}
	if seg := p.pinned(l, where, sh.refs); seg != nil {
		only = seg
	}
	for _, w := range where {
		if seg, ok := p.givenSegment(w, sh); ok {
			only = []int{seg}
		}
	}
	return only
}

// replaceSegmentRefs makes a copied condition on one table fit for a segment.
func replaceSegmentRefs(n *pg.Node) {
	walk(n, func(m any) bool {
		if n, ok := m.(*pg.Node); ok && n.GetColumnRef() != nil {
			if parts, _ := fieldNames(n.GetColumnRef()); parts[len(parts)-1] == segmentID {
				n.Node = funcCall("gp_execution_segment").Node
			}
			return false
		}
		return true
	})
}

// wrapSource is a source with its row as a value, or with columns that were
// gathered as something else.
func (p *planner) wrapSource(r *rte, s *Slice, cols []Column) string {
	list, row := "", ""
	for _, c := range cols {
		if list != "" {
			list += ", "
		}
		col := `s.` + quote(c.Name)
		if c.Name == "tableoid" && r.sys["tableoid"] {
			list += col + "::pg_catalog.oid AS " + quote(c.Name)
		} else {
			list += col
		}
	}
	if r.whole {
		for i := range r.rel.Columns {
			if row != "" {
				row += ", "
			}
			row += `s.` + quote(r.cols[i])
		}
		if list != "" {
			list += ", "
		}
		list += "ROW(" + row + ")::" + quote(relSchema(r.rel)) + "." + quote(r.rel.Name) + " AS " + quote(wholeRow)
	}
	return "(SELECT " + list + " FROM " + p.recv(s, "s", cols) + ") AS " + quote(r.alias)
}
