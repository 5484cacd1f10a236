package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Deparse writes a parse tree as SQL. n is not changed.
func Deparse(n *pg.Node) (string, error) {
	if nests(n) {
		n = proto.CloneOf(n)
		walk(n, func(m any) bool {
			parenthesize(m)
			return true
		})
	}
	return pg.Deparse(&pg.ParseResult{Version: treeVersion, Stmts: []*pg.RawStmt{{Stmt: n}}})
}

// treeVersion is the version of PostgreSQL's grammar in pg_query; its deparser
// takes no tree without it.
const treeVersion = 170007

// pg_query's deparser forgets parentheses that a tree needs: of
// (a <> b) NOT IN (c), for one. So every operator among the operands of
// another is put into a row without ROW and with one column, which is not a
// row at all when it is read again, but is written with parentheses.

// parenthesize wraps m's operands.
func parenthesize(m any) {
	operands(m, func(arg *pg.Node) {
		if isOperator(arg) || subscripted(m, arg) {
			*arg = pg.Node{Node: &pg.Node_RowExpr{RowExpr: &pg.RowExpr{
				Args: []*pg.Node{{Node: arg.Node}}, RowFormat: pg.CoercionForm_COERCE_IMPLICIT_CAST}}}
		}
	})
}

// nests says whether a tree has an operator among another's operands.
func nests(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		operands(m, func(arg *pg.Node) { found = found || isOperator(arg) || subscripted(m, arg) })
		return !found
	})
	return found
}

// subscripted says whether m takes a part of a value that must stand in
// parentheses for that.
func subscripted(m any, arg *pg.Node) bool {
	_, ok := m.(*pg.A_Indirection)
	return ok && arg.GetColumnRef() == nil && arg.GetParamRef() == nil
}

// operands calls f for what is written beside an operator, which may bind more
// or less tightly.
func operands(m any, f func(*pg.Node)) {
	each := func(args ...*pg.Node) {
		for _, a := range args {
			if a != nil {
				f(a)
			}
		}
	}
	switch m := m.(type) {
	case *pg.A_Expr:
		each(m.Lexpr, m.Rexpr)
		switch m.Kind { // LIKE x ESCAPE y is a function's call in the tree
		case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE, pg.A_Expr_Kind_AEXPR_SIMILAR:
			each(m.Rexpr.GetFuncCall().GetArgs()...)
		}
	case *pg.List: // BETWEEN's
		each(m.Items...)
	case *pg.BoolExpr:
		each(m.Args...)
	case *pg.NullTest:
		each(m.Arg)
	case *pg.BooleanTest:
		each(m.Arg)
	case *pg.TypeCast:
		each(m.Arg)
	case *pg.CollateClause:
		each(m.Arg)
	case *pg.A_Indirection:
		each(m.Arg)
	case *pg.SubLink:
		each(m.Testexpr)
	case *pg.FuncCall: // AT TIME ZONE, OVERLAPS, POSITION(… IN …)
		if m.Funcformat == pg.CoercionForm_COERCE_SQL_SYNTAX {
			each(m.Args...)
		}
	case *pg.JsonIsPredicate:
		each(m.Expr)
	case *pg.XmlExpr:
		if m.Op == pg.XmlExprOp_IS_DOCUMENT {
			each(m.Args...)
		}
	}
}

func isOperator(n *pg.Node) bool {
	switch e := n.Node.(type) {
	case *pg.Node_AExpr:
		return e.AExpr.Kind != pg.A_Expr_Kind_AEXPR_NULLIF
	case *pg.Node_FuncCall:
		return e.FuncCall.Funcformat == pg.CoercionForm_COERCE_SQL_SYNTAX
	case *pg.Node_SubLink:
		return e.SubLink.Testexpr != nil
	case *pg.Node_XmlExpr:
		return e.XmlExpr.Op == pg.XmlExprOp_IS_DOCUMENT
	case *pg.Node_BoolExpr, *pg.Node_NullTest, *pg.Node_BooleanTest, *pg.Node_CollateClause, *pg.Node_JsonIsPredicate:
		return true
	}
	return false
}
