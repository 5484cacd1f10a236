package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Conditions that a query does not have but that follow: where t.a = u.b and
// t.a = 5, u.b = 5. PostgreSQL finds them for the tables it scans itself; rows
// that another slice sends are better left out before they are sent.

// implied is a condition on one column of a base table.
type implied struct {
	cond *pg.Node
	from *pg.Node // the condition with the constant
}

// facts are what holds in all rows that matter to a query.
type facts struct {
	eq     *equalities
	consts []constFact
}

// constFact is a condition column = value.
type constFact struct {
	col   colID
	value *pg.Node
	cond  *pg.Node
}

// with are the facts when a condition holds, too.
func (f facts) with(p *planner, cond *pg.Node, refs map[*pg.Node]*ref) facts {
	if cond == nil {
		return f
	}
	f.eq = f.eq.clone()
	f.eq.equate(cond, refs)
	f.consts = slices.Clip(f.consts)
	for _, c := range conjuncts(cond) {
		x := c.GetAExpr()
		if x == nil || !isEquals(x) {
			continue
		}
		for _, s := range [2][2]*pg.Node{{x.Lexpr, x.Rexpr}, {x.Rexpr, x.Lexpr}} {
			r := refs[s[0]]
			if r == nil {
				continue
			}
			if id, ok := r.columnID(); ok && p.constantOf(s[1], family(baseColumn(id))) {
				f.consts = append(f.consts, constFact{id, s[1], c})
			}
		}
	}
	return f
}

// constantOf says whether a value is a constant or a parameter that means the
// same when it is compared with another column of a hash family.
func (p *planner) constantOf(n *pg.Node, family string) bool {
	var of string
	if c := n.GetTypeCast(); c != nil && len(c.TypeName.GetTypmods()) == 0 && len(c.TypeName.GetArrayBounds()) == 0 {
		name, _ := lastString(c.TypeName.GetNames())
		switch name {
		case "int2", "int4", "int8":
			of = "int"
		case "text", "varchar":
			of = "text"
		case "uuid":
			of = "uuid"
		}
		if k := len(c.TypeName.GetNames()); k > 2 || k == 2 && c.TypeName.Names[0].GetString_().GetSval() != "pg_catalog" {
			return false
		}
		if c.Arg.GetAConst() == nil && c.Arg.GetParamRef() == nil || c.Arg.GetAConst().GetIsnull() {
			return false
		}
	} else if c := n.GetAConst(); c != nil {
		switch {
		case c.GetIval() != nil:
			of = "int"
		case c.GetSval() != nil && family != "int":
			of = family // an unknown literal takes the column's type
		}
	} else if r := n.GetParamRef(); r != nil && p.typed(r.Number) {
		switch p.opt.ParamTypes[r.Number-1] {
		case "smallint", "integer", "bigint":
			of = "int"
		case "text", "character varying":
			of = "text"
		case "uuid":
			of = "uuid"
		}
	}
	if of == "" || of != family || of != "int" && of != "text" && of != "uuid" {
		return false
	}
	s := safety{p: p}
	return s.safe(n)
}

// impliedBy finds the conditions on a level's base tables that follow from its
// others. What holds for the one side of an outer join does for the rows of the
// other that matter, as in itemLocus.
func (p *planner) impliedBy(lv *level) map[*rte][]implied {
	if lv.implied != nil {
		return lv.implied
	}
	lv.implied = map[*rte][]implied{}
	refs := lv.refsByNode()
	on := func(it *fromItem, f facts) facts {
		f = f.with(p, it.join.Quals, refs)
		for _, m := range it.merged {
			l, ok1 := m.left.id()
			r, ok2 := m.right.id()
			if ok1 && ok2 && it.owns(m) {
				f.eq = f.eq.clone()
				f.eq.equal(l, r)
			}
		}
		return f
	}
	// of adds what holds in all rows of a FROM item.
	var of func(it *fromItem, f facts) facts
	of = func(it *fromItem, f facts) facts {
		if it.join == nil || it.left == nil {
			return f
		}
		switch it.join.Jointype {
		case pg.JoinType_JOIN_INNER:
			return of(it.right, of(it.left, on(it, f)))
		case pg.JoinType_JOIN_LEFT:
			return of(it.left, f)
		case pg.JoinType_JOIN_RIGHT:
			return of(it.right, f)
		}
		return f
	}
	var visit func(it *fromItem, f facts) // f has what of adds
	visit = func(it *fromItem, f facts) {
		if it.join == nil || it.left == nil {
			if it.rte != nil {
				p.imply(lv, it.rte, f)
			}
			return
		}
		left, right := f, f
		switch it.join.Jointype {
		case pg.JoinType_JOIN_INNER:
		case pg.JoinType_JOIN_LEFT:
			right = of(it.right, on(it, f))
		case pg.JoinType_JOIN_RIGHT:
			left = of(it.left, on(it, f))
		default:
			left, right = of(it.left, facts{eq: &equalities{}}), of(it.right, facts{eq: &equalities{}})
		}
		visit(it.left, left)
		visit(it.right, right)
	}
	all := facts{eq: &equalities{}}.with(p, lv.sel.WhereClause, refs)
	for _, it := range lv.items {
		all = of(it, all)
	}
	for _, it := range lv.items {
		visit(it, all)
	}
	return lv.implied
}

// imply notes what follows for one table.
func (p *planner) imply(lv *level, r *rte, f facts) {
	if r.kind != rteGather || r.first != nil || r.hidden || r.owner != "" || r.filtered {
		return
	}
	for i := range r.rel.Columns {
		if !r.sends(i) || i >= len(r.cols) {
			continue
		}
		id := colID{r, i}
		for _, c := range f.consts {
			if !f.eq.same(id, c.col) {
				continue
			}
			col := colRef(r.alias, r.cols[i])
			lv.refs = append(lv.refs, &ref{kind: refColumn, node: col, cr: col.GetColumnRef(), rte: r, col: i, name: r.cols[i], scope: r.scope, level: lv})
			lv.implied[r] = append(lv.implied[r], implied{equals(col, proto.CloneOf(c.value)), c.cond})
			break
		}
	}
}
