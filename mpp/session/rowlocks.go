package session

import (
	"context"
	"slices"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// lockTables locks tables whose rows a statement locks where no slice can do it, until
// the transaction ends; a statement outside a block is one.
func (s *Session) lockTables(ctx context.Context, locks []plan.Lock) error {
	if len(locks) == 0 {
		return nil
	}
	res, err := s.local("SELECT pg_catalog.current_setting('transaction_read_only')")
	if err != nil {
		return err
	}
	if string(res.value()) == "on" {
		return sqlError("25006", "cannot execute SELECT %s in a read-only transaction", locks[0].Strength)
	}
	if err := s.beginLocking(ctx); err != nil {
		return err
	}
	for _, l := range locks {
		table := catalog.Ident(l.Name.Schema) + "." + catalog.Ident(l.Name.Name)
		if l.IfMay {
			res, err := s.local("SELECT pg_catalog.has_table_privilege(" + catalog.Literal(table) + ", 'UPDATE, DELETE, TRUNCATE')")
			if err != nil {
				return err
			}
			if string(res.value()) != "t" {
				continue
			}
		}
		sql := "LOCK TABLE " + table + " IN EXCLUSIVE MODE"
		if l.NoWait {
			sql += " NOWAIT"
		}
		s.gang.MarkLocked()
		if err := s.gang.Lock(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// beginLocking begins the transaction of a statement that locks something, which may not
// be all of it.
func (s *Session) beginLocking(ctx context.Context) error {
	if err := s.beginWrite(); err != nil || s.gang.InTransaction() {
		return err
	}
	return s.gang.Begin(ctx, "")
}

// locksRows says whether a statement's slices lock rows, which only the transaction of
// the session's own executors keeps.
func locksRows(sls []plan.Slice) bool {
	return slices.ContainsFunc(sls, func(sl plan.Slice) bool { return sl.LocksRows })
}

// lockedBy names the tables that a statement of these slices locks as a whole.
func lockedBy(sls []plan.Slice) (names []string) {
	if len(sls) > 0 {
		for _, l := range sls[0].Locks {
			names = append(names, l.Name.Schema+"."+l.Name.Name)
		}
	}
	return names
}
