package topology

import (
	"errors"
	"fmt"
)

// MissingError says that an instance of the cluster has no entry.
type MissingError struct{ Instance Instance }

func (e *MissingError) Error() string {
	i := e.Instance
	kind := "segment"
	switch {
	case i.IsCoordinator():
		kind = "coordinator"
	case i.IsStandby():
		kind = "standby"
	case i.Role == RoleMirror:
		kind = "mirror"
	}
	return fmt.Sprintf("the %s with dbid %d (content %d) on %s is missing from the list",
		kind, i.Dbid, i.Content, i.Address)
}

// Validate holds a list against the instances of the cluster. The error joins
// all that is wrong: an *AddressError for each entry with a dbid no instance
// has, another content than its instance, or the dbid or place of another
// entry, for one at which an instance itself listens, and a *MissingError for
// each instance without entry.
func Validate(list AddressList, instances []Instance) error {
	var errs []error
	if n := len(list.String()); n > MaxAddressesLen {
		errs = append(errs, &AddressError{Reason: fmt.Sprintf("the list has %d bytes, the most is %d", n, MaxAddressesLen)})
	}
	errs = append(errs, duplicates(list)...)
	known := map[uint16]Instance{}
	taken := map[string]Instance{}
	for _, i := range instances {
		known[i.Dbid] = i
		taken[Entry{Host: i.Address, Port: i.Port}.Addr()] = i
	}
	for n, e := range list {
		fail := func(format string, args ...any) {
			errs = append(errs, &AddressError{e.String(), n + 1, fmt.Sprintf(format, args...)})
		}
		i, ok := known[e.Dbid]
		switch {
		case !ok:
			fail("no instance has dbid %d", e.Dbid)
		case i.Content != e.Content:
			fail("dbid %d has content %d, not %d", e.Dbid, i.Content, e.Content)
		}
		if i, ok := taken[e.Addr()]; ok {
			fail("%s is where the instance with dbid %d itself listens", e.Addr(), i.Dbid)
		}
	}
	for _, i := range instances {
		if _, ok := list.Lookup(i.Dbid); !ok {
			errs = append(errs, &MissingError{i})
		}
	}
	return errors.Join(errs...)
}

// EntryChange is one instance's entry before and after.
type EntryChange struct{ Old, New Entry }

// Difference is what turns one list into another.
type Difference struct {
	Added, Removed AddressList
	Changed        []EntryChange // same dbid; content, host or port differ
}

// Empty says whether nothing differs.
func (d Difference) Empty() bool {
	return len(d.Added) == 0 && len(d.Removed) == 0 && len(d.Changed) == 0
}

// Diff compares two lists by dbid, whatever their order. Added and Changed
// are in the order of next, Removed in that of old. Of entries with the same
// dbid in one list only the first counts.
func Diff(old, next AddressList) Difference {
	var d Difference
	before, after := byDbid(old), byDbid(next)
	done := map[uint16]bool{}
	for _, e := range next {
		if done[e.Dbid] {
			continue
		}
		done[e.Dbid] = true
		switch was, ok := before[e.Dbid]; {
		case !ok:
			d.Added = append(d.Added, e)
		case was != e:
			d.Changed = append(d.Changed, EntryChange{was, e})
		}
	}
	clear(done)
	for _, e := range old {
		if _, ok := after[e.Dbid]; !ok && !done[e.Dbid] {
			done[e.Dbid] = true
			d.Removed = append(d.Removed, e)
		}
	}
	return d
}

func byDbid(l AddressList) map[uint16]Entry {
	m := make(map[uint16]Entry, len(l))
	for _, e := range l {
		if _, ok := m[e.Dbid]; !ok {
			m[e.Dbid] = e
		}
	}
	return m
}
