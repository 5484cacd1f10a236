package plan

import (
	"fmt"
	"reflect"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// The columns that slices send.

// islandColumns are the columns of an island's slice s: the level's own and
// the hidden ones after them. why says when they cannot be gathered with
// certainty.
func (p *planner) islandColumns(sh *shape, s *pg.SelectStmt, hidden []outVal) (cols []Column, why string, err error) {
	lv := sh.lv
	if !lv.known {
		// Which column is which is not known: none may have a collation.
		if sh.collated() {
			return nil, "a collation that is not certain", nil
		}
		cols, err := p.describe(s)
		return cols, unfit(cols), err
	}
	return p.typeColumns(sh, s, append(append([]outVal(nil), lv.vals...), hidden...), lv.outs)
}

// typeColumns are the columns of slice s, whose values are vals; names are
// those of the first ones.
func (p *planner) typeColumns(sh *shape, s *pg.SelectStmt, vals []outVal, names []string) (cols []Column, why string, err error) {
	inferred := make([]*Column, len(vals))
	all := true
	for i, v := range vals {
		if c, ok := p.inferColumn(sh, v); ok {
			inferred[i] = &c
		} else {
			all = false
		}
	}
	if all {
		cols = make([]Column, len(vals))
	} else if cols, err = p.describe(s); err != nil {
		return nil, "", err
	} else if len(cols) != len(vals) {
		return nil, "", fmt.Errorf("planner: a slice has %d columns, not %d", len(cols), len(vals))
	}
	for i, v := range vals {
		name := cols[i].Name
		if i < len(names) {
			name = names[i]
		}
		if inferred[i] != nil {
			cols[i] = *inferred[i]
		} else if collatable(cols[i].TypeOID) && (sh.collated() || castsToUserType(v.expr)) {
			return nil, "a collation that is not certain", nil
		}
		cols[i].Name = name
	}
	return cols, unfit(cols), nil
}

// describe asks for the columns of a slice.
func (p *planner) describe(s *pg.SelectStmt) ([]Column, error) {
	p.describing = true
	sql, params, err := p.sliceSQL(selectNode(proto.CloneOf(s)))
	p.describing = false
	if err != nil {
		return nil, err
	}
	return p.look.cat.Describe(sql, params)
}

// unfit says when a slice's columns cannot be gathered.
func unfit(cols []Column) string {
	if len(cols) == 0 {
		return "no columns"
	}
	for _, c := range cols {
		if _, asText := typeFit(c.Type); asText {
			return "a column of type " + c.Type
		}
	}
	return ""
}

// inferColumn is the type of a result column, when it is plain to see.
func (p *planner) inferColumn(sh *shape, v outVal) (Column, bool) {
	if v.star != nil {
		if v.star.merged != nil {
			return Column{}, false // of the common type of both sides
		}
		id, ok := v.star.id()
		if b := baseColumn(id); ok && b != nil {
			return *b, true
		}
		return Column{}, false
	}
	if r := sh.refs[v.expr]; r != nil {
		switch r.kind {
		case refColumn:
			if b := baseColumn(colID{r.rte, r.col}); b != nil {
				return *b, true
			}
		case refSystem:
			return Column{Name: r.name, Type: systemColumns[r.name]}, true
		}
		return Column{}, false
	}
	if f := v.expr.GetFuncCall(); f != nil {
		return p.inferCall(sh, f)
	}
	if c := v.expr.GetAConst(); c != nil {
		switch {
		case c.GetIval() != nil:
			return typed(23)
		case c.GetBoolval() != nil:
			return typed(16)
		case c.GetSval() != nil || c.Isnull:
			return typed(25)
		}
	}
	return Column{}, false
}

// typesByOID are the names of common types without a modifier.
var typesByOID = map[uint32]string{
	16: "boolean", 20: "bigint", 21: "smallint", 23: "integer", 25: "text", 700: "real", 701: "double precision",
	1082: "date", 1114: "timestamp without time zone", 1184: "timestamp with time zone", 1700: "numeric",
}

func typed(oid uint32) (Column, bool) { return Column{TypeOID: oid, Type: typesByOID[oid]}, true }

// inferCall is the type of a call of one of the commonest aggregates.
func (p *planner) inferCall(sh *shape, f *pg.FuncCall) (Column, bool) {
	if isExecutionSegment(f) {
		return typed(23)
	}
	fn, err := p.look.function(funcName(f))
	if err != nil || !fn.Builtin || !fn.Aggregate {
		return Column{}, false
	}
	_, name := funcName(f)
	if name == "count" {
		return typed(20)
	}
	if len(f.Args) != 1 {
		return Column{}, false
	}
	id, ok := sh.columnOf(f.Args[0])
	b := baseColumn(id)
	if !ok || b == nil || b.Collation != "" {
		return Column{}, false
	}
	switch name {
	case "sum":
		switch b.TypeOID {
		case 21, 23:
			return typed(20)
		case 20, 1700:
			return typed(1700)
		case 700, 701:
			return typed(b.TypeOID)
		}
	case "min", "max":
		switch {
		case b.TypeOID == 1043:
			return typed(25)
		case b.TypeOID != 16 && typesByOID[b.TypeOID] != "":
			return typed(b.TypeOID)
		}
	}
	return Column{}, false
}

// collated says whether any column an island reads has a collation of its own.
func (sh *shape) collated() bool {
	found := false
	sh.lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.rel == nil || r.kind != rteGather {
				continue
			}
			for _, c := range r.rel.Columns {
				found = found || c.Collation != "" || c.TypeOID == 19
			}
		}
		return !found
	})
	return found
}

// plainTypes are PostgreSQL's types that have no collation.
var plainTypes = map[uint32]bool{
	16: true, 17: true, 18: true, 20: true, 21: true, 23: true, 26: true, 27: true, 28: true, 29: true, 114: true, 142: true,
	600: true, 601: true, 602: true, 603: true, 604: true, 628: true, 700: true, 701: true, 718: true, 790: true, 829: true,
	774: true, 650: true, 869: true, 1082: true, 1083: true, 1114: true, 1184: true, 1186: true, 1266: true, 1560: true,
	1562: true, 1700: true, 2950: true, 3802: true, 1005: true, 1007: true, 1016: true, 1021: true, 1022: true, 1231: true,
}

func collatable(oid uint32) bool { return !plainTypes[oid] }

// castsToUserType says whether an expression casts to a type that may be a
// domain with a collation.
func castsToUserType(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		if t, ok := m.(*pg.TypeName); ok {
			name, _ := lastString(t.Names)
			switch name {
			case "text", "varchar", "bpchar", "char", "name":
			default:
				if len(t.Names) < 2 || t.Names[0].GetString_().GetSval() != "pg_catalog" {
					found = true
				}
			}
			return false
		}
		return !found
	})
	return found
}

// signature is a text that is the same for expressions that are the same:
// columns by what they are, positions in the text left out.
func signature(n *pg.Node, refs map[*pg.Node]*ref) string {
	var b strings.Builder
	sign(&b, reflect.ValueOf(n), refs)
	return b.String()
}

func sign(b *strings.Builder, v reflect.Value, refs map[*pg.Node]*ref) {
	if n, ok := v.Interface().(*pg.Node); ok {
		if r := refs[n]; r != nil {
			if id, ok := r.columnID(); ok {
				fmt.Fprintf(b, "<%p.%d>", id.rte, id.col)
				return
			}
			fmt.Fprintf(b, "<%d %p %p %s>", r.kind, r.rte, r.merged, r.name)
			return
		}
	}
	s := v.Elem()
	t := s.Type()
	b.WriteString(t.Name())
	b.WriteByte('{')
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() || f.Name == "Location" {
			continue
		}
		fv := s.Field(i)
		switch fv.Kind() {
		case reflect.Pointer:
			if !fv.IsNil() {
				sign(b, fv, refs)
			}
		case reflect.Slice:
			for k := range fv.Len() {
				if e := fv.Index(k); e.Kind() == reflect.Pointer {
					if !e.IsNil() {
						sign(b, e, refs)
					}
				} else {
					fmt.Fprint(b, e.Interface())
				}
				b.WriteByte(',')
			}
		case reflect.Interface:
			if !fv.IsNil() {
				w := fv.Elem().Elem()
				b.WriteString(w.Type().Name())
				if e := w.Field(0); e.Kind() == reflect.Pointer && !e.IsNil() {
					sign(b, e, refs)
				}
			}
		case reflect.String:
			fmt.Fprintf(b, "%q", fv.String())
		default:
			fmt.Fprint(b, fv.Interface())
		}
		b.WriteByte(';')
	}
	b.WriteByte('}')
}
