package session

import (
	"errors"
	"fmt"
	"slices"
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

// refuseMoving refuses an UPDATE of a key through a table that others with columns of
// their own inherit from: a row that moves is deleted and inserted, without those.
func (s *Session) refuseMoving(st *pg.UpdateStmt, r *relation) error {
	if st == nil || !r.HasChildren || r.Kind != 'r' || !st.Relation.Inh {
		return nil
	}
	keys := slices.Concat(r.Policy.Keys, r.ChildKeys)
	at := slices.IndexFunc(st.TargetList, func(n *pg.Node) bool {
		return slices.ContainsFunc(keys, func(k int) bool { return r.columns[k].Name == n.GetResTarget().GetName() })
	})
	if at < 0 {
		return nil
	}
	res, err := s.local(fmt.Sprintf(`WITH RECURSIVE c(oid) AS (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = %[1]d
		UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN c ON i.inhparent = c.oid)
		SELECT c.oid::pg_catalog.regclass FROM c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE a.attname NOT IN (SELECT p.attname FROM pg_catalog.pg_attribute p WHERE p.attrelid = %[1]d AND p.attnum > 0 AND NOT p.attisdropped)
		ORDER BY 1 LIMIT 1`, r.OID))
	if err != nil || len(res.rows) == 0 {
		return err
	}
	e := sqlError("0A000", "cannot change column %q of table %q, by which rows are distributed: table %s, which inherits from it, has more columns",
		st.TargetList[at].GetResTarget().GetName(), r.Name, res.value())
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
