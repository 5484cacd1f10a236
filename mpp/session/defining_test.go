package session

import (
	"testing"

	"github.com/trunkline-db/trunkline/mpp/auth"
)

// TestDefinitions: a table is the last one's who defines it, whoever ends first, and of
// one database.
func TestDefinitions(t *testing.T) {
	var d definitions
	in := func(database string) *Session { return &Session{client: &auth.Client{Database: database}} }
	a, b, c, elsewhere := in("x"), in("x"), in("x"), in("y")
	first, second := &definer{s: a}, &definer{s: b}
	look := func(what string, s *Session, oid uint32, want *definer) {
		t.Helper()
		if got := d.other(s, oid); got != want {
			t.Errorf("%s: %p, want %p", what, got, want)
		}
	}
	look("nothing", c, 1, nil)
	d.add(first, []uint32{1, 2})
	d.add(first, []uint32{2})
	look("another's", c, 1, first)
	look("its own", a, 1, nil)
	look("another database's", elsewhere, 1, nil)
	d.add(second, []uint32{2, 3})
	look("the second's", c, 2, second)
	look("the second's, for the first", a, 2, second)
	d.end(first)
	look("ended", c, 1, nil)
	look("not ended", c, 2, second)
	d.end(second)
	if look("all ended", c, 2, nil); d.some.Load() != 0 || len(d.by) != 0 {
		t.Errorf("%d tables are left, of which there are %d", d.some.Load(), len(d.by))
	}
}

// TestSessionDefines: others know of a session's tables until its transaction ends, or its
// client has gone, and no longer once they have waited for it.
func TestSessionDefines(t *testing.T) {
	srv := &Server{}
	s := &Session{srv: srv, client: &auth.Client{Database: "x"}}
	other := &Session{srv: srv, client: &auth.Client{Database: "x"}}
	for range 2 {
		s.defines(nil)
		if s.txn.definer != nil {
			t.Error("it defines nothing")
		}
		s.defines([]uint32{7})
		s.defines([]uint32{7, 8})
		by := other.awaitedFor(8)
		if by == nil || by != other.awaitedFor(7) || s.awaitedFor(7) != nil {
			t.Errorf("defined by %p and %p", other.awaitedFor(7), by)
		}
		other.awaited = by
		if other.awaitedFor(7) != nil {
			t.Error("it is waited for again")
		}
		s.endDefining()
		s.endDefining()
		if n := srv.definitions.some.Load(); n != 0 || len(srv.definitions.by) > 0 {
			t.Errorf("%d tables are defined for good", n)
		}
	}
}
