package plan

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// TestDeparseKeepsTree writes random trees as SQL and reads them again.
func TestDeparseKeepsTree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sql := "SELECT " + drawExpr(rt, 4) + " FROM t WHERE " + drawExpr(rt, 4)
		res, err := pg.Parse(sql)
		if err != nil {
			rt.Fatalf("%s: %v", sql, err)
		}
		tree := res.Stmts[0].Stmt
		before := proto.CloneOf(tree)
		text, err := Deparse(tree)
		if err != nil {
			rt.Fatalf("%s: %v", sql, err)
		}
		if !proto.Equal(before, tree) {
			rt.Fatalf("%s: the tree was changed", sql)
		}
		again, err := pg.Parse(text)
		if err != nil {
			rt.Fatalf("%s\nbecame\n%s: %v", sql, text, err)
		}
		if got, want := withoutPlaces(again.Stmts[0].Stmt), withoutPlaces(tree); got != want {
			rt.Fatalf("%s\nbecame\n%s\n%s\nis not\n%s", sql, text, got, want)
		}
	})
}

// withoutPlaces prints a tree without the places in the text.
func withoutPlaces(n *pg.Node) string {
	n = proto.CloneOf(n)
	walk(n, func(m any) bool {
		if f := reflect.ValueOf(m).Elem().FieldByName("Location"); f.IsValid() {
			f.SetInt(0)
		}
		return true
	})
	// protojson varies its spaces on purpose.
	return strings.ReplaceAll(protojson.Format(n), "  ", " ")
}

// drawExpr draws an expression with all its parentheses.
func drawExpr(rt *rapid.T, depth int) string {
	n := rapid.IntRange(0, 24).Draw(rt, "kind")
	if depth == 0 {
		n %= 6
	}
	x := func() string { return drawExpr(rt, depth-1) }
	pick := func(of ...string) string { return rapid.SampledFrom(of).Draw(rt, "pick") }
	switch n {
	case 0, 1:
		return pick("a", "b", `t."C"`)
	case 2:
		return pick("1", "-1", "2.5", "-1e20", "9000000000", "-9000000000", "NULL", "TRUE")
	case 3:
		return pick("'x'", "'it''s'", `E'\\'`, "''", "B'101'")
	case 4:
		return pick("$1", "CURRENT_DATE", "date '2024-01-01'", "INTERVAL '1' DAY")
	case 5:
		return "f(a, b)"
	case 6, 7:
		return fmt.Sprintf("(%s %s %s)", x(), pick("+", "-", "*", "/", "%", "^", "||", "@>", "OPERATOR(pg_catalog.+)"), x())
	case 8, 9:
		return fmt.Sprintf("(%s %s %s)", x(), pick("=", "<>", "<", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"), x())
	case 10:
		return fmt.Sprintf("(%s %s %s)", x(), pick("AND", "OR"), x())
	case 11:
		return fmt.Sprintf("(%s %s)", pick("NOT", "-", "+", "@", "|/"), x())
	case 12:
		return fmt.Sprintf("(%s IS %s)", x(), pick("NULL", "NOT NULL", "TRUE", "NOT FALSE", "UNKNOWN", "DOCUMENT"))
	case 13:
		return fmt.Sprintf("(%s %s (%s, %s))", x(), pick("IN", "NOT IN"), x(), x())
	case 14:
		return fmt.Sprintf("(%s %s %s AND %s)", x(), pick("BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC"), x(), x())
	case 15:
		return fmt.Sprintf("(%s %s %s)", x(), pick("LIKE", "NOT LIKE", "ILIKE", "SIMILAR TO", "NOT SIMILAR TO"), x()+pick("", "", " ESCAPE "+x()))
	case 16:
		return fmt.Sprintf("(%s %s (SELECT %s FROM u))", x(), pick("IN", "NOT IN", "= ANY", "<> ALL"), x())
	case 17:
		return fmt.Sprintf("(%s %s (%s))", x(), pick("= ANY", "<> ALL", "< SOME"), x())
	case 18:
		return fmt.Sprintf("((%s)::%s)", x(), pick("int", "text", "numeric(10,2)", "int[]", "bool", "timestamp with time zone"))
	case 19:
		return fmt.Sprintf(`((%s) COLLATE "C")`, x())
	case 20:
		return fmt.Sprintf("((%s)[%s])", x(), x())
	case 21:
		return fmt.Sprintf("(CASE WHEN %s THEN %s ELSE %s END)", x(), x(), x())
	case 22:
		return fmt.Sprintf("%s(%s, %s)", pick("COALESCE", "NULLIF", "GREATEST", "f"), x(), x())
	case 23:
		return fmt.Sprintf("%s(SELECT %s FROM u)", pick("", "EXISTS ", "ARRAY"), x())
	default:
		return fmt.Sprintf("(%s AT TIME ZONE %s)", x(), x())
	}
}
