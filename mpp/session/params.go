package session

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/trunkline-db/trunkline/mpp/plan"
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

// withoutParams is a request with its parameters written into the statement as
// constants, for statements that reach the local server in the simple protocol.
func (s *Session) withoutParams(req *request) (*request, error) {
	if len(req.params) == 0 {
		return req, nil
	}
	ask, types := "SELECT ", make([]string, len(req.params))
	for i := range req.params {
		name, err := s.typeName(req.types[i])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			ask += ", "
		}
		types[i] = name
		ask += fmt.Sprintf("$%d::%s::text", i+1, name)
	}
	values := make([]*pg.Node, len(req.params))
	var failed error
	err := s.runExtended(ask, &request{ctx: req.ctx, params: req.params, types: req.types}, func(m pgproto3.BackendMessage) {
		row, ok := m.(*pgproto3.DataRow)
		for i := 0; ok && failed == nil && i < len(values); i++ {
			values[i], failed = constant(row.Values[i], types[i])
		}
	})
	s.pending = nil
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	plain := *req
	plain.node = proto.Clone(req.node).(*pg.Node)
	plain.params, plain.types = nil, nil
	replaceParams(plain.node, values)
	plain.text, err = plan.Deparse(plain.node)
	return &plain, err
}

// constant is a value in text form, nil for NULL, as a constant of a type.
func constant(v []byte, typ string) (*pg.Node, error) {
	lit := "NULL"
	if v != nil {
		lit = literal(string(v))
	}
	n, err := parseOne("SELECT CAST(" + lit + " AS " + typ + ")")
	if err != nil {
		return nil, err
	}
	return n.GetSelectStmt().TargetList[0].GetResTarget().Val, nil
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
