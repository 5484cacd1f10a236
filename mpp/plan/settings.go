package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// settingFuncs are the functions that know parameters, and what stands in for
// them so that they know Greenplum's too.
var settingFuncs = map[string]string{
	"current_setting": "gp_current_setting",
	"set_config":      "gp_set_config",
}

// RewriteSettings changes the statement so that it sees Greenplum's parameters:
// current_setting and set_config become pg_catalog.gp_current_setting and
// gp_set_config, and pg_settings (where it is read) becomes
// pg_catalog.gp_pg_settings under its own name. Result column names stay. It
// changes n in place and says whether it did.
func RewriteSettings(n *pg.Node) bool {
	if !mentionsSettings(n) {
		return false
	}
	changed := false
	// The names first: they come from the calls.
	walk(n, func(m any) bool {
		switch s := m.(type) {
		case *pg.SelectStmt:
			nameTargets(s.TargetList)
		case *pg.InsertStmt:
			nameTargets(s.ReturningList)
		case *pg.UpdateStmt:
			nameTargets(s.ReturningList)
		case *pg.DeleteStmt:
			nameTargets(s.ReturningList)
		case *pg.RangeFunction:
			if len(s.Functions) == 1 && s.Alias == nil && !s.IsRowsfrom {
				if items := s.Functions[0].GetList().GetItems(); len(items) > 0 {
					if call := items[0].GetFuncCall(); isSettingFunc(call) {
						_, name := funcName(call)
						s.Alias = &pg.Alias{Aliasname: name}
					}
				}
			}
		}
		return true
	})
	walk(n, func(m any) bool {
		switch s := m.(type) {
		case *pg.FuncCall:
			if isSettingFunc(s) {
				_, name := funcName(s)
				s.Funcname = names("pg_catalog", settingFuncs[name])
				changed = true
			}
		case *pg.ColumnRef:
			// pg_catalog.pg_settings.name: the schema no longer fits.
			if len(s.Fields) > 2 && s.Fields[0].GetString_().GetSval() == "pg_catalog" &&
				s.Fields[1].GetString_().GetSval() == "pg_settings" {
				s.Fields = s.Fields[1:]
			}
		}
		return true
	})
	targets := map[*pg.RangeVar]bool{}
	walk(n, func(m any) bool {
		switch s := m.(type) {
		case *pg.InsertStmt:
			targets[s.Relation] = true
		case *pg.UpdateStmt:
			targets[s.Relation] = true
		case *pg.DeleteStmt:
			targets[s.Relation] = true
		case *pg.MergeStmt:
			targets[s.Relation] = true
		case *pg.CopyStmt:
			targets[s.Relation] = true
		case *pg.IntoClause:
			targets[s.Rel] = true
		}
		return true
	})
	if reads(n) {
		eachRelation(n, nil, func(rv *pg.RangeVar, cte bool) {
			if cte || targets[rv] || rv.Relname != "pg_settings" || rv.Schemaname != "" && rv.Schemaname != "pg_catalog" {
				return
			}
			if rv.Alias == nil {
				rv.Alias = &pg.Alias{Aliasname: rv.Relname}
			}
			rv.Catalogname, rv.Schemaname, rv.Relname = "", "pg_catalog", "gp_pg_settings"
			changed = true
		})
	}
	return changed
}

// CheckSetConfig calls check with the name and the value of each call of
// set_config whose arguments are constants, before or after RewriteSettings,
// and puts what it returns in the value's place. It returns check's first error,
// and whether there are any such calls, constant or not.
func CheckSetConfig(n *pg.Node, check func(name, value string) (string, error)) (found bool, err error) {
	walk(n, func(m any) bool {
		call, ok := m.(*pg.FuncCall)
		if !ok {
			return true
		}
		schema, name := funcName(call)
		if name != "set_config" && name != settingFuncs["set_config"] || schema != "" && schema != "pg_catalog" {
			return true
		}
		found = true
		if len(call.Args) != 3 {
			return true
		}
		of, value := textConst(call.Args[0]), textConst(call.Args[1])
		if of == nil || value == nil || err != nil {
			return true
		}
		var v string
		if v, err = check(of.Sval, value.Sval); err == nil {
			value.Sval = v
		}
		return true
	})
	return found, err
}

// textConst is n as a string constant, cast or not; nil when it is none.
func textConst(n *pg.Node) *pg.String {
	if cast := n.GetTypeCast(); cast != nil {
		n = cast.Arg
	}
	return n.GetAConst().GetSval()
}

// reads says whether n is a statement whose RangeVars are read or written rows
// of, not a definition or a grant that means the relation itself.
func reads(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt,
		*pg.Node_ViewStmt, *pg.Node_CreateTableAsStmt, *pg.Node_DeclareCursorStmt, *pg.Node_CopyStmt:
		return true
	case *pg.Node_ExplainStmt:
		return reads(v.ExplainStmt.Query)
	case *pg.Node_PrepareStmt:
		return reads(v.PrepareStmt.Query)
	}
	return false
}

// mentionsSettings says whether there is anything to rewrite.
func mentionsSettings(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		switch s := m.(type) {
		case *pg.FuncCall:
			found = found || isSettingFunc(s)
		case *pg.RangeVar:
			found = found || s.Relname == "pg_settings"
		}
		return !found
	})
	return found
}

func isSettingFunc(call *pg.FuncCall) bool {
	schema, name := funcName(call)
	return settingFuncs[name] != "" && (schema == "" || schema == "pg_catalog")
}

// nameTargets writes out the name of each result column that calls a function
// to be renamed.
func nameTargets(targets []*pg.Node) {
	for _, n := range targets {
		t := n.GetResTarget()
		if t == nil || t.Name != "" || isStar(t.Val) {
			continue
		}
		if name, ok := figureColname(t.Val); ok && settingFuncs[name] != "" {
			t.Name = name
		}
	}
}

// names makes a list of String nodes.
func names(parts ...string) []*pg.Node {
	list := make([]*pg.Node, len(parts))
	for i, p := range parts {
		list[i] = pg.MakeStrNode(p)
	}
	return list
}
