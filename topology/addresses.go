package topology

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// MaxAddressesLen is the greatest length, in bytes, of the text of an address
// list.
const MaxAddressesLen = 16384

// Entry says where the proxy of one instance listens.
type Entry struct {
	Dbid    uint16
	Content int16
	Host    string // name, IPv4 or IPv6 address; without brackets
	Port    int    // 1..65535
}

// String is the entry as it is written in the list; an IPv6 address is put in
// brackets.
func (e Entry) String() string {
	host := e.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%d:%d:%s:%d", e.Dbid, e.Content, host, e.Port)
}

// Addr is "host:port" as package net takes it.
func (e Entry) Addr() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// AddressList is the value of gp_interconnect_proxy_addresses, in the order
// in which it was written. The order means nothing.
type AddressList []Entry

// String is the list as the parameter takes it.
func (l AddressList) String() string {
	s := make([]string, len(l))
	for i, e := range l {
		s[i] = e.String()
	}
	return strings.Join(s, ",")
}

// Lookup finds the entry of an instance.
func (l AddressList) Lookup(dbid uint16) (Entry, bool) {
	for _, e := range l {
		if e.Dbid == dbid {
			return e, true
		}
	}
	return Entry{}, false
}

// AddressError says what is wrong with one entry of an address list.
type AddressError struct {
	Entry    string // its text; empty when the whole list is meant
	Position int    // 1 is the first entry; 0 when the whole list is meant
	Reason   string
}

func (e *AddressError) Error() string {
	if e.Position == 0 {
		return e.Reason
	}
	return fmt.Sprintf("entry %d, %q: %s", e.Position, e.Entry, e.Reason)
}

// ParseAddresses reads "dbid:content:host:port[,...]". Blanks around entries
// and fields are ignored; the empty text is the empty list. The error is an
// *AddressError for the first entry that is malformed, has a dbid another
// entry has, or has the host and port of another.
func ParseAddresses(s string) (AddressList, error) {
	if len(s) > MaxAddressesLen {
		return nil, &AddressError{Reason: fmt.Sprintf("the list has %d bytes, the most is %d", len(s), MaxAddressesLen)}
	}
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var l AddressList
	for i, text := range strings.Split(s, ",") {
		text = strings.TrimSpace(text)
		e, reason := parseEntry(text)
		if reason != "" {
			return nil, &AddressError{Entry: text, Position: i + 1, Reason: reason}
		}
		l = append(l, e)
	}
	if errs := duplicates(l); len(errs) > 0 {
		return nil, errs[0]
	}
	return l, nil
}

// parseEntry returns what is wrong as its second value.
func parseEntry(text string) (Entry, string) {
	if text == "" {
		return Entry{}, "the entry is empty; write dbid:content:host:port, separated by single commas"
	}
	f, reason := fields(text)
	if reason != "" {
		return Entry{}, reason
	}
	var e Entry
	dbid, err := strconv.Atoi(f[0])
	if err != nil || dbid < 1 || dbid > MaxDbid {
		return e, fmt.Sprintf("dbid %q is not a number from 1 to %d", f[0], MaxDbid)
	}
	content, err := strconv.Atoi(f[1])
	if err != nil || content < -1 || content > MaxDbid {
		return e, fmt.Sprintf("content %q is not a number from -1 to %d", f[1], MaxDbid)
	}
	if reason := checkHost(f[2]); reason != "" {
		return e, reason
	}
	port, err := strconv.Atoi(f[3])
	if err != nil {
		return e, fmt.Sprintf("port %q is not a number", f[3])
	}
	if port < 1 || port > 65535 {
		return e, fmt.Sprintf("port %d is outside 1 .. 65535", port)
	}
	return Entry{uint16(dbid), int16(content), strings.Trim(f[2], "[]"), port}, ""
}

// fields cuts an entry at its colons, except those within brackets.
func fields(text string) (f [4]string, reason string) {
	const want = "want dbid:content:host:port"
	parts := strings.SplitN(text, ":", 3)
	if len(parts) < 3 {
		return f, fmt.Sprintf("%d of 4 fields, %s", len(parts), want)
	}
	host, port := strings.TrimSpace(parts[2]), ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return f, `the bracket "[" of an IPv6 address is not closed`
		}
		rest := strings.TrimSpace(host[end+1:])
		if !strings.HasPrefix(rest, ":") {
			return f, "3 of 4 fields, " + want
		}
		host, port = host[:end+1], rest[1:]
	} else {
		var found bool
		if host, port, found = strings.Cut(host, ":"); !found {
			return f, "3 of 4 fields, " + want
		}
	}
	if strings.Contains(port, ":") {
		return f, "more than 4 fields, " + want + "; an IPv6 address goes in brackets, as [::1]"
	}
	f = [4]string{parts[0], parts[1], host, port}
	for i := range f {
		f[i] = strings.TrimSpace(f[i])
	}
	return f, ""
}

// checkHost takes the host field with its brackets, if any.
func checkHost(host string) (reason string) {
	if host == "" {
		return "the host is empty"
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); err != nil || !a.Is6() {
			return fmt.Sprintf("host %q is not an IPv6 address in brackets", host)
		}
		host = inner
	}
	if i := strings.IndexFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == 0xfffd || strings.ContainsRune(`'"\[]`, r)
	}); i >= 0 {
		return fmt.Sprintf("host %q holds a blank or another character no host name has", host)
	}
	return ""
}

// duplicates reports every entry that repeats the dbid, or the host and port,
// of an earlier one.
func duplicates(l AddressList) []error {
	var errs []error
	dbids, places := map[uint16]int{}, map[string]int{}
	for i, e := range l {
		fail := func(format string, args ...any) {
			errs = append(errs, &AddressError{e.String(), i + 1, fmt.Sprintf(format, args...)})
		}
		if first, ok := dbids[e.Dbid]; ok {
			fail("dbid %d is already in entry %d", e.Dbid, first)
		} else {
			dbids[e.Dbid] = i + 1
		}
		place := strings.ToLower(e.Addr())
		if first, ok := places[place]; ok {
			fail("%s is already the address in entry %d", e.Addr(), first)
		} else {
			places[place] = i + 1
		}
	}
	return errs
}

// Derive lists the proxies of the instances, ordered by dbid, each at its
// instance's address and its port plus delta. It fails when a port leaves
// 1..65535 or two proxies would share one place.
func Derive(instances []Instance, delta int) (AddressList, error) {
	l := make(AddressList, 0, len(instances))
	for _, i := range instances {
		l = append(l, Entry{i.Dbid, i.Content, strings.Trim(i.Address, "[]"), i.Port + delta})
	}
	slices.SortStableFunc(l, func(a, b Entry) int { return int(a.Dbid) - int(b.Dbid) })
	for i, e := range l {
		if e.Port < 1 || e.Port > 65535 {
			return nil, &AddressError{e.String(), i + 1, fmt.Sprintf(
				"port %d plus delta %d is outside 1 .. 65535", e.Port-delta, delta)}
		}
	}
	if errs := duplicates(l); len(errs) > 0 {
		return nil, errs[0]
	}
	return l, nil
}
