package session

import (
	"fmt"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// PostgreSQL runs a view with the rights of its owner. The planner writes a
// view's definition in its place, which then runs with those of the user. As
// long as the user may read what the view reads, that is the same thing. Where
// he may not, a view that each segment can evaluate on its own is read as if
// it were a table: the segments' PostgreSQL sees to the owner's rights.

// guardedView is what the planner is told of a view: a table, if the view
// must be left as it is, or nil.
func (s *Session) guardedView(r *relation) (*plan.Relation, error) {
	if r.guard != nil {
		return r.guard, nil
	}
	node, err := parseOne(r.ViewDef)
	if err != nil {
		return nil, nil // the planner says so
	}
	replicated, readable, err := s.viewReads(r, 0)
	if err != nil || readable {
		return nil, err
	}
	opt, err := s.planOptions(nil)
	if err != nil {
		return nil, err
	}
	assumeUser(node)
	q, err := plan.Select(node, planCatalog{s: s, inView: true}, opt)
	if err != nil {
		return nil, nil
	}
	guard := r.Relation
	guard.Kind, guard.ViewDef = 'r', ""
	switch {
	case q.Kind != plan.Gather || len(q.Slices) != 1:
		s.deniedView = r.Name
		return nil, nil
	case replicated:
		guard.Policy = &plan.Policy{Kind: plan.Replicated}
	case q.Slices[0].Segments == nil:
		guard.Policy = &plan.Policy{Kind: plan.Random}
	default:
		s.deniedView = r.Name
		return nil, nil
	}
	r.guard = &guard
	return r.guard, nil
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

// viewReads says whether all distributed tables under a view are replicated,
// and whether the user may read them.
func (s *Session) viewReads(view *relation, depth int) (replicated, readable bool, err error) {
	node, err := parseOne(view.ViewDef)
	if err != nil || depth > maxViewDepth {
		return false, true, nil
	}
	replicated, readable = true, true
	for _, name := range plan.Relations(node) {
		r, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return false, false, err
		}
		switch {
		case r == nil:
		case r.Policy != nil:
			replicated = replicated && r.Policy.Kind == plan.Replicated
			readable = readable && r.readable
		case r.Kind == 'v' && r.ViewDef != "":
			rep, read, err := s.viewReads(r, depth+1)
			if err != nil {
				return false, false, err
			}
			replicated, readable = replicated && rep, readable && read
		}
	}
	return replicated, readable, nil
}

// maxViewDepth bounds views of views; PostgreSQL refuses circles itself.
const maxViewDepth = 50

// explainDenied adds to a refusal why the user's right to the view was not
// enough.
func (s *Session) explainDenied(err error) error {
	pe := pgError(err)
	if s.deniedView == "" || pe.Code != "42501" || pe.Detail != "" {
		return err
	}
	said := *pe
	said.Detail = fmt.Sprintf("The rows of view %q come together from several segments, so that it runs with the rights of the user instead of its owner's.", s.deniedView)
	said.Hint = "Grant the user SELECT on the tables that the view reads, or on a table made from it."
	return &said
}
