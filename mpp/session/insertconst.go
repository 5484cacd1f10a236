package session

import (
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// constantRows places the rows of an INSERT of nothing but constants, without
// having them evaluated first: the usual long VALUES list. It leaves w as it
// is and returns false where a value's place is not certain.
func constantRows(w *rowWriter, st *pg.InsertStmt) (bool, error) {
	sel := st.SelectStmt.GetSelectStmt()
	if len(sel.GetValuesLists()) == 0 || st.Override == pg.OverridingKind_OVERRIDING_USER_VALUE || st.WithClause != nil || sel.WithClause != nil || sel.SortClause != nil ||
		sel.LimitCount != nil || sel.LimitOffset != nil || w.r.Policy.Kind == plan.Replicated {
		return false, nil
	}
	cells, ok := constantColumns(w.r, st, len(sel.ValuesLists[0].GetList().GetItems()))
	if !ok {
		return false, nil
	}
	for _, list := range sel.ValuesLists {
		for at, item := range list.GetList().GetItems() {
			if _, ok := constantText(item); !ok || at >= len(cells.columns) || !sameEverywhere(&w.r.columns[cells.columns[at]], item) {
				return false, nil
			}
		}
	}
	segs := make([]int, len(sel.ValuesLists))
	for i, list := range sel.ValuesLists {
		items := list.GetList().GetItems()
		if w.hasher == nil {
			w.next = (w.next + 1) % w.n
			segs[i] = w.next
			continue
		}
		for k, at := range cells.keys {
			w.keys[k] = nil
			if at < 0 || items[at].GetAConst().Isnull {
				continue
			}
			text, _ := constantText(items[at])
			var ok bool
			if w.keys[k], ok = constantKey(&w.r.columns[w.r.Policy.Keys[k]], items[at].GetAConst(), text); !ok {
				return false, nil
			}
		}
		seg, err := w.hasher.Segment(w.keys, w.n)
		if err != nil {
			return false, err
		}
		segs[i] = seg
	}
	for i, list := range sel.ValuesLists {
		items := list.GetList().GetItems()
		b := &w.batches[segs[i]]
		b.next()
		for n, at := range cells.stored {
			if n > 0 {
				b.sql.WriteString(", ")
			}
			if at < 0 {
				b.sql.WriteString("NULL")
				continue
			}
			b.sql.WriteString(constantSQL(items[at].GetAConst()))
		}
		if err := b.end(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// constantCells says where the values of a row go.
type constantCells struct {
	columns []int // the column of each value
	stored  []int // the value of each stored column, -1: NULL
	keys    []int // the value of each column of the distribution key, -1: NULL
}

func constantColumns(r *relation, st *pg.InsertStmt, width int) (c constantCells, ok bool) {
	value := make(map[int]int, len(r.columns)) // by column
	if len(st.Cols) == 0 {
		for i := range min(width, len(r.columns)) {
			value[i], c.columns = i, append(c.columns, i)
		}
	}
	for at, t := range st.Cols {
		for i := range r.columns {
			if r.columns[i].Name == t.GetResTarget().GetName() && len(t.GetResTarget().Indirection) == 0 {
				value[i], c.columns = at, append(c.columns, i)
			}
		}
		if len(c.columns) != at+1 {
			return c, false
		}
	}
	find := func(i int) int {
		if at, ok := value[i]; ok {
			return at
		}
		return -1
	}
	for i := range r.columns {
		col := &r.columns[i]
		if col.generated {
			if find(i) >= 0 {
				return c, false
			}
			continue
		}
		if find(i) < 0 && col.def != "" {
			return c, false // the default is the coordinator's to compute
		}
		c.stored = append(c.stored, find(i))
	}
	for _, k := range r.Policy.Keys {
		c.keys = append(c.keys, find(k))
	}
	return c, true
}

// constantText is a constant's value as it is written, without quotes; false
// for all that is not a plain constant.
func constantText(n *pg.Node) (string, bool) {
	c := n.GetAConst()
	if c == nil {
		return "", false
	}
	switch v := c.Val.(type) {
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.GetIval())), true
	case *pg.A_Const_Fval:
		return v.Fval.GetFval(), true
	case *pg.A_Const_Sval:
		return v.Sval.GetSval(), true
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.GetBoolval()), true
	}
	return "", c.Isnull
}

func constantSQL(c *pg.A_Const) string {
	if c.Isnull {
		return "NULL"
	}
	text, _ := constantText(&pg.Node{Node: &pg.Node_AConst{AConst: c}})
	if c.GetSval() != nil {
		return catalog.Literal(text)
	}
	return text
}

// sameEverywhere says whether a constant means the same wherever and whenever
// it is read: 'now' does not.
func sameEverywhere(c *column, n *pg.Node) bool {
	switch c.base {
	case 1082, 1083, 1114, 1184, 1266: // dates and times
		text, _ := constantText(n)
		return n.GetAConst().GetSval() == nil || text != "" && text[0] >= '0' && text[0] <= '9'
	case 16, 17, 18, 19, 20, 21, 23, 25, 700, 701, 1042, 1043, 1186, 1700, 2950, 114, 3802, oidAnyEnum:
		return true
	}
	return n.GetAConst().Isnull
}

// constantKey is the binary form of a constant of a distribution key; false
// where only PostgreSQL knows what it becomes in the column.
func constantKey(c *column, k *pg.A_Const, text string) ([]byte, bool) {
	if c.oid != c.base || c.format != c.bare {
		return nil, false // a domain, an enum or a limit
	}
	switch c.oid {
	case 20, 21, 23, 1700:
		if k.GetBoolval() != nil {
			return nil, false
		}
	case 25, 1043:
		if k.GetSval() == nil && k.GetIval() == nil {
			return nil, false
		}
	case 16, 2950:
		if k.GetSval() == nil && k.GetBoolval() == nil {
			return nil, false
		}
	default:
		return nil, false
	}
	return cdbhash.FromText(c.oid, []byte(text), nil)
}
