package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/sim"
)

var _ = register(newSimCommand)

func newSimCommand() *cobra.Command {
	var (
		engine, query, coordinator string
		portRange, proxyMemory     string
		slices, sessions           int
		asJSON                     bool
		c                          sim.Cluster
	)
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Compute the connections and ports a cluster needs, for each interconnect type",
		Long: `Computes what sessions need that all run the same query at the same time: TCP
connections, UDP sockets, listening ports, descriptors and memory of proxies, in
the interconnect types udpifc, tcp and proxy, and with one proxy for all
instances of a host, which nobody has built. It says which limits that meets,
where, and how many sessions fit. Nothing is started or measured.

The engine says how the executors of a query are laid out:

  greenplum   a process for each slice, segment and session, and the QD;
              for planning a real cluster (default)
  trunkline   this project's embedded cluster: one executor for each segment
              and session, which runs all slices, and the QD

The queries; N is the number of segments:

  gather        rows of all segments go to the coordinator: 1 motion N:1
  redistribute  a join whose one side is redistributed: 1 motion N:1, 1 N:N
  broadcast     a join whose one side is broadcast: the same counts
  five-slices   a join of joins: 1 motion N:1, 4 N:N

--slices takes any number: a gather and one motion N:N for each further slice,
which the slices read in pairs as joins of joins do. Every slice runs on every
segment. Counted is the peak: all motions of a query are open at once, as they
are in Greenplum; with engine trunkline all between segments, for the gather is
opened when those are over.

Memory of proxies is that of Trunkline's: with all connections idle, and at
most, when backends do not read. docs/interconnect-sizing.md has the formulas.

In the JSON, -1 sessions means more than 1,000,000.`,
		Example: `  trunkline sim --segments 16 --sessions 32 --query five-slices
  trunkline sim --segments 1024 --hosts 64 --sessions 200 --mirrors --standby
  trunkline sim --engine trunkline --segments 3 --sessions 20 --query gather --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wrong := func(err error) error { return &usageError{cmd, err} }
			flags := cmd.Flags()
			c.Engine = sim.Engine(engine)
			if c.Engine != sim.Greenplum && c.Engine != sim.Trunkline {
				return wrong(fmt.Errorf("invalid --engine %q: use %s or %s", engine, sim.Greenplum, sim.Trunkline))
			}
			switch {
			case coordinator == "own" || coordinator == "" && c.Hosts > 1:
				c.CoordinatorHost = true
			case coordinator != "" && coordinator != "shared":
				return wrong(fmt.Errorf("invalid --coordinator %q: use own or shared", coordinator))
			}
			var err error
			if c.System.Ports, err = parsePortRange(portRange); err != nil {
				return wrong(err)
			}
			if c.System.ProxyMemory, err = parseProxyMemory(proxyMemory); err != nil {
				return wrong(err)
			}
			var motions []sim.Motion
			switch {
			case !flags.Changed("slices"):
				if motions, err = sim.Query(query); err != nil {
					err = fmt.Errorf("invalid --query %q: use %s", query, alternatives(sim.Queries))
				}
			case flags.Changed("query"):
				err = errors.New("--query and --slices exclude each other")
			default:
				motions, err = sim.Slices(slices)
			}
			if err != nil {
				return wrong(simError(err))
			}
			r, err := sim.Compute(c, motions, sessions)
			if err != nil {
				return wrong(simError(err))
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(r)
			}
			return simReport(cmd.OutOrStdout(), r)
		},
	}
	d := sim.DefaultSystem()
	f := cmd.Flags()
	f.StringVar(&engine, "engine", string(sim.Greenplum), "whose executors to count: greenplum or trunkline")
	f.IntVar(&c.Segments, "segments", 16, "primary segments, in all")
	f.IntVar(&c.Hosts, "hosts", 1, "hosts the segments are spread over")
	f.StringVar(&coordinator, "coordinator", "", "the coordinator's host: own, or shared with segments (default own with more\nthan one host)")
	f.BoolVar(&c.Mirrors, "mirrors", false, "every segment has a mirror")
	f.BoolVar(&c.Standby, "standby", false, "there is a standby coordinator")
	f.IntVar(&sessions, "sessions", 32, "sessions that run the query at once")
	f.StringVar(&query, "query", "five-slices", strings.Join(sim.Queries, ", "))
	f.IntVar(&slices, "slices", 0, "instead of --query: slices that send rows")
	f.StringVar(&portRange, "port-range", fmt.Sprintf("%d-%d", sim.DefaultPortLow, sim.DefaultPortHigh), "net.ipv4.ip_local_port_range")
	f.IntVar(&c.System.Addresses, "addresses", d.Addresses, "addresses of a host that executors listen on (gp_interconnect_address_type =\nunicast); 1 for wildcard")
	f.Int64Var(&c.System.Descriptors, "descriptors", d.Descriptors, "files a process may have open (ulimit -n)")
	f.IntVar(&c.System.Backlog, "backlog", d.Backlog, "gp_interconnect_tcp_listener_backlog; Greenplum 6 has 128")
	f.IntVar(&c.System.Somaxconn, "somaxconn", d.Somaxconn, "net.core.somaxconn")
	f.StringVar(&proxyMemory, "proxy-memory", "512MB", guc.ProxyMemory)
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func alternatives(l []string) string {
	return strings.Join(l[:len(l)-1], ", ") + " or " + l[len(l)-1]
}

// simError names the option by which a value came.
func simError(err error) error {
	var r *sim.RangeError
	if !errors.As(err, &r) {
		return err
	}
	if r.What == "hosts" && r.Value > r.High {
		return fmt.Errorf("invalid --hosts %d: use 1 to %d, the number of segments", r.Value, r.High)
	}
	return fmt.Errorf("invalid --%s %d: use %d to %d", r.What, r.Value, r.Low, r.High)
}

// parsePortRange returns how many ports "LOW-HIGH" has.
func parsePortRange(s string) (int, error) {
	low, high, ok := strings.Cut(strings.Join(strings.Fields(s), "-"), "-")
	l, err1 := strconv.ParseUint(low, 10, 16)
	h, err2 := strconv.ParseUint(high, 10, 16)
	if !ok || err1 != nil || err2 != nil || l == 0 || l > h {
		return 0, fmt.Errorf("invalid --port-range %q: use LOW-HIGH with ports of 1 to 65535, as %d-%d", s, sim.DefaultPortLow, sim.DefaultPortHigh)
	}
	return int(h-l) + 1, nil
}

// parseProxyMemory returns bytes.
func parseProxyMemory(s string) (int64, error) {
	p, _ := guc.LookupProxy(guc.ProxyMemory)
	v, err := p.Parse(s)
	if err != nil {
		return 0, fmt.Errorf("invalid --proxy-memory: %w; use 16MB to 1TB", err)
	}
	return int64(p.Int(v)) << 10, nil
}
