package session

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// PostgreSQL waits for a table's lock while it analyzes a statement, so what it does then
// is made for the table as it is. Here a statement is planned before segments are asked
// for locks, mostly with what is known of tables from before. So a session that locks
// tables to change what they are says so to all others, who wait for it on the
// coordinator, where deadlocks are found and the user's own limits end the wait, before
// they plan anything with them.

// definitions are the tables that transactions have locked against all others.
type definitions struct {
	some atomic.Int64 // how many there are

	mu sync.Mutex
	by map[definedTable]*definer
}

type definedTable struct {
	database string
	oid      uint32
}

// definer is a transaction that defines tables.
type definer struct {
	s      *Session
	tables []definedTable
}

// add notes tables of a transaction.
func (d *definitions) add(by *definer, oids []uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[definedTable]*definer{}
	}
	for _, oid := range oids {
		t := definedTable{by.s.client.Database, oid}
		switch d.by[t] {
		case by:
			continue
		case nil:
			d.some.Add(1)
		default: // the one before has ended on the coordinator
		}
		d.by[t], by.tables = by, append(by.tables, t)
	}
}

// end forgets a transaction.
func (d *definitions) end(by *definer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range by.tables {
		if d.by[t] == by {
			delete(d.by, t)
			d.some.Add(-1)
		}
	}
}

// other is another session's transaction that defines a table, nil for none.
func (d *definitions) other(s *Session, oid uint32) *definer {
	if d.some.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if by := d.by[definedTable{s.client.Database, oid}]; by != nil && by.s != s {
		return by
	}
	return nil
}

// defines notes tables that the transaction has locked against all others on the
// coordinator.
func (s *Session) defines(oids []uint32) {
	if len(oids) == 0 {
		return
	}
	if s.txn.definer == nil {
		s.txn.definer = &definer{s: s}
	}
	s.srv.definitions.add(s.txn.definer, oids)
}

// endDefining has others know that the transaction has ended.
func (s *Session) endDefining() {
	if s.txn.definer != nil {
		s.srv.definitions.end(s.txn.definer)
		s.txn.definer = nil
	}
}

// awaitedFor is another session's transaction that defines a table and has not come to
// its end on the coordinator as far as this session knows; nil for none.
func (s *Session) awaitedFor(oid uint32) *definer {
	if by := s.srv.definitions.other(s, oid); by != s.awaited {
		return by
	}
	return nil
}

// awaitDefinition waits until the transaction by, which defines r, has come to its end on
// the coordinator.
func (s *Session) awaitDefinition(by *definer, r *relation) error {
	_, err := s.local(fmt.Sprintf("SELECT pg_catalog.gp_await_definition(%d)", r.OID))
	if err != nil {
		return withoutContext(err)
	}
	s.awaited = by // who may have to tell segments yet
	s.cache.reset(s.cache.tick)
	return nil
}

// beingDefined says whether another transaction defines one of the tables that slices
// read.
func (s *Session) beingDefined(sls []plan.Slice) bool {
	return s.srv.definitions.some.Load() > 0 && slices.ContainsFunc(sls, func(sl plan.Slice) bool {
		return slices.ContainsFunc(sl.Tables, func(r *plan.Relation) bool { return s.awaitedFor(r.OID) != nil })
	})
}
