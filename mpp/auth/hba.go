package auth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// HBA is a parsed pg_hba.conf. It does not change and may be used by any
// number of goroutines.
type HBA struct {
	rules []Rule
}

// Rules are the records in the order in which they are tried. The caller
// must not change them.
func (h *HBA) Rules() []Rule { return h.rules }

// Rule is one record of pg_hba.conf.
type Rule struct {
	Number int    // line number in the file, from 1
	Text   string // the line
	Type   string // local, host, hostssl, hostnossl, hostgssenc or hostnogssenc
	Method string // ident on unix sockets is called peer
	// Options are the name=value words after the method.
	Options []Option

	databases, users field
	addr             address
}

// addressKind is how a record says which hosts it is for.
type addressKind uint8

const (
	addrRange addressKind = iota // addresses in a network
	addrAll
	addrSameHost
	addrSameNet
	addrName // a host name, or a domain after a dot
)

type address struct {
	kind addressKind
	ip   netip.Addr // of addrRange, with mask
	mask netip.Addr
	name string
}

// methods of pg_hba.conf that PostgreSQL knows, and whether this package does
// too.
var methods = map[string]bool{
	"trust": true, "reject": true, "scram-sha-256": true, "md5": true, "password": true, "peer": true,
	"ident": false, "gss": false, "sspi": false, "pam": false, "bsd": false, "ldap": false, "cert": true, "radius": false,
}

// LoadHBA reads and parses the file at path.
func LoadHBA(path string) (*HBA, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseHBA(path, string(text))
}

// ParseHBA parses the text of a pg_hba.conf; name is the file's name for
// errors. Any bad line makes the whole file invalid, as in PostgreSQL: the
// error then tells of each, by number.
func ParseHBA(name, text string) (*HBA, error) {
	h := &HBA{}
	var errs []error
	for _, l := range logicalLines(text) {
		fields, err := splitFields(l.text)
		if err == nil && len(fields) == 0 {
			continue
		}
		r := Rule{Number: l.number, Text: strings.TrimSpace(l.text)}
		if err == nil {
			err = r.parse(fields)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d of %s: %w", l.number, name, err))
			continue
		}
		h.rules = append(h.rules, r)
	}
	if len(errs) == 0 && len(h.rules) == 0 {
		errs = append(errs, fmt.Errorf("configuration file %q contains no entries", name))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return h, nil
}

// parse fills r from the fields of its line.
func (r *Rule) parse(fields []field) error {
	next := func(what string) (field, error) {
		if len(fields) == 0 {
			return nil, fmt.Errorf("end-of-line before %s", what)
		}
		f := fields[0]
		fields = fields[1:]
		return f, nil
	}
	single := func(what, name string) (token, error) {
		f, err := next(what)
		if err == nil && len(f) > 1 {
			err = fmt.Errorf("multiple values specified for %s", name)
		}
		if err != nil {
			return token{}, err
		}
		return f[0], nil
	}
	t, err := single("connection type", "connection type")
	if err != nil {
		return err
	}
	switch r.Type = t.text; r.Type {
	case "local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc":
	default:
		return fmt.Errorf("invalid connection type %q", r.Type)
	}
	if r.databases, err = next("database specification"); err != nil {
		return err
	}
	if r.users, err = next("role specification"); err != nil {
		return err
	}
	if r.Type != "local" {
		t, err := single("IP address specification", "host address")
		if err != nil {
			return err
		}
		needMask, err := r.addr.parse(t)
		if err != nil {
			return err
		}
		if needMask {
			t, err := single("netmask specification", "netmask")
			if err != nil {
				return fmt.Errorf("%w; specify an address range in CIDR notation, or provide a separate netmask", err)
			}
			if err := r.addr.setMask(t.text); err != nil {
				return err
			}
		}
	}
	if t, err = single("authentication method", "authentication type"); err != nil {
		return err
	}
	r.Method = t.text
	if err := r.checkMethod(); err != nil {
		return err
	}
	for _, f := range fields {
		for _, t := range f {
			name, value, ok := strings.Cut(t.text, "=")
			if !ok {
				return fmt.Errorf("authentication option not in name=value format: %s", t.text)
			}
			if err := r.checkOption(name, value); err != nil {
				return err
			}
			r.Options = append(r.Options, Option{Name: name, Value: value})
		}
	}
	return nil
}

// parse reads the address field. It says whether a mask must follow.
func (a *address) parse(t token) (needMask bool, err error) {
	switch {
	case t.keyword("all"):
		a.kind = addrAll
		return false, nil
	case t.keyword("samehost"):
		a.kind = addrSameHost
		return false, nil
	case t.keyword("samenet"):
		a.kind = addrSameNet
		return false, nil
	}
	host, bits, slash := strings.Cut(t.text, "/")
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		if slash {
			return false, fmt.Errorf("specifying both host name and CIDR mask is invalid: %q", t.text)
		}
		a.kind, a.name = addrName, host
		return false, nil
	}
	a.ip = ip
	if !slash {
		return true, nil
	}
	p, err := netip.ParsePrefix(ip.String() + "/" + bits)
	if err != nil {
		return false, fmt.Errorf("invalid CIDR mask in address %q", t.text)
	}
	mask := net.CIDRMask(p.Bits(), ip.BitLen())
	a.mask, _ = netip.AddrFromSlice(mask)
	return false, nil
}

func (a *address) setMask(text string) error {
	mask, err := netip.ParseAddr(text)
	if err != nil || mask.Zone() != "" {
		return fmt.Errorf("invalid IP mask %q", text)
	}
	if mask.BitLen() != a.ip.BitLen() {
		return errors.New("IP address and mask do not match")
	}
	a.mask = mask
	return nil
}

func (r *Rule) checkMethod() error {
	if _, known := methods[r.Method]; !known {
		return fmt.Errorf("invalid authentication method %q", r.Method)
	}
	switch {
	case r.Type == "local" && r.Method == "ident":
		r.Method = "peer"
	case r.Type == "local" && r.Method == "gss":
		return errors.New("gssapi authentication is not supported on local sockets")
	case r.Type != "local" && r.Method == "peer":
		return errors.New("peer authentication is only supported on local sockets")
	case r.Type != "hostssl" && r.Method == "cert":
		return errors.New("cert authentication is only supported on hostssl connections")
	}
	return nil
}

// checkOption refuses options that make no sense. Those special to methods
// that are not supported here are let pass: nobody will be let in by them.
func (r *Rule) checkOption(name, value string) error {
	switch name {
	case "map":
		if !slices.Contains([]string{"ident", "peer", "gss", "sspi", "cert"}, r.Method) {
			return errors.New(`authentication option "map" is only valid for authentication methods ident, peer, gssapi, sspi, and cert`)
		}
	case "clientcert":
		if r.Type != "hostssl" {
			return errors.New(`clientcert can only be configured for "hostssl" rows`)
		}
		switch {
		case value != "verify-ca" && value != "verify-full":
			return fmt.Errorf("invalid value for clientcert: %q", value)
		case value == "verify-ca" && r.Method == "cert":
			return errors.New(`clientcert only accepts "verify-full" when using "cert" authentication`)
		}
	case "clientname":
		if r.Type != "hostssl" {
			return errors.New(`clientname can only be configured for "hostssl" rows`)
		}
		if value != "CN" && value != "DN" {
			return fmt.Errorf("invalid value for clientname: %q", value)
		}
	default:
		if !slices.Contains([]string{"gss", "sspi", "pam", "ldap", "radius"}, r.Method) {
			return fmt.Errorf("unrecognized authentication option name: %q", name)
		}
	}
	return nil
}

// unsupported names what this package lacks to obey the rule, "" if nothing.
func (r *Rule) unsupported() string {
	if !methods[r.Method] {
		return fmt.Sprintf("authentication method %q", r.Method)
	}
	return ""
}

// option is the value of an option, "" without. The last one counts.
func (r *Rule) option(name string) (value string) {
	for _, o := range r.Options {
		if o.Name == name {
			value = o.Value
		}
	}
	return value
}
