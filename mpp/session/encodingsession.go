package session

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// The link always speaks UTF8. What the client has set is kept on the link in
// a parameter of another name, so that it follows SET LOCAL, savepoints and
// rollbacks; the session reads it again when it may have changed.
const (
	encodingParameter = "client_encoding"
	keptEncoding      = gucPrefix + encodingParameter
)

// clientEncoding is the session's client_encoding.
type clientEncoding struct {
	name    string // as PostgreSQL spells it
	initial string // what RESET returns to
	kept    bool   // keptEncoding was set in this session
	stale   bool   // it may have changed
}

// startEncoding takes over the encoding that PostgreSQL found for a new
// connection: from its startup message, its role, its database, the
// configuration file.
func (s *Session) startEncoding() error {
	native := s.link.params[encodingParameter]
	name, enc, err := s.srv.encodings.find(s.ctx, native)
	if err != nil {
		return err
	}
	if native != "UTF8" {
		if _, err := s.link.query("SET client_encoding TO UTF8"); err != nil {
			return err
		}
	}
	s.encoding = clientEncoding{name: name, initial: name}
	s.out.enc = enc
	return nil
}

// followEncoding takes over client_encoding after a statement. In a failed
// block the client's and the session's stay what they are until it has ended.
func (s *Session) followEncoding() error {
	native := s.link.params[encodingParameter]
	if native == "UTF8" && !s.encoding.stale || s.link.status == 'E' || s.link.broken != nil {
		return nil
	}
	sql := ""
	if native != "UTF8" { // a function has set it, or RESET ALL
		sql = "SET client_encoding TO UTF8; SET " + keptEncoding + " TO " + catalog.Literal(native) + ";"
		s.encoding.kept = true
	}
	res, err := s.local(sql + "SELECT pg_catalog.current_setting('" + keptEncoding + "', true)")
	if err != nil {
		return err
	}
	s.encoding.stale = false
	name := string(res.value())
	if name == "" {
		name = s.encoding.initial
	}
	if name == s.encoding.name {
		return nil
	}
	name, enc, err := s.srv.encodings.find(s.ctx, name)
	if err != nil {
		return err
	}
	s.encoding.name = name
	s.out.enc, s.out.binary, s.out.forms = enc, nil, nil
	s.out.send(&pgproto3.ParameterStatus{Name: encodingParameter, Value: name})
	return nil
}

// setEncoding is SET and RESET of client_encoding.
func (s *Session) setEncoding(st *pg.VariableSetStmt) error {
	sql, tag := "RESET "+keptEncoding, "RESET"
	if st.Kind != pg.VariableSetKind_VAR_RESET {
		tag = "SET"
	}
	if st.Kind == pg.VariableSetKind_VAR_SET_VALUE {
		name, _, err := s.srv.encodings.find(s.ctx, settingValue(st.Args))
		if err != nil {
			return err
		}
		sql = "SET " + keptEncoding + " TO " + catalog.Literal(name)
	} else if st.IsLocal {
		sql = "SET " + keptEncoding + " TO DEFAULT"
	}
	if st.IsLocal {
		sql = strings.Replace(sql, "SET ", "SET LOCAL ", 1)
	}
	// A warning that SET LOCAL outside a block does nothing is the client's.
	if _, err := s.evaluate(sql); err != nil {
		return err
	}
	s.encoding.kept = true
	s.settingsChanged()
	s.complete(tag)
	return nil
}

// fromLink passes on what the link says unasked, but for its own encoding.
func (s *Session) fromLink(m pgproto3.BackendMessage) {
	if p, ok := m.(*pgproto3.ParameterStatus); ok && p.Name == encodingParameter {
		return
	}
	if n, ok := m.(*pgproto3.NoticeResponse); ok {
		if a := s.analyzing(); a != nil && a.note(coordinator, n.Message) {
			return
		}
	}
	s.out.send(m)
}

// fromClient brings a message's text into UTF-8, in place.
func (s *Session) fromClient(m pgproto3.FrontendMessage) error {
	if s.out.enc == nil { // what else is text goes to PostgreSQL, which looks at it
		switch m := m.(type) {
		case *pgproto3.Query:
			return checkUTF8(m.String)
		case *pgproto3.Parse:
			return checkUTF8(m.Query)
		}
		return nil
	}
	var failed error
	convert := func(texts ...*string) {
		for _, t := range texts {
			b, err := s.out.enc.decode(nil, []byte(*t))
			if err != nil && failed == nil {
				failed = err
			}
			*t = string(b)
		}
	}
	switch m := m.(type) {
	case *pgproto3.Query:
		convert(&m.String)
	case *pgproto3.Parse:
		convert(&m.Name, &m.Query)
	case *pgproto3.Bind:
		convert(&m.DestinationPortal, &m.PreparedStatement)
		if failed == nil {
			failed = s.decodeBind(m)
		}
	case *pgproto3.Describe:
		convert(&m.Name)
	case *pgproto3.Close:
		convert(&m.Name)
	case *pgproto3.Execute:
		convert(&m.Portal)
	case *pgproto3.CopyFail:
		convert(&m.Message)
	case *pgproto3.FunctionCall:
		s.out.callText = m.ResultFormatCode == pgproto3.TextFormat
		for i, v := range m.Arguments {
			if v != nil && failed == nil && formatOf(m.ArgFormatCodes, i) == pgproto3.TextFormat {
				m.Arguments[i], failed = s.out.enc.decode([]byte{}, v)
			}
		}
	}
	return failed
}

// formatOf is the format of the i-th of several values.
func formatOf[T int16 | uint16](codes []T, i int) T {
	switch {
	case len(codes) == 1:
		return codes[0]
	case i < len(codes):
		return codes[i]
	}
	return pgproto3.TextFormat
}

func anyBinary(codes []int16) bool {
	for _, c := range codes {
		if c != pgproto3.TextFormat {
			return true
		}
	}
	return false
}

// decodeBind converts parameters.
func (s *Session) decodeBind(m *pgproto3.Bind) error {
	var types []uint32
	binary := anyBinary(m.ParameterFormatCodes)
	if binary || anyBinary(m.ResultFormatCodes) {
		if s.link.status == 'E' {
			return nil // the link says so
		}
		if err := s.loadForms(); err != nil {
			return err
		}
	}
	if p := s.prep[m.PreparedStatement]; p != nil && binary && len(m.Parameters) > 0 {
		var err error
		if types, err = s.paramTypes(p); err != nil {
			return err
		}
	}
	b := binaryText{forms: s.out.forms, enc: s.out.enc.name, text: s.out.enc.decode}
	for i, v := range m.Parameters {
		if v == nil {
			continue
		}
		var err error
		switch {
		case formatOf(m.ParameterFormatCodes, i) == pgproto3.TextFormat:
			m.Parameters[i], err = s.out.enc.decode([]byte{}, v)
		case i < len(types):
			m.Parameters[i], err = b.convert([]byte{}, types[i], v)
		}
		if err != nil {
			said := *pgError(err)
			said.Where = fmt.Sprintf("portal %q parameter $%d", m.DestinationPortal, i+1)
			if m.DestinationPortal == "" {
				said.Where = fmt.Sprintf("unnamed portal parameter $%d", i+1)
			}
			return &said
		}
	}
	return nil
}

// expectRows finds out which columns of the link's portal of that name come in
// binary form, for they are converted by their types.
func (s *Session) expectRows(name string) error {
	s.out.binary = nil
	po := s.portl[name]
	if s.out.enc == nil || po == nil || !anyBinary(po.formats) && po.prep.stmt != nil && po.prep.stmt.Node.GetFetchStmt() == nil {
		return nil
	}
	s.link.send(&pgproto3.Describe{ObjectType: 'P', Name: name})
	return s.expectOne(func(m pgproto3.BackendMessage) {
		if d, ok := m.(*pgproto3.RowDescription); ok {
			s.out.binary = binaryColumns(d)
		}
	})
}

// encodeCopy makes a COPY say the client's encoding, in which PostgreSQL reads
// and writes its data then.
func (s *Session) encodeCopy(req *request, st *pg.CopyStmt) (*pg.CopyStmt, error) {
	if s.out.enc == nil {
		return st, nil
	}
	if format, _ := copyOption(st, "format"); format == "binary" {
		e := sqlError("0A000", "COPY in binary format is not supported in client_encoding %s", s.encoding.name)
		e.Hint = "Use another format, or set client_encoding to UTF8."
		return nil, e
	}
	if _, ok := copyOption(st, "encoding"); ok {
		return st, nil
	}
	st = proto.Clone(st).(*pg.CopyStmt)
	st.Options = append(st.Options, &pg.Node{Node: &pg.Node_DefElem{DefElem: &pg.DefElem{Defname: "encoding",
		Arg: &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: s.encoding.name}}}}}})
	req.node = &pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: st}}
	var err error
	req.text, err = plan.Deparse(req.node)
	return st, err
}
