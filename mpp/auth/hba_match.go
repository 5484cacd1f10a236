package auth

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// request is what the rules look at.
type request struct {
	user, database string
	replication    Replication
	local          bool       // on a unix socket
	addr           netip.Addr // otherwise, without zone, IPv4 never mapped
	ssl            bool
	memberOf       func(ctx context.Context, user, role string) (bool, error)
	names          *hostNames // looked up when first needed
}

// match finds the first rule that applies, nil if none does.
func (h *HBA) match(ctx context.Context, req *request) (*Rule, error) {
	for i := range h.rules {
		r := &h.rules[i]
		if !r.matchType(req) || !req.local && !r.addr.match(ctx, req) {
			continue
		}
		for _, check := range []func(context.Context, *request) (bool, error){r.matchDatabase, r.matchUser} {
			ok, err := check(ctx, req)
			if err != nil {
				return nil, err
			}
			if !ok {
				r = nil
				break
			}
		}
		if r != nil {
			return r, nil
		}
	}
	return nil, nil
}

func (r *Rule) matchType(req *request) bool {
	switch r.Type {
	case "local":
		return req.local
	case "hostssl":
		return !req.local && req.ssl
	case "hostnossl":
		return !req.local && !req.ssl
	case "hostgssenc":
		return false // there is no GSS encryption here
	}
	return !req.local
}

func (r *Rule) matchDatabase(ctx context.Context, req *request) (bool, error) {
	for _, t := range r.databases {
		switch {
		case req.replication == PhysicalReplication:
			// Such connections are to no database; only the word fits.
			if t.keyword("replication") {
				return true, nil
			}
		case t.keyword("all"):
			return true, nil
		case t.keyword("sameuser"):
			if req.database == req.user {
				return true, nil
			}
		case t.keyword("samerole"), t.keyword("samegroup"):
			if ok, err := req.memberOf(ctx, req.user, req.database); ok || err != nil {
				return ok, err
			}
		case t.keyword("replication"):
		case t.text == req.database:
			return true, nil
		}
	}
	return false, nil
}

func (r *Rule) matchUser(ctx context.Context, req *request) (bool, error) {
	for _, t := range r.users {
		switch {
		case !t.quoted && strings.HasPrefix(t.text, "+"):
			if ok, err := req.memberOf(ctx, req.user, t.text[1:]); ok || err != nil {
				return ok, err
			}
		case t.keyword("all"), t.text == req.user:
			return true, nil
		}
	}
	return false, nil
}

func (a *address) match(ctx context.Context, req *request) bool {
	switch a.kind {
	case addrAll:
		return true
	case addrSameHost, addrSameNet:
		return matchOwn(req.addr, a.kind == addrSameNet)
	case addrName:
		return req.hasName(ctx, a.name)
	}
	return inRange(req.addr, a.ip, a.mask)
}

// inRange compares the bits of two addresses that are set in mask.
func inRange(addr, ip, mask netip.Addr) bool {
	if addr.BitLen() != ip.BitLen() || ip.BitLen() != mask.BitLen() {
		return false
	}
	a, b, m := addr.AsSlice(), ip.AsSlice(), mask.AsSlice()
	for i := range m {
		if (a[i]^b[i])&m[i] != 0 {
			return false
		}
	}
	return true
}

// matchOwn says whether addr is an address of this machine or, with nets, in
// a network it has an interface to.
func matchOwn(addr netip.Addr, nets bool) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, o := range own {
		n, ok := o.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		if ip = ip.Unmap(); ip == addr || nets && n.Contains(addr.AsSlice()) {
			return true
		}
	}
	return false
}

// hostNames are the names the client's address has in reverse.
type hostNames struct {
	reverse []string
	checked map[string]bool // name leads back to the address
}

// hasName says whether the client's host is called name, or, if name begins
// with a dot, is called something in that domain. A name counts only if it
// also leads back to the address.
func (req *request) hasName(ctx context.Context, name string) bool {
	if req.names == nil {
		req.names = &hostNames{checked: map[string]bool{}}
		req.names.reverse, _ = net.DefaultResolver.LookupAddr(ctx, req.addr.String())
	}
	for _, host := range req.names.reverse {
		host = strings.TrimSuffix(host, ".")
		if domain := strings.HasPrefix(name, "."); domain {
			if len(host) < len(name) || !strings.EqualFold(host[len(host)-len(name):], name) {
				continue
			}
		} else if !strings.EqualFold(host, name) {
			continue
		}
		ok, known := req.names.checked[host]
		if !known {
			ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			for _, ip := range ips {
				ok = ok || ip.Unmap().WithZone("") == req.addr
			}
			req.names.checked[host] = ok
		}
		if ok {
			return true
		}
	}
	return false
}

// refusal is the error for a client that no rule lets in; what begins its
// message.
func (req *request) refusal(what, host string) *Rejection {
	encryption := "no encryption"
	if req.ssl {
		encryption = "SSL encryption"
	}
	if req.replication == PhysicalReplication {
		kind := "replication connection for host"
		if strings.HasPrefix(what, "no ") {
			kind = "replication connection from host"
		}
		return fatal(codeInvalidAuthorization, `%s %s "%s", user "%s", %s`, what, kind, host, req.user, encryption)
	}
	kind := "host"
	if !strings.HasPrefix(what, "no ") {
		kind = "connection for host"
	}
	return fatal(codeInvalidAuthorization, `%s %s "%s", user "%s", database "%s", %s`,
		what, kind, host, req.user, req.database, encryption)
}
