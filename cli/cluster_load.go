package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/internal/tpch"
)

func newClusterLoadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Fill a database of a cluster with the data of a benchmark",
		Long: `Fill a database of a cluster with data that is made for the purpose. The same
arguments give the same rows, on every cluster.`,
	}
	cmd.AddCommand(newClusterLoadTPCHCommand())
	return cmd
}

// maxLoadJobs is more connections than a machine has use for.
const maxLoadJobs = 64

func newClusterLoadTPCHCommand() *cobra.Command {
	var database string
	var progress bool
	o := tpch.Options{Distributed: true}
	cmd := &cobra.Command{
		Use:   "tpch [DIR]",
		Short: "Make and fill the eight tables of TPC-H",
		Long: `Make the eight tables of TPC-H and fill them: something of a size of your
choice to query when you try a cluster, compare its interconnect types or learn
how a plan moves rows. DIR is the cluster's directory; after "source DIR/env.sh"
it may be left out. The cluster must run.

The data is made while it is loaded, by the benchmark's specification: its
numbers of rows, keys and distributions, though not the very rows that the
benchmark's own tool makes. Rows come through the coordinator by COPY, as an
ordinary client sends them. Then the tables get their primary keys and ANALYZE.

    scale   rows           bytes
    0.01    86 thousand    11 MB
    0.1     867 thousand   107 MB
    1       8.7 million    1.1 GB
    10      87 million     11 GB

In the database they take half as much again, with the keys. Each table is
distributed by its key, lines with their orders and suppliers of a part with
the part; nation and region are replicated.

The database is made if it is not there. Tables of these names that are there
are an error; with --replace they are dropped first, in one transaction with
the making of the new ones.

Ctrl-C ends it. What is committed by then stays, and is said; to go on, begin
anew with --replace.

Exit status: 0 done, 1 failed, 130 after Ctrl-C.`,
		Example: `  trunkline cluster load tpch /srv/mpp --scale 0.1
  trunkline cluster load tpch --scale 1 --jobs 4 --database bench
  trunkline cluster load tpch --scale 0.01 --replace
  psql -d tpch -c "explain select count(*) from lineitem join part on l_partkey = p_partkey"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wrong := func(err error) error { return &usageError{cmd, err} }
			if err := tpch.CheckScale(o.Scale); err != nil {
				return wrong(fmt.Errorf("--%w", err))
			}
			if o.Jobs < 1 || o.Jobs > maxLoadJobs {
				return wrong(fmt.Errorf("--jobs %d: it goes from 1 to %d", o.Jobs, maxLoadJobs))
			}
			if database == "" {
				return wrong(errors.New("--database is empty"))
			}
			dir := ""
			if len(args) > 0 {
				dir = args[0]
			}
			dir, err := coordinatorDir(dir)
			if err != nil {
				return wrong(errors.New("DIR is missing: name the cluster's directory, or source its env.sh first"))
			}
			cfg, err := loadTarget(cmd.Context(), dir, database)
			if err != nil {
				return err
			}
			if err := ensureDatabase(cmd.Context(), cfg); err != nil {
				return interrupted(cmd.Context(), err)
			}
			show := progressLine(cmd.ErrOrStderr(), progress)
			o.Progress = loadProgress(show)
			r, err := tpch.Load(cmd.Context(), cfg, o)
			show.clear()
			switch {
			case errors.Is(err, context.Canceled):
				return exitWith(130, fmt.Errorf("interrupted\n%s", loadLeft(r, database)))
			case errors.Is(err, tpch.ErrExist):
				return fmt.Errorf("in database %s %w\n--replace drops them first; --database names another database", database, err)
			case err != nil:
				return fmt.Errorf("%w\n%s", err, loadLeft(r, database))
			}
			return writeLoad(cmd.OutOrStdout(), r)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&o.Scale, "scale", 0.1, "the benchmark's scale `factor`, from 0.001")
	f.StringVar(&database, "database", "tpch", "the `name` of the database; it is made if it is not there")
	f.IntVar(&o.Jobs, "jobs", min(4, runtime.GOMAXPROCS(0)), "how many connections load at the same time")
	f.BoolVar(&o.Replace, "replace", false, "drop tables of these names first")
	f.BoolVar(&progress, "progress", false, "show what is going on even if standard error is no terminal")
	return cmd
}

// loadTarget is how to connect to the coordinator of the cluster of a
// directory, which must run.
func loadTarget(ctx context.Context, dir, database string) (*pgconn.Config, error) {
	c, err := cluster.Open(dir)
	if err != nil {
		return nil, err
	}
	list, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, st := range list {
		if st.IsCoordinator() && !st.Running {
			return nil, fmt.Errorf("the cluster in %s does not run; start it with `trunkline cluster start %[1]s`", c.Dir())
		}
	}
	co := c.Coordinator()
	return clientConfig("trunkline cluster load", co.Address, strconv.Itoa(co.Port), database, "")
}

// ensureDatabase makes the database if it is not there.
func ensureDatabase(ctx context.Context, cfg *pgconn.Config) error {
	err := runOnce(ctx, cfg, "")
	if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "3D000" {
		return err
	}
	other := cfg.Copy()
	other.Database = "postgres"
	return runOnce(ctx, other, "create database "+pgx.Identifier{cfg.Database}.Sanitize())
}

// runOnce connects, runs one statement, if any, and disconnects.
func runOnce(ctx context.Context, cfg *pgconn.Config, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if sql == "" {
		return nil
	}
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}

// loadLine is how often a line of progress is printed where there is no
// terminal.
const loadLine = 10 * time.Second

// loadProgress shows how far a load has come, and at which rate, which is that
// of the whole load.
func loadProgress(show *progressShow) func(tpch.Progress) {
	var began, last time.Time // when rows began to come; when a line was printed
	step := ""
	return func(p tpch.Progress) {
		now := time.Now()
		if p.Loading && began.IsZero() {
			began = now
		}
		if !show.terminal && p.Step == step && now.Sub(last) < loadLine {
			return
		}
		step, last = p.Step, now
		line := p.Step
		if s := now.Sub(began).Seconds(); p.Loading && s > 0 {
			line += fmt.Sprintf(": %s of %s rows (%d %%), %s a second", thousands(p.Rows), thousands(p.Total),
				100*p.Rows/max(1, p.Total), thousands(int64(float64(p.Rows)/s)))
		}
		show.step(line)
	}
}

// writeLoad prints what was done to each table.
func writeLoad(w io.Writer, r *tpch.Report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }
	fmt.Fprintln(tw, "TABLE\tROWS\tLOAD S\tROWS/S\tKEY S\tANALYZE S\t")
	rows := int64(0)
	for _, t := range r.Tables {
		rows += t.Rows
		fmt.Fprintf(tw, "%v\t%d\t%s\t%.0f\t%s\t%s\t\n", t.Table, t.Rows, seconds(t.Load),
			float64(t.Rows)/max(t.Load.Seconds(), 1e-3), seconds(t.Key), seconds(t.Analyze))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s rows in %s s. Tables are loaded at the same time, so their seconds overlap.\n", thousands(rows), seconds(r.Elapsed))
	return err
}

// loadLeft says what a load that has not come to its end has left.
func loadLeft(r *tpch.Report, database string) string {
	var whole, part, none []string
	keys := 0
	for _, t := range r.Tables {
		switch {
		case t.Total == 0: // it has not come that far
		case t.Rows == t.Total:
			whole = append(whole, t.Table.String())
		case t.Rows > 0:
			part = append(part, fmt.Sprintf("%v (%s of %s rows)", t.Table, thousands(t.Rows), thousands(t.Total)))
		default:
			none = append(none, t.Table.String())
		}
		if t.Key > 0 {
			keys++
		}
	}
	if whole == nil && part == nil && none == nil {
		return fmt.Sprintf("nothing was loaded into database %s", database)
	}
	var said []string
	for _, s := range []struct {
		what string
		list []string
	}{{"complete: ", whole}, {"in part: ", part}, {"empty: ", none}} {
		if s.list != nil {
			said = append(said, s.what+strings.Join(s.list, ", "))
		}
	}
	line := fmt.Sprintf("database %s has the tables; %s", database, strings.Join(said, "; "))
	if keys < len(r.Tables) {
		line += fmt.Sprintf("; %d of %d have their primary key", keys, len(r.Tables))
	}
	return line + "\nto begin anew, give --replace"
}
