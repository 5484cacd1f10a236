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
// motions and have other values than it was told last, and returns the rest.
func (m *member) tune(ctx context.Context, settings map[string]string) (rest map[string]string, err error) {
	rest = map[string]string{}
	changed := map[string]string{}
	for name, value := range settings {
		if !forExecutor(name) {
			rest[name] = value
		} else if was, ok := m.tuned[name]; !ok || was != value {
			changed[name] = value
		}
	}
	if len(changed) == 0 {
		return rest, nil
	}
	text, err := execute.TuneQuery(changed)
	if err != nil {
		return nil, err
	}
	if _, err := m.conn.Exec(ctx, text).ReadAll(); err != nil {
		return nil, m.fail(err, 0, "")
	}
	maps.Copy(m.tuned, changed)
	return rest, nil
}

// told is what a connection has been told by its startup parameters.
func told(startup map[string]string) map[string]string {
	t := maps.Clone(startup)
	maps.DeleteFunc(t, func(name, _ string) bool { return !forExecutor(name) })
	return t
}
