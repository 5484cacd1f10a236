package plan

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Insertion is a plan of the SELECT of an INSERT … SELECT.
type Insertion struct {
	// Query yields the rows, wherever they are to go.
	Query *Query
	// Here, if not nil, is Query's one slice as the segments can run it within
	// an INSERT of their own: each row is made where it is to be stored. Its
	// Segments run it, all together or none.
	Here *Slice
	// Replicated: every segment of Here makes all rows, of its own copy; the
	// number of rows is that of one of them.
	Replicated bool
	Reason     string // why Here is nil, for EXPLAIN, unless Query.Reason says it
}

// Insert plans rows, the SELECT of what is to be put into target: its result
// columns are those columns of target, by index, each of which is in it once.
// The errors are those of [Select].
func Insert(rows *pg.Node, target *Relation, columns []int, cat Catalog, opt Options) (*Insertion, error) {
	q, err := Select(rows, cat, opt)
	if err != nil {
		return nil, err
	}
	in := &Insertion{Query: q}
	if q.Kind != Gather {
		return in, nil
	}
	s := q.Slices[0]
	switch {
	case len(q.Slices) > 1:
		in.Reason = "segments send each other rows first"
	case s.Read != nil:
		in.Reason = "a table that is read as the owner of a view"
	case s.Merge != nil:
		in.Reason = "rows that are put in order"
	default:
		in.Reason = in.place(&s, q.gathered, target, columns, opt.NumSegments)
	}
	if in.Reason == "" {
		in.Here = &s
	}
	return in, nil
}

// place says why the rows of a level are not where they are to be stored. s is
// its slice, whose segments it sets.
func (in *Insertion) place(s *Slice, sh *shape, target *Relation, columns []int, segments int) string {
	pol := target.Policy
	n := segments
	if pol.NumSegments > 0 && pol.NumSegments < n {
		n = pol.NumSegments
	}
	from := sh.from
	if pol.Kind == Replicated {
		switch {
		case from.kind != locusReplicated || from.segs < n:
			return "rows that are not on every segment"
		case sh.chooses():
			return "rows that may differ between the copies"
		case strings.Contains(s.SQL, "gp_execution_segment"):
			return "gp_segment_id, which differs between the copies"
		}
		in.Replicated, s.Segments = true, nil
		if n < segments {
			s.Segments = firstSegments(n)
		}
		return ""
	}
	if from.kind == locusReplicated {
		return "rows of one segment that are to be spread"
	}
	if pol.Kind == Random {
		switch {
		case len(s.Segments) == 1 && n > 1:
			return "rows of one segment that are to be spread"
		case from.segs > n:
			return "rows on segments that the table is not on"
		}
		return ""
	}
	if from.kind != locusHashed || from.segs != n || len(from.keys) != len(pol.Keys) || sh.lv.isSet() || !sh.lv.known {
		return elsewhere
	}
	for i, k := range pol.Keys {
		at := slices.Index(columns, k)
		if at < 0 || !sh.placedBy(at, from.keys[i], &target.Columns[k]) {
			return elsewhere
		}
	}
	return ""
}

// chooses says whether a level's rows depend on the order of those it reads.
func (sh *shape) chooses() bool {
	sel := sh.lv.sel
	return sh.aggregates || sh.windows || sh.srf || len(sel.DistinctClause) > 0 || sel.LimitCount != nil || sel.LimitOffset != nil
}

const elsewhere = "rows that belong on other segments"

// placedBy says whether result column i, when it is stored in column c, has the
// value of key in every row.
func (sh *shape) placedBy(i int, key []colID, c *Column) bool {
	if i >= len(sh.lv.vals) {
		return false
	}
	var id colID
	var ok bool
	if v := sh.lv.vals[i]; v.star != nil {
		id, ok = v.star.id()
	} else {
		id, ok = sh.lv.exprColumnID(withoutRelabel(v.expr, family(c)))
	}
	f := family(c)
	if !ok || f == "" || familyOf(id) != f || !contains(key, id) {
		return false
	}
	b := baseColumn(id)
	switch {
	case strings.Contains(c.Type, "("):
		// Storing it may round it, or drop blanks at its end.
		return b != nil && b.Type == c.Type
	case f == "float":
		return b != nil && b.TypeOID == c.TypeOID
	}
	return true
}

// withoutRelabel is an expression without casts that leave the hash of a value
// of a family as it is.
func withoutRelabel(n *pg.Node, family string) *pg.Node {
	for {
		c := n.GetTypeCast()
		if c == nil || len(c.TypeName.GetTypmods()) > 0 || len(c.TypeName.GetArrayBounds()) > 0 {
			return n
		}
		name, _ := lastString(c.TypeName.Names)
		switch name {
		case "int2", "int4", "int8":
			if family != "int" {
				return n
			}
		case "text", "varchar":
			if family != "text" {
				return n
			}
		default:
			return n
		}
		n = c.Arg
	}
}
