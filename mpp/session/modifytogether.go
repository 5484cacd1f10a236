package session

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// modifyTogether runs a statement of several segments in a READ COMMITTED transaction,
// so that its snapshots of them fit together.
func (s *Session) modifyTogether(req *request, m *modification, params []dispatch.Param) error {
	locks, err := s.locksOf(req.node, m.r)
	if err != nil {
		return err
	}
	st := &dispatch.Together{Segments: m.Slice.Segments, Ahead: "EXPLAIN " + m.Slice.SQL, Locks: locks,
		SQL: m.Telling, Params: params, ResultFormats: req.formats, Again: s.notSaid}
	return s.modifyBy(m, st.SQL, func() ([]dispatch.Result, error) { return s.gang.ExecTogether(req.ctx, st) })
}

// notSaid forgets what segments have said of a statement that was taken back.
func (s *Session) notSaid() {
	s.dropNotices()
	if a := s.analyzing(); a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.step != nil {
			clear(a.step.segs)
		}
	}
}

// locksOf names the tables that an UPDATE or DELETE of r, which segments run, locks; ""
// where it depends on its constants which ones these are.
func (s *Session) locksOf(node *pg.Node, r *relation) (string, error) {
	tables := []string{r.name()}
	steady := !r.HasChildren
	for _, name := range plan.Relations(node) {
		from, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return "", err
		}
		if from == nil || from == r {
			continue
		}
		steady = steady && from.Kind == 'r' && !from.HasChildren
		if !slices.Contains(tables, from.name()) {
			tables = append(tables, from.name())
		}
	}
	if !steady {
		return "", nil
	}
	return strings.Join(tables, ", "), nil
}
