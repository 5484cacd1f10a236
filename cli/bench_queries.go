package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/internal/querybench"
	"github.com/trunkline-db/trunkline/internal/tpch"
)

func newBenchQueriesCommand() *cobra.Command {
	var (
		types, queries, report, from string
		flags                        benchFlags
		opt                          querybench.Options
	)
	cmd := &cobra.Command{
		Use:   "queries",
		Short: "Compare a cluster with one PostgreSQL server by the queries of TPC-H",
		Long: `Makes a cluster and one plain PostgreSQL server, loads both with the same rows
of TPC-H, and runs its 22 queries on the plain server and on the cluster in each
interconnect type, in turn, round by round. It compares the times, and in each
round every answer with the plain server's. Nothing that is there already is
touched; what it makes lies below /tmp and is removed at the end, also after
Ctrl-C.

All servers have their default configuration, parallel query on. They listen on
127.0.0.1 and unix sockets only. Made by root, they run as user postgres.

A query that is not done after --limit is ended, on either side: the limit
counts as its time, it is marked, and not tried again there. Without --indexes
queries 17 and 20 take one PostgreSQL server minutes at a scale of 1; with it
both sides have indexes on the foreign keys.

In the end each query runs once more, in type proxy, under EXPLAIN ANALYZE: for
the bytes that segments send each other and the coordinator, the slices, and
whether the segments do all of the query or why not.

What must hold: no answer differs; at most 4 queries gather a base table on the
coordinator; in each type all queries together take at most 1.5 × the plain
server's time.

A run at scale 1 takes 10 to 25 minutes and 6 GB below /tmp. PostgreSQL must be
installed. The exit status is 0 when all was measured, 1 when something went
wrong, 130 after Ctrl-C; with --check an exit status of 3 when a bound is missed.`,
		Example: `  trunkline bench queries --scale 0.1
  trunkline bench queries --indexes --rounds 5 --check
  trunkline bench queries --scale 0.1 --query 9,13,17 --types proxy
  trunkline bench queries --report queries.md --json > queries.json
  trunkline bench queries --from queries.json --report queries.md`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wrong := func(err error) error { return &usageError{cmd, err} }
			var err error
			opt.Types = words(types)
			if opt.Queries, err = values("query", "number of a query: give a list as 1,9,17", queries, strconv.Atoi); err != nil {
				return wrong(err)
			}
			for name, given := range map[string]bool{"segments": opt.Segments != 0, "rounds": opt.Rounds != 0, "limit": opt.Limit != 0} {
				if cmd.Flags().Changed(name) && !given {
					return wrong(fmt.Errorf("--%s cannot be 0", name))
				}
			}
			if err := tpch.CheckScale(opt.Scale); err != nil {
				return wrong(fmt.Errorf("--%w", err))
			}
			opt.Bootstrap = clusterBootstrap
			opt.Fill()
			if err := opt.Check(); err != nil {
				return wrong(err)
			}
			if err := writable(report); err != nil {
				return wrong(err)
			}
			var r *querybench.Report
			if from != "" {
				r, err = readReport(from, querybench.Read)
			} else {
				r, err = measure(cmd, flags, func(ctx context.Context, progress func(string)) (*querybench.Report, error) {
					opt.Progress = progress
					return querybench.Run(ctx, opt)
				})
			}
			if err != nil {
				return endedEarly(err, "the servers")
			}
			if report != "" {
				err = writeReport(report, r)
			}
			if err := errors.Join(err, flags.print(cmd.OutOrStdout(), r)); err != nil {
				return err
			}
			return flags.verdict(r)
		},
	}
	f := cmd.Flags()
	flags.add(f)
	f.Float64Var(&opt.Scale, "scale", 1, "TPC-H's scale `factor`, from 0.001")
	f.IntVar(&opt.Segments, "segments", 0, "segments of the cluster (default 3)")
	f.StringVar(&types, "types", "", "`LIST` of interconnect types (default udpifc,tcp,proxy)")
	f.StringVar(&queries, "query", "", "`LIST` of numbers of queries (default all)")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds (default 3)")
	f.DurationVar(&opt.Limit, "limit", 0, "how long a query may take (default 1m0s)")
	f.BoolVar(&opt.Indexes, "indexes", false, "give both sides indexes on the foreign keys")
	f.StringVar(&report, "report", "", "write the report as Markdown into `FILE.md`, and its plot beside it")
	f.StringVar(&from, "from", "", "measure nothing: make the report of what --json has printed into `FILE`")
	return cmd
}
