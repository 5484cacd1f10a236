package session

import (
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// toClient converts what goes to a client. The zero value converts nothing.
type toClient struct {
	enc       *encoding
	binary    []uint32 // types of the columns that come in binary form; 0, and beyond its end: text
	forms     binaryForms
	formsTick uint64 // of the catalog that forms were read from
	buf       []byte
	values    [][]byte
	callText  bool // the result of the function call that runs is text
}

// binaryColumns picks out what toClient needs to know of rows.
func binaryColumns(m *pgproto3.RowDescription) []uint32 {
	var types []uint32
	for i, f := range m.Fields {
		if f.Format == pgproto3.BinaryFormat {
			types = append(types, make([]uint32, i-len(types))...)
			types = append(types, f.DataTypeOID)
		}
	}
	return types
}

// message converts a message; nil when it cannot be sent at all. What it returns
// is good until the next call.
func (c *toClient) message(m pgproto3.BackendMessage) (pgproto3.BackendMessage, error) {
	switch m := m.(type) {
	case rowBody:
		return c.row(m)
	case *pgproto3.DataRow:
		return c.dataRow(m)
	case *pgproto3.RowDescription:
		c.binary = binaryColumns(m)
		conv := &pgproto3.RowDescription{Fields: append([]pgproto3.FieldDescription(nil), m.Fields...)}
		for i := range conv.Fields {
			name, err := c.enc.encode(nil, conv.Fields[i].Name)
			if err != nil {
				return nil, err
			}
			conv.Fields[i].Name = name
		}
		return conv, nil
	case *pgproto3.ErrorResponse:
		conv, err := c.errorResponse(m)
		var pe *pgconn.PgError
		if errors.As(err, &pe) { // as PostgreSQL does: it is reported instead
			instead := errorResponse(pe)
			instead.Severity, instead.SeverityUnlocalized = m.Severity, m.SeverityUnlocalized
			return instead, nil
		}
		return conv, err
	case *pgproto3.NoticeResponse:
		e := (*pgproto3.ErrorResponse)(m)
		conv, err := c.errorResponse(e)
		if err != nil {
			lossy := *e
			eachText(&lossy, func(s *string) { *s = c.enc.encodeLossy(*s) })
			conv = &lossy
		}
		return (*pgproto3.NoticeResponse)(conv), nil
	case *pgproto3.NotificationResponse:
		return &pgproto3.NotificationResponse{PID: m.PID, Channel: c.enc.encodeLossy(m.Channel), Payload: c.enc.encodeLossy(m.Payload)}, nil
	case *pgproto3.FunctionCallResponse:
		if m.Result == nil || !c.callText {
			return m, nil
		}
		v, err := c.enc.encode([]byte{}, m.Result)
		return &pgproto3.FunctionCallResponse{Result: v}, err
	case *pgproto3.ParameterStatus:
		return &pgproto3.ParameterStatus{Name: m.Name, Value: c.enc.encodeLossy(m.Value)}, nil
	}
	return m, nil
}

func (c *toClient) errorResponse(m *pgproto3.ErrorResponse) (*pgproto3.ErrorResponse, error) {
	conv := *m
	var failed error
	eachText(&conv, func(s *string) {
		b, err := c.enc.encode(nil, []byte(*s))
		if err != nil && failed == nil {
			failed = err
		}
		*s = string(b)
	})
	return &conv, failed
}

// eachText calls f for what may hold other characters than ASCII.
func eachText(m *pgproto3.ErrorResponse, f func(*string)) {
	for _, s := range []*string{&m.Message, &m.Detail, &m.Hint, &m.InternalQuery, &m.Where,
		&m.SchemaName, &m.TableName, &m.ColumnName, &m.DataTypeName, &m.ConstraintName} {
		f(s)
	}
}

// value appends the i-th column's value.
func (c *toClient) value(dst []byte, i int, v []byte) ([]byte, error) {
	if i < len(c.binary) && c.binary[i] != 0 {
		b := binaryText{forms: c.forms, enc: c.enc.name, text: c.enc.encode}
		return b.convert(dst, c.binary[i], v)
	}
	return c.enc.encode(dst, v)
}

func (c *toClient) row(r rowBody) (pgproto3.BackendMessage, error) {
	if len(r) < 2 {
		return r, nil
	}
	dst := append(c.buf[:0], r[:2]...)
	for i, rest := 0, r[2:]; len(rest) >= 4; i++ {
		n := binary.BigEndian.Uint32(rest)
		at := len(dst)
		dst, rest = append(dst, rest[:4]...), rest[4:]
		if n == nullLength {
			continue
		}
		var err error
		if dst, err = c.value(dst, i, rest[:n]); err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		rest = rest[n:]
	}
	c.buf = dst
	return rowBody(dst), nil
}

func (c *toClient) dataRow(m *pgproto3.DataRow) (pgproto3.BackendMessage, error) {
	dst := c.buf[:0]
	c.values = c.values[:0]
	for i, v := range m.Values {
		if v == nil {
			c.values = append(c.values, nil)
			continue
		}
		at := len(dst)
		var err error
		if dst, err = c.value(dst, i, v); err != nil {
			return nil, err
		}
		// A later value may move dst: the bytes stay good where they are.
		c.values = append(c.values, dst[at:len(dst):len(dst)])
	}
	c.buf = dst
	return &pgproto3.DataRow{Values: c.values}, nil
}
