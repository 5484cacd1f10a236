package session

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// Which executors run the slices of a statement: the session's own, or readers beside
// them, so that a slice that sends many rows runs at the same time as the one that has
// them. Only the session's own see its temporary tables and what its transaction has
// written.

// changes are what a transaction has written that readers do not see.
type changes struct {
	tables map[uint32]bool // by OID
	names  []string        // of those that are new
	// other: more than rows of certain tables, such as definitions, or rows of
	// partitions that are not known.
	other bool
}

// note notes a change of r, which is nil where it is not known.
func (c *changes) note(r *relation) {
	if r == nil || r.HasChildren {
		c.other = true
		return
	}
	c.table(r)
}

// made notes a table that is new, with all its rows.
func (c *changes) made(r *relation) {
	c.names = append(c.names, r.Name)
	c.table(r)
}

func (c *changes) table(r *relation) {
	if c.tables == nil {
		c.tables = map[uint32]bool{}
	}
	c.tables[r.OID] = true
}

// sight is what the readers of a statement would see.
type sight struct {
	blind   bool // there are none
	changed changes
}

// sight is that of a statement that begins now.
func (s *Session) sight() sight {
	changed := s.txn.changed
	changed.tables = maps.Clone(changed.tables)
	return sight{blind: !s.readersSee(), changed: changed}
}

// sees says whether readers see all that a slice reads.
func (v sight) sees(sl *plan.Slice) bool {
	if v.blind || sl.Temp || v.changed.other {
		return false
	}
	if len(v.changed.tables) == 0 {
		return true
	}
	// A new table may be named as its row type is, or as a constant.
	return !slices.ContainsFunc(v.changed.names, func(name string) bool { return strings.Contains(sl.SQL, name) }) &&
		!slices.ContainsFunc(sl.Tables, v.changed.hide)
}

// hide says whether readers may not see all that is read of a table, where some have been
// changed: what is changed may be a child of it, or stand in a policy.
func (c *changes) hide(r *plan.Relation) bool {
	return c.tables[r.OID] || r.HasChildren || r.Indirect || r.OID < firstNormalOID
}

// own is what the planner asks which tables only the session's own executors see; nil
// where there are none, or these run everything.
func (s *Session) own() func(*plan.Relation) bool {
	v := s.sight()
	if v.blind || v.changed.other {
		return nil
	}
	written := len(v.changed.tables) > 0
	return func(r *plan.Relation) bool { return r.Temp || r.TempChildren || written && v.changed.hide(r) }
}

// readersSee says whether a statement that begins now can have readers.
func (s *Session) readersSee() bool { return s.gang.ReadersSee() && !s.txn.noReaders }

// share has readers have the snapshots of the transaction, if they can.
func (s *Session) share(ctx context.Context) error {
	if s.gang.Shares() || !s.readersSee() {
		return nil
	}
	err := s.gang.Share(ctx)
	if errors.Is(err, dispatch.ErrReaders) {
		s.txn.noReaders, err = true, nil
	}
	return err
}

// maxReaders is how many executors a statement has at most beside the session's own
// on a segment; more slices than that take turns. Each is a server process, and more
// of them than there are processors to run on only get in each other's way.
const maxReaders = 3

// readers is how many there are where segments share this machine.
func readers(segments int) int {
	return min(max(1, runtime.GOMAXPROCS(0)/max(1, segments)), maxReaders)
}

// placement says who runs each of a statement's slices, as dispatch.Slice.Reader does.
type placement []int

// nobody writes: the slices of a statement that only reads.
const nobody = -1

// place places slices, of which that with the index writer is for the session's own
// executors, as are those that readers do not see the rows of, and all where some lock
// rows. Slices that send many rows have readers in turn, and so have those that read many
// of what the session's own executors must send. None shares its executor with the one
// that reads its many rows, if that can be.
func (v sight) place(sls []plan.Slice, writer, most int) placement {
	at := make(placement, len(sls))
	if v.blind || locksRows(sls) {
		return at
	}
	own := func(i int) bool { return i == writer || !v.sees(&sls[i]) }
	n := 0
	for i := range sls {
		if own(i) || !sends(&sls[i]) && !slices.ContainsFunc(inputs(sls, i), own) {
			continue
		}
		next := 1 + n%most
		if n++; sends(&sls[i]) && next == at[sls[i].To] {
			next = (next + 1) % (most + 1)
		}
		at[i] = next
	}
	return at
}

// sends says whether a slice sends many rows to others.
func sends(sl *plan.Slice) bool { return sl.Large && sl.Motion != plan.GatherMotion }

// inputs are the slices that send many rows to slice i.
func inputs(sls []plan.Slice, i int) (from []int) {
	for k := range sls {
		if sends(&sls[k]) && sls[k].To == i {
			from = append(from, k)
		}
	}
	return from
}

// apart says whether slice i has some of its many rows from another executor, as they
// are made.
func (at placement) apart(sls []plan.Slice, i int) bool {
	return slices.ContainsFunc(inputs(sls, i), func(k int) bool { return at[k] != at[i] })
}

// inTurn is the first slice that sends its many rows to one on the same executor, -1 if
// there is none.
func (at placement) inTurn(sls []plan.Slice) int {
	for i := range sls {
		if sends(&sls[i]) && at[i] == at[sls[i].To] {
			return i
		}
	}
	return -1
}

// sql is what a segment runs for slice i.
func (at placement) sql(sls []plan.Slice, i int) string {
	if sl := &sls[i]; sl.InPortions != "" && at.apart(sls, i) {
		return sl.InPortions
	}
	return sls[i].SQL
}

// placed places slices that read, for a statement that begins now.
func (s *Session) placed(sls []plan.Slice) placement {
	return s.sight().place(sls, nobody, readers(s.numSegments()))
}

// besides are slices that read, as dispatched.
func (s *Session) besides(sls []plan.Slice, params []dispatch.Param) []dispatch.Slice {
	return s.dispatchedAt(s.placed(sls), sls, params)
}

// dispatchedAt is dispatched for slices that are placed.
func (s *Session) dispatchedAt(at placement, sls []plan.Slice, params []dispatch.Param) []dispatch.Slice {
	ds := s.dispatched(sls, params)
	for i := range sls {
		ds[i].SQL, ds[i].Reader = at.sql(sls, i), at[i]
	}
	if a := s.analyzing(); a != nil {
		a.runs(ds)
	}
	return ds
}
