package guc

import (
	"strconv"
	"strings"
)

// Kind is the type of a parameter's value.
type Kind int

// The kinds, in PostgreSQL's order.
const (
	Bool Kind = iota
	Int
	Real
	String
	Enum
)

var kindNames = [...]string{"bool", "integer", "real", "string", "enum"}

// String is the kind as pg_settings.vartype has it.
func (k Kind) String() string { return kindNames[k] }

// Context says when and by whom a parameter can be changed.
type Context int

// The contexts, from never to any time.
const (
	Internal   Context = iota // never, it states a fact
	Postmaster                // file and restart
	Sighup                    // file and reload
	Backend                   // file and reload for new sessions, or at the start of a connection
	Suset                     // a superuser, any time
	Userset                   // anyone, any time
)

var contextNames = [...]string{"internal", "postmaster", "sighup", "backend", "superuser", "user"}

// String is the context as pg_settings.context has it.
func (c Context) String() string { return contextNames[c] }

// Parameter is one row of the table, which must not be changed. One made by
// hand from a row of pg_settings parses values of PostgreSQL's own parameters.
type Parameter struct {
	Name     string // lower case
	Type     Kind
	Unit     string   // of Int and Real, as pg_settings.unit: "", "kB", "8kB", "ms", "s" and so on
	Min, Max float64  // of Int and Real, inclusive
	Enum     []string // of Enum, in the order in which a hint lists them
	Default  string   // canonical
	Context  Context
	Hidden   bool // not in SHOW ALL nor pg_settings, and no gpconfig without --skipvalidation in Greenplum
	// NoSync: dispatchers do not pass it on to executors, each instance obeys
	// its own postgresql.conf (facts 1.0).
	NoSync   bool
	Short    string
	Long     string // may be empty
	Category string // as pg_settings.category
	// check refuses a String value, by a detail for the error; may be nil.
	check func(string) error
}

// Lookup finds a parameter by its name in any case.
func Lookup(name string) (*Parameter, bool) {
	p, ok := byName[strings.ToLower(name)]
	return p, ok
}

// All is the whole table, sorted by name. Do not change it.
func All() []*Parameter { return sorted }

// MinText is the least value as pg_settings.min_val shows it, "" where there
// is none.
func (p *Parameter) MinText() string { return p.limit(p.Min) }

// MaxText is the greatest value as pg_settings.max_val shows it.
func (p *Parameter) MaxText() string { return p.limit(p.Max) }

func (p *Parameter) limit(v float64) string {
	switch p.Type {
	case Int:
		return strconv.FormatInt(int64(v), 10)
	case Real:
		return strconv.FormatFloat(v, 'g', 6, 64)
	default:
		return ""
	}
}

// Bool reads a canonical value of a Bool parameter.
func (p *Parameter) Bool(canonical string) bool { return canonical == "on" }

// Int reads a canonical value of an Int parameter, in the parameter's unit.
func (p *Parameter) Int(canonical string) int {
	n, err := strconv.Atoi(canonical)
	if err != nil {
		panic("guc: " + p.Name + ": " + strconv.Quote(canonical) + " is not a canonical value")
	}
	return n
}
