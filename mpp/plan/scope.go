package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// rteKind says what a row source of a FROM clause is.
type rteKind uint8

const (
	rteGather   rteKind = iota // rows are on the segments: distributed, replicated, gp_dist_random
	rteSegments                // a function that runs on all segments
	rteLocal                   // a relation of the coordinator's own
	rteSub                     // a sub-select, also an expanded view
	rteCTE                     // a WITH query
	rteFunc                    // a function or table function on the coordinator
	rteJoin                    // an aliased join
)

// rte is a row source of a FROM clause.
type rte struct {
	kind   rteKind
	alias  string   // the name references use
	schema string   // of a relation without alias: s.t.c is allowed
	cols   []string // visible column names; see known
	known  bool     // cols is complete
	node   *pg.Node // the FROM item in the tree
	rv     *pg.RangeVar
	sample *pg.RangeTableSample
	fn     *pg.RangeFunction
	rel    *Relation // rteGather, rteLocal
	random bool      // gp_dist_random
	owner  string    // whose rights it is read with, "" the user's
	// filtered: row-level security is seen to by the level.
	filtered bool
	sub      *level      // rteSub
	with     *withQuery  // rteCTE, if it is simply a SELECT
	first    *firstStage // of an rteGather that is no table
	inner    []*rte      // rteJoin: what it joins
	hidden   bool        // inside an aliased join
	scope    *scope

	// What the query uses of it, for rteGather.
	all   bool            // every column
	need  []bool          // by column
	uses  []int           // how often, by column
	sys   map[string]bool // system columns
	whole bool            // the row as a value, see wholeRow
}

// column is the index of a visible column, -1 when there is none.
func (r *rte) column(name string) int { return slices.Index(r.cols, name) }

// isRelation says whether the source has system columns.
func (r *rte) isRelation() bool {
	return r.kind == rteGather || r.kind == rteLocal && r.rel != nil && r.rel.Kind != 'v'
}

// sends says whether a base table's column is among those the query uses.
func (r *rte) sends(col int) bool { return r.all || col < len(r.need) && r.need[col] }

func (r *rte) needAll() {
	r.all = true
	for _, i := range r.inner {
		i.needAll()
	}
}

// needName marks a column used by its name.
func (r *rte) needName(name string) {
	if i := r.column(name); i >= 0 {
		if r.need == nil {
			r.need, r.uses = make([]bool, len(r.cols)), make([]int, len(r.cols))
		}
		r.need[i] = true
		r.uses[i]++
	}
	for _, i := range r.inner {
		i.needName(name)
	}
}

// segmentID is the system column Greenplum adds.
const segmentID = "gp_segment_id"

// systemColumns are the columns every table has, with their types.
var systemColumns = map[string]string{
	segmentID: "integer", "ctid": "tid", "tableoid": "oid", "xmin": "xid", "xmax": "xid", "cmin": "cid", "cmax": "cid",
}

// mergedCol is a column of JOIN … USING or NATURAL JOIN.
type mergedCol struct {
	name        string
	join        pg.JoinType
	left, right starCol
}

// starCol is a column that * shows.
type starCol struct {
	name   string
	rte    *rte
	col    int
	merged *mergedCol
}

// fromItem is a FROM item with what it makes visible.
type fromItem struct {
	node        *pg.Node
	rte         *rte // a leaf or an aliased join
	join        *pg.JoinExpr
	left, right *fromItem
	rtes        []*rte // visible ones
	merged      []*mergedCol
	cols        []starCol // in the order of *, see known
	known       bool      // cols is complete
}

// scope is the names that can be seen at one place of a query.
type scope struct {
	parent *scope
	level  *level
	rtes   []*rte
	merged []*mergedCol
}

func (s *scope) mergedCol(name string) *mergedCol {
	// The outermost join was added last.
	for i := len(s.merged) - 1; i >= 0; i-- {
		if s.merged[i].name == name {
			return s.merged[i]
		}
	}
	return nil
}

// refKind says what a column reference means.
type refKind uint8

const (
	refColumn    refKind = iota // a column of rte
	refMerged                   // a column of JOIN USING
	refSystem                   // a system column of rte
	refWhole                    // the row of rte as a value
	refAttribute                // rte.f where f is a function of the row
	refOutput                   // a result column by its name
	refUncertain                // not to be known, or an error that PostgreSQL will tell
)

// ref is a column reference and what it means.
type ref struct {
	kind   refKind
	node   *pg.Node // holds the ColumnRef
	cr     *pg.ColumnRef
	rte    *rte
	col    int // refColumn: index into rte.cols; refOutput: of the target
	name   string
	merged *mergedCol
	scope  *scope // where rte is, nil for refUncertain
	level  *level // where the reference stands
}

// fieldNames are the strings of a ColumnRef; star says that it ends in *.
func fieldNames(cr *pg.ColumnRef) (parts []string, star bool) {
	for _, f := range cr.Fields {
		if s := f.GetString_(); s != nil {
			parts = append(parts, s.Sval)
		} else if f.GetAStar() != nil {
			star = true
		}
	}
	return parts, star
}

// resolve finds what a reference without star means at s.
func (s *scope) resolve(parts []string) ref {
	switch n := len(parts); {
	case n == 0 || n > 4:
		return ref{kind: refUncertain}
	case n == 1:
		return s.resolveName(parts[0])
	case n == 2:
		r, at := s.byAlias(parts[0])
		if r == nil {
			return ref{kind: refUncertain, name: parts[1]}
		}
		return r.resolveColumn(parts[1], at)
	default:
		r, at := s.bySchema(parts[n-3], parts[n-2])
		if r == nil {
			return ref{kind: refUncertain, name: parts[n-1]}
		}
		return r.resolveColumn(parts[n-1], at)
	}
}

func (r *rte) resolveColumn(name string, at *scope) ref {
	out := ref{kind: refUncertain, rte: r, name: name, scope: at}
	switch {
	case r.column(name) >= 0:
		out.kind, out.col = refColumn, r.column(name)
	case r.isRelation() && systemColumns[name] != "":
		out.kind = refSystem
	case r.kind == rteGather || r.isView():
		out.kind = refAttribute
	}
	return out
}

// resolveName finds what an unqualified name means: a column of the nearest
// level that has one, else a row.
func (s *scope) resolveName(name string) ref {
	for at := s; at != nil; at = at.parent {
		if m := at.mergedCol(name); m != nil {
			return ref{kind: refMerged, merged: m, name: name, scope: at}
		}
		var found *rte
		n, unknown := 0, false
		for _, r := range at.rtes {
			switch {
			case r.hidden:
			case r.column(name) >= 0:
				found = r
				n++
			case !r.known:
				unknown = true
			}
		}
		if n == 1 {
			return ref{kind: refColumn, rte: found, col: found.column(name), name: name, scope: at}
		}
		if n > 1 || unknown {
			return ref{kind: refUncertain, name: name}
		}
		if systemColumns[name] == "" {
			continue
		}
		for _, r := range at.rtes {
			if !r.hidden && r.isRelation() {
				found = r
				n++
			}
		}
		if n == 1 {
			return ref{kind: refSystem, rte: found, name: name, scope: at}
		}
		if n > 1 {
			return ref{kind: refUncertain, name: name}
		}
	}
	if r, at := s.byAlias(name); r != nil {
		return ref{kind: refWhole, rte: r, scope: at, name: name}
	}
	return ref{kind: refUncertain, name: name}
}

// byAlias finds the nearest source of that name.
func (s *scope) byAlias(alias string) (*rte, *scope) {
	for at := s; at != nil; at = at.parent {
		for _, r := range at.rtes {
			if !r.hidden && r.alias == alias {
				return r, at
			}
		}
	}
	return nil, nil
}

// bySchema finds the nearest relation without alias of that schema and name.
func (s *scope) bySchema(schema, name string) (*rte, *scope) {
	for at := s; at != nil; at = at.parent {
		for _, r := range at.rtes {
			if r.hidden || r.schema == "" || r.alias != name && (r.rv == nil || r.rv.Relname != name) {
				continue
			}
			if r.schema == schema || schema == tempSchema && r.rel != nil && r.rel.Temp {
				return r, at
			}
		}
	}
	return nil, nil
}
