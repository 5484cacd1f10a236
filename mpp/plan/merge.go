package plan

import (
	"math"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/merge"
)

// pushMerge ends the planning of a level whose rows the segments sort: their
// streams are merged by keys, those of its ORDER BY. done is false when it is not
// certain that they can be.
func (p *planner) pushMerge(sh *shape, keys []sortKey) (done bool, err error) {
	lv := sh.lv
	sel := lv.sel
	count, ok1 := limitConst(sel.LimitCount)
	offset, ok2 := limitConst(sel.LimitOffset)
	if p.opt.Merges == nil || len(sel.SortClause) == 0 || !ok1 || !ok2 || count+offset > math.MaxInt32 {
		return false, nil
	}
	spec := &merge.Spec{Offset: offset, Limit: -1, Ties: sel.LimitOption == pg.LimitOption_LIMIT_OPTION_WITH_TIES}
	s := p.segmentCopy(lv, lv.sel)
	s.LimitOffset = nil
	if !isNullLimit(sel.LimitCount) {
		spec.Limit = count
		s.LimitCount = intConst(count + offset)
	}

	var hidden []outVal // keys that are not shown
	hide := func(n *pg.Node) int {
		s.TargetList = append(s.TargetList, target("?sort"+itoa(spec.Hidden+1), n))
		spec.Hidden++
		return spec.Hidden - 1
	}
	places := make([]int, len(keys)) // of keys that are not shown, among the hidden ones
	for i, k := range keys {
		if k.out < 0 {
			places[i] = hide(proto.CloneOf(plainSort(s.SortClause[i].GetSortBy().Node)))
			hidden = append(hidden, outVal{expr: k.expr})
		}
	}
	cols, why, err := p.islandColumns(sh, s, hidden)
	if why != "" || err != nil {
		return false, err
	}
	if spec.Columns = len(cols) - len(hidden); spec.Columns == 0 {
		return false, nil // a row source has one column at least
	}
	for i, k := range keys {
		by := sel.SortClause[i].GetSortBy()
		at, val := k.out, outVal{expr: k.expr}
		if at < 0 {
			at = spec.Columns + places[i]
		} else if lv.known {
			val = lv.vals[at]
		}
		typ := cols[at].TypeOID
		if typ == 0 && cols[at].Type == systemColumns[segmentID] {
			typ = 23
		}
		if !merge.Comparable(typ) || by.SortbyDir == pg.SortByDir_SORTBY_USING {
			return false, nil
		}
		if coll, ok := p.sortCollation(sh, by.Node, val, &cols[at]); !ok || !p.opt.Merges(typ, coll) {
			return false, nil
		}
		if k.out >= 0 && merge.NeedsBinary(typ) {
			again := sh.shownAgain(s, k.out)
			if again == nil {
				return false, nil
			}
			at = spec.Columns + hide(again)
		}
		key := merge.Key{Column: at, Type: typ, Desc: by.SortbyDir == pg.SortByDir_SORTBY_DESC}
		key.NullsFirst = by.SortbyNulls == pg.SortByNulls_SORTBY_NULLS_FIRST ||
			key.Desc && by.SortbyNulls != pg.SortByNulls_SORTBY_NULLS_LAST
		if key.Name, err = sh.keyName(val); err != nil {
			return false, err
		}
		spec.Keys = append(spec.Keys, key)
	}
	if done, _, err = p.gatherAll(sh, s, p.islandSegments(sh)); done {
		slice := &p.slices[len(p.slices)-1]
		slice.Merge = spec
		if spec.Limit >= 0 {
			slice.Rows = min(slice.Rows, float64(count+offset))
		}
	}
	return done, err
}

// sortCollation is the collation by which item, whose values are those of column
// c, is sorted. ok is false when that is not certain.
func (p *planner) sortCollation(sh *shape, item *pg.Node, val outVal, c *Column) (coll string, ok bool) {
	if cc := item.GetCollateClause(); cc != nil {
		var parts []string
		for _, n := range cc.Collname {
			parts = append(parts, quote(n.GetString_().GetSval()))
		}
		return strings.Join(parts, "."), true
	}
	if _, plain := p.inferColumn(sh, val); !plain && merge.Collates(c.TypeOID) && sh.userTypes() {
		return "", false // a domain may have brought a collation along
	}
	return c.Collation, true
}

// userTypes says whether any column an island reads is of a type that is not
// PostgreSQL's own.
func (sh *shape) userTypes() bool {
	const firstNormalOID = 16384
	found := false
	sh.lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.rel == nil || r.kind != rteGather {
				continue
			}
			for _, c := range r.rel.Columns {
				found = found || c.TypeOID >= firstNormalOID
			}
		}
		return !found
	})
	return found
}

// shownAgain is the expression of result column i, for another column of the
// slice s; nil when there is none that is certain to have the same values.
func (sh *shape) shownAgain(s *pg.SelectStmt, i int) *pg.Node {
	v := sh.lv.vals[i]
	if c := v.star; c != nil {
		if c.merged != nil || c.rte == nil || c.rte.kind == rteJoin {
			return nil
		}
		return colRef(c.rte.alias, c.rte.cols[c.col])
	}
	if sh.srf {
		return nil
	}
	for k, n := range sh.lv.sel.TargetList {
		if n.GetResTarget().GetVal() == v.expr {
			return proto.CloneOf(s.TargetList[k].GetResTarget().Val)
		}
	}
	return nil
}

// keyName is a sort key as EXPLAIN prints it: the name of a column, with its
// table's where there are several, or an expression in parentheses.
func (sh *shape) keyName(v outVal) (string, error) {
	var n *pg.Node
	id, ok := colID{}, false
	if v.star != nil {
		id, ok = v.star.id()
	} else {
		id, ok = sh.columnOf(v.expr)
	}
	switch {
	case ok && len(sh.lv.rtes) > 1:
		n = colRef(id.rte.alias, id.rte.cols[id.col])
	case ok:
		n = colRef(id.rte.cols[id.col])
	case v.star != nil:
		n = colRef(v.star.name)
	default:
		n = proto.CloneOf(v.expr)
	}
	sel := newSelect()
	sel.TargetList = []*pg.Node{target("", n)}
	sql, err := deparseSelect(sel)
	name := strings.TrimPrefix(sql, "SELECT ")
	if n.GetColumnRef() == nil {
		name = "(" + name + ")"
	}
	return name, err
}
