package randomsql

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var groupingSets = regexp.MustCompile("group by (rollup|cube|grouping sets)")

var paramRef = regexp.MustCompile(`\$[0-9]+`)

// Query is a SELECT.
type Query struct {
	SQL     string
	Params  [][2]string // the values of its parameters $1, $2, …, each with its type
	Ordered bool        // its rows have a definite order
	Any     bool        // only the number of its rows is definite
	Segment bool        // it uses gp_segment_id
}

// Inline is the query with the values of its parameters in their places.
func (q Query) Inline() string { return inline(q.SQL, q.Params) }

func inline(sql string, params [][2]string) string {
	return paramRef.ReplaceAllStringFunc(sql, func(ref string) string {
		i, _ := strconv.Atoi(ref[1:])
		return "'" + params[i-1][0] + "'::" + params[i-1][1]
	})
}

// Query draws a whole query.
func (g *Generator) Query() Query {
	sql, ordered, any := g.query()
	// Only the parameters that have come into the query are given.
	var given [][2]string
	number := map[string]string{}
	sql = paramRef.ReplaceAllStringFunc(sql, func(ref string) string {
		if number[ref] == "" {
			i, _ := strconv.Atoi(ref[1:])
			given = append(given, g.params[i-1])
			number[ref] = fmt.Sprintf("$%d", len(given))
		}
		return number[ref]
	})
	return Query{SQL: sql, Params: given, Ordered: ordered, Any: any, Segment: g.used}
}

func (g *Generator) query() (sql string, ordered, any bool) {
	g.aliases, g.focus, g.params, g.used = 0, g.One(2), nil, false
	g.segment, g.counts = g.segments > 0 && g.One(8), g.One(6)
	g.chains = g.focus && (g.large && !g.One(5) || g.One(6))
	saved := g.tables
	defer func() { g.tables = saved }()
	with, shared := "", false
	if g.One(8) {
		name := "w" + g.alias()
		shared = g.One(2)
		body, kinds := "", []byte(nil)
		if shared {
			item, sc := g.grouped("x")
			body = item[1:strings.LastIndexByte(item, ')')]
			for _, c := range sc.cols {
				kinds = append(kinds, c.kind)
			}
		} else {
			body, kinds = g.rows(1)
		}
		var cols []column
		var list []string
		for i, k := range kinds {
			cols = append(cols, column{fmt.Sprintf("q%d", i+1), k})
			list = append(list, cols[i].ref)
		}
		g.tables = append(append([]Table(nil), g.tables...), Table{Relation: Relation{Name: name}, cols: cols}, Table{Relation: Relation{Name: name}, cols: cols})
		with = "with " + name + "(" + strings.Join(list, ", ") + ") as (" + body + ") "
	}
	depth := g.N(3)
	if g.focus {
		depth = 0
	}
	var body string
	var kinds []byte
	if shared {
		body, kinds = g.twice(g.tables[len(g.tables)-1])
	} else {
		body, kinds = g.sel(nil, depth)
	}
	if g.One(8) {
		body, kinds = g.setOp(nil, min(depth, 1), 2)
	}
	if g.One(6) {
		body = "select * from (" + body + ") z"
	}
	how := g.N(5)
	if strings.Contains(body, " where ") && groupingSets.MatchString(body) {
		how = 2 // PostgreSQL does not sort by what WHERE makes the same, NULL though it be in some sets
	}
	switch how {
	case 4:
		if len(kinds) > 0 && g.One(3) {
			body += fmt.Sprintf(" order by %d%s fetch first %d rows with ties", 1+g.N(len(kinds)), g.pick("", " desc nulls last"), g.N(6))
		}
	case 0:
		var keys []string
		for i := range kinds {
			keys = append(keys, fmt.Sprintf("%d%s", i+1, g.pick("", " desc", " nulls first", " desc nulls last")))
		}
		body += " order by " + strings.Join(keys, ", ")
		ordered = true
		if g.One(2) {
			body += fmt.Sprintf(" limit %d", g.N(12))
			if g.One(2) {
				body += fmt.Sprintf(" offset %d", g.N(5))
			}
		}
	case 1:
		if g.One(3) {
			body += fmt.Sprintf(" limit %d", g.N(20))
			any = true
		}
	}
	return with + body, ordered, any
}
