package session

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
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

// knownLimits is a query with numbers in the place of the parameters that its
// LIMIT and OFFSET are: only numbers tell the planner how many rows segments have
// to send.
func knownLimits(n *pg.Node, params []dispatch.Param, types []uint32) *pg.Node {
	limits := func(n *pg.Node) []*pg.Node {
		sel := n.GetSelectStmt()
		return []*pg.Node{sel.GetLimitCount(), sel.GetLimitOffset()}
	}
	param := func(limit *pg.Node) *pg.Node {
		if c := limit.GetTypeCast(); c != nil {
			limit = c.Arg
		}
		return limit
	}
	known := n
	for i, limit := range limits(n) {
		p := param(limit).GetParamRef()
		if p == nil || p.Number < 1 || int(p.Number) > len(params) || int(p.Number) > len(types) {
			continue
		}
		v, ok := smallInteger(&params[p.Number-1], types[p.Number-1])
		if !ok {
			continue
		}
		if known == n {
			known = proto.Clone(n).(*pg.Node)
		}
		param(limits(known)[i]).Node = pg.MakeAConstIntNode(v, -1).Node
	}
	return known
}

// smallInteger is the value of an integer parameter between 0 and the largest
// int4, which is the same for every integer type but the smallest.
func smallInteger(p *dispatch.Param, typeOID uint32) (v int64, ok bool) {
	const int8OID, int4OID = 20, 23
	switch b := p.Value; {
	case b == nil || typeOID != int8OID && typeOID != int4OID:
		return 0, false
	case p.Format == 0:
		var err error
		v, err = strconv.ParseInt(string(b), 10, 32)
		ok = err == nil
	case len(b) == 8:
		v, ok = int64(binary.BigEndian.Uint64(b)), true
	case len(b) == 4:
		v, ok = int64(int32(binary.BigEndian.Uint32(b))), true
	}
	return v, ok && v >= 0 && v <= math.MaxInt32
}

// keyParam is a parameter as text that is the same whatever the session's settings:
// a whole number, a text or a UUID.
func keyParam(p *dispatch.Param, typeOID uint32) (string, bool) {
	const int8OID, int2OID, int4OID, textOID, varcharOID, uuidOID = 20, 21, 23, 25, 1043, 2950
	b := p.Value
	if b == nil {
		return "", false
	}
	text := p.Format == pgproto3.TextFormat
	switch typeOID {
	case textOID, varcharOID:
		return string(b), true
	case int2OID, int4OID, int8OID:
		switch {
		case text:
			return string(b), true
		case len(b) == 2:
			return strconv.Itoa(int(int16(binary.BigEndian.Uint16(b)))), true
		case len(b) == 4:
			return strconv.Itoa(int(int32(binary.BigEndian.Uint32(b)))), true
		case len(b) == 8:
			return strconv.FormatInt(int64(binary.BigEndian.Uint64(b)), 10), true
		}
	case uuidOID:
		switch {
		case text:
			return string(b), true
		case len(b) == 16:
			return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), true
		}
	}
	return "", false
}
