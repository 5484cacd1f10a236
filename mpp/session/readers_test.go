package session

import (
	"fmt"
	"testing"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestPlace: slices with many rows for others have readers, in turn, none of them that of
// the slice that reads it; those that read them do so in portions.
func TestPlace(t *testing.T) {
	const to = plan.RedistributeMotion
	slices := []plan.Slice{{SQL: "top", InPortions: "top in portions", To: -1, Large: true}, {SQL: "few", Motion: to},
		{SQL: "chain", InPortions: "chain in portions", Motion: to, Large: true}}
	for i, reader := range []int{0, 0, 2, 5} {
		slices = append(slices, plan.Slice{SQL: fmt.Sprint("many ", i), Motion: to, To: reader, Large: true})
	}
	for most, want := range map[int]string{
		1: "top in portions 0, few 0, chain in portions 1, many 0 1, many 1 1, many 2 0, many 3 1, ",
		3: "top in portions 0, few 0, chain in portions 1, many 0 2, many 1 3, many 2 2, many 3 3, ",
	} {
		if got := placedAs(t, slices, sight{}, nobody, most, true); got != want {
			t.Errorf("%d readers: got %s", most, got)
		}
	}
	if got, want := placedAs(t, slices, sight{blind: true}, nobody, 3, false), "top 0, few 0, chain 0, many 0 0, many 1 0, many 2 0, many 3 0, "; got != want {
		t.Errorf("without readers: got %s", got)
	}
}

// placedAs says what slices are run as, and by whom. apart: none shares its executor with
// the one that reads it.
func placedAs(t *testing.T, slices []plan.Slice, v sight, writer, most int, apart bool) (got string) {
	t.Helper()
	at := v.place(slices, writer, most)
	for i := range slices {
		got += fmt.Sprintf("%s %d, ", at.sql(slices, i), at[i])
		if !v.sees(&slices[i]) && at[i] != 0 {
			t.Errorf("%s has a reader, who does not see what it reads", slices[i].SQL)
		}
	}
	if i := at.inTurn(slices); (i < 0) != apart {
		t.Errorf("in turn is %d", i)
	}
	return got
}

// TestPlaceHidden: what readers do not see is for the session's own executors, and who
// reads that, and nothing of the kind, has a reader.
func TestPlaceHidden(t *testing.T) {
	const to = plan.RedistributeMotion
	a, b := &plan.Relation{OID: 20001}, &plan.Relation{OID: 20002}
	parent, view := &plan.Relation{OID: 20003, HasChildren: true}, &plan.Relation{OID: 20004, Indirect: true}
	catalog := &plan.Relation{OID: 1259}
	madeA := sight{}
	madeA.changed.made(&relation{Relation: plan.Relation{OID: 20001, Name: "fresh"}})
	of := func(tables ...*plan.Relation) []*plan.Relation { return tables }
	wrote := func(r *relation) (v sight) {
		v.changed.note(r)
		return v
	}
	wroteA := wrote(&relation{Relation: *a})
	for name, tc := range map[string]struct {
		v      sight
		writer int
		slices []plan.Slice
		want   string
		apart  bool
	}{
		"joined by somebody else": {wroteA, nobody, []plan.Slice{{SQL: "join", InPortions: "join in portions", To: -1},
			{SQL: "a", Motion: to, Large: true, Tables: of(a)}, {SQL: "b", Motion: to, Large: true, Tables: of(b)}},
			"join in portions 1, a 0, b 2, ", true},
		"sent to where another is": {wroteA, nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "a", Motion: to, Large: true, Tables: of(a)}},
			"join b in portions 1, a 0, ", true},
		"where another is sent to": {wroteA, nobody, []plan.Slice{{SQL: "join a", InPortions: "join a in portions", To: -1, Tables: of(a)},
			{SQL: "b", Motion: to, Large: true, Tables: of(b)}},
			"join a in portions 0, b 1, ", true},
		"both": {wroteA, nobody, []plan.Slice{{SQL: "join a", InPortions: "join a in portions", To: -1, Tables: of(a)},
			{SQL: "a", Motion: to, Large: true, Tables: of(a, b)}},
			"join a 0, a 0, ", false},
		"a few rows": {wroteA, nobody, []plan.Slice{{SQL: "join b", To: -1, Tables: of(b)}, {SQL: "a", Motion: to, Tables: of(a)}},
			"join b 0, a 0, ", true},
		"temporary tables": {sight{}, nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "temp", Motion: to, Large: true, Temp: true}},
			"join b in portions 1, temp 0, ", true},
		"a parent of what is written": {wroteA, nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "parent", Motion: to, Large: true, Tables: of(parent)}},
			"join b in portions 1, parent 0, ", true},
		"what may depend on what is written": {wroteA, nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "view", Motion: to, Large: true, Tables: of(view)}, {SQL: "catalog", Motion: to, Large: true, Tables: of(catalog)}},
			"join b in portions 1, view 0, catalog 0, ", true},
		"that would if anything were written": {sight{}, nobody, []plan.Slice{{SQL: "join view", InPortions: "join view in portions", To: -1, Tables: of(view)},
			{SQL: "catalog", Motion: to, Large: true, Tables: of(catalog)}},
			"join view in portions 0, catalog 1, ", true},
		"a new table's type": {madeA, nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "b as fresh", Motion: to, Large: true, Tables: of(b)}, {SQL: "b", Motion: to, Large: true, Tables: of(b)}},
			"join b in portions 1, b as fresh 0, b 2, ", true},
		"a written parent": {wrote(&relation{Relation: *parent}), nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "a", Motion: to, Large: true, Tables: of(a)}},
			"join b 0, a 0, ", false},
		"something written": {wrote(nil), nobody, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", To: -1, Tables: of(b)},
			{SQL: "b", Motion: to, Large: true, Tables: of(b)}},
			"join b 0, b 0, ", false},
		"who writes": {wroteA, 1, []plan.Slice{{SQL: "join b", InPortions: "join b in portions", Motion: to, To: 1, Large: true, Tables: of(b)},
			{SQL: "insert", To: -1}, {SQL: "a", Motion: to, Large: true, Tables: of(a)}},
			"join b in portions 1, insert 0, a 0, ", true},
		"who writes what is written": {wroteA, 1, []plan.Slice{{SQL: "join a", Motion: to, To: 1, Large: true, Tables: of(a)}, {SQL: "insert", To: -1}},
			"join a 0, insert 0, ", false},
		"rows that are locked": {sight{}, nobody, []plan.Slice{{SQL: "b", To: -1, LocksRows: true, Tables: of(b)}, {SQL: "a", Motion: to, Large: true, Tables: of(a)}},
			"b 0, a 0, ", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := placedAs(t, tc.slices, tc.v, tc.writer, 3, tc.apart); got != tc.want {
				t.Errorf("got %s, expected %s", got, tc.want)
			}
		})
	}
}
