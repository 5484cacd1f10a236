package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// targetName is the name PostgreSQL gives a result column. ok is false when
// that takes knowledge of other relations' columns.
func targetName(t *pg.ResTarget) (name string, ok bool) {
	if t.Name != "" {
		return t.Name, true
	}
	return figureColname(t.Val)
}

// figureColname is PostgreSQL's FigureColname.
func figureColname(n *pg.Node) (string, bool) {
	name, strength := figure(n)
	if strength < 0 {
		return "", false
	}
	if strength == 0 {
		return "?column?", true
	}
	return name, true
}

var sqlValueNames = map[pg.SQLValueFunctionOp]string{
	pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE: "current_date", pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME: "current_time",
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N: "current_time", pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP: "current_timestamp",
	pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N: "current_timestamp", pg.SQLValueFunctionOp_SVFOP_LOCALTIME: "localtime",
	pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N: "localtime", pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP: "localtimestamp",
	pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N: "localtimestamp", pg.SQLValueFunctionOp_SVFOP_CURRENT_ROLE: "current_role",
	pg.SQLValueFunctionOp_SVFOP_CURRENT_USER: "current_user", pg.SQLValueFunctionOp_SVFOP_USER: "user",
	pg.SQLValueFunctionOp_SVFOP_SESSION_USER: "session_user", pg.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG: "current_catalog",
	pg.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA: "current_schema",
}

var xmlNames = map[pg.XmlExprOp]string{
	pg.XmlExprOp_IS_XMLCONCAT: "xmlconcat", pg.XmlExprOp_IS_XMLELEMENT: "xmlelement", pg.XmlExprOp_IS_XMLFOREST: "xmlforest",
	pg.XmlExprOp_IS_XMLPARSE: "xmlparse", pg.XmlExprOp_IS_XMLPI: "xmlpi", pg.XmlExprOp_IS_XMLROOT: "xmlroot",
	pg.XmlExprOp_IS_XMLSERIALIZE: "xmlserialize",
}

// figure is PostgreSQL's FigureColnameInternal: strength 0 no name, 1 a weak
// one, 2 a good one, and here -1: not to be known from the tree.
func figure(n *pg.Node) (string, int) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return lastString(v.ColumnRef.Fields)
	case *pg.Node_AIndirection:
		if name, s := lastString(v.AIndirection.Indirection); s > 0 {
			return name, s
		}
		return figure(v.AIndirection.Arg)
	case *pg.Node_FuncCall:
		_, name := funcName(v.FuncCall)
		return name, 2
	case *pg.Node_AExpr:
		if v.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pg.Node_TypeCast:
		name, s := figure(v.TypeCast.Arg)
		if s == 0 || s == 1 {
			if tn := v.TypeCast.TypeName; tn != nil {
				if name, s := lastString(tn.Names); s > 0 {
					return name, 1
				}
			}
		}
		return name, s
	case *pg.Node_CollateClause:
		return figure(v.CollateClause.Arg)
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_SubLink:
		switch v.SubLink.SubLinkType {
		case pg.SubLinkType_EXISTS_SUBLINK:
			return "exists", 2
		case pg.SubLinkType_ARRAY_SUBLINK:
			return "array", 2
		case pg.SubLinkType_EXPR_SUBLINK:
			return firstColumnName(nodeSelect(v.SubLink.Subselect))
		}
	case *pg.Node_CaseExpr:
		name, s := figure(v.CaseExpr.Defresult)
		if s == 0 || s == 1 {
			return "case", 1
		}
		return name, s
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		if v.MinMaxExpr.Op == pg.MinMaxOp_IS_GREATEST {
			return "greatest", 2
		}
		return "least", 2
	case *pg.Node_SqlvalueFunction:
		return sqlValueNames[v.SqlvalueFunction.Op], 2
	case *pg.Node_XmlExpr:
		if name := xmlNames[v.XmlExpr.Op]; name != "" {
			return name, 2
		}
	case *pg.Node_XmlSerialize:
		return "xmlserialize", 2
	case *pg.Node_JsonFuncExpr, *pg.Node_JsonParseExpr, *pg.Node_JsonScalarExpr, *pg.Node_JsonSerializeExpr,
		*pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor,
		*pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg, *pg.Node_MergeSupportFunc:
		return "", -1
	}
	return "", 0
}

// firstColumnName is the name of the first result column of a sub-select.
func firstColumnName(s *pg.SelectStmt) (string, int) {
	for s != nil && s.Larg != nil {
		s = s.Larg
	}
	if s == nil {
		return "", -1
	}
	if len(s.ValuesLists) > 0 {
		return "column1", 2
	}
	if len(s.TargetList) == 0 {
		return "", 0
	}
	t := s.TargetList[0].GetResTarget()
	if isStar(t.GetVal()) {
		return "", -1
	}
	name, ok := targetName(t)
	if !ok {
		return "", -1
	}
	return name, 2
}

func lastString(nodes []*pg.Node) (string, int) {
	for i := len(nodes) - 1; i >= 0; i-- {
		if s := nodes[i].GetString_(); s != nil {
			return s.Sval, 2
		}
		if nodes[i].GetAStar() != nil {
			continue
		}
	}
	return "", 0
}

// isStar says whether n is * or t.* or (x).*.
func isStar(n *pg.Node) bool {
	if c := n.GetColumnRef(); c != nil && len(c.Fields) > 0 {
		return c.Fields[len(c.Fields)-1].GetAStar() != nil
	}
	if i := n.GetAIndirection(); i != nil && len(i.Indirection) > 0 {
		return i.Indirection[len(i.Indirection)-1].GetAStar() != nil
	}
	return false
}
