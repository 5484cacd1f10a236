package plan

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// A source is written into the tree as a table of a peculiar name, and put
// into the text that the deparser makes of the tree: a row source's column
// types are text that PostgreSQL made, not a tree.

// source is a row source of the coordinator's statement.
type source struct {
	mark string // the table name that stands for it
	text string
}

// wholeRow is the column of a source that holds the row as a value of its
// table's type.
const wholeRow = "?row"

// dummyColumn is the column of a source of which nothing but the number of
// rows is wanted.
const dummyColumn = "?"

// recvFunction is the row source function for about that many rows: the nearest
// power of ten there is, and one hundred for few.
func recvFunction(rows float64) string {
	switch {
	case rows >= 3e6:
		return "gp_motion_recv_7"
	case rows >= 3e5:
		return "gp_motion_recv_6"
	case rows >= 3e4:
		return "gp_motion_recv_5"
	case rows >= 3e3:
		return "gp_motion_recv_4"
	case rows >= 3e2:
		return "gp_motion_recv_3"
	case rows > 0:
		return "gp_motion_recv_2"
	}
	return "gp_motion_recv"
}

// recvText is the FROM item that reads a slice, under an alias.
func recvText(s *Slice, alias string, cols []Column) string {
	return fmt.Sprintf("pg_catalog.%s('gp_motion', %s) AS %s(%s)", recvFunction(s.Rows), literal(s.Token), quote(alias), columnDefs(cols))
}

// RowSource is the FROM item that reads a slice, under an alias: in portions, to which
// end the slice must be Large, or whole.
func RowSource(s *Slice, alias string, cols []Column) string {
	if s.Large {
		return portionsText(s, alias, cols, inArrays(cols) && !modified(cols))
	}
	return recvText(s, alias, cols)
}

// Portions says whether so many rows are worth reading in portions.
func Portions(rows float64) bool { return rows >= portionRows }

// portionRows is how many rows a server has to receive to read them in portions: it
// costs some questions and a reader more, and is worth it when others can do something
// meanwhile. For fewer it makes queries slower (docs/performance.md).
const portionRows = 10_000

// portionsGuess is how many portions PostgreSQL takes there to be: a first, and ten
// for each of ten that it takes the recursive query to start with.
const portionsGuess = 100

// portionsText is recvText in portions: the first rows are there while the last are
// still to come. PostgreSQL keeps the names of the portions and asks for them once more
// when it reads the rows again. Inside the rows have the alias too, for where EXPLAIN
// knows no other; those of the portions are none of a user's. See rowsource.Source.
func portionsText(s *Slice, alias string, cols []Column, arrays bool) string {
	read := rowsText
	if arrays {
		read = arraysText
	}
	return fmt.Sprintf("(WITH RECURSIVE gp_portions(name) AS (SELECT %s UNION ALL SELECT \"?n\".name FROM gp_portions \"?p\", "+
		"LATERAL pg_catalog.gp_motion_recv_0('gp_motion', \"?p\".name || ' next') AS \"?n\"(name pg_catalog.text)) %s) AS %s",
		literal(s.Token+" 0"), read(quote(alias), cols, s.Rows/portionsGuess), quote(alias))
}

// rowsText reads the portions p, each of about so many rows, under an alias.
func rowsText(alias string, cols []Column, rows float64) string {
	return fmt.Sprintf("SELECT %[1]s.* FROM gp_portions \"?p\", LATERAL pg_catalog.%[2]s('gp_motion', \"?p\".name) AS %[1]s(%[3]s)",
		alias, recvFunction(rows), columnDefs(cols))
}

// arraysText is rowsText for portions that are one row each, which has an array of the
// values of each column.
func arraysText(alias string, cols []Column, rows float64) string {
	lists, items := slices.Clone(cols), make([]string, len(cols))
	for i, c := range cols {
		lists[i].Type += "[]"
		items[i] = "pg_catalog.unnest(" + alias + "." + quote(c.Name) + ") AS " + quote(c.Name)
	}
	rows /= arrayGuess
	recv := recvFunction(rows)
	if rows < 30 {
		recv = "gp_motion_recv_1"
	}
	return fmt.Sprintf("SELECT %[4]s FROM gp_portions \"?p\", LATERAL pg_catalog.%[2]s('gp_motion', \"?p\".name || ' columns') AS %[1]s(%[3]s)",
		alias, recv, columnDefs(lists), strings.Join(items, ", "))
}

// arrayGuess is how many elements PostgreSQL takes an array to have that it does not
// know.
const arrayGuess = 10

// inArrays says whether columns can be read as arrays of many values each, which takes
// PostgreSQL less than as many rows: their types are its own, with arrays whose elements
// a comma parts.
func inArrays(cols []Column) bool {
	return !slices.ContainsFunc(cols, func(c Column) bool { return !elementTypes[c.TypeOID] })
}

// modified says whether some of the columns' types have modifiers, such as numeric(10,2),
// which the elements of an array do not have any more: clients are told them.
func modified(cols []Column) bool {
	return slices.ContainsFunc(cols, func(c Column) bool {
		return strings.Contains(c.Type, "(") || strings.HasPrefix(c.Type, "interval ")
	})
}

// elementTypes are the types of columns that are read as arrays.
var elementTypes = map[uint32]bool{
	16: true, 17: true, 18: true, 19: true, 20: true, 21: true, 23: true, 25: true, 26: true, // bool bytea "char" name int8 int2 int4 text oid
	114: true, 700: true, 701: true, 790: true, 829: true, 869: true, 650: true, // json float4 float8 money macaddr inet cidr
	1042: true, 1043: true, 1082: true, 1083: true, 1114: true, 1184: true, 1186: true, 1266: true, // bpchar varchar date time timestamp timestamptz interval timetz
	1560: true, 1562: true, 1700: true, 2950: true, 3802: true, // bit varbit numeric uuid jsonb
}

// columnDefs is the column definition list of a function's rows.
func columnDefs(cols []Column) string {
	var b strings.Builder
	for i, c := range cols {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(c.Name) + " " + c.Type)
		if c.Collation != "" {
			b.WriteString(" COLLATE " + c.Collation)
		}
	}
	return b.String()
}

// recv is recvText for the coordinator's statement, which may read the slice in
// portions.
func (p *planner) recv(s *Slice, alias string, cols []Column) string {
	text := recvText(s, alias, cols)
	if s.Rows >= portionRows {
		p.large = append(p.large, largeSource{s.Token, text, portionsText(s, alias, cols, inArrays(cols) && !modified(cols))})
	}
	return text
}

// largeSource is what reads a slice of many rows, whole and in portions.
type largeSource struct{ token, whole, portions string }

// inPortions is the coordinator's statement with its large sources read in portions,
// and marks their slices; "" when there are none.
func (p *planner) inPortions(top string, slices []Slice) string {
	out := top
	for _, l := range p.large {
		if strings.Count(out, l.whole) != 1 {
			continue
		}
		out = strings.Replace(out, l.whole, l.portions, 1)
		for i := range slices {
			slices[i].Large = slices[i].Large || slices[i].Token == l.token
		}
	}
	if out == top {
		return ""
	}
	return out
}

// addSource notes a source and returns what stands for it in the tree.
func (p *planner) addSource(text string) *pg.Node {
	s := source{mark: fmt.Sprintf("?gp%s%d?", p.salt, len(p.sources)+1), text: text}
	p.sources = append(p.sources, s)
	return &pg.Node{Node: &pg.Node_RangeVar{RangeVar: &pg.RangeVar{
		Relname: s.mark, Inh: true, Relpersistence: "p", Location: -1}}}
}

// deparse writes a tree with its sources.
func (p *planner) deparse(n *pg.Node) (string, error) {
	readOnce(n)
	sql, err := Deparse(n)
	if err != nil {
		return "", err
	}
	again := inExists(n)
	for _, s := range p.sources {
		for i := range p.slices {
			sl := &p.slices[i]
			sl.Again = sl.Again || slices.Contains(again, s.mark) && sl.Token != "" && strings.Contains(s.text, literal(sl.Token))
		}
		if strings.Count(sql, s.mark) != 1 {
			return "", fmt.Errorf("planner: source %s is not in the statement once", s.mark)
		}
		sql = strings.Replace(sql, quote(s.mark), s.text, 1)
	}
	return sql, nil
}

// typeFit is how a column of a type can be gathered: as it is, or as text
// where its type takes no such input.
func typeFit(typ string) (gathered string, asText bool) {
	switch typ {
	case "anyarray", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin_bloom_summary",
		"pg_brin_minmax_multi_summary", "regproc", "regoper", "record", "cstring", "unknown", "pg_ddl_command",
		"gtsvector":
		return "text", true
	}
	return typ, false
}
