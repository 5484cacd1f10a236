package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/logical"
)

func cluster(e Engine, segments, hosts int) Cluster {
	return Cluster{Engine: e, Segments: segments, Hosts: hosts, System: DefaultSystem()}
}

func slices(t *testing.T, n int) []Motion {
	t.Helper()
	ms, err := Slices(n)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func compute(t *testing.T, c Cluster, ms []Motion, sessions int) *Result {
	t.Helper()
	r, err := Compute(c, ms, sessions)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUsage compares with numbers made by hand.
func TestUsage(t *testing.T) {
	own := func(c Cluster) Cluster { c.CoordinatorHost = true; return c }
	for _, tc := range []struct {
		name     string
		c        Cluster
		slices   int
		sessions int
		typ      Type
		host     string // "" for all
		want     Usage
	}{
		// 3 segments, a gather: 3 senders and the QD.
		{"gather", cluster(Trunkline, 3, 1), 1, 1, TCP, "", Usage{Executors: 4, TCPConnections: 3, SameHost: 3, ListeningPorts: 4, Descriptors: 10}},
		{"gather", cluster(Greenplum, 3, 1), 1, 1, TCP, "", Usage{Executors: 4, TCPConnections: 3, SameHost: 3, ListeningPorts: 4, Descriptors: 10}},
		{"gather", cluster(Trunkline, 3, 1), 1, 2, UDPIFC, "", Usage{Executors: 8, UDPSockets: 14, Descriptors: 14}},
		{"gather", cluster(Greenplum, 3, 1), 1, 2, UDPIFC, "", Usage{Executors: 8, UDPSockets: 16, Descriptors: 16}},
		// 4 instances: 6 connections, 12 ends; 3 logical connections have 6
		// ends, each a unix connection of two; 8 listeners.
		{"gather", cluster(Trunkline, 3, 1), 1, 1, Proxy, "", Usage{Executors: 4, TCPConnections: 6, SameHost: 6, ListeningPorts: 4, UnixConnections: 6, Descriptors: 12 + 8 + 12}},
		// A proxy for each of 4 hosts: 6 connections. One host: none.
		{"one host", cluster(Trunkline, 3, 1), 1, 1, HostProxy, "", Usage{Executors: 4, ListeningPorts: 1, UnixConnections: 6, Descriptors: 1 + 4 + 12}},
		{"4 hosts", own(cluster(Greenplum, 3, 3)), 1, 1, HostProxy, "", Usage{Executors: 4, TCPConnections: 6, ListeningPorts: 4, UnixConnections: 6, Descriptors: 12 + 8 + 12}},

		// Two slices: 3 + 9 connections, of which 3 within an instance; here the
		// gather's 3 come when the 9 are over, and the executors are the same 4,
		// in Greenplum another 3 processes.
		{"redistribute", cluster(Trunkline, 3, 1), 2, 1, TCP, "", Usage{Executors: 4, TCPConnections: 9, SameInstance: 3, SameHost: 9, ListeningPorts: 4, Descriptors: 22}},
		{"redistribute", cluster(Greenplum, 3, 1), 2, 1, TCP, "", Usage{Executors: 7, TCPConnections: 12, SameInstance: 3, SameHost: 12, ListeningPorts: 7, Descriptors: 31}},
		{"redistribute", cluster(Trunkline, 3, 1), 2, 1, UDPIFC, "", Usage{Executors: 4, UDPSockets: 7, Descriptors: 7}},
		{"redistribute", cluster(Greenplum, 3, 1), 2, 1, UDPIFC, "", Usage{Executors: 7, UDPSockets: 14, Descriptors: 14}},

		// 16 segments, 32 sessions, five slices: 32 × 4 × 16², in Greenplum
		// 32 × 16 more.
		{"five slices", cluster(Trunkline, 16, 1), 5, 32, TCP, "", Usage{Executors: 544, TCPConnections: 32768, SameInstance: 2048, SameHost: 32768, ListeningPorts: 544, Descriptors: 66080}},
		{"five slices", cluster(Greenplum, 16, 1), 5, 32, TCP, "", Usage{Executors: 2592, TCPConnections: 33280, SameInstance: 2048, SameHost: 33280, ListeningPorts: 2592, Descriptors: 69152}},
		{"five slices", cluster(Trunkline, 16, 1), 5, 32, UDPIFC, "", Usage{Executors: 544, UDPSockets: 1056, Descriptors: 1056}},
		{"five slices", cluster(Greenplum, 16, 1), 5, 32, UDPIFC, "", Usage{Executors: 2592, UDPSockets: 5184, Descriptors: 5184}},
		{"five slices", cluster(Trunkline, 16, 1), 5, 32, Proxy, "", Usage{Executors: 544, TCPConnections: 136, SameHost: 136, ListeningPorts: 17, UnixConnections: 65536, Descriptors: 272 + 34 + 131072}},

		// The published example: 256 primaries on 8 hosts, 257·256/2
		// connections of which 32·225 leave a host, and 36 with a proxy a host.
		{"large", own(cluster(Greenplum, 256, 8)), 1, 1, Proxy, "", Usage{Executors: 257, TCPConnections: 32896, SameHost: 8 * 32 * 31 / 2, ListeningPorts: 257, UnixConnections: 512, Descriptors: 65792 + 514 + 1024}},
		{"large", own(cluster(Greenplum, 256, 8)), 1, 1, Proxy, WhereSegmentHost, Usage{Executors: 32, TCPConnections: 7200 + 496, SameHost: 496, ListeningPorts: 32, UnixConnections: 32, Descriptors: 32*256 + 64 + 64}},
		{"large", own(cluster(Greenplum, 256, 8)), 1, 1, Proxy, WhereCoordinator, Usage{Executors: 1, TCPConnections: 256, ListeningPorts: 1, UnixConnections: 256, Descriptors: 256 + 2 + 512}},
		{"large", own(cluster(Greenplum, 256, 8)), 1, 1, HostProxy, "", Usage{Executors: 257, TCPConnections: 36, ListeningPorts: 9, UnixConnections: 512, Descriptors: 72 + 9 + 257 + 1024}},
		{"large", own(cluster(Greenplum, 256, 8)), 2, 1, TCP, WhereSegmentHost, Usage{Executors: 64, TCPConnections: 32 + 2*32*256 - 32*32, SameInstance: 32, SameHost: 1024, ListeningPorts: 64, Descriptors: 32 + 2*32*256 + 64}},

		// 5 segments on 2 hosts, the coordinator beside 3 of them.
		{"uneven", cluster(Greenplum, 5, 2), 1, 1, TCP, WhereCoordinator, Usage{Executors: 4, TCPConnections: 5, SameHost: 3, ListeningPorts: 4, Descriptors: 12}},
		{"uneven", cluster(Greenplum, 5, 2), 1, 1, TCP, WhereSegmentHost, Usage{Executors: 2, TCPConnections: 2, ListeningPorts: 2, Descriptors: 4}},
		{"uneven", cluster(Greenplum, 5, 2), 1, 1, TCP, "", Usage{Executors: 6, TCPConnections: 5, SameHost: 3, ListeningPorts: 6, Descriptors: 16}},
		{"uneven", cluster(Greenplum, 5, 2), 1, 1, Proxy, WhereCoordinator, Usage{Executors: 4, TCPConnections: 6 + 8, SameHost: 6, ListeningPorts: 4, UnixConnections: 8, Descriptors: 20 + 8 + 16}},
	} {
		r := compute(t, tc.c, slices(t, tc.slices), tc.sessions)
		got := r.Type(tc.typ).All
		for _, h := range r.Type(tc.typ).Hosts {
			if h.Where == tc.host {
				got = h.Usage
			}
		}
		got.ProxyIdle, got.ProxyMost = 0, 0
		if got != tc.want {
			t.Errorf("%s, %s, %s, host %q:\n got %+v\nwant %+v", tc.name, tc.c.Engine, tc.typ, tc.host, got, tc.want)
		}
	}
}

// TestWindows compares with what the proxy's own budget does.
func TestWindows(t *testing.T) {
	for _, total := range []int64{16 << 20, 100 << 20, DefaultProxyMemory} {
		table := logical.NewTable()
		table.Budget, table.Credit = logical.NewBudget(total, 0), true
		last, ends := table.Budget.Granted(), roomy(total)
		for i := range int64(6000) {
			table.Hello(icwire.Key{Command: 1, Local: icwire.End{Pid: int32(i)}}, time.Time{})
			got := table.Budget.Granted()
			if want := windows(i+1, total); got != want {
				t.Fatalf("budget %d: %d ends begin with %d bytes, computed %d", total, i+1, got, want)
			}
			if small := got-last == logical.MinWindow; small == (i < ends) {
				t.Fatalf("budget %d: window %d is %d bytes, but %d are to begin with more than the least", total, i+1, got-last, ends)
			}
			last = got
		}
	}
	if minWindow != logical.MinWindow || initialWindow != logical.InitialWindow || maxWindow != logical.DefaultMaxWindow || DefaultProxyMemory != logical.DefaultBudget {
		t.Error("the proxy's sizes have changed")
	}
}

func TestRefused(t *testing.T) {
	good := cluster(Greenplum, 4, 2)
	for _, tc := range []struct {
		edit     func(*Cluster)
		motions  []Motion
		sessions int
		want     string
	}{
		{func(c *Cluster) { c.Segments = 0 }, nil, 1, "segments 0 is outside the range 1 to 32767"},
		{func(c *Cluster) { c.Hosts = 5 }, nil, 1, "hosts 5 is outside the range 1 to 4"},
		{func(c *Cluster) { c.System.Ports = 0 }, nil, 1, "ports 0 is outside the range 1 to 65535"},
		{func(c *Cluster) { c.System.ProxyMemory = 1 }, nil, 1, "proxy-memory 1 is outside the range 16777216 to 1099511627776"},
		{func(c *Cluster) { c.Engine = "x" }, nil, 1, `unknown engine "x": use greenplum or trunkline`},
		{nil, nil, 0, "sessions 0 is outside the range 1 to 1000000"},
		{nil, []Motion{}, 1, "slices 0 is outside the range 1 to 1000"},
		{nil, []Motion{{Kind: "sort"}}, 1, `motion 0: unknown kind "sort"`},
		{nil, []Motion{{Kind: Broadcast}}, 1, "motion 0 (broadcast): to 0 is not an earlier motion"},
	} {
		c := good
		if tc.edit != nil {
			tc.edit(&c)
		}
		if tc.motions == nil {
			tc.motions = slices(t, 1)
		}
		if _, err := Compute(c, tc.motions, tc.sessions); err == nil || err.Error() != tc.want {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
	var r *RangeError
	if _, err := Slices(0); !errors.As(err, &r) || r.What != "slices" {
		t.Errorf("Slices(0): %v", err)
	}
}
