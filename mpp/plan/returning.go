package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// RETURNING of the general UPDATE and DELETE. What a segment can compute when
// it changes a row, it does. The rest (sub-selects, volatile functions, and all
// of it when rows move) is computed with the rows, over the new row.

// newRow is the name of the rows with their new values, where RETURNING is
// computed over them.
const newRow = "?new"

// returned is RETURNING in the making.
type returned struct {
	m    *modifier
	lv   *level         // the statement's names, bound in a copy of it
	list []*pg.Node     // RETURNING in that copy
	sel  *pg.SelectStmt // finds the rows; further columns are added to it
	// column are the target's columns that have a new value, as seen over
	// newRow; others have the old one.
	column map[int]*pg.Node
	hard   []*pg.Node // computed with the rows
}

// add adds a value to the rows and returns its name.
func (r *returned) add(v *pg.Node) string {
	name := topColumn(len(r.sel.TargetList))
	r.sel.TargetList = append(r.sel.TargetList, target(name, v))
	return name
}

func (r *returned) refuse(why string) error {
	return &Error{Code: codeUnsupported,
		Message: "RETURNING with " + why + " is not supported in this statement on distributed table \"" + r.m.m.Target.Name + "\"",
		Hint:    "Return the table's own columns, and select the rest afterwards."}
}

// target is the changed table's source.
func (r *returned) target() *rte { return r.lv.items[0].rte }

// onSegments is RETURNING for the statement that changes a segment's rows.
func (r *returned) onSegments() ([]*pg.Node, error) {
	nameAll(r.list)
	refs := r.lv.refsByNode()
	to := r.target()
	type later struct {
		at  int // in out
		val *pg.Node
	}
	var out []*pg.Node
	var hard []later
	for _, n := range r.list {
		val := n.GetResTarget().GetVal()
		if isStarRef(val) {
			cols, err := r.starColumns(n)
			if err != nil {
				return nil, err
			}
			for _, c := range cols {
				v := colRef(to.alias, c.name)
				if c.rte != to {
					v = colRef(SourceMark, r.add(starExpr(c, r.lv.items)))
				}
				out = append(out, target(c.name, v))
			}
			continue
		}
		safe := &safety{p: r.m.planner, refs: refs, okRef: func(f *ref) bool {
			return okRef(f) && (f.rte != nil || f.kind == refMerged) && (f.kind != refWhole || f.rte == to)
		}}
		if !safe.safe(val) {
			hard = append(hard, later{len(out), val})
			out = append(out, target(n.GetResTarget().Name, nil))
			continue
		}
		walk(val, func(x any) bool {
			nd, ok := x.(*pg.Node)
			if !ok || nd.GetColumnRef() == nil {
				_, typ := x.(*pg.TypeName)
				return !typ
			}
			switch f := refs[nd]; {
			case f.rte == to && f.kind == refSystem && f.name == segmentID:
				nd.Node = funcCall("gp_execution_segment").Node
			case f.rte == to && f.kind == refWhole:
			case f.rte == to:
				nd.Node = colRef(to.alias, f.name).Node
			default:
				nd.Node = colRef(SourceMark, r.add(proto.CloneOf(nd))).Node
			}
			return false
		})
		out = append(out, n)
	}
	for _, h := range hard {
		if err := r.overNew(h.val); err != nil {
			return nil, err
		}
	}
	for i, h := range hard {
		r.hard = append(r.hard, h.val)
		out[h.at].GetResTarget().Val = colRef(SourceMark, topColumn(len(r.sel.TargetList)+i))
	}
	return out, nil
}

// rows is the SELECT of the rows with all their values.
func (r *returned) rows() *pg.SelectStmt {
	if len(r.hard) == 0 {
		return r.sel
	}
	rows := r.wrap(len(r.sel.TargetList))
	for _, h := range r.hard {
		rows.TargetList = append(rows.TargetList, target(topColumn(len(rows.TargetList)), h))
	}
	return rows
}

// wrap is a SELECT of the first n columns of the rows, where newRow can be
// seen.
func (r *returned) wrap(n int) *pg.SelectStmt {
	rows := newSelect()
	for i := range n {
		rows.TargetList = append(rows.TargetList, target(topColumn(i), colRef(newRow, topColumn(i))))
	}
	rows.FromClause = []*pg.Node{{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: selectNode(r.sel), Alias: &pg.Alias{Aliasname: newRow}}}}}
	return rows
}

// overRows is all of RETURNING as expressions over newRow.
func (r *returned) overRows() ([]*pg.Node, error) {
	nameAll(r.list)
	var out []*pg.Node
	for _, n := range r.list {
		if !isStarRef(n.GetResTarget().GetVal()) {
			if err := r.overNew(n.GetResTarget().Val); err != nil {
				return nil, err
			}
			out = append(out, n)
			continue
		}
		cols, err := r.starColumns(n)
		if err != nil {
			return nil, err
		}
		for _, c := range cols {
			var v *pg.Node
			if c.rte == r.target() {
				if v, err = r.newColumn(c.col); err != nil {
					return nil, err
				}
			} else {
				v = colRef(newRow, r.add(starExpr(c, r.lv.items)))
			}
			out = append(out, target(c.name, v))
		}
	}
	return out, nil
}

// starColumns are the columns a star of RETURNING shows.
func (r *returned) starColumns(n *pg.Node) ([]starCol, error) {
	for _, s := range r.lv.stars {
		if s.node != n {
			continue
		}
		var cols []starCol
		known := true
		if s.rte != nil {
			known = s.rte.known
			for i, c := range s.rte.cols {
				cols = append(cols, starCol{name: c, rte: s.rte, col: i})
			}
		}
		for _, it := range s.items {
			known = known && it.known
			cols = append(cols, it.cols...)
		}
		if known {
			return cols, nil
		}
	}
	return nil, r.refuse("* over columns that are not known")
}

// newColumn is a column of the target over newRow.
func (r *returned) newColumn(col int) (*pg.Node, error) {
	if v := r.column[col]; v != nil {
		return proto.CloneOf(v), nil
	}
	if r.m.m.Target.Columns[col].Generated && !r.m.m.Delete {
		return nil, r.refuse("a generated column")
	}
	v := colRef(newRow, r.add(colRef(r.target().alias, r.m.columnName(col))))
	r.column[col] = v
	return proto.CloneOf(v), nil
}

// overNew changes an expression of RETURNING into one over newRow, also where
// sub-selects in it refer to the row.
func (r *returned) overNew(val *pg.Node) error {
	refs := map[*pg.Node]*ref{}
	r.lv.each(func(l *level) bool {
		for _, f := range l.refs {
			refs[f.node] = f
		}
		return true
	})
	var err error
	walk(val, func(x any) bool {
		nd, ok := x.(*pg.Node)
		if err != nil || !ok || nd.GetColumnRef() == nil {
			_, typ := x.(*pg.TypeName)
			return err == nil && !typ
		}
		f := refs[nd]
		switch {
		case f == nil: // a star of a sub-select
			if parts, _ := fieldNames(nd.GetColumnRef()); len(parts) > 0 && slices.ContainsFunc(r.lv.scope.rtes, func(t *rte) bool { return t.alias == parts[len(parts)-1] }) {
				err = r.refuse("* of the row in a sub-select")
			}
		case f.kind == refOutput, f.scope != nil && f.scope.level != r.lv:
			// A sub-select's own.
		case f.kind == refUncertain && f.level != r.lv:
			err = r.refuse("a name that is not certain")
		case f.rte == r.target() && f.kind == refColumn:
			var v *pg.Node
			if v, err = r.newColumn(f.col); err == nil {
				nd.Node = v.Node
			}
		case f.rte == r.target() && f.kind == refWhole:
			row := &pg.RowExpr{RowFormat: pg.CoercionForm_COERCE_EXPLICIT_CALL, Location: -1}
			for i := range r.m.m.Target.Columns {
				var v *pg.Node
				if v, err = r.newColumn(i); err != nil {
					return false
				}
				row.Args = append(row.Args, v)
			}
			typ := &pg.TypeName{Names: names(relSchema(r.m.m.Target), r.m.m.Target.Name), Typemod: -1, Location: -1}
			nd.Node = castTo(&pg.Node{Node: &pg.Node_RowExpr{RowExpr: row}}, typ).Node
		case f.rte == r.target() && !(f.kind == refSystem && f.name == segmentID && !r.m.m.NewRow && !r.m.m.Replicated):
			err = r.refuse("system columns")
		case f.rte == r.target():
			nd.Node = colRef(newRow, "c1").Node
		case f.kind == refAttribute:
			err = r.refuse("a function of a row by its name alone")
		default:
			nd.Node = colRef(newRow, r.add(proto.CloneOf(nd))).Node
		}
		return false
	})
	return err
}
