package session

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// A function that runs on the coordinator reads the coordinator's copies of
// distributed tables, which are empty. So that it sees the rows, each table
// that its text names is shadowed by a temporary view over a row source for as
// long as the statement runs.

// functionSources is what is known of the database's functions and tables.
type functionSources struct {
	Functions map[string]string // text by name, of all functions of the name
	Tables    [][2]string       // schema and name of the distributed tables
}

var word = regexp.MustCompile(`[\pL_][\pL\pN_$]*`)

// functionTables returns the distributed tables that the functions a statement
// calls may read, as far as their text tells.
func (s *Session) functionTables(n *pg.Node) ([][2]string, error) {
	var calls []string
	var failed error
	visit(n.ProtoReflect(), func(n *pg.Node) bool {
		if f := n.GetFuncCall(); f != nil {
			name := f.Funcname[len(f.Funcname)-1].GetString_().GetSval()
			known, err := (planCatalog{s: s}).Function("", name)
			if err != nil {
				failed = err
			}
			if known.Found && !known.Builtin {
				calls = append(calls, name)
			}
		}
		return true
	})
	if d := n.GetDoStmt(); d != nil {
		for _, a := range d.Args {
			if e := a.GetDefElem(); e.GetDefname() == "as" {
				return s.tablesOf(e.Arg.GetString_().GetSval())
			}
		}
	}
	if failed != nil || len(calls) == 0 {
		return nil, failed
	}
	return s.tablesOf(strings.Join(calls, " "))
}

// tablesOf follows the words of a text through the functions it names.
func (s *Session) tablesOf(text string) ([][2]string, error) {
	if s.cache.sources == nil {
		res, err := s.local("SELECT pg_catalog.gp_function_sources()")
		if err != nil {
			return nil, err
		}
		src := &functionSources{}
		if err := json.Unmarshal(res.value(), src); err != nil {
			return nil, err
		}
		s.cache.sources = src
	}
	src := s.cache.sources
	seen := map[string]bool{}
	var texts strings.Builder
	var follow func(text string)
	follow = func(text string) {
		texts.WriteString(text + "\n")
		for _, w := range word.FindAllString(text, -1) {
			for _, name := range []string{w, strings.ToLower(w)} {
				if seen[name] {
					continue
				}
				seen[name] = true
				if body, ok := src.Functions[name]; ok {
					follow(body)
				}
			}
		}
	}
	follow(text)
	var tables [][2]string
	for _, t := range src.Tables {
		if !seen[t[1]] {
			continue
		}
		if q := regexp.MustCompile(`(?i)\b"?` + regexp.QuoteMeta(t[0]) + `"?\s*\.\s*"?` + regexp.QuoteMeta(t[1]) + `\b`); q.MatchString(texts.String()) {
			e := sqlError("0A000", "a function on the coordinator reads the distributed table \"%s.%s\" by its qualified name", t[0], t[1])
			e.Hint = "Name the table without its schema in the function, and have the schema in search_path."
			return nil, e
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// shadow makes the views. The returned function removes them; it must be
// called, with the statement's error, when the statement is over.
func (s *Session) shadow(ctx context.Context, n *pg.Node) (func(error) error, error) {
	none := func(err error) error { return err }
	tables, err := s.functionTables(n)
	if err != nil || len(tables) == 0 {
		return none, err
	}
	implicit := s.link.status == 'I'
	if implicit {
		if err := s.beginImplicit(); err != nil {
			return none, err
		}
	}
	var slices []plan.Slice
	var create, drop strings.Builder
	for _, t := range tables {
		r, err := s.relation("", t[1])
		if err != nil {
			return none, err
		}
		if r == nil || r.Policy == nil || r.Schema != t[0] {
			continue // the name means something else here
		}
		query, err := parseOne("SELECT * FROM " + r.name())
		if err != nil {
			return none, err
		}
		sql, sl, _, err := s.topOf(query, nil)
		if err != nil {
			return none, err
		}
		slices = append(slices, sl...)
		fmt.Fprintf(&create, "CREATE TEMP VIEW %s AS %s;", ident(r.Name), sql)
		fmt.Fprintf(&drop, "DROP VIEW pg_temp.%s;", ident(r.Name))
	}
	if len(slices) == 0 {
		return none, nil
	}
	set, err := s.openSources(ctx, slices, nil)
	if err != nil {
		return none, err
	}
	// A function may read a table more than once.
	if err := set.settle(); err != nil {
		_ = set.close()
		return none, err
	}
	// Plans that functions have kept still mean the tables.
	if _, err := s.local(create.String() + "DISCARD PLANS"); err != nil {
		_ = set.close()
		return none, err
	}
	return func(err error) error {
		if cerr := set.close(); err == nil {
			err = cerr
		}
		if s.link.status == 'T' && err == nil {
			if _, derr := s.local(drop.String() + "DISCARD PLANS"); derr != nil {
				return derr
			}
		}
		return err
	}, nil
}
