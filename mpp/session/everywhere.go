package session

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/catalog"
)

func ident(s string) string { return catalog.Ident(s) }

// runEverywhere runs a statement that PostgreSQL refuses in a transaction
// block: on the coordinator, then on each segment, each for itself. What a
// failure leaves half done is undone where that is possible and named where
// it is not.
func (s *Session) runEverywhere(req *request) error {
	if s.link.status != 'I' || s.txn.implicit {
		// The local server says so in its own words.
		simple := *req
		simple.portal = nil
		if s.link.status == 'I' {
			return sqlError("25001", "%s cannot run inside a transaction block", strings.ToUpper(firstWords(req.text)))
		}
		return s.runLocal(&simple, req.text)
	}
	if err := s.localUtility(req, req.text); err != nil {
		return err
	}
	defer s.catalogChanged()
	if err := s.syncSettings(req.ctx); err != nil {
		return err
	}
	text := req.text
	if d := req.node.GetDropdbStmt(); d != nil {
		// Connections of sessions that have just gone may linger.
		text = "DROP DATABASE IF EXISTS " + ident(d.Dbname) + " WITH (FORCE)"
	}
	defer s.hush()()
	if _, err := s.gang.Exec(req.ctx, nil, text); err != nil {
		s.pending = nil
		s.undo(req)
		return err
	}
	if req.node.GetDiscardStmt() != nil {
		s.applied, s.settingsDirty = map[string]string{}, true
		s.deallocate("")
	}
	return nil
}

// undo takes back what the coordinator and some segments have done.
func (s *Session) undo(req *request) {
	var sql string
	switch st := req.node.Node.(type) {
	case *pg.Node_CreatedbStmt:
		sql = "DROP DATABASE IF EXISTS " + ident(st.CreatedbStmt.Dbname)
	case *pg.Node_IndexStmt:
		if st.IndexStmt.Idxname == "" {
			return
		}
		name := ident(st.IndexStmt.Idxname)
		if sch := st.IndexStmt.Relation.GetSchemaname(); sch != "" {
			name = ident(sch) + "." + name
		}
		sql = "DROP INDEX IF EXISTS " + name
	default:
		return
	}
	for seg := range s.numSegments() {
		_, _ = s.gang.Exec(req.ctx, []int{seg}, sql)
	}
	_, _ = s.local(sql)
}

func firstWords(sql string) string {
	f := strings.Fields(sql)
	if len(f) > 2 {
		f = f[:2]
	}
	return strings.Join(f, " ")
}
