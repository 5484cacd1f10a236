package session

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// replaceParams writes values in the place of a statement's parameters.
func replaceParams(n *pg.Node, values []*pg.Node) {
	var visit func(m protoreflect.Message)
	visit = func(m protoreflect.Message) {
		if node, ok := m.Interface().(*pg.Node); ok {
			if p := node.GetParamRef(); p != nil {
				if i := int(p.Number) - 1; i >= 0 && i < len(values) {
					node.Node = proto.Clone(values[i]).(*pg.Node).Node
				}
				return
			}
		}
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case fd.Kind() != protoreflect.MessageKind:
			case fd.IsList():
				for i := range v.List().Len() {
					visit(v.List().Get(i).Message())
				}
			default:
				visit(v.Message())
			}
			return true
		})
	}
	visit(n.ProtoReflect())
}
