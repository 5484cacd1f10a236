package plan

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// What may be evaluated on a segment instead of the coordinator: expressions
// whose value depends on nothing but the row and the session's settings.

// stableFuncs are PostgreSQL's functions that are stable only for their
// dependence on settings (time zone, date style, locale, text search
// configuration), which are the same in all of a session's processes.
var stableFuncs = map[string]bool{
	"to_char": true, "to_date": true, "to_timestamp": true, "to_number": true, "date_trunc": true, "date_part": true,
	"extract": true, "timezone": true, "concat": true, "concat_ws": true, "format": true, "array_to_string": true,
	"make_timestamptz": true, "to_json": true, "to_jsonb": true, "row_to_json": true, "array_to_json": true,
	"json_build_object": true, "json_build_array": true, "jsonb_build_object": true, "jsonb_build_array": true,
	"quote_literal": true, "quote_nullable": true, "timestamptz": true, "timestamp": true, "date": true, "time": true,
	"timetz": true, "to_tsvector": true, "to_tsquery": true, "plainto_tsquery": true, "phraseto_tsquery": true,
	"websearch_to_tsquery": true, "ts_headline": true, "text": true, "overlaps": true, "justify_interval": true,
	"generate_series": true, "date_bin": true, "length": true, "isfinite": true, "string_to_array": true,
}

// unsafeTypes are those whose values name objects by numbers that differ
// between instances, or whose input is the time of the statement.
var unsafeTypes = map[string]bool{
	"regclass": true, "regtype": true, "regproc": true, "regprocedure": true, "regoper": true, "regoperator": true,
	"regrole": true, "regnamespace": true, "regconfig": true, "regdictionary": true, "regcollation": true, "oid": true,
}

// safety looks at expressions of one level.
type safety struct {
	p     *planner
	refs  map[*pg.Node]*ref
	okRef func(*ref) bool
	// aggregates and windows: these calls are allowed. srf: set-returning
	// functions are.
	aggregates, windows, srf bool
	links                    bool   // sub-selects are allowed, whatever their levels are
	why                      string // of the last refusal
}

func (s *safety) no(why string) bool {
	if s.why == "" {
		s.why = why
	}
	return false
}

// safe says whether an expression, or a clause, may be evaluated on a segment.
func (s *safety) safe(m any) bool {
	ok := true
	walk(m, func(m any) bool {
		if !ok {
			return false
		}
		switch n := m.(type) {
		case *pg.Node:
			if l := n.GetSubLink(); l != nil && s.links {
				ok = l.Testexpr == nil || s.safe(l.Testexpr)
				return false
			}
			ok = s.node(n)
			if _, isRef := n.Node.(*pg.Node_ColumnRef); isRef {
				return false
			}
			if c := n.GetTypeCast(); ok && c != nil && c.TypeName != nil {
				ok = s.cast(c)
			}
		case *pg.TypeName:
			return false
		}
		return ok
	})
	return ok
}

// node judges one node without what is below it.
func (s *safety) node(n *pg.Node) bool {
	if _, ok := statementTime(n); ok && s.p.opt.Eval != nil {
		return true
	}
	switch v := n.Node.(type) {
	case nil, *pg.Node_AExpr, *pg.Node_BoolExpr, *pg.Node_NullTest, *pg.Node_BooleanTest, *pg.Node_TypeCast,
		*pg.Node_CaseExpr, *pg.Node_CaseWhen, *pg.Node_CoalesceExpr, *pg.Node_MinMaxExpr, *pg.Node_AArrayExpr,
		*pg.Node_RowExpr, *pg.Node_AIndirection, *pg.Node_AIndices, *pg.Node_List, *pg.Node_String_,
		*pg.Node_Integer, *pg.Node_Float, *pg.Node_Boolean, *pg.Node_BitString, *pg.Node_NamedArgExpr, *pg.Node_TypeName,
		*pg.Node_ResTarget, *pg.Node_SortBy:
		return true
	case *pg.Node_WindowDef:
		return s.windows || s.no("a window function")
	case *pg.Node_GroupingSet, *pg.Node_GroupingFunc:
		return s.aggregates || s.no("grouping sets")
	case *pg.Node_AConst:
		if sv := v.AConst.GetSval(); sv != nil && isNow(sv.Sval) {
			return s.no("a constant that may mean the time of the statement")
		}
		return true
	case *pg.Node_ParamRef:
		return s.p.typed(v.ParamRef.Number) || s.no("a parameter of unknown type")
	case *pg.Node_ColumnRef:
		r := s.refs[n]
		return r != nil && s.okRef(r) || s.no("a column reference")
	case *pg.Node_FuncCall:
		return s.call(v.FuncCall)
	case *pg.Node_SubLink:
		return s.no("a sub-select")
	case *pg.Node_CollateClause:
		return s.no("COLLATE")
	case *pg.Node_SqlvalueFunction:
		return s.no("the current time or user")
	}
	return s.no("an expression of a kind that is not pushed down")
}

// isNow says whether a constant may be one of the date words that mean the
// time of the statement.
func isNow(s string) bool {
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r|0x20 < 'a' || r|0x20 > 'z' }) {
		switch strings.ToLower(w) {
		case "now", "today", "tomorrow", "yesterday":
			return true
		}
	}
	return false
}

func (s *safety) cast(c *pg.TypeCast) bool {
	name, _ := lastString(c.TypeName.Names)
	if unsafeTypes[name] {
		return s.no("a cast to " + name)
	}
	return true
}

func (s *safety) call(f *pg.FuncCall) bool {
	schema, name := funcName(f)
	if isExecutionSegment(f) {
		return true
	}
	fn, err := s.p.look.function(schema, name)
	if err != nil || !fn.Found {
		return s.no("function " + name)
	}
	switch {
	case f.Over != nil:
		if s.windows && fn.Builtin && fn.Volatility == 'i' {
			return true
		}
		return s.no("a window function")
	case fn.Aggregate:
		if s.aggregates && fn.Volatility == 'i' {
			return true
		}
		return s.no("aggregate " + name)
	case fn.SetReturning && !s.srf:
		return s.no("set-returning function " + name)
	case fn.Window, fn.Location != 0 && fn.Location != 'a':
	case fn.Volatility == 'i', fn.Builtin && fn.Volatility == 's' && stableFuncs[name]:
		return true
	}
	return s.no("function " + name)
}

// refsByNode maps the nodes of a level's references.
func (lv *level) refsByNode() map[*pg.Node]*ref {
	m := make(map[*pg.Node]*ref, len(lv.refs))
	for _, r := range lv.refs {
		m[r.node] = r
	}
	return m
}

// unsent are the columns of r, one of the level's tables, that nothing uses but those of
// conds that the level has: conditions on r alone that are tested where its rows are, and
// nowhere else; see without. nil: none.
func (lv *level) unsent(r *rte, conds []*pg.Node) []bool {
	if r.all || len(conds) == 0 {
		return nil
	}
	refs := lv.refsByNode()
	left := slices.Clone(r.uses)
	var own []*pg.Node // others are implied by these
	for _, clause := range lv.clauses() {
		own = append(own, conjuncts(clause)...)
	}
	for _, c := range own {
		if !contained(conds, c) {
			continue
		}
		walk(c, func(m any) bool {
			if n, ok := m.(*pg.Node); ok {
				if ref := refs[n]; ref != nil && ref.kind == refColumn && ref.rte == r {
					left[r.column(ref.name)]--
				}
			}
			return true
		})
	}
	out := make([]bool, len(left))
	for i := range left {
		out[i] = r.need[i] && left[i] == 0
	}
	return out
}

// mentions says whether an expression has a column reference.
func mentions(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		_, is := m.(*pg.ColumnRef)
		found = found || is
		return !found
	})
	return found
}

// baseConditions finds, for the gathered tables of a level, the conditions on
// one table alone that can be tested where its rows are. The level's own
// statement keeps them too.
func (p *planner) baseConditions(lv *level) map[*rte][]*pg.Node {
	out := map[*rte][]*pg.Node{}
	if p.opt.NoPushdown {
		return out
	}
	var refs map[*pg.Node]*ref
	take := func(cond *pg.Node, within []*rte) {
		for _, c := range conjuncts(cond) {
			var only *rte
			if refs == nil {
				refs = lv.refsByNode()
			}
			s := safety{p: p, refs: refs, okRef: func(r *ref) bool {
				if r.kind != refColumn && r.kind != refSystem || r.rte.kind != rteGather || r.rte.first != nil || r.rte.hidden || only != nil && only != r.rte {
					return false
				}
				if r.kind == refSystem && r.name != "ctid" && r.name != segmentID || r.kind == refColumn && r.name == segmentID {
					return false
				}
				only = r.rte
				return true
			}}
			if !mentions(c) || !s.safe(c) || only == nil {
				continue
			}
			for _, w := range within {
				if w == only {
					out[only] = append(out[only], c)
				}
			}
		}
	}
	// rows are the sources of it that are never filled up with NULLs in it.
	var rows func(it *fromItem) []*rte
	rows = func(it *fromItem) []*rte {
		if it.join == nil || it.left == nil {
			if it.rte != nil {
				return []*rte{it.rte}
			}
			return nil
		}
		l, r := rows(it.left), rows(it.right)
		both := append(append([]*rte(nil), l...), r...)
		switch it.join.Jointype {
		case pg.JoinType_JOIN_INNER:
			take(it.join.Quals, both)
			return both
		case pg.JoinType_JOIN_LEFT:
			take(it.join.Quals, r)
			return l
		case pg.JoinType_JOIN_RIGHT:
			take(it.join.Quals, l)
			return r
		}
		return nil
	}
	var all []*rte
	for _, it := range lv.items {
		all = append(all, rows(it)...)
	}
	take(lv.sel.WhereClause, all)
	for r, list := range p.impliedBy(lv) {
		for _, i := range list {
			if !slices.Contains(out[r], i.from) {
				out[r] = append(out[r], i.cond)
			}
		}
	}
	return out
}
