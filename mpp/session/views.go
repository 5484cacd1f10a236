package session

import (
	"encoding/json"
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// PostgreSQL reads the tables of a view with the rights of its owner and
// evaluates all else as the user. The planner writes a view's definition in its
// place. As long as the user may read what the view reads, and the owner too,
// that is the same thing. Elsewhere
//
//   - a view that each segment can evaluate on its own is read as if it were a
//     table: the segments' PostgreSQL sees to the owner's rights;
//   - of any other the tables are scanned with the owner's rights
//     (plan.Relation.Owner), and the coordinator evaluates it as the user.
//
// Whether the user may ask what he asks is told by the coordinator's
// PostgreSQL, which has the same views, tables and grants; see mayRead.

// viewRights is what is known of a view as the user sees it.
type viewRights struct {
	// Plain: the user and the owners of the views may read all that is below
	// it, and see the same rows.
	Plain      bool
	Replicated bool           // all distributed tables below it are
	Role       string         // whose rights its tables are read with
	as         *plan.Relation // what the planner is told when the user reads it
	readers    map[string]bool
}

// viewRights asks for a view's rights, once.
func (s *Session) viewRights(r *relation) (*viewRights, error) {
	if r.rights != nil {
		return r.rights, nil
	}
	res, err := s.local(fmt.Sprintf(`WITH RECURSIVE reads(rel, role) AS (
	SELECT %d::pg_catalog.oid, current_user::name
	UNION
	SELECT d.refobjid, CASE WHEN i.invoker THEN current_user::name ELSE pg_catalog.pg_get_userbyid(c.relowner) END
	FROM reads JOIN pg_catalog.pg_class c ON c.oid = reads.rel AND c.relkind = 'v'
	JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid AND w.ev_type = '1'
	JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
		AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n' AND d.refobjid <> c.oid,
	LATERAL (SELECT COALESCE(pg_catalog.bool_or(o.option_value::boolean), false) AS invoker
		FROM pg_catalog.pg_options_to_table(c.reloptions) o WHERE o.option_name = 'security_invoker') i)
SELECT pg_catalog.json_build_object(
	'Plain', pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(reads.role, c.oid, 'SELECT') AND NOT c.relrowsecurity),
	'Replicated', COALESCE(pg_catalog.bool_and(p.policytype = 'r'), true),
	'Role', (SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_options_to_table(v.reloptions) o WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)
		THEN current_user ELSE pg_catalog.pg_get_userbyid(v.relowner) END FROM pg_catalog.pg_class v WHERE v.oid = %[1]d))
FROM reads JOIN pg_catalog.pg_class c ON c.oid = reads.rel AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
LEFT JOIN pg_catalog.gp_distribution_policy p ON p.localoid = c.oid`, r.OID))
	if err != nil {
		return nil, err
	}
	rights := &viewRights{readers: map[string]bool{}}
	if err := json.Unmarshal(res.value(), rights); err != nil {
		return nil, err
	}
	r.rights = rights
	return rights, nil
}

// ReadAs says what the planner is to take for a view or the table of one; see
// plan.Catalog.
func (c planCatalog) ReadAs(schema, name, as string) (*plan.Relation, error) {
	r, err := c.s.relation(schema, name)
	if err != nil {
		return nil, err
	}
	if c.inView {
		return &r.Relation, nil
	}
	if r.Policy != nil {
		return c.s.filtered(r, as)
	}
	rights, err := c.s.viewRights(r)
	if err != nil {
		return nil, err
	}
	allowed := r.allowed
	if as != "" {
		if allowed, err = c.s.viewReader(r, as); err != nil {
			return nil, err
		}
	}
	switch {
	case !allowed:
		return nil, sqlError("42501", "permission denied for view %s", r.Name)
	case as == "" && rights.Plain:
		return &r.Relation, nil
	case as == "" && rights.as != nil:
		return rights.as, nil
	}
	owned := r.Relation
	owned.Owner = rights.Role
	if as != "" {
		return &owned, nil
	}
	if rights.as = c.s.segmentView(r); rights.as == nil {
		rights.as = &owned
	}
	return rights.as, nil
}

// viewReader says whether a role may read some of a view.
func (s *Session) viewReader(r *relation, role string) (bool, error) {
	may, ok := r.rights.readers[role]
	if !ok {
		res, err := s.local(fmt.Sprintf("SELECT pg_catalog.has_any_column_privilege(%s, %d::pg_catalog.oid, 'SELECT')", catalog.Literal(role), r.OID))
		if err != nil {
			return false, err
		}
		may = string(res.value()) == "t"
		r.rights.readers[role] = may
	}
	return may, nil
}

// filtered is the table as a role may read it: a view of the rows that its
// row-level security lets the role see. Its conditions are evaluated as the
// user, like all of a view.
func (s *Session) filtered(r *relation, role string) (*plan.Relation, error) {
	cond, ok := r.policies[role]
	if !ok {
		res, err := s.local(fmt.Sprintf(`SELECT COALESCE('(' || pg_catalog.string_agg(q.cond, ' OR ') FILTER (WHERE q.polpermissive) || ')', 'false')
		|| COALESCE(pg_catalog.string_agg(' AND ' || q.cond, '') FILTER (WHERE NOT q.polpermissive), '')
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles a ON a.rolname = %s
	LEFT JOIN LATERAL (SELECT p.polpermissive, '(' || COALESCE(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'true') || ')' AS cond
		FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')
		AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) m WHERE m = 0 OR pg_catalog.pg_has_role(a.oid, m, 'USAGE'))) q ON true
	WHERE c.oid = %d AND c.relrowsecurity AND NOT a.rolsuper AND NOT a.rolbypassrls
		AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(a.oid, c.relowner, 'USAGE'))
	GROUP BY c.oid`, catalog.Literal(role), r.OID))
		if err != nil {
			return nil, err
		}
		cond = string(res.value())
		if r.policies == nil {
			r.policies = map[string]string{}
		}
		r.policies[role] = cond
	}
	if cond == "" {
		return &r.Relation, nil
	}
	list := ""
	for i, c := range r.Columns {
		if i > 0 {
			list += ", "
		}
		list += catalog.Ident(c.Name)
	}
	view := r.Relation
	view.Kind, view.Policy, view.Owner, view.Filtered = 'v', nil, role, true
	view.ViewDef = "SELECT " + list + " FROM " + r.name() + " WHERE " + cond
	return &view, nil
}

// segmentView is the view as a table whose rows each segment has some of, nil
// where its rows come together from several.
func (s *Session) segmentView(r *relation) *plan.Relation {
	node, err := parseOne(r.ViewDef)
	if err != nil {
		return nil
	}
	opt, err := s.planOptions(nil, nil)
	if err != nil {
		return nil
	}
	opt.NoMotions = true
	assumeUser(node)
	q, err := plan.Select(node, planCatalog{s: s, inView: true}, opt)
	if err != nil || q.Kind != plan.Gather || len(q.Slices) != 1 || q.Slices[0].Merge != nil {
		return nil
	}
	table := r.Relation
	table.Kind, table.ViewDef, table.Indirect = 'r', "", true
	switch {
	case r.rights.Replicated:
		table.Policy = &plan.Policy{Kind: plan.Replicated}
	case q.Slices[0].Segments == nil:
		table.Policy = &plan.Policy{Kind: plan.Random}
	default:
		return nil
	}
	return &table
}

// mayRead lets the coordinator's PostgreSQL check a query that reads tables
// with the rights of views' owners: EXPLAIN runs nothing and checks all rights,
// of columns too.
func (s *Session) mayRead(node *pg.Node, q *plan.Query, types []string) error {
	if !slices.ContainsFunc(q.Slices, func(sl plan.Slice) bool { return sl.Read != nil }) {
		return nil
	}
	if q.Describe != "" {
		var err error
		if node, err = parseOne(q.Describe); err != nil {
			return err
		}
	} else {
		node = proto.CloneOf(node)
		node.GetSelectStmt().IntoClause = nil
	}
	// What the parameters are matters for no right.
	values := make([]*pg.Node, len(types))
	for i, t := range types {
		var err error
		if values[i], err = constant(nil, t); err != nil {
			return err
		}
	}
	replaceParams(node, values)
	open := false
	visit(node.ProtoReflect(), func(n *pg.Node) bool {
		open = open || n.GetParamRef() != nil
		return true
	})
	if open {
		return nil // it is only prepared as yet
	}
	text, err := plan.Deparse(node)
	if err != nil {
		return err
	}
	_, err = s.local("EXPLAIN " + text)
	return withoutContext(err)
}

// assumeUser writes a constant in the place of current_user and its kin, which
// segments know as well as the coordinator does: they work in the user's role.
func assumeUser(n *pg.Node) {
	name := &pg.TypeName{Typemod: -1, Names: []*pg.Node{pgString("pg_catalog"), pgString("name")}}
	visit(n.ProtoReflect(), func(node *pg.Node) bool {
		switch node.GetSqlvalueFunction().GetOp() {
		case pg.SQLValueFunctionOp_SVFOP_CURRENT_USER, pg.SQLValueFunctionOp_SVFOP_USER,
			pg.SQLValueFunctionOp_SVFOP_CURRENT_ROLE, pg.SQLValueFunctionOp_SVFOP_SESSION_USER:
			c := &pg.A_Const{Val: &pg.A_Const_Sval{Sval: &pg.String{Sval: "user"}}}
			node.Node = &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: &pg.Node{Node: &pg.Node_AConst{AConst: c}}, TypeName: name}}
			return false
		}
		return true
	})
}

func pgString(s string) *pg.Node {
	return &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: s}}}
}
