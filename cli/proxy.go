package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/proxy"
)

var _ = register(newProxyCommand)

// proxyAnswer bounds how long `proxy status` waits for the proxy.
const proxyAnswer = 5 * time.Second

func newProxyCommand() *cobra.Command {
	var dir, dialect string
	var set []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "proxy -D DATADIR",
		Short: "Run the interconnect proxy of one instance",
		Long: `Runs the interconnect proxy of the instance with that data directory, until
SIGTERM or SIGINT. It reads the dbid from internal.auto.conf, port and process id
of the server from postmaster.pid, whose changes it follows, and the content id,
gp_interconnect_proxy_addresses and its own parameters from postgresql.conf, the
files that includes, and postgresql.auto.conf.

Its own parameters, with their defaults:

` + ownParameters() + `

Where gp_interconnect_proxy_addresses is empty, trunkline.proxy_addresses is the
list. -c sets a parameter for this process and goes before the files.

SIGHUP makes it read postgresql.conf again, as "gpstop -u" does in a cluster
made by "trunkline cluster create", where each instance runs its own proxy.
Peers whose entry has not changed are not touched.

The log goes to the standard error output.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// From here on SIGHUP must not end the process.
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			d, err := dataDirFlag(dir)
			if err != nil {
				return &usageError{cmd, err}
			}
			settings, err := settingFlags(set)
			if err != nil {
				return &usageError{cmd, err}
			}
			cfg, err := proxy.ConfigFor(d, settings...)
			if err != nil {
				return err
			}
			if dialect != "" {
				if cfg.Dialect, err = proxy.ParseDialect(dialect); err != nil {
					return &usageError{cmd, err}
				}
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			cfg.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runProxy(cmd.Context(), cfg, hup)
		},
	}
	cmd.PersistentFlags().StringVarP(&dir, "data-directory", "D", "", "the instance's data directory")
	cmd.Flags().StringVar(&dialect, "dialect", "", `header of proxy packets: "magic36" (Greenplum 6.24 and later, 7), "plain32" (before, and Cloudberry),
"auto" (from the first backend or peer); default auto beside Greenplum, magic36 in an embedded cluster`)
	cmd.Flags().StringArrayVarP(&set, "set", "c", nil, "set a parameter, as `name=value`; may be repeated")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	cmd.AddCommand(newProxyStatusCommand(&dir))
	return cmd
}

// ownParameters lists the parameters of this command for its help.
func ownParameters() string {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, p := range guc.AllProxy() {
		value := p.Show(p.Default)
		if value == "" {
			value = "''"
		}
		short := strings.TrimSuffix(p.Short, ".")
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", p.Name, value, strings.ToLower(short[:1])+short[1:])
	}
	_ = tw.Flush() // a Builder takes everything
	return strings.TrimRight(b.String(), "\n")
}

// settingFlags reads the values of -c and checks those it knows.
func settingFlags(set []string) (l []guc.Setting, err error) {
	for _, s := range set {
		name, value, ok := strings.Cut(s, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" {
			return nil, fmt.Errorf("-c %s: want name=value", s)
		}
		p, known := guc.LookupProxy(name)
		if !known {
			p, known = guc.Lookup(name)
		}
		if !known {
			return nil, fmt.Errorf("-c %s: %w", s, guc.ErrUnknown(name))
		}
		if _, err := p.Parse(value); err != nil {
			return nil, fmt.Errorf("-c %s: %w", s, err)
		}
		l = append(l, guc.Setting{Name: name, Value: value, Raw: guc.Quote(value), File: "-c"})
	}
	return l, nil
}

func runProxy(ctx context.Context, cfg proxy.Config, hup <-chan os.Signal) error {
	p, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	limitMemory(p)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-hup:
			// What is wrong is in the log, and in the status.
			if err := p.Reload(); errors.Is(err, proxy.ErrStopped) {
				return <-done
			}
			limitMemory(p)
		}
	}
}

// limitMemory lets the garbage collector work harder before the process has
// more memory than the proxy's budget.
func limitMemory(p *proxy.Proxy) { debug.SetMemoryLimit(p.Memory() - p.Memory()/16) }

func dataDirFlag(dir string) (datadir.Dir, error) {
	if dir == "" {
		return "", errors.New("the data directory is missing: use -D DATADIR")
	}
	abs, err := filepath.Abs(dir)
	return datadir.Dir(abs), err
}

func newProxyStatusCommand(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status -D DATADIR",
		Short: "Show how an instance's proxy is, and why peers cannot be reached",
		Long: `Asks the running proxy of the instance with that data directory how it is: its
sockets, and for each other instance of the address list whether it is
connected, since when, and if not, why.

The exit status is 0 when every instance that should be connected is, 3 when one
is not, and 4 when no proxy is running.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := dataDirFlag(*dir)
			if err != nil {
				return &usageError{cmd, err}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), proxyAnswer)
			defer cancel()
			s, err := proxy.ReadStatus(ctx, d.ProxySocket())
			if errors.Is(err, proxy.ErrStopped) {
				return exitWith(4, err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(s)
			} else {
				err = printProxyStatus(cmd.OutOrStdout(), s, time.Now())
			}
			if err == nil && !s.Healthy() {
				err = exitWith(3, nil)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func printProxyStatus(w io.Writer, s proxy.Status, now time.Time) error {
	fmt.Fprintf(w, "Proxy of seg%d (dbid %d), process %d\n", s.Content, s.Dbid, s.Pid)
	for _, l := range [][2]string{
		{"Problem", s.Problem},
		{"Configuration", s.ConfigError},
		{"Server", postmasterOf(s)},
		{"Backends' socket", orElse(s.Socket, "none") + inParens(s.SocketError)},
		{"Listening on", listening(s.Listener)},
		{"Header dialect", s.Dialect},
		{"Backends", fmt.Sprintf("%d connected, %d awaited, %d refused", s.Backends, s.Early, s.Refused)},
		{"Memory", fmt.Sprintf("%s of %s granted", byteCount(uint64(s.Memory.Granted)), byteCount(uint64(s.Memory.Budget)))},
		{"Strangers", strangers(s)},
	} {
		if l[1] != "" {
			fmt.Fprintf(w, "%-18s%s\n", l[0]+":", l[1])
		}
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "DBID\tCONTENT\tADDRESS\tROLE\tSTATE\tFOR\tCONNECTIONS\tRECEIVED\tSENT\tROUND TRIP")
	for _, p := range s.Peers {
		fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\t%v\t%d\t%s\t%s\t%s\n", p.Dbid, p.Content, p.Address, p.Role, p.State,
			now.Sub(p.Since).Round(time.Second), p.Connections, byteCount(p.BytesIn), byteCount(p.BytesOut), roundTrip(p))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i, p := range s.Missing() {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, p.Cause)
	}
	return nil
}

func roundTrip(p proxy.PeerStatus) string {
	if p.RTT == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f ms", p.RTT)
}

func postmasterOf(s proxy.Status) string {
	if s.Server == 0 {
		return "not running" + inParens(s.ServerError)
	}
	return fmt.Sprintf("process %d", s.Server)
}

// strangers is "" if there have been none.
func strangers(s proxy.Status) string {
	if s.Rejected == 0 && s.Strangers == 0 {
		return ""
	}
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(s.Rejections)) {
		if n := s.Rejections[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, k))
		}
	}
	return fmt.Sprintf("%d closed%s, %d silent so far", s.Rejected, inParens(strings.Join(kinds, ", ")), s.Strangers)
}

func listening(l proxy.ListenerStatus) string {
	if l.Bound || l.Address == "" {
		return l.Address
	}
	return l.Address + ", not bound" + inParens(l.Error)
}

func inParens(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func byteCount(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 999.95 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}
