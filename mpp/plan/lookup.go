package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// lookup asks the catalog, each question once a planning call.
type lookup struct {
	cat   Catalog
	rels  map[Name]*Relation
	funcs map[Name]Func
	touch map[Name]bool
}

func newLookup(cat Catalog) *lookup {
	return &lookup{cat: cat, rels: map[Name]*Relation{}, funcs: map[Name]Func{}, touch: map[Name]bool{}}
}

func (l *lookup) relation(schema, name string) (*Relation, error) {
	key := Name{schema, name}
	if r, ok := l.rels[key]; ok {
		return r, nil
	}
	r, err := l.cat.Relation(schema, name)
	if err != nil {
		return nil, err
	}
	l.rels[key] = r
	return r, nil
}

func (l *lookup) function(schema, name string) (Func, error) {
	key := Name{schema, name}
	if f, ok := l.funcs[key]; ok {
		return f, nil
	}
	f, err := l.cat.Function(schema, name)
	if err != nil {
		return Func{}, err
	}
	if f.Volatility == 0 {
		f.Volatility = 'v'
	}
	l.funcs[key] = f
	return f, nil
}

// location is where a called function runs: 's', 'c', or 'a'.
func (l *lookup) location(call *pg.FuncCall) (byte, error) {
	schema, name := funcName(call)
	if schema == "pg_catalog" {
		return 'a', nil
	}
	f, err := l.function(schema, name)
	if err != nil {
		return 0, err
	}
	switch f.Location {
	case 's':
		return 's', nil
	case 'c', 'm', 'i':
		return 'c', nil
	}
	return 'a', nil
}

// unsafeCalls says whether any of calls is more than an immutable or stable
// function of PostgreSQL's own.
func (l *lookup) unsafeCalls(calls []call) bool {
	for _, c := range calls {
		schema, name := funcName(c.fn)
		if f, err := l.function(schema, name); err != nil || !f.Builtin || f.Volatility == 'v' {
			return true
		}
	}
	return false
}

// viewSelect parses a view's definition afresh.
func (l *lookup) viewSelect(rel *Relation) (*pg.SelectStmt, error) {
	st, err := Parse(rel.ViewDef)
	if err != nil {
		return nil, errorf(codeUnsupported, "cannot read the definition of view %q: %v", rel.Name, err)
	}
	sel := nodeSelect(st.Node)
	if sel == nil {
		return nil, errorf(codeUnsupported, "the definition of view %q is not a SELECT", rel.Name)
	}
	return sel, nil
}

// touches says whether a view reads anything that is not on the coordinator.
// PostgreSQL's own views do not.
func (l *lookup) touches(rel *Relation) (bool, error) {
	if rel.Kind != 'v' || rel.Schema == "pg_catalog" || rel.Schema == "information_schema" || rel.ViewDef == "" {
		return false, nil
	}
	key := Name{rel.Schema, rel.Name}
	if t, ok := l.touch[key]; ok {
		return t, nil
	}
	l.touch[key] = false // ends a circle
	sel, err := l.viewSelect(rel)
	if err != nil {
		return false, err
	}
	t, err := l.distributed(selectNode(sel))
	l.touch[key] = t
	return t, err
}

// distributed says whether a statement reads anything that is not on the
// coordinator.
func (l *lookup) distributed(n *pg.Node) (bool, error) {
	found := false
	var err error
	eachRelation(n, nil, func(rv *pg.RangeVar, cte bool) {
		if cte || found || err != nil {
			return
		}
		var rel *Relation
		if rel, err = l.relation(rv.Schemaname, rv.Relname); rel != nil {
			if found = rel.Policy != nil; !found {
				found, err = l.touches(rel)
			}
		}
	})
	if found || err != nil {
		return found, err
	}
	walk(n, func(m any) bool {
		switch f := m.(type) {
		case *pg.FuncCall:
			if _, name := funcName(f); name == "gp_dist_random" {
				found = true
			} else if where, err2 := l.location(f); err2 != nil {
				err = err2
			} else if where == 's' {
				found = true
			}
		}
		return !found && err == nil
	})
	return found, err
}
