package session

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// modifyRows finds the rows first, as any SELECT does, with their new values,
// and then changes each where it lies. As in Greenplum without its global
// deadlock detector the table is locked against other writers meanwhile.
func (s *Session) modifyRows(req *request, m *modification, returning int) error {
	q, err := s.plan(m.Rows, req.types, req.params)
	if err != nil {
		return err
	}
	cols, err := s.columnsOf(m.Rows, q, req.types)
	if err != nil {
		return err
	}
	if err := s.beginWrite(); err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	if err := s.markRows(req.ctx, m.r, []int{}); err != nil {
		return err
	}
	if err := s.gang.Lock(req.ctx, "LOCK TABLE "+m.r.name()+" IN EXCLUSIVE MODE"); err != nil {
		return err
	}
	c := &rowChange{s: s, req: req, m: m, cols: cols}
	var formats []int16
	if m.NewRow && m.Returning && len(req.formats) > 0 {
		for i := range cols {
			if k := i - (len(cols) - returning); k < 0 {
				formats = append(formats, 0)
			} else if len(req.formats) == 1 {
				formats = append(formats, req.formats[0])
			} else {
				formats = append(formats, req.formats[k])
			}
		}
	}
	if err := s.rowsOf(req.ctx, q, m.Rows, req.params, req.types, formats, c.found); err != nil {
		return err
	}
	if err = c.apply(); err != nil && m.NewRow && pgError(err).Code == "42501" {
		// PostgreSQL's table has only its name to say.
		e := *pgError(err)
		e.Hint = "An UPDATE of the distribution key moves rows: it needs the rights to DELETE and INSERT as well."
		return &e
	}
	return err
}

// rowChange applies what the rows' query of a modification has found.
type rowChange struct {
	s    *Session
	req  *request
	m    *modification
	cols []plan.Column // of the query
	// perSeg are the rows by the segment they lie on; of a replicated table
	// all under 0. Each row is kept once, though a join may find it several
	// times.
	perSeg map[int][][][]byte
	seen   map[string]bool
}

// found takes a row of the query.
func (c *rowChange) found(row []byte) error {
	if c.perSeg == nil {
		c.perSeg, c.seen = map[int][][][]byte{}, map[string]bool{}
	}
	values := make([][]byte, 0, len(c.cols))
	for rest := row[2:]; len(rest) > 0; {
		var v []byte
		if v, rest = field(rest); v != nil {
			v = append([]byte{}, v...)
		}
		values = append(values, v)
	}
	seg := 0
	if !c.m.Replicated {
		n := 2
		if c.m.HasTable {
			n = 3
		}
		var key strings.Builder
		for _, v := range values[:n] {
			key.Write(v)
			key.WriteByte(0)
		}
		if c.seen[key.String()] {
			return nil
		}
		c.seen[key.String()] = true
		var err error
		if seg, err = strconv.Atoi(string(values[0])); err != nil {
			return internal("a row without a segment: %q", values[0])
		}
	}
	c.perSeg[seg] = append(c.perSeg[seg], values)
	return nil
}

// applyRows is how many rows one statement changes.
const applyRows = 1000

func (c *rowChange) apply() error {
	if len(c.perSeg) == 0 {
		return nil
	}
	if err := c.s.beforeDispatch(c.req.ctx); err != nil {
		return err
	}
	for seg, rows := range c.perSeg {
		segs := []int{seg}
		if c.m.Replicated {
			segs = nil
		}
		if err := c.s.markRows(c.req.ctx, c.m.r, segs); err != nil {
			return err
		}
		// Rows of a replicated table are told apart by their values: all of
		// them have to be in one statement.
		size := applyRows
		if c.m.Replicated {
			size = len(rows)
		}
		for len(rows) > 0 {
			n := min(len(rows), size)
			sql, err := c.m.ApplySQL(c.source(rows[:n]))
			if err != nil {
				return err
			}
			if err := c.s.modifyOn(c.req, c.m, segs, sql, nil); err != nil {
				return err
			}
			rows = rows[n:]
		}
	}
	if c.m.NewRow {
		return c.insertMoved()
	}
	return nil
}

// source is rows as a sub-select of constants with the query's types.
func (c *rowChange) source(rows [][][]byte) string {
	width := len(c.cols)
	if c.m.NewRow {
		width = 2
		if c.m.HasTable {
			width = 3
		}
	}
	var b strings.Builder
	b.WriteString("(SELECT * FROM (VALUES ")
	for i, r := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for k := range width {
			if k > 0 {
				b.WriteString(", ")
			}
			if r[k] == nil {
				b.WriteString("NULL")
			} else {
				b.WriteString(literal(string(r[k])))
			}
			b.WriteString("::" + constantType(c.cols[k]))
		}
		b.WriteByte(')')
	}
	b.WriteString(") AS v(")
	for k := range width {
		if k > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "c%d", k+1)
	}
	b.WriteString("))")
	return b.String()
}

// constantType is a column's type for a constant that has its final value
// already.
func constantType(c plan.Column) string {
	switch c.TypeOID {
	case 1042: // without a length the name means one character
		return "pg_catalog.bpchar"
	case 705:
		return "text"
	}
	return c.Type
}
