package session

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// functionSources is what is known of the database's functions and tables.
type functionSources struct {
	// Texts of functions, aggregates and views by name: of all of the name.
	Texts  map[string]string
	Tables []sourceTable
	// hidden are functions that are called without being named: see
	// gp_hidden_calls.
	hidden map[string][]string
}

// sourceTable is a distributed table.
type sourceTable struct {
	OID          uint32
	Schema, Name string
	Plain        bool     // not partitioned, nor a partition
	Parents      []uint32 // that it inherits from
	// hide: rows of an inheriting table would not do, as a function asks for
	// the table a row is of, or for the rows of this one only.
	hide bool
}

// functionReads is what the functions that a statement calls on the
// coordinator may read there.
type functionReads struct {
	calls  bool // it calls functions of the user's, or such as run SQL
	text   string
	bodies string // of them, text without what the statement says itself
	tables []sourceTable
}

var (
	word     = regexp.MustCompile(`[\pL_][\pL\pN_$]*`)
	onlyWord = regexp.MustCompile(`(?i)\b(?:from|join)\s+only[\s(]+(?:[\pL\pN_$"]+\s*\.\s*)?"?([\pL_][\pL\pN_$]*)`)
	// ONLY before a name that is not there yet
	onlyAny = regexp.MustCompile(`(?i)\b(?:from|join)\s+only[\s(]*(?:['%|$\\]|$)`)
)

// runsSQL are PostgreSQL's own functions that run a query they are given.
var runsSQL = map[string]bool{
	"query_to_xml": true, "query_to_xml_and_xmlschema": true, "table_to_xml": true, "table_to_xml_and_xmlschema": true,
	"schema_to_xml": true, "schema_to_xml_and_xmlschema": true, "database_to_xml": true, "database_to_xml_and_xmlschema": true,
	"cursor_to_xml": true, "ts_stat": true, "ts_rewrite": true,
}

// implied are operators that a statement may use without naming them.
var implied = []string{"=", "<>", "<", "<=", ">", ">="}

// maxViews bounds views of views; PostgreSQL refuses circles itself.
const maxViews = 50

// callFinder collects what a statement calls.
type callFinder struct {
	s       *Session
	names   map[string]bool // functions that are not PostgreSQL's own
	ops     map[string]bool
	strings []string // constants
	sql     bool     // a function that runs SQL is called
	typed   bool     // operators, casts or tables of the user's may be used
	seen    map[uint32]bool
	err     error
}

func (f *callFinder) look(n *pg.Node, depth int) {
	visit(n.ProtoReflect(), func(n *pg.Node) bool {
		switch v := n.Node.(type) {
		case *pg.Node_FuncCall:
			f.function(v.FuncCall)
		case *pg.Node_AExpr:
			f.operator(v.AExpr.Name)
		case *pg.Node_SubLink:
			f.operator(v.SubLink.OperName)
		case *pg.Node_SortBy:
			f.operator(v.SortBy.UseOp)
		case *pg.Node_TypeCast:
			f.typed = true
		case *pg.Node_AConst:
			if c := v.AConst.GetSval(); c != nil {
				f.strings = append(f.strings, c.Sval)
			}
		case *pg.Node_DoStmt:
			f.sql = true
			for _, a := range v.DoStmt.Args {
				if e := a.GetDefElem(); e.GetDefname() == "as" {
					f.strings = append(f.strings, e.Arg.GetString_().GetSval())
				}
			}
		case *pg.Node_CallStmt:
			f.sql = true
			f.function(v.CallStmt.Funccall) // not a node of its own
		}
		return f.err == nil
	})
	if depth > maxViews {
		return
	}
	for _, name := range plan.Relations(n) {
		r, err := f.s.relation(name.Schema, name.Name)
		if err != nil {
			f.err = err
			return
		}
		if r == nil || r.Schema == "pg_catalog" || r.Schema == "information_schema" {
			continue
		}
		f.typed = true
		if r.Kind != 'v' || r.ViewDef == "" || f.seen[r.OID] {
			continue
		}
		f.seen[r.OID] = true
		if def, err := parseOne(r.ViewDef); err == nil {
			f.look(def, depth+1)
		}
	}
}

func (f *callFinder) function(call *pg.FuncCall) {
	name := call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
	known, err := (planCatalog{s: f.s}).Function("", name)
	if err != nil {
		f.err = err
	}
	if known.Found && !known.Builtin {
		f.names[name] = true
	}
	f.sql = f.sql || runsSQL[name]
}

func (f *callFinder) operator(name []*pg.Node) {
	if len(name) > 0 {
		f.typed = true
		f.ops[name[len(name)-1].GetString_().GetSval()] = true
	}
}

// functionReads finds what a statement may call on the coordinator, and which
// distributed tables that may read, as far as texts tell: those of functions,
// and the statement's own constants and parameters. It asks the local server
// nothing when nothing of the user's can be called.
func (s *Session) functionReads(n *pg.Node, params []dispatch.Param) (*functionReads, error) {
	f := &callFinder{s: s, names: map[string]bool{}, ops: map[string]bool{}, seen: map[uint32]bool{}}
	f.look(n, 0)
	r := &functionReads{}
	if f.err != nil || !f.sql && !f.typed && len(f.names) == 0 {
		return r, f.err
	}
	src, err := s.functionSources(f.sql || len(f.names) > 0)
	if err != nil {
		return nil, err
	}
	called := src.hidden[""]
	for _, op := range implied {
		called = append(called[:len(called):len(called)], src.hidden[op]...)
	}
	for op := range f.ops {
		called = append(called[:len(called):len(called)], src.hidden[op]...)
	}
	if len(called) > 0 && src.Texts == nil {
		if src, err = s.functionSources(true); err != nil {
			return nil, err
		}
	}
	for name := range f.names {
		if _, ok := src.Texts[name]; ok { // not one of the cluster's own
			called = append(called[:len(called):len(called)], name)
		}
	}
	if !f.sql && len(called) == 0 {
		return r, nil
	}
	r.calls = true
	called = called[:len(called):len(called)]
	for _, p := range params {
		if p.Value != nil && utf8.Valid(p.Value) {
			called = append(called, string(p.Value))
		}
	}
	called = append(called, f.strings...)
	r.follow(src, strings.Join(called, "\n"))
	more := len(called)
	for op, names := range src.hidden { // that the functions use
		if strings.Contains(r.text, op) {
			called = append(called, names...)
		}
	}
	if len(called) > more {
		r.follow(src, strings.Join(called, "\n"))
	}
	return r, nil
}

// refuseReading reports sub-selects and functions in what segments evaluate by
// themselves, when they may read distributed tables: each segment has some of the rows.
func (s *Session) refuseReading(clauses proto.Message, hint string) (err error) {
	visit(clauses.ProtoReflect(), func(n *pg.Node) bool {
		if l := n.GetSubLink(); l != nil && err == nil {
			reads := false
			if reads, err = s.readsDistributed(l.Subselect, 0); reads {
				e := sqlError("0A000", "a sub-select that segments evaluate cannot read distributed tables")
				e.Hint = hint
				err = e
			}
		}
		call := n.GetFuncCall()
		if call == nil || err != nil {
			return err == nil
		}
		name := call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
		known, ferr := (planCatalog{s: s}).Function("", name)
		if err = ferr; err != nil || !known.Found || known.Builtin {
			return err == nil
		}
		reads := false
		if reads, err = s.mayReadTables(name); reads {
			e := sqlError("0A000", "function %s cannot be called on a segment: it may read distributed tables", name)
			e.Hint = hint
			err = e
		}
		return err == nil
	})
	return err
}

// readsDistributed says whether a query names tables whose rows are spread over the
// segments, or views of such.
func (s *Session) readsDistributed(n *pg.Node, depth int) (bool, error) {
	for _, name := range plan.Relations(n) {
		r, err := s.relation(name.Schema, name.Name)
		switch {
		case err != nil:
			return false, err
		case r == nil:
		case r.Policy != nil && r.Policy.Kind != plan.Replicated:
			return true, nil
		case r.ViewDef != "" && depth < maxViews:
			def, err := parseOne(r.ViewDef)
			if err != nil {
				return false, err
			}
			if reads, err := s.readsDistributed(def, depth+1); reads || err != nil {
				return reads, err
			}
		}
	}
	return false, nil
}

// mayReadTables says whether the functions of a name may read distributed
// tables, as far as their texts tell.
func (s *Session) mayReadTables(name string) (bool, error) {
	src, err := s.functionSources(true)
	if err != nil {
		return false, err
	}
	if src.Texts[name] == "" {
		return false, nil // in C, or the cluster's own
	}
	r := &functionReads{}
	r.follow(src, name)
	return len(r.tables) > 0 || runsText.MatchString(r.text), nil
}

// runsText finds functions that run SQL that their text does not show.
var runsText = regexp.MustCompile(`(?i)\bexecute\b|\bspi_`)

// functionSources reads what is known of functions, with the texts when they
// are wanted.
func (s *Session) functionSources(texts bool) (*functionSources, error) {
	src := s.cache.sources
	if src == nil {
		src = &functionSources{}
		var err error
		if src.hidden, err = s.hiddenCalls(); err != nil {
			return nil, err
		}
		s.cache.sources = src
	}
	if texts && src.Texts == nil {
		res, err := s.local("SELECT pg_catalog.gp_function_sources()")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(res.value(), src); err != nil {
			return nil, err
		}
	}
	return src, nil
}

// hiddenCalls is what gp_hidden_calls says of each database. Sessions share
// it, so that one of them asks when the catalog has changed.
type hiddenCalls struct {
	mu sync.Mutex
	m  map[string]hiddenEntry
}

type hiddenEntry struct {
	tick  uint64
	calls map[string][]string
}

func (s *Session) hiddenCalls() (map[string][]string, error) {
	h := &s.srv.hidden
	h.mu.Lock()
	e, ok := h.m[s.client.Database]
	h.mu.Unlock()
	if ok && e.tick == s.cache.tick && !s.txn.ddl {
		return e.calls, nil
	}
	res, err := s.local("SELECT pg_catalog.gp_hidden_calls()")
	if err != nil {
		return nil, err
	}
	e = hiddenEntry{tick: s.cache.tick}
	if err := json.Unmarshal(res.value(), &e.calls); err != nil || s.txn.ddl {
		return e.calls, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = map[string]hiddenEntry{}
	}
	h.m[s.client.Database] = e
	return e.calls, nil
}

// follow follows the words of a text through the functions and views that it
// names, to tables.
func (r *functionReads) follow(src *functionSources, text string) {
	seen := map[string]bool{}
	var texts strings.Builder
	var step func(text string)
	step = func(text string) {
		texts.WriteString(text + "\n")
		for _, w := range word.FindAllString(text, -1) {
			for _, name := range []string{w, strings.ToLower(w)} {
				if seen[name] {
					continue
				}
				seen[name] = true
				if body, ok := src.Texts[name]; ok {
					step(body)
				}
			}
		}
	}
	step(text)
	r.text, r.tables = texts.String(), nil
	r.bodies = r.text[len(text):]
	hide := seen["tableoid"] || onlyAny.MatchString(r.text)
	only := map[string]bool{}
	for _, m := range onlyWord.FindAllStringSubmatch(r.text, -1) {
		only[m[1]], only[strings.ToLower(m[1])] = true, true
	}
	named := map[uint32]bool{}
	for _, t := range src.Tables {
		odd := word.FindString(t.Name) != t.Name
		named[t.OID] = (seen[t.Name] || odd && strings.Contains(r.text, t.Name))
	}
	// A parent is read with its children.
	parent := map[uint32]bool{}
	for more := true; more; {
		more = false
		for _, t := range src.Tables {
			for _, p := range t.Parents {
				parent[p] = parent[p] || t.Plain
				if t.Plain && named[p] && !named[t.OID] {
					named[t.OID], more = true, true
				}
			}
		}
	}
	for _, t := range src.Tables {
		t.hide = hide || only[t.Name] || !t.Plain
		if named[t.OID] && !(t.hide && parent[t.OID]) {
			r.tables = append(r.tables, t)
		}
	}
}

var endsTransaction = regexp.MustCompile(`(?i)\b(commit|rollback)\b`)

// endsTransactions says whether what is called may end transactions, as far as
// texts tell.
func (r *functionReads) endsTransactions() bool { return endsTransaction.MatchString(r.text) }

// setsParameter finds SET, RESET and DISCARD at the beginning of a statement, or
// of a line, where an UPDATE's is a false alarm; and set_config.
var setsParameter = regexp.MustCompile(`(?im)\bset_config\b|(?:^|[;'"$]|\b(?:begin|then|else|loop|execute|do)\b)(?:\s|--.*\n)*(?:set|reset|discard)\s`)

// setsParameters says whether what is called may set parameters of the session,
// as far as texts tell.
func (r *functionReads) setsParameters() bool { return setsParameter.MatchString(r.text) }

// lockingClause finds FOR UPDATE and its kin.
var lockingClause = regexp.MustCompile(`(?i)\bfor\s+(?:no\s+key\s+update|update|key\s+share|share)\b`)

// locksRows says whether what is called may lock rows, as far as texts tell.
func (r *functionReads) locksRows() bool { return lockingClause.MatchString(r.bodies) }
