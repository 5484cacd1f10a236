package tpch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"golang.org/x/sync/errgroup"
)

const (
	// chunkRows is about how many rows one COPY brings. Each is a transaction.
	chunkRows = 200_000
	// stallLimit is how long a COPY may take nothing, or not end.
	stallLimit = 5 * time.Minute
	// statementLimit bounds every other statement. A primary key on the largest
	// table takes minutes where loading it has taken an hour.
	statementLimit = 2 * time.Hour
	// cancelLimit is how long the server may take to end a statement that it
	// has been told to end.
	cancelLimit  = 5 * time.Second
	connectLimit = 30 * time.Second
	closeLimit   = 2 * time.Second
	// progressEvery is how often progress is told.
	progressEvery = time.Second
)

// ErrExist is matched by the error of [Load] when some of the tables are there.
var ErrExist = errors.New("there are tables already")

// Options say how to load.
type Options struct {
	Scale       float64
	Jobs        int  // connections that load at the same time, 1 or more
	Replace     bool // drop tables of these names first
	Distributed bool // with Greenplum's clauses; false for a single PostgreSQL server
	// Progress, if given, is called at each step and once a second, by one
	// goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a load has come.
type Progress struct {
	Step        string // what is going on
	Loading     bool   // it is rows that are brought
	Rows, Total int64  // sent, of all tables together
}

// Report is what a load has done.
type Report struct {
	Tables  []TableReport // in the order of [Tables]
	Elapsed time.Duration
}

// TableReport is what was done to one table. Tables are loaded at the same
// time, so their times overlap.
type TableReport struct {
	Table       Table
	Rows, Total int64         // committed, of how many
	Load        time.Duration // from its first row until its last is committed
	Key         time.Duration // making the primary key
	Analyze     time.Duration
}

// Load makes the tables, loads them, makes their primary keys and analyzes them,
// as a client of the server that cfg names. It ends early when ctx does: a
// COPY that runs is rolled back, those before it stay. The report says what was
// done until then, with an error, too.
func Load(ctx context.Context, cfg *pgconn.Config, opt Options) (*Report, error) {
	l := &loader{opt: opt, began: time.Now(), report: &Report{Tables: make([]TableReport, len(Tables))}}
	for i, t := range Tables {
		l.report.Tables[i].Table = t
	}
	err := l.run(ctx, cfg)
	l.report.Elapsed = time.Since(l.began)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // not what it broke
	}
	return l.report, err
}

type loader struct {
	opt   Options
	g     *Generator
	began time.Time
	conns []*pgconn.PgConn
	sent  atomic.Int64 // rows
	total int64

	mu     sync.Mutex // of what is below, and while Progress runs
	step   Progress
	chunks []chunk // still to be loaded
	first  map[Table]time.Time
	report *Report
}

// chunk is a part of a table that one COPY brings, in units.
type chunk struct {
	table    Table
	from, to int64
}

func (l *loader) run(ctx context.Context, cfg *pgconn.Config) (err error) {
	if l.g, err = New(l.opt.Scale); err != nil {
		return err
	}
	defer l.close()
	if err := l.connect(ctx, cfg); err != nil {
		return err
	}
	defer l.watch()()
	l.say("making the tables", false)
	if err := l.prepare(ctx); err != nil {
		return err
	}
	l.plan()
	l.say("loading", true)
	var workers errgroup.Group
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, conn := range l.conns {
		workers.Go(func() error {
			err := l.work(ctx, conn)
			if err != nil {
				cancel(err) // the others need not go on
			}
			return err
		})
	}
	if workers.Wait() != nil {
		return context.Cause(ctx) // the first error, not what it broke
	}
	return l.finish(ctx)
}

// connect opens the connections. A statement whose context ends is cancelled
// at the server.
func (l *loader) connect(ctx context.Context, cfg *pgconn.Config) error {
	cfg = cfg.Copy()
	cfg.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelLimit}
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	for range max(1, l.opt.Jobs) {
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		l.conns = append(l.conns, conn)
	}
	return nil
}

func (l *loader) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	for _, conn := range l.conns {
		_ = conn.Close(ctx)
	}
}

// prepare makes the tables.
func (l *loader) prepare(ctx context.Context) error {
	var names []string
	for _, t := range Tables {
		names = append(names, t.String())
	}
	there, err := l.exec(ctx, "select relname from pg_catalog.pg_class where relnamespace = current_schema()::regnamespace and relname in ('"+
		strings.Join(names, "', '")+"') order by relname")
	if err != nil {
		return err
	}
	if len(there) > 0 && !l.opt.Replace {
		return fmt.Errorf("%w: %s", ErrExist, strings.Join(there, ", "))
	}
	sql := "begin;"
	if len(there) > 0 {
		sql += "drop table " + strings.Join(there, ", ") + ";"
	}
	for _, t := range Tables {
		sql += t.Create(l.opt.Distributed) + ";"
	}
	_, err = l.exec(ctx, sql+"commit")
	return err
}

// plan divides the work: the largest tables last, for they have so many chunks
// that all connections are done at about the same time.
func (l *loader) plan() {
	var totals []int64
	for _, t := range Tables {
		totals = append(totals, l.g.Rows(t))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = map[Table]time.Time{}
	for i, t := range Tables {
		l.report.Tables[i].Total = totals[i]
		l.total += totals[i]
		units, n := l.g.Units(t), max(1, totals[i]/chunkRows)
		for k := range n {
			l.chunks = append(l.chunks, chunk{t, units * k / n, units * (k + 1) / n})
		}
	}
}

// work loads chunks until there are no more.
func (l *loader) work(ctx context.Context, conn *pgconn.PgConn) error {
	for {
		l.mu.Lock()
		if len(l.chunks) == 0 {
			l.mu.Unlock()
			return nil
		}
		c := l.chunks[0]
		l.chunks = l.chunks[1:]
		if _, ok := l.first[c.table]; !ok {
			l.first[c.table] = time.Now()
		}
		l.mu.Unlock()
		l.say("loading "+c.table.String(), true)
		n, err := l.copy(ctx, conn, c)
		if err != nil {
			return fmt.Errorf("load %v: %w", c.table, err)
		}
		l.mu.Lock()
		r := &l.report.Tables[c.table]
		r.Rows += n
		r.Load = time.Since(l.first[c.table])
		l.mu.Unlock()
	}
}

// copy brings one chunk and returns how many rows it has.
func (l *loader) copy(ctx context.Context, conn *pgconn.PgConn, c chunk) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallLimit, func() { cancel(fmt.Errorf("the server has taken nothing for %v", stallLimit)) })
	defer stalled.Stop()
	r := l.g.NewReader(c.table, c.from, c.to)
	told := int64(0)
	tag, err := conn.CopyFrom(ctx, readFunc(func(p []byte) (int, error) {
		stalled.Reset(stallLimit)
		n, err := r.Read(p)
		l.sent.Add(r.Rows() - told)
		told = r.Rows()
		return n, err
	}), "copy "+c.table.String()+" from stdin")
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.Is(err, net.ErrClosed):
		return 0, errors.New("the server has closed the connection") // what it said to that is lost behind what was sent
	case err != nil:
		return 0, err
	case tag.RowsAffected() != r.Rows():
		return 0, fmt.Errorf("%d rows were sent, the server has taken %d", r.Rows(), tag.RowsAffected())
	}
	return r.Rows(), nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// finish makes primary keys and statistics.
func (l *loader) finish(ctx context.Context) error {
	timed := func(what, sql string, d *time.Duration) error {
		l.say(what, false)
		began := time.Now()
		if _, err := l.exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		l.mu.Lock()
		*d = time.Since(began)
		l.mu.Unlock()
		return nil
	}
	for i, t := range Tables {
		r := &l.report.Tables[i]
		if err := timed("making the primary key of "+t.String(), t.PrimaryKey(), &r.Key); err != nil {
			return err
		}
		if err := timed("analyzing "+t.String(), "analyze "+t.String(), &r.Analyze); err != nil {
			return err
		}
	}
	return nil
}

// exec runs statements on the first connection and returns the first column of
// the rows.
func (l *loader) exec(ctx context.Context, sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	results, err := l.conns[0].Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, res := range results {
		for _, row := range res.Rows {
			list = append(list, string(row[0]))
		}
	}
	return list, nil
}

// say tells of a new step.
func (l *loader) say(step string, loading bool) {
	l.mu.Lock()
	l.step = Progress{Step: step, Loading: loading}
	l.mu.Unlock()
	l.tell()
}

func (l *loader) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opt.Progress != nil {
		p := l.step
		p.Rows, p.Total = l.sent.Load(), l.total
		l.opt.Progress(p)
	}
}

// watch tells of progress at intervals until the function it returns is called.
func (l *loader) watch() (stop func()) {
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				l.tell()
			}
		}
	})
	return func() {
		close(done)
		ticking.Wait()
	}
}
