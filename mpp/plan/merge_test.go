package plan

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/trunkline-db/trunkline/internal/randomsql"
	"github.com/trunkline-db/trunkline/mpp/merge"
)

// bytewise is Options.Merges for the tests' databases, whose collation is
// C.UTF-8.
func bytewise(oid uint32, collation string) bool {
	switch collation {
	case "", `"C"`, `pg_catalog."C"`, `"POSIX"`, `pg_catalog."POSIX"`:
		return true
	}
	return !merge.Collates(oid)
}

// merged is gather for a slice whose rows are merged.
func (w *world) merged(s *Slice, params [][2]string) (rows [][]string, err error) {
	var values [][]byte
	var types []uint32
	for _, p := range params {
		values, types = append(values, []byte(p[0])), append(types, randomsql.ParamOIDs[p[1]])
	}
	segments := orAll(s.Segments)
	sent := make([][][]byte, len(segments))
	for i, seg := range segments {
		res := w.conns[segmentDB(seg)].PgConn().ExecParams(context.Background(), s.SQL, values, types, nil, s.Merge.Formats(nil))
		for res.NextRow() {
			row := binary.BigEndian.AppendUint16(nil, uint16(len(res.Values())))
			for _, v := range res.Values() {
				n := uint32(len(v))
				if v == nil {
					n = 1<<32 - 1
				}
				row = append(binary.BigEndian.AppendUint32(row, n), v...)
			}
			sent[i] = append(sent[i], row)
		}
		if _, err := res.Close(); err != nil {
			return nil, fmt.Errorf("slice %s: %w", s.SQL, err)
		}
	}
	m := merge.New(s.Merge, nil)
	m.Begin(len(sent), func(i int) ([]byte, error) {
		if len(sent[i]) == 0 {
			return nil, io.EOF
		}
		row := sent[i][0]
		sent[i] = sent[i][1:]
		return row, nil
	})
	for {
		row, err := m.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		fields := make([]string, binary.BigEndian.Uint16(row))
		row = row[2:]
		for i := range fields {
			n := int32(binary.BigEndian.Uint32(row))
			row = row[4:]
			fields[i] = null
			if n >= 0 {
				fields[i], row = string(row[:n]), row[n:]
			}
		}
		if len(row) > 0 {
			return nil, fmt.Errorf("slice %s: %d bytes after a row", s.SQL, len(row))
		}
		rows = append(rows, fields)
	}
}

// showMerge is what rows are merged by.
func showMerge(m *merge.Spec) string {
	var keys []string
	for _, k := range m.Keys {
		key := k.Name
		if k.Desc {
			key += " desc"
		}
		if k.NullsFirst != k.Desc {
			key += map[bool]string{true: " nulls first", false: " nulls last"}[k.NullsFirst]
		}
		if k.Column >= m.Columns {
			key += " (hidden)"
		}
		keys = append(keys, key)
	}
	out := "by " + strings.Join(keys, ", ")
	if m.Offset > 0 {
		out += fmt.Sprintf(" offset %d", m.Offset)
	}
	if m.Limit >= 0 {
		out += fmt.Sprintf(" limit %d", m.Limit)
		if m.Ties {
			out += " with ties"
		}
	}
	return out
}
