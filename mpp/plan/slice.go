package plan

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// planner makes the plan of one statement.
type planner struct {
	look      *lookup
	opt       Options
	slices    []Slice
	inputs    []input // of islands, see move
	moves     map[*rte]*move
	with      map[*withQuery]int     // those that segments have, the first so many
	undo      []func()               // see cutGroups
	firsts    map[string]*firstStage // by what stands for them in a tree
	plain     bool                   // joins are made in one slice, see cutJoin
	cutsJoins bool                   // some are not, in the level that is planned
	marks     int
	sources   []source
	salt      string // keeps the marks of sources apart from the user's names
	reason    string
	read      *Read                  // of the slice that is being made
	direct    bool                   // the one slice's rows go to the client
	gathered  *shape                 // of the island whose rows they are
	telling   func() (string, error) // see Query
	whole     bool                   // the outermost level is an island
	values    map[string]string      // what opt.Eval said
	// describing: the text of a slice is only to be described, and should be
	// the same whenever the query is planned.
	describing bool
	large      []largeSource
	finer      bool // see aggregateDistinct
	folded     *level
	fold       []Fold // of folded; see Query.Fold
}

// because notes why something was not pushed down; the first reason stays.
func (p *planner) because(reason string) {
	if p.reason == "" {
		p.reason = reason
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// tempSchema is how every session calls the schema of its temporary tables.
const tempSchema = "pg_temp"

// relSchema is the schema to name a relation by on any instance.
func relSchema(rel *Relation) string {
	if rel.Temp {
		return tempSchema
	}
	return rel.Schema
}

// scanned is a FROM item of a slice.
type scanned struct {
	node  *pg.Node
	alias string
}

// scanItem is the FROM item that reads a base table on a segment, under the
// names the query knows it by.
func (p *planner) scanItem(r *rte) *pg.Node {
	if r.owner != "" {
		if n, err := p.ownerItem(r); err == nil {
			return n
		}
	}
	return p.tableItem(r).node
}

// tableItem is scanItem with the rights of whoever runs it.
func (p *planner) tableItem(r *rte) scanned {
	var rv *pg.RangeVar
	if r.random {
		rv = &pg.RangeVar{Relname: r.rel.Name, Inh: true, Relpersistence: "p", Location: -1}
		if r.fn.Alias != nil {
			rv.Alias = proto.CloneOf(r.fn.Alias)
		}
	} else {
		rv = proto.CloneOf(r.rv)
	}
	rv.Catalogname, rv.Schemaname, rv.Relname = "", relSchema(r.rel), r.rel.Name
	if rv.Alias == nil && r.alias != r.rel.Name {
		rv.Alias = &pg.Alias{Aliasname: r.alias}
	}
	s := scanned{alias: r.alias}
	s.node = &pg.Node{Node: &pg.Node_RangeVar{RangeVar: rv}}
	if r.sample != nil {
		t := proto.CloneOf(r.sample)
		t.Relation = s.node
		s.node = &pg.Node{Node: &pg.Node_RangeTableSample{RangeTableSample: t}}
	}
	return s
}

// segments are the segments that have rows of a base table, nil for all.
func (p *planner) segments(r *rte) []int {
	if r.random || r.rel.Policy == nil {
		return nil
	}
	n := r.rel.Policy.NumSegments
	if n <= 0 || n > p.opt.NumSegments {
		n = p.opt.NumSegments
	}
	if r.rel.Policy.Kind == Replicated {
		return []int{p.opt.Replica % n}
	}
	if n == p.opt.NumSegments {
		return nil
	}
	return firstSegments(n)
}

func firstSegments(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// addSlice writes sel as the SQL of s, gives it a token and adds it to the
// plan.
func (p *planner) addSlice(s *Slice, sel *pg.SelectStmt) error {
	if err := p.sliceOf(s, sel); err != nil {
		return err
	}
	p.slices = append(p.slices, *s)
	return nil
}

// sliceOf writes sel as the SQL of s and gives it a token.
func (p *planner) sliceOf(s *Slice, sel *pg.SelectStmt) error {
	sql, params, err := p.sliceSQL(selectNode(sel))
	if err != nil {
		return err
	}
	if p.read != nil && strings.Contains(sql, p.read.source(len(params)+1)) {
		s.Read = p.read
	}
	p.read = nil
	s.SQL, s.Params, s.Token, s.To = sql, params, p.opt.Token(), -1
	s.LocksRows = locking(sel)
	return p.noteTables(s, sel)
}

// noteTables notes what sel, the SQL of s, reads.
func (p *planner) noteTables(s *Slice, sel *pg.SelectStmt) error {
	names := Relations(selectNode(sel))
	if s.Read != nil {
		names = append(names, Name{s.Read.Schema, s.Read.Table})
	}
	for _, name := range names {
		switch name.Schema {
		case "": // a source of rows
		case tempSchema:
			s.Temp = true
		default:
			rel, err := p.look.relation(name.Schema, name.Name)
			if err != nil {
				return err
			}
			if rel != nil && !slices.Contains(s.Tables, rel) {
				s.Tables, s.Temp = append(s.Tables, rel), s.Temp || rel.TempChildren
			}
		}
	}
	return nil
}

// typeMark stands for a type name that is text.
const typeMark = "?gptype"

// sliceSQL writes a slice's statement: its parameters get numbers of their own
// and their types, the time of the statement its value. It changes n.
func (p *planner) sliceSQL(n *pg.Node) (sql string, params []int, err error) {
	readOnce(n)
	again := inExists(n)
	for _, m := range p.moves {
		m.slice.Again = m.slice.Again || slices.Contains(again, m.mark)
	}
	seen := map[*pg.ParamRef]bool{}
	walk(n, func(m any) bool {
		n, ok := m.(*pg.Node)
		if !ok || err != nil {
			return err == nil
		}
		if typ, ok := statementTime(n); ok {
			var value string
			if value, err = p.evaluate(n); err == nil {
				n.Node = cast(pg.MakeAConstStrNode(value, -1), typ).Node
			}
			return false
		}
		ref := n.GetParamRef()
		if ref == nil || seen[ref] {
			return true
		}
		i := slices.Index(params, int(ref.Number))
		if i < 0 {
			i = len(params)
			params = append(params, int(ref.Number))
		}
		own := &pg.ParamRef{Number: int32(i + 1), Location: -1}
		seen[own] = true
		typ := &pg.TypeName{Names: names(typeMark + itoa(int(ref.Number)) + "?"), Typemod: -1, Location: -1}
		n.Node = castTo(&pg.Node{Node: &pg.Node_ParamRef{ParamRef: own}}, typ).Node
		return true
	})
	if err != nil {
		return "", nil, err
	}
	sql, err = p.spell(n, params)
	return sql, params, err
}

// spell writes a statement that sliceSQL has changed.
func (p *planner) spell(n *pg.Node, params []int) (string, error) {
	sql, err := Deparse(n)
	if err != nil {
		return "", err
	}
	for _, num := range params {
		sql = strings.ReplaceAll(sql, quote(typeMark+itoa(num)+"?"), p.opt.ParamTypes[num-1])
	}
	if p.read != nil {
		sql = strings.Replace(sql, quote(p.readMark()), p.read.source(len(params)+1), 1)
	}
	return p.moved(sql), nil
}

// typed says whether the type of parameter $n is known.
func (p *planner) typed(n int32) bool {
	return n >= 1 && int(n) <= len(p.opt.ParamTypes) && p.opt.ParamTypes[n-1] != ""
}

// statementTime says whether n is the same for the whole statement but not on
// every instance, the time or the user, and its type.
func statementTime(n *pg.Node) (typ string, ok bool) {
	if f := n.GetFuncCall(); f != nil {
		schema, name := funcName(f)
		if len(f.Args) > 0 || f.AggStar || f.Over != nil || schema != "" && schema != "pg_catalog" {
			return "", false
		}
		switch name {
		case "now", "transaction_timestamp":
			return "timestamptz", true
		case "current_database":
			return "name", true
		}
	}
	if v := n.GetSqlvalueFunction(); v != nil {
		switch v.Op {
		case pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE:
			return "date", true
		case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N:
			return "timestamptz", true
		case pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP, pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:
			return "timestamp", true
		case pg.SQLValueFunctionOp_SVFOP_CURRENT_USER, pg.SQLValueFunctionOp_SVFOP_USER, pg.SQLValueFunctionOp_SVFOP_CURRENT_ROLE,
			pg.SQLValueFunctionOp_SVFOP_SESSION_USER:
			return "name", true
		}
	}
	return "", false
}

// evaluate asks for the value of a statementTime, each once.
func (p *planner) evaluate(n *pg.Node) (string, error) {
	sel := newSelect()
	sel.TargetList = []*pg.Node{target("", proto.CloneOf(n))}
	sql, err := deparseSelect(sel)
	if err != nil {
		return "", err
	}
	if v, ok := p.values[sql]; ok {
		return v, nil
	}
	v, err := p.opt.Eval(sql)
	if err != nil {
		return "", err
	}
	if p.values == nil {
		p.values = map[string]string{}
	}
	p.values[sql] = v
	return v, nil
}
