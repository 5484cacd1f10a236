package plan

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Makers of parse tree nodes and SQL text.

// quote writes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal writes a string constant.
func literal(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

func colRef(parts ...string) *pg.Node {
	return &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: names(parts...), Location: -1}}}
}

func target(name string, val *pg.Node) *pg.Node {
	return pg.MakeResTargetNodeWithNameAndVal(name, val, -1)
}

func funcCall(name string, args ...*pg.Node) *pg.Node {
	return pg.MakeFuncCallNode(names("pg_catalog", name), args, -1)
}

// cast casts to a type of pg_catalog.
func cast(n *pg.Node, typ string) *pg.Node {
	return castTo(n, &pg.TypeName{Names: names("pg_catalog", typ), Typemod: -1, Location: -1})
}

func castTo(n *pg.Node, typ *pg.TypeName) *pg.Node {
	return &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: n, TypeName: typ, Location: -1}}}
}

func intConst(i int64) *pg.Node { return pg.MakeAConstIntNode(i, -1) }

func caseWhen(cond, val *pg.Node) *pg.Node {
	when := &pg.Node{Node: &pg.Node_CaseWhen{CaseWhen: &pg.CaseWhen{Expr: cond, Result: val, Location: -1}}}
	return &pg.Node{Node: &pg.Node_CaseExpr{CaseExpr: &pg.CaseExpr{Args: []*pg.Node{when}, Location: -1}}}
}

func boolConst(v bool) *pg.Node {
	return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Boolval{Boolval: &pg.Boolean{Boolval: v}}, Location: -1}}}
}

func nullConst() *pg.Node {
	return &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Isnull: true, Location: -1}}}
}

func and(conds []*pg.Node) *pg.Node {
	switch len(conds) {
	case 0:
		return nil
	case 1:
		return conds[0]
	}
	return pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, conds, -1)
}

func newSelect() *pg.SelectStmt {
	return &pg.SelectStmt{LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}
}

// setSelect makes dst what src is.
func setSelect(dst, src *pg.SelectStmt) {
	dst.DistinctClause, dst.IntoClause, dst.TargetList = src.DistinctClause, src.IntoClause, src.TargetList
	dst.FromClause, dst.WhereClause = src.FromClause, src.WhereClause
	dst.GroupClause, dst.GroupDistinct, dst.HavingClause = src.GroupClause, src.GroupDistinct, src.HavingClause
	dst.WindowClause, dst.ValuesLists, dst.SortClause = src.WindowClause, src.ValuesLists, src.SortClause
	dst.LimitOffset, dst.LimitCount, dst.LimitOption = src.LimitOffset, src.LimitCount, src.LimitOption
	dst.LockingClause, dst.WithClause = src.LockingClause, src.WithClause
	dst.Op, dst.All, dst.Larg, dst.Rarg = src.Op, src.All, src.Larg, src.Rarg
}

// nameAll writes out the names of result columns, so that the expressions can
// be changed.
func nameAll(targets []*pg.Node) {
	for _, n := range targets {
		if t := n.GetResTarget(); t != nil && t.Name == "" && !isStar(t.Val) {
			if name, ok := figureColname(t.Val); ok && name != "?column?" {
				t.Name = name
			}
		}
	}
}

// conjuncts are the conditions that an expression ANDs together.
func conjuncts(n *pg.Node) []*pg.Node {
	if n == nil {
		return nil
	}
	if be := n.GetBoolExpr(); be != nil && be.Boolop == pg.BoolExprType_AND_EXPR {
		var out []*pg.Node
		for _, a := range be.Args {
			out = append(out, conjuncts(a)...)
		}
		return out
	}
	return []*pg.Node{n}
}
