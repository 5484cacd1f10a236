package tpch

import "io"

// Reader gives rows of a table as COPY reads them. It is for one goroutine.
type Reader struct {
	g        *Generator
	table    Table
	next, to int64  // units
	buf      []byte // its bytes from at on are still to be read
	at       int
	rows     int64
}

// NewReader makes a reader of a table's units from one, counted from 0, to
// before another.
func (g *Generator) NewReader(t Table, from, to int64) *Reader {
	return &Reader{g: g, table: t, next: from, to: to}
}

// Rows is how many rows have been made for what was read so far.
func (r *Reader) Rows() int64 { return r.rows }

func (r *Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if r.at == len(r.buf) {
			if r.next == r.to {
				break
			}
			var rows int
			r.buf, rows = r.g.Append(r.buf[:0], r.table, r.next)
			r.next++
			r.rows += int64(rows)
			r.at = 0
		}
		k := copy(p[n:], r.buf[r.at:])
		r.at += k
		n += k
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
