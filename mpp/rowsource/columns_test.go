package rowsource

import (
	"encoding/binary"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/mpp/internal/pgtest"
)

// TestColumns has PostgreSQL take arrays apart, which must give the rows they were made
// of.
func TestColumns(t *testing.T) {
	conn := dial(t, pgtest.Start(t))
	var c columns
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.OneOf(rapid.SampledFrom([]string{"", "null", "NULL", "Null", "nulls", "1", "a b", `"`, `\`, `\\x00`, "{", "}", "{1,2}", ",", "\t", "\n", "\v", "\r", "\f", "'", "é", "\u00a0", "NULL "}),
			rapid.StringN(0, 12, -1).Filter(func(s string) bool { return !strings.Contains(s, "\x00") }))
		maybe := rapid.Custom(func(t *rapid.T) *string {
			if v := value.Draw(t, "value"); rapid.IntRange(0, 4).Draw(t, "null") > 0 {
				return &v
			}
			return nil
		})
		rows := rapid.SliceOfN(rapid.SliceOfN(maybe, 2, 2), 1, 20).Draw(rt, "rows")
		c.reset()
		for _, r := range rows {
			body := []byte{0, 2}
			for _, v := range r {
				if v == nil {
					body = append(body, 0xff, 0xff, 0xff, 0xff)
				} else {
					body = appendText(body, *v)
				}
			}
			if err := c.add(body); err != nil {
				rt.Fatal(err)
			}
		}
		arrays := values(c.arrays())
		res := conn.ExecParams(t.Context(), "SELECT unnest($1::text[]), unnest($2::text[])", arrays, nil, nil, nil).Read()
		if res.Err != nil || len(res.Rows) != len(rows) {
			rt.Fatalf("%d rows of %d, %v: %s", len(res.Rows), len(rows), res.Err, arrays)
		}
		for i, r := range rows {
			for k, v := range r {
				if got := res.Rows[i][k]; (got == nil) != (v == nil) || v != nil && string(got) != *v {
					rt.Errorf("row %d: %q, want %v: %s", i, got, v, arrays)
				}
			}
		}
	})
	if c.reset(); c.arrays() != nil {
		t.Error("no rows are a row")
	}
	_ = c.add([]byte{0, 0})
	_ = c.add([]byte{0, 0})
	if got := values(c.arrays()); len(got) != 1 || string(got[0]) != "{NULL,NULL}" {
		t.Errorf("two rows without columns: %s", got)
	}
}

// values takes the body of a DataRow message apart.
func values(body []byte) (out [][]byte) {
	rest := body[2:]
	for range binary.BigEndian.Uint16(body) {
		n := binary.BigEndian.Uint32(rest)
		out, rest = append(out, rest[4:4+n]), rest[4+n:]
	}
	return out
}
