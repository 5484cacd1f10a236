package session

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// visit calls f for every node below m, depth first, parents before children;
// what is below a node for which f returns false is passed over.
func visit(m protoreflect.Message, f func(*pg.Node) bool) {
	if node, ok := m.Interface().(*pg.Node); ok && !f(node) {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i).Message(), f)
			}
		default:
			visit(v.Message(), f)
		}
		return true
	})
}

// replaceParams writes values in the place of a statement's parameters.
func replaceParams(n *pg.Node, values []*pg.Node) {
	visit(n.ProtoReflect(), func(node *pg.Node) bool {
		p := node.GetParamRef()
		if p == nil {
			return true
		}
		if i := int(p.Number) - 1; i >= 0 && i < len(values) {
			node.Node = proto.Clone(values[i]).(*pg.Node).Node
		}
		return false
	})
}
