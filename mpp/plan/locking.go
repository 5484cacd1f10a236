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
		}
	}
	return locks
}

// lockedTables are the tables that a level, which has just been bound, locks rows of.
func (lv *level) lockedTables() (locks []Lock) {
	for _, n := range lv.sel.LockingClause {
		c := n.GetLockingClause()
		lv.lockedBy(c, func(r *rte) {
			locks = join(locks, []Lock{{Name: Name{relSchema(r.rel), r.rel.Name}, Strength: strength(c),
				NoWait: c.WaitPolicy == pg.LockWaitPolicy_LockWaitError}})
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

// lockedBy calls fn for the base tables of a level that a clause is about.
func (lv *level) lockedBy(c *pg.LockingClause, fn func(*rte)) {
	for _, r := range lv.rtes {
		of := len(c.LockedRels) == 0 || slices.ContainsFunc(c.LockedRels, func(n *pg.Node) bool {
			return n.GetRangeVar().GetRelname() == r.alias
		})
		if of {
			r.baseTables(fn)
		}
	}
}

// baseTables calls fn for the tables of the segments that a row source is, or whose
// rows a sub-select's are made of.
func (r *rte) baseTables(fn func(*rte)) {
	switch {
	case r.kind == rteGather && !r.random:
		fn(r)
	case r.kind == rteSub && r.sub != nil:
		r.sub.baseTables(fn)
	}
}

func (lv *level) baseTables(fn func(*rte)) {
	if lv.isSet() {
		for _, arm := range lv.arms {
			arm.baseTables(fn)
		}
		return
	}
	for _, r := range lv.rtes {
		r.baseTables(fn)
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
// below it, locks: each of them is in one place, and read there.
func (p *planner) locksRows(lv *level) bool {
	locking, there := false, len(p.moves) == 0
	lv.each(func(l *level) bool {
		for _, n := range l.sel.LockingClause {
			l.lockedBy(n.GetLockingClause(), func(r *rte) {
				locking = true
				there = there && r.owner == "" && r.first == nil && r.rel.Policy.Kind != Replicated
			})
		}
		return there
	})
	return locking && there
}
