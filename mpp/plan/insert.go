package plan

import (
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Insertion is a plan of the SELECT of an INSERT … SELECT.
type Insertion struct {
	// Query yields the rows, wherever they are to go.
	Query *Query
	// Slices, if not nil, are what segments run to store the rows themselves.
	// The first is a SELECT within an INSERT of theirs: it yields on each
	// segment the rows to be stored there. The others are inputs, as in a
	// Query.
	Slices []Slice
	// Telling is the SQL of the first slice, if it is the only one, for segments that are
	// to say when they have the statement's snapshot, as Modification.Telling; "" where
	// there is no WHERE for that.
	Telling string
	// Moved: the first slice reads nothing but what the second one sends.
	Moved bool
	// Replicated: all rows are stored on every segment of the first slice, and
	// their number is that of one of them.
	Replicated bool
	// Reason is why the rows are not stored where they are made, for EXPLAIN,
	// unless Query.Reason says it.
	Reason string
}

// Insert plans rows, the SELECT of what is to be put into target: its result
// columns are those columns of target, by index, each of which is in it once. The
// errors are those of [Select].
func Insert(rows *pg.Node, target *Relation, columns []int, cat Catalog, opt Options) (*Insertion, error) {
	if opt.Token == nil {
		n := 0
		opt.Token = func() string { n++; return strconv.Itoa(n) }
	}
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
	case slices.ContainsFunc(q.Slices, func(s Slice) bool { return s.Read != nil }):
		in.Reason = "a table that is read as the owner of a view"
		return in, nil
	case s.LocksRows || s.Locks != nil:
		in.Reason = "rows that are locked"
		return in, nil
	case s.Merge != nil:
		in.Reason = "rows that are put in order"
		return in, nil
	}
	if in.Reason = in.place(&s, q.gathered, target, columns, opt.NumSegments); in.Reason == "" {
		if slices.ContainsFunc(q.Slices, func(s Slice) bool { return s.Motion == StayMotion }) {
			opt.Own = nil // it is the session's own executors that write
			return Insert(rows, target, columns, cat, opt)
		}
		if in.Slices = append([]Slice{s}, q.Slices[1:]...); len(in.Slices) == 1 {
			in.Telling, err = q.telling()
		}
		return in, err
	}
	in.Replicated = target.Policy.Kind == Replicated
	why, err := in.move(rows, target, columns, cat, opt)
	if why != "" {
		in.Reason = why
	}
	return in, err
}

// move makes the rows of Query go to a slice of their own, on the segments where
// each is to be stored, or says why they cannot.
func (in *Insertion) move(rows *pg.Node, target *Relation, columns []int, cat Catalog, opt Options) (string, error) {
	pol := target.Policy
	if opt.NoMotions {
		return "the encoding of the database", nil
	}
	if pol.Kind == Random {
		return in.Reason, nil
	}
	text := in.Query.Describe
	if text == "" {
		var err error
		if text, err = Deparse(rows); err != nil {
			return "", err
		}
	}
	cols, err := cat.Describe(text, nil)
	if err != nil {
		return "", err
	}
	if why := unfit(cols); why != "" {
		return why, nil
	}
	if len(cols) != len(columns) {
		return "columns that are not known", nil
	}
	sends := func(c *Column) bool { return family(c) != "" && opt.Sends != nil && opt.Sends(c.TypeOID) }
	cols = slices.Clone(cols)
	var list []string
	for i := range cols {
		c := &cols[i]
		if family(c) == "float" && !sends(c) {
			return "a column of type " + c.Type + ", which the session's settings round", nil
		}
		c.Name = target.Columns[columns[i]].Name
		list = append(list, quote(topAlias)+"."+quote(c.Name))
	}
	from := in.Query.Slices[0]
	n := opt.NumSegments
	into := Slice{To: -1, Relation: target.Name, Rows: from.Rows}
	if pol.NumSegments > 0 && pol.NumSegments < n {
		n = pol.NumSegments
		into.Segments = firstSegments(n)
	}
	from.Motion, from.Token, from.To, from.Columns = BroadcastMotion, opt.Token(), 0, cols
	if pol.Kind == Hashed {
		from.Motion = RedistributeMotion
		into.Rows /= float64(n)
		for _, k := range pol.Keys {
			at := slices.Index(columns, k)
			if at < 0 || !sends(&cols[at]) || !stores(&target.Columns[k], &cols[at]) {
				return "a key that segments cannot tell from what they send", nil
			}
			from.Keys = append(from.Keys, at)
		}
	}
	from.Large = into.Rows >= portionRows
	into.SQL = "SELECT " + strings.Join(list, ", ") + " FROM " + recvText(&Slice{Token: from.Token, Rows: into.Rows}, topAlias, cols)
	in.Slices = []Slice{into, from}
	for _, s := range in.Query.Slices[1:] {
		s.To++
		in.Slices = append(in.Slices, s)
	}
	in.Moved = true
	return "", nil
}

// stores says whether a value of a column from keeps its hash when it is stored
// in c.
func stores(c, from *Column) bool {
	f := family(c)
	switch {
	case f == "" || f != family(from):
		return false
	case strings.Contains(c.Type, "("):
		// Storing it may round it, or drop blanks at its end.
		return from.Type == c.Type
	case f == "float":
		return from.TypeOID == c.TypeOID
	}
	return true
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
	v := sh.lv.vals[i]
	var id colID
	var ok bool
	var casts []*pg.TypeCast
	if v.star != nil {
		id, ok = v.star.id()
	} else {
		n := v.expr
		for ; n.GetTypeCast() != nil; n = n.GetTypeCast().Arg {
			casts = append(casts, n.GetTypeCast())
		}
		id, ok = sh.lv.exprColumnID(n)
	}
	f := family(c)
	if !ok || f == "" || familyOf(id) != f || !contains(key, id) {
		return false
	}
	for _, t := range casts {
		if !keepsHash(t.TypeName, f) && !keepsValue(t.TypeName, baseColumn(id)) {
			return false
		}
	}
	if b := baseColumn(id); b != nil {
		return stores(c, b)
	}
	return f != "float" && !strings.Contains(c.Type, "(")
}

// keepsHash says whether a cast to a type leaves the hash of each value of a
// family as it is, or fails.
func keepsHash(t *pg.TypeName, family string) bool {
	if len(t.GetTypmods()) > 0 || len(t.GetArrayBounds()) > 0 {
		return false
	}
	switch name, _ := lastString(t.Names); name {
	case "int2", "int4", "int8":
		return family == "int"
	case "text", "varchar":
		return family == "text"
	}
	return false
}

// keepsValue says whether a cast to a type leaves each value of a column as it
// is: it is the column's own, with its modifier or none.
func keepsValue(t *pg.TypeName, c *Column) bool {
	if c == nil {
		return false
	}
	res, err := pg.Parse("SELECT NULL::" + c.Type)
	if err != nil {
		return false
	}
	own := res.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val.GetTypeCast().GetTypeName()
	same := func(a, b []*pg.Node) bool {
		return slices.EqualFunc(a, b, func(a, b *pg.Node) bool {
			return a.GetString_().GetSval() == b.GetString_().GetSval() && a.GetAConst().GetIval().GetIval() == b.GetAConst().GetIval().GetIval()
		})
	}
	return same(t.Names, own.Names) && len(t.ArrayBounds) == 0 && (len(t.Typmods) == 0 || same(t.Typmods, own.Typmods))
}
