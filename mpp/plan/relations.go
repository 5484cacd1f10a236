package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Relations lists the relations a statement names, each once, in order of
// appearance: tables, views, and what gp_dist_random scans. Names that stand
// for WITH queries are left out. Relations behind views are not looked up.
func Relations(n *pg.Node) []Name {
	var names []Name
	seen := map[Name]bool{}
	add := func(name Name) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	eachRelation(n, nil, func(rv *pg.RangeVar, cte bool) {
		if !cte {
			add(Name{rv.Schemaname, rv.Relname})
		}
	})
	walk(n, func(m any) bool {
		if rf, ok := m.(*pg.RangeFunction); ok {
			if name, ok, err := distRandom(rf); ok && err == nil {
				add(name)
			}
		}
		return true
	})
	return names
}

// withNames are the names of WITH queries that can be seen at some place.
type withNames struct {
	outer *withNames
	name  string
}

func (w *withNames) has(rv *pg.RangeVar) bool {
	if rv.Schemaname != "" || rv.Catalogname != "" {
		return false
	}
	for ; w != nil; w = w.outer {
		if w.name == rv.Relname {
			return true
		}
	}
	return false
}

// eachRelation calls fn for every RangeVar below m; cte says that it names a
// WITH query. The names of FOR UPDATE OF are aliases and left out.
func eachRelation(m any, with *withNames, fn func(rv *pg.RangeVar, cte bool)) {
	var done *pg.WithClause // its queries were seen to already
	walk(m, func(m2 any) bool {
		var (
			clause *pg.WithClause
			target *pg.RangeVar
		)
		switch s := m2.(type) {
		case *pg.RangeVar:
			// The target of INSERT and so on is never a WITH query.
			fn(s, s != target && with.has(s))
			return false
		case *pg.LockingClause:
			return false
		case *pg.WithClause:
			return s != done
		case *pg.SelectStmt:
			clause = s.WithClause
		case *pg.InsertStmt:
			clause, target = s.WithClause, s.Relation
		case *pg.UpdateStmt:
			clause, target = s.WithClause, s.Relation
		case *pg.DeleteStmt:
			clause, target = s.WithClause, s.Relation
		case *pg.MergeStmt:
			clause, target = s.WithClause, s.Relation
		}
		if clause == nil && target == nil {
			return true
		}
		inner := with
		if clause != nil {
			if clause.Recursive {
				inner = inner.add(clause)
			}
			for _, c := range clause.Ctes {
				cte := c.GetCommonTableExpr()
				eachRelation(cte.GetCtequery(), inner, fn)
				if !clause.Recursive {
					inner = &withNames{inner, cte.GetCtename()}
				}
			}
		}
		if target != nil {
			fn(target, false)
		}
		eachBelow(m2, clause, target, inner, fn)
		return false
	})
}

func (w *withNames) add(clause *pg.WithClause) *withNames {
	for _, c := range clause.Ctes {
		w = &withNames{w, c.GetCommonTableExpr().GetCtename()}
	}
	return w
}

// eachBelow is eachRelation for what is below a statement, but for its WITH
// clause and target.
func eachBelow(stmt any, clause *pg.WithClause, target *pg.RangeVar, with *withNames, fn func(*pg.RangeVar, bool)) {
	walkBelow(stmt, func(m any) bool {
		switch s := m.(type) {
		case *pg.WithClause:
			if s == clause {
				return false
			}
		case *pg.RangeVar:
			if s == target {
				return false
			}
		}
		eachRelation(m, with, fn)
		return false
	})
}

// distRandom reads gp_dist_random('name') as a FROM item. ok says that it is
// one; then err tells whether it is well-formed.
func distRandom(rf *pg.RangeFunction) (name Name, ok bool, err error) {
	if len(rf.Functions) != 1 {
		return name, false, nil
	}
	items := rf.Functions[0].GetList().GetItems()
	if len(items) == 0 {
		return name, false, nil
	}
	call := items[0].GetFuncCall()
	if schema, fn := funcName(call); call == nil || schema != "" && schema != "pg_catalog" || fn != "gp_dist_random" {
		return name, false, nil
	}
	bad := errorf(codeSyntax, "Invalid GP_DIST_RANDOM syntax.")
	if rf.Ordinality || rf.IsRowsfrom || len(rf.Coldeflist) > 0 || len(call.Args) != 1 ||
		call.AggStar || call.AggDistinct || call.Over != nil {
		return name, true, bad
	}
	arg := call.Args[0].GetAConst()
	if arg == nil || arg.GetSval() == nil {
		return name, true, bad
	}
	parts, ok2 := splitIdentifiers(arg.GetSval().Sval)
	switch {
	case !ok2 || len(parts) > 2:
		return name, true, bad
	case len(parts) == 2:
		return Name{parts[0], parts[1]}, true, nil
	}
	return Name{"", parts[0]}, true, nil
}

// splitIdentifiers reads a possibly quoted, possibly qualified name, as
// PostgreSQL's textToQualifiedNameList does.
func splitIdentifiers(s string) ([]string, bool) {
	var parts []string
	space := func() {
		for len(s) > 0 && (s[0] == ' ' || s[0] >= '\t' && s[0] <= '\r') {
			s = s[1:]
		}
	}
	for {
		space()
		if s == "" {
			return nil, false
		}
		var part string
		if s[0] == '"' {
			s = s[1:]
			closed := false
			for len(s) > 0 {
				if s[0] != '"' {
					part, s = part+s[:1], s[1:]
					continue
				}
				if len(s) > 1 && s[1] == '"' {
					part, s = part+`"`, s[2:]
					continue
				}
				closed, s = true, s[1:]
				break
			}
			if !closed {
				return nil, false
			}
		} else {
			n := 0
			for n < len(s) && s[n] != '.' && s[n] != '"' && s[n] != ' ' && (s[n] < '\t' || s[n] > '\r') {
				n++
			}
			part, s = foldIdentifier(s[:n]), s[n:]
		}
		if part == "" {
			return nil, false
		}
		parts = append(parts, part)
		space()
		if s == "" {
			return parts, true
		}
		if s[0] != '.' {
			return nil, false
		}
		s = s[1:]
	}
}

// funcName is the schema ("" when unqualified) and name of a call.
func funcName(call *pg.FuncCall) (schema, name string) {
	if call == nil {
		return "", ""
	}
	n := len(call.Funcname)
	if n == 0 {
		return "", ""
	}
	name = call.Funcname[n-1].GetString_().GetSval()
	if n > 1 {
		schema = call.Funcname[n-2].GetString_().GetSval()
	}
	return schema, name
}
