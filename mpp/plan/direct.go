package plan

import (
	"regexp"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Statements that concern few segments: the distribution key, or
// gp_segment_id, is given.

// keySegments are the only segments that have rows a level's conditions let
// through; nil when that is not known.
func (p *planner) keySegments(sh *shape) []int {
	if sh.from.kind == locusReplicated || sh.from.kind == locusNone {
		return nil
	}
	conds := conjuncts(sh.lv.sel.WhereClause)
	var inner func(it *fromItem)
	inner = func(it *fromItem) {
		if it.join != nil && it.left != nil && it.join.Jointype == pg.JoinType_JOIN_INNER {
			conds = append(conds, conjuncts(it.join.Quals)...)
			inner(it.left)
			inner(it.right)
		}
	}
	for _, it := range sh.lv.items {
		inner(it)
	}
	for _, c := range conds {
		if seg, ok := p.givenSegment(c, sh); ok {
			return []int{seg}
		}
	}
	return p.pinned(sh.from, conds, sh.refs)
}

// givenSegment reads a condition gp_segment_id = k.
func (p *planner) givenSegment(c *pg.Node, sh *shape) (int, bool) {
	x := c.GetAExpr()
	if x == nil || !isEquals(x) {
		return 0, false
	}
	for _, s := range [2][2]*pg.Node{{x.Lexpr, x.Rexpr}, {x.Rexpr, x.Lexpr}} {
		k := s[1].GetAConst().GetIval()
		if k == nil || sh.refs[s[0]] == nil || !sh.isSegmentID(s[0]) {
			continue
		}
		if k.Ival < 0 || int(k.Ival) >= sh.from.segs {
			return 0, true // no segment has such rows; one says so
		}
		return int(k.Ival), true
	}
	return 0, false
}

// pinned is the segment of the rows whose whole key is given by constants; nil
// when it is not.
func (p *planner) pinned(l locus, conds []*pg.Node, refs map[*pg.Node]*ref) []int {
	if p.opt.Hash == nil || l.kind != locusHashed || len(l.keys) == 0 {
		return nil
	}
	types := make([]Column, len(l.keys))
	values := make([]string, len(l.keys))
	for i, key := range l.keys {
		b := baseColumn(key[0])
		if b == nil {
			return nil
		}
		types[i] = *b
		found := false
		for _, c := range conds {
			x := c.GetAExpr()
			if x == nil || !isEquals(x) {
				continue
			}
			for _, s := range [2][2]*pg.Node{{x.Lexpr, x.Rexpr}, {x.Rexpr, x.Lexpr}} {
				r := refs[s[0]]
				if r == nil || found {
					continue
				}
				id, ok := r.columnID()
				if !ok || !contains(key, id) {
					continue
				}
				values[i], found = p.keyText(s[1], family(b))
			}
		}
		if !found {
			return nil
		}
	}
	seg, ok := p.opt.Hash(types, values, l.segs)
	if !ok || seg < 0 || seg >= l.segs {
		return nil
	}
	return []int{seg}
}

func contains(key []colID, id colID) bool {
	for _, k := range key {
		if k == id {
			return true
		}
	}
	return false
}

var (
	intText  = regexp.MustCompile(`^-?[0-9]{1,18}$`)
	dateText = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
	uuidText = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// keyText is a constant, or a parameter's value, as text of a key's type, where the
// text is the same whatever the session's settings.
func (p *planner) keyText(n *pg.Node, family string) (string, bool) {
	if n.GetAConst() == nil {
		if !p.constantOf(n, family) {
			return "", false
		}
		if c := n.GetTypeCast(); c != nil {
			n = c.Arg
		}
	}
	if r := n.GetParamRef(); r != nil {
		if p.opt.Param == nil {
			return "", false
		}
		text, ok := p.opt.Param(int(r.Number))
		return text, ok && isText(text, family)
	}
	c := n.GetAConst()
	if c == nil || c.Isnull {
		return "", false
	}
	if i := c.GetIval(); i != nil {
		return strconv.Itoa(int(i.Ival)), family == "int"
	}
	s := c.GetSval()
	if s == nil {
		return "", false
	}
	return s.Sval, isText(s.Sval, family)
}

// isText says whether a value of a hash family may be written so, with one
// meaning only.
func isText(s, family string) bool {
	switch family {
	case "int":
		return intText.MatchString(s)
	case "text":
		return true
	case "date":
		return dateText.MatchString(s)
	case "uuid":
		return uuidText.MatchString(s)
	}
	return false
}
