package plan

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The general UPDATE and DELETE: find the rows, then change each where it is.

// rows plans a statement as ModifyRows.
func (m *modifier) rows() error {
	out := m.m
	out.Kind = ModifyRows
	out.NewRow = m.setsKey()
	alias := m.targetAlias()
	// Names are looked up in a copy, to see what RETURNING means.
	probe := proto.CloneOf(m.stmt)
	pm := *m
	pm.stmt = probe
	pm.reread()
	lv, err := pm.bind(pm.query(), true)
	if err != nil {
		return err
	}
	values, err := m.newValues()
	if err != nil {
		return err
	}
	sel := newSelect()
	sel.FromClause = append([]*pg.Node{{Node: &pg.Node_RangeVar{RangeVar: m.rel}}}, m.from...)
	sel.WhereClause, sel.WithClause = m.cond, m.with
	sel.TargetList = []*pg.Node{target("c1", colRef(alias, segmentID)), target("c2", colRef(alias, "ctid"))}
	first := len(sel.TargetList)
	if out.Replicated = out.Target.Policy.Kind == Replicated; out.Replicated {
		// Copies have places of their own: rows are told by their values.
		sel.TargetList[0] = target("c1", cast(intConst(0), "int4"))
		sel.TargetList[1] = target("c2", cast(pg.MakeAConstStrNode("(0,0)", -1), "tid"))
		for i := range out.Target.Columns {
			sel.TargetList = append(sel.TargetList, target(topColumn(len(sel.TargetList)), colRef(alias, m.columnName(i))))
		}
		out.identity = len(out.Target.Columns)
		out.Slice.Segments = m.copies()
	} else if out.HasTable = out.Target.HasChildren && m.rel.Inh; out.HasTable {
		first++
		sel.TargetList = append(sel.TargetList, target("c3", cast(colRef(alias, "tableoid"), "regclass")))
	}
	if out.NewRow {
		return m.newRows(sel, values)
	}
	add := func(v *pg.Node) string {
		name := topColumn(len(sel.TargetList))
		sel.TargetList = append(sel.TargetList, target(name, v))
		return name
	}
	for _, v := range values {
		if v.expr != nil {
			v.set.Val = colRef(SourceMark, add(v.expr))
		}
	}
	ret, err := m.returning(lv, pm.ret, add)
	if err != nil {
		return err
	}
	out.NumValues = len(sel.TargetList) - first
	out.Rows = selectNode(sel)
	out.apply = m.applyStmt(ret)
	return nil
}

// columnName is a column of the target as the statement knows it.
func (m *modifier) columnName(i int) string {
	if a := m.rel.Alias; a != nil && i < len(a.Colnames) {
		return a.Colnames[i].GetString_().GetSval()
	}
	return m.m.Target.Columns[i].Name
}

// copies are the segments that have a copy of a replicated target, nil for all.
func (m *modifier) copies() []int {
	if n := m.m.Target.Policy.NumSegments; n > 0 && n < m.opt.NumSegments {
		return firstSegments(n)
	}
	return nil
}

// newValue is what an UPDATE sets.
type newValue struct {
	set  *pg.ResTarget // in the statement that applies it
	expr *pg.Node      // nil for DEFAULT
}

// newValues are the values an UPDATE sets, cast to their columns' types.
func (m *modifier) newValues() ([]newValue, error) {
	var out []newValue
	for _, n := range m.sets {
		t := n.GetResTarget()
		i, err := m.columnIndex(t.Name)
		if err != nil {
			return nil, err
		}
		v := newValue{set: &pg.ResTarget{Name: t.Name, Indirection: t.Indirection, Location: -1}}
		switch {
		case t.Val.GetSetToDefault() != nil:
			v.set.Val = t.Val
		case t.Val.GetMultiAssignRef() != nil:
			if v.expr, err = multiValue(t.Val.GetMultiAssignRef()); err != nil {
				return nil, err
			}
			if v.expr.GetSetToDefault() != nil {
				v.set.Val, v.expr = v.expr, nil
			}
		default:
			v.expr = t.Val
		}
		if v.expr != nil && len(t.Indirection) == 0 {
			v.expr = castTo(v.expr, looseType(m.m.Target.Columns[i].Type))
		}
		out = append(out, v)
	}
	return out, nil
}

// multiValue is the value of one column of SET (a, b) = …
func multiValue(r *pg.MultiAssignRef) (*pg.Node, error) {
	col := int(r.Colno) - 1
	if row := r.Source.GetRowExpr(); row != nil && col < len(row.Args) {
		return proto.CloneOf(row.Args[col]), nil
	}
	link := r.Source.GetSubLink()
	sub := nodeSelect(link.GetSubselect())
	if sub == nil || sub.Op != pg.SetOperation_SETOP_NONE || len(sub.ValuesLists) > 0 || len(sub.DistinctClause) > 0 ||
		len(sub.TargetList) != int(r.Ncolumns) {
		return nil, &Error{Code: codeUnsupported, Message: "cannot set several columns of a distributed table from this sub-select",
			Hint: "Set each column from a sub-select of its own."}
	}
	for _, n := range append(append([]*pg.Node(nil), sub.SortClause...), sub.GroupClause...) {
		e := n
		if sb := n.GetSortBy(); sb != nil {
			e = sb.Node
		}
		if e.GetAConst() != nil {
			return nil, &Error{Code: codeUnsupported, Message: "cannot set several columns of a distributed table from a sub-select ordered by position",
				Hint: "Set each column from a sub-select of its own."}
		}
	}
	c := proto.CloneOf(r.Source)
	s := nodeSelect(c.GetSubLink().Subselect)
	s.TargetList = s.TargetList[col : col+1]
	if isStarRef(s.TargetList[0].GetResTarget().GetVal()) {
		return nil, errorf(codeUnsupported, "cannot set several columns of a distributed table from a sub-select with *")
	}
	return c, nil
}

// looseType is a type without its modifier: the modifier is for the column to
// enforce, with the error that a cast would swallow.
func looseType(typ string) *pg.TypeName {
	base, dims := strings.CutSuffix(typ, "[]")
	if i := strings.IndexByte(base, '('); i >= 0 {
		if j := strings.IndexByte(base[i:], ')'); j >= 0 {
			base = base[:i] + base[i+j+1:]
		}
	}
	switch base {
	case "character":
		base = "pg_catalog.bpchar"
	case "bit":
		base = `pg_catalog."bit"`
	}
	if dims {
		base += "[]"
	}
	return parseType(base)
}

// parseType reads a type as format_type writes it.
func parseType(typ string) *pg.TypeName {
	if st, err := Parse("SELECT NULL::" + typ); err == nil {
		if list := nodeSelect(st.Node).GetTargetList(); len(list) == 1 {
			if c := list[0].GetResTarget().GetVal().GetTypeCast(); c != nil {
				return c.TypeName
			}
		}
	}
	return &pg.TypeName{Names: names(typ), Typemod: -1, Location: -1}
}

// returning is RETURNING for the statement that applies the changes: the
// target's columns are the changed row's own, those of other tables come with
// the rows, added by add. Its names were bound in lv; list is RETURNING there.
func (m *modifier) returning(lv *level, list []*pg.Node, add func(*pg.Node) string) ([]*pg.Node, error) {
	if len(list) == 0 {
		return nil, nil
	}
	refuse := func(why string) error {
		return &Error{Code: codeUnsupported, Message: "RETURNING with " + why + " is not supported in this statement on distributed table \"" + m.m.Target.Name + "\"",
			Hint: "Return the table's own columns, and select the rest afterwards."}
	}
	nameAll(list)
	target0 := lv.items[0].rte
	refs := lv.refsByNode()
	from := func(r *rte, name string) *pg.Node {
		return colRef(SourceMark, add(colRef(r.alias, name)))
	}
	var out []*pg.Node
	for _, n := range list {
		val := n.GetResTarget().GetVal()
		if isStarRef(val) {
			for _, s := range lv.stars {
				if s.node != n {
					continue
				}
				var cols []starCol
				if s.rte != nil {
					for i, c := range s.rte.cols {
						cols = append(cols, starCol{name: c, rte: s.rte, col: i})
					}
					if !s.rte.known {
						return nil, refuse("* over columns that are not known")
					}
				}
				for _, it := range s.items {
					if !it.known {
						return nil, refuse("* over columns that are not known")
					}
					cols = append(cols, it.cols...)
				}
				for _, c := range cols {
					switch {
					case c.rte == target0:
						out = append(out, target(c.name, colRef(target0.alias, c.name)))
					case c.merged != nil:
						out = append(out, target(c.name, colRef(SourceMark, add(starExpr(c, s.items)))))
					default:
						out = append(out, target(c.name, from(c.rte, c.name)))
					}
				}
			}
			continue
		}
		bad := ""
		safe := &safety{p: m.planner, refs: refs, okRef: okRef}
		if !safe.safe(val) {
			return nil, refuse(safe.why)
		}
		walk(val, func(x any) bool {
			nd, ok := x.(*pg.Node)
			if !ok || nd.GetColumnRef() == nil {
				_, typ := x.(*pg.TypeName)
				return !typ
			}
			r := refs[nd]
			switch {
			case r == nil || r.rte == nil:
				bad = "a merged column of a join"
			case r.rte == target0 && r.kind == refSystem && r.name == segmentID:
				nd.Node = funcCall("gp_execution_segment").Node
			case r.rte == target0 && r.kind != refWhole:
				nd.Node = colRef(target0.alias, r.name).Node
			case r.rte == target0:
			case r.kind == refColumn || r.kind == refSystem:
				nd.Node = from(r.rte, r.name).Node
			default:
				bad = "a row of another table"
			}
			return false
		})
		if bad != "" {
			return nil, refuse(bad)
		}
		out = append(out, n)
	}
	return out, nil
}

// applyStmt is the statement that changes the rows a segment is given.
func (m *modifier) applyStmt(returning []*pg.Node) *pg.Node {
	alias := m.targetAlias()
	rv := &pg.RangeVar{Schemaname: relSchema(m.m.Target), Relname: m.m.Target.Name, Inh: m.rel.Inh, Relpersistence: "p",
		Alias: &pg.Alias{Aliasname: alias}, Location: -1}
	if m.rel.Alias != nil {
		rv.Alias = proto.CloneOf(m.rel.Alias)
	}
	var conds []*pg.Node
	for i := range m.m.identity {
		old, is := colRef(alias, m.columnName(i)), colRef(SourceMark, topColumn(2+i))
		if c := m.m.Target.Columns[i]; families[c.TypeOID] == "" {
			old, is = cast(old, "text"), cast(is, "text") // it may have no equality
		}
		conds = append(conds, &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_NOT_DISTINCT,
			Name: names("="), Lexpr: old, Rexpr: is, Location: -1}}})
	}
	if m.m.identity == 0 {
		conds = []*pg.Node{equals(colRef(alias, "ctid"), colRef(SourceMark, "c2"))}
	}
	if m.m.HasTable {
		conds = append(conds, equals(colRef(alias, "tableoid"), cast(colRef(SourceMark, "c3"), "regclass")))
	}
	if m.m.Delete || m.m.NewRow {
		return &pg.Node{Node: &pg.Node_DeleteStmt{DeleteStmt: &pg.DeleteStmt{Relation: rv, WhereClause: and(conds), ReturningList: returning}}}
	}
	u := &pg.UpdateStmt{Relation: rv, WhereClause: and(conds), ReturningList: returning}
	values, err := m.newValues()
	if err != nil {
		return nil // was told before
	}
	col := 2 + m.m.identity
	if m.m.HasTable {
		col++
	}
	for _, v := range values {
		if v.expr != nil {
			v.set.Val = colRef(SourceMark, topColumn(col))
			col++
		}
		u.TargetList = append(u.TargetList, &pg.Node{Node: &pg.Node_ResTarget{ResTarget: v.set}})
	}
	return &pg.Node{Node: &pg.Node_UpdateStmt{UpdateStmt: u}}
}

func equals(a, b *pg.Node) *pg.Node {
	return &pg.Node{Node: &pg.Node_AExpr{AExpr: &pg.A_Expr{Kind: pg.A_Expr_Kind_AEXPR_OP, Name: names("="), Lexpr: a, Rexpr: b, Location: -1}}}
}

// newRows plans an UPDATE that may move rows: sel finds the rows, the values
// are the whole new row. RETURNING is computed over it.
func (m *modifier) newRows(sel *pg.SelectStmt, values []newValue) error {
	out := m.m
	alias := m.targetAlias()
	byName := map[string]newValue{}
	for i, v := range values {
		switch {
		case v.expr == nil:
			return errorf(codeUnsupported, "cannot set column %q to DEFAULT in an UPDATE of the distribution key; give its value", v.set.Name)
		case len(v.set.Indirection) > 0:
			return errorf(codeUnsupported, "cannot set a part of column %q in an UPDATE of the distribution key; give its whole value", v.set.Name)
		}
		byName[values[i].set.Name] = v
	}
	fixed := len(sel.TargetList)
	for i, c := range out.Target.Columns {
		if c.Generated {
			continue
		}
		v := colRef(alias, m.columnName(i))
		if set, ok := byName[c.Name]; ok {
			v = set.expr // with a cast
		}
		out.NewColumns = append(out.NewColumns, i)
		sel.TargetList = append(sel.TargetList, target(topColumn(len(sel.TargetList)), v))
	}
	if len(m.ret) > 0 {
		if err := m.newReturning(sel, fixed); err != nil {
			return err
		}
	}
	out.NumValues = len(sel.TargetList) - fixed
	out.Rows = selectNode(sel)
	out.apply = m.applyStmt(nil)
	return nil
}

// newReturning adds RETURNING of an UPDATE that may move rows: its expressions
// over the new row, columns fixed and on of sel.
func (m *modifier) newReturning(sel *pg.SelectStmt, fixed int) error {
	out := m.m
	probe := proto.CloneOf(m.stmt)
	pm := *m
	pm.stmt = probe
	pm.reread()
	lv, err := pm.bind(pm.query(), true)
	if err != nil {
		return err
	}
	nameAll(pm.ret)
	refuse := func(why string) error {
		return &Error{Code: codeUnsupported, Message: "RETURNING with " + why + " is not supported in an UPDATE of the distribution key",
			Hint: "Return the table's own columns."}
	}
	target0 := lv.items[0].rte
	refs := lv.refsByNode()
	newCol := func(col int) (*pg.Node, bool) {
		for at, i := range out.NewColumns {
			if i == col {
				// As the column will hold it.
				v := proto.CloneOf(sel.TargetList[fixed+at].GetResTarget().Val)
				if v.GetColumnRef() == nil {
					v = castTo(v, parseType(out.Target.Columns[col].Type))
				}
				return v, true
			}
		}
		return nil, false
	}
	// The expressions are evaluated once more, so they must be safe to.
	again := &safety{p: m.planner, refs: refs, okRef: okRef}
	for _, n := range pm.sets {
		v := n.GetResTarget().GetVal()
		if !again.safe(v) {
			return refuse("a new value that has " + again.why)
		}
	}
	var list []*pg.Node
	for _, n := range pm.ret {
		val := n.GetResTarget().GetVal()
		if isStarRef(val) {
			for _, s := range lv.stars {
				if s.node != n {
					continue
				}
				if s.rte == nil && len(s.items) > 1 || s.rte != nil && s.rte != target0 {
					return refuse("* of other tables")
				}
				for i, c := range target0.cols {
					v, ok := newCol(i)
					if !ok {
						return refuse("a generated column")
					}
					list = append(list, target(c, v))
				}
			}
			continue
		}
		if !again.safe(val) {
			return refuse(again.why)
		}
		bad := ""
		walk(val, func(x any) bool {
			nd, ok := x.(*pg.Node)
			if !ok || nd.GetColumnRef() == nil {
				_, typ := x.(*pg.TypeName)
				return !typ
			}
			r := refs[nd]
			switch {
			case r == nil || r.rte == nil || r.kind != refColumn:
				bad = "more than columns"
			case r.rte == target0:
				v, ok := newCol(r.col)
				if !ok {
					bad = "a generated column"
					return false
				}
				nd.Node = v.Node
			}
			return false
		})
		if bad != "" {
			return refuse(bad)
		}
		list = append(list, n)
	}
	for _, n := range list {
		sel.TargetList = append(sel.TargetList, target(topColumn(len(sel.TargetList)), n.GetResTarget().Val))
	}
	return nil
}
