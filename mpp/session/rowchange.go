package session

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// rowChange is an UPDATE or DELETE by row: the query that finds the rows, and
// how what it finds is applied.
type rowChange struct {
	s     *Session
	m     *modification
	query *pg.Node
	// set are the columns whose new values the query yields, after the row's
	// segment, table and ctid. With moves they are all stored columns, and
	// each row is deleted and inserted anew.
	set   []int
	moves bool
	// fromQuery: RETURNING's values come from the query, after the others:
	// the old row's, joined with other tables.
	fromQuery bool
	returning string // RETURNING for the segments
	done      int64
}

func (s *Session) newRowChange(m *modification, req *request) (*rowChange, error) {
	b := &rowChange{s: s, m: m}
	values := map[int]string{}
	for _, t := range m.set {
		rt := t.GetResTarget()
		if len(rt.Indirection) > 0 {
			return nil, sqlError("0A000", "UPDATE of a part of column %q is not supported here", rt.Name)
		}
		at := -1
		for i := range m.r.columns {
			if m.r.columns[i].Name == rt.Name {
				at = i
			}
		}
		c := &m.r.columns[at]
		text, err := newValue(rt.Val, c)
		if err != nil {
			return nil, err
		}
		values[at] = text
		for _, k := range m.r.Policy.Keys {
			b.moves = b.moves || k == at
		}
	}
	// The table goes by name: its number differs between instances.
	alias := ident(m.alias)
	cols := []string{alias + ".gp_segment_id", alias + ".tableoid::pg_catalog.regclass::text", alias + ".ctid"}
	for i := range m.r.columns {
		text, ok := values[i]
		if !ok {
			if !b.moves || m.r.columns[i].generated {
				continue
			}
			text = alias + "." + ident(m.r.columns[i].Name)
		}
		b.set = append(b.set, i)
		cols = append(cols, text)
	}
	var list []string
	for _, t := range m.returning {
		if m.verb == "UPDATE" && len(m.from) > 0 && !onlyTarget(t, m) {
			return nil, sqlError("0A000", "RETURNING of other tables' columns is not supported in an UPDATE that moves or looks up rows")
		}
		rt := proto.Clone(t.GetResTarget()).(*pg.ResTarget)
		text, err := expression(rt.Val)
		if err != nil {
			return nil, err
		}
		if rt.Name != "" {
			text += " AS " + ident(rt.Name)
		}
		list = append(list, text)
	}
	if b.fromQuery = m.verb == "DELETE" && len(list) > 0; b.fromQuery {
		cols = append(cols, list...)
	} else if len(list) > 0 {
		b.returning = " RETURNING " + strings.Join(list, ", ")
	}
	sel, err := parseOne("SELECT " + strings.Join(cols, ", "))
	if err != nil {
		return nil, err
	}
	st := sel.GetSelectStmt()
	st.WithClause = m.with
	st.FromClause = append([]*pg.Node{{Node: &pg.Node_RangeVar{RangeVar: m.target}}}, m.from...)
	st.WhereClause = m.where
	b.query = sel
	return b, nil
}

// newValue is SET's expression with the column's type.
func newValue(n *pg.Node, c *column) (string, error) {
	if n.GetSetToDefault() != nil {
		return c.defaultSQL(), nil
	}
	if ref := n.GetMultiAssignRef(); ref != nil {
		row := ref.Source.GetRowExpr()
		if row == nil {
			return "", sqlError("0A000", "SET (…) = (SELECT …) is not supported on distributed tables; assign each column")
		}
		n = row.Args[ref.Colno-1]
		if n.GetSetToDefault() != nil {
			return c.defaultSQL(), nil
		}
	}
	text, err := expression(n)
	if err != nil {
		return "", err
	}
	return "CAST((" + text + ") AS " + c.castType() + ")", nil
}

// onlyTarget says whether an expression uses columns of the target alone, as
// far as names tell.
func onlyTarget(n *pg.Node, m *modification) bool {
	ok := true
	visit(n.ProtoReflect(), func(n *pg.Node) bool {
		ref := n.GetColumnRef()
		if ref == nil {
			return true
		}
		if len(ref.Fields) > 1 {
			ok = ok && ref.Fields[0].GetString_().GetSval() == m.alias
			return true
		}
		if ref.Fields[0].GetAStar() != nil {
			ok = false
			return true
		}
		known := false
		for i := range m.r.columns {
			known = known || m.r.columns[i].Name == ref.Fields[0].GetString_().GetSval()
		}
		ok = ok && known
		return true
	})
	return ok
}

// formats are the result formats of the query: everything as text, but for
// RETURNING's values, which are the client's.
func (b *rowChange) formats(req *request) []int16 {
	if !b.fromQuery || len(req.formats) == 0 {
		return nil
	}
	n := 3 + len(b.set)
	f := make([]int16, n, n+len(b.m.fields))
	for i := range b.m.fields {
		if len(req.formats) == 1 {
			f = append(f, req.formats[0])
		} else {
			f = append(f, req.formats[i])
		}
	}
	return f
}

// found is a row that the query found.
type found struct {
	table  string
	ctid   string
	values [][]byte
}

// apply changes the rows that are spooled, each once, even when a join has
// found it several times.
func (b *rowChange) apply(req *request, spool *rowSpool) (int64, error) {
	perSeg := map[int][]found{}
	seen := map[string]bool{}
	err := spool.replay(func(row []byte) error {
		rest := row[2:]
		var seg, table, ctid []byte
		seg, rest = field(rest)
		table, rest = field(rest)
		ctid, rest = field(rest)
		key := string(seg) + "/" + string(table) + "/" + string(ctid)
		if seen[key] {
			return nil
		}
		seen[key] = true
		n, err := strconv.Atoi(string(seg))
		if err != nil {
			return internal("a row without a segment: %q", seg)
		}
		f := found{table: string(table), ctid: string(ctid)}
		for range b.set {
			var v []byte
			if v, rest = field(rest); v != nil {
				v = append([]byte{}, v...)
			}
			f.values = append(f.values, v)
		}
		if b.fromQuery {
			var out [][]byte
			for len(rest) > 0 {
				var v []byte
				v, rest = field(rest)
				out = append(out, v)
			}
			b.s.out.send(&pgproto3.DataRow{Values: out})
		}
		perSeg[n] = append(perSeg[n], f)
		return nil
	})
	if err != nil {
		return 0, err
	}
	if len(perSeg) == 0 {
		return 0, nil
	}
	if err := b.s.beforeDispatch(req.ctx); err != nil {
		return 0, err
	}
	for seg, rows := range perSeg {
		if err := b.s.markWrite(req.ctx, b.m.r, []int{seg}); err != nil {
			return 0, err
		}
		for len(rows) > 0 {
			n := min(len(rows), 1000)
			if err := b.applyBatch(req, seg, rows[:n]); err != nil {
				return 0, err
			}
			rows = rows[n:]
		}
	}
	if b.moves {
		return b.done, b.insertMoved(req, perSeg)
	}
	return b.done, nil
}

// applyBatch changes rows of one segment.
func (b *rowChange) applyBatch(req *request, seg int, rows []found) error {
	var sql strings.Builder
	name, alias := b.m.r.name(), ident(b.m.alias)
	if b.m.verb == "DELETE" || b.moves {
		sql.WriteString("DELETE FROM " + name + " AS " + alias + " USING (VALUES ")
	} else {
		sql.WriteString("UPDATE " + name + " AS " + alias + " SET ")
		for i, at := range b.set {
			if i > 0 {
				sql.WriteString(", ")
			}
			sql.WriteString(ident(b.m.r.columns[at].Name) + " = trunkline_v.v" + strconv.Itoa(i))
		}
		sql.WriteString(" FROM (VALUES ")
	}
	for i, r := range rows {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("(" + literal(r.table) + "::pg_catalog.regclass, " + literal(r.ctid) + "::tid")
		if !b.moves {
			for k, v := range r.values {
				if v == nil {
					sql.WriteString(", NULL::" + b.m.r.columns[b.set[k]].castType())
				} else {
					sql.WriteString(", " + literal(string(v)) + "::" + b.m.r.columns[b.set[k]].castType())
				}
			}
		}
		sql.WriteString(")")
	}
	sql.WriteString(") AS trunkline_v(trunkline_t, trunkline_c")
	if !b.moves {
		for i := range b.set {
			sql.WriteString(", v" + strconv.Itoa(i))
		}
	}
	sql.WriteString(") WHERE " + alias + ".ctid = trunkline_v.trunkline_c AND " + alias + ".tableoid = trunkline_v.trunkline_t")
	if b.moves {
		res, err := b.s.gang.Exec(req.ctx, []int{seg}, sql.String())
		if err != nil {
			return err
		}
		b.done += res[0].Tag.RowsAffected()
		return nil
	}
	sql.WriteString(b.returning)
	res, err := b.s.gang.ExecParams(req.ctx, []int{seg}, sql.String(), nil, req.formats)
	if err != nil {
		return err
	}
	if b.fromQuery {
		b.done += res[0].Tag.RowsAffected()
		return nil
	}
	b.done += b.s.returned(b.m, res)
	return nil
}

// insertMoved puts rows whose key has changed where they belong now.
func (b *rowChange) insertMoved(req *request, perSeg map[int][]found) error {
	template, err := insertTemplate(b.m.r, &pg.InsertStmt{Relation: b.m.target})
	if err != nil {
		return err
	}
	w := &rowWriter{s: b.s, ctx: req.ctx, r: b.m.r, text: true, template: template + strings.ReplaceAll(b.returning, ident(b.m.alias)+".", "")}
	if b.returning != "" {
		w.formats = req.formats
		w.emit = func(row [][]byte) { b.s.out.send(&pgproto3.DataRow{Values: row}) }
	}
	if err := w.open(); err != nil {
		return err
	}
	// The key is hashed in binary form: let the local server convert.
	var buf []byte
	for _, rows := range perSeg {
		for from := 0; from < len(rows); from += 1000 {
			part := rows[from:min(from+1000, len(rows))]
			keys, err := b.binaryKeys(part)
			if err != nil {
				return err
			}
			for i, r := range part {
				buf = appendRowBody(buf[:0], append(append([][]byte{}, r.values...), keys[i]...))
				if err := w.add(buf); err != nil {
					return err
				}
			}
		}
	}
	_, err = w.finish()
	return err
}

// binaryKeys converts the key columns of rows from text.
func (b *rowChange) binaryKeys(rows []found) ([][][]byte, error) {
	if b.m.r.Policy.Kind != plan.Hashed {
		return make([][][]byte, len(rows)), nil
	}
	var sql strings.Builder
	sql.WriteString("SELECT ")
	at := map[int]int{}
	for i, col := range b.set {
		at[col] = i
	}
	for i, k := range b.m.r.Policy.Keys {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("k" + strconv.Itoa(i) + "::" + b.m.r.columns[k].castType())
	}
	sql.WriteString(" FROM (VALUES ")
	for n, r := range rows {
		if n > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("(" + strconv.Itoa(n))
		for _, k := range b.m.r.Policy.Keys {
			if v := r.values[at[k]]; v == nil {
				sql.WriteString(", NULL")
			} else {
				sql.WriteString(", " + literal(string(v)))
			}
		}
		sql.WriteString(")")
	}
	sql.WriteString(") v(n")
	for i := range b.m.r.Policy.Keys {
		sql.WriteString(", k" + strconv.Itoa(i))
	}
	sql.WriteString(") ORDER BY n")
	out := make([][][]byte, 0, len(rows))
	err := b.s.runExtended(sql.String(), &request{formats: []int16{1}}, func(m pgproto3.BackendMessage) {
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
	b.s.pending = nil
	return out, err
}
