package session

import (
	"fmt"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// setPolicy records where the rows of a new table go.
func (s *Session) setPolicy(req *request, rv *pg.RangeVar, create *pg.CreateStmt, ctas bool) error {
	r, err := s.relation(rv.Schemaname, rv.Relname)
	if err != nil {
		return err
	}
	if r == nil {
		return internal("table %q is gone right after it was made", rv.Relname)
	}
	s.txn.changed.made(r)
	p, err := s.choosePolicy(req, r, create, ctas)
	if err != nil {
		return err
	}
	if err := s.recordPolicy(r, p); err != nil {
		return err
	}
	if p.Kind != plan.Hashed && p.Kind != plan.Random {
		return nil
	}
	r.Policy = p
	return s.checkUnique(r)
}

func (s *Session) recordPolicy(r *relation, p *plan.Policy) error {
	if err := s.checkFamily(r, p); err != nil {
		return err
	}
	kind := "p"
	if p.Kind == plan.Replicated {
		kind = "r"
	}
	var keys []string
	for _, k := range p.Keys {
		keys = append(keys, strconv.Itoa(r.columns[k].num))
	}
	s.txn.ddl = true
	s.cache.reset(s.cache.tick)
	_, err := s.local(fmt.Sprintf("SELECT pg_catalog.gp_set_policy(%d, '%s', %d, '%s'), pg_catalog.gp_protect(%d)",
		r.OID, kind, s.numSegments(), strings.Join(keys, " "), r.OID))
	return err
}

// checkFamily refuses a policy by which only one of a table and those that inherit from it
// is replicated: rows of both are read together, once each.
func (s *Session) checkFamily(r *relation, p *plan.Policy) error {
	res, err := s.local(fmt.Sprintf(`SELECT d.localoid::pg_catalog.regclass FROM pg_catalog.pg_inherits i
		JOIN pg_catalog.gp_distribution_policy d ON d.localoid = CASE WHEN i.inhparent = %[1]d THEN i.inhrelid ELSE i.inhparent END
		WHERE (i.inhparent = %[1]d OR i.inhrelid = %[1]d) AND (d.policytype = 'r') <> %[2]t ORDER BY 1 LIMIT 1`, r.OID, p.Kind == plan.Replicated))
	if err != nil || len(res.rows) == 0 {
		return err
	}
	e := sqlError("0A000", "table %q and table %s cannot be of one inheritance tree: one of them is replicated, and the other is not", r.Name, res.value())
	e.Hint = "Give both the same kind of distribution."
	return e
}

// choosePolicy decides as Greenplum does: the clause; else the parent's or
// LIKE's; else the primary or a unique key; else the first hashable column.
func (s *Session) choosePolicy(req *request, r *relation, create *pg.CreateStmt, ctas bool) (*plan.Policy, error) {
	n := s.numSegments()
	if d := req.stmt.Distribution; d != nil {
		p := &plan.Policy{Kind: d.Kind, NumSegments: n}
		if d.Kind == plan.Replicated && r.Kind == 'p' {
			return nil, sqlError("0A000", "PARTITION BY clause cannot be used with DISTRIBUTED REPLICATED clause")
		}
		for _, k := range d.Keys {
			at, err := keyColumn(r, k.Column)
			if err != nil {
				return nil, err
			}
			for _, other := range p.Keys {
				if other == at {
					return nil, sqlError("42701", "duplicate column in DISTRIBUTED BY clause")
				}
			}
			p.Keys = append(p.Keys, at)
		}
		if d.Kind == plan.Hashed && len(p.Keys) == 0 {
			p.Kind = plan.Random
		}
		return p, nil
	}
	parents := create.GetInhRelations()
	for _, parent := range parents {
		rv := parent.GetRangeVar()
		pr, err := s.relation(rv.GetSchemaname(), rv.GetRelname())
		if err != nil {
			return nil, err
		}
		if p := samePolicy(pr, r); p != nil {
			return p, nil
		}
	}
	if set, err := s.setting("gp_create_table_random_default_distribution"); err == nil && set == "on" {
		s.notice("NOTICE", "00000", "using default RANDOM distribution since no distribution was specified", "")
		return &plan.Policy{Kind: plan.Random, NumSegments: n}, nil
	}
	if keys, err := s.uniqueKeys(r); err != nil {
		return nil, err
	} else if len(keys) > 0 {
		return &plan.Policy{Kind: plan.Hashed, Keys: keys[0], NumSegments: n}, nil
	}
	for _, e := range create.GetTableElts() {
		like := e.GetTableLikeClause()
		if like == nil {
			continue
		}
		lr, err := s.relation(like.Relation.GetSchemaname(), like.Relation.GetRelname())
		if err != nil {
			return nil, err
		}
		if p := samePolicy(lr, r); p != nil {
			s.notice("NOTICE", "00000", "table doesn't have 'DISTRIBUTED BY' clause, defaulting to distribution columns from LIKE table", "")
			return p, nil
		}
	}
	const hint = "The 'DISTRIBUTED BY' clause determines the distribution of data. Make sure column(s) chosen are the optimal data distribution key to minimize skew."
	for i := range r.columns {
		if !cdbhash.Hashable(r.columns[i].hashType()) || r.columns[i].generated {
			continue
		}
		word := "column"
		if ctas {
			word = "column(s)"
		}
		s.notice("NOTICE", "00000", fmt.Sprintf("Table doesn't have 'DISTRIBUTED BY' clause -- Using %s named '%s' as the Greenplum Database data distribution key for this table.", word, r.columns[i].Name), hint)
		return &plan.Policy{Kind: plan.Hashed, Keys: []int{i}, NumSegments: n}, nil
	}
	s.notice("NOTICE", "00000", "Table doesn't have 'DISTRIBUTED BY' clause, and no column type is suitable for a distribution key. Creating a NULL policy entry.", "")
	return &plan.Policy{Kind: plan.Random, NumSegments: n}, nil
}

// keyColumn finds a column of DISTRIBUTED BY.
func keyColumn(r *relation, name string) (int, error) {
	for i := range r.columns {
		c := &r.columns[i]
		if c.Name != name {
			continue
		}
		if c.generated {
			return 0, sqlError("0A000", "cannot use generated column %q in the distribution key", name)
		}
		if !cdbhash.Hashable(c.hashType()) {
			e := sqlError("42704", "data type %s has no default operator class for access method \"hash\"", c.bare)
			e.Hint = "You must specify an operator class or define a default operator class for the data type."
			return 0, e
		}
		return i, nil
	}
	return 0, sqlError("42703", "column \"%s\" named in 'DISTRIBUTED BY' clause does not exist", name)
}

// samePolicy is from's policy for a table with the same columns; nil when it
// has none or they differ.
func samePolicy(from, to *relation) *plan.Policy {
	if from == nil || from.Policy == nil {
		return nil
	}
	p := &plan.Policy{Kind: from.Policy.Kind, NumSegments: from.Policy.NumSegments}
	for _, k := range from.Policy.Keys {
		found := false
		for i := range to.columns {
			if to.columns[i].Name == from.columns[k].Name {
				p.Keys, found = append(p.Keys, i), true
			}
		}
		if !found {
			return nil
		}
	}
	return p
}

// uniqueKeys lists the columns of a table's unique indexes, the primary key
// first.
func (s *Session) uniqueKeys(r *relation) ([][]int, error) {
	res, err := s.local(fmt.Sprintf("SELECT i.indkey::text, i.indisprimary, i.indnkeyatts FROM pg_catalog.pg_index i "+
		"WHERE i.indrelid = %d AND i.indisunique ORDER BY i.indisprimary DESC, i.indexrelid", r.OID))
	if err != nil {
		return nil, err
	}
	var out [][]int
	for _, row := range res.rows {
		var keys []int
		nkey, _ := strconv.Atoi(string(row[2]))
		for _, f := range strings.Fields(string(row[0]))[:nkey] {
			num, _ := strconv.Atoi(f)
			for i := range r.columns {
				if r.columns[i].num == num {
					keys = append(keys, i)
				}
			}
		}
		out = append(out, keys)
	}
	return out, nil
}

// checkUnique refuses unique indexes that segments cannot enforce on their
// own: those that do not cover the distribution key.
func (s *Session) checkUnique(r *relation) error {
	if r.Policy.Kind == plan.Replicated {
		return nil
	}
	res, err := s.local(fmt.Sprintf("SELECT i.indkey::text, i.indisprimary FROM pg_catalog.pg_index i WHERE i.indrelid = %d AND i.indisunique", r.OID))
	if err != nil {
		return err
	}
	for _, row := range res.rows {
		word := "UNIQUE constraint"
		if string(row[1]) == "t" {
			word = "PRIMARY KEY"
		}
		if r.Policy.Kind == plan.Random {
			return sqlError("42P16", "%s and DISTRIBUTED RANDOMLY are incompatible", word)
		}
		have := map[string]bool{}
		for _, f := range strings.Fields(string(row[0])) {
			have[f] = true
		}
		for _, k := range r.Policy.Keys {
			if !have[strconv.Itoa(r.columns[k].num)] {
				e := sqlError("42P16", "%s and DISTRIBUTED BY definitions are incompatible", word)
				e.Hint = "When there is both a " + word + " and a DISTRIBUTED BY clause, the DISTRIBUTED BY clause must be a subset of the " + word + "."
				return e
			}
		}
	}
	return nil
}
