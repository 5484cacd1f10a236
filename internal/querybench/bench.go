package querybench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/internal/tpch"
	"github.com/trunkline-db/trunkline/topology"
)

const (
	loopback = "127.0.0.1"
	// proxyDelta leads from an instance's port to its proxy's.
	proxyDelta = -1000
	// readyTime bounds the wait until the proxies are connected.
	readyTime = 30 * time.Second
	// removeTime bounds the removal of the cluster.
	removeTime = 90 * time.Second
	// tidyTime bounds each VACUUM and index, which take seconds at a scale of 1.
	tidyTime = 2 * time.Hour
	// explainFactor times the limit is that of EXPLAIN ANALYZE: counting takes
	// time, and its time is not what is measured.
	explainFactor = 3
	// maxJobs is how many connections load at the same time.
	maxJobs = 4
)

// bench is a run.
type bench struct {
	opt     Options
	queries []tpch.Query
	c       *cluster.Cluster
	plain   *side
	types   []*side
	// refs are the answers that others are compared with, by query.
	refs   map[int]answer
	left   error // why the cluster is not removed
	report *Report
}

// answer is one that a side has given.
type answer struct {
	side string
	rows []string
}

// Run measures. It ends early when ctx does, with a [benchreport.Interrupted].
// What it made, servers and files, is removed in any case.
func Run(ctx context.Context, opt Options) (_ *Report, err error) {
	opt.Fill()
	if err := opt.Check(); err != nil {
		return nil, err
	}
	b := &bench{opt: opt, refs: map[int]answer{}, report: &Report{
		Version: version, Started: time.Now(), Machine: benchreport.ThisMachine(),
		Setup: Setup{Scale: opt.Scale, Segments: opt.Segments, Types: opt.Types, Rounds: opt.Rounds, LimitS: opt.Limit.Seconds(), Indexes: opt.Indexes},
	}}
	all, err := tpch.Queries(opt.Scale)
	if err != nil {
		return nil, err
	}
	for _, q := range all {
		if slices.Contains(opt.Queries, q.Number) {
			b.queries = append(b.queries, q)
			b.report.Queries = append(b.report.Queries, &Query{Number: q.Number, Title: q.Title})
		}
	}
	// Short, for unix sockets lie below it, and open to the system user that
	// runs the servers when root does this.
	dir, err := os.MkdirTemp("/tmp", "tlqb")
	if err != nil {
		return nil, err
	}
	defer func() {
		rerr := os.RemoveAll(dir)
		err = errors.Join(err, rerr)
		if ctx.Err() != nil {
			err = &benchreport.Interrupted{Cause: ctx.Err(), Left: errors.Join(b.left, rerr)}
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b.say("making the plain PostgreSQL server")
	err = cluster.RunPlain(ctx, filepath.Join(dir, "pg"), func(ctx context.Context, socketDir string) error {
		b.plain = &side{name: Plain, host: socketDir, port: instance.PlainPort}
		defer b.plain.close()
		return b.withCluster(ctx, filepath.Join(dir, "c"))
	})
	if err != nil {
		return nil, err
	}
	b.report.finish()
	b.report.Seconds = time.Since(b.report.Started).Seconds()
	return b.report, nil
}

// withCluster makes the cluster, measures, and removes the cluster.
func (b *bench) withCluster(ctx context.Context, dir string) (err error) {
	port, err := freeport.Adjacent(b.opt.Segments+1, proxyDelta)
	if err != nil {
		return err
	}
	var list topology.AddressList
	for k := range b.opt.Segments + 1 {
		list = append(list, topology.Entry{Dbid: uint16(k + 1), Content: int16(k - 1), Host: loopback, Port: port + k + proxyDelta})
	}
	b.say("making the cluster")
	b.c, err = cluster.Create(ctx, cluster.Options{
		Dir: dir, Segments: b.opt.Segments, Port: port, Address: loopback, Binary: b.opt.Binary, Bootstrap: b.opt.Bootstrap,
		Conf:     []string{"gp_interconnect_proxy_addresses='" + list.String() + "'"},
		Progress: func(line string) { b.say("%s", line) },
	})
	if err != nil {
		return err
	}
	defer func() {
		b.say("removing the cluster")
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer cancel()
		b.left = b.c.Destroy(rctx)
		err = errors.Join(err, b.left)
	}()
	for _, t := range b.opt.Types {
		b.types = append(b.types, b.clusterSide(t))
	}
	defer func() {
		for _, s := range b.types {
			s.close()
		}
	}()
	if err := b.c.AwaitProxies(ctx, readyTime); err != nil {
		return err
	}
	if err := b.loadAll(ctx); err != nil {
		return err
	}
	if err := b.rounds(ctx); err != nil {
		return err
	}
	return b.explainAll(ctx)
}

// clusterSide is the cluster in sessions of an interconnect type.
func (b *bench) clusterSide(typ string) *side {
	return &side{name: typ, host: loopback, port: b.c.Coordinator().Port, options: "-c gp_interconnect_type=" + typ}
}

// loadAll brings the same rows to both sides.
func (b *bench) loadAll(ctx context.Context) error {
	for _, s := range []*side{b.plain, b.clusterSide(Types[0])} {
		what := "the cluster"
		if s == b.plain {
			what = "the plain server"
		}
		began := time.Now()
		if err := b.load(ctx, s, what); err != nil {
			return fmt.Errorf("load %s: %w", what, err)
		}
		if s == b.plain {
			b.report.Load.PlainS = time.Since(began).Seconds()
		} else {
			b.report.Load.ClusterS = time.Since(began).Seconds()
		}
	}
	// What loading has left to be written is not to be written while queries
	// run.
	all := []*side{b.plain}
	for _, inst := range b.c.Instances() {
		all = append(all, &side{name: fmt.Sprint(inst), host: inst.Address, port: inst.Port, options: "-c gp_role=utility"})
	}
	for _, s := range all {
		b.say("checkpoint")
		err := s.do(ctx, tidyTime, "checkpoint")
		if s != b.plain {
			s.close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// load makes one side's tables.
func (b *bench) load(ctx context.Context, s *side, what string) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	last := ""
	r, err := tpch.Load(ctx, cfg, tpch.Options{
		Scale: b.opt.Scale, Jobs: min(maxJobs, runtime.GOMAXPROCS(0)), Distributed: s != b.plain,
		Progress: func(p tpch.Progress) {
			line := p.Step
			if p.Loading && p.Total > 0 {
				line = fmt.Sprintf("loading, %d %%", p.Rows*20/p.Total*5)
			}
			if line != last { // it is told more often than there is something new
				b.say("%s: %s", what, line)
			}
			last = line
		},
	})
	if err != nil {
		return err
	}
	rows := int64(0)
	for _, t := range r.Tables {
		rows += t.Rows
	}
	b.report.Load.Rows = rows
	defer s.close()
	if b.opt.Indexes {
		for _, sql := range tpch.ForeignKeyIndexes() {
			b.say("%s: %s", what, sql)
			if err := s.do(ctx, tidyTime, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
	}
	// Or else autovacuum did it meanwhile, sooner or later on one side.
	for _, t := range tpch.Tables {
		b.say("%s: vacuum analyze %v", what, t)
		if err := s.do(ctx, tidyTime, "vacuum analyze "+t.String()); err != nil {
			return fmt.Errorf("vacuum %v: %w", t, err)
		}
	}
	return nil
}

// rounds runs each query on each side, in turn, as often as there are rounds.
func (b *bench) rounds(ctx context.Context) error {
	for round := range b.opt.Rounds {
		for i, q := range b.queries {
			// Each type comes first as often as the others: the second has what
			// the first has brought into the segments' memory.
			sides := []*side{b.plain}
			for k := range b.types {
				sides = append(sides, b.types[(round+i+k)%len(b.types)])
			}
			for _, s := range sides {
				b.say("round %d of %d, query %d, %s", round+1, b.opt.Rounds, q.Number, s.name)
				if err := b.measure(ctx, s, q, b.report.Queries[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measure runs a query once, unless that side has failed in it before, and
// compares the answer. Only the end of the whole run is an error.
func (b *bench) measure(ctx context.Context, s *side, q tpch.Query, rep *Query) error {
	run := rep.run(s.name)
	if run.Unfinished || run.Error != "" {
		return nil
	}
	rows, took, err := s.ask(ctx, q.SQL, b.opt.Limit)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errLimit):
		run.Unfinished = true
		run.RoundsMS = append(run.RoundsMS, benchreport.Milliseconds(b.opt.Limit))
		if s.conn == nil {
			b.note("Query %d, %s: it did not end within %v of being told to; what came next may have been slower for it.", q.Number, s.name, endTime)
		}
		return nil
	case err != nil:
		run.Error = benchreport.FirstLine(err)
		return nil
	}
	run.RoundsMS = append(run.RoundsMS, benchreport.Milliseconds(took))
	ref, known := b.refs[q.Number]
	if s.name == Plain || !known {
		rep.Rows, rep.Reference = len(rows), s.name
		b.refs[q.Number] = answer{s.name, rows}
	}
	if known {
		run.Compared++
		if diff := q.Differ(ref.rows, rows); diff != "" {
			run.Differ++
			run.Difference = diff
		}
	}
	return nil
}

// explainAll asks for the plan of each query as it was run.
func (b *bench) explainAll(ctx context.Context) error {
	const typ = "proxy"
	s := b.clusterSide(typ)
	defer s.close()
	for i, q := range b.queries {
		b.say("explain analyze of query %d, %s", q.Number, typ)
		p, err := s.explain(ctx, q.SQL, explainFactor*b.opt.Limit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p = &Plan{Error: benchreport.FirstLine(err)}
		}
		b.report.Queries[i].Plan = p
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	if b.opt.Progress != nil {
		b.opt.Progress(fmt.Sprintf(format, args...))
	}
}

func (b *bench) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, fmt.Sprintf(format, args...))
}
