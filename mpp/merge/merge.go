// Package merge puts the rows of several senders, each in the order of the same
// ORDER BY, together in that order, comparing values as PostgreSQL does.
//
// It knows the types whose order does not depend on settings or can be told
// from their binary form, and texts whose collation compares bytes; see
// [Comparable] and [Collates]. The package is pure: no I/O, no goroutines.
package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Spec is what to merge by, and which of the merged rows are wanted. It does not
// change once it is in use, and any goroutine may read it.
type Spec struct {
	Keys []Key // from the most significant one on
	// Columns are shown: the first ones of a row. Hidden follow them, only to
	// sort by; they come in binary form and are cut off.
	Columns, Hidden int
	Offset          int64 // rows left out first
	Limit           int64 // rows wanted after these, at most; negative: all
	// Ties: with a Limit, also the rows whose keys are equal to the last one's.
	Ties bool
}

// Key is one item of an ORDER BY.
type Key struct {
	Column     int    // index among the columns, the hidden ones after those shown
	Type       uint32 // pg_type.oid of a Comparable type
	Desc       bool
	NullsFirst bool
	Name       string // as EXPLAIN prints it
}

// Formats are the result formats in which the senders' rows have to come, where
// the shown columns are to have those of client, in the form of a Bind message.
// Of no Spec they are client itself.
func (s *Spec) Formats(client []int16) []int16 {
	if s == nil || s.Hidden == 0 {
		return client
	}
	all := make([]int16, s.Columns+s.Hidden)
	for i := range all {
		if i >= s.Columns || format(client, i) != 0 {
			all[i] = 1
		}
	}
	return all
}

// format is column i's in the formats of a Bind message.
func format(formats []int16, i int) int16 {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return 0
}

// Merger merges the rows of one statement. One goroutine may use it.
type Merger struct {
	spec    *Spec
	keys    []key
	receive func(sender int) ([]byte, error)
	heads   []head // of each sender
	heap    []int  // senders that have a head, the least first
	begun   bool
	taken   int64   // rows, the left out ones too
	last    []value // keys of the last row within the limit, with Ties
}

// key is a Key with what its values are made of.
type key struct {
	Key
	kind kind
	// value decodes what is not NULL.
	value func(b []byte) (value, error)
}

// head is the next row of a sender.
type head struct {
	row  []byte // as it was received, in memory of the head's own
	end  int    // of the columns that are shown
	keys []value
}

// New makes a Merger. formats are those of the columns that are shown, in the
// form of a Bind message. Without a spec there is none.
func New(spec *Spec, formats []int16) *Merger {
	if spec == nil {
		return nil
	}
	m := &Merger{spec: spec}
	for _, k := range spec.Keys {
		t := types[k.Type]
		value := t.text
		if k.Column >= spec.Columns || format(formats, k.Column) == 1 {
			value = t.binary
		}
		m.keys = append(m.keys, key{k, t.kind, value})
	}
	return m
}

// Begin says where the rows come from. receive returns the next one of a sender,
// in the form of a DataRow's body and good until the next call of it, and io.EOF
// after the last one.
func (m *Merger) Begin(senders int, receive func(sender int) ([]byte, error)) {
	m.receive, m.heads = receive, make([]head, senders)
}

// Next returns the next row, in the form of a DataRow's body, without the hidden
// columns. It is good until the next call. io.EOF comes after the last one that
// is wanted, when senders may have more. Other errors are those of receive, or
// tell of rows that are not as the Spec says.
func (m *Merger) Next() ([]byte, error) {
	for ; m.taken < m.spec.Offset; m.taken++ {
		if _, err := m.pop(); err != nil {
			return nil, err
		}
	}
	full := m.spec.Limit >= 0 && m.taken-m.spec.Offset >= m.spec.Limit
	if full && (!m.spec.Ties || m.spec.Limit == 0) {
		return nil, io.EOF
	}
	h, err := m.pop()
	if err != nil {
		return nil, err
	}
	if full && m.compare(h.keys, m.last) != 0 {
		return nil, io.EOF
	}
	m.taken++
	if m.spec.Ties && m.taken-m.spec.Offset == m.spec.Limit {
		m.last = slices.Clone(h.keys)
		for i := range m.last {
			m.last[i].b = bytes.Clone(m.last[i].b)
		}
	}
	if m.spec.Hidden == 0 {
		return h.row, nil
	}
	binary.BigEndian.PutUint16(h.row, uint16(m.spec.Columns))
	return h.row[:h.end], nil
}

// pop returns the least head. It is good until the next call.
func (m *Merger) pop() (*head, error) {
	if !m.begun {
		m.begun = true
		for i := range m.heads {
			if more, err := m.fill(i); err != nil {
				return nil, err
			} else if more {
				m.heap = append(m.heap, i)
			}
		}
		for i := len(m.heap)/2 - 1; i >= 0; i-- {
			m.sink(i)
		}
	} else if len(m.heap) > 0 {
		// The head that was returned last makes room for the next of its sender.
		more, err := m.fill(m.heap[0])
		if err != nil {
			return nil, err
		}
		if !more {
			n := len(m.heap) - 1
			m.heap[0] = m.heap[n]
			m.heap = m.heap[:n]
		}
		m.sink(0)
	}
	if len(m.heap) == 0 {
		return nil, io.EOF
	}
	return &m.heads[m.heap[0]], nil
}

// fill receives sender i's next head. It says whether there is one.
func (m *Merger) fill(i int) (bool, error) {
	row, err := m.receive(i)
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h := &m.heads[i]
	if cap(h.row) > keepRow && len(row) <= keepRow {
		h.row = nil
	}
	h.row = append(h.row[:0], row...)
	return true, m.decode(h)
}

// keepRow is how many bytes a head keeps for the rows that follow.
const keepRow = 64 << 10

// decode finds the keys in a head's row, and the end of what is shown of it.
func (m *Merger) decode(h *head) error {
	if h.keys == nil {
		h.keys = make([]value, len(m.keys))
	}
	columns := m.spec.Columns + m.spec.Hidden
	if len(h.row) < 2 || int(binary.BigEndian.Uint16(h.row)) != columns {
		return fmt.Errorf("a row to be merged does not have %d columns", columns)
	}
	at := 2
	for c := range columns {
		if c == m.spec.Columns {
			h.end = at
		}
		if len(h.row)-at < 4 {
			return errCut
		}
		n := int(int32(binary.BigEndian.Uint32(h.row[at:])))
		if at += 4; n > len(h.row)-at {
			return errCut
		}
		var b []byte
		if n >= 0 {
			b = h.row[at : at+n]
			at += n
		}
		for i := range m.keys {
			if k := &m.keys[i]; k.Column == c {
				h.keys[i] = value{null: true}
				if b != nil {
					var err error
					if h.keys[i], err = k.value(b); err != nil {
						return fmt.Errorf("column %d of a row to be merged: %w", c+1, err)
					}
				}
			}
		}
	}
	return nil
}

var errCut = fmt.Errorf("a row to be merged is cut off")

// sink moves the sender at place i of the heap down to where it belongs.
func (m *Merger) sink(i int) {
	for {
		least := 2*i + 1
		if least >= len(m.heap) {
			return
		}
		if r := least + 1; r < len(m.heap) && m.less(r, least) {
			least = r
		}
		if !m.less(least, i) {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}

// less compares the heads at two places of the heap.
func (m *Merger) less(i, j int) bool {
	return m.compare(m.heads[m.heap[i]].keys, m.heads[m.heap[j]].keys) < 0
}

// compare compares the keys of two rows.
func (m *Merger) compare(a, b []value) int {
	for i := range m.keys {
		k, x, y := &m.keys[i], &a[i], &b[i]
		var c int
		switch {
		case x.null || y.null:
			if x.null == y.null {
				continue
			}
			if x.null == k.NullsFirst {
				return -1
			}
			return 1
		case k.kind == wordKind:
			c = cmp.Compare(x.w, y.w)
		case k.kind == bytesKind:
			c = bytes.Compare(x.b, y.b)
		default:
			c = compareNumeric(x.b, y.b)
		}
		if c != 0 {
			if k.Desc {
				return -c
			}
			return c
		}
	}
	return 0
}
