package querybench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/internal/tpch"
	"github.com/trunkline-db/trunkline/topology"
)

// Types are the interconnect types.
var Types = []string{"udpifc", "tcp", "proxy"}

// Plain is the single PostgreSQL server that the types are compared with.
const Plain = "plain"

// Limits of the options.
const (
	minSegments = 2
	maxSegments = 16
	maxRounds   = 100
	minLimit    = 100 * time.Millisecond
)

// Options are what to measure. [Options.Fill] puts the defaults in.
type Options struct {
	Scale    float64 // factor of TPC-H; 1 is 8.7 million rows
	Segments int
	Types    []string // of Types
	Queries  []int    // numbers of the queries, from 1
	Rounds   int
	Limit    time.Duration // of a query
	Indexes  bool          // on foreign keys, on both sides

	// Binary is the program that the instances run. Default: this one.
	Binary string
	// Bootstrap makes the catalog in an instance's databases; see
	// cluster.Options.
	Bootstrap func(ctx context.Context, inst topology.Instance, socketDir string) error
	// Progress is told what is going on, from one goroutine at a time. It may
	// be nil.
	Progress func(step string)
}

// Fill puts defaults where nothing is given.
func (o *Options) Fill() {
	if o.Scale == 0 {
		o.Scale = 1
	}
	if o.Segments == 0 {
		o.Segments = 3
	}
	if o.Types == nil {
		o.Types = slices.Clone(Types)
	}
	if o.Queries == nil {
		for n := range tpch.NumQueries {
			o.Queries = append(o.Queries, n+1)
		}
	}
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	if o.Limit == 0 {
		o.Limit = time.Minute
	}
}

// Check says what is wrong with filled options.
func (o *Options) Check() error {
	for _, t := range o.Types {
		if !slices.Contains(Types, t) {
			return fmt.Errorf("unknown interconnect type %q: use %s", t, strings.Join(Types, ", "))
		}
	}
	for _, n := range o.Queries {
		if n < 1 || n > tpch.NumQueries {
			return fmt.Errorf("there is no query %d: they go from 1 to %d", n, tpch.NumQueries)
		}
	}
	switch {
	case twice(o.Types):
		return errors.New("an interconnect type is given twice")
	case twice(o.Queries):
		return errors.New("a query is given twice")
	case o.Segments < minSegments || o.Segments > maxSegments:
		return fmt.Errorf("%d segments: use %d to %d", o.Segments, minSegments, maxSegments)
	case o.Rounds < 1 || o.Rounds > maxRounds:
		return fmt.Errorf("%d rounds: use 1 to %d", o.Rounds, maxRounds)
	case o.Limit < minLimit:
		return fmt.Errorf("a limit of %v: use %v or more", o.Limit, minLimit)
	}
	return tpch.CheckScale(o.Scale)
}

func twice[T int | string](list []T) bool {
	return len(slices.Compact(slices.Sorted(slices.Values(list)))) != len(list)
}
