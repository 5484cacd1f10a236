package session

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// estimates are guesses of how many rows tables have, for the local server's
// planner. They are shared by all sessions.
type estimates struct {
	mu sync.Mutex
	m  map[estimateKey]estimate
}

type estimateKey struct {
	database string
	oid      uint32
}

type estimate struct {
	rows float64
	at   time.Time
}

// estimateAge is how long a guess is good: tables grow by orders of magnitude
// seldom, and a guess that is wrong by less does no harm.
const estimateAge = 30 * time.Second

// estimateRows asks one segment how large its part of a table is. It says 0,
// unknown, rather than fail.
func (s *Session) estimateRows(r *relation) float64 {
	key := estimateKey{s.client.Database, r.OID}
	e := &s.srv.estimates
	e.mu.Lock()
	old, ok := e.m[key]
	e.mu.Unlock()
	if ok && time.Since(old.at) < estimateAge {
		return old.rows
	}
	if s.gang.Busy() || s.link.status == 'E' {
		return old.rows
	}
	ctx, done := context.WithTimeout(s.ctx, 5*time.Second)
	defer done()
	if err := s.beforeDispatch(ctx); err != nil {
		return old.rows
	}
	name := literal(r.name())
	res, err := s.gang.Exec(ctx, []int{0}, "SELECT COALESCE(sum(CASE WHEN c.reltuples >= 0 AND c.relpages > 0 "+
		"THEN c.reltuples * (pg_catalog.pg_relation_size(c.oid) / 8192.0 / c.relpages) ELSE pg_catalog.pg_relation_size(c.oid) / 8192 * 80 END), 0)::float8 "+
		"FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass("+name+") "+
		"OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass("+name+")))")
	if err != nil || len(res) == 0 || len(res[0].Rows) == 0 {
		return old.rows
	}
	rows, err := strconv.ParseFloat(string(res[0].Rows[0][0]), 64)
	if err != nil {
		return old.rows
	}
	if r.Policy.Kind != plan.Replicated {
		rows *= float64(s.numSegments())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.m == nil || len(e.m) > 10000 {
		e.m = map[estimateKey]estimate{}
	}
	e.m[key] = estimate{rows, time.Now()}
	return rows
}
