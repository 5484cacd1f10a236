package cli

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/internal/icbench"
)

func newBenchInterconnectCommand() *cobra.Command {
	var (
		segments, sessions, rtt, loss, types string
		rateMbit                             float64
		htmlFile, report                     string
		from                                 []string
		flags                                benchFlags
		opt                                  icbench.Options
	)
	cmd := &cobra.Command{
		Use:   "interconnect",
		Short: "Compare the interconnect types by real queries",
		Long: `Makes clusters, runs the same queries on them in each interconnect type, and
compares: how long they take, what connections and ports they hold at the peak,
what goes over the network. Nothing that is there already is touched; what it
makes lies below /tmp and is removed at the end, also after Ctrl-C.

  loopback  a cluster for each number of segments; all sessions run the same
            query at the same time. While a query is stopped in its middle,
            the sockets of all processes are counted, and compared with what
            "trunkline sim --engine trunkline" says.
  WAN       a cluster each instance of which is in a network namespace of its
            own, with emulated lines between them: a round trip, loss, a rate.
            Beside the types, plain TCP connections carry as many bytes as the
            gather, as the floor. It takes root and /dev/net/tun.

The queries are a count over 100 rows, a gather of many rows, a join of which
both sides are redistributed, one of which one side is broadcast, and a join of
four tables, which has five slices.

A query over the WAN that is not done after --limit is told to end: then its
figures are the rate so far, and how long all would take at that rate.

With root, the clusters on loopback have namespaces too, so that the counters
of the network are theirs alone. PostgreSQL must be installed.

A full run takes some 20 minutes, --quick a few. The exit status is 0 when all was
measured, 1 when something went wrong, 130 after Ctrl-C; with --check
an exit status of 3 when a bound is missed.`,
		Example: `  trunkline bench interconnect --quick
  trunkline bench interconnect --html report.html --json > report.json
  trunkline bench interconnect --from report.json --report report.md
  trunkline bench interconnect --no-loopback --rtt 50 --loss 0 --rounds 5
  trunkline bench interconnect --no-wan --segments 16 --sessions 32 --check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wrong := func(err error) error { return &usageError{cmd, err} }
			var err error
			if opt.Segments, err = values("segments", "number: give a list as 2,4,8,16", segments, strconv.Atoi); err != nil {
				return wrong(err)
			}
			if opt.Sessions, err = values("sessions", "number: give a list as 1,4,16", sessions, strconv.Atoi); err != nil {
				return wrong(err)
			}
			if opt.RTT, err = values("rtt", "round trip: give a list as 1,10,50ms", rtt, parseRTT); err != nil {
				return wrong(err)
			}
			if opt.Loss, err = values("loss", "loss: give a list of per cents as 0,0.1,1", loss, parseLoss); err != nil {
				return wrong(err)
			}
			opt.Types = words(types)
			opt.Rate = int64(rateMbit * 1e6)
			opt.Bootstrap = clusterBootstrap
			opt.Fill()
			if err := opt.Check(); err != nil {
				return wrong(err)
			}
			if err := writable(htmlFile, report); err != nil {
				return wrong(err)
			}
			var r *icbench.Report
			if from != nil {
				r, err = readReports(from)
			} else {
				r, err = measure(cmd, flags, func(ctx context.Context, progress func(string)) (*icbench.Report, error) {
					opt.Progress = progress
					return icbench.Run(ctx, opt)
				})
			}
			if err != nil {
				return endedEarly(err, "the clusters")
			}
			if htmlFile != "" {
				err = toFile(htmlFile, r.HTML)
			}
			if report != "" {
				err = errors.Join(err, writeReport(report, r))
			}
			if err := errors.Join(err, flags.print(cmd.OutOrStdout(), r)); err != nil {
				return err
			}
			return flags.verdict(r)
		},
	}
	f := cmd.Flags()
	flags.add(f)
	f.StringVar(&types, "types", "", "`LIST` of interconnect types (default udpifc,tcp,proxy)")
	f.StringVar(&segments, "segments", "", "`LIST` of numbers of segments; a cluster for each (default 2,4,8,16)")
	f.StringVar(&sessions, "sessions", "", "`LIST` of numbers of sessions (default 1,8,32)")
	f.StringVar(&rtt, "rtt", "", "`LIST` of round trips of the WAN, in ms or as 50ms (default 1,10,50,100)")
	f.StringVar(&loss, "loss", "", "`LIST` of losses of the WAN, in per cent (default 0,0.1,1)")
	f.BoolVar(&opt.NoWAN, "no-wan", false, "loopback only")
	f.BoolVar(&opt.NoLoopback, "no-loopback", false, "WAN only")
	f.IntVar(&opt.Size, "size", 0, "`MB` that a gather brings over the WAN (default 100)")
	f.Float64Var(&rateMbit, "rate", 0, "`Mbit/s` of the WAN's links (default 80)")
	f.DurationVar(&opt.Limit, "limit", 0, "how long a query over the WAN may take (default 8s)")
	f.IntVar(&opt.WANSegments, "wan-segments", 0, "segments of the cluster over the WAN (default 3)")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds (default 3)")
	f.IntVar(&opt.WANRounds, "wan-rounds", 0, "rounds over the WAN (default 2)")
	f.DurationVar(&opt.Slot, "slot", 0, "how long a round runs a query on loopback (default 300ms)")
	f.IntVar(&opt.Rows, "rows", 0, "rows of the tables that are joined (default 10000)")
	f.IntVar(&opt.GatherRows, "gather-rows", 0, "rows of a gather on loopback (default 10000)")
	f.BoolVar(&opt.Quick, "quick", false, "a smaller matrix, less exact")
	f.StringVar(&htmlFile, "html", "", "write the report with plots into `FILE`, which needs no other")
	f.StringVar(&report, "report", "", "write the report as Markdown into `FILE.md`, and its plots beside it")
	f.StringArrayVar(&from, "from", nil, "measure nothing: make the report of what --json has printed into `FILE`;\nmore than one are parts of a run")
	return cmd
}

// parseRTT reads "50ms", or "50", which is the same.
func parseRTT(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Duration(n * float64(time.Millisecond)), nil
	}
	return time.ParseDuration(s)
}

// parseLoss reads per cents.
func parseLoss(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	return n / 100, err
}

// readReports reads a report, or the parts of one.
func readReports(paths []string) (*icbench.Report, error) {
	parts := make([]*icbench.Report, len(paths))
	for i, path := range paths {
		var err error
		if parts[i], err = readReport(path, icbench.Read); err != nil {
			return nil, err
		}
	}
	return icbench.Merge(parts)
}
