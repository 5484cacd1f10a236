package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Functions that run on all segments.

// gatherFunction makes a slice of a function in FROM that runs on all
// segments.
func (p *planner) gatherFunction(r *rte) error {
	f := proto.CloneOf(r.fn)
	f.Lateral = false
	sel := newSelect()
	star := &pg.Node{Node: &pg.Node_ColumnRef{ColumnRef: &pg.ColumnRef{Fields: []*pg.Node{aStar()}, Location: -1}}}
	sel.TargetList = []*pg.Node{target("", star)}
	sel.FromClause = []*pg.Node{{Node: &pg.Node_RangeFunction{RangeFunction: f}}}
	s, err := p.describedSlice(sel)
	if err != nil {
		return err
	}
	s.Relation = r.alias
	if err := p.addSlice(s, sel); err != nil {
		return err
	}
	r.node.Node = p.addSource(recvText(s, r.alias, s.Columns)).Node
	return nil
}

// gatherSegments makes a slice of a SELECT without FROM that calls functions
// that run on all segments.
func (p *planner) gatherSegments(lv *level) error {
	sel := proto.CloneOf(lv.sel)
	s, err := p.describedSlice(sel)
	if err != nil {
		return err
	}
	if err := p.addSlice(s, sel); err != nil {
		return err
	}
	top := newSelect()
	const alias = "s"
	for i, c := range s.Columns {
		s.Columns[i].Name = "c" + itoa(i+1)
		top.TargetList = append(top.TargetList, target(c.Name, colRef(alias, s.Columns[i].Name)))
	}
	top.FromClause = []*pg.Node{p.addSource(recvText(s, alias, s.Columns))}
	setSelect(lv.sel, top)
	return nil
}

// describedSlice is a slice whose columns are those of sel.
func (p *planner) describedSlice(sel *pg.SelectStmt) (*Slice, error) {
	cols, err := p.describe(sel)
	if err != nil {
		return nil, err
	}
	for i, c := range cols {
		if typ, asText := typeFit(c.Type); asText {
			return nil, errorf(codeUnsupported, "column %q of type %s cannot be gathered", c.Name, cols[i].Type)
		} else {
			cols[i].Type = typ
		}
	}
	return &Slice{Columns: cols}, nil
}
