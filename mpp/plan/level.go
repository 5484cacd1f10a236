package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// level is one SELECT of a statement: one arm of a set operation, or the set
// operation itself.
type level struct {
	sel    *pg.SelectStmt
	parent *level
	scope  *scope
	arms   [2]*level // of a set operation
	items  []*fromItem
	rtes   []*rte // leaves, in order
	joins  []*rte // aliased joins
	refs   []*ref // of this level's own clauses
	stars  []star
	subs   []*level // levels directly below, wherever they stand
	with   []*withQuery
	calls  []call // of functions, but in FROM

	fromCalls []call

	locks  []Lock // tables of which it locks rows
	locked bool   // a slice does

	sublinks int       // sub-selects in expressions
	links    []sublink // those of them that are understood
	kept     []*level  // of an island: those that are left to the coordinator
	outer    bool      // refers to a level above, itself or below it
	segments bool      // no FROM, calls a function that runs on all segments
	exists   bool      // in EXISTS: one row is enough
	outs     []string  // result column names
	vals     []outVal  // what they are, in the same order
	known    bool      // outs is complete

	implied map[*rte][]implied // see impliedBy; nil: not looked for
}

// outVal is what a result column is: an expression or a column that a star
// shows.
type outVal struct {
	expr *pg.Node
	star *starCol
}

// call is a function call and the node that holds it.
type call struct {
	node *pg.Node
	fn   *pg.FuncCall
}

// star is a * or t.* that stands for several columns.
type star struct {
	list *[]*pg.Node // where it stands
	node *pg.Node    // the element of list
	// val is the node with the ColumnRef: node itself or its ResTarget's.
	val   *pg.Node
	items []*fromItem // of the level, for *
	rte   *rte        // for t.*
}

// eachLevel calls fn for lv and all levels below it, parents first; fn's false
// leaves out what is below.
func (lv *level) each(fn func(*level) bool) {
	if !fn(lv) {
		return
	}
	for _, s := range lv.subs {
		s.each(fn)
	}
}
