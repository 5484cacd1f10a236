package icbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/internal/benchreport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
)

// bench is a run.
type bench struct {
	opt    Options
	dir    string // temporary; the clusters are below it
	sites  int    // made so far
	left   error  // why clusters are not removed
	report *Report
}

// Run measures. It ends early, with every cluster and network it made removed,
// when ctx does; then its error is a [benchreport.Interrupted].
func Run(ctx context.Context, opt Options) (_ *Report, err error) {
	opt.Fill()
	if err := opt.Check(); err != nil {
		return nil, err
	}
	if err := makeRoom(&opt); err != nil {
		return nil, err
	}
	b := &bench{opt: opt, report: &Report{Version: 1, Started: time.Now(), Machine: benchreport.ThisMachine(), Quick: opt.Quick, Setup: setup(&opt)}}
	// Short, for unix sockets lie below it, and open to the system user that
	// runs the servers when root does this.
	if b.dir, err = os.MkdirTemp("/tmp", "tlic"); err != nil {
		return nil, err
	}
	defer func() {
		rerr := os.RemoveAll(b.dir)
		err = errors.Join(err, rerr)
		if ctx.Err() != nil {
			err = &benchreport.Interrupted{Cause: ctx.Err(), Left: errors.Join(b.left, rerr)}
		}
	}()
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	if err := wan.Available(); err != nil {
		b.note("Counters of bytes, packets and retransmissions on loopback are those of the whole machine: %v", err)
	} else {
		b.report.Setup.Namespaces = true
	}
	if !opt.NoLoopback {
		for _, n := range opt.Segments {
			if err := b.loopback(ctx, n); err != nil {
				return nil, err
			}
		}
	}
	if !opt.NoWAN {
		if err := b.far(ctx); err != nil {
			return nil, err
		}
	}
	b.report.finish()
	b.report.Seconds = time.Since(b.report.Started).Seconds()
	return b.report, nil
}

func setup(o *Options) Setup {
	s := Setup{
		Types: o.Types, Segments: o.Segments, Sessions: o.Sessions, Rounds: o.Rounds, SlotMS: benchreport.Milliseconds(o.Slot), Rows: o.Rows, GatherRows: o.GatherRows,
		WANSegments: o.WANSegments, RateMbit: float64(o.Rate) / 1e6, GatherMB: o.Size, LimitS: o.Limit.Seconds(), WANRounds: o.WANRounds,
	}
	for _, d := range o.RTT {
		s.RTTMS = append(s.RTTMS, benchreport.Milliseconds(d))
	}
	for _, p := range o.Loss {
		s.LossPercent = append(s.LossPercent, 100*p)
	}
	return s
}

func (b *bench) say(format string, args ...any) {
	if b.opt.Progress != nil {
		b.opt.Progress(fmt.Sprintf(format, args...))
	}
}

// note adds a sentence to the report, once.
func (b *bench) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(b.report.Notes, s) {
		b.report.Notes = append(b.report.Notes, s)
	}
}

// openSessions opens n sessions of a type.
func (s *site) openSessions(ctx context.Context, typ string, n int) ([]*session, error) {
	list := make([]*session, n)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range list {
		g.Go(func() (err error) {
			list[i], err = s.connect(ctx, typ)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		closeSessions(list)
		return nil, err
	}
	return list, nil
}

func closeSessions(list []*session) {
	var g errgroup.Group
	for _, c := range list {
		if c != nil {
			g.Go(func() error { c.close(); return nil })
		}
	}
	_ = g.Wait()
}

// together runs f for each session at once and returns the first error.
func together(list []*session, f func(i int, c *session) error) error {
	var g errgroup.Group
	for i, c := range list {
		g.Go(func() error { return f(i, c) })
	}
	return g.Wait()
}

func movedBy(list []*session) (n int64) {
	for _, c := range list {
		n += c.moved.Load()
	}
	return n
}
