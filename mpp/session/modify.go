package session

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// modification is an UPDATE or DELETE of a distributed table on its way.
type modification struct {
	*plan.Modification
	r    *relation
	done int64 // rows changed
	// head is the description of RETURNING's rows, until it is sent.
	head *pgproto3.RowDescription
}

// planModify plans an UPDATE or DELETE of a distributed table, and returns the
// fields of its RETURNING as the local server announces them. It returns nil
// when the table is one of the coordinator's own.
func (s *Session) planModify(req *request) (*modification, []pgproto3.FieldDescription, error) {
	target, with := modifyTarget(req.node)
	r, err := s.relation(target.GetSchemaname(), target.GetRelname())
	if err != nil || r == nil || r.Policy == nil {
		return nil, nil, err
	}
	if req.node.GetMergeStmt() != nil {
		return nil, nil, sqlError("0A000", "MERGE is not supported on distributed tables")
	}
	if r.Kind == 'v' {
		return nil, nil, sqlError("0A000", "a view over distributed tables cannot be changed through")
	}
	if with != nil {
		if err := s.refuseWritingCTE(with); err != nil {
			return nil, nil, err
		}
	}
	if err := s.refuseMoving(req.node.GetUpdateStmt(), r); err != nil {
		return nil, nil, err
	}
	node, err := spellDefaults(req.node, r)
	if err != nil {
		return nil, nil, err
	}
	opt, err := s.planOptions(req.types, req.params)
	if err != nil {
		return nil, nil, err
	}
	p, err := plan.Modify(node, planCatalog{s: s, params: req.types}, opt)
	if err != nil {
		return nil, nil, err
	}
	text := req.text
	if p.Describe != "" {
		text = p.Describe
	}
	fields, err := s.validate(&request{text: text, types: req.types})
	return &modification{Modification: p, r: r}, fields, err
}

// refuseMoving refuses an UPDATE of the key through a table that others with columns of
// their own inherit from: the rows that it moves are put into this one, without those.
func (s *Session) refuseMoving(st *pg.UpdateStmt, r *relation) error {
	if st == nil || !r.HasChildren || r.Kind != 'r' || !st.Relation.Inh {
		return nil
	}
	at := slices.IndexFunc(st.TargetList, func(n *pg.Node) bool {
		return slices.ContainsFunc(r.Policy.Keys, func(k int) bool { return r.columns[k].Name == n.GetResTarget().GetName() })
	})
	if at < 0 {
		return nil
	}
	res, err := s.local(fmt.Sprintf(`WITH RECURSIVE c(oid) AS (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = %[1]d
		UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN c ON i.inhparent = c.oid)
		SELECT EXISTS (SELECT FROM c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE a.attname NOT IN (SELECT p.attname FROM pg_catalog.pg_attribute p WHERE p.attrelid = %[1]d AND p.attnum > 0 AND NOT p.attisdropped))`, r.OID))
	if err != nil || string(res.value()) != "t" {
		return err
	}
	e := sqlError("0A000", "cannot change column %q of table %q, by which rows are distributed: tables with more columns inherit from it",
		st.TargetList[at].GetResTarget().GetName(), r.Name)
	e.Hint = "Change each table by itself: UPDATE ONLY."
	return e
}

// operation is what an UPDATE or DELETE is in a plan.
func (m *modification) operation() string {
	if m.Delete {
		return "Delete"
	}
	return "Update"
}

// runModify runs UPDATE, DELETE and MERGE.
func (s *Session) runModify(req *request) error {
	for range tornTries {
		if err := s.tryModify(req); !errors.Is(err, errOutdated) {
			return err
		}
		s.freshCache()
	}
	target, _ := modifyTarget(req.node)
	return sqlError("40001", "the definition of table %q, or of one that is read, has changed again and again: try again", target.Relname)
}

func (s *Session) tryModify(req *request) error {
	m, fields, err := s.planModify(req)
	if err != nil {
		return err
	}
	if m == nil {
		return s.runLocalWrite(req)
	}
	if a := s.analyzing(); a != nil {
		a.op, a.r, a.reason = m.operation(), m.r, m.Reason
	}
	if m.Returning && req.describe {
		m.head = &pgproto3.RowDescription{Fields: withFormats(fields, req.formats)}
	}
	switch m.Kind {
	case plan.ModifyDirect:
		err = s.modifyDirect(req, m)
	case plan.ModifyRows:
		err = s.modifyRows(req, m, len(fields))
	default:
		return internal("the planner left %s of a distributed table to the coordinator", m.r.Name)
	}
	if err != nil {
		return err
	}
	s.describeReturning(m)
	s.complete(fmt.Sprintf("%s %d", strings.ToUpper(m.operation()), m.done))
	return nil
}

// describeReturning tells the client what RETURNING's rows look like, once. It
// comes as late as possible: until something is sent the statement can be planned
// anew.
func (s *Session) describeReturning(m *modification) {
	if m.head != nil {
		s.out.send(m.head)
		m.head = nil
	}
}

// spellDefaults returns an UPDATE with the columns' defaults in the place of
// DEFAULT: segments have sequences of their own, and a new key is needed to
// place the row.
func spellDefaults(n *pg.Node, r *relation) (*pg.Node, error) {
	if n.GetUpdateStmt() == nil {
		return n, nil
	}
	n = proto.CloneOf(n)
	for _, t := range n.GetUpdateStmt().TargetList {
		set := t.GetResTarget()
		value := set.GetVal()
		if ref := value.GetMultiAssignRef(); ref != nil {
			if row := ref.Source.GetRowExpr(); row != nil && int(ref.Colno) <= len(row.Args) {
				value = row.Args[ref.Colno-1]
			}
		}
		if value.GetSetToDefault() == nil {
			continue
		}
		for i := range r.columns {
			c := &r.columns[i]
			switch {
			case c.Name != set.Name || c.generated:
			case c.identity == "a":
				return nil, sqlError("0A000", "cannot set identity column %q to DEFAULT in an UPDATE of a distributed table", c.Name)
			default:
				def, err := parseOne("SELECT " + c.defaultSQL())
				if err != nil {
					return nil, err
				}
				value.Node = def.GetSelectStmt().TargetList[0].GetResTarget().Val.Node
			}
		}
	}
	return n, nil
}

func modifyTarget(n *pg.Node) (*pg.RangeVar, *pg.WithClause) {
	switch st := n.Node.(type) {
	case *pg.Node_UpdateStmt:
		return st.UpdateStmt.Relation, st.UpdateStmt.WithClause
	case *pg.Node_DeleteStmt:
		return st.DeleteStmt.Relation, st.DeleteStmt.WithClause
	}
	return n.GetMergeStmt().GetRelation(), n.GetMergeStmt().GetWithClause()
}

// modifyDirect runs the statement on the segments that may have its rows.
func (s *Session) modifyDirect(req *request, m *modification) error {
	segs, params := m.Slice.Segments, pick(req.params, m.Slice.Params)
	n := len(segs)
	if segs == nil {
		n = s.numSegments()
	}
	if n > 1 && s.analyzing() == nil && s.alone() {
		if done, err := s.modifyAlone(req, m, params); done || err != nil {
			return err
		}
	}
	if err := s.beginWrite(); err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	if err := s.markRows(req.ctx, m.r, segs); err != nil {
		return err
	}
	if n > 1 && !s.gang.Fixed() {
		return s.modifyTogether(req, m, params)
	}
	return s.modifyOn(req, m, segs, m.Slice.SQL, params)
}

// modifyOn runs a statement that changes rows on segments.
func (s *Session) modifyOn(req *request, m *modification, segs []int, sql string, params []dispatch.Param) error {
	return s.modifyBy(m, sql, func() ([]dispatch.Result, error) {
		if len(params) > 0 || len(req.formats) > 0 {
			return s.gang.ExecParams(req.ctx, segs, sql, params, req.formats)
		}
		return s.gang.Exec(req.ctx, segs, sql)
	})
}

// modifyBy passes on the rows that RETURNING has in what run, which runs sql on
// segments, returns, and counts.
func (s *Session) modifyBy(m *modification, sql string, run func() ([]dispatch.Result, error)) error {
	op := m.operation()
	if m.NewRow {
		op = "Delete"
	}
	done := s.segmentsWrite(op, sql)
	res, err := run()
	if done(res); err != nil {
		return err
	}
	s.modified(m, res)
	return nil
}

// modified passes on what segments have returned, and counts.
func (s *Session) modified(m *modification, res []dispatch.Result) {
	s.describeReturning(m)
	for i, r := range res {
		if m.Replicated && i > 0 {
			break // every segment says the same
		}
		m.done += r.Tag.RowsAffected()
		for _, row := range r.Rows {
			s.out.send(&pgproto3.DataRow{Values: row})
		}
	}
}

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
	return c.apply()
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

// insertMoved puts rows whose key may have changed where they belong now.
func (c *rowChange) insertMoved() error {
	template, err := insertTemplate(c.m.r, &pg.InsertStmt{Relation: &pg.RangeVar{
		Schemaname: c.m.r.sqlSchema(), Relname: c.m.r.Name, Inh: true, Relpersistence: "p"}})
	if err != nil {
		return err
	}
	w := &rowWriter{s: c.s, ctx: c.req.ctx, r: c.m.r, text: true, template: template}
	if err := w.open(); err != nil {
		return err
	}
	first := 2
	if c.m.HasTable {
		first = 3
	}
	var buf []byte
	for _, rows := range c.perSeg {
		for from := 0; from < len(rows); from += applyRows {
			part := rows[from:min(from+applyRows, len(rows))]
			keys, err := c.binaryKeys(part, first)
			if err != nil {
				return err
			}
			for i, r := range part {
				stored := r[first : first+len(c.m.NewColumns) : first+len(c.m.NewColumns)]
				buf = appendRowBody(buf[:0], append(stored, keys[i]...))
				if err := w.add(buf); err != nil {
					return err
				}
				if c.m.Returning {
					c.s.out.send(&pgproto3.DataRow{Values: r[first+len(c.m.NewColumns):]})
				}
			}
		}
	}
	_, err = w.finish()
	return err
}

// binaryKeys converts the key columns of new rows from text, which is what the
// query yields, to what is hashed.
func (c *rowChange) binaryKeys(rows [][][]byte, first int) ([][][]byte, error) {
	var at []int
	for _, k := range c.m.r.Policy.Keys {
		for i, col := range c.m.NewColumns {
			if col == k {
				at = append(at, first+i)
			}
		}
	}
	var sql strings.Builder
	sql.WriteString("SELECT ")
	for i, k := range at {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("k" + strconv.Itoa(i) + "::" + constantType(c.cols[k]))
	}
	sql.WriteString(" FROM (VALUES ")
	for n, r := range rows {
		if n > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("(" + strconv.Itoa(n))
		for _, k := range at {
			if r[k] == nil {
				sql.WriteString(", NULL::text")
			} else {
				sql.WriteString(", " + literal(string(r[k])) + "::text")
			}
		}
		sql.WriteString(")")
	}
	sql.WriteString(") v(n")
	for i := range at {
		sql.WriteString(", k" + strconv.Itoa(i))
	}
	sql.WriteString(") ORDER BY n")
	out := make([][][]byte, 0, len(rows))
	err := c.s.runExtended(sql.String(), &request{ctx: c.req.ctx, formats: []int16{1}}, func(m pgproto3.BackendMessage) {
		if d, ok := m.(*pgproto3.DataRow); ok {
			row := make([][]byte, len(d.Values))
			for i, v := range d.Values {
				if v != nil {
					row[i] = append([]byte{}, v...)
				}
			}
			out = append(out, row)
		}
	})
	c.s.pending = nil
	return out, err
}
