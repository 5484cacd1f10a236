package session

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// relation is what gp_relation() says of a name: what the planner needs and
// what writing to the table needs.
type relation struct {
	plan.Relation
	columns []column
	allowed bool        // the user may SELECT some of it
	rights  *viewRights // of a view, once they were asked for
	// policies are the conditions of a table's row-level security by role.
	policies map[string]string
}

// column is a column as writing to it sees it.
type column struct {
	Name      string
	num       int    // attnum
	oid       uint32 // type
	base      uint32 // base type of a domain, else the type; anyenum for enums
	format    string // type with modifier
	bare      string // type without modifier
	binary    bool   // the type has a binary format that is the same on every instance
	generated bool   // GENERATED ALWAYS AS (…) STORED
	identity  string // "a" always, "d" by default
	def       string // default expression, "" none
	notNull   bool
}

// column is the relation's column of that name, nil when there is none.
func (r *relation) column(name string) *column {
	for i := range r.columns {
		if r.columns[i].Name == name {
			return &r.columns[i]
		}
	}
	return nil
}

const (
	oidAnyEnum     = 3500
	firstNormalOID = 16384
)

type relationJSON struct {
	OID      uint32
	Schema   string
	Name     string
	Kind     string
	Temp     bool
	Children bool
	Allowed  bool
	PK       *string
	Secured  bool
	Below    *struct {
		Temp bool
		Keys []string
	}
	Policy   *string
	Keys     *string
	Segments *int
	View     *string
	Cols     []struct {
		N   string
		Num int
		T   uint32
		B   uint32
		TT  string
		Bin bool
		F   string
		F0  string
		C   *string
		NN  bool
		G   string
		I   string
		D   *string
	}
}

// cache holds what a session knows of relations and functions. It is dropped
// whenever a session of this coordinator has changed the catalog, and when the
// session's own way of resolving names may have changed.
type cache struct {
	tick      uint64
	relations map[plan.Name]*relation
	functions map[plan.Name]plan.Func
	sources   *functionSources
	fields    map[string][]pgproto3.FieldDescription // of described statements
	quick     map[quickKey]*quick
	bytewise  map[string]bool // of collations: see Session.bytewise
}

func (c *cache) reset(tick uint64) {
	c.tick = tick
	c.relations = map[plan.Name]*relation{}
	c.functions = map[plan.Name]plan.Func{}
	c.sources = nil
	c.fields = map[string][]pgproto3.FieldDescription{}
	c.quick = map[quickKey]*quick{}
	c.bytewise = map[string]bool{}
}

// fresh drops what may be outdated.
func (s *Session) freshCache() {
	if tick := s.srv.catalogTick.Load(); s.cache.relations == nil || s.cache.tick != tick {
		s.cache.reset(tick)
	}
}

// catalogChanged tells every session that relations may look different now.
func (s *Session) catalogChanged() { s.srv.catalogTick.Add(1) }

// relation resolves a name as PostgreSQL does now; nil when there is none.
func (s *Session) relation(schema, name string) (*relation, error) {
	for range tornTries {
		r, err := s.lookUp(schema, name)
		if err != nil || r == nil {
			return nil, err
		}
		by := s.awaitedFor(r.OID)
		if by == nil {
			return r, nil
		}
		if err := s.awaitDefinition(by, r); err != nil {
			return nil, err
		}
	}
	return nil, sqlError("40001", "the definition of table %q has changed again and again: try again", name)
}

// lookUp is relation as PostgreSQL has it at the moment, whoever is about to change it.
func (s *Session) lookUp(schema, name string) (*relation, error) {
	key := plan.Name{Schema: schema, Name: name}
	if r, ok := s.cache.relations[key]; ok {
		s.usesTemp(r)
		return r, nil
	}
	res, err := s.local("SELECT pg_catalog.gp_relation(" + catalog.Literal(schema) + "," + catalog.Literal(name) + ")")
	if err != nil {
		return nil, withoutContext(err)
	}
	var r *relation
	if v := res.value(); v != nil {
		if r, err = decodeRelation(v); err != nil {
			return nil, err
		}
	}
	s.cache.relations[key] = r
	s.usesTemp(r)
	return r, nil
}

// withoutContext is an error of one of the session's own queries without the
// functions it came through, which mean nothing to the client.
func withoutContext(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Where == "" {
		return err
	}
	bare := *pe
	bare.Where = ""
	return &bare
}

// usesTemp notes that the transaction uses a relation, if it is temporary.
func (s *Session) usesTemp(r *relation) {
	if r != nil && r.Temp {
		s.txn.temp = true
		s.unsteady++
	}
}

func decodeRelation(v []byte) (*relation, error) {
	var j relationJSON
	if err := json.Unmarshal(v, &j); err != nil {
		return nil, err
	}
	r := &relation{Relation: plan.Relation{OID: j.OID, Schema: j.Schema, Name: j.Name, Kind: j.Kind[0], Temp: j.Temp, HasChildren: j.Children},
		allowed: j.Allowed}
	if j.View != nil {
		r.ViewDef = strings.TrimSuffix(strings.TrimSpace(*j.View), ";")
	}
	index := map[int]int{}
	for i, c := range j.Cols {
		index[c.Num] = i
		pc := plan.Column{Name: c.N, TypeOID: c.T, Type: c.F, NotNull: c.NN, Generated: c.G != ""}
		if c.C != nil {
			pc.Collation = *c.C
		}
		r.Columns = append(r.Columns, pc)
		col := column{Name: c.N, num: c.Num, oid: c.T, base: c.B, format: c.F, bare: c.F0, binary: c.Bin && c.B < firstNormalOID,
			generated: c.G == "s", identity: c.I, notNull: c.NN}
		if c.TT == "e" {
			col.base, col.binary = oidAnyEnum, c.Bin // a label, whatever the type's oid
		}
		if c.D != nil {
			col.def = *c.D
		}
		r.columns = append(r.columns, col)
	}
	numbers := func(v string) []int {
		var out []int
		for _, f := range strings.Fields(v) {
			n, _ := strconv.Atoi(f)
			if i, ok := index[n]; ok {
				out = append(out, i)
			}
		}
		return out
	}
	if j.PK != nil {
		r.PrimaryKey = numbers(*j.PK)
	}
	r.Indirect = j.Secured
	if j.Below != nil {
		r.TempChildren = j.Below.Temp
		for i := range r.Columns {
			if slices.Contains(j.Below.Keys, r.Columns[i].Name) {
				r.ChildKeys = append(r.ChildKeys, i)
			}
		}
	}
	if j.Policy != nil {
		p := &plan.Policy{NumSegments: *j.Segments}
		switch {
		case *j.Policy == "r":
			p.Kind = plan.Replicated
		case strings.TrimSpace(*j.Keys) == "":
			p.Kind = plan.Random
		default:
			p.Kind, p.Keys = plan.Hashed, numbers(*j.Keys)
		}
		r.Policy = p
	}
	return r, nil
}

// name is the relation's name fit for SQL, whatever the search_path.
func (r *relation) name() string {
	if r.Temp {
		return "pg_temp." + catalog.Ident(r.Name)
	}
	return catalog.Ident(r.Schema) + "." + catalog.Ident(r.Name)
}

// sqlSchema is the schema that name qualifies with.
func (r *relation) sqlSchema() string {
	if r.Temp {
		return "pg_temp"
	}
	return r.Schema
}

// planCatalog is the planner's view of the session's catalog.
type planCatalog struct {
	s      *Session
	params []uint32 // the types of the statement's parameters
	inView bool     // the definition of a view is looked at: all in it is the user's
}

func (c planCatalog) Relation(schema, name string) (*plan.Relation, error) {
	r, err := c.s.relation(schema, name)
	if r == nil || err != nil {
		return nil, err
	}
	if r.Policy != nil {
		e, err := c.s.estimate(r)
		if err != nil {
			return nil, err
		}
		r.Rows = e.rows
		for i := range r.Columns {
			v := e.columns[r.Columns[i].Name]
			r.Columns[i].Distinct, r.Columns[i].Bytes = v[0], v[1]
		}
	}
	return &r.Relation, nil
}

func (c planCatalog) Function(schema, name string) (plan.Func, error) {
	key := plan.Name{Schema: schema, Name: name}
	if f, ok := c.s.cache.functions[key]; ok {
		return f, nil
	}
	res, err := c.s.local("SELECT pg_catalog.gp_function(" + catalog.Literal(schema) + "," + catalog.Literal(name) + ")")
	if err != nil {
		return plan.Func{}, err
	}
	var f plan.Func
	if v := res.value(); v != nil {
		var j struct {
			Builtin, Volatile, Stable, Aggregate, Window, SRF bool
			Location                                          string
		}
		if err := json.Unmarshal(v, &j); err != nil {
			return plan.Func{}, err
		}
		f = plan.Func{Found: true, Builtin: j.Builtin, Volatility: 'i', Aggregate: j.Aggregate, Window: j.Window, SetReturning: j.SRF, Location: j.Location[0]}
		switch {
		case j.Volatile:
			f.Volatility = 'v'
		case j.Stable:
			f.Volatility = 's'
		}
		if f.Volatility == 'i' && !f.Builtin {
			// Segments do not have what it may read, whatever it says of itself.
			reads, err := c.s.mayReadTables(name)
			if err != nil {
				return plan.Func{}, err
			}
			if reads {
				f.Volatility = 'v'
			}
		}
	}
	c.s.cache.functions[key] = f
	return f, nil
}

func (c planCatalog) Describe(sql string, params []int) ([]plan.Column, error) {
	types := c.params
	if params != nil {
		types = pick(c.params, params)
	}
	return c.s.describeColumns(sql, types)
}
