package session

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// outsideTransaction says whether PostgreSQL refuses the statement in a
// transaction block.
func outsideTransaction(n *pg.Node) bool {
	switch st := n.GetNode().(type) {
	case *pg.Node_VacuumStmt:
		return st.VacuumStmt.IsVacuumcmd
	case *pg.Node_DiscardStmt:
		return st.DiscardStmt.Target == pg.DiscardMode_DISCARD_ALL
	case *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt, *pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt,
		*pg.Node_AlterSystemStmt, *pg.Node_CreateSubscriptionStmt, *pg.Node_DropSubscriptionStmt:
		return true
	case *pg.Node_IndexStmt:
		return st.IndexStmt.Concurrent
	case *pg.Node_DropStmt:
		return st.DropStmt.Concurrent
	case *pg.Node_ReindexStmt:
		return st.ReindexStmt.Kind == pg.ReindexObjectType_REINDEX_OBJECT_DATABASE || st.ReindexStmt.Kind == pg.ReindexObjectType_REINDEX_OBJECT_SCHEMA
	}
	return false
}

// runUtility runs a statement that concerns every instance: on the
// coordinator first, which checks it, then on the segments.
func (s *Session) runUtility(req *request) error {
	if err := s.refuse(req.node); err != nil {
		return err
	}
	if outsideTransaction(req.node) {
		return s.runEverywhere(req)
	}
	if req.node.GetLockStmt() != nil && s.link.status == 'I' && !s.txn.implicit {
		return sqlError("25P01", "LOCK TABLE can only be used in transaction blocks")
	}
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	} else if s.txn.implicit && s.link.status != 'T' {
		if _, err := s.local("BEGIN"); err != nil {
			return err
		}
	}
	s.txn.ddl = true
	var before *relation
	var err error
	if drop := req.node.GetDropStmt(); drop != nil {
		for _, o := range drop.Objects { // for usesTemp
			if names := o.GetList().GetItems(); len(names) == 1 {
				_, err = s.relation("", names[0].GetString_().GetSval())
			} else if len(names) == 2 {
				_, err = s.relation(names[0].GetString_().GetSval(), names[1].GetString_().GetSval())
			}
			if err != nil {
				return err
			}
		}
	}
	if alter := req.node.GetAlterTableStmt(); alter != nil {
		if before, err = s.relation(alter.Relation.Schemaname, alter.Relation.Relname); err != nil {
			return err
		}
		if err := s.checkAlter(before, alter); err != nil {
			return err
		}
	}
	existed := false
	if c := req.node.GetCreateStmt(); c != nil && c.IfNotExists {
		r, err := s.relation(c.Relation.Schemaname, c.Relation.Relname)
		if err != nil {
			return err
		}
		existed = r != nil
	}
	text, err := s.utilityText(req)
	if err != nil {
		return err
	}
	if err := s.localUtility(req, text); err != nil {
		return err
	}
	if err := s.noteLocks(); err != nil {
		return err
	}
	s.cache.reset(s.cache.tick)
	if err := s.onSegments(req.ctx, req.node, text, before); err != nil {
		return err
	}
	if err := s.enforceDeferrable(req); err != nil {
		return err
	}
	return s.afterUtility(req, before, existed)
}

// noteLocks is usesTemp and defines for what a utility statement has locked on the
// coordinator, whatever way it was named.
func (s *Session) noteLocks() error {
	res, err := s.local("SELECT pg_catalog.bool_or(c.relpersistence = 't'), pg_catalog.string_agg(l.relation::text, ' ') FILTER (WHERE l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p', 'v')) " +
		"FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.oid >= 16384 WHERE l.pid = pg_catalog.pg_backend_pid()")
	if err != nil || len(res.rows) == 0 {
		return err
	}
	s.txn.temp = s.txn.temp || string(res.rows[0][0]) == "t"
	var oids []uint32
	for _, f := range strings.Fields(string(res.rows[0][1])) {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return internal("pg_locks has relation %q", f)
		}
		oids = append(oids, uint32(n))
	}
	s.defines(oids)
	return nil
}

// localUtility runs a utility statement on the link and passes on its notices
// and tag.
func (s *Session) localUtility(req *request, text string) error {
	simple := *req
	simple.portal = nil
	return s.runLocal(&simple, text)
}

// utilityText is the statement as every instance runs it.
func (s *Session) utilityText(req *request) (string, error) {
	changed, err := plan.ReplaceSegmentID(req.node, planCatalog{s: s})
	if err != nil {
		return "", err
	}
	renamed, err := prefixSetting(req.node)
	if err != nil {
		return "", err
	}
	changed = changed || renamed
	if changed {
		return plan.Deparse(req.node)
	}
	return req.text, nil
}

// prefixSetting checks a parameter of Greenplum's in ALTER ROLE or ALTER
// DATABASE … SET and gives it the name that PostgreSQL knows it by.
func prefixSetting(n *pg.Node) (bool, error) {
	set := n.GetAlterRoleSetStmt().GetSetstmt()
	if set == nil {
		set = n.GetAlterDatabaseSetStmt().GetSetstmt()
	}
	p, ok := guc.Lookup(set.GetName())
	if set == nil || !ok {
		return false, nil
	}
	if p.Context < guc.Backend {
		return false, guc.ErrCannotSet(p.Name, p.Context)
	}
	if set.Kind == pg.VariableSetKind_VAR_SET_VALUE {
		if _, err := p.Parse(settingValue(set.Args)); err != nil {
			return false, err
		}
	}
	// A quoted name with a dot deparses as one identifier, which PostgreSQL
	// takes for the same parameter.
	set.Name = gucPrefix + p.Name
	return true, nil
}

// onSegments runs a utility statement on every segment.
func (s *Session) onSegments(ctx context.Context, n *pg.Node, text string, target *relation) error {
	if err := s.beforeDispatch(ctx); err != nil {
		return err
	}
	mark := s.markWrite
	if n.GetCreateStmt() != nil {
		mark = s.mark // setPolicy notes the table, and nothing else changes
	}
	if err := mark(ctx, target, nil); err != nil {
		return err
	}
	if touchesTemp(n) {
		s.gang.MarkNoPrepare(nil)
	}
	if sql, ok, err := withoutValidation(n); err != nil {
		return err
	} else if ok {
		text = sql
	}
	defer s.hush()()
	_, err := s.gang.ExecLocking(ctx, nil, text)
	return err
}

// enforceDeferrable has the segments check the deferrable constraints that a statement
// may have made.
func (s *Session) enforceDeferrable(req *request) error {
	switch req.node.Node.(type) {
	case *pg.Node_CreateStmt, *pg.Node_AlterTableStmt, *pg.Node_CreateSchemaStmt:
	default:
		return nil
	}
	const enforce = "SELECT pg_catalog.gp_enforce_deferrable()"
	res, err := s.local(enforce)
	if err != nil || string(res.value()) != "t" {
		return err
	}
	_, err = s.gang.Exec(req.ctx, nil, enforce)
	return err
}

// runSetConstraints runs SET CONSTRAINTS in the transactions of all instances.
func (s *Session) runSetConstraints(req *request) error {
	if err := s.runLocal(req, req.text); err != nil || s.link.status != 'T' {
		return err // with a warning where there is no transaction
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	s.gang.MarkLocked() // it does not begin anew
	_, err := s.gang.Exec(req.ctx, nil, req.text)
	return err
}

// touchesTemp says whether a statement makes something temporary, which
// PostgreSQL does not let into a prepared transaction.
func touchesTemp(n *pg.Node) bool {
	temp := func(r *pg.RangeVar) bool {
		return r.GetRelpersistence() == "t" || r.GetSchemaname() == "pg_temp"
	}
	switch st := n.Node.(type) {
	case *pg.Node_CreateStmt:
		return temp(st.CreateStmt.Relation)
	case *pg.Node_ViewStmt:
		return temp(st.ViewStmt.View)
	case *pg.Node_CreateSeqStmt:
		return temp(st.CreateSeqStmt.Sequence)
	case *pg.Node_DiscardStmt:
		return true
	}
	return false
}

// withoutValidation is a foreign key declared so that a segment does not look
// for the rows it refers to: they may be on another segment. As in Greenplum,
// foreign keys are declared but not enforced.
func withoutValidation(n *pg.Node) (string, bool, error) {
	alter := n.GetAlterTableStmt()
	if alter == nil {
		return "", false, nil
	}
	found := false
	for _, c := range alter.Cmds {
		if con := c.GetAlterTableCmd().GetDef().GetConstraint(); con != nil && con.Contype == pg.ConstrType_CONSTR_FOREIGN {
			found = true
		}
	}
	if !found {
		return "", false, nil
	}
	clone := proto.Clone(n).(*pg.Node)
	for _, c := range clone.GetAlterTableStmt().Cmds {
		if con := c.GetAlterTableCmd().GetDef().GetConstraint(); con != nil && con.Contype == pg.ConstrType_CONSTR_FOREIGN {
			con.SkipValidation, con.InitiallyValid = true, false
		}
	}
	sql, err := plan.Deparse(clone)
	return sql, true, err
}

// refuse names what a distributed system cannot do with PostgreSQL's means.
func (s *Session) refuse(n *pg.Node) error {
	distributed := func(rv *pg.RangeVar) (bool, error) {
		r, err := s.relation(rv.GetSchemaname(), rv.GetRelname())
		return r != nil && r.Policy != nil, err
	}
	switch st := n.Node.(type) {
	case *pg.Node_CreateTrigStmt:
		if d, err := distributed(st.CreateTrigStmt.Relation); d || err != nil {
			return orElse(err, sqlError("0A000", "triggers on distributed tables are not supported"))
		}
	case *pg.Node_RuleStmt:
		if d, err := distributed(st.RuleStmt.Relation); d || err != nil {
			return orElse(err, sqlError("0A000", "rules on distributed tables are not supported"))
		}
	case *pg.Node_CreatePolicyStmt, *pg.Node_AlterPolicyStmt:
		return s.refuseReading(n, "Segments test row-level security by themselves: name a replicated table.")
	case *pg.Node_CreateStmt, *pg.Node_AlterTableStmt, *pg.Node_CreateDomainStmt, *pg.Node_AlterDomainStmt:
		return s.refuseChecks(n)
	case *pg.Node_CreatePublicationStmt, *pg.Node_CreateSubscriptionStmt:
		return sqlError("0A000", "logical replication is not supported in a cluster")
	case *pg.Node_RefreshMatViewStmt:
		return sqlError("0A000", "materialized views are not supported; use CREATE TABLE AS")
	}
	return nil
}

// refuseChecks refuses CHECK constraints that segments cannot test by themselves.
func (s *Session) refuseChecks(n *pg.Node) (err error) {
	visit(n.ProtoReflect(), func(n *pg.Node) bool {
		if c := n.GetConstraint(); c.GetContype() == pg.ConstrType_CONSTR_CHECK && c.RawExpr != nil && err == nil {
			err = s.refuseReading(c.RawExpr, "Segments test CHECK constraints by themselves.")
		}
		return err == nil
	})
	return err
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// afterUtility keeps the distribution policies in step with what was done.
func (s *Session) afterUtility(req *request, before *relation, existed bool) error {
	switch st := req.node.Node.(type) {
	case *pg.Node_CreateStmt:
		if existed {
			return nil
		}
		return s.setPolicy(req, st.CreateStmt.Relation, st.CreateStmt, false)
	case *pg.Node_DropStmt, *pg.Node_DropOwnedStmt:
		_, err := s.local("SELECT pg_catalog.gp_forget_dropped()")
		return err
	case *pg.Node_AlterTableStmt:
		if before != nil && before.Policy != nil {
			return s.afterAlter(req, before, st.AlterTableStmt)
		}
	case *pg.Node_RenameStmt:
		if st.RenameStmt.RenameType == pg.ObjectType_OBJECT_COLUMN {
			_, err := s.local("SELECT pg_catalog.gp_label_policies()")
			return err
		}
	case *pg.Node_IndexStmt:
		if st.IndexStmt.Unique {
			r, err := s.relation(st.IndexStmt.Relation.Schemaname, st.IndexStmt.Relation.Relname)
			if err != nil || r == nil || r.Policy == nil {
				return err
			}
			return s.checkUnique(r)
		}
	case *pg.Node_CreateFunctionStmt:
		return s.setFunctionLocation(req, st.CreateFunctionStmt)
	case *pg.Node_VariableSetStmt, *pg.Node_DiscardStmt:
		s.settingsChanged()
	}
	return nil
}

// setting is the value of one of Greenplum's parameters in this session.
func (s *Session) setting(name string) (string, error) {
	res, err := s.local("SELECT pg_catalog.current_setting(" + catalog.Literal(gucPrefix+name) + ", true)")
	if err != nil {
		return "", err
	}
	return string(res.value()), nil
}

// setFunctionLocation records EXECUTE ON.
func (s *Session) setFunctionLocation(req *request, st *pg.CreateFunctionStmt) error {
	loc := req.stmt.ExecuteOn
	if loc == 0 {
		loc = 'a'
	}
	if loc != 'a' && !st.ReturnType.GetSetof() && !returnsTable(st) {
		names := map[byte]string{'c': "COORDINATOR", 's': "ALL SEGMENTS", 'i': "INITPLAN"}
		return sqlError("0A000", "EXECUTE ON %s is only supported for set-returning functions", names[loc])
	}
	// Notes the newest function of the name: the one just made or replaced.
	_, err := s.local(fmt.Sprintf("SELECT pg_catalog.gp_set_function_location(f.oid, '%c') FROM ("+
		"SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.proname = %s AND p.oid >= 16384 ORDER BY pg_catalog.age(p.xmin), p.oid DESC LIMIT 1) f",
		loc, catalog.Literal(st.Funcname[len(st.Funcname)-1].GetString_().GetSval())))
	return err
}

func returnsTable(st *pg.CreateFunctionStmt) bool {
	for _, p := range st.Parameters {
		if p.GetFunctionParameter().GetMode() == pg.FunctionParameterMode_FUNC_PARAM_TABLE {
			return true
		}
	}
	return false
}
