package session

import (
	"context"
	"errors"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// An INSERT … SELECT, or CREATE TABLE AS, whose rows are made where they are to
// be stored: each segment runs an INSERT of its own. One snapshot for all
// segments has to be taken before, for a statement that writes takes its own
// only when it runs.

// segmentInsert is what segments are to run.
type segmentInsert struct {
	r          *relation
	slice      *plan.Slice
	replicated bool
	sql        string
}

// apart says whether the INSERT takes snapshots on several segments.
func (in *segmentInsert) apart(s *Session) bool {
	n := len(in.slice.Segments)
	if in.slice.Segments == nil {
		n = s.numSegments()
	}
	return n > 1
}

// planPlaced plans an INSERT into r of the rows of source, which has r's stored
// columns in order. st is nil for CREATE TABLE AS. Where the segments cannot
// run it by themselves it returns nil, and why, unless the plan of source says
// it.
func (s *Session) planPlaced(req *request, r *relation, st *pg.InsertStmt, source *pg.Node) (in *segmentInsert, why string, err error) {
	switch {
	case st == nil:
	case st.SelectStmt == nil || len(st.SelectStmt.GetSelectStmt().GetValuesLists()) > 0:
		return nil, "", nil
	case st.OnConflictClause != nil:
		return nil, "ON CONFLICT", nil
	case len(st.ReturningList) > 0:
		return nil, "RETURNING", nil
	case st.Override != pg.OverridingKind_OVERRIDING_NOT_SET && st.Override != pg.OverridingKind_OVERRIDING_KIND_UNDEFINED:
		return nil, "OVERRIDING", nil
	}
	var columns []int
	for i := range r.columns {
		if !r.columns[i].generated {
			columns = append(columns, i)
		}
	}
	if len(columns) == 0 {
		return nil, "a table without columns", nil
	}
	opt, err := s.planOptions(req.types, req.params)
	if err != nil {
		return nil, "", err
	}
	p, err := plan.Insert(source, &r.Relation, columns, planCatalog{s: s, params: req.types}, opt)
	if err != nil {
		return nil, "", err
	}
	if p.Here == nil {
		return nil, p.Reason, nil
	}
	if err := s.mayRead(source, p.Query, opt.ParamTypes); err != nil {
		return nil, "", err
	}
	template, err := insertTemplate(r, &pg.InsertStmt{Relation: &pg.RangeVar{
		Schemaname: r.sqlSchema(), Relname: r.Name, Inh: true, Relpersistence: "p"}})
	if err != nil {
		return nil, "", err
	}
	in = &segmentInsert{r: r, slice: p.Here, replicated: p.Replicated,
		sql: strings.Replace(template, "VALUES ('"+rowsMark+"')", p.Here.SQL, 1)}
	if !in.apart(s) {
		return in, "", nil
	}
	if s.link.status == 'T' && !s.gang.InTransaction() {
		// How isolated the block is shows when it begins there.
		if err := s.beforeDispatch(req.ctx); err != nil {
			return nil, "", err
		}
	}
	if !s.gang.Fixed() && !s.alone() {
		return nil, "a READ COMMITTED transaction block, in which segments that write take snapshots of their own", nil
	}
	return in, "", nil
}

// alone says whether the statement is a transaction of its own that has not
// done anything yet, so that the session may choose how isolated it is.
func (s *Session) alone() bool {
	return s.link.status == 'I' && !s.link.unsynced && !s.txn.implicit && !s.gang.InTransaction()
}

// errOutdated says that what a statement was planned with has changed since,
// and nothing has been done yet.
var errOutdated = errors.New("the catalog has changed")

// steadyLocks are the statements that keep DDL from what node reads, and from
// r, which is nil for none.
func (s *Session) steadyLocks(node *pg.Node, r *relation) (string, error) {
	var reads []string
	for _, name := range plan.Relations(node) {
		from, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return "", err
		}
		if from != nil && strings.IndexByte("rpv", from.Kind) >= 0 && !slices.Contains(reads, from.name()) && from.Schema != "pg_catalog" {
			reads = append(reads, from.name())
		}
	}
	sql := ""
	if len(reads) > 0 {
		sql = "LOCK TABLE " + strings.Join(reads, ", ") + " IN ACCESS SHARE MODE"
	}
	if r != nil {
		if sql != "" {
			sql += "; "
		}
		sql += "LOCK TABLE " + r.name() + " IN ROW EXCLUSIVE MODE"
	}
	return sql, nil
}

// beginSteady begins a transaction on the segments with one snapshot for all,
// taken when nobody can change what node reads or r by DDL any more. It must be
// the statement's own, see alone. ok is false where the user may not lock all of
// that, for he has rights on some columns only. errOutdated: the plan may be
// wrong. There is no transaction then.
func (s *Session) beginSteady(ctx context.Context, node *pg.Node, r *relation) (ok bool, err error) {
	locks, err := s.steadyLocks(node, r)
	if err != nil {
		return false, err
	}
	if err := s.beforeDispatch(ctx); err != nil {
		return false, err
	}
	res, err := s.local("SELECT pg_catalog.current_setting('default_transaction_isolation')")
	if err != nil {
		return false, err
	}
	modes := "ISOLATION LEVEL REPEATABLE READ"
	if string(res.value()) == "serializable" {
		modes = "ISOLATION LEVEL SERIALIZABLE"
	}
	for range tornTries {
		if err = s.gang.BeginLocked(ctx, modes, locks); !errors.Is(err, dispatch.ErrTorn) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		if pgError(err).Code == "42501" {
			return false, nil
		}
		return false, err
	}
	if s.srv.catalogTick.Load() != s.cache.tick {
		s.abortGang()
		return false, errOutdated
	}
	return true, nil
}

// insertPlaced has the segments insert rows of their own. done is false when the
// rows have to come to the coordinator after all.
func (s *Session) insertPlaced(req *request, in *segmentInsert, source *pg.Node) (n int64, done bool, err error) {
	if in.apart(s) && !s.gang.Fixed() {
		if ok, err := s.beginSteady(req.ctx, source, in.r); !ok || err != nil {
			return 0, false, err
		}
	}
	if err := s.beginWrite(); err != nil {
		return 0, false, err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return 0, false, err
	}
	if err := s.markWrite(req.ctx, in.r, in.slice.Segments); err != nil {
		return 0, false, err
	}
	if a := s.analyzing(); a != nil {
		a.op, a.r = "Insert", in.r
	}
	var res []dispatch.Result
	note := s.segmentsWrite("Insert", in.sql)
	if params := pickParams(req.params, in.slice.Params); len(params) > 0 {
		res, err = s.gang.ExecParams(req.ctx, in.slice.Segments, in.sql, params, nil)
	} else {
		res, err = s.gang.Exec(req.ctx, in.slice.Segments, in.sql)
	}
	if note(res); err != nil {
		return 0, false, err
	}
	for i, r := range res {
		if in.replicated && i > 0 {
			break // every segment says the same
		}
		n += r.Tag.RowsAffected()
	}
	return n, true, nil
}

// keepsType says whether a value of a result column need not be cast to what is
// stored in c.
func (c *column) keepsType(oid uint32) bool {
	rounds := c.castType() == c.format && c.format != c.bare
	return oid == c.oid && !rounds && c.oid != 1560
}

// withOf is the query of an INSERT under the INSERT's own WITH.
func withOf(st *pg.InsertStmt) (*pg.Node, error) {
	if st.WithClause == nil {
		return st.SelectStmt, nil
	}
	text, err := plan.Deparse(st.SelectStmt)
	if err != nil {
		return nil, err
	}
	with, err := withSQL(st.WithClause)
	if err != nil {
		return nil, err
	}
	return parseOne(with + "SELECT * FROM (" + text + ") AS " + catalog.Ident("s"))
}

// beginToInsert begins the transaction of an INSERT that is to be analyzed, if
// it is one for beginSteady.
func (s *Session) beginToInsert(req *request, st *pg.InsertStmt) error {
	for range tornTries {
		r, err := s.relation(st.Relation.Schemaname, st.Relation.Relname)
		if err != nil || r == nil || r.Policy == nil || st.SelectStmt == nil {
			return err
		}
		if _, _, err := s.insertWriter(req, st, r); err != nil {
			return err
		}
		source, err := s.insertSource(r, st, req)
		if err != nil {
			return err
		}
		in, _, err := s.planPlaced(req, r, st, source)
		if err != nil || in == nil || !in.apart(s) {
			return err
		}
		if _, err := s.beginSteady(req.ctx, source, r); !errors.Is(err, errOutdated) {
			return err
		}
		s.freshCache()
	}
	return nil
}

// beginToCreate begins the transaction of a CREATE TABLE AS whose rows may be
// made where they are to be stored, if it is one for beginSteady.
func (s *Session) beginToCreate(req *request, st *pg.CreateTableAsStmt) error {
	if st.Into.SkipData || st.Query.GetSelectStmt() == nil {
		return nil
	}
	for range tornTries {
		if !s.alone() {
			return nil
		}
		q, err := s.plan(st.Query, req.types, req.params)
		if err != nil || q.Kind != plan.Gather || len(q.Slices) > 1 {
			return err
		}
		if _, err := s.beginSteady(req.ctx, st.Query, nil); !errors.Is(err, errOutdated) {
			return err
		}
		s.freshCache()
	}
	return nil
}
