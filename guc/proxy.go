package guc

import (
	"fmt"
	"strings"

	"github.com/trunkline-db/trunkline/topology"
)

// Parameters of `trunkline proxy`. They are not Greenplum's: their names have
// the form PostgreSQL allows an extension, so that any server starts with them
// in its postgresql.conf.
const (
	// OwnProxyAddresses is the list of a proxy beside a Greenplum instance
	// whose ProxyAddresses is empty, so that Greenplum's own proxy stays off
	// the port.
	OwnProxyAddresses  = "trunkline.proxy_addresses"
	ProxyGrace         = "trunkline.proxy_grace"
	ProxyHelloTimeout  = "trunkline.proxy_hello_timeout"
	ProxyDialTimeout   = "trunkline.proxy_dial_timeout"
	ProxyPeerTimeout   = "trunkline.proxy_peer_timeout"
	ProxyMinBackoff    = "trunkline.proxy_min_backoff"
	ProxyMaxBackoff    = "trunkline.proxy_max_backoff"
	ProxyMirrorBackoff = "trunkline.proxy_mirror_backoff"
	ProxyCheckSource   = "trunkline.proxy_check_source"
	ProxyMemory        = "trunkline.proxy_memory"
	ProxyMaxWindow     = "trunkline.proxy_max_window"
)

const categoryProxy = "Trunkline Proxy"

var proxyTable = proxyParameters()

func proxyParameters() []*Parameter {
	seconds := func(name string, low, high float64, def, short string) *Parameter {
		return &Parameter{Name: name, Type: Real, Unit: "s", Min: low, Max: high, Default: def,
			Context: Sighup, Category: categoryProxy, Short: short}
	}
	return []*Parameter{
		{Name: OwnProxyAddresses, Type: String, Context: Sighup, Category: categoryProxy,
			Short: "Sets the addresses of the interconnect proxies where " + ProxyAddresses + " is empty.",
			Long:  "The format is that of " + ProxyAddresses + ". Greenplum does not read it, so its own proxy stays off the port.",
			check: func(s string) error {
				_, err := topology.ParseAddresses(s)
				return err
			}},
		long("A peer on a network that translates addresses, or that dials from another interface than the one in the list, needs off.",
			flag(ProxyCheckSource, "on", Sighup, categoryProxy,
				"Refuses peers that dial from another address than the list's.")),
		seconds(ProxyDialTimeout, 0.1, 3600, "5", "Sets how long resolving a peer's name and connecting to it may take."),
		seconds(ProxyGrace, 0.01, 3600, "1", "Sets how long a backend waits for a peer that is not connected before it is turned away."),
		seconds(ProxyHelloTimeout, 0.1, 3600, "5", "Sets how long a new connection may take to say who it is."),
		seconds(ProxyMaxBackoff, 0.01, 3600, "1", "Sets the longest pause between two attempts to reach a peer."),
		long("No more of it than a quarter is for windows that have grown, so that connections that come later find some left.",
			number(ProxyMaxWindow, "kB", 256, 1<<20, "16384", Sighup, categoryProxy,
				"Sets how much one logical connection with a Trunkline proxy may have under way.")),
		long("What is short is kept by letting the other proxies send less, never by letting one connection wait for another.",
			number(ProxyMemory, "kB", 16<<10, 1<<30, "524288", Sighup, categoryProxy,
				"Sets the memory for data that waits for its backend.")),
		seconds(ProxyMinBackoff, 0.01, 3600, "0.05", "Sets the pause after the first failed attempt to reach a peer; it doubles from there."),
		seconds(ProxyMirrorBackoff, 0.1, 86400, "30", "Sets the pause between attempts to reach a mirror or standby whose content another instance serves."),
		long("It holds for idle connections and for data that is not acknowledged, and for connections made after a change.",
			seconds(ProxyPeerTimeout, 1, 3600, "30", "Sets how long a connected peer's host may be silent before the connection is given up.")),
	}
}

// LookupProxy finds a parameter of `trunkline proxy` by its name in any case.
func LookupProxy(name string) (*Parameter, bool) {
	for _, p := range proxyTable {
		if strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return nil, false
}

// AllProxy is the table of the parameters of `trunkline proxy`, sorted by
// name. Do not change it.
func AllProxy() []*Parameter { return proxyTable }

// ProxyValues are the canonical values of the parameters of `trunkline proxy`
// that a file sets, the address list excepted. Values that Parse refuses are
// left out and returned as errors with their places, and so are names under
// trunkline.proxy_ that no parameter has.
func ProxyValues(c *Conf) (values map[string]string, errs []error) {
	values = map[string]string{}
	for _, s := range c.Settings {
		if last, _ := c.Lookup(s.Name); last != s {
			continue
		}
		p, ok := LookupProxy(s.Name)
		if !ok {
			if strings.HasPrefix(s.Name, "trunkline.proxy_") {
				errs = append(errs, fmt.Errorf("%s: %w", s.Place(), ErrUnknown(s.Name)))
			}
			continue
		}
		if p.Name == OwnProxyAddresses {
			continue
		}
		v, err := p.Parse(s.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Place(), err))
			continue
		}
		values[p.Name] = v
	}
	return values, errs
}
