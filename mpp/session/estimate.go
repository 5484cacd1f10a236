package session

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// estimates are guesses of how many rows tables have, and how many different
// values their columns, for the planner and for the local server's. They are
// shared by all sessions.
type estimates struct {
	mu sync.Mutex
	m  map[estimateKey]estimate
}

type estimateKey struct {
	database string
	oid      uint32
}

type estimate struct {
	rows    float64
	columns map[string][2]float64 // by name: different values, mean width in bytes
	at      time.Time
	tick    uint64 // of the catalog
	old     bool   // none could be made; it is what was known before
}

// How long a guess is good, if nothing changes the catalog, as ANALYZE does:
// tables grow by orders of magnitude seldom, and a guess that is wrong by less
// does no harm. But what is small may be about to be loaded, and would be
// broadcast by then.
const (
	estimateAge      = 30 * time.Second
	smallEstimateAge = time.Second
	smallEstimate    = 1e5
	// A segment that does not answer keeps those that do not need it waiting only
	// so often.
	failedEstimateAge = 10 * time.Second
	// estimateLimit is how long making a guess may take.
	estimateLimit = 5 * time.Second
)

// good says whether a guess need not be made anew.
func (e estimate) good(now time.Time, tick uint64) bool {
	age := estimateAge
	switch {
	case e.old:
		age = failedEstimateAge
	case e.rows < smallEstimate:
		age = smallEstimateAge
	}
	return e.tick == tick && now.Sub(e.at) < age
}

// estimate asks one segment how large its part of a table is: its size now, and
// the rows in a page as ANALYZE or VACUUM there last saw them. An empty table is
// taken to have one row. It says 0, unknown, rather than fail, except in a
// transaction block: that goes on only if nothing has failed on a segment, so there
// an old guess will do, if there is one. Of columns it says what ANALYZE there has
// seen, if the user may read them.
func (s *Session) estimate(r *relation) (estimate, error) {
	key := estimateKey{s.client.Database, r.OID}
	e := &s.srv.estimates
	tick := s.srv.catalogTick.Load()
	e.mu.Lock()
	old, ok := e.m[key]
	e.mu.Unlock()
	block := s.link.status == 'T'
	if ok && (old.good(time.Now(), tick) || block && old.tick == tick) || s.gang.Busy() || s.link.status == 'E' {
		return old, nil
	}
	ctx, done := context.WithTimeoutCause(s.ctx, estimateLimit,
		sqlError("57014", "canceling statement: seg0 did not say within %v how large table %q is", estimateLimit, r.Name))
	defer done()
	failed := func(err error) (estimate, error) {
		if block {
			return old, err
		}
		e.keep(key, estimate{old.rows, old.columns, time.Now(), tick, true})
		return old, nil
	}
	if err := s.beforeDispatch(ctx); err != nil {
		return failed(err)
	}
	res, err := s.gang.Exec(ctx, []int{0}, "WITH RECURSIVE k AS (SELECT pg_catalog.to_regclass("+literal(r.name())+`)::pg_catalog.oid AS oid
			UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN k ON i.inhparent = k.oid),
		c AS (SELECT c.oid, c.reltuples, c.relpages, EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.relation = c.oid
				AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
				AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid()) AS locked
			FROM pg_catalog.pg_class c JOIN k USING (oid))
		SELECT COALESCE(pg_catalog.bool_or(c.locked), false), COALESCE(pg_catalog.sum(CASE WHEN c.locked THEN 0
			WHEN c.reltuples >= 0 AND c.relpages > 0 THEN c.reltuples * (pg_catalog.pg_relation_size(c.oid) / 8192.0 / c.relpages)
			ELSE pg_catalog.pg_relation_size(c.oid) / 8192 * 80 END), 0)::pg_catalog.float8,
			(SELECT pg_catalog.json_object_agg(t.attname, pg_catalog.json_build_array(t.n_distinct, t.avg_width)) FROM (
				SELECT DISTINCT ON (t.attname) t.attname, t.n_distinct, t.avg_width FROM pg_catalog.pg_stats t
				JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = t.tablename
				WHERE k.oid = pg_catalog.to_regclass(`+literal(r.name())+`) ORDER BY t.attname, t.inherited DESC) t) FROM c`)
	if err != nil || len(res) == 0 || len(res[0].Rows) == 0 {
		return failed(err)
	}
	if string(res[0].Rows[0][0]) == "t" {
		// Asking for the size would wait, and fail the transaction in the end.
		return old, nil
	}
	rows, err := strconv.ParseFloat(string(res[0].Rows[0][1]), 64)
	if err != nil {
		return old, nil
	}
	rows = max(rows, 1)
	var seen map[string][2]float64
	if b := res[0].Rows[0][2]; b != nil {
		if err := json.Unmarshal(b, &seen); err != nil {
			return old, nil
		}
	}
	if r.Policy.Kind != plan.Replicated {
		n := s.numSegments()
		if k := r.Policy.NumSegments; k > 0 && k < n {
			n = k
		}
		rows *= float64(n)
	}
	for name, v := range seen {
		if v[0] < 0 { // a share of the rows
			seen[name] = [2]float64{-v[0] * rows, v[1]}
		}
	}
	fresh := estimate{rows, seen, time.Now(), tick, false}
	e.keep(key, fresh)
	return fresh, nil
}

func (e *estimates) keep(key estimateKey, fresh estimate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.m == nil || len(e.m) > 10000 {
		e.m = map[estimateKey]estimate{}
	}
	e.m[key] = fresh
}
