package execute

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestParseOnce wants a slice's SQL to be parsed again exactly when PostgreSQL's
// unnamed statement may be another by now, or may mean something else.
func TestParseOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &session{}
		parses := func(prepared uint64, sql string, change ...func(*Command)) bool {
			c := &Command{Op: OpOpen, Slices: []Slice{{Index: 1, SQL: sql, Prepared: prepared}}}
			m := &pgproto3.Parse{Query: sql}
			for _, f := range change {
				f(c)
			}
			for _, p := range c.Slices[0].Params {
				m.ParameterOIDs = append(m.ParameterOIDs, p.OID)
			}
			return len(q.appendParse(nil, c, m)) > 0
		}
		for i, step := range []struct {
			what     string
			prepared uint64
			sql      string
			change   func(*Command)
			wait     time.Duration
			want     bool
		}{
			{what: "first", prepared: 1, sql: "SELECT 1", want: true},
			{what: "again", prepared: 1, sql: "SELECT 1"},
			{what: "and again", prepared: 1, sql: "SELECT 1"},
			{what: "another catalog", prepared: 2, sql: "SELECT 1", want: true},
			{what: "another text", prepared: 2, sql: "SELECT 2", want: true},
			{what: "the first again", prepared: 2, sql: "SELECT 1", want: true},
			{what: "after a while", prepared: 2, sql: "SELECT 1", wait: parsedAge, want: true},
			{what: "a parameter", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Slices[0].Params = []Param{{OID: 23}} }, want: true},
			{what: "of another type", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Slices[0].Params = []Param{{OID: 25}} }, want: true},
			{what: "of the same type", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Slices[0].Params = []Param{{OID: 25}} }},
			{what: "behind BEGIN", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Begin = "BEGIN" }, want: true},
			{what: "which had been parsed", prepared: 2, sql: "SELECT 1", want: true},
			{what: "one of two", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Slices = append(c.Slices, c.Slices[0]) }, want: true},
			{what: "of no known catalog", sql: "SELECT 1", want: true},
			{what: "of no known catalog again", sql: "SELECT 1", want: true},
			{what: "with an input", prepared: 2, sql: "SELECT 1", change: func(c *Command) { c.Slices[0].Inputs = []Input{{Slice: 2}} }, want: true},
			{what: "alone", prepared: 2, sql: "SELECT 1", want: true},
			{what: "alone again", prepared: 2, sql: "SELECT 1"},
		} {
			time.Sleep(step.wait)
			change := step.change
			if change == nil {
				change = func(*Command) {}
			}
			if got := parses(step.prepared, step.sql, change); got != step.want {
				t.Errorf("%d, %s: parsed %v, want %v", i, step.what, got, step.want)
			}
		}
	})
}
