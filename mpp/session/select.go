package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/merge"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// request is one statement to be run, from either protocol.
type request struct {
	ctx     context.Context
	stmt    *plan.Statement
	text    string // what PostgreSQL is given when the statement is local
	node    *pg.Node
	params  []dispatch.Param
	types   []uint32 // of the parameters
	formats []int16  // of the result columns
	// describe asks for a RowDescription before rows (simple protocol).
	describe bool
	// portal is set in the extended protocol.
	portal *portal
	// quick is what is kept of the statement, if it is planned already.
	quick *quick
	// last says that nothing follows in the same query string.
	last bool
}

// plan plans a SELECT with the session's catalog. values are nil where the plan is to
// be good for any.
func (s *Session) plan(node *pg.Node, params []uint32, values []dispatch.Param) (*plan.Query, error) {
	opt, err := s.planOptions(params, values)
	if err != nil {
		return nil, err
	}
	q, err := plan.Select(node, planCatalog{s: s, params: params}, opt)
	if err != nil {
		return nil, err
	}
	return q, s.mayRead(node, q, opt.ParamTypes)
}

func (s *Session) planOptions(params []uint32, values []dispatch.Param) (plan.Options, error) {
	n := s.numSegments()
	s.rng = s.rng*1664525 + 1013904223
	opt := plan.Options{NumSegments: n, Token: rowsource.NewToken, Replica: int(s.rng>>8) % n, Hash: hashText, Sends: s.sends()}
	// Rows between segments are in UTF-8, which a server reads with no other
	// encoding of the database.
	opt.NoMotions = s.link.params["server_encoding"] != "UTF8"
	opt.Merges, opt.Own = s.mayMerge, s.own()
	opt.Param = func(n int) (string, bool) {
		if n < 1 || n > len(values) || n > len(params) {
			return "", false
		}
		s.unsteady++
		return keyParam(&values[n-1], params[n-1])
	}
	opt.Eval = func(sql string) (string, error) {
		s.unsteady++
		res, err := s.local(sql)
		if err != nil {
			return "", err
		}
		return string(res.value()), nil
	}
	for _, oid := range params {
		name, err := s.typeName(oid)
		if err != nil {
			return opt, err
		}
		opt.ParamTypes = append(opt.ParamTypes, name)
	}
	return opt, nil
}

// hashText places a row by key constants as the planner finds them in a query.
func hashText(types []plan.Column, values []string, n int) (int, bool) {
	oids := make([]uint32, len(types))
	bin := make([][]byte, len(types))
	for i, t := range types {
		oids[i] = t.TypeOID
		b, ok := cdbhash.FromText(t.TypeOID, []byte(values[i]), nil)
		if !ok {
			return 0, false
		}
		bin[i] = b
	}
	h, err := cdbhash.NewHasher(oids)
	if err != nil {
		return 0, false
	}
	seg, err := h.Segment(bin, n)
	return seg, err == nil
}

// typeName is format_type of a parameter's type.
func (s *Session) typeName(oid uint32) (string, error) {
	if name, ok := s.typeNames[oid]; ok {
		return name, nil
	}
	res, err := s.local(fmt.Sprintf("SELECT pg_catalog.format_type(%d, NULL)", oid))
	if err != nil {
		return "", err
	}
	if s.typeNames == nil {
		s.typeNames = map[uint32]string{}
	}
	s.typeNames[oid] = string(res.value())
	return s.typeNames[oid], nil
}

// describeColumns types a statement's result as the coordinator does.
func (s *Session) describeColumns(sql string, params []uint32) ([]plan.Column, error) {
	fields, err := s.describeFields(sql, params)
	if err != nil || len(fields) == 0 {
		return nil, err
	}
	q := "SELECT t.typname IS NULL, pg_catalog.format_type(v.t::oid, v.m) FROM (VALUES "
	for i, f := range fields {
		if i > 0 {
			q += ","
		}
		q += fmt.Sprintf("(%d,%d,%d)", i, f.DataTypeOID, f.TypeModifier)
	}
	res, err := s.local(q + ") v(i, t, m) LEFT JOIN pg_catalog.pg_type t ON t.oid = v.t::oid ORDER BY v.i")
	if err != nil {
		return nil, err
	}
	cols := make([]plan.Column, len(fields))
	for i, f := range fields {
		cols[i] = plan.Column{Name: string(f.Name), TypeOID: f.DataTypeOID, Type: string(res.rows[i][1])}
	}
	return cols, nil
}

// describeFields returns a statement's result fields, remembering the answers
// for as long as the catalog does not change.
func (s *Session) describeFields(sql string, params []uint32) ([]pgproto3.FieldDescription, error) {
	key := fmt.Sprint(params, sql)
	if f, ok := s.cache.fields[key]; ok {
		return f, nil
	}
	s.unnamedLost = true
	_, fields, err := s.link.describe(sql, params)
	if err != nil {
		return nil, err
	}
	if len(s.cache.fields) > 500 {
		clear(s.cache.fields)
	}
	s.cache.fields[key] = fields
	return fields, nil
}

// inItsWords is the local server's own error for a statement that the planner
// refuses, with a position and a hint, if it has one.
func (s *Session) inItsWords(err error, req *request) error {
	var pe *plan.Error
	if !errors.As(err, &pe) || !strings.HasPrefix(pe.Code, "42") {
		return err
	}
	if _, lerr := s.describeFields(req.text, req.types); lerr != nil {
		return lerr
	}
	return err
}

// runSelect answers a SELECT.
func (s *Session) runSelect(req *request, node *pg.Node) error {
	unsteady := s.unsteady
	if known := knownLimits(node, req.params, req.types); known != node {
		node = known
		s.unsteady++ // these values make the plan
	}
	q, err := s.plan(node, req.types, req.params)
	if err != nil {
		return s.inItsWords(err, req)
	}
	s.keepQuick(req, q, unsteady)
	if q.Kind == plan.Gather || q.Fold != nil {
		return s.runPlanned(req, q)
	}
	done, err := s.shadow(req, node)
	if err != nil {
		return err
	}
	return done(s.runPlanned(req, q))
}

// runPlanned answers a SELECT that is planned.
func (s *Session) runPlanned(req *request, q *plan.Query) error {
	switch q.Kind {
	case plan.Local:
		text := req.text
		if q.Top != "" {
			text = q.Top
		}
		return s.runLocal(req, text)
	case plan.Gather:
		if req.describe {
			text := q.Describe
			if text == "" {
				text = req.text
			}
			fields, err := s.describeFields(text, req.types)
			if err != nil {
				return err
			}
			s.out.send(&pgproto3.RowDescription{Fields: withFormats(fields, req.formats)})
		}
		rows := 0
		err := s.gather(req.ctx, q.Slices, req.params, req.formats, func(row []byte) error {
			rows++
			s.out.send(rowBody(row))
			return s.out.err
		})
		if err != nil {
			return err
		}
		s.complete(fmt.Sprintf("SELECT %d", rows))
		return nil
	default:
		var fields []pgproto3.FieldDescription
		if req.describe {
			// What is wrong with the statement is said in terms of the
			// client's text.
			text := q.Describe
			if text == "" {
				text = req.text
			}
			var err error
			if fields, err = s.describeFields(text, req.types); err != nil {
				return err
			}
		}
		if q.Fold != nil && s.analyzing() == nil {
			row, err := s.fold(req, q)
			if err != nil {
				return err
			}
			if req.describe {
				s.out.send(&pgproto3.RowDescription{Fields: withFormats(fields, req.formats)})
			}
			s.out.send(row)
			s.complete("SELECT 1")
			return nil
		}
		set, err := s.openSources(req.ctx, q.Slices, req.params)
		if err != nil {
			return err
		}
		err = s.runExtended(topNow(q), req, func(m pgproto3.BackendMessage) { s.out.send(m) })
		if cerr := set.close(); cerr != nil {
			return cerr
		}
		return err
	}
}

// topNow is the statement that the coordinator's server runs when the sources are
// open.
func topNow(q *plan.Query) string { return cmp.Or(q.TopInPortions, q.Top) }

func withFormats(fields []pgproto3.FieldDescription, formats []int16) []pgproto3.FieldDescription {
	if len(formats) == 0 {
		return fields
	}
	out := cloneFields(fields)
	for i := range out {
		if len(formats) == 1 {
			out[i].Format = formats[0]
		} else if i < len(formats) {
			out[i].Format = formats[i]
		}
	}
	return out
}

// gather runs the first of the slices, whose inputs the others are, and sinks
// its rows (DataRow bodies).
func (s *Session) gather(ctx context.Context, slices []plan.Slice, params []dispatch.Param, formats []int16, sink func([]byte) error) error {
	if err := s.beforeSlices(ctx, slices); err != nil {
		return err
	}
	ds := s.besides(slices, params)
	order := slices[0].Merge
	ds[0].ResultFormats = order.Formats(formats)
	return s.gatherFirst(ctx, ds, merge.New(order, formats), false, sink)
}

// tornTries is how often a statement is begun again whose snapshots on different
// segments do not fit together: it waited for somebody who has committed.
const tornTries = 10

// openWhole opens slices, again if their snapshots are torn, unless the transaction
// has failed with them, and without readers if these are not to be had.
func (s *Session) openWhole(ctx context.Context, slices []dispatch.Slice, open func() (*dispatch.Running, error)) (run *dispatch.Running, err error) {
	for range tornTries {
		run, err = open()
		switch {
		case s.gang.Failed() || ctx.Err() != nil:
			return run, err
		case errors.Is(err, dispatch.ErrReaders):
			s.txn.noReaders = s.gang.InTransaction()
			for i := range slices {
				slices[i].Reader = 0
			}
		case !errors.Is(err, dispatch.ErrTorn):
			return run, err
		}
	}
	return run, err
}

// gatherFirst opens the slices, runs the first of them and sinks its tuples,
// merged unless order is nil. short says that it is likely to have little to do, and
// sends some rows at most.
func (s *Session) gatherFirst(ctx context.Context, slices []dispatch.Slice, order *merge.Merger, short bool, sink func([]byte) error) error {
	var end *reception
	run, err := s.openWhole(ctx, slices, func() (run *dispatch.Running, err error) {
		s.command++
		if end, err = s.reception(s.command, slices[0].Index); err != nil {
			return nil, err
		}
		begin := end.run()
		begin.Short = short && begin.Receive != nil // the rows have to go somewhere
		short = false                               // what waits for others will again
		if run, err = s.gang.Open(ctx, s.command, slices, &begin); err != nil {
			end.abort()
		}
		return run, err
	})
	if err != nil {
		return err
	}
	rerr := end.rows(run, order, sink)
	ferr := s.finishRunning(run)
	if ferr == nil && rerr == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return betterError(rerr, ferr)
}

// finishRunning waits for the QEs, whatever has become of the statement.
func (s *Session) finishRunning(run *dispatch.Running) error {
	ctx, done := context.WithTimeout(context.WithoutCancel(s.ctx), cleanupLimit)
	defer done()
	defer s.motionsEnd(run.Command())
	err := run.Finish(ctx)
	if a := s.analyzing(); a != nil {
		a.count(run)
	}
	return err
}

// rows runs any SELECT and sinks its rows with the given result formats: the
// way of statements that need a query's rows themselves.
func (s *Session) rows(ctx context.Context, node *pg.Node, params []dispatch.Param, types []uint32, formats []int16, sink func([]byte) error) error {
	q, err := s.plan(node, types, params)
	if err != nil {
		return err
	}
	return s.rowsOf(ctx, q, node, params, types, formats, sink)
}

// rowsOf is rows for a query that is planned already.
func (s *Session) rowsOf(ctx context.Context, q *plan.Query, node *pg.Node, params []dispatch.Param, types []uint32, formats []int16, sink func([]byte) error) (err error) {
	a := s.analyzing()
	if a != nil {
		defer a.sourceEnds()
	}
	if q.Kind == plan.Gather {
		if a != nil {
			if sink, err = s.sourceBegins(ctx, a, q, "", sink); err != nil {
				return err
			}
		}
		return s.gather(ctx, q.Slices, params, formats, sink)
	}
	done, err := s.shadow(&request{ctx: ctx, params: params}, node)
	if err != nil {
		return err
	}
	defer func() { err = done(err) }()
	top := topNow(q)
	if top == "" {
		if top, err = plan.Deparse(node); err != nil {
			return err
		}
	}
	if a != nil {
		if sink, err = s.sourceBegins(ctx, a, q, top, sink); err != nil {
			return err
		}
	}
	var set *sources
	if q.Kind == plan.Top {
		if set, err = s.openSources(ctx, q.Slices, params); err != nil {
			return err
		}
	}
	var failed error
	var buf []byte
	err = s.runExtended(top, &request{ctx: ctx, params: params, types: types, formats: formats}, func(m pgproto3.BackendMessage) {
		if row, ok := m.(*pgproto3.DataRow); ok && failed == nil {
			buf, failed = appendRowBody(buf[:0], row.Values), nil
			failed = sink(buf)
		}
	})
	s.pending = nil
	if set != nil {
		if cerr := set.close(); cerr != nil {
			return cerr
		}
	}
	if err == nil {
		err = failed
	}
	return err
}

// appendRowBody appends values in the form of a DataRow's body.
func appendRowBody(dst []byte, values [][]byte) []byte {
	dst = append(dst, byte(len(values)>>8), byte(len(values)))
	for _, v := range values {
		n := uint32(len(v))
		if v == nil {
			n = 1<<32 - 1
		}
		dst = append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		dst = append(dst, v...)
	}
	return dst
}

// columnsOf types the result of a query that is planned.
func (s *Session) columnsOf(node *pg.Node, q *plan.Query, params []uint32) ([]plan.Column, error) {
	text := q.Describe
	if text == "" && q.Kind == plan.Local {
		text = q.Top
	}
	if text == "" {
		var err error
		if text, err = plan.Deparse(node); err != nil {
			return nil, err
		}
	}
	return s.describeColumns(text, params)
}

// topOf turns a plan into one statement for the local server, so that it can
// be the body of a cursor, a COPY or an EXPLAIN. Slices is nil when it needs
// no sources; with portions those of many rows are read as they come, once.
func (s *Session) topOf(node *pg.Node, params []uint32, portions bool) (sql string, slices []plan.Slice, q *plan.Query, err error) {
	if q, err = s.plan(node, params, nil); err != nil {
		return "", nil, nil, err
	}
	switch q.Kind {
	case plan.Local:
		if q.Top != "" {
			return q.Top, nil, q, nil
		}
		sql, err = plan.Deparse(node)
		return sql, nil, q, err
	case plan.Top:
		if portions {
			return topNow(q), q.Slices, q, nil
		}
		return q.Top, q.Slices, q, nil
	}
	cols, err := s.columnsOf(node, q, params)
	if err != nil {
		return "", nil, nil, err
	}
	sl := q.Slices[0]
	sl.Token, sl.Columns = rowsource.NewToken(), cols
	sl.Large = portions && plan.Portions(sl.Rows)
	sql = "SELECT "
	defs := make([]plan.Column, len(cols))
	for i, c := range cols {
		if i > 0 {
			sql += ", "
		}
		defs[i] = plan.Column{Name: fmt.Sprintf("c%d", i), Type: c.Type}
		sql += defs[i].Name + " AS " + catalog.Ident(c.Name)
	}
	if len(cols) == 0 {
		defs = []plan.Column{{Name: "c0", Type: "boolean"}}
	}
	sql += " FROM " + plan.RowSource(&sl, "t", defs)
	return sql, append([]plan.Slice{sl}, q.Slices[1:]...), q, nil
}
