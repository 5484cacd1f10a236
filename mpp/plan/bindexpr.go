package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// expr binds the names of an expression, or of any clause, seen from sc.
func (b *binder) expr(m any, sc *scope, lv *level, env *ctes) {
	walk(m, func(m any) bool {
		switch n := m.(type) {
		case *pg.Node:
			if cr := n.GetColumnRef(); cr != nil {
				b.columnRef(n, cr, sc, lv)
				return false
			}
			if fn := n.GetFuncCall(); fn != nil {
				lv.calls = append(lv.calls, call{n, fn})
			}
		case *pg.TypeName, *pg.LockingClause:
			// Type modifiers look like column references.
			return false
		case *pg.SubLink:
			lv.sublinks++
			if n.Testexpr != nil {
				b.expr(n.Testexpr, sc, lv, env)
			}
			if s := nodeSelect(n.Subselect); s != nil {
				if n.SubLinkType == pg.SubLinkType_EXISTS_SUBLINK && len(s.TargetList) == 1 && isStarRef(s.TargetList[0].GetResTarget().GetVal()) &&
					len(s.GroupClause) == 0 && len(s.DistinctClause) == 0 && len(s.SortClause) == 0 {
					s.TargetList[0].GetResTarget().Val = intConst(1) // nobody sees the columns
				}
				sub := b.selectStmt(s, sc, lv, env)
				sub.exists = n.SubLinkType == pg.SubLinkType_EXISTS_SUBLINK
				lv.links = append(lv.links, sublink{n, sub})
			}
			return false
		case *pg.SelectStmt:
			lv.sublinks++
			b.selectStmt(n, sc, lv, env)
			return false
		case *pg.RowExpr:
			for _, a := range n.Args {
				if a.GetColumnRef() != nil && isStar(a) {
					b.starOr(a, a, &n.Args, lv, env)
				} else {
					b.expr(a, sc, lv, env)
				}
			}
			return false
		}
		return true
	})
}

// columnRef binds one reference; a star here is a row as a value.
func (b *binder) columnRef(n *pg.Node, cr *pg.ColumnRef, sc *scope, lv *level) {
	parts, star := fieldNames(cr)
	var r ref
	if star {
		rt, at := b.starRTE(parts, sc)
		if rt == nil {
			r = ref{kind: refUncertain}
		} else {
			r = ref{kind: refWhole, rte: rt, scope: at}
		}
	} else {
		r = sc.resolve(parts)
	}
	r.node, r.cr, r.level = n, cr, lv
	lv.refs = append(lv.refs, &r)
	lv.mark(r.scope)
	switch r.kind {
	case refColumn:
		r.rte.needName(r.name)
	case refMerged:
		for _, t := range r.scope.rtes {
			t.needName(r.name)
		}
	case refSystem:
		b.systemRef(&r)
	case refWhole, refAttribute:
		r.rte.needAll()
		r.rte.whole = true
	default:
		if r.rte != nil {
			r.rte.needAll()
		}
		if len(parts) == 1 && parts[0] == segmentID {
			b.ambiguousSegment(sc)
		}
		for at := sc; at != nil; at = at.parent {
			for _, t := range at.rtes {
				for _, p := range parts {
					t.needName(p)
					if t.alias == p {
						t.needAll()
					}
				}
			}
		}
	}
}

// systemRef notes the use of a system column.
func (b *binder) systemRef(r *ref) {
	t := r.rte
	if r.name == segmentID && t.rel != nil && t.rel.Policy != nil && t.rel.Policy.Kind == Replicated && !t.random {
		b.fail(errorf(codeUndefinedCol, "column %q does not exist", segmentID))
		return
	}
	if t.sys == nil {
		t.sys = map[string]bool{}
	}
	t.sys[r.name] = true
}

// ambiguousSegment fails when several tables of the nearest level that has any
// could be meant by gp_segment_id.
func (b *binder) ambiguousSegment(sc *scope) {
	for at := sc; at != nil; at = at.parent {
		n := 0
		for _, t := range at.rtes {
			if t.hidden {
				continue
			}
			if !t.known || t.column(segmentID) >= 0 {
				return
			}
			if t.isRelation() {
				n++
			}
		}
		if n > 1 {
			b.fail(errorf(codeAmbiguousCol, "column reference %q is ambiguous", segmentID))
		}
		if n > 0 {
			return
		}
	}
}
