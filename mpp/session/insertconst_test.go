package session

import (
	"strings"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestConstantRows places INSERTs of constants where a hash of their values
// says, and leaves the rest alone.
func TestConstantRows(t *testing.T) {
	r := &relation{Relation: plan.Relation{Name: "t", Schema: "s", Policy: &plan.Policy{Kind: plan.Hashed, Keys: []int{0, 1}, NumSegments: 5}},
		columns: []column{
			{Name: "i", oid: 23, base: 23, format: "integer", bare: "integer"},
			{Name: "v", oid: 25, base: 25, format: "text", bare: "text"},
			{Name: "g", oid: 23, base: 23, format: "integer", bare: "integer", generated: true},
			{Name: "d", oid: 1114, base: 1114, format: "timestamp", bare: "timestamp"},
			{Name: "q", oid: 23, base: 23, format: "integer", bare: "integer", def: "nextval('s')"},
			{Name: "p", oid: 600, base: 600, format: "point", bare: "point"},
		}}
	hasher, err := cdbhash.NewHasher([]uint32{23, 25})
	if err != nil {
		t.Fatal(err)
	}
	place := func(i, v any) int {
		var keys [2][]byte
		if i != nil {
			keys[0], _ = cdbhash.FromText(23, []byte(i.(string)), nil)
		}
		if v != nil {
			keys[1], _ = cdbhash.FromText(25, []byte(v.(string)), nil)
		}
		seg, err := hasher.Segment(keys[:], 5)
		if err != nil {
			t.Fatal(err)
		}
		return seg
	}
	type row struct {
		seg int
		sql string
	}
	for sql, want := range map[string][]row{
		"INSERT INTO t (i, v, q) VALUES (1, 'a', 2), (-3, 'it''s', 4), (NULL, '', 5)": {
			{place("1", "a"), "(1, 'a', NULL, 2, NULL)"}, {place("-3", "it's"), "(-3, 'it''s', NULL, 4, NULL)"}, {place(nil, ""), "(NULL, '', NULL, 5, NULL)"}},
		"INSERT INTO t (q, v) VALUES (1, 7)":                      {{place(nil, "7"), "(NULL, 7, NULL, 1, NULL)"}},
		"INSERT INTO t (q, i) VALUES (1, ' 12 ')":                 {{place("12", nil), "(' 12 ', NULL, NULL, 1, NULL)"}},
		"INSERT INTO t (q, i, d) VALUES (1, 2, '2024-01-01')":     {{place("2", nil), "(2, NULL, '2024-01-01', 1, NULL)"}},
		"INSERT INTO t (q, i, p) VALUES (1, 2, NULL)":             {{place("2", nil), "(2, NULL, NULL, 1, NULL)"}},
		"INSERT INTO t (q, i) VALUES (1, 2) RETURNING *":          {{place("2", nil), "(2, NULL, NULL, 1, NULL)"}},
		"INSERT INTO t (q, v) VALUES (1, '\\')":                   {{place(nil, `\`), `(NULL,  E'\\', NULL, 1, NULL)`}},
		"INSERT INTO t (i, v) VALUES (1, 'a')":                    nil, // a default to compute
		"INSERT INTO t (q, i) VALUES (1, 1.5)":                    nil, // rounded
		"INSERT INTO t (q, v) VALUES (1, 1e5)":                    nil, // shown in another form
		"INSERT INTO t (q, i) VALUES (1, 2 + 2)":                  nil,
		"INSERT INTO t (q, i) VALUES (1, $1)":                     nil,
		"INSERT INTO t (q, i, d) VALUES (1, 2, 'now')":            nil,
		"INSERT INTO t (q, i, p) VALUES (1, 2, '(1,2)')":          nil,
		"INSERT INTO t (q, i) VALUES (1, DEFAULT)":                nil,
		"INSERT INTO t (q, i) VALUES (1, 2), (1, abs(3))":         nil,
		"INSERT INTO t (q, i) VALUES (1, 2) LIMIT 1":              nil,
		"INSERT INTO t (q, i) SELECT 1, 2":                        nil,
		"INSERT INTO t VALUES (1, 'a', DEFAULT, NULL, 1)":         nil,
		"WITH w AS (SELECT 1) INSERT INTO t (q, i) VALUES (1, 2)": nil,
	} {
		w := &rowWriter{s: &Session{}, r: r}
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		done, err := constantRows(w, parsed(t, sql).GetInsertStmt())
		if err != nil || done != (want != nil) {
			t.Errorf("%s: %v, %v", sql, done, err)
			continue
		}
		for seg := range w.batches {
			var rows []string
			for _, r := range want {
				if r.seg == seg {
					rows = append(rows, r.sql)
				}
			}
			if got := w.batches[seg].sql.String(); got != strings.Join(rows, ", ") {
				t.Errorf("%s: segment %d gets %s, expected %s", sql, seg, got, strings.Join(rows, ", "))
			}
		}
	}
}
