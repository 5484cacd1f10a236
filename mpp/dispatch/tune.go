package dispatch

import (
	"context"
	"maps"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/execute"
)

// forExecutor says whether a setting is the executor's, not PostgreSQL's.
func forExecutor(name string) bool { return strings.HasPrefix(name, "gp_") }

// tune tells the executor those of the settings that are parameters of its
// motions, and returns the rest.
func (m *member) tune(ctx context.Context, settings map[string]string) (rest map[string]string, err error) {
	own := map[string]string{}
	for name, value := range settings {
		if forExecutor(name) {
			own[name] = value
		}
	}
	if len(own) == 0 {
		return settings, nil
	}
	rest = maps.Clone(settings)
	maps.DeleteFunc(rest, func(name, _ string) bool { return forExecutor(name) })
	text, err := execute.TuneQuery(own)
	if err != nil {
		return nil, err
	}
	if _, err := m.conn.Exec(ctx, text).ReadAll(); err != nil {
		return nil, m.fail(err, 0, "")
	}
	return rest, nil
}

// unlikeStartup leaves out of settings what a connection has from its start.
func (c *GangConfig) unlikeStartup(settings map[string]string) map[string]string {
	out := maps.Clone(settings)
	maps.DeleteFunc(out, func(name, value string) bool {
		was, ok := c.Startup[name]
		return ok && forExecutor(name) && was == value
	})
	return out
}
