package randomsql

import (
	"fmt"

	"pgregory.net/rapid"
)

// Generator draws tables, and statements that use those it has been given. Like
// the rapid.T it draws from it is one goroutine's.
type Generator struct {
	t        *rapid.T
	segments int
	tables   []Table
	aliases  int
	// focus: base tables only and shallow expressions, so that most levels
	// can run on the segments.
	focus bool
	// params are the values of the query's parameters, with their types.
	params [][2]string
	// large: all tables are taken for large ones, of whose columns much is known.
	large bool
	// chains: what levels read are joins of tables, most by another column each.
	chains bool
	// counted is what most aggregates with DISTINCT of a level are of, "" where each
	// has its own.
	counted string
	// counts: the query is of levels that have one.
	counts bool
	// segment: the query may use gp_segment_id, and does when used says so.
	segment, used bool
}

// New makes a generator of statements over tables. segments is how many segments
// tables are drawn to lie on at most; with 0 nothing drawn has to do with them:
// no query uses gp_segment_id.
func New(t *rapid.T, segments int, tables ...Table) *Generator {
	return &Generator{t: t, segments: segments, tables: tables}
}

// Add makes a table or view known to the statements that are drawn from now on.
func (g *Generator) Add(t Table) { g.tables = append(g.tables, t) }

// Tables are those that statements are drawn over.
func (g *Generator) Tables() []Table { return g.tables }

// N draws a number from 0 to n-1. rapid prefers small ones, here all are as
// likely; what rapid shrinks to is 0 all the same.
func (g *Generator) N(n int) int {
	x := rapid.Uint64().Draw(g.t, "n")
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return int(x % uint64(n))
}

// One is true once in n times.
func (g *Generator) One(n int) bool { return g.N(n) == n-1 }

func (g *Generator) pick(of ...string) string { return of[g.N(len(of))] }

func (g *Generator) alias() string {
	g.aliases++
	return fmt.Sprintf("x%d", g.aliases)
}
