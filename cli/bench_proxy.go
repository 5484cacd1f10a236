package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/proxybench"
	"github.com/trunkline-db/trunkline/proxy"
)

func newBenchProxyCommand() *cobra.Command {
	var (
		proxies             []string
		dialect, pump, plot string
		budgetMB            int64
		flags               benchFlags
		opt                 proxybench.Options
	)
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Measure interconnect proxies, beside a byte pump",
		Long: `Plays the backends of interconnect proxies and measures how fast they carry
data, beside a byte pump: two relay processes that only move bytes from a socket
to another, with a TCP connection for every stream. Both get the same packets with
the same write calls, in turn, and every byte that comes out is compared with
what went in. Figures are medians of the rounds; the ratios to the byte pump say
more than the figures, which are those of this machine at this moment.

Without --proxy it starts two Trunkline proxies for the purpose. With it, given
for two proxies or more, it drives those, whoever made them; they must be
connected with each other:

  trunkline bench proxy --mode throughput \
    --proxy -1:1:/tmp/.s.PGSQL.ic_proxy.5432.1234 \
    --proxy 0:2:/tmp/.s.PGSQL.ic_proxy.6000.1235

Data goes from the second to the first; with more than two, from each to the one
before it. CPU and memory are those of the processes that listen at the sockets.

Without --mode it does the standard set, in two to three minutes, and compares
it with the bounds that must hold. The modes:

  throughput  --streams with packets of --size bytes, one write call a packet
  latency     one packet of --size bytes there and one back
  setup       open both ends, one packet, close; one after the other
  fair        setup beside --streams heavy streams, and what those keep of
              their rate alone
  unread      a live stream beside --connections whose receivers do not read,
              as much written to them as is taken
  many        memory of --connections that have carried a packet and are idle
  steady      heap allocations a packet, of proxies started for it
  link        one stream over an emulated link of 50 ms and 500 Mbit/s (root)
  soak        short connections and heavy streams for --time; memory and
              descriptors at intervals

The exit status is 0 when everything was measured, 1 when something could not
be, with --check 3 when a bound is missed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wrong := func(err error) error { return &usageError{cmd, err} }
			for _, s := range proxies {
				e, err := parseEndpoint(s)
				if err != nil {
					return wrong(err)
				}
				opt.Proxies = append(opt.Proxies, e)
			}
			switch dialect {
			case icwire.Magic36.String():
				opt.Dialect = icwire.Magic36
			case icwire.Plain32.String():
				opt.Dialect = icwire.Plain32
			default:
				return wrong(fmt.Errorf("invalid dialect %q: use magic36 or plain32", dialect))
			}
			if err := opt.Check(); err != nil {
				return wrong(err)
			}
			if flags.check && opt.Mode != "" {
				return wrong(errors.New("--check is for the standard set: leave out --mode"))
			}
			if err := writable(plot); err != nil {
				return wrong(err)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			opt.Budget = budgetMB << 20
			switch pump {
			case "none":
				opt.Pump, opt.OtherPump = "", false
			case proxybench.PumpSplice, proxybench.PumpCopy:
				opt.Pump, opt.OtherPump = pump, !opt.Quick
			default:
				return wrong(fmt.Errorf("invalid byte pump %q: use %s, %s or none", pump, proxybench.PumpSplice, proxybench.PumpCopy))
			}
			opt.Command = func(args ...string) *exec.Cmd { return exec.Command(self, benchArgs(args)...) }
			r, err := measure(cmd, flags, func(ctx context.Context, progress func(string)) (*proxybench.Report, error) {
				opt.Progress = progress
				return proxybench.Run(ctx, opt)
			})
			if err != nil {
				if errors.Is(err, context.Canceled) {
					return exitWith(1, errors.New("stopped"))
				}
				return err
			}
			if plot != "" {
				if err := toFile(plot, r.Plot); err != nil {
					return err
				}
			}
			if err := flags.print(cmd.OutOrStdout(), r); err != nil {
				return err
			}
			if len(r.Failures) > 0 {
				return exitWith(1, errors.New(strings.Join(r.Failures, "\n")))
			}
			return flags.verdict(r)
		},
	}
	f := cmd.Flags()
	flags.add(f)
	f.StringArrayVar(&proxies, "proxy", nil, "a proxy to drive, as `CONTENT:DBID:SOCKET`; give two or more")
	f.StringVar(&dialect, "dialect", icwire.Magic36.String(), `header of proxy packets: "magic36" or "plain32"`)
	f.StringVar(&pump, "pump", proxybench.PumpCopy, "`KIND` of byte pump to compare with: copy, splice or none")
	f.StringVar(&opt.Mode, "mode", "", "`MODE`: one of "+strings.Join(proxybench.Modes, ", "))
	f.BoolVar(&opt.Quick, "quick", false, "the standard set in half a minute, less exact")
	f.IntVar(&opt.Streams, "streams", 0, "heavy streams (default 8)")
	f.IntVar(&opt.Size, "size", 0, "`bytes` of a packet (default 8192, the longest Greenplum takes)")
	f.IntVar(&opt.Connections, "connections", 0, "connections of modes unread and many (default 10000)")
	f.DurationVar(&opt.Time, "time", 0, "how long a round takes, as 2s (default 1s; soak 20s)")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds (default 5)")
	f.DurationVar(&opt.SetupEvery, "setup-every", 0, "pause between connections of mode fair (default none)")
	f.Int64Var(&budgetMB, "budget", 0, "`MiB` of memory a proxy may have with unread connections (default 512)")
	f.StringVar(&plot, "plot", "", "draw the report into `FILE.svg`")
	return cmd
}

// benchArgs are the arguments by which the program does what a measurement
// needs a process for.
func benchArgs(args []string) []string {
	if args[0] == "proxy" {
		return args
	}
	return append([]string{"bench"}, args...)
}

// parseEndpoint reads "CONTENT:DBID:SOCKET".
func parseEndpoint(s string) (e proxybench.Endpoint, err error) {
	f := strings.SplitN(s, ":", 3)
	if len(f) == 3 && f[2] != "" {
		content, err1 := strconv.ParseInt(f[0], 10, 16)
		dbid, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil {
			return proxybench.Endpoint{Content: int16(content), Dbid: uint16(dbid), Socket: f[2]}, nil
		}
	}
	return e, fmt.Errorf("invalid proxy %q: use CONTENT:DBID:SOCKET, as 0:2:/tmp/.s.PGSQL.ic_proxy.6000.1235", s)
}

// newBenchRelayCommand is one process of the byte pump.
func newBenchRelayCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "relay KIND LISTEN CONNECT",
		Short:  "Copy between sockets, as a part of \"bench proxy\"",
		Hidden: true,
		Args:   cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() { // the one who started us ends us by this too
				_, _ = io.Copy(io.Discard, cmd.InOrStdin())
				cancel()
			}()
			return proxybench.Relay(ctx, args[0], args[1], args[2], func(addr string) { fmt.Fprintln(cmd.OutOrStdout(), addr) })
		},
	}
}

// newBenchProbeCommand is a proxy that says how much it allocates.
func newBenchProbeCommand() *cobra.Command {
	var dir, dialect string
	cmd := &cobra.Command{
		Use:    "probe -D DATADIR",
		Short:  "Run a proxy that counts its heap allocations, as a part of \"bench proxy\"",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := dataDirFlag(dir)
			if err != nil {
				return &usageError{cmd, err}
			}
			dia, err := proxy.ParseDialect(dialect)
			if err != nil {
				return &usageError{cmd, err}
			}
			return proxybench.Probe(cmd.Context(), d, dia, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&dir, "data-directory", "D", "", "the instance's data directory")
	cmd.Flags().StringVar(&dialect, "dialect", icwire.Magic36.String(), "header of proxy packets")
	return cmd
}
