package plan

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// extremes are the aggregates that PostgreSQL may find as the first row in some
// order, each by a scan of its own.
var extremes = map[string]bool{"min": true, "max": true, "bool_and": true, "bool_or": true, "every": true}

// readOnce keeps PostgreSQL from reading a row source twice. It would for two
// extremes of a UNION ALL in FROM, if it could see that it is one and thought that
// cheap: an OFFSET hides it. n is changed.
func readOnce(n *pg.Node) {
	some := false
	var unions []*pg.SelectStmt
	add := func(n *pg.Node) {
		if sel := n.GetSelectStmt(); sel != nil && sel.Op == pg.SetOperation_SETOP_UNION && sel.All &&
			sel.LimitCount == nil && sel.LimitOffset == nil && hasSource(n) {
			unions = append(unions, sel)
		}
	}
	walk(n, func(m any) bool {
		switch v := m.(type) {
		case *pg.FuncCall:
			_, name := funcName(v)
			some = some || extremes[name] && v.Over == nil
		case *pg.RangeSubselect:
			add(v.Subquery)
		case *pg.WithClause:
			for _, c := range v.Ctes {
				if !v.Recursive { // which stays what it is
					add(c.GetCommonTableExpr().GetCtequery())
				}
			}
		}
		return true
	})
	if !some {
		return
	}
	for _, u := range unions {
		u.LimitOffset = intConst(0)
	}
}

// inExists are the marks of the row sources below EXISTS. PostgreSQL may make two plans
// of one that is no join, to look up its rows or to go through them, and use both where
// it tests the same condition in two places.
func inExists(n *pg.Node) (marks []string) {
	walk(n, func(m any) bool {
		if l, ok := m.(*pg.SubLink); ok && l.SubLinkType == pg.SubLinkType_EXISTS_SUBLINK {
			walk(l.Subselect, func(m any) bool {
				if rv, ok := m.(*pg.RangeVar); ok && strings.HasPrefix(rv.Relname, "?gp") {
					marks = append(marks, rv.Relname)
				}
				return true
			})
			return false
		}
		return true
	})
	return marks
}

// hasSource says whether a row source is read in n.
func hasSource(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		if rv, ok := m.(*pg.RangeVar); ok && strings.HasPrefix(rv.Relname, "?gp") {
			found = true
		}
		return !found
	})
	return found
}
