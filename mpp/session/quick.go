package session

import (
	"strconv"
	"time"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// quick is a SELECT that is parsed and planned, for when it comes again: small
// statements cost more of that than of anything else. It is kept with what is
// known of relations, so it is forgotten as soon as the catalog, or the meaning of
// names, may have changed.
type quick struct {
	stmt     *plan.Statement
	query    *plan.Query
	segments int  // that there were
	short    bool // its last run was
}

// shortRun is how long a run may have taken that the next one is supposed to be
// short: about what other sessions' commits may be kept waiting by a reader.
const shortRun = 20 * time.Millisecond

// quickLimit is how many a session keeps: more than an application has different
// statements, as a rule, and some megabytes at most.
const quickLimit = 200

type quickKey struct {
	text  string
	types string // of the parameters
}

func newQuickKey(text string, types []uint32) quickKey {
	var b []byte
	for _, t := range types {
		b = append(strconv.AppendUint(b, uint64(t), 10), ' ')
	}
	return quickKey{text, string(b)}
}

// quick is the plan of the request's statement; nil when it has to be made.
func (s *Session) quick(req *request) *quick {
	if req.stmt == nil || s.analyzing() != nil {
		return nil
	}
	q, ok := s.cache.quick[newQuickKey(req.stmt.SQL, req.types)]
	if !ok || q.segments != s.numSegments() || s.beingDefined(q.query.Slices) {
		return nil
	}
	return q
}

// parseOnce parses one statement of a query string, unless it is kept.
func (s *Session) parseOnce(text string) (*plan.Statement, error) {
	s.freshCache()
	if q, ok := s.cache.quick[quickKey{text: text}]; ok {
		return q.stmt, nil
	}
	return plan.Parse(text)
}

// keepQuick keeps a plan that is good for every run of the statement: one slice,
// nothing in it that was evaluated for this run, no rights to be checked, nothing
// left of the statement for the coordinator's server. unsteady is what the session
// counted before it was made.
func (s *Session) keepQuick(req *request, q *plan.Query, unsteady int) {
	if req.stmt == nil || req.text != req.stmt.SQL || s.unsteady != unsteady || q.Kind != plan.Gather && q.Fold == nil ||
		len(q.Slices) != 1 || q.Slices[0].Read != nil {
		return
	}
	if len(s.cache.quick) >= quickLimit {
		clear(s.cache.quick)
	}
	s.cache.quick[newQuickKey(req.text, req.types)] = &quick{stmt: req.stmt, query: q, segments: s.numSegments()}
}
