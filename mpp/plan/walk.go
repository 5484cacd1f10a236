package plan

import (
	"reflect"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// walk calls visit for m and every message below it, parents first. m and what
// visit gets are pointers to pg_query's structs (*pg.Node, *pg.SelectStmt, …);
// the wrapper of a oneof is passed over. When visit returns false the messages
// below are left out. visit may change the message it is given; its children
// are read after it returns.
//
// It goes by the structs' fields and so knows every kind of node there is:
// a walker that lists them by hand forgets one.
func walk(m any, visit func(m any) bool) {
	if m == nil {
		return
	}
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	walkPtr(v, visit)
}

func walkPtr(v reflect.Value, visit func(m any) bool) {
	if !visit(v.Interface()) {
		return
	}
	walkFields(v.Elem(), visit)
}

// walkBelow is walk without the visit of m itself.
func walkBelow(m any, visit func(m any) bool) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return
	}
	walkFields(v.Elem(), visit)
}

func walkFields(s reflect.Value, visit func(m any) bool) {
	for _, f := range fieldsOf(s.Type()) {
		fv := s.Field(f.index)
		switch f.kind {
		case fieldPtr:
			if !fv.IsNil() {
				walkPtr(fv, visit)
			}
		case fieldNodes:
			for _, n := range fv.Interface().([]*pg.Node) {
				if n != nil {
					walkPtr(reflect.ValueOf(n), visit)
				}
			}
		case fieldSlice:
			for i := range fv.Len() {
				if e := fv.Index(i); !e.IsNil() {
					walkPtr(e, visit)
				}
			}
		case fieldOneof:
			if !fv.IsNil() {
				w := fv.Elem().Elem() // interface, pointer to the wrapper
				if e := w.Field(0); e.Kind() == reflect.Pointer && !e.IsNil() {
					walkPtr(e, visit)
				}
			}
		}
	}
}

type fieldKind uint8

const (
	fieldPtr fieldKind = iota
	fieldNodes
	fieldSlice
	fieldOneof
)

type field struct {
	index int
	kind  fieldKind
}

var fieldCache sync.Map // reflect.Type of a struct to []field

func fieldsOf(t reflect.Type) []field {
	if c, ok := fieldCache.Load(t); ok {
		return c.([]field)
	}
	var fs []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		switch f.Type.Kind() {
		case reflect.Pointer:
			if f.Type.Elem().Kind() == reflect.Struct {
				fs = append(fs, field{i, fieldPtr})
			}
		case reflect.Slice:
			if f.Type == reflect.TypeFor[[]*pg.Node]() {
				fs = append(fs, field{i, fieldNodes})
			} else if e := f.Type.Elem(); e.Kind() == reflect.Pointer && e.Elem().Kind() == reflect.Struct {
				fs = append(fs, field{i, fieldSlice})
			}
		case reflect.Interface:
			fs = append(fs, field{i, fieldOneof})
		}
	}
	fieldCache.Store(t, fs)
	return fs
}
