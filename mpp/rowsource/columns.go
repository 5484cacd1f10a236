package rowsource

import (
	"encoding/binary"
	"strings"
)

// columns is rows as one row of arrays, one array for each column, in PostgreSQL's text
// form. PostgreSQL takes such a row and its elements apart in a fraction of the time
// that dblink spends on as many rows.
type columns struct {
	texts [][]byte
	row   []byte
}

// reset forgets the rows, and the room that huge ones took.
func (c *columns) reset() {
	size := cap(c.row)
	for _, t := range c.texts[:cap(c.texts)] {
		size += cap(t)
	}
	if c.texts = c.texts[:0]; size > 8*portionBytes {
		*c = columns{}
	}
}

// add adds a row, the body of a DataRow message. All rows have the same columns.
func (c *columns) add(row []byte) error {
	n := int(binary.BigEndian.Uint16(row))
	if n == 0 {
		n, row = 1, oneNull
	}
	if len(c.texts) == 0 {
		c.texts = resize(c.texts, n)
		for i := range c.texts {
			c.texts[i] = append(c.texts[i][:0], '{')
		}
	}
	rest := row[2:]
	for i := range c.texts {
		t := c.texts[i]
		if len(t) > 1 {
			t = append(t, ',')
		}
		size := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if size < 0 {
			t = append(t, "NULL"...)
		} else {
			t = appendElement(t, rest[:size])
			rest = rest[size:]
		}
		c.texts[i] = t
	}
	return nil
}

// resize is list with n elements, those it had among them, for their room.
func resize(list [][]byte, n int) [][]byte {
	if cap(list) < n {
		return append(list[:cap(list)], make([][]byte, n-cap(list))...)
	}
	return list[:n]
}

// arrays is the row of arrays, the body of a DataRow message, valid until the next call;
// nil where there are no rows.
func (c *columns) arrays() []byte {
	if len(c.texts) == 0 {
		return nil
	}
	c.row = binary.BigEndian.AppendUint16(c.row[:0], uint16(len(c.texts)))
	for _, t := range c.texts {
		c.row = binary.BigEndian.AppendUint32(c.row, uint32(len(t)+1))
		c.row = append(append(c.row, t...), '}')
	}
	return c.row
}

// special are the bytes for which an array's element is quoted.
var special = func() (s [256]bool) {
	for _, b := range []byte("{},\"\\ \t\n\r\v\f") {
		s[b] = true
	}
	return s
}()

// appendElement appends a value as an element of an array.
func appendElement(dst, value []byte) []byte {
	quote := len(value) == 0 || len(value) == 4 && strings.EqualFold(string(value), "null")
	for _, b := range value {
		if special[b] {
			quote = true
			break
		}
	}
	if !quote {
		return append(dst, value...)
	}
	dst = append(dst, '"')
	for _, b := range value {
		if b == '"' || b == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}
