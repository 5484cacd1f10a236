package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// runInsert places rows. The source is evaluated where its rows come together,
// with defaults, and each row goes to the segment its key says; or each segment
// evaluates its share of the source, where that makes every row in its place.
func (s *Session) runInsert(req *request, st *pg.InsertStmt) error {
	for range tornTries {
		if err := s.tryInsert(req, st); !errors.Is(err, errOutdated) {
			return err
		}
		s.freshCache()
	}
	return sqlError("40001", "the definition of table %q, or of one that is read, has changed again and again: try again", st.Relation.Relname)
}

func (s *Session) tryInsert(req *request, st *pg.InsertStmt) error {
	r, err := s.relation(st.Relation.Schemaname, st.Relation.Relname)
	if err != nil {
		return err
	}
	if r == nil || r.Policy == nil {
		return s.runLocalWrite(req)
	}
	w, fields, err := s.insertWriter(req, st, r)
	if err != nil {
		return err
	}
	if len(st.ReturningList) > 0 && req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: withFormats(fields, req.formats)})
	}
	if len(st.ReturningList) > 0 {
		w.formats = req.formats
		w.emit = func(row [][]byte) { s.out.send(&pgproto3.DataRow{Values: row}) }
	}
	n, err := s.insertRows(req, w, st)
	if err != nil {
		return err
	}
	s.complete(fmt.Sprintf("INSERT 0 %d", n))
	return nil
}

// insertWriter checks an INSERT and makes the writer of its rows, and returns
// the fields of its RETURNING as the local server announces them.
func (s *Session) insertWriter(req *request, st *pg.InsertStmt, r *relation) (*rowWriter, []pgproto3.FieldDescription, error) {
	if st.WithClause != nil {
		if err := s.refuseWritingCTE(st.WithClause); err != nil {
			return nil, nil, err
		}
	}
	// The local server checks the statement and types its parameters.
	fields, err := s.validate(req)
	if err != nil {
		return nil, nil, err
	}
	if err := s.refuseReading(&pg.InsertStmt{OnConflictClause: st.OnConflictClause, ReturningList: st.ReturningList},
		"Leave it out of ON CONFLICT and RETURNING."); err != nil {
		return nil, nil, err
	}
	w := &rowWriter{s: s, ctx: req.ctx, r: r}
	values := st.SelectStmt == nil || len(st.SelectStmt.GetSelectStmt().GetValuesLists()) > 0
	if values || st.OnConflictClause != nil || len(st.ReturningList) > 0 {
		w.text = true
		if w.template, err = insertTemplate(r, st); err != nil {
			return nil, nil, err
		}
		w.params = paramsOf(req, st)
	}
	return w, fields, nil
}

// insertRows places an INSERT's rows with w.
func (s *Session) insertRows(req *request, w *rowWriter, st *pg.InsertStmt) (int64, error) {
	if w.template != "" {
		if err := w.open(); err != nil {
			return 0, err
		}
		if done, err := constantRows(w, st); err != nil {
			return 0, err
		} else if done {
			if err := s.beginWrite(); err != nil {
				return 0, err
			}
			return w.finish()
		}
	}
	source, err := s.insertSource(w.r, st, req)
	if err != nil {
		return 0, err
	}
	in, why, err := s.planPlaced(req, w.r, st, source)
	if err != nil {
		return 0, err
	}
	if in != nil {
		if n, done, err := s.insertPlaced(req, in, source); done || err != nil {
			return n, err
		}
		why = "rights on some columns only"
	}
	if a := s.analyzing(); a != nil {
		a.reason = why
	}
	return s.writeRows(req, w, source)
}

// validate has the local server look at the statement and returns the result
// fields it announces.
func (s *Session) validate(req *request) ([]pgproto3.FieldDescription, error) {
	if len(req.text) < 8<<10 {
		return s.describeFields(req.text, req.types)
	}
	s.unnamedLost = true
	_, fields, err := s.link.describe(req.text, req.types)
	return fields, err
}

// runLocalWrite runs a statement on a relation that exists on the coordinator
// alone. It cannot read distributed tables at the same time.
func (s *Session) runLocalWrite(req *request) error {
	for _, name := range plan.Relations(req.node) {
		r, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return err
		}
		if r != nil && r.Policy != nil {
			if _, err := s.describeFields(req.text, req.types); err != nil {
				return err // the relation to be changed is not there, for one
			}
			return sqlError("0A000", "a statement cannot change a relation of the coordinator and use the distributed table %q", r.Name)
		}
	}
	s.settingsDirty = true
	done, err := s.shadow(req, req.node)
	if err != nil {
		return err
	}
	return done(s.runLocal(req, req.text))
}

// refuseWritingCTE reports WITH clauses that change data.
func (s *Session) refuseWritingCTE(w *pg.WithClause) error {
	for _, c := range w.GetCtes() {
		if c.GetCommonTableExpr().GetCtequery().GetSelectStmt() == nil {
			return sqlError("0A000", "data-modifying WITH queries are not supported on distributed tables")
		}
	}
	return nil
}

// insertSource makes the SELECT that yields the rows of an INSERT: every
// column of the table that is stored as given, in order.
func (s *Session) insertSource(r *relation, st *pg.InsertStmt, req *request) (*pg.Node, error) {
	given := map[string]int{}
	names := make([]string, 0, len(r.columns))
	for _, c := range st.Cols {
		t := c.GetResTarget()
		if len(t.Indirection) > 0 {
			return nil, sqlError("0A000", "INSERT into a part of column %q is not supported on distributed tables", t.Name)
		}
		given[t.Name] = len(names)
		names = append(names, t.Name)
	}
	sel := st.SelectStmt.GetSelectStmt()
	width := len(names)
	if len(st.Cols) == 0 && sel != nil {
		if len(sel.ValuesLists) > 0 {
			width = len(sel.ValuesLists[0].GetList().GetItems())
		} else {
			fields, err := s.sourceFields(st, req)
			if err != nil {
				return nil, err
			}
			width = len(fields)
		}
		for i := range min(width, len(r.columns)) {
			given[r.columns[i].Name] = i
			names = append(names, r.columns[i].Name)
		}
	}
	byName := map[string]*column{}
	for i := range r.columns {
		byName[r.columns[i].Name] = &r.columns[i]
	}
	from, with := "", st.WithClause
	cell := func(i int, c *column) string { return fmt.Sprintf("CAST(s.c%d AS %s)", i, c.castType()) }
	switch {
	case sel == nil: // DEFAULT VALUES
	case len(sel.ValuesLists) > 0 && sel.WithClause == nil && sel.SortClause == nil && sel.LimitCount == nil && sel.LimitOffset == nil:
		rows, err := castValues(sel, names, byName)
		if err != nil {
			return nil, err
		}
		text, err := plan.Deparse(rows)
		if err != nil {
			return nil, err
		}
		from = "(" + text + ") AS s" + numbered(width)
		cell = func(i int, c *column) string { return fmt.Sprintf("s.c%d", i) }
	default:
		// Its WITH is the source's, where the planner looks through it.
		if with == nil && sel.WithClause != nil {
			with = sel.WithClause
			sel = proto.CloneOf(sel)
			sel.WithClause = nil
		}
		text, err := plan.Deparse(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}})
		if err != nil {
			return nil, err
		}
		from = "(" + text + ") AS s" + numbered(width)
	}
	var b strings.Builder
	if with != nil {
		text, err := withSQL(with)
		if err != nil {
			return nil, err
		}
		b.WriteString(text)
	}
	b.WriteString("SELECT ")
	first := true
	for i := range r.columns {
		c := &r.columns[i]
		if c.generated {
			continue
		}
		if !first {
			b.WriteString(", ")
		}
		first = false
		if at, ok := given[c.Name]; ok && (c.identity == "" || st.Override != pg.OverridingKind_OVERRIDING_USER_VALUE) {
			b.WriteString(cell(at, c))
		} else {
			b.WriteString(c.defaultSQL())
		}
		b.WriteString(" AS " + catalog.Ident(c.Name))
	}
	if from != "" {
		b.WriteString(" FROM " + from)
	}
	return parseOne(b.String())
}

// sourceFields are the result columns of an INSERT's SELECT.
func (s *Session) sourceFields(st *pg.InsertStmt, req *request) ([]pgproto3.FieldDescription, error) {
	query, err := withOf(st)
	if err != nil {
		return nil, err
	}
	text, err := plan.Deparse(query)
	if err != nil {
		return nil, err
	}
	q, err := s.plan(query, req.types, req.params)
	if err != nil {
		return nil, err
	}
	if q.Describe != "" {
		text = q.Describe
	} else if q.Kind == plan.Local && q.Top != "" {
		text = q.Top
	}
	return s.describeFields(text, req.types)
}

// withSQL is a WITH clause as text.
func withSQL(w *pg.WithClause) (string, error) {
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
		WithClause: w, LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}}})
	return strings.TrimSuffix(strings.TrimSpace(text), "SELECT") + " ", err
}

// numbered is a list of n column names for an alias, "" when there are none.
func numbered(n int) string {
	if n == 0 {
		return ""
	}
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "c%d", i)
	}
	return "(" + b.String() + ")"
}

// castType is the type a value is cast to before it is placed: where a cast
// rounds as an assignment does, with the modifier, because the rounded value
// is what is hashed; where an explicit cast would cut off what an assignment
// refuses, without, so that the segment refuses it.
func (c *column) castType() string {
	switch c.oid {
	case 1042: // its values look the same
		return "text"
	case 1560:
		return "varbit"
	case 1014, 1561:
		return c.format
	case 1700, 1083, 1114, 1184, 1186, 1266: // numeric, times and interval
		return c.format
	}
	return c.bare
}

// shrinks says whether storing a value may drop blanks at its end, so that what
// is hashed is not what was given.
func (c *column) shrinks() bool { return c.oid == 1043 && c.format != c.bare }

func (c *column) defaultSQL() string {
	if c.def == "" {
		return "CAST(NULL AS " + c.castType() + ")"
	}
	return "CAST(" + c.def + " AS " + c.castType() + ")"
}

// castValues gives every cell of a VALUES list its column's type.
func castValues(sel *pg.SelectStmt, names []string, cols map[string]*column) (*pg.Node, error) {
	out := &pg.SelectStmt{LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE}
	types := make([]*pg.TypeName, len(names))
	defs := make([]*pg.Node, len(names))
	for i, name := range names {
		n, err := parseOne("SELECT CAST(NULL AS " + cols[name].castType() + "), " + cols[name].defaultSQL())
		if err != nil {
			return nil, err
		}
		t := n.GetSelectStmt().TargetList
		types[i] = t[0].GetResTarget().Val.GetTypeCast().TypeName
		defs[i] = t[1].GetResTarget().Val
	}
	for _, list := range sel.ValuesLists {
		row := &pg.List{}
		for i, item := range list.GetList().GetItems() {
			if item.GetSetToDefault() != nil {
				row.Items = append(row.Items, defs[i])
				continue
			}
			row.Items = append(row.Items, &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: item, TypeName: types[i]}}})
		}
		out.ValuesLists = append(out.ValuesLists, &pg.Node{Node: &pg.Node_List{List: row}})
	}
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: out}}, nil
}

func parseOne(sql string) (*pg.Node, error) {
	res, err := pg.Parse(sql)
	if err != nil {
		return nil, internal("%v in %s", err, sql)
	}
	return res.Stmts[0].Stmt, nil
}

// rowsMark stands for the rows in the statement that segments are given.
const rowsMark = "trunkline_rows"

// insertTemplate is the INSERT for the segments, with rowsMark for its rows.
func insertTemplate(r *relation, st *pg.InsertStmt) (string, error) {
	ins := &pg.InsertStmt{Relation: st.Relation, OnConflictClause: st.OnConflictClause, ReturningList: st.ReturningList}
	for i := range r.columns {
		if !r.columns[i].generated {
			ins.Cols = append(ins.Cols, &pg.Node{Node: &pg.Node_ResTarget{ResTarget: &pg.ResTarget{Name: r.columns[i].Name}}})
		}
	}
	var err error
	if ins.SelectStmt, err = parseOne("VALUES ('" + rowsMark + "')"); err != nil {
		return "", err
	}
	ins.Override = pg.OverridingKind_OVERRIDING_NOT_SET
	for _, c := range r.columns {
		if c.identity == "a" {
			ins.Override = pg.OverridingKind_OVERRIDING_SYSTEM_VALUE
		}
	}
	return plan.Deparse(&pg.Node{Node: &pg.Node_InsertStmt{InsertStmt: ins}})
}

// paramsOf returns the statement's parameters when its ON CONFLICT or
// RETURNING uses any.
func paramsOf(req *request, st *pg.InsertStmt) []dispatch.Param {
	if len(req.params) == 0 {
		return nil
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_InsertStmt{InsertStmt: &pg.InsertStmt{
		Relation: st.Relation, OnConflictClause: st.OnConflictClause, ReturningList: st.ReturningList}}})
	if err != nil || !strings.Contains(text, "$") {
		return nil
	}
	return req.params
}

// writeRows evaluates source and places its rows with w. It returns how many
// rows the segments took.
func (s *Session) writeRows(req *request, w *rowWriter, source *pg.Node) (int64, error) {
	if err := s.beginWrite(); err != nil {
		return 0, err
	}
	if err := w.open(); err != nil {
		return 0, err
	}
	formats := []int16{1}
	if err := w.spell(source); err != nil {
		return 0, err
	}
	if w.text {
		formats = make([]int16, w.width, w.width+len(w.r.Policy.Keys))
		for range w.r.Policy.Keys {
			formats = append(formats, 1)
		}
	}
	q, err := s.plan(source, req.types, req.params)
	if err != nil {
		return 0, err
	}
	spooled := q.Kind != plan.Local
	if !spooled {
		reads, err := s.functionReads(source, req.params)
		if err != nil {
			return 0, err
		}
		spooled = reads.calls
	}
	if spooled {
		// The gang is busy with the source until its last row, and functions
		// may need it.
		spool := &rowsource.Spool{}
		defer spool.Close()
		if err := s.rowsOf(req.ctx, q, source, req.params, req.types, formats, spool.Add); err != nil {
			return 0, err
		}
		if err := w.start(); err != nil {
			return 0, err
		}
		if err := spool.Replay(w.add); err != nil {
			w.abort(err)
			return 0, err
		}
		return w.finish()
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	if err := s.rowsOf(req.ctx, q, source, req.params, req.types, formats, w.add); err != nil {
		w.abort(err)
		return 0, err
	}
	return w.finish()
}

// spell makes a source yield rows as w takes them: as text where they cannot be
// binary, and then with the keys once more in binary form, for hashing.
func (w *rowWriter) spell(source *pg.Node) error {
	if !w.text && w.allBinary() {
		return nil
	}
	w.text = true
	return appendKeys(source, w.r)
}

// appendKeys adds the distribution key's columns once more to a source's
// target list.
func appendKeys(source *pg.Node, r *relation) error {
	sel := source.GetSelectStmt()
	if len(r.Policy.Keys) == 0 {
		return nil
	}
	inner, err := plan.Deparse(source)
	if err != nil {
		return err
	}
	var cols, keys []string
	for i := range r.columns {
		if !r.columns[i].generated {
			cols = append(cols, "r."+catalog.Ident(r.columns[i].Name))
		}
	}
	for _, k := range r.Policy.Keys {
		c := &r.columns[k]
		key := "r." + catalog.Ident(c.Name)
		if c.shrinks() {
			key = "CAST(" + key + " AS " + c.format + ")"
		}
		keys = append(keys, key)
	}
	n, err := parseOne("SELECT " + strings.Join(append(cols, keys...), ", ") + " FROM (" + inner + ") AS r")
	if err != nil {
		return err
	}
	proto.Reset(sel)
	proto.Merge(sel, n.GetSelectStmt())
	return nil
}

// beginWrite opens the implicit transaction of a statement that writes on
// segments. The link joins when the commit needs it.
func (s *Session) beginWrite() error {
	if s.link.status == 'E' {
		return errAborted()
	}
	if s.link.status == 'I' {
		s.txn.implicit = true
	}
	return nil
}

// field returns the value at the start of a row body's rest, and the rest.
func field(b []byte) (value, rest []byte) {
	n := int32(binary.BigEndian.Uint32(b))
	if n < 0 {
		return nil, b[4:]
	}
	return b[4 : 4+n : 4+n], b[4+n:]
}
