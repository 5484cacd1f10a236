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

// An INSERT … SELECT, or CREATE TABLE AS, whose rows do not come to the
// coordinator. Where they are made where they are to be stored, each segment
// runs an INSERT of its own. One snapshot for all segments has to be taken
// before, for a statement that writes takes its own only when it runs. Where
// they are made elsewhere the segments send them to each other, and a COPY on
// each takes what has come. It needs no snapshot, and those of the slices that
// send are taken as for any query.

// segmentInsert is what segments are to run.
type segmentInsert struct {
	r *relation
	// slices: the last is the INSERT, the first sends it rows, unless it is
	// the INSERT; the others send to the first.
	slices     []plan.Slice
	moved      bool // see plan.Insertion
	replicated bool
	// inBlock says that it runs in a READ COMMITTED block: by ExecTogether if telling,
	// the only slice's SQL for that, is not "", else it reads nothing but what is sent to it.
	inBlock bool
	telling string
}

// insert is the slice that writes.
func (in *segmentInsert) insert() *plan.Slice { return &in.slices[len(in.slices)-1] }

// needsSteady says whether snapshots of several segments are needed before the
// INSERT runs.
func (in *segmentInsert) needsSteady(s *Session) bool {
	n := len(in.insert().Segments)
	if in.insert().Segments == nil {
		n = s.numSegments()
	}
	return !in.moved && (n > 1 || len(in.slices) > 1)
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
	if err != nil || p.Slices == nil {
		if err == nil {
			why = p.Reason
		}
		return nil, why, err
	}
	if in, why, err = s.segmentInsert(r, p); in == nil || err != nil {
		return nil, why, err
	}
	if in.needsSteady(s) {
		if s.link.status == 'T' && !s.gang.InTransaction() {
			// How isolated the block is shows when it begins there.
			if err := s.beforeDispatch(req.ctx); err != nil {
				return nil, "", err
			}
		}
		if in.inBlock = !s.gang.Fixed() && !s.alone(); in.inBlock && in.telling == "" && len(in.insert().Tables) > 0 {
			return nil, "a READ COMMITTED transaction block, in which segments that write take snapshots of their own", nil
		}
	}
	return in, "", s.mayRead(source, p.Query, opt.ParamTypes)
}

// segmentInsert makes the INSERT of a plan, and its slices those that EXPLAIN
// numbers, which calls what writes slice 0.
func (s *Session) segmentInsert(r *relation, p *plan.Insertion) (in *segmentInsert, why string, err error) {
	template, err := insertTemplate(r, &pg.InsertStmt{Relation: &pg.RangeVar{
		Schemaname: r.sqlSchema(), Relname: r.Name, Inh: true, Relpersistence: "p"}})
	if err != nil {
		return nil, "", err
	}
	in = &segmentInsert{r: r, moved: p.Moved, replicated: p.Replicated}
	w := &rowWriter{s: s, r: r}
	if in.moved && !w.allBinary() {
		return nil, "columns whose values have no binary form that is the same everywhere", nil
	}
	last := len(p.Slices) - 1
	for _, sl := range p.Slices[1:] {
		if sl.To--; sl.To < 0 {
			sl.To = last
		}
		in.slices = append(in.slices, sl)
	}
	first := p.Slices[0]
	if in.moved {
		first.SQL = w.copySQL() // of binary rows takes half as long as an INSERT
	} else {
		insert := func(rows string) string { return strings.Replace(template, "VALUES ('"+rowsMark+"')", rows, 1) }
		if first.InPortions != "" {
			first.InPortions = insert(first.InPortions)
		}
		first.SQL = insert(first.SQL)
		if p.Telling != "" {
			in.telling = insert(p.Telling)
		}
	}
	in.slices = append(in.slices, first)
	return in, "", nil
}

// errOutdated says that what a statement was planned with has changed since,
// and nothing has been done yet.
var errOutdated = errors.New("the catalog has changed")

// steadyLocks are the statements that keep DDL from what node reads, and from
// r, which is nil for none.
func (s *Session) steadyLocks(node *pg.Node, r *relation) (locks []string, err error) {
	var reads []string
	for _, name := range plan.Relations(node) {
		from, err := s.relation(name.Schema, name.Name)
		if err != nil {
			return nil, err
		}
		if from != nil && strings.IndexByte("rpv", from.Kind) >= 0 && !slices.Contains(reads, from.name()) && from.Schema != "pg_catalog" {
			reads = append(reads, from.name())
		}
	}
	if len(reads) > 0 {
		locks = append(locks, "LOCK TABLE "+strings.Join(reads, ", ")+" IN ACCESS SHARE MODE")
	}
	if r != nil {
		locks = append(locks, "LOCK TABLE "+r.name()+" IN ROW EXCLUSIVE MODE")
	}
	return locks, nil
}

// steadyIsolation is what a statement's transaction has to be for one snapshot of
// all segments, and whether the user has asked for as much: then he expects
// 40001. The settings must be the session's; see beforeDispatch.
func (s *Session) steadyIsolation() (level string, wanted bool) {
	switch s.applied[defaultIsolation] {
	case "serializable":
		return "SERIALIZABLE", true
	case "repeatable read":
		return "REPEATABLE READ", true
	}
	return "REPEATABLE READ", false
}

// beginSteady begins a transaction on the segments with one snapshot for all,
// taken when nobody can change what node reads or r by DDL any more. It must be
// the statement's own, see alone. ok is false where the user may not lock all of
// that, for he has rights on some columns only. errOutdated: the plan may be
// wrong. There is no transaction then. begin is what begins it.
func (s *Session) beginSteady(ctx context.Context, node *pg.Node, r *relation, begin func(ctx context.Context, modes, locks string) error) (ok bool, err error) {
	locks, err := s.steadyLocks(node, r)
	if err != nil {
		return false, err
	}
	if err := s.beforeDispatch(ctx); err != nil {
		return false, err
	}
	level, _ := s.steadyIsolation()
	for range tornTries {
		if err = begin(ctx, "ISOLATION LEVEL "+level, strings.Join(locks, "; ")); !errors.Is(err, dispatch.ErrTorn) || ctx.Err() != nil {
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
	steady := in.needsSteady(s) && !s.gang.Fixed() && !in.inBlock
	begin := s.gang.BeginLocked
	if len(in.slices) > 1 {
		begin = s.gang.BeginToOpen
	}
	for range tornTries {
		if steady {
			if ok, err := s.beginSteady(req.ctx, source, in.r, begin); !ok || err != nil {
				return 0, false, err
			}
		}
		n, err = s.insertOnce(req, in, source)
		if !steady || !errors.Is(err, dispatch.ErrTorn) || req.ctx.Err() != nil {
			break
		}
		s.abortGang() // nothing was there before
	}
	return n, err == nil, err
}

// insertOnce is insertPlaced in a transaction, if it needs one that is begun.
func (s *Session) insertOnce(req *request, in *segmentInsert, source *pg.Node) (n int64, err error) {
	if err := s.beginWrite(); err != nil {
		return 0, err
	}
	if err := s.beforeSlices(req.ctx, in.slices); err != nil {
		return 0, err
	}
	sight := s.sight() // what it changes it does not read
	if err := s.markRows(req.ctx, in.r, in.insert().Segments); err != nil {
		return 0, err
	}
	if a := s.analyzing(); a != nil {
		a.op, a.r = "Insert", in.r
	}
	w := in.insert()
	sql := w.SQL
	together := in.inBlock && in.telling != ""
	if together {
		sql = in.telling
	}
	var res []dispatch.Result
	note := s.segmentsWrite("Insert", sql)
	params := pick(req.params, w.Params)
	switch {
	case len(in.slices) > 1:
		sight.blind = sight.blind || !s.gang.Shares()
		res, err = s.insertSent(req, in, sight)
	case together:
		var locks string
		if locks, err = s.locksOf(source, in.r); err == nil {
			res, err = s.gang.ExecTogether(req.ctx, &dispatch.Together{Segments: w.Segments, Locks: locks, Ahead: "EXPLAIN " + w.SQL, SQL: sql, Params: params, Again: s.notSaid})
		}
	case len(params) > 0:
		res, err = s.gang.ExecParams(req.ctx, w.Segments, sql, params, nil)
	default:
		res, err = s.gang.Exec(req.ctx, w.Segments, sql)
	}
	if note(res); in.moved {
		s.copiedThere()
	}
	if err != nil {
		return 0, err
	}
	for i, r := range res {
		if in.replicated && i > 0 {
			break // every segment says the same
		}
		n += r.Tag.RowsAffected()
	}
	return n, nil
}

// copiedThere notes, for EXPLAIN ANALYZE, that what segments have written has come
// to them from others.
func (s *Session) copiedThere() {
	a := s.analyzing()
	if a == nil {
		return
	}
	step := a.stepOf("Insert")
	step.copied = true
	for _, on := range step.segs {
		on.bytes, on.statements = 0, 0
	}
}

// insertSent runs an INSERT for which segments send rows to each other, by readers as far
// as these see them.
func (s *Session) insertSent(req *request, in *segmentInsert, v sight) ([]dispatch.Result, error) {
	a := s.analyzing()
	if a != nil {
		a.moved, a.copies = in.slices, in.moved
		a.expect(in.slices[:len(in.slices)-1])
	}
	ds := s.dispatchedAt(s.placeInsert(in, v), in.slices, req.params)
	w := &ds[len(ds)-1]
	w.Writes, w.Count = true, false
	if in.moved {
		from := &ds[0]
		w.Data, from.Input.Binary, from.ResultFormats = from.Input.Token, true, []int16{1}
		for i, k := range in.r.Policy.Keys {
			from.Input.Keys[i].OID = in.r.columns[k].hashType()
		}
	}
	run, err := s.openWhole(req.ctx, ds, func() (*dispatch.Running, error) {
		s.command++
		return s.gang.Open(req.ctx, s.command, ds, &dispatch.Run{Slice: w.Index})
	})
	if err != nil {
		return nil, err
	}
	err = run.Finish(req.ctx)
	s.motionsEnd(run.Command())
	if a != nil {
		a.count(run)
	}
	if err != nil {
		return nil, err
	}
	var res []dispatch.Result
	for i, tag := range run.Tags(w.Index) {
		seg := i
		if w.Segments != nil {
			seg = w.Segments[i]
		}
		res = append(res, dispatch.Result{Seg: seg, Tag: tag})
	}
	return res, nil
}

// placeInsert places the slices of an INSERT.
func (s *Session) placeInsert(in *segmentInsert, v sight) placement {
	return v.place(in.slices, len(in.slices)-1, readers(s.numSegments()))
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
// segments run it that would not in a transaction of READ COMMITTED.
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
		if err != nil || in == nil || !in.needsSteady(s) {
			return err
		}
		if _, err := s.beginSteady(req.ctx, source, r, s.gang.BeginLocked); !errors.Is(err, errOutdated) {
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
		if _, err := s.beginSteady(req.ctx, st.Query, nil, s.gang.BeginLocked); !errors.Is(err, errOutdated) {
			return err
		}
		s.freshCache()
	}
	return nil
}
