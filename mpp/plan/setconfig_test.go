package plan

import (
	"errors"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// TestCheckSetConfig: constants are checked and made canonical, wherever the
// call is and whether it was rewritten before.
func TestCheckSetConfig(t *testing.T) {
	bad := errors.New("bad value")
	for _, c := range []struct {
		sql, want string // what the statement becomes; "" for refused
		found     bool
	}{
		{"SELECT set_config('p', 'long', false)", "SELECT pg_catalog.gp_set_config('p', 'LONG', false) AS set_config", true},
		{"SELECT pg_catalog.set_config('p'::text, 'x'::text, true), 1", "SELECT pg_catalog.gp_set_config('p'::text, 'X'::text, true) AS set_config, 1", true},
		{"SELECT * FROM t WHERE set_config('p', 'bad', false) = 'x'", "", true},
		{"SELECT set_config(a, 'bad', false), set_config('p', b, false) FROM t", "SELECT pg_catalog.gp_set_config(a, 'bad', false) AS set_config, pg_catalog.gp_set_config('p', b, false) AS set_config FROM t", true},
		{"SELECT other.set_config('p', 'bad', false)", "SELECT other.set_config('p', 'bad', false)", false},
		{"SELECT current_setting('p')", "SELECT pg_catalog.gp_current_setting('p') AS current_setting", false},
		{"SELECT set_config('p', 'bad')", "SELECT pg_catalog.gp_set_config('p', 'bad') AS set_config", true},
		{"SELECT set_config('p', NULL, false)", "SELECT pg_catalog.gp_set_config('p', NULL, false) AS set_config", true},
	} {
		tree, err := pg.Parse(c.sql)
		if err != nil {
			t.Fatal(err)
		}
		n := tree.Stmts[0].Stmt
		for round := range 2 {
			found, err := CheckSetConfig(n, func(name, value string) (string, error) {
				if name != "p" {
					t.Errorf("%s: asked about %q", c.sql, name)
				}
				if strings.EqualFold(value, "bad") {
					return "", bad
				}
				return strings.ToUpper(value), nil
			})
			if found != c.found || (err == bad) != (c.want == "") {
				t.Errorf("%s, round %d: %v, %v", c.sql, round, found, err)
			}
			if err != nil {
				break
			}
			RewriteSettings(n)
			if got, err := Deparse(n); err != nil || got != c.want {
				t.Errorf("%s, round %d: %s, %v, want %s", c.sql, round, got, err, c.want)
			}
		}
	}
}
