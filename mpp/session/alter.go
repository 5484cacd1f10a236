package session

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// checkAlter refuses what would leave rows where they do not belong.
func (s *Session) checkAlter(r *relation, st *pg.AlterTableStmt) error {
	if r == nil || r.Policy == nil {
		return nil
	}
	key := func(name string) bool {
		return slices.ContainsFunc(r.Policy.Keys, func(k int) bool { return r.columns[k].Name == name })
	}
	for _, c := range st.Cmds {
		cmd := c.GetAlterTableCmd()
		if cmd.GetSubtype() == pg.AlterTableType_AT_AlterColumnType && key(cmd.Name) {
			return sqlError("0A000", "cannot alter type of a column used in a distribution policy")
		}
	}
	return nil
}

// afterAlter follows an ALTER TABLE of a distributed table.
func (s *Session) afterAlter(req *request, before *relation, st *pg.AlterTableStmt) error {
	r, err := s.relation(st.Relation.Schemaname, st.Relation.Relname)
	if err != nil || r == nil {
		return err
	}
	if req.stmt.SetDistribution {
		return s.redistribute(req, r)
	}
	if r, err = s.fillColumns(req, before, r, st); err != nil {
		return err
	}
	for _, c := range st.Cmds {
		cmd := c.GetAlterTableCmd()
		switch cmd.GetSubtype() {
		case pg.AlterTableType_AT_DropColumn:
			if len(r.Policy.Keys) < len(before.Policy.Keys) {
				s.notice("NOTICE", "00000", "dropping a column that is part of the distribution policy forces a NULL distribution policy", "")
				return s.recordPolicy(r, &plan.Policy{Kind: plan.Random, NumSegments: r.Policy.NumSegments})
			}
		case pg.AlterTableType_AT_AddInherit, pg.AlterTableType_AT_AttachPartition:
			if err := s.checkFamily(r, r.Policy); err != nil {
				return err
			}
		case pg.AlterTableType_AT_AddConstraint, pg.AlterTableType_AT_AddIndex:
			con := cmd.Def.GetConstraint()
			switch con.GetContype() {
			case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
				if err := s.checkUnique(r); err != nil {
					return s.adoptKey(req, r, err)
				}
			case pg.ConstrType_CONSTR_FOREIGN:
				s.notice("WARNING", "01000", "referential integrity (FOREIGN KEY) constraints are not supported in Greenplum Database, will not be enforced", "")
			}
		}
	}
	return nil
}

// fillColumns gives the rows of a table the values of new columns that are not the same
// on all segments when each of them evaluates the default: of sequences, for one, and of
// the time. It returns the table as it is then.
func (s *Session) fillColumns(req *request, before, r *relation, st *pg.AlterTableStmt) (*relation, error) {
	var sets, always []string
	dropped := map[string]bool{}
	for _, n := range st.Cmds {
		cmd := n.GetAlterTableCmd()
		if cmd.GetSubtype() == pg.AlterTableType_AT_DropColumn {
			dropped[cmd.Name] = true
		}
		def := cmd.GetDef().GetColumnDef()
		if cmd.GetSubtype() != pg.AlterTableType_AT_AddColumn || !hasDefault(def) || before.column(def.Colname) != nil && !dropped[def.Colname] {
			continue
		}
		c := r.column(def.Colname)
		if c == nil || c.generated || c.def == "" {
			continue
		}
		changes, err := s.volatility(c.def)
		switch {
		case err != nil:
			return nil, err
		case changes == 'i':
			continue
		case r.Kind == 'r' && r.HasChildren, r.Policy.Kind == plan.Replicated && changes == 'v':
			e := sqlError("0A000", "cannot add column %q with a default that is not constant to table %q, which is replicated or has children", c.Name, r.Name)
			e.Hint = "Add the column without a default, fill it, and set the default then."
			return nil, e
		}
		sets = append(sets, ident(c.Name)+" = DEFAULT")
		if c.identity == "a" {
			always = append(always, c.Name)
		}
	}
	if len(sets) == 0 {
		return r, nil
	}
	// PostgreSQL sets an identity that is ALWAYS generated to nothing else.
	generate := func(kind string) error {
		for _, name := range always {
			sql := "ALTER TABLE " + r.name() + " ALTER COLUMN " + ident(name) + " SET GENERATED " + kind
			if _, err := s.local(sql); err != nil {
				return err
			}
			if _, err := s.gang.Exec(req.ctx, nil, sql); err != nil {
				return err
			}
		}
		s.cache.reset(s.cache.tick)
		return nil
	}
	if err := generate("BY DEFAULT"); err != nil {
		return nil, err
	}
	update := *req
	update.text = "UPDATE " + r.name() + " SET " + strings.Join(sets, ", ")
	update.portal, update.describe, update.params, update.types, update.formats = nil, false, nil, nil, nil
	var err error
	if update.node, err = parseOne(update.text); err != nil {
		return nil, err
	}
	done := s.pending
	s.pending = nil // it is not done yet
	if err := s.runModify(&update); err != nil {
		return nil, err
	}
	s.pending = done
	if err := generate("ALWAYS"); err != nil {
		return nil, err
	}
	return s.relation(st.Relation.Schemaname, st.Relation.Relname)
}

// hasDefault says whether the definition of a column gives it one.
func hasDefault(def *pg.ColumnDef) bool {
	for _, n := range def.Constraints {
		switch n.GetConstraint().GetContype() {
		case pg.ConstrType_CONSTR_DEFAULT, pg.ConstrType_CONSTR_IDENTITY:
			return true
		}
	}
	names := def.GetTypeName().GetNames()
	if len(names) != 1 {
		return false
	}
	switch names[0].GetString_().GetSval() {
	case "serial", "serial2", "serial4", "serial8", "smallserial", "bigserial":
		return true
	}
	return false
}

// volatility is that of an expression, as far as its functions tell: 'i', 's' or 'v'.
func (s *Session) volatility(expr string) (byte, error) {
	n, err := parseOne("SELECT " + expr)
	if err != nil {
		return 0, err
	}
	worst := byte('i')
	visit(n.ProtoReflect(), func(n *pg.Node) bool {
		is := byte('i')
		if n.GetSqlvalueFunction() != nil {
			is = 's'
		}
		if call := n.GetFuncCall(); call != nil && err == nil {
			var f plan.Func
			if f, err = (planCatalog{s: s}).Function("", call.Funcname[len(call.Funcname)-1].GetString_().GetSval()); f.Found && f.Volatility != 0 {
				is = f.Volatility
			} else {
				is = 'v'
			}
		}
		worst = max(worst, is) // the letters are in order
		return err == nil
	})
	return worst, err
}

// policyProvider is the provider of the security labels in which pg_dump finds
// the policies of tables.
const policyProvider = "greenplum"

// runPolicyLabel runs SECURITY LABEL with a policy, as pg_dump writes it after
// each table. It is ALTER TABLE … SET DISTRIBUTED in other words.
func (s *Session) runPolicyLabel(req *request, st *pg.SecLabelStmt) error {
	var names []string
	for _, n := range st.Object.GetList().GetItems() {
		names = append(names, ident(n.GetString_().GetSval()))
	}
	if st.Objtype != pg.ObjectType_OBJECT_TABLE || names == nil || st.Label == "" {
		return sqlError("0A000", "security labels of provider %q are the distribution policies of tables", policyProvider)
	}
	stmt, err := plan.Parse("ALTER TABLE " + strings.Join(names, ".") + " SET " + st.Label)
	if err != nil || !stmt.SetDistribution || stmt.Distribution == nil {
		return sqlError("22023", "%q is no distribution policy", st.Label)
	}
	alter := *req
	alter.stmt, alter.text, alter.node, alter.portal = stmt, stmt.SQL, stmt.Node, nil
	if err := s.runUtility(&alter); err != nil {
		pe := *pgError(err)
		pe.Position = 0 // one in a text that the client does not know
		return &pe
	}
	if s.pending != nil {
		s.pending.CommandTag = []byte("SECURITY LABEL")
	}
	return nil
}

// adoptKey gives an empty table the distribution that its new unique key
// needs, as Greenplum does; a table with rows keeps the error.
func (s *Session) adoptKey(req *request, r *relation, refused error) error {
	res, err := s.gang.Exec(req.ctx, nil, "SELECT EXISTS (SELECT FROM "+r.name()+")")
	if err != nil {
		return err
	}
	for _, one := range res {
		if string(one.Rows[0][0]) == "t" {
			return refused
		}
	}
	keys, err := s.uniqueKeys(r)
	if err != nil {
		return err
	}
	r.Policy = &plan.Policy{Kind: plan.Hashed, Keys: keys[0], NumSegments: r.Policy.NumSegments}
	if err := s.checkUnique(r); err != nil {
		return refused
	}
	s.notice("NOTICE", "00000", "updating distribution policy to match new PRIMARY KEY", "")
	return s.recordPolicy(r, r.Policy)
}

// redistribute moves the rows of a table to where its new policy wants them.
func (s *Session) redistribute(req *request, r *relation) error {
	d := req.stmt.Distribution
	p := &plan.Policy{Kind: r.Policy.Kind, Keys: r.Policy.Keys, NumSegments: s.numSegments()}
	if d != nil {
		p.Kind, p.Keys = d.Kind, nil
		for _, k := range d.Keys {
			at, err := keyColumn(r, k.Column)
			if err != nil {
				return err
			}
			p.Keys = append(p.Keys, at)
		}
		if d.Kind == plan.Hashed && len(p.Keys) == 0 {
			p.Kind = plan.Random
		}
	}
	moved := *r
	moved.Policy = p
	if err := s.checkUnique(&moved); err != nil {
		return err
	}
	same := p.Kind == r.Policy.Kind && slices.Equal(p.Keys, r.Policy.Keys)
	if same && req.stmt.Reorganize == nil {
		if p.Kind == plan.Random {
			s.notice("WARNING", "01000", fmt.Sprintf("distribution policy of relation %q already set to DISTRIBUTED RANDOMLY", r.Name),
				"Use ALTER TABLE \""+r.Name+"\" SET WITH (REORGANIZE=TRUE) DISTRIBUTED RANDOMLY to force a random redistribution.")
		}
		return nil
	}
	if req.stmt.Reorganize != nil && !*req.stmt.Reorganize {
		return s.recordPolicy(r, p)
	}
	var cols []string
	for i := range r.columns {
		if !r.columns[i].generated {
			cols = append(cols, "t."+ident(r.columns[i].Name))
		}
	}
	source, err := parseOne("SELECT " + strings.Join(cols, ", ") + " FROM " + r.name() + " AS t")
	if err != nil {
		return err
	}
	w := &rowWriter{s: s, ctx: req.ctx, r: &moved}
	if err := w.open(); err != nil {
		return err
	}
	formats := []int16{1}
	if !w.allBinary() {
		w.text = true
		if err := appendKeys(source, &moved); err != nil {
			return err
		}
		formats = make([]int16, w.width)
		for range p.Keys {
			formats = append(formats, 1)
		}
	}
	spool := &rowsource.Spool{}
	defer spool.Close()
	if err := s.rows(req.ctx, source, nil, nil, formats, spool.Add); err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	if err := s.markWrite(req.ctx, r, nil); err != nil {
		return err
	}
	if _, err := s.gang.ExecLocking(req.ctx, nil, "TRUNCATE "+r.name()); err != nil {
		return err
	}
	if err := w.start(); err != nil {
		return err
	}
	if err := spool.Replay(w.add); err != nil {
		w.abort(err)
		return err
	}
	if _, err := w.finish(); err != nil {
		return err
	}
	return s.recordPolicy(r, p)
}
