package plan

import (
	"errors"
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Select plans a query. stmt is a SelectStmt, also one out of EXPLAIN, DECLARE,
// COPY, CREATE TABLE AS or INSERT; it is not changed. INTO is left out.
//
// An error is a *Error for what a client did wrong or cannot have (a system
// column of a replicated table, a data-modifying WITH over distributed
// tables), else one of the catalog. Names that do not exist are no error here:
// the plan is such that PostgreSQL will say so.
func Select(stmt *pg.Node, cat Catalog, opt Options) (*Query, error) {
	sel := nodeSelect(stmt)
	if sel == nil {
		return nil, errors.New("plan.Select: not a SELECT statement")
	}
	if opt.NumSegments < 1 {
		return nil, errors.New("plan.Select: there are no segments")
	}
	if opt.Token == nil {
		n := 0
		opt.Token = func() string { n++; return strconv.Itoa(n) }
	}
	look := newLookup(cat)
	special := mentionsSpecials(stmt)
	far, err := look.distributed(stmt)
	if err != nil {
		return nil, err
	}
	q := &Query{}
	if special || sel.IntoClause != nil {
		if q.Describe, err = describeSQL(stmt, look); err != nil {
			return nil, err
		}
	}
	if !far {
		q.Top = q.Describe
		return q, nil
	}
	whole, err := planned(stmt, q, look, opt)
	// It would lock other rows, or all.
	locks := slices.ContainsFunc(q.Slices, func(s Slice) bool { return s.LocksRows || s.Locks != nil })
	if err != nil || whole || locks || opt.NoPushdown || opt.noIslands {
		return q, err
	}
	// The segments may be able to run it when it is said otherwise.
	other, err := restated(stmt, look)
	if err != nil || other == nil {
		return q, err
	}
	better := &Query{Describe: q.Describe}
	if whole, err := planned(other, better, look, opt); err != nil || !whole {
		return q, err
	}
	return better, nil
}

// planned makes a plan. whole says that the segments run the outermost level.
func planned(stmt *pg.Node, q *Query, look *lookup, opt Options) (whole bool, err error) {
	p := &planner{look: look, opt: opt, salt: freeSalt(stmt)}
	err = p.plan(stmt, q)
	return p.whole, err
}

// plan fills in q for a statement that reads distributed tables.
func (p *planner) plan(stmt *pg.Node, q *Query) error {
	root := proto.CloneOf(stmt)
	sel := nodeSelect(root)
	sel.IntoClause = nil
	b := &binder{look: p.look}
	lv := b.selectStmt(sel, nil, nil, nil)
	if b.err != nil {
		return b.err
	}
	var levels []*level // that no island takes in
	var err error
	var visit func(l *level) bool
	visit = func(l *level) bool {
		done := false
		if err == nil {
			done, err = p.island(l, l == lv)
			p.whole = p.whole || done && l == lv
		}
		if !done {
			levels = append(levels, l)
		}
		for _, k := range l.kept {
			k.each(visit)
		}
		return !done
	}
	lv.each(visit)
	if err != nil {
		return err
	}
	if p.direct {
		q.Kind, q.Slices, q.gathered, q.telling = Gather, p.all(), p.gathered, p.telling
		q.lock(lv)
		return nil
	}
	if err := p.prepare(levels); err != nil {
		return err
	}
	for _, l := range levels {
		if err := p.gatherLevel(l); err != nil {
			return err
		}
	}
	top, err := p.deparse(root)
	if err != nil {
		return err
	}
	q.Kind, q.Top, q.Slices, q.Reason = Top, top, p.all(), p.reason
	q.TopInPortions = p.inPortions(top, q.Slices)
	q.lock(lv)
	if p.folded == lv && len(p.slices) == 1 {
		q.Fold = p.fold
	}
	return nil
}

// mentionsSpecials says whether a statement has names that PostgreSQL does not
// know and Greenplum does.
func mentionsSpecials(n *pg.Node) bool {
	found := false
	walk(n, func(m any) bool {
		switch v := m.(type) {
		case *pg.ColumnRef:
			if k := len(v.Fields); k > 0 && v.Fields[k-1].GetString_().GetSval() == segmentID {
				found = true
			}
		case *pg.RangeFunction:
			if _, ok, _ := distRandom(v); ok {
				found = true
			}
		}
		return !found
	})
	return found
}

// freeSalt is a word for the marks of sources that the statement does not use.
func freeSalt(n *pg.Node) string {
	taken := false
	walk(n, func(m any) bool {
		switch v := m.(type) {
		case *pg.String:
			taken = taken || isMark(v.Sval)
		case *pg.RangeVar:
			taken = taken || isMark(v.Relname)
		}
		return !taken
	})
	if !taken {
		return ""
	}
	// Somebody plays with our names: one that is longer than any of theirs.
	longest := 0
	walk(n, func(m any) bool {
		if s, ok := m.(*pg.String); ok {
			longest = max(longest, len(s.Sval))
		}
		return true
	})
	salt := make([]byte, longest+1)
	for i := range salt {
		salt[i] = 'x'
	}
	return string(salt)
}

func isMark(s string) bool {
	for i := 0; i+3 <= len(s); i++ {
		if s[i:i+3] == "?gp" {
			return true
		}
	}
	return false
}

// describeSQL is a statement as the coordinator's PostgreSQL alone could run
// it, with the same result columns: gp_segment_id becomes a function,
// gp_dist_random the relation itself.
func describeSQL(stmt *pg.Node, look *lookup) (string, error) {
	n := proto.CloneOf(stmt)
	if s := nodeSelect(n); s != nil {
		s.IntoClause = nil
	}
	if _, err := replaceSpecials(n, look); err != nil {
		return "", err
	}
	return Deparse(n)
}

// ReplaceSegmentID changes a statement in place so that PostgreSQL can run it
// on one instance: gp_segment_id becomes pg_catalog.gp_execution_segment(), and
// gp_dist_random the relation itself. It looks at the SELECTs in a statement of
// any kind, and says whether anything was changed. A later [Select] takes
// gp_execution_segment() in a view over a distributed table for the segment of
// the row, as it was before.
func ReplaceSegmentID(n *pg.Node, cat Catalog) (bool, error) {
	if !mentionsSpecials(n) {
		return false, nil
	}
	return replaceSpecials(n, newLookup(cat))
}

func replaceSpecials(n *pg.Node, look *lookup) (bool, error) {
	b := &binder{look: look, keepViews: true}
	walk(n, func(m any) bool {
		switch v := m.(type) {
		case *pg.SelectStmt:
			b.selectStmt(v, nil, nil, nil)
			return false
		case *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
			return false // see Modify
		}
		return true
	})
	if b.err != nil {
		return false, b.err
	}
	changed := false
	for _, root := range b.levels {
		changed = replaceSpecialsIn(root) || changed
	}
	return changed, nil
}

// replaceSpecialsIn does the work of replaceSpecials for a level and what is
// below it.
func replaceSpecialsIn(root *level) bool {
	changed := false
	root.each(func(lv *level) bool {
		named := false
		for _, r := range lv.refs {
			if r.kind != refSystem || r.name != segmentID {
				continue
			}
			if !named {
				nameAll(lv.sel.TargetList)
				named = true
			}
			r.node.Node = funcCall("gp_execution_segment").Node
			changed = true
		}
		for _, r := range lv.rtes {
			if !r.random {
				continue
			}
			rv := &pg.RangeVar{Schemaname: relSchema(r.rel), Relname: r.rel.Name, Inh: true, Relpersistence: "p", Location: -1,
				Alias: r.fn.Alias}
			if rv.Alias == nil {
				rv.Alias = &pg.Alias{Aliasname: r.alias}
			}
			r.node.Node = &pg.Node_RangeVar{RangeVar: rv}
			changed = true
		}
		return true
	})
	return changed
}
