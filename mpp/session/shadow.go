package session

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// A function that runs on the coordinator reads the coordinator's copies of
// distributed tables, which are empty. Each table that the statement or the
// functions it calls name gets its rows for as long as the statement runs: in
// a temporary table that inherits from the copy (gp_fill), or, where that is
// not possible, in a temporary view that hides the copy. When the statement is
// over it is asked whether any other copy was read; then the answer is wrong,
// and the statement fails (gp_watched).

// watched is what gp_watch says.
type watched struct {
	raw      []byte
	ReadOnly bool
	Readable []uint32
}

// shadow readies the coordinator for the functions that a statement calls. The
// returned function must be called, with the statement's error, when the
// statement is over; it returns the statement's error or one of its own.
func (s *Session) shadow(req *request, n *pg.Node) (func(error) error, error) {
	r, err := s.functionReads(n, req.params)
	if err != nil {
		return nil, err
	}
	return s.shadowReads(req.ctx, r)
}

func (s *Session) shadowReads(ctx context.Context, r *functionReads) (func(error) error, error) {
	if !r.calls {
		return func(err error) error { return err }, nil
	}
	begun := s.link.status == 'I' && !s.link.unsynced
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return nil, err
		}
	}
	w, err := s.watch(ctx, r)
	if err != nil {
		return nil, err
	}
	// The session's own transaction can be read-only later.
	late := begun && w.ReadOnly && len(w.Readable) > 0
	if late {
		if _, err := s.local("ROLLBACK; BEGIN READ WRITE"); err != nil {
			return nil, err
		}
		if w, err = s.watch(ctx, r); err != nil {
			return nil, err
		}
	}
	sh, err := s.fill(ctx, r, w, false)
	if err != nil {
		return nil, err
	}
	if late && len(sh.views) == 0 {
		if _, err := s.local("SET TRANSACTION READ ONLY"); err != nil {
			_ = sh.close()
			return nil, err
		}
		sh.children = nil // they go with the transaction
	}
	return func(err error) error {
		if cerr := sh.close(); err == nil {
			err = cerr
		}
		if err != nil || s.link.status != 'T' {
			return err
		}
		if r.setsParameters() {
			s.settingsChanged()
		}
		_, err = s.local(fmt.Sprintf("SELECT pg_catalog.gp_watched(%s);", literal(string(w.raw))) + sh.drop())
		return withoutContext(err)
	}, nil
}

// watch begins to count scans.
func (s *Session) watch(ctx context.Context, r *functionReads) (*watched, error) {
	// What gp_watch sets is none of the segments' business.
	if err := s.syncSettings(ctx); err != nil {
		return nil, err
	}
	s.txn.functions = true
	var tables []uint32
	for _, t := range r.tables {
		tables = append(tables, t.OID)
	}
	res, err := s.local("SELECT pg_catalog.gp_watch(" + oids(tables) + ")")
	if err != nil {
		return nil, withoutContext(err)
	}
	w := &watched{raw: res.value()}
	return w, json.Unmarshal(w.raw, w)
}

// shadows are what stands in for the coordinator's copies.
type shadows struct {
	s        *Session
	set      *sources
	children []uint32 // gp_fill's tables
	views    []string
}

// fill gives the tables their rows, for this transaction or, if lasting, until
// they are taken away again.
func (s *Session) fill(ctx context.Context, r *functionReads, w *watched, lasting bool) (*shadows, error) {
	sh := &shadows{s: s}
	readable := map[uint32]bool{}
	for _, oid := range w.Readable {
		readable[oid] = !w.ReadOnly
	}
	type child struct {
		oid   uint32
		token string
	}
	var children []child
	var views []string
	var slices []plan.Slice
	var locks []plan.Lock
	for _, t := range r.tables {
		if !readable[t.OID] {
			continue // when it is read nonetheless, gp_watched says so
		}
		rel, err := s.relation(t.Schema, t.Name)
		if err != nil {
			return nil, err
		}
		if rel == nil || rel.Policy == nil {
			continue
		}
		only := ""
		if !t.hide {
			only = "ONLY "
		} else if seen, err := s.relation("", t.Name); err != nil {
			return nil, err
		} else if seen == nil || seen.OID != t.OID {
			continue // the name means something else here
		}
		query, err := parseOne("SELECT * FROM " + only + rel.name())
		if err != nil {
			return nil, err
		}
		sql, sl, _, err := s.topOf(query, nil, false)
		if err != nil {
			return nil, err
		}
		if only != "" {
			if len(sl) != 1 {
				return nil, internal("the rows of %s come in %d slices", rel.Name, len(sl))
			}
			c := child{oid: t.OID, token: rowsource.NewToken()}
			sl[0].Token = fmt.Sprintf("rows %d %s", c.oid, c.token)
			children = append(children, c)
		} else {
			views = append(views, fmt.Sprintf("CREATE TEMP VIEW %s AS %s;", ident(t.Name), sql))
			sh.views = append(sh.views, t.Name)
		}
		slices = append(slices, sl...)
		locks = append(locks, plan.Lock{Name: plan.Name{Schema: rel.sqlSchema(), Name: rel.Name}, Strength: "FOR UPDATE", IfMay: true})
	}
	if len(slices) == 0 {
		return sh, nil
	}
	if r.locksRows() && !w.ReadOnly { // else the local server will refuse it
		slices[0].Locks = locks
	}
	set, err := s.openSources(ctx, slices, nil)
	if err != nil {
		return nil, err
	}
	sh.set = set
	for _, c := range children {
		res, err := s.local(fmt.Sprintf("SELECT pg_catalog.gp_fill(%d, '%s', %t)", c.oid, c.token, lasting))
		if err != nil {
			_ = set.close()
			return nil, betterError(withoutContext(err), set.err())
		}
		var oid uint32
		if _, err := fmt.Sscan(string(res.value()), &oid); err != nil {
			_ = set.close()
			return nil, internal("gp_fill says %q", res.value())
		}
		sh.children = append(sh.children, oid)
	}
	// A function may read a view more than once.
	err = set.settle()
	if err == nil {
		// Plans that functions have kept still mean the copies alone.
		_, err = s.local(strings.Join(views, "") + "DISCARD PLANS")
	}
	if err != nil {
		_ = set.close()
		return nil, err
	}
	return sh, nil
}

// close ends the views' sources.
func (sh *shadows) close() error {
	if sh.set == nil {
		return nil
	}
	return sh.set.close()
}

// drop is what takes the rows away again.
func (sh *shadows) drop() string {
	if sh.set == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT pg_catalog.gp_unfill(%s);", oids(sh.children))
	for _, v := range sh.views {
		fmt.Fprintf(&b, "DROP VIEW pg_temp.%s;", ident(v))
	}
	return b.String() + "DISCARD PLANS"
}

// oids is an array of them for SQL.
func oids(list []uint32) string {
	return "'{" + strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]") + "}'::oid[]"
}
