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
		return m.newRows(sel, values, &returned{m: m, lv: lv, list: pm.ret, sel: sel})
	}
	ret := &returned{m: m, lv: lv, list: pm.ret, sel: sel, column: map[int]*pg.Node{}}
	for _, v := range values {
		if v.expr != nil {
			ret.column[v.index] = castTo(colRef(newRow, ret.add(v.expr)), parseType(out.Target.Columns[v.index].Type))
		}
	}
	list, err := ret.onSegments()
	if err != nil {
		return err
	}
	out.Rows = selectNode(ret.rows())
	out.NumValues = len(nodeSelect(out.Rows).TargetList) - first
	out.apply = m.applyStmt(list)
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
	index int           // of the column
	set   *pg.ResTarget // in the statement that applies it
	expr  *pg.Node      // nil for DEFAULT
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
		v := newValue{index: i, set: &pg.ResTarget{Name: t.Name, Indirection: t.Indirection, Location: -1}}
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
		base = "bpchar" // qualified, the deparser would make char(1) of it
	case "bit":
		base = "varbit" // bit is bit(1)
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
	if m.m.identity == 0 && !m.m.Replicated { // the copies of a table without columns have no rows that differ
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
func (m *modifier) newRows(sel *pg.SelectStmt, values []newValue, ret *returned) error {
	out := m.m
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
	ret.column = map[int]*pg.Node{}
	for i, c := range out.Target.Columns {
		if c.Generated {
			continue
		}
		v := colRef(m.targetAlias(), m.columnName(i))
		if set, ok := byName[c.Name]; ok {
			v = set.expr // with a cast
		}
		out.NewColumns = append(out.NewColumns, i)
		ret.column[i] = castTo(colRef(newRow, ret.add(v)), parseType(c.Type))
	}
	shown := len(sel.TargetList)
	list, err := ret.overRows()
	if err != nil {
		return err
	}
	rows := sel
	if len(list) > 0 {
		rows = ret.wrap(shown)
		for _, n := range list {
			rows.TargetList = append(rows.TargetList, target(topColumn(len(rows.TargetList)), n.GetResTarget().Val))
		}
	}
	out.Rows = selectNode(rows)
	out.NumValues = len(rows.TargetList) - fixed
	out.apply = m.applyStmt(nil)
	return nil
}
