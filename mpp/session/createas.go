package session

import (
	"context"
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// runSelectInto runs SELECT … INTO as the CREATE TABLE AS that it is.
func (s *Session) runSelectInto(req *request, st *pg.SelectStmt) error {
	sel := proto.Clone(st).(*pg.SelectStmt)
	into := sel.IntoClause
	sel.IntoClause = nil
	ctas := &pg.CreateTableAsStmt{Query: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: sel}}, Into: into, Objtype: pg.ObjectType_OBJECT_TABLE}
	return s.runCreateAs(req, ctas)
}

// runCreateAs makes the table empty on every instance, then fills it.
func (s *Session) runCreateAs(req *request, st *pg.CreateTableAsStmt) error {
	if st.Objtype == pg.ObjectType_OBJECT_MATVIEW {
		return sqlError("0A000", "materialized views are not supported; use CREATE TABLE AS")
	}
	if st.Query.GetExecuteStmt() != nil {
		return sqlError("0A000", "CREATE TABLE AS EXECUTE is not supported")
	}
	rv := st.Into.Rel
	if st.IfNotExists {
		r, err := s.relation(rv.Schemaname, rv.Relname)
		if err != nil {
			return err
		}
		if r != nil {
			s.notice("NOTICE", "42P07", fmt.Sprintf("relation %q already exists, skipping", rv.Relname), "")
			s.complete("CREATE TABLE AS")
			return nil
		}
	}
	if err := s.beginToCreate(req, st); err != nil {
		return err
	}
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	s.txn.ddl = true
	// The definition comes from the query as the local server describes it.
	text, _, q, err := s.topOf(st.Query, req.types, false)
	if err != nil {
		return err
	}
	if err := s.shareFor(req.ctx, q); err != nil {
		return err
	}
	if q.Describe != "" {
		text = q.Describe
	} else if q.Kind != plan.Local {
		if text, err = plan.Deparse(st.Query); err != nil {
			return err
		}
	}
	cols, err := s.describeColumns(text, req.types)
	if err != nil {
		return err
	}
	create := &pg.CreateStmt{Relation: proto.Clone(rv).(*pg.RangeVar), Options: st.Into.Options, Oncommit: st.Into.OnCommit, Tablespacename: st.Into.TableSpaceName}
	if create.Oncommit == pg.OnCommitAction_ON_COMMIT_ACTION_UNDEFINED {
		create.Oncommit = pg.OnCommitAction_ONCOMMIT_NOOP
	}
	create.Relation.Inh = true
	if create.Relation.Relpersistence == "" {
		create.Relation.Relpersistence = "p"
	}
	for i, c := range cols {
		name := c.Name
		if i < len(st.Into.ColNames) {
			name = st.Into.ColNames[i].GetString_().GetSval()
		}
		typ := c.Type
		if c.TypeOID == 705 { // unknown: a bare string constant
			typ = "text"
		}
		n, err := parseOne("SELECT CAST(NULL AS " + typ + ")")
		if err != nil {
			return err
		}
		create.TableElts = append(create.TableElts, &pg.Node{Node: &pg.Node_ColumnDef{ColumnDef: &pg.ColumnDef{
			Colname: name, TypeName: n.GetSelectStmt().TargetList[0].GetResTarget().Val.GetTypeCast().TypeName, IsLocal: true}}})
	}
	if len(st.Into.ColNames) > len(cols) {
		return sqlError("42601", "too many column names were specified")
	}
	node := &pg.Node{Node: &pg.Node_CreateStmt{CreateStmt: create}}
	sql, err := plan.Deparse(node)
	if err != nil {
		return err
	}
	if _, err := s.local(sql); err != nil {
		return err
	}
	s.cache.reset(s.cache.tick)
	if err := s.onSegments(req.ctx, node, sql, nil); err != nil {
		return err
	}
	if err := s.setPolicy(req, rv, create, true); err != nil {
		return err
	}
	if st.Into.SkipData {
		s.complete("CREATE TABLE AS")
		return nil
	}
	s.cache.reset(s.cache.tick)
	r, err := s.relation(rv.Schemaname, rv.Relname)
	if err != nil {
		return err
	}
	source, err := s.insertSource(r, &pg.InsertStmt{Relation: rv, SelectStmt: st.Query}, req)
	if err != nil {
		return err
	}
	in, why, err := s.planPlaced(req, r, nil, source)
	if err != nil {
		return err
	}
	var n int64
	if in != nil {
		n, _, err = s.insertPlaced(req, in, source)
	} else {
		if a := s.analyzing(); a != nil {
			a.reason = why
		}
		n, err = s.writeRows(req, &rowWriter{s: s, ctx: req.ctx, r: r}, source)
	}
	if err != nil {
		return err
	}
	s.complete(fmt.Sprintf("SELECT %d", n))
	return nil
}

// shareFor has readers have the transaction's snapshot for the query of a CREATE TABLE AS,
// before the table that it makes is written.
func (s *Session) shareFor(ctx context.Context, q *plan.Query) error {
	// A slice that is gathered may be sent to where its rows are stored.
	if q.Kind != plan.Gather || !slices.ContainsFunc(q.Slices, func(sl plan.Slice) bool { return sl.Large || plan.Portions(sl.Rows) }) {
		return nil
	}
	if err := s.beforeDispatch(ctx); err != nil {
		return err
	}
	return s.share(ctx)
}
