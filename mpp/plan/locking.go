package plan

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// FOR UPDATE and its kin. The segments lock the rows that they read where all of them
// stay where they are. Else a row is joined, maybe, where it does not lie, and the tables
// are locked as a whole, as Greenplum does it.

// Lock is a table that a statement locks rows of, FOR UPDATE or the like, which its
// slices do not. It is to be locked IN EXCLUSIVE MODE before the slices' snapshots are
// taken.
type Lock struct {
	Name     Name
	Strength string // "FOR UPDATE" and so on
	NoWait   bool   // NOWAIT was said; SKIP LOCKED of a table is to wait for it
	// IfMay: who has no right to lock the table has one to lock the rows, by a view or a
	// function. They are not locked then.
	IfMay bool
}

// lock notes what is to be locked before a slice is opened: tables whose rows the
// statement locks and no slice does.
func (q *Query) lock(lv *level) {
	if len(q.Slices) == 0 {
		return
	}
	lv.each(func(l *level) bool {
		if !l.locked {
			q.Slices[0].Locks = join(q.Slices[0].Locks, l.locks)
		}
		return true
	})
}

// join adds locks to others, each table once.
func join(locks, more []Lock) []Lock {
	for _, l := range more {
		at := slices.IndexFunc(locks, func(o Lock) bool { return o.Name == l.Name })
		if at < 0 {
			locks = append(locks, l)
		} else {
			locks[at].NoWait = locks[at].NoWait || l.NoWait
			locks[at].IfMay = locks[at].IfMay && l.IfMay
		}
	}
	return locks
}

// lockedTables are the tables that a level, which has just been bound, locks rows of.
func (lv *level) lockedTables() (locks []Lock) {
	for _, n := range lv.sel.LockingClause {
		c := n.GetLockingClause()
		lv.lockedBy(c, func(r *rte, viewed bool) {
			locks = join(locks, []Lock{{Name: Name{relSchema(r.rel), r.rel.Name}, Strength: strength(c),
				NoWait: c.WaitPolicy == pg.LockWaitPolicy_LockWaitError, IfMay: viewed}})
		})
	}
	return locks
}

// locksBelow says whether a level below locks rows.
func (lv *level) locksBelow() (locks bool) {
	lv.each(func(l *level) bool {
		locks = locks || l != lv && len(l.locks) > 0
		return !locks
	})
	return locks
}

// lockedBy calls fn for the base tables of a level that a clause is about, and says
// whether they are those of a view.
func (lv *level) lockedBy(c *pg.LockingClause, fn func(r *rte, viewed bool)) {
	for _, r := range lv.rtes {
		of := len(c.LockedRels) == 0 || slices.ContainsFunc(c.LockedRels, func(n *pg.Node) bool {
			return n.GetRangeVar().GetRelname() == r.alias
		})
		if of {
			r.baseTables(false, fn)
		}
	}
}

// baseTables calls fn for the tables of the segments that a row source is, or whose
// rows a sub-select's are made of.
func (r *rte) baseTables(viewed bool, fn func(*rte, bool)) {
	switch {
	case r.kind == rteGather && !r.random:
		fn(r, viewed)
	case r.kind != rteSub || r.sub == nil || r.isView() && r.sub.isSet(): // PostgreSQL locks none of the last
	default:
		r.sub.baseTables(viewed || r.isView(), fn)
	}
}

func (lv *level) baseTables(viewed bool, fn func(*rte, bool)) {
	if lv.isSet() {
		for _, arm := range lv.arms {
			arm.baseTables(viewed, fn)
		}
		return
	}
	for _, r := range lv.rtes {
		r.baseTables(viewed, fn)
	}
}

func strength(c *pg.LockingClause) string {
	switch c.Strength {
	case pg.LockClauseStrength_LCS_FORKEYSHARE:
		return "FOR KEY SHARE"
	case pg.LockClauseStrength_LCS_FORSHARE:
		return "FOR SHARE"
	case pg.LockClauseStrength_LCS_FORNOKEYUPDATE:
		return "FOR NO KEY UPDATE"
	}
	return "FOR UPDATE"
}

// locksRows says whether segments that run a level lock the rows that it, or a level
// below it, locks: each of them is in one place, and read there. A view in such a
// statement is a sub-select, of which PostgreSQL asks for more rights.
func (p *planner) locksRows(lv *level) bool {
	locking, there := false, len(p.moves) == 0
	lv.each(func(l *level) bool {
		for _, n := range l.sel.LockingClause {
			l.lockedBy(n.GetLockingClause(), func(r *rte, _ bool) {
				locking = true
				there = there && r.owner == "" && r.first == nil && r.rel.Policy.Kind != Replicated
			})
			there = there && !slices.ContainsFunc(l.rtes, (*rte).isView)
		}
		return there
	})
	return locking && there
}

// locking says whether a statement locks rows.
func locking(sel *pg.SelectStmt) bool {
	found := false
	walk(selectNode(sel), func(m any) bool {
		if s, ok := m.(*pg.SelectStmt); ok {
			found = found || len(s.LockingClause) > 0
		}
		return !found
	})
	return found
}
